//! Policy of a service: for clients and for calls of workers.

use bytes::Bytes;
use cellmesh_dpu::DpuConfig;
use cellmesh_dpu::policy::ServicePolicy;
use cellmesh_shm::message::Fault;

use crate::client::{Raw, Reply};
use crate::node::{Node, check_with};
use crate::relay::{answer_of, call};

/// A node whose service `s1` has this policy.
fn check_policy(policy: &str, test: impl AsyncFnOnce(Node)) {
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
