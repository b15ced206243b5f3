//! The admin port: alive, and ready or not.

use std::fs::File;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use cellmesh_tests::upstream::nobody;
use cellmesh_tests::{
    Node, Placement, Reply, Run, Wire, cells_dir, placement, program, sample, seconds, shared_cache_dir,
    until,
};
use rustix::process::Signal;

const APP: &str = r#"
    [[cell]]
    component = "{cells}/unruly.wasm"
    services = ["front", "back"]
"#;

/// `APP` with the admin port in the file.
fn app(admin: SocketAddr) -> Run {
    Run::app(&format!("[admin]\nlisten = \"{admin}\"\n{APP}"))
}

fn ask(admin: SocketAddr, method: &str, path: &str) -> Reply {
    let mut wire = Wire::connect(admin);
    wire.send(format!("{method} {path} HTTP/1.1\r\nhost: admin\r\nconnection: close\r\n\r\n"));
    if method == "HEAD" { wire.reply_head() } else { wire.reply() }
}

fn until_ready(admin: SocketAddr) {
    until("ready", || ask(admin, "GET", "/readyz").status == 200);
}

/// A process that serves is alive and ready, under all names.
#[test]
fn serving_process_is_ready() {
    let admin = nobody();
    let node = app(admin).start();
    until_ready(admin);
    for path in ["/livez", "/healthz", "/live", "/readyz", "/ready", "/readyz?verbose"] {
        assert_eq!(ask(admin, "GET", path).ok().text(), "ok\n", "{path}");
        assert_eq!(ask(admin, "HEAD", path).status, 200, "{path}");
    }
    assert_eq!(ask(admin, "GET", "/nothing").status, 404);
    let refused = ask(admin, "POST", "/livez");
    assert_eq!((refused.status, refused.header("allow")), (405, Some("GET, HEAD")));
    assert_eq!(node.get("front", "/livez").text(), "ok\n", "the cell's own path, on the other port");
}

/// A node is ready when each service has a worker, or a way elsewhere, and not before or after.
#[test]
fn node_waits_for_workers_of_all_services() {
    let admin = nobody();
    let node = app(admin).workers(&[&["front"]]).start();
    until("the first worker", || ask(admin, "GET", "/readyz").text().ends_with("no worker serves back\n"));
    assert_eq!(ask(admin, "GET", "/readyz").status, 503);
    assert_eq!(ask(admin, "GET", "/livez").status, 200);
    node.kill_worker(0);
    until("nobody", || ask(admin, "GET", "/readyz").text().ends_with("no worker serves front, back\n"));
    drop(node);

    let admin = nobody();
    let elsewhere =
        format!("[admin]\nlisten = \"{admin}\"\n[dpu.egress.hosts]\nback = \"127.0.0.1:9\"\n{APP}");
    let _node = Run::app(&elsewhere).workers(&[&["front"]]).start();
    until_ready(admin);
}

/// Every request that was received is answered, refused, abandoned or in flight, whenever one asks.
#[test]
fn books_balance_at_any_time() {
    let admin = nobody();
    let node = app(admin).lanes(1).start();
    until_ready(admin);
    let balance = || {
        let text = ask(admin, "GET", "/metrics").ok().text().to_owned();
        let of = |name: &str| -> u64 {
            let prefix = format!("cellmesh_{name}");
            let samples = text.lines().filter_map(|line| line.strip_prefix(&prefix));
            let values = samples.map(|sample| sample.rsplit(' ').next().expect("a value"));
            let values: Vec<u64> = values.map(|value| value.parse().expect("a number")).collect();
            assert!(!values.is_empty(), "no {name} in {text}");
            values.iter().sum()
        };
        let ended =
            of("requests_answered_total") + of("requests_refused_total") + of("requests_abandoned_total");
        assert_eq!(of("requests_received_total"), ended + of("inflight_requests"));
    };
    let before = sample(admin, "requests_received_total");
    let mut slow = node.start_get("front", "/step/sleep:300");
    node.until_begun(1);
    balance();
    assert_eq!(sample(admin, "inflight_requests"), 1);
    assert_eq!((node.get("front", "/").status, node.get("front", "/do/trap").status), (200, 500));
    assert_eq!(node.connect().get("front", "/answer?status=99").status, 500);
    balance();
    assert_eq!(slow.reply().status, 200);
    balance();
    assert_eq!(sample(admin, "requests_received_total"), before + 4);
    assert_eq!(sample(admin, "inflight_requests"), 0);
}

