//! Policy of a service: what is done when a call fails or is slow, as the worker sees it.

use std::time::Duration;

use bytes::Bytes;
use cellmesh_dpu::policy::TryCounts;
use cellmesh_dpu::policy::breaker::BreakerState;
use cellmesh_shm::clock::Nanos;
use cellmesh_shm::message::Fault;

use crate::client::{Raw, Reply};
use crate::node::Node;
use crate::policy::check_policy;
use crate::relay::{answer_of, call, call_until};

async fn ask(node: &Node, method: &str, target: &str) -> Reply {
    let mut client = Raw::connect(node.addr).await;
    client.send(request(method, target)).await;
    client.reply().await
}

fn request(method: &str, target: &str) -> String {
    format!("{method} {target} HTTP/1.1\r\nhost: node\r\nx-cellmesh-service: s1\r\ncontent-length: 0\r\n\r\n")
}

fn counts(node: &Node) -> TryCounts {
    let stats = node.dpu.policy_stats();
    stats[0].tries.expect("a policy for tries")
}

/// A failure is tried again if the method allows it, and the last answer is the one that is given.
#[test]
fn failures_are_tried_again() {
    check_policy(
        r#"{"retry": {"retries_max": 2, "backoff": "1ms", "backoff_max": "1ms"}}"#,
        async |node: Node| {
            assert_eq!(ask(&node, "GET", "/status/503").await.status, 503);
            assert_eq!((node.seen_count(), counts(&node).retries), (3, 2));
            assert_eq!(ask(&node, "POST", "/status/503").await.status, 503);
            let called = call(&node, 1, "/status/503", Bytes::new());
            assert_eq!(answer_of(&node, called).await.status, 503, "a worker's POST");
            assert_eq!(ask(&node, "GET", "/status/404").await.status, 404);
            assert_eq!((node.seen_count(), counts(&node).retries), (6, 2));
            assert_eq!(node.dpu.stats().relays_open, 0);
        },
    );
}

/// A worker's call is tried again like a client's.
#[test]
fn calls_of_workers_are_tried_again() {
    let policy =
        r#"{"retry": {"methods": "all", "backoff": "1ms", "backoff_max": "1ms"}, "try_timeout": "50ms"}"#;
    check_policy(policy, async |node: Node| {
        for (target, status, fault) in [("/status/502", 502, Fault::None), ("/never", 504, Fault::Deadline)] {
            let before = node.seen_count();
            let called = call(&node, 1, target, Bytes::from_static(b"body"));
            let answer = answer_of(&node, called).await;
            assert_eq!((answer.status, answer.fault), (status, fault), "{target}");
            assert_eq!(node.seen_count(), before + 2, "{target}");
            assert_eq!(node.last_seen().body, b"body");
        }
    });
}

/// Nothing of an open circuit reaches the worker, and whoever asks is told when to come back.
#[test]
fn open_circuit_answers_at_once() {
    check_policy(r#"{"breaker": {"failures_max": 3, "open": "20s"}}"#, async |node: Node| {
        for status in ["/status/500", "/status/404", "/status/500", "/status/500", "/status/500"] {
            ask(&node, "GET", status).await;
        }
        let reply = ask(&node, "GET", "/hello").await;
        assert_eq!((reply.status, reply.header("x-cellmesh-error")), (503, Some("circuit-open")));
        let after: u32 = reply.header("retry-after").and_then(|text| text.parse().ok()).expect("seconds");
        assert!((1..=20).contains(&after), "{after}");
        let called = call(&node, 1, "/hello", Bytes::new());
        let answer = answer_of(&node, called).await;
        assert_eq!(answer.headers().get("x-cellmesh-error"), Some(&b"circuit-open"[..]));
        assert_eq!((answer.status, node.seen_count(), counts(&node).circuit_refused), (503, 5, 2));
    });
}

