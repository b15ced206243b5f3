//! Policy of a service: what is done when a call fails or is slow, for clients and for calls of cells.
//!
//! What a host hears is the number of tries: `back` does nothing but call it.

use std::collections::HashSet;
use std::io::Read;
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use cellmesh_tests::upstream::{nobody, reply};
use cellmesh_tests::{Node, Reply, Run, Upstream, sample, until};
use serde_json::Value;

/// A node whose service `back` has a policy, and calls `upstream`.
struct Mesh {
    node: Node,
    upstream: Upstream,
    admin: SocketAddr,
}

impl Mesh {
    fn start(policy: &str, upstream: Upstream) -> Self {
        Self::start_lanes(1, policy, upstream)
    }

    fn start_lanes(lanes: u16, policy: &str, upstream: Upstream) -> Self {
        let (admin, address) = (nobody(), upstream.address());
        let toml = format!(
            r#"
            [admin]
            listen = "{admin}"
            [service.back]
            {policy}
            [[cell]]
            component = "{{cells}}/unruly.wasm"
            services = ["front", "back"]
            egress = {{ allow = ["{address}"] }}
            "#
        );
        let node = Run::app(&toml).lanes(lanes).start();
        Self { node, upstream, admin }
    }

    /// The same, but `back` is not on this node: it is at `back`.
    fn start_elsewhere(policy: &str, back: SocketAddr, upstream: Upstream) -> Self {
        let admin = nobody();
        let toml = format!(
            r#"
            [admin]
            listen = "{admin}"
            [dpu.egress]
            hosts = {{ back = "{back}" }}
            [service.back]
            {policy}
            [[cell]]
            component = "{{cells}}/unruly.wasm"
            services = ["front", "back"]
            "#
        );
        let node = Run::app(&toml).lanes(1).workers(&[&["front"]]).start();
        Self { node, upstream, admin }
    }

    /// What makes `back` call the host.
    fn by_back(&self, path: &str) -> String {
        format!("/order?url=http://{}{path}", self.upstream.address())
    }

    /// A client asks `back`, which asks the host.
    fn ask(&self, method: &str, path: &str) -> Reply {
        let mut wire = self.node.connect();
        wire.ask(method, "back", &self.by_back(path));
        wire.reply()
    }

    /// A client asks `front`, which asks `back`, which asks the host.
    fn ask_by_cell(&self, method: &str, path: &str) -> Reply {
        let mut wire = self.node.connect();
        wire.ask(method, "front", &format!("/order?url=http://back{}", self.by_back(path)));
        wire.reply()
    }

    /// What the host has heard so far.
    fn heard(&self) -> usize {
        self.upstream.heads().len()
    }

    /// A counter of `back`.
    fn count(&self, name: &str) -> usize {
        let count = sample(self.admin, &format!("{name}{{service=\"back\"}}"));
        usize::try_from(count).expect("few")
    }
}

fn path_of(head: &str) -> String {
    head.split(' ').nth(1).unwrap_or_default().to_owned()
}

/// A host that answers each path with 503 the first time, and with 200 from then on.
fn flaky() -> Upstream {
    let known = Mutex::new(HashSet::new());
    Upstream::start(move |head: &str, _body: &[u8], stream: &mut TcpStream| {
        let is_new = known.lock().expect("no panic under it").insert(path_of(head));
        if is_new { reply(stream, 503, "", b"not yet") } else { reply(stream, 200, "", b"now") }
    })
}

/// A host that says nothing to the first request of each path below `/slow/`, and counts the callers that it has seen leave
/// then. Everything else it answers.
fn slow_at_first(left: &Arc<AtomicUsize>) -> Upstream {
    let (left, known) = (Arc::clone(left), Mutex::new(HashSet::new()));
    Upstream::start(move |head: &str, _body: &[u8], stream: &mut TcpStream| {
        let path = path_of(head);
        if !path.starts_with("/slow/") || !known.lock().expect("no panic under it").insert(path) {
            return reply(stream, 200, "", b"at once");
        }
        // Nobody writes: it ends when the caller closes.
        if stream.read(&mut [0]).is_ok_and(|count| count == 0) {
            left.fetch_add(1, Ordering::SeqCst);
        }
        false
    })
}

/// A host that only fails hears what it would hear anyway, and a fifth on top.
#[test]
fn retries_stay_within_their_budget() {
    let upstream = Upstream::start(|_: &str, _: &[u8], stream: &mut TcpStream| reply(stream, 503, "", b"no"));
    let policy =
        "retry = { retries_max = 3, budget_ratio = 0.2, budget_per_second_min = 0, backoff_max = \"25ms\" }";
    let mesh = Mesh::start(policy, upstream);
    for _ in 0..25 {
        assert_eq!(mesh.ask("GET", "/").status, 503);
        assert_eq!(mesh.ask_by_cell("GET", "/").status, 503);
    }
    let retries = mesh.heard() - 50;
    assert!((1..=10).contains(&retries), "{retries} retries of 50 requests");
    assert_eq!(mesh.count("policy_retries_total"), retries);
    assert!(mesh.count("policy_retries_refused_total") > 0);
}