/// What cells do is counted where they run: requests from outside and from cells, functions, calls, what fails and how long it
/// took.
#[test]
fn cells_are_counted() {
    let (admin, of_worker) = (nobody(), nobody());
    let node = app(admin).lanes(1).worker_admins(&[of_worker]).start();
    until_ready(admin);
    let cells = if placement() == Placement::CoHosted { admin } else { of_worker };
    assert_eq!(node.get("front", "/order?url=http://back/step/big:3").status, 200);
    assert_eq!(node.get("front", "/do/trap").status, 500);
    assert_eq!(node.get("front", "/answer?status=404").status, 404);
    for (name, count) in [
        ("cell_requests_received_total{service=\"front\"}", 3),
        ("cell_requests_received_total{service=\"back\"}", 1),
        ("cell_responses_total{service=\"front\",code=\"2xx\"}", 1),
        ("cell_responses_total{service=\"front\",code=\"4xx\"}", 1),
        ("cell_responses_total{service=\"front\",code=\"5xx\"}", 1),
        ("cell_request_duration_seconds_count{service=\"front\"}", 3),
        ("cell_request_duration_seconds_bucket{service=\"back\",le=\"+Inf\"}", 1),
        ("step_duration_seconds_count{service=\"front\",kind=\"handler\",step=\"handler\"}", 3),
        ("step_run_seconds_count{service=\"back\",kind=\"internal\",step=\"guilty\"}", 1),
        ("step_queue_seconds_count{service=\"back\",kind=\"internal\",step=\"guilty\"}", 1),
        ("step_egress_seconds_count{service=\"front\",target=\"back\",step=\"call\"}", 1),
        ("step_egress_errors_total{service=\"front\",target=\"back\",step=\"call\"}", 0),
        ("cell_faults_total{service=\"front\",kind=\"trap\"}", 1),
        // The one that trapped is gone.
        ("cell_instances_started_total{service=\"front\"}", 2),
        ("cell_instances_busy{service=\"front\"}", 0),
    ] {
        assert_eq!(sample(cells, name), count, "{name}");
    }
    assert_eq!(sample(admin, "service_request_duration_seconds_count{service=\"front\"}"), 3);
    assert_eq!(sample(admin, "service_requests_failed_total{service=\"front\"}"), 1);
    let by_route = ["host", "service", "path", "entry"]
        .map(|route| sample(admin, &format!("route_requests_total{{service=\"front\",route=\"{route}\"}}")));
    assert_eq!(by_route, [3, 0, 0, 0]);
    // Each has one instance of the same component: that of the one that trapped was given back.
    let [front, back] =
        ["front", "back"].map(|name| sample(cells, &format!("cell_memory_bytes{{service=\"{name}\"}}")));
    assert!(front > 0 && front % 65536 == 0 && front == back, "{front} and {back} bytes");
    assert_eq!(ask(cells, "GET", "/livez").status, 200);
}

