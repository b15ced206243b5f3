//! Policy of a service: for clients and for calls of workers.

use bytes::Bytes;
use cellmesh_dpu::DpuConfig;
use cellmesh_dpu::policy::ServicePolicy;
use cellmesh_shm::message::Fault;

use crate::client::{Raw, Reply};
use crate::node::{Node, check_with};
use crate::relay::{answer_of, call};

/// A node whose service `s1` has this policy.
pub(crate) fn check_policy(policy: &str, test: impl AsyncFnOnce(Node)) {
    let policy: ServicePolicy = serde_json::from_str(policy).expect("a policy");
    assert_eq!(policy.validate(), []);
    let config = DpuConfig { services: [("s1".to_owned(), policy)].into(), ..DpuConfig::default() };
    check_with(config, test);
}

impl Raw {
    /// A request of `service`, with more lines.
    async fn ask(&mut self, service: &str, target: &str, lines: &str) -> Reply {
        self.ask_only(service, target, lines).await;
        self.reply().await
    }

    async fn ask_only(&mut self, service: &str, target: &str, lines: &str) {
        let head =
            format!("GET {target} HTTP/1.1\r\nhost: node\r\nx-cellmesh-service: {service}\r\n{lines}\r\n");
        self.send(head).await;
    }
}

/// A service that is too slow is told, to clients, JSON clients and workers; and one that is not is left alone.
#[test]
fn timeout_ends_requests() {
    check_policy(r#"{"timeout": "50ms"}"#, async |node: Node| {
        let mut client = Raw::connect(node.addr).await;
        let reply = client.ask("s1", "/never", "").await;
        assert_eq!((reply.status, reply.header("x-cellmesh-error")), (504, Some("deadline")));
        let mut client = Raw::connect(node.addr).await;
        let answer = client.json(r#"{"target_service": "s1", "path": "/never"}"#).await;
        assert_eq!(answer["status"], 504);
        let called = call(&node, 1, "/never", Bytes::new());
        assert_eq!(answer_of(&node, called).await.fault, Fault::Deadline);
        assert_eq!(Raw::connect(node.addr).await.ask("s1", "/hello", "").await.status, 200);
        let mut other = Raw::connect(node.addr).await;
        other.ask_only("s0", "/never", "").await;
        node.until(|node| node.last_seen().service.0 == 0).await;
        node.answer_all_held();
        assert_eq!(other.reply().await.text(), "late");
    });
}

/// A body that does not come ends at the same time, and not at that of all requests.
#[test]
fn timeout_holds_for_bodies() {
    check_policy(r#"{"timeout": "50ms"}"#, async |node: Node| {
        let mut client = Raw::connect(node.addr).await;
        client.ask_only("s1", "/echo", "content-length: 5\r\n").await;
        let reply = client.reply().await;
        assert_eq!((reply.status, node.seen_count()), (408, 0));
    });
}

/// Each call of a worker to such a service comes through the DPU: no flow entry lets one pass.
#[test]
fn service_with_policy_gets_no_flow() {
    check_policy(r#"{"timeout": "10s"}"#, async |node: Node| {
        for round in 1..=5 {
            let called = call(&node, 1, "/echo", Bytes::from_static(b"hi"));
            assert_eq!(&answer_of(&node, called).await.body[..], b"hi");
            assert_eq!(node.dpu.stats().relayed, round);
        }
        for _ in 0..2 {
            let called = call(&node, 0, "/hello", Bytes::new());
            assert_eq!(answer_of(&node, called).await.status, 200);
        }
        let stats = node.dpu.stats();
        assert_eq!((stats.relayed, stats.relays_open), (6, 0));
    });
}

/// What `s1` has refused so far for this reason, and how many of its requests are in flight.
fn counted(node: &Node, reason: &str) -> (u64, u64) {
    let policies = node.dpu.policy_stats();
    let [policy] = &policies[..] else { panic!("one policy: {policies:?}") };
    let refused = policy.refused.iter().find(|(found, _)| *found == reason);
    (refused.expect("a known reason").1, policy.in_flight)
}

/// The places are shared by clients and workers, come back with the answer and with who goes away, and are not taken by
/// bodies that do not come.
#[test]
fn places_in_flight_are_given_back() {
    check_policy(r#"{"in_flight_max": 2}"#, async |node: Node| {
        let mut slow = Raw::connect(node.addr).await;
        slow.ask_only("s1", "/echo", "content-length: 4\r\n").await;
        let mut held = Raw::connect(node.addr).await;
        held.ask_only("s1", "/never", "").await;
        let called = call(&node, 1, "/never", Bytes::new());
        node.until(|node| node.seen_count() == 2).await;

        let mut client = Raw::connect(node.addr).await;
        let reply = client.ask("s1", "/hello", "content-length: 1000\r\n").await;
        assert_eq!((reply.status, reply.header("x-cellmesh-error")), (503, Some("overloaded")));
        assert_eq!(reply.header("retry-after"), Some("1"));
        assert_eq!(reply.error(), "too many requests of service \"s1\" in flight");
        slow.send("body").await;
        assert_eq!(slow.reply().await.status, 503, "its body is there, but no place");
        let second = call(&node, 1, "/hello", Bytes::new());
        let answer = answer_of(&node, second).await;
        assert_eq!((answer.status, answer.headers().get("retry-after")), (503, Some(&b"1"[..])));
        assert_eq!(counted(&node, "in-flight"), (3, 2));
        assert_eq!(Raw::connect(node.addr).await.ask("s0", "/hello", "").await.status, 200);

        node.worker.borrow_mut().port.cancel(called);
        drop(held);
        node.dpu.work().notify_one();
        node.until(|node| counted(node, "in-flight") == (3, 0)).await;
        assert_eq!(Raw::connect(node.addr).await.ask("s1", "/hello", "").await.text(), "hello");
        let third = call(&node, 1, "/hello", Bytes::new());
        assert_eq!(&answer_of(&node, third).await.body[..], b"hello");
        assert_eq!(counted(&node, "in-flight"), (3, 0));
    });
}

