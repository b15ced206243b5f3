//! Several processes: what one that dies costs, and who may attach. What holds in both placements is tested elsewhere.

use std::process::Command;

use cellmesh_tests::upstream::nobody;
use cellmesh_tests::{Attaching, Node, Reply, Run, Wire, program, sample};
use serde_json::Value;

/// Two workers, each with all services.
fn two_workers(settings: &str) -> Node {
    let toml = format!(
        r#"
        [dpu]
        {settings}
        [[cell]]
        component = "{{cells}}/unruly.wasm"
        services = ["bad"]
        handler_timeout = "20s"
        "#
    );
    Run::app(&toml).replicas(2).start()
}

/// The answers to four requests that take long, two on each worker, of which one is killed meanwhile.
fn answers_to_four(node: &Node, method: &str) -> Vec<Reply> {
    let mut asked: Vec<Wire> = (0..4)
        .map(|_| {
            let mut wire = node.connect();
            wire.ask(method, "bad", "/step/sleep:1500");
            wire
        })
        .collect();
    node.until_begun(4);
    node.kill_worker(0);
    asked.iter_mut().map(Wire::reply).collect()
}

fn lost(replies: &[Reply]) -> usize {
    let is_lost =
        |reply: &&Reply| reply.status == 502 && reply.header("x-cellmesh-error") == Some("worker-lost");
    let lost = replies.iter().filter(is_lost).count();
    assert_eq!(
        lost + replies.iter().filter(|reply| reply.status == 200).count(),
        replies.len(),
        "{replies:?}"
    );
    lost
}

/// Requests go to the worker with fewer in flight; what was on a worker that dies is lost and told so, the rest is not.
#[test]
fn dead_worker_costs_what_was_on_it() {
    let node = two_workers("");
    assert_eq!(lost(&answers_to_four(&node, "GET")), 2);
    assert_eq!(node.get("bad", "/").status, 200);
    for message in ["attached", "detached"] {
        let is_told = |line: &Value| {
            let text = line["message"].as_str().unwrap_or_default();
            text.starts_with(message) && line["services"].as_str().is_some_and(|names| names.contains("bad"))
        };
        let _ = node.log().wait_for("whose worker it was", is_told);
    }
}

/// Where config allows it, a request that may be done twice goes to another worker; one that may not is lost.
#[test]
fn idempotent_requests_go_to_another_worker() {
    let retried = answers_to_four(&two_workers("retry_worker_lost = true"), "GET");
    assert_eq!(lost(&retried), 0);
    let not_retried = answers_to_four(&two_workers("retry_worker_lost = true"), "POST");
    assert_eq!(lost(&not_retried), 2);
}

/// The same for calls of cells, each of which is made once more by the worker that made it.
#[test]
fn idempotent_calls_of_cells_go_to_another_worker() {
    const ASKED: usize = 8;
    let node = two_workers("retry_worker_lost = true");
    let mut asked: Vec<Wire> =
        (0..ASKED).map(|_| node.start_get("bad", "/order?url=http://bad/step/sleep:1500")).collect();
    node.until_begun(ASKED);
    node.kill_worker(0);
    let replies: Vec<Reply> = asked.iter_mut().map(Wire::reply).collect();
    assert_eq!(lost(&replies), 0);
}

/// Without a worker a service is unavailable, at once and by name; the node goes on.
#[test]
fn service_without_worker_is_unavailable() {
    let node = two_workers("");
    node.kill_worker(0);
    node.kill_worker(0);
    node.until("503", |node| node.get("bad", "/").status == 503);
    let reply = node.get("bad", "/");
    assert_eq!(reply.header("x-cellmesh-error"), Some("no-worker"));
    assert_eq!(reply.json()["error"], "no worker serves \"bad\"");
    let said =
        |line: &Value| line.to_string().contains("no worker serves bad: requests to them are answered 503");
    drop(node.log().wait_for("the outage", said));
}

