//! The admin port: alive, and ready or not.

use std::net::SocketAddr;

use cellmesh_tests::upstream::nobody;
use cellmesh_tests::{Node, Placement, Reply, Run, Wire, placement, sample, until};

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
    assert_eq!(ask(admin, "GET", "/").status, 404);
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
            let line = text.lines().find_map(|line| line.strip_prefix(&format!("cellmesh_{name} ")));
            line.unwrap_or_else(|| panic!("no {name} in {text}")).parse().expect("a number")
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