/// What failed once is tried again, for clients and for cells, if doing it twice is as good as once, and not otherwise.
#[test]
fn only_safe_requests_are_tried_again() {
    let mesh = Mesh::start("retry = {}", flaky());
    assert_eq!(mesh.ask("GET", "/a").ok().text(), "now");
    assert_eq!(mesh.ask_by_cell("PUT", "/b").ok().text(), "now");
    assert_eq!((mesh.heard(), mesh.count("policy_retries_total")), (4, 2));
    assert_eq!(mesh.ask("POST", "/c").status, 503);
    assert_eq!(mesh.ask_by_cell("POST", "/d").status, 503);
    assert_eq!((mesh.heard(), mesh.count("policy_retries_total")), (6, 2));
}

/// Config may say of a service that it can tell what it has done already.
#[test]
fn all_methods_are_tried_again_where_config_says_so() {
    let mesh = Mesh::start("retry = { methods = \"all\", on = [503] }", flaky());
    assert_eq!(mesh.ask("POST", "/a").ok().text(), "now");
    assert_eq!(mesh.ask_by_cell("POST", "/b").ok().text(), "now");
    assert_eq!(mesh.heard(), 4);
}

/// What did not answer in the time of a try is given up and tried again, if that is safe.
#[test]
fn slow_try_is_given_up() {
    let left = Arc::new(AtomicUsize::new(0));
    let mesh = Mesh::start("try_timeout = \"300ms\"\nretry = {}", slow_at_first(&left));
    assert_eq!(mesh.ask_by_cell("GET", "/slow/a").ok().text(), "at once");
    assert_eq!((mesh.heard(), mesh.count("policy_retries_total")), (2, 1));
    until("the end of the first call", || left.load(Ordering::SeqCst) == 1);

    let mesh = Mesh::start("try_timeout = \"300ms\"\nretry = {}", slow_at_first(&left));
    let reply = mesh.ask("POST", "/slow/b");
    assert_eq!((reply.status, reply.header("x-cellmesh-error")), (504, Some("deadline")));
    assert_eq!(mesh.heard(), 1);
}

/// A host that only fails is left alone: clients and cells are answered at once. When it works again, it is found to.
#[test]
fn circuit_opens_and_closes() {
    let works = Arc::new(AtomicBool::new(false));
    let in_host = Arc::clone(&works);
    let upstream = Upstream::start(move |_: &str, _: &[u8], stream: &mut TcpStream| {
        let status = if in_host.load(Ordering::SeqCst) { 200 } else { 500 };
        reply(stream, status, "", b"said")
    });
    let mesh = Mesh::start("breaker = { failures_max = 3, open = \"500ms\", open_max = \"1s\" }", upstream);
    let mut refused = 0;
    for _ in 0..10 {
        for reply in [mesh.ask("GET", "/"), mesh.ask_by_cell("GET", "/")] {
            let is_refused = reply.status == 503;
            assert!(is_refused || reply.status == 500, "{}", reply.text());
            assert_eq!(is_refused, reply.header("x-cellmesh-error") == Some("circuit-open"));
            assert!(!is_refused || reply.header("retry-after").is_some());
            refused += usize::from(is_refused);
        }
    }
    assert!(refused > 0);
    assert_eq!(mesh.heard(), 20 - refused, "whoever was not refused was heard");
    assert_eq!((mesh.count("circuit_open"), mesh.count("circuit_refused_total")), (1, refused));
    works.store(true, Ordering::SeqCst);
    until("an answer of the host", || mesh.ask("GET", "/").status == 200);
    for _ in 0..5 {
        assert_eq!(mesh.ask_by_cell("GET", "/").status, 200);
    }
    assert_eq!(mesh.count("circuit_open"), 0);
    assert!(mesh.count("circuit_openings_total") > 0);
    let told = |message: &str| {
        let lines = mesh.node.log().lines();
        let of_it = lines
            .iter()
            .filter(|line| line["message"].as_str().is_some_and(|told| told.starts_with(message)));
        of_it.map(|line| line["service"].to_string()).collect::<Vec<_>>()
    };
    let [opened, closed] = ["the circuit opened", "the circuit closed"].map(told);
    assert_eq!((opened.len(), closed.len()), (1, 1), "neither for each refusal nor for each call that asks");
    assert!(opened == closed && opened[0].len() > 2, "{opened:?} and {closed:?}");
}