/// What is logged can be changed while the process runs; what is no filter changes nothing.
#[test]
fn log_level_is_changed() {
    let admin = nobody();
    let node = app(admin).start();
    until_ready(admin);
    let put = |filter: &str| {
        let mut wire = Wire::connect(admin);
        let length = filter.len();
        wire.send(format!(
            "PUT /log-level HTTP/1.1\r\nhost: admin\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{filter}"
        ));
        let reply = wire.reply();
        (reply.status, reply.text().to_owned())
    };
    let level = || ask(admin, "GET", "/log-level").ok().text().to_owned();
    assert_eq!(level(), "info\n");
    let (status, text) = put("cellmesh_dpu=loud");
    assert!(status == 400 && text.contains("cellmesh_dpu=loud") && text.contains("target=level"), "{text}");
    assert_eq!((put(&"a".repeat(5000)).0, level()), (413, "info\n".into()));
    // What is no HTTP is told of in debug.
    let garble = || {
        let mut wire = node.connect();
        wire.send("NO HTTP\r\n\r\n");
        assert_eq!(wire.reply().status, 400);
        wire.expect_close();
    };
    let told = || node.log().text().matches("connection ended").count();
    garble();
    assert_eq!(put("warn,cellmesh_dpu=debug").0, 200);
    let now = level();
    assert!(now.contains("cellmesh_dpu=debug") && now.contains("warn") && !now.contains("info"), "{now}");
    let before = told();
    garble();
    node.until("a line in debug", |_| told() > before);
    assert_eq!(put("error").0, 200);
    assert!(node.log().text().contains("what is logged is changed"));
}

/// A client that announces the body of a new filter, and never sends it.
fn announce_filter(admin: SocketAddr) -> Wire {
    let mut wire = Wire::connect(admin);
    wire.send("PUT /log-level HTTP/1.1\r\nhost: admin\r\ncontent-length: 4\r\n\r\n");
    wire
}

/// As many clients as there is room for, none of which ever ends its request, keep no probe waiting.
#[test]
fn probes_are_answered_whatever_others_do() {
    let admin = nobody();
    let _node = app(admin).start();
    until_ready(admin);
    let mut crowd: Vec<Wire> = (0..64).map(|_| announce_filter(admin)).collect();
    for path in ["/livez", "/readyz"] {
        assert_eq!(ask(admin, "GET", path).ok().text(), "ok\n", "{path}");
    }
    // The oldest made room, without an answer; the newest did not have to.
    crowd[0].expect_close();
    assert_eq!(crowd[63].reply().status, 408);
}

/// A body that does not come is not waited for.
#[test]
fn body_of_a_filter_has_to_come() {
    let admin = nobody();
    let _node = app(admin).start();
    until_ready(admin);
    let mut wire = announce_filter(admin);
    let reply = wire.reply();
    assert_eq!(reply.status, 408, "{}", reply.text());
    wire.expect_close();
}

/// A node whose cells run on two threads, a lane and one of the pool, and where they are asked.
fn counted(rest: &str) -> (Node, SocketAddr) {
    let (admin, of_worker) = (nobody(), nobody());
    let toml = format!("[admin]\nlisten = \"{admin}\"\n{rest}\n[runtime]\npool_threads = 1\n{APP}");
    let node = Run::app(&toml).lanes(1).worker_admins(&[of_worker]).start();
    until_ready(admin);
    (node, if placement() == Placement::CoHosted { admin } else { of_worker })
}

/// What steps that start in one turn ran for is what threads were given to them: no more than there are threads, however many
/// steps.
#[test]
fn steps_side_by_side_run_one_after_the_other() {
    let (node, cells) = counted("");
    let deeds = vec!["deed=spin:2"; 30].join("&");
    assert_eq!(node.get("front", &format!("/steps?{deeds}")).status, 200);
    let ran =
        seconds(cells, "step_run_seconds_sum{service=\"front\",kind=\"internal\",step=\"guilty_step\"}");
    let request = seconds(cells, "cell_request_duration_seconds_sum{service=\"front\"}");
    assert!(ran > 0.0 && ran <= 2.0 * request, "{ran} s in a request of {request} s");
}