/// Clients and workers have one bucket: what one takes is not there for the other.
#[test]
fn rate_bounds_clients_and_workers_together() {
    check_policy(r#"{"rate": {"per_second": 1, "burst": 2}}"#, async |node: Node| {
        let mut client = Raw::connect(node.addr).await;
        assert_eq!(client.ask("s1", "/hello", "").await.status, 200);
        let called = call(&node, 1, "/hello", Bytes::new());
        assert_eq!(answer_of(&node, called).await.status, 200);
        let mut calls = 0;
        let refused = loop {
            calls += 1;
            assert!(calls < 60, "a call each second");
            let called = call(&node, 1, "/hello", Bytes::new());
            let answer = answer_of(&node, called).await;
            if answer.status != 200 {
                break answer;
            }
        };
        assert_eq!((refused.status, refused.headers().get("retry-after")), (429, Some(&b"1"[..])));
    });
}

/// What is beyond the rate never comes to a worker, and says when to try again.
#[test]
fn requests_beyond_the_rate_are_not_sent() {
    check_policy(r#"{"rate": {"per_second": 1, "burst": 1}, "timeout": "10s"}"#, async |node: Node| {
        let mut refused = 0;
        let mut sent = 0;
        while refused == 0 {
            let mut client = Raw::connect(node.addr).await;
            let reply = client.ask("s1", "/hello", "x-request-id: r7\r\ncontent-length: 0\r\n").await;
            match reply.status {
                200 => sent += 1,
                status => {
                    assert_eq!(reply.headers("x-request-id"), ["r7"]);
                    assert_eq!((status, reply.header("x-cellmesh-error")), (429, Some("rate-limited")));
                    assert_eq!(reply.header("retry-after"), Some("1"));
                    assert_eq!(reply.error(), "requests of service \"s1\" come too fast");
                    refused += 1;
                }
            }
            assert!(sent < 60, "a request each second");
        }
        assert_eq!((node.seen_count(), counted(&node, "rate").0), (sent, refused));
    });
}

/// The service sees the headers of the policy, and so does who asked: clients, JSON clients and workers.
#[test]
fn headers_are_added_and_removed() {
    let policy = r#"{"headers": {"add": {"x-team": "a"}, "remove": ["x-debug"]},
        "response_headers": {"add": {"X-Served-By": "mesh"}, "remove": ["content-type"]}}"#;
    check_policy(policy, async |node: Node| {
        let check_seen = || {
            let seen = node.last_seen();
            assert_eq!((seen.header("x-team"), seen.header("x-debug")), (Some("a"), None));
            assert_eq!((seen.service.0, seen.target.as_str()), (1, "/hello"));
        };
        let mut client = Raw::connect(node.addr).await;
        let reply = client.ask("s1", "/hello", "X-Debug: 1\r\nx-kept: 2\r\n").await;
        check_seen();
        assert_eq!(node.last_seen().header("x-kept"), Some("2"));
        assert_eq!((reply.header("x-served-by"), reply.header("content-type")), (Some("mesh"), None));
        let object = r#"{"target_service": "s1", "path": "/hello", "headers": {"X-Debug": "1"}}"#;
        let answer = Raw::connect(node.addr).await.json(object).await;
        check_seen();
        assert_eq!(answer["headers"], serde_json::json!({"x-served-by": "mesh"}));
        let called = call(&node, 1, "/hello", Bytes::new());
        let answer = answer_of(&node, called).await;
        check_seen();
        assert_eq!(&answer.head[..], b"x-served-by: mesh\n");
        let reply = client.ask("s0", "/hello", "x-debug: 1\r\n").await;
        assert_eq!((reply.header("x-served-by"), node.last_seen().header("x-debug")), (None, Some("1")));
    });
}

/// All requests of a service go to another, whoever asks, and that one's own policy is not asked.
#[test]
fn split_sends_requests_to_another_service() {
    let policy = |text| serde_json::from_str::<ServicePolicy>(text).expect("a policy");
    let services = [
        ("s1".to_owned(), policy(r#"{"split": {"s0": 100}}"#)),
        ("s0".to_owned(), policy(r#"{"in_flight_max": 1, "headers": {"add": {"x-own": "1"}}}"#)),
    ];
    check_with(DpuConfig { services: services.into(), ..DpuConfig::default() }, async |node: Node| {
        let mut held = Raw::connect(node.addr).await;
        held.ask_only("s0", "/never", "").await;
        node.until(|node| node.seen_count() == 1).await;
        assert_eq!(node.last_seen().header("x-own"), Some("1"));
        let mut client = Raw::connect(node.addr).await;
        assert_eq!(client.ask("s0", "/hello", "").await.status, 503, "its own policy");
        assert_eq!(client.ask("s1", "/hello", "").await.status, 200);
        assert_eq!((node.last_seen().service.0, node.last_seen().header("x-own")), (0, None));
        for _ in 0..2 {
            let called = call(&node, 1, "/hello", Bytes::new());
            assert_eq!(answer_of(&node, called).await.status, 200);
            assert_eq!(node.last_seen().service.0, 0);
        }
    });
}