/// A worker that fails again and again gets no requests, of clients and of cells, until its rule is gone.
#[test]
fn outliers_are_ejected() {
    let admin = nobody();
    let toml = |rule: &str| {
        format!(
            r#"
            [admin]
            listen = "{admin}"
            {rule}
            [[cell]]
            component = "{{cells}}/unruly.wasm"
            services = ["front", "back"]
            instances_max = 1
            "#
        )
    };
    let with_rule = toml("[service.back.outlier]\nfailures_max = 3\nejection = \"1h\"");
    let node = Run::app(&with_rule).workers(&[&["back"], &["back"], &["front"]]).start();
    assert_eq!(node.get("back", "/sicken").ok().text(), "ok\n");
    let failed = (0..200).filter(|_| node.get("back", "/").status == 500).count();
    assert_eq!((failed, sample(admin, "outliers_ejected")), (3, 1));
    for _ in 0..20 {
        assert_eq!(node.get("back", "/").ok().text(), "ok\n");
        let line = node.get("front", "/order?tolerant&url=http://back/").ok().text().to_owned();
        assert!(line.starts_with("200 "), "{line}");
    }
    let is_told =
        |line: &Value| line["message"].as_str().is_some_and(|text| text.starts_with("worker ejected"));
    let _ = node.log().wait_for("who was ejected", is_told);
    node.replace_app(&toml(""));
    node.until("it is chosen again", |node| node.get("back", "/").status == 500);
    assert_eq!(sample(admin, "outliers_ejected"), 0);
}

/// Bodies of all sizes cross rings of other shapes than the default, from a client to a worker and from worker to worker, back
/// and forth: within a frame, a little more than a chunk, and more than all chunks of a ring at once.
#[test]
fn bodies_cross_rings_of_any_shape() {
    const BODY_BYTES: [usize; 5] = [1, 16_385, 64 << 10, 1 << 20, 4 << 20];
    for ring in [r#"{ small = "1MiB", bulk_chunks = 2 }"#, "{ bulk_chunks = 128 }"] {
        let node = Run::app(&format!(
            r#"
            [worker]
            ring = {ring}
            [[cell]]
            component = "{{cells}}/unruly.wasm"
            services = ["front", "back"]
            "#
        ))
        .workers(&[&["front"], &["back"]])
        .start();
        for bytes in BODY_BYTES {
            // No two chunks are alike: one in the place of another is seen.
            let body: Vec<u8> = (0_u32..).flat_map(u32::to_le_bytes).take(bytes).collect();
            for (service, target) in [
                ("back", "/echo"),
                ("back", "/echo-bytes"),
                ("front", "/order?url=http://back/echo"),
                ("front", "/order?url=http://back/echo-bytes"),
            ] {
                let reply = node.post(service, target, &body);
                let what = format!("{bytes} bytes to {service}{target}, ring = {ring}");
                assert_eq!(reply.status, 200, "{what}");
                assert!(reply.body == body, "{what}: another body, of {} bytes", reply.body.len());
            }
        }
    }
}

/// A worker that a DPA does not want says why as a warning, and so does the DPA; neither ends.
#[test]
fn misplaced_worker_is_told_why() {
    let node = two_workers("");
    let toml = "[[cell]]\ncomponent = \"{cells}/unruly.wasm\"\nservices = [\"stranger\"]\n";
    let mut worker = Attaching::start("worker", toml, &[], &node.dir().join("dpa.sock"));
    for (log, beginning) in
        [(worker.log(), "waiting for the DPA: it refuses: "), (node.log(), "a process was not attached: ")]
    {
        let why = "service \"stranger\" is not known here; known: bad";
        let is_told =
            |line: &Value| line["message"] == format!("{beginning}{why}") && line["level"] == "WARN";
        let _ = log.wait_for(beginning, is_told);
    }
    assert!(worker.is_running(), "it goes on trying");
    assert_eq!(node.get("bad", "/").status, 200);
}

/// A DPA whose socket's path is that of another file ends, and leaves the file as it is.
#[test]
fn file_in_the_place_of_the_socket_is_kept() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let app = dir.path().join("precious.toml");
    // Daemons need none of the component files.
    let text = "[[cell]]\ncomponent = \"none.wasm\"\nservices = [\"s\"]\n";
    for command in ["node", "dpa"] {
        std::fs::write(&app, text).expect("a file");
        let ended = Command::new(program())
            .args([command.as_ref(), app.as_os_str(), "--socket".as_ref(), app.as_os_str()])
            .args(["--listen", "127.0.0.1:0"])
            .output()
            .expect("cellmesh can be started");
        let stderr = String::from_utf8_lossy(&ended.stderr);
        assert_eq!(ended.status.code(), Some(1), "{stderr}");
        assert!(stderr.contains("a file is there that is no socket of a DPA"), "{stderr}");
        assert_eq!(std::fs::read_to_string(&app).expect("still there"), text);
    }
}