/// A call that only computes either runs or waits for whom it runs on: an instance, then, from the first tick on, the one thread
/// of the pool. So its time is what it ran and what it waited, to the nanosecond.
#[test]
fn wait_for_the_pool_is_queue() {
    let (node, cells) = counted("");
    let deeds = ["deed=spin:50"; 3].join("&");
    assert_eq!(node.get("front", &format!("/steps?{deeds}")).status, 200);
    let of = |part: &str| {
        let labels = "service=\"front\",kind=\"internal\",step=\"guilty_step\"";
        seconds(cells, &format!("step_{part}_seconds_sum{{{labels}}}"))
    };
    let (took, queue, run) = (of("duration"), of("queue"), of("run"));
    assert!(run > 0.0 && queue > 0.0, "{queue} s in the queue and {run} s on a thread");
    assert!((took - queue - run).abs() < 1e-7, "{took} s: {queue} s in the queue and {run} s on a thread");
}

/// Errors are counted by what came to them, whether it said so or did not return; what a handler answers with is none.
#[test]
fn errors_are_counted_by_step() {
    let (node, cells) = counted("");
    for (target, status) in [
        ("/step/error", 500),
        ("/step/trap", 500),
        ("/step/big:3", 200),
        ("/builder/error", 500),
        ("/do/trap", 500),
        ("/answer?status=503", 503),
    ] {
        assert_eq!(node.get("front", target).status, status, "{target}");
    }
    for (kind, step, calls, errors) in
        [("internal", "guilty", 3, 2), ("builder", "guilty", 1, 1), ("handler", "handler", 6, 1)]
    {
        let labels = format!("{{service=\"front\",kind=\"{kind}\",step=\"{step}\"}}");
        let of = |name: &str| sample(cells, &format!("{name}{labels}"));
        assert_eq!((of("step_duration_seconds_count"), of("step_errors_total")), (calls, errors), "{kind}");
    }
}

/// What goes through each ring is counted by who writes it, in batches of at least one frame; nothing waits in the end.
#[test]
fn rings_are_counted() {
    let (admin, of_worker) = (nobody(), nobody());
    let node = app(admin).lanes(1).worker_admins(&[of_worker]).start();
    until_ready(admin);
    let cells = if placement() == Placement::CoHosted { admin } else { of_worker };
    assert_eq!(node.get("front", "/order?url=http://back/").status, 200);
    assert_eq!(node.post("back", "/echo", vec![b'x'; 100_000]).status, 200);
    for (ring, writer) in
        [("sidecar_cq", admin), ("sidecar_sq", admin), ("worker_sq", admin), ("worker_cq", cells)]
    {
        for (kind, least) in [("small", 2), ("bulk", 7)] {
            let of = |name: &str| sample(writer, &format!("{name}{{ring=\"{ring}\",kind=\"{kind}\"}}"));
            let (publishes, frames) = (of("ring_publishes_total"), of("ring_published_frames_total"));
            assert!(frames >= least, "{frames} {kind} frames through {ring}");
            assert!((1..=frames).contains(&publishes), "{frames} {kind} frames in {publishes} batches");
            let waiting = format!("ring_waiting_bytes{{ring=\"{ring}\",kind=\"{kind}\"}}");
            until("nothing waits", || sample(admin, &waiting) == 0);
        }
    }
}

/// A cell that computes has the processor time that it took, on the lane and on the pool, and no more than its process; one
/// that nobody calls has none.
#[test]
fn processor_time_is_counted_by_cell() {
    // Long ticks keep the calls on their lane, short ones take them to the pool.
    for tick in ["100ms", "1ms"] {
        let (admin, of_worker) = (nobody(), nobody());
        let toml = format!("[admin]\nlisten = \"{admin}\"\n[runtime]\nepoch_tick = \"{tick}\"\n{APP}");
        let node = Run::app(&toml).lanes(1).worker_admins(&[of_worker]).start();
        until_ready(admin);
        let hosting = if placement() == Placement::CoHosted { admin } else { of_worker };
        let now = || {
            let of_front = seconds(hosting, "cell_cpu_seconds_total{service=\"front\"}");
            // Asked later: what the process has by now is at least that.
            (of_front, process_seconds(hosting))
        };
        let before = now();
        until("most of the processor time is the cell's", || {
            assert_eq!(node.get("front", "/step/spin:30").status, 200);
            let after = now();
            let (of_front, of_process) = (after.0 - before.0, after.1 - before.1);
            assert!(of_front <= of_process, "{of_front} s of {of_process} s");
            of_front > of_process / 2.0
        });
        assert!(seconds(hosting, "cell_cpu_seconds_total{service=\"back\"}") == 0.0);
    }
}