/// The failures of all lanes together open a circuit, and it is open on each of them.
#[test]
fn lanes_share_a_circuit() {
    let works = Arc::new(AtomicBool::new(false));
    let mesh = Mesh::start_lanes(
        3,
        "breaker = { failures_max = 5, open = \"10m\", open_max = \"10m\" }",
        failing(&works),
    );
    // Connections that are open are spread over the lanes.
    let mut wires = [(); 6].map(|()| mesh.node.connect());
    let statuses = wires.each_mut().map(|wire| {
        wire.ask("GET", "back", &mesh.by_back("/"));
        wire.reply().status
    });
    assert_eq!(statuses, [500, 500, 500, 500, 500, 503]);
    assert_eq!(mesh.heard(), 5);
    assert_eq!((mesh.ask("GET", "/").status, mesh.ask_by_cell("GET", "/").status), (503, 503));
    assert_eq!([mesh.count("circuit_open"), mesh.count("circuit_openings_total")], [1, 1]);
}

/// Lanes pay from one budget: with one for each there were three times as many retries.
#[test]
fn lanes_share_a_budget() {
    let upstream = Upstream::start(|_: &str, _: &[u8], stream: &mut TcpStream| reply(stream, 503, "", b"no"));
    let policy =
        "retry = { budget_ratio = 0, budget_per_second_min = 1, backoff = \"1ms\", backoff_max = \"1ms\" }";
    let mesh = Mesh::start_lanes(3, policy, upstream);
    // Connections that are open are spread over the lanes.
    let mut wires = [(); 6].map(|()| mesh.node.connect());
    for _ in 0..8 {
        for wire in &mut wires {
            wire.ask("GET", "back", &mesh.by_back("/"));
            assert_eq!(wire.reply().status, 503);
        }
    }
    let retries = mesh.count("policy_retries_total");
    // Ten for each ten seconds, of which there are two if the machine stands still.
    assert!((10..=20).contains(&retries), "{retries} retries of 48 requests");
    assert_eq!(mesh.heard(), 48 + retries);
}

/// A retry that an open circuit refuses is given back: none is missing from the budget when another is wanted.
#[test]
fn retries_that_the_circuit_refuses_cost_nothing() {
    let upstream = Upstream::start(|_: &str, _: &[u8], stream: &mut TcpStream| reply(stream, 503, "", b"no"));
    let policy =
        "retry = { budget_ratio = 0, budget_per_second_min = 1, backoff = \"1ms\", backoff_max = \"1ms\" }
        breaker = { failures_max = 1, open = \"100ms\", open_max = \"100ms\" }";
    let mesh = Mesh::start(policy, upstream);
    // More than the budget has, each with a retry that comes while the circuit is open.
    until("twenty requests that went through", || {
        assert_eq!(mesh.ask("GET", "/").status, 503);
        mesh.heard() >= 20
    });
    assert_eq!(mesh.count("policy_retries_refused_total"), 0);
}

/// A retry that nobody waits for any more is given back too.
#[test]
fn retries_of_clients_that_leave_cost_nothing() {
    let upstream = Upstream::start(|_: &str, _: &[u8], stream: &mut TcpStream| reply(stream, 503, "", b"no"));
    let policy =
        "retry = { budget_ratio = 0, budget_per_second_min = 1, backoff = \"5s\", backoff_max = \"5s\" }";
    let mesh = Mesh::start(policy, upstream);
    // More than the budget has, each of which leaves while its retry is waited for.
    for heard in 1..=20 {
        let mut wire = mesh.node.connect();
        wire.ask("GET", "back", &mesh.by_back("/"));
        until("a failure", || mesh.heard() >= heard);
        std::thread::sleep(Duration::from_millis(20));
        drop(wire);
        until("a request that is given up", || sample(mesh.admin, "inflight_requests") == 0);
    }
    assert_eq!(mesh.count("policy_retries_refused_total"), 0);
}

/// Of the addresses of `back`, which is not on this node, those that fail are left out for `ejection`.
fn back_elsewhere(addresses: &[SocketAddr], ejection: &str) -> (Node, SocketAddr) {
    let admin = nobody();
    let toml = format!(
        r#"
        [dpu.egress]
        hosts = {{ back = {addresses:?} }}
        [service.back.outlier]
        failures_max = 3
        ejection = "{ejection}"
        [[cell]]
        component = "{{cells}}/unruly.wasm"
        services = ["front", "back"]
        "#,
        addresses = addresses.iter().map(ToString::to_string).collect::<Vec<_>>(),
    );
    (Run::app(&toml).dpu_lanes(3, admin).workers(&[&["front"]]).start(), admin)
}

/// A host that fails until it works.
fn failing(works: &Arc<AtomicBool>) -> Upstream {
    let works = Arc::clone(works);
    Upstream::start(move |_: &str, _: &[u8], stream: &mut TcpStream| {
        let status = if works.load(Ordering::SeqCst) { 200 } else { 500 };
        reply(stream, status, "", b"said")
    })
}

/// An address that only fails is left out, for clients and for cells, and the others serve. What one lane has seen of it counts on
/// all.
#[test]
fn failing_address_is_ejected() {
    let works = Arc::new(AtomicBool::new(true));
    let (bad, good) = (failing(&Arc::default()), failing(&works));
    let (node, admin) = back_elsewhere(&[bad.address(), good.address()], "1h");
    let mut failed = 0;
    // Connections that are open are spread over the lanes.
    let mut wires = [(); 4].map(|()| node.connect());
    for call in 0..20 {
        let wire = &mut wires[call % 4];
        for (host, target) in [("back", "/"), ("front", "/order?url=http://back/")] {
            wire.ask("GET", host, target);
            let reply = wire.reply();
            assert!(matches!(reply.status, 200 | 500), "{}", reply.text());
            failed += usize::from(reply.status == 500);
        }
    }
    assert_eq!((failed, bad.heads().len(), good.heads().len()), (3, 3, 37));
    assert_eq!((sample(admin, "egress_ejections_total"), sample(admin, "egress_addresses_ejected")), (1, 1));
    let is_told = |line: &Value| {
        line["message"].as_str().is_some_and(|text| text.starts_with("address ejected"))
            && line["address"] == bad.address().to_string()
    };
    let _ = node.log().wait_for("which was ejected", is_told);
}

/// An address at which nobody is costs no answer. One that was ejected is called again when its time is over.
#[test]
fn ejected_address_comes_back() {
    let (works, well) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(true)));
    let (sick, good) = (failing(&works), failing(&well));
    let (node, admin) = back_elsewhere(&[sick.address(), good.address()], "300ms");
    until("an ejection", || {
        let _ = node.get("back", "/");
        sample(admin, "egress_ejections_total") > 0
    });
    works.store(true, Ordering::SeqCst);
    let heard = sick.heads().len();
    until("a call of the one that was ejected", || {
        assert_eq!(node.get("back", "/").status, 200);
        sick.heads().len() > heard
    });
    assert_eq!(sample(admin, "egress_addresses_ejected"), 0);

    let (node, admin) = back_elsewhere(&[nobody(), good.address()], "1h");
    for _ in 0..10 {
        assert_eq!(node.post("back", "/", "sent once").ok().text(), "said");
    }
    assert_eq!((sample(admin, "egress_ejections_total"), sample(admin, "egress_addresses_ejected")), (1, 1));
}

