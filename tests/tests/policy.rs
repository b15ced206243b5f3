//! Policy of a service: what is decided before a request is sent, for clients and for calls of cells.

use std::io::Write;
use std::net::TcpStream;

use cellmesh_tests::{Node, Run, Upstream};

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