fn process_seconds(admin: SocketAddr) -> f64 {
    let text = ask(admin, "GET", "/metrics").ok().text().to_owned();
    let value = text.lines().find_map(|line| line.strip_prefix("process_cpu_seconds_total "));
    value.and_then(|value| value.parse().ok()).unwrap_or_else(|| panic!("no processor time in {text}"))
}

/// What a client gives up is no fault of the cell.
#[test]
fn calls_that_are_given_up_are_no_faults() {
    let (node, cells) = counted("");
    let asked = node.start_get("front", "/step/sleep:20000");
    node.until_begun(1);
    drop(asked);
    until("the request is given up", || {
        sample(cells, "cell_requests_cancelled_total{service=\"front\"}") == 1
    });
    until("its call has ended", || sample(cells, "cell_instances_busy{service=\"front\"}") == 0);
    assert_eq!(sample(cells, "cell_faults_total{service=\"front\",kind=\"deadline\"}"), 0);
    assert_eq!(
        sample(cells, "step_duration_seconds_count{service=\"front\",kind=\"internal\",step=\"other\"}"),
        1
    );
    assert_eq!(sample(cells, "step_errors_total{service=\"front\",kind=\"internal\",step=\"other\"}"), 0);
}

/// An answer that is too large to be sent counts as what who asked is told.
#[test]
fn answer_that_is_not_sent_counts_as_an_error() {
    let (node, cells) = counted("[dpu]\nbody_bytes_max = \"64KiB\"");
    assert_eq!(node.get("front", "/do/big:200000").status, 502);
    assert_eq!(sample(cells, "cell_responses_total{service=\"front\",code=\"5xx\"}"), 1);
    assert_eq!(sample(cells, "cell_responses_total{service=\"front\",code=\"2xx\"}"), 0);
}

/// What breaks the contract is counted and logged, whether it is the answer of a handler, of a step, or a graph.
#[test]
fn broken_contracts_are_counted() {
    let (node, cells) = counted("");
    let count = || sample(cells, "cell_faults_total{service=\"front\",kind=\"contract\"}");
    let broken = node.get("front", "/do/status:0");
    assert_eq!((broken.status, broken.header("x-cellmesh-error")), (500, Some("cell-contract")));
    assert_eq!(count(), 1);
    assert_eq!((node.get("front", "/step/status:0").status, count()), (500, 2));
    assert_eq!((node.get("front", "/bad-graph/empty-id").status, count()), (500, 3));
    let line = node.log().wait_for("the answer", |line| line["message"] == "the answer cannot be sent");
    assert_eq!((&line["kind"], &line["cell"]), (&"contract".into(), &"front".into()));
    assert!(line["reason"].as_str().is_some_and(|why| why.contains("status 0")), "{line}");
}