/// A call that is slow has a second one beside it; the first answer counts, and the other call is given up.
#[test]
fn first_answer_wins() {
    let left = Arc::new(AtomicUsize::new(0));
    let mesh = Mesh::start("hedge = { percentile = 99, budget_ratio = 0.5 }", slow_at_first(&left));
    for _ in 0..40 {
        assert_eq!(mesh.ask("GET", "/").ok().text(), "at once");
    }
    // Which of the two comes to the host first is not ours to say: it may be the second.
    let (mut rounds, before) = (0, mesh.count("policy_hedges_won_total"));
    until("a second call that wins", || {
        rounds += 1;
        assert_eq!(mesh.ask_by_cell("GET", &format!("/slow/{rounds}")).ok().text(), "at once");
        mesh.count("policy_hedges_won_total") > before
    });
    until("the end of the slow calls", || left.load(Ordering::SeqCst) == rounds);
    let hedges = mesh.count("policy_hedges_total");
    assert!((rounds..=(40 + rounds) / 2).contains(&hedges), "{hedges} of {} requests", 40 + rounds);
}

/// A service on another node is tried again as well: what failed there if that is safe, and what never got there always.
#[test]
fn calls_of_other_nodes_are_tried_again() {
    let upstream = flaky();
    let back = upstream.address();
    let mesh = Mesh::start_elsewhere("retry = {}", back, upstream);
    assert_eq!(mesh.node.get("back", "/a").ok().text(), "now");
    assert_eq!(mesh.node.get("front", "/order?url=http://back/b").ok().text(), "now");
    assert_eq!((mesh.heard(), mesh.count("policy_retries_total")), (4, 2));
    assert_eq!(mesh.node.post("back", "/c", "once").status, 503);
    assert_eq!(mesh.heard(), 5);

    let mesh = Mesh::start_elsewhere("retry = {}", nobody(), flaky());
    for (service, target) in [("back", "/"), ("front", "/order?url=http://back/")] {
        let before = mesh.count("policy_retries_total");
        let reply = mesh.node.post(service, target, "never there");
        assert_eq!((reply.status, reply.header("x-cellmesh-error")), (502, Some("egress-connect")));
        assert_eq!(mesh.count("policy_retries_total"), before + 1, "{service}");
    }
}
