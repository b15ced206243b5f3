//! The end: what is in flight is finished, what is new is told to go elsewhere, and it is over in time.

use std::net::SocketAddr;
use std::time::Duration;

use cellmesh_tests::upstream::nobody;
use cellmesh_tests::{Ended, H2, Node, Run, Wire, until};
use http::Method;
use rustix::process::Signal;
use serde_json::json;

/// `drain_timeout`: as the config says it.
fn node(drain_timeout: &str) -> Node {
    let toml = r#"
        [[cell]]
        component = "{cells}/unruly.wasm"
        services = ["s0", "s1"]
        step_timeout = "60s"
        handler_timeout = "60s"
    "#;
    Run::app(&format!("[runtime]\ndrain_timeout = \"{drain_timeout}\"\n{toml}")).start()
}

/// Sends the signal and waits until the node says that it drains.
fn drain(node: &Node, signal: Signal) {
    node.signal(signal);
    let _ = node.log().wait_for("the drain", |line| line["message"] == "draining");
}

#[track_caller]
fn check_clean(ended: &Ended, within: Duration) {
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    assert!(ended.took < within, "took {:?}", ended.took);
}

/// With nothing to finish it ends at once, far before the time that it would give.
#[test]
fn idle_node_ends_at_once() {
    for signal in [Signal::TERM, Signal::INT] {
        let node = node("10m");
        let _open = node.connect();
        let mut kept = node.connect();
        assert_eq!(kept.get("s0", "/").status, 200);
        let h2 = H2::connect(node.address());
        assert_eq!(h2.get("s0", "/").status, 200);
        node.signal(signal);
        check_clean(&node.ended(), Duration::from_secs(30));
    }
}

/// Requests in flight are finished, whatever they came over and whatever they wait for; then it ends.
#[test]
fn requests_in_flight_are_finished() {
    for signal in [Signal::TERM, Signal::INT] {
        let node = node("10m");
        let paths = [
            "/step/sleep:1500",
            "/steps?deed=sleep:1500&deed=spin:1500",
            "/order?url=http://s1/step/sleep:1500",
            "/do/sleep:1500",
        ];
        let mut wires = paths.map(|path| node.start_get("s0", path));
        let mut bridge = node.connect();
        bridge.send(json!({"path": "/step/sleep:1500"}).to_string());
        let h2 = H2::connect(node.address());
        let stream = h2.start(Method::GET, "s0", "/step/sleep:1500", "");
        node.until_begun(paths.len() + 2);
        drain(&node, signal);
        for (path, wire) in paths.iter().zip(&mut wires) {
            assert_eq!(wire.reply().status, 200, "{path}");
        }
        assert_eq!(h2.finish(stream).expect("an answer").status, 200);
        let answer: serde_json::Value = serde_json::from_slice(&bridge.rest()).expect("an answer");
        assert_eq!(answer["status"], 200);
        check_clean(&node.ended(), Duration::from_secs(30));
    }
}

/// A request over a new connection gets 503 while others are finished, and its connection is closed. One over a connection that
/// was there before is served if it comes before the end of that; there is no 503.
#[test]
fn new_requests_are_refused_while_draining() {
    let node = node("10m");
    let mut long = node.start_get("s0", "/step/sleep:3000");
    let mut kept = node.connect();
    assert_eq!(kept.get("s0", "/").status, 200);
    node.until_begun(1);
    drain(&node, Signal::TERM);
    let reply = node.get("s0", "/");
    let told =
        ["x-cellmesh-error", "connection", "retry-after"].map(|name| reply.header(name).map(str::to_owned));
    assert_eq!(
        (reply.status, told[0].as_deref(), told[1].as_deref()),
        (503, Some("draining"), Some("close"))
    );
    assert!(told[2].is_some());
    kept.send_some("GET / HTTP/1.1\r\nhost: s0\r\n\r\n");
    let answer = kept.rest();
    assert!(
        answer.is_empty() || answer.starts_with(b"HTTP/1.1 200 "),
        "{:?}",
        String::from_utf8_lossy(&answer)
    );
    let answer = node.bridge(&json!({}));
    assert_eq!(answer["status"], 503);
    assert!(long.is_silent(), "the long request ended too soon to show anything");
    assert_eq!(long.reply().status, 200);
    check_clean(&node.ended(), Duration::from_secs(30));
}