/// What is refused says why: connections, heads that are none, requests of no service, and those of one.
#[test]
fn refusals_have_reasons() {
    let admin = nobody();
    let limits =
        "connections_per_address_max = 3\nheader_read_timeout = \"200ms\"\nbody_bytes_max = \"1KiB\"";
    let node = Run::app(&format!("[admin]\nlisten = \"{admin}\"\n{APP}[dpu]\n{limits}\n")).start();
    until_ready(admin);
    let said = |text: &str| {
        let mut wire = node.connect();
        wire.send(text);
        wire.reply().status
    };
    assert_eq!(said("NO HTTP\r\n\r\n"), 400);
    assert_eq!(said(&format!("GET / HTTP/1.1\r\nhost: front\r\n{}\r\n", "a: b\r\n".repeat(200))), 431);
    assert_eq!(said("GET / HTTP/1.1\r\nhost: x\r\nx-cellmesh-service: nosuch\r\n\r\n"), 503);
    assert_eq!(said("POST / HTTP/1.1\r\nhost: front\r\ncontent-length: 2000\r\n\r\n"), 413);
    let mut slow = node.connect();
    slow.send("GET / HT");
    slow.expect_close();
    until("all connections are closed", || sample(admin, "connections_open") == 0);
    let [_first, _second, _third] = [node.connect(), node.connect(), node.connect()];
    until("they are open", || sample(admin, "connections_open") == 3);
    assert_eq!(node.connect().reply().status, 503);
    for (name, count) in [
        ("heads_refused_total{reason=\"malformed\"}", 1),
        ("heads_refused_total{reason=\"too-large\"}", 1),
        ("heads_refused_total{reason=\"too-slow\"}", 1),
        ("requests_refused_total{reason=\"unknown-service\"}", 1),
        ("requests_refused_total{reason=\"body-too-large\"}", 1),
        ("requests_refused_total{reason=\"bad-request\"}", 0),
        ("service_requests_refused_total{service=\"front\",reason=\"body-too-large\"}", 1),
        ("connections_refused_total{reason=\"per-address-max\"}", 1),
        ("connections_refused_total{reason=\"connections-max\"}", 0),
    ] {
        assert_eq!(sample(admin, name), count, "{name}");
    }
    let text = ask(admin, "GET", "/metrics").ok().text().to_owned();
    let of_service = text.lines().filter(|line| line.starts_with("cellmesh_service_requests_refused_total{"));
    assert_eq!(of_service.count(), 1, "only reasons that there were");
}

/// A service that refuses most of its requests is not the faster for it.
#[test]
fn refusals_are_no_latencies() {
    let admin = nobody();
    let app = format!("[admin]\nlisten = \"{admin}\"\n{APP}[service.front]\nin_flight_max = 1\n");
    let node = Run::app(&app).lanes(1).start();
    until_ready(admin);
    let mut slow = node.start_get("front", "/do/sleep:300");
    node.until_begun(1);
    for _ in 0..3 {
        assert_eq!(node.get("front", "/").status, 503);
    }
    assert_eq!(slow.reply().status, 200);
    assert_eq!(sample(admin, "service_request_duration_seconds_count{service=\"front\"}"), 1);
    assert_eq!(sample(admin, "service_request_duration_seconds_bucket{service=\"front\",le=\"0.1\"}"), 0);
}

/// What became of requests is told by what has led them to the service, and a service is the sum of its routes.
#[test]
fn routes_are_counted_apart() {
    let admin = nobody();
    let node = app(admin).lanes(1).start();
    until_ready(admin);
    assert_eq!(node.get("front", "/").status, 200);
    for (head, status) in [
        ("GET / HTTP/1.1\r\nhost: 10.0.0.1\r\nx-cellmesh-service: front\r\n", 200),
        ("GET /do/trap HTTP/1.1\r\nhost: 10.0.0.1\r\nx-cellmesh-service: front\r\n", 500),
        ("POST / HTTP/1.1\r\nhost: front\r\ncontent-length: 1000000000000\r\n", 413),
    ] {
        let mut wire = node.connect();
        wire.send(format!("{head}\r\n"));
        assert_eq!(wire.reply().status, status, "{head}");
    }
    let of = |route: &str| {
        ["requests_total", "requests_answered_total", "requests_failed_total", "requests_refused_total"]
            .map(|name| sample(admin, &format!("route_{name}{{service=\"front\",route=\"{route}\"}}")))
    };
    assert_eq!((of("host"), of("service")), ([2, 1, 0, 1], [2, 2, 1, 0]));
    let took = |labels: &str| sample(admin, &format!("route_request_duration_seconds_count{{{labels}}}"));
    let routes = ["host", "service"].map(|route| took(&format!("service=\"front\",route=\"{route}\"")));
    assert_eq!(routes, [1, 2]);
    assert_eq!(sample(admin, "service_request_duration_seconds_count{service=\"front\"}"), 3);
    let text = ask(admin, "GET", "/metrics").ok().text().to_owned();
    assert!(!text.contains("route_requests_answered_total{service=\"front\",route=\"path\"}"), "{text}");
    assert!(!text.contains("route_requests_total{service=\"back\""), "nobody has asked for it: {text}");
}

