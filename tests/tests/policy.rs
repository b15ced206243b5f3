//! Policy of a service: what is decided before a request is sent, for clients and for calls of cells.

use std::collections::BTreeSet;
use std::io::Write;
use std::net::TcpStream;

use cellmesh_tests::upstream::nobody;
use cellmesh_tests::{Node, Run, Upstream, Wire, sample, until};

/// A host that answers nothing.
fn silent(_head: &str, _body: &[u8], stream: &mut TcpStream) -> bool {
    stream.flush().is_ok()
}

/// Services `front` and `back`, both of which do as the path says; `back` has a policy.
fn app(policy: &str, allow: &str) -> Run {
    Run::app(&format!(
        r#"
        [service.back]
        {policy}
        [[cell]]
        component = "{{cells}}/unruly.wasm"
        services = ["front", "back"]
        egress = {{ allow = [{allow}] }}
        "#
    ))
}

/// What `back` answers to `front`, which answers in any case: a line with status and text.
fn by_front(node: &Node, path: &str) -> String {
    let target = format!("/order?tolerant&url=http://back{path}");
    node.get("front", &target).ok().text().to_owned()
}

/// A service that takes too long is a 504 for a client, and for a cell, which goes on; without policy it would be cut off
/// together with its callee.
#[test]
fn slow_service_is_cut_off_alone() {
    let upstream = Upstream::start(silent);
    let node = app("timeout = \"300ms\"", &format!("\"{}\"", upstream.address())).start();
    let path = format!("/order?url=http://{}/", upstream.address());
    let reply = node.get("back", &path);
    assert_eq!((reply.status, reply.header("x-cellmesh-error")), (504, Some("deadline")), "{}", reply.text());
    for _ in 0..3 {
        let line = by_front(&node, &path);
        assert!(line.starts_with("504 "), "{line}");
    }
    assert_eq!(node.get("back", "/").ok().text(), "ok\n");
}

/// The bound is that of the node, whichever lanes and callers there are: what is beyond it is told to come back.
#[test]
fn in_flight_bound_holds_for_the_node() {
    let (admin, upstream) = (nobody(), Upstream::start(silent));
    let policy = format!("in_flight_max = 3\n[admin]\nlisten = \"{admin}\"");
    let node = app(&policy, &format!("\"{}\"", upstream.address())).start();
    let path = format!("/order?url=http://{}/", upstream.address());
    let mut waiting: Vec<Wire> = (0..3).map(|_| node.connect()).collect();
    for wire in &mut waiting {
        wire.ask("GET", "back", &path);
    }
    until("three in flight", || sample(admin, "policy_inflight_requests{service=\"back\"}") == 3);
    let others: Vec<Wire> = (0..4).map(|_| node.connect()).collect();
    for mut wire in others {
        let reply = wire.get("back", "/");
        assert_eq!((reply.status, reply.header("retry-after")), (503, Some("1")), "{}", reply.text());
        assert_eq!(wire.get("front", "/").ok().text(), "ok\n", "on the same lane");
    }
    let line = by_front(&node, "/");
    assert!(line.starts_with("503 "), "{line}");
    drop(waiting);
    until("none in flight", || sample(admin, "policy_inflight_requests{service=\"back\"}") == 0);
    assert_eq!(node.get("back", "/").ok().text(), "ok\n");
    assert!(sample(admin, "policy_refused_total{service=\"back\",reason=\"in-flight\"}") >= 4);
}

/// Clients and cells that ask too often are told so, and other services are not concerned.
#[test]
fn rate_is_bounded() {
    let node = app("rate = { per_second = 1, burst = 1 }", "").start();
    // However slow this machine is, more than one request comes in some second.
    let refused = (0..60).map(|_| node.get("back", "/")).find(|reply| reply.status != 200);
    let refused = refused.expect("60 requests, not one of them refused");
    assert_eq!((refused.status, refused.header("x-cellmesh-error")), (429, Some("rate-limited")));
    assert!(refused.header("retry-after").is_some());
    let said = (0..60).map(|_| by_front(&node, "/")).find(|line| !line.starts_with("200 "));
    assert!(said.as_ref().is_some_and(|line| line.starts_with("429 ")), "{said:?}");
    assert_eq!(node.get("front", "/").ok().text(), "ok\n");
}

/// What a cell sees of the headers of its requests, and what is seen of its answers.
#[test]
fn headers_are_those_of_the_policy() {
    let policy = "headers = { add = { x-team = \"a\" }, remove = [\"X-Debug\"] }\n\
                  response_headers = { add = { x-frame-options = \"DENY\" } }";
    let node = app(policy, "").start();
    let mut wire = node.connect();
    for target in ["/reflect", "/order?url=http://back/reflect"] {
        let service = if target == "/reflect" { "back" } else { "front" };
        wire.send(format!("GET {target} HTTP/1.1\r\nhost: {service}\r\nx-debug: 1\r\n\r\n"));
        let reply = wire.reply().ok();
        let headers = reply.json()["headers"].to_string();
        assert!(headers.contains("[\"x-team\",\"a\"]") && !headers.contains("x-debug"), "{headers}");
        assert_eq!(reply.header("x-frame-options"), Some("DENY"), "{target}");
    }
}

/// A part of the requests goes to another service, of clients and of cells; the others stay.
#[test]
fn split_shares_requests_out() {
    let node = app("split = { front = 50 }", "").start();
    let mut wire = node.connect();
    let mut served_by = |host: &str, target: &str| {
        wire.get(host, target).ok().json()["service"].as_str().expect("a name").to_owned()
    };
    for (host, target) in [("back", "/reflect"), ("front", "/order?url=http://back/reflect")] {
        let services: BTreeSet<String> = (0..64).map(|_| served_by(host, target)).collect();
        assert_eq!(services.into_iter().collect::<Vec<_>>(), ["back", "front"], "{target}");
    }
}
