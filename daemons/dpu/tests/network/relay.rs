//! Calls of workers that the DPA does not know the way for.

use bytes::Bytes;
use cellmesh_dpu::DpuConfig;
use cellmesh_shm::clock::Nanos;
use cellmesh_shm::head::HeadBuilder;
use cellmesh_shm::ids::{CallId, ServiceId};
use cellmesh_shm::message::{Fault, RequestMessage, ResponseMessage};

use crate::node::{Node, check, check_with};

/// A call of the worker.
pub(crate) fn call(node: &Node, service: u16, target: &str, body: Bytes) -> CallId {
    call_until(node, service, target, body, Nanos::MAX)
}

/// A call of the worker that has time until `deadline`.
pub(crate) fn call_until(node: &Node, service: u16, target: &str, body: Bytes, deadline: Nanos) -> CallId {
    let head = HeadBuilder::request("POST", target).expect("a head").finish_request();
    let message = RequestMessage {
        service: ServiceId(service),
        deadline,
        hops: 0,
        method_len: head.method_len,
        target_len: head.target_len,
        head: head.bytes,
        body,
    };
    let called = node.worker.borrow_mut().port.call(message).expect("room for a call");
    node.dpu.work().notify_one();
    called
}

pub(crate) async fn answer_of(node: &Node, call: CallId) -> ResponseMessage {
    node.until(|node| node.worker.borrow().answers.iter().any(|(found, _)| *found == call)).await;
    let mut worker = node.worker.borrow_mut();
    let place = worker.answers.iter().position(|(found, _)| *found == call).expect("it is there");
    worker.answers.swap_remove(place).1
}

/// The first call takes the slow path and is answered; the flow is installed, so later ones do not come here.
#[test]
fn first_call_installs_the_flow() {
    check(async |node: Node| {
        for round in 0..5 {
            let called = call(&node, 1, "/echo", Bytes::from_static(b"hi"));
            let answer = answer_of(&node, called).await;
            assert_eq!(
                (answer.status, answer.fault, &answer.body[..]),
                (200, Fault::None, &b"hi"[..]),
                "round {round}"
            );
        }
        let stats = node.dpu.stats();
        assert_eq!((stats.relayed, stats.relays_open, stats.received), (1, 0, 0));
    });
}

/// Large messages take the slow path as well.
#[test]
fn large_calls_are_relayed() {
    check(async |node: Node| {
        let body = Bytes::from(vec![b'x'; 16 * 1024 * 1024]);
        let called = call(&node, 1, "/echo", body.clone());
        assert!(answer_of(&node, called).await.body == body);
        assert_eq!(node.dpu.stats().relayed, 1);
    });
}

/// A service without a worker, one that does not exist, and too many at once: the caller is told.
#[test]
fn calls_that_go_nowhere_are_answered() {
    check_with(DpuConfig { relays_max: 1, ..DpuConfig::default() }, async |node: Node| {
        let called = call(&node, 2, "/", Bytes::new());
        assert_eq!(answer_of(&node, called).await.fault, Fault::NoWorker);
        let called = call(&node, 99, "/", Bytes::new());
        assert_eq!(answer_of(&node, called).await.fault, Fault::Unroutable);
        assert_eq!(node.dpu.stats().relays_open, 0);
    });
}

/// A caller that gives up ends the relayed call at the callee too.
#[test]
fn cancelled_calls_are_cancelled_at_the_callee() {
    check(async |node: Node| {
        let called = call(&node, 1, "/never", Bytes::new());
        node.until(|node| node.dpu.stats().relays_open == 1 && node.seen_count() == 1).await;
        node.worker.borrow_mut().port.cancel(called);
        node.dpu.work().notify_one();
        node.until(|node| node.dpu.stats().relays_open == 0 && node.cancelled_count() == 1).await;
    });
}