/// What has a bound says both: how much of it is used, and the bound as config has it now.
#[test]
fn bounds_are_told() {
    let (admin, of_worker) = (nobody(), nobody());
    let text = |connections: u32| {
        format!(
            "[admin]\nlisten = \"{admin}\"\n{APP}instances_max = 5\nhandler_timeout = \"2s\"\n\
             [service.front]\nin_flight_max = 9\n[runtime]\npool_threads = 2\n\
             [dpu]\nrequests_max = 7\nconnections_max = {connections}\n"
        )
    };
    let node = Run::app(&text(50)).lanes(1).worker_admins(&[of_worker]).start();
    until_ready(admin);
    let cells = if placement() == Placement::CoHosted { admin } else { of_worker };
    let mut endless = node.start_get("front", "/do/loop");
    until("a thread of the pool", || sample(cells, "pool_threads_busy") == 1);
    for (port, used, bound, expected) in [
        (admin, "dispatched_requests", "dispatched_requests_max", (1, 7)),
        (
            admin,
            "policy_inflight_requests{service=\"front\"}",
            "policy_inflight_requests_max{service=\"front\"}",
            (1, 9),
        ),
        (cells, "cell_instances_busy{service=\"front\"}", "cell_instances_max{service=\"front\"}", (1, 5)),
        (cells, "cell_instances_busy{service=\"back\"}", "cell_instances_max{service=\"back\"}", (0, 5)),
        (cells, "pool_threads_busy", "pool_threads_max", (1, 2)),
    ] {
        assert_eq!((sample(port, used), sample(port, bound)), expected, "{bound}");
    }
    assert_eq!(sample(admin, "custody_requests"), 1);
    let [all, of_clients] =
        ["custody_requests_max", "custody_sidecar_requests_max"].map(|name| sample(admin, name));
    assert!(0 < of_clients && of_clients < all, "{of_clients} of {all} slots");
    for ring in ["sidecar_cq", "sidecar_sq", "worker_cq", "worker_sq"] {
        let bytes = sample(admin, &format!("ring_waiting_bytes_max{{ring=\"{ring}\",kind=\"small\"}}"));
        assert!(bytes >= 4096, "{ring}: {bytes} bytes");
    }
    assert_eq!(endless.reply().status, 504);
    until("no thread of the pool", || sample(cells, "pool_threads_busy") == 0);
    assert_eq!(sample(admin, "connections_max"), 50);
    node.replace_app(&text(60));
    node.signal(Signal::HUP);
    until("the new bound", || sample(admin, "connections_max") == 60);
    let state = ask(admin, "GET", "/v1/state").ok().json();
    let gauges = state["gauges"].as_array().expect("gauges");
    let connections = gauges.iter().find(|gauge| gauge["name"] == "connections").expect("connections");
    assert_eq!(connections["max"], 60);
}

/// The port says truly what it has: each path answers, with the kind of content that it says.
#[test]
fn openapi_is_true() {
    let admin = nobody();
    let _node = app(admin).start();
    until_ready(admin);
    let said = ask(admin, "GET", "/openapi.json").ok().json();
    let paths = said["paths"].as_object().expect("paths");
    assert_eq!(paths.len(), 13);
    for (path, what) in paths {
        let reply = ask(admin, "GET", path);
        let kind =
            reply.header("content-type").and_then(|kind| kind.split(';').next()).expect("a content type");
        let content = &what["get"]["responses"][reply.status.to_string()]["content"];
        assert!(content[kind].is_object(), "{path}: {} {kind}", reply.status);
    }
}