/// A node whose circuit to `s1` is half open: the one call that may ask, of a client or of a worker, is with the worker.
async fn half_open(node: &Node, asks_by_worker: bool) -> Option<Raw> {
    for _ in 0..2 {
        assert_eq!(ask(node, "GET", "/status/500").await.status, 500);
    }
    let before = node.seen_count();
    loop {
        if asks_by_worker {
            let called = call(node, 1, "/never", Bytes::new());
            let has_end =
                |node: &Node| node.worker.borrow().answers.iter().any(|(found, _)| *found == called);
            node.until(|node| node.seen_count() > before || has_end(node)).await;
        } else {
            let refused = node.dpu.stats().refused;
            let mut client = Raw::connect(node.addr).await;
            client.send(request("GET", "/never")).await;
            node.until(|node| node.seen_count() > before || node.dpu.stats().refused > refused).await;
            if node.seen_count() > before {
                return Some(client);
            }
        }
        if node.seen_count() > before {
            return None;
        }
    }
}

/// Asks until the circuit does not refuse it any more; the status of the answer.
async fn ask_until_let_through(node: &Node) -> u16 {
    loop {
        let status = ask(node, "GET", "/hello").await.status;
        if status != 503 {
            return status;
        }
    }
}

const HALF_OPEN: &str = r#"{"breaker": {"failures_max": 2, "open": "1s", "open_max": "1s"}}"#;

/// A circuit is half open when the link to the DPA is lost: the call that asked says nothing of the service, and the next one
/// asks. It is not waited for until its time is over.
#[test]
fn lost_link_lets_the_next_call_ask() {
    for asks_by_worker in [false, true] {
        check_policy(HALF_OPEN, async |node: Node| {
            let _client = half_open(&node, asks_by_worker).await;
            assert_eq!(counts(&node).circuit, BreakerState::HalfOpen);
            node.replace_dpa();
            assert_eq!(ask_until_let_through(&node).await, 200);
            assert_eq!((counts(&node).circuit, counts(&node).circuit_openings), (BreakerState::Closed, 1));
            assert_eq!(node.dpu.stats().relays_open, 0);
        });
    }
}

/// The worker that is asked dies: that is an answer, and the circuit is open for a while. It closes when another worker answers.
#[test]
fn circuit_survives_the_worker_that_is_asked() {
    for asks_by_worker in [false, true] {
        check_policy(HALF_OPEN, async |node: Node| {
            let _client = half_open(&node, asks_by_worker).await;
            node.replace_worker();
            // Of a call of the worker itself nobody hears.
            if !asks_by_worker {
                node.until(|node| counts(node).circuit == BreakerState::Open).await;
            }
            assert_eq!(ask_until_let_through(&node).await, 200);
            assert_eq!(counts(&node).circuit, BreakerState::Closed);
        });
    }
}

/// A caller that has no time left for an answer says nothing about the service: its deadlines open no circuit. Those of callers
/// that had time do.
#[test]
fn hurried_callers_open_no_circuit() {
    let policy = r#"{"breaker": {"failures_max": 2, "open": "20s"}, "timeout": "400ms"}"#;
    check_policy(policy, async |node: Node| {
        for (time, then) in [(20, 200), (5000, 503)] {
            for _ in 0..3 {
                let deadline = Nanos::now().saturating_add(Duration::from_millis(time));
                let called = call_until(&node, 1, "/never", Bytes::new(), deadline);
                let answer = answer_of(&node, called).await;
                assert_ne!((answer.status, answer.fault), (200, Fault::None), "{time} ms");
            }
            assert_eq!(ask(&node, "GET", "/hello").await.status, then, "{time} ms");
        }
    });
}

/// A client that leaves takes all calls with it that were made for it; so does a worker.
#[test]
fn calls_are_given_up_together() {
    check_policy(r#"{"hedge": {"budget_ratio": 1.0}}"#, async |node: Node| {
        for _ in 0..20 {
            assert_eq!(ask(&node, "GET", "/hello").await.status, 200);
        }
        let (before, cancelled) = (node.seen_count(), node.cancelled_count());
        let mut client = Raw::connect(node.addr).await;
        client.send(request("GET", "/never")).await;
        node.until(|node| node.seen_count() == before + 2).await;
        drop(client);
        node.until(|node| node.cancelled_count() >= cancelled + 2).await;
        let called = call(&node, 1, "/never", Bytes::new());
        node.until(|node| node.seen_count() == before + 3).await;
        node.worker.borrow_mut().port.cancel(called);
        node.dpu.work().notify_one();
        node.until(|node| node.cancelled_count() >= cancelled + 3 && node.dpu.stats().relays_open == 0).await;
    });
}