/// A JSON object that came over a connection from before a drain is served in it: its client was not told to go. It is behind one that
/// is answered in the drain, so that its own turn is in the drain too.
#[test]
fn objects_of_known_clients_are_served_while_draining() {
    let node = node("10m");
    let mut bridge = node.connect();
    bridge.send(r#"{"path":"/step/sleep:3000"}{"path":"/answer?status=418"}"#);
    node.until_begun(1);
    drain(&node, Signal::TERM);
    assert!(bridge.is_silent(), "the first object was answered too soon to show anything");
    let answers = bridge.rest();
    let answers = serde_json::Deserializer::from_slice(&answers).into_iter::<serde_json::Value>();
    let statuses: Vec<_> = answers.map(|answer| answer.expect("an answer")["status"].clone()).collect();
    assert_eq!(statuses, [200, 418]);
    check_clean(&node.ended(), Duration::from_secs(30));
}

/// A request whose body is still coming when the drain begins is finished.
#[test]
fn request_that_is_being_sent_is_finished() {
    let node = node("10m");
    let mut wire = node.connect();
    wire.send("POST /echo HTTP/1.1\r\nhost: s0\r\ncontent-length: 8\r\nexpect: 100-continue\r\n\r\n");
    assert_eq!(wire.reply_head().status, 100);
    wire.send("half");
    let mut long = node.start_get("s0", "/step/sleep:1000");
    node.until_begun(1);
    drain(&node, Signal::TERM);
    wire.send("half");
    let reply = wire.reply();
    assert_eq!((reply.status, reply.text()), (200, "halfhalf"));
    assert_eq!(long.reply().status, 200);
    check_clean(&node.ended(), Duration::from_secs(30));
}

/// Requests that do not end are cut off when the time is over: the exit status is still 0.
#[test]
fn stuck_requests_are_cut_off() {
    for path in ["/step/loop", "/step/sleep:60000", "/do/loop", "/order?url=http://s1/step/loop"] {
        let node = node("300ms");
        let mut stuck: Vec<Wire> = (0..4).map(|_| node.start_get("s0", path)).collect();
        node.until_begun(stuck.len());
        drain(&node, Signal::TERM);
        let ended = node.ended();
        // A second for the lanes, the rest for a busy machine; a request would go on for thirty.
        check_clean(&ended, Duration::from_secs(15));
        assert!(ended.stderr.contains("still in flight are cut off"), "{}", ended.stderr);
        stuck.iter_mut().for_each(|wire| assert!(!wire.rest().starts_with(b"HTTP/1.1 200 ")));
    }
}

/// A second signal does not make it fail, nor end what is in flight before its time.
#[test]
fn second_signal_changes_nothing() {
    let node = node("10m");
    let mut long = node.start_get("s0", "/step/sleep:1500");
    node.until_begun(1);
    drain(&node, Signal::TERM);
    node.signal(Signal::TERM);
    node.signal(Signal::INT);
    assert_eq!(long.reply().status, 200);
    check_clean(&node.ended(), Duration::from_secs(30));
}

/// A client that says nothing, or stops in the middle of a request, does not hold up the end beyond the drain.
#[test]
fn silent_clients_are_not_waited_for() {
    let node = node("500ms");
    let _nothing = node.connect();
    let mut head = node.connect();
    head.send("GET / HTTP/1.1\r\nhost:");
    let mut body = node.connect();
    body.send("POST /echo HTTP/1.1\r\nhost: s0\r\ncontent-length: 8\r\n\r\nhalf");
    assert_eq!(node.get("s0", "/").status, 200);
    drain(&node, Signal::TERM);
    check_clean(&node.ended(), Duration::from_secs(15));
}

/// An application that serves on for this long after the order to end; with an admin port.
fn delayed(delay: &str, admin: SocketAddr) -> Run {
    Run::app(&format!(
        r#"
        [runtime]
        drain_delay = "{delay}"
        drain_timeout = "10m"
        [admin]
        listen = "{admin}"
        [[cell]]
        component = "{{cells}}/unruly.wasm"
        services = ["s0"]
        "#
    ))
}

fn readiness(admin: SocketAddr) -> u16 {
    Wire::connect(admin).get("admin", "/readyz").status
}

fn told_to_end(node: &Node) {
    let _ =
        node.log().wait_for("the delay", |line| line["message"] == "told to end, serving on for the delay");
}

/// From the signal to the drain a process says that it is not ready, and serves whoever comes; a second signal begins the
/// drain.
#[test]
fn node_serves_on_for_the_delay() {
    let admin = nobody();
    let node = delayed("10m", admin).start();
    until("ready", || readiness(admin) == 200);
    let mut kept = node.connect();
    assert_eq!(kept.get("s0", "/").header("connection"), None);
    let h2 = H2::connect(node.address());
    assert_eq!(h2.get("s0", "/").status, 200);
    node.signal(Signal::TERM);
    told_to_end(&node);
    assert_eq!(readiness(admin), 503);
    for wire in [&mut kept, &mut node.connect()] {
        let last = wire.get("s0", "/");
        assert_eq!((last.status, last.header("connection")), (200, Some("close")));
        wire.expect_close();
    }
    until("the connection that was there has ended", || h2.is_closed());
    let late = H2::connect(node.address());
    assert_eq!([0, 1].map(|_| late.get("s0", "/").status), [200, 200]);
    drain(&node, Signal::TERM);
    check_clean(&node.ended(), Duration::from_secs(30));
}

/// When the delay is over the drain begins by itself and finishes what is in flight.
#[test]
fn drain_follows_the_delay() {
    let admin = nobody();
    let node = delayed("500ms", admin).start();
    until("ready", || readiness(admin) == 200);
    let mut long = node.start_get("s0", "/step/sleep:3000");
    node.until_begun(1);
    node.signal(Signal::TERM);
    told_to_end(&node);
    let _ = node.log().wait_for("the drain", |line| line["message"] == "draining");
    assert_eq!(node.get("s0", "/").status, 503);
    assert_eq!(long.reply().status, 200);
    check_clean(&node.ended(), Duration::from_secs(30));
}

/// A worker serves on too: in a pod it is told to end before the node beside it.
#[test]
fn worker_serves_on_for_the_delay() {
    let admin = nobody();
    let node = delayed("10m", admin).replicas(1).start();
    node.signal_worker(0, Signal::TERM);
    told_to_end(&node);
    assert_eq!(node.get("s0", "/").status, 200);
    node.signal_worker(0, Signal::INT);
    node.worker_ended(0);
    assert_eq!(node.get("s0", "/").status, 503);
}

/// A process that is told to end while it starts ends: the first process of a container is not ended by the system.
#[test]
fn process_ends_while_it_starts() {
    let ended =
        Run::app("[[cell]]\ncomponent = \"{cells}/mubench.wasm\"\nservices = [\"s0\"]").end_at_start();
    assert_eq!(ended.code, Some(128 + 15), "{}", ended.stderr);
    assert!(ended.stderr.contains("SIGTERM before anything was served"), "{}", ended.stderr);
}