/// From the signal on a process is not ready, and still alive, while it finishes what it has.
#[test]
fn draining_process_is_not_ready() {
    let admin = nobody();
    let node: Node = app(admin).start();
    until_ready(admin);
    let mut asked = node.start_get("front", "/step/sleep:1500");
    node.until_begun(1);
    node.signal(rustix::process::Signal::TERM);
    until("told to end", || ask(admin, "GET", "/readyz").status == 503);
    assert_eq!(ask(admin, "GET", "/readyz").text(), "drain: the process is told to end\n");
    assert_eq!(ask(admin, "GET", "/livez").status, 200);
    assert_eq!(asked.reply().status, 200);
    // In a split node the workers go on.
    if placement() == Placement::CoHosted {
        assert_eq!(node.ended().code, Some(0));
    }
}

/// An address that is taken is said at the start.
#[test]
fn taken_address_is_told() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = taken.local_addr().expect("bound");
    let ended = app(address).end();
    assert_ne!(ended.code, Some(0));
    assert!(ended.stderr.contains(&format!("cannot listen on {address}")), "{}", ended.stderr);
}

/// Runs a command that ends by itself, with its output to `stdout`.
fn command_to(stdout: Stdio, args: &[&str]) -> Output {
    let mut command = Command::new(program());
    command.args(args).env_remove("RUST_LOG").env("CELLMESH_CELLS", cells_dir());
    command.env("CELLMESH_CACHE_DIR", shared_cache_dir()).stdin(Stdio::null()).stderr(Stdio::piped());
    command
        .stdout(stdout)
        .spawn()
        .and_then(std::process::Child::wait_with_output)
        .expect("cellmesh can be started")
}

/// The recording of the only request of a process that records, as a file.
fn recording(admin: SocketAddr, dir: &Path) -> String {
    until("it is kept", || ask(admin, "GET", "/v1/requests").text().contains("\"id\""));
    let kept = ask(admin, "GET", "/v1/requests").json();
    let id = kept["requests"][0]["id"].as_str().expect("an id").to_owned();
    let file = dir.join("recording.json");
    let recording = ask(admin, "GET", &format!("/v1/requests/{id}/recording")).ok();
    std::fs::write(&file, recording.text()).expect("a file");
    file.to_str().expect("text").to_owned()
}

/// Output that is lost is a failure that is told; output that nobody wants any more is none.
#[test]
fn lost_output_is_a_failure() {
    let (node, admin) = counted("[trace]\nrecord = true");
    assert_eq!(node.get("front", "/step/nothing").status, 200);
    let recording = recording(admin, node.dir());
    let file = node.dir().join("app.toml");
    let (file, at) = (file.to_str().expect("text"), admin.to_string());
    // A check would find the port of the node taken.
    for args in [
        &["replay", &recording, file][..],
        &["replay", &recording, file, "--json"],
        &["graph", &recording],
        &["top", &at, "--once"],
        &["check", file, "-v", "--part", "worker"],
    ] {
        let full = File::options().write(true).open("/dev/full").expect("a device of Linux");
        let lost = command_to(full.into(), args);
        let told = String::from_utf8_lossy(&lost.stderr).into_owned();
        assert_eq!(lost.status.code(), Some(1), "{args:?}: {told}");
        assert!(told.starts_with("cellmesh: standard output cannot be written"), "{args:?}: {told}");
        let (reader, writer) = std::io::pipe().expect("descriptors");
        drop(reader);
        let unread = command_to(writer.into(), args);
        assert_eq!(unread.status.code(), Some(0), "{args:?}: {}", String::from_utf8_lossy(&unread.stderr));
        assert!(unread.stderr.is_empty(), "{args:?}: {}", String::from_utf8_lossy(&unread.stderr));
    }
}
