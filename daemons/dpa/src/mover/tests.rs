//! A node step by step: two sides of every rule, on a clock that only the test moves.

use std::time::Duration;

use bytes::Bytes;
use cellmesh_shm::message::{Fault, RequestMessage, ResponseMessage};
use cellmesh_shm::outlier::OutlierRule;
use cellmesh_shm::port::Arrived;
use cellmesh_shm::profile::RingProfile;

use super::*;
use crate::DpaConfig;
use crate::testing::{Node, OTHER, S, SIDECAR, answer, pattern, request};

const W1: usize = 1;
const W2: usize = 2;

fn text(text: &'static str) -> Bytes {
    Bytes::from_static(text.as_bytes())
}

/// A request of the sidecar goes to a worker of its service, the answer comes back, and nothing is left.
#[test]
fn sidecar_calls_worker() {
    let mut node = Node::with_workers(&[&[OTHER], &[S]]);
    let call = node.call(SIDECAR, request(S, text("ping")));
    let (slot, message) = node.next_request(W2);
    let deadline = node.now.saturating_add(Duration::from_secs(30));
    assert_eq!(message, RequestMessage { deadline, ..request(S, text("ping")) });
    assert_eq!(node.dpa.stats().live, 1);
    node.respond(W2, slot, text("pong"));
    assert_eq!(node.next_response(SIDECAR), (call, answer(text("pong"))));
    assert_eq!(node.dpa.stats().answered, 1);
    node.assert_settled();
}

/// A worker's first call goes to the sidecar; after it has installed the flow, calls go from worker to worker.
#[test]
fn flow_entry_makes_the_fast_path() {
    let mut node = Node::with_workers(&[&[OTHER], &[S]]);
    node.call(W1, request(S, text("first")));
    let (slot, message) = node.next_request(SIDECAR);
    assert_eq!((message.service, message.hops), (S, 1));
    node.ports[SIDECAR].install_flow(slot);
    node.call(SIDECAR, message);
    let (relayed, message) = node.next_request(W2);
    assert_eq!((message.hops, &message.body[..]), (1, &b"first"[..]));
    node.respond(W2, relayed, text("answer"));
    let (_, message) = node.next_response(SIDECAR);
    node.ports[SIDECAR].respond(slot, message);
    assert_eq!(node.next_response(W1).1, answer(text("answer")));

    node.call(W1, request(S, text("second")));
    let (slot, message) = node.next_request(W2);
    assert_eq!((message.hops, node.dpa.stats().slow_path), (1, 1));
    node.respond(W2, slot, text("fast"));
    assert_eq!(node.next_response(W1).1, answer(text("fast")));

    node.ports[SIDECAR].remove_flow(S);
    node.settle_down();
    node.call(W1, request(S, text("third")));
    let (slot, _) = node.next_request(SIDECAR);
    node.respond(SIDECAR, slot, Bytes::new());
    node.next_response(W1);
    node.assert_settled();
}

/// A worker may call its own service.
#[test]
fn worker_calls_itself() {
    let mut node = Node::with_workers(&[&[S]]);
    node.install_flow(W1, S);
    node.settle_down();
    node.call(W1, request(S, pattern(100_000, 1)));
    let (slot, message) = node.next_request(W1);
    node.respond(W1, slot, message.body);
    assert_eq!(node.next_response(W1).1, answer(pattern(100_000, 1)));
    node.assert_settled();
}

/// What cannot be delivered is answered at once, and says why.
#[test]
fn undeliverable_requests_are_answered_at_once() {
    let mut node = Node::with_workers(&[&[OTHER]]);
    node.call(SIDECAR, request(S, text("x")));
    assert_eq!(node.next_fault(SIDECAR), Fault::NoWorker);
    let sidecar = node.ids[SIDECAR];
    node.call(W1, request(S, pattern(50_000, 0)));
    node.dpa.detach(sidecar);
    assert_eq!(node.next_fault(W1), Fault::Unroutable);
    assert_eq!(node.dpa.stats().faulted_total(), 2);
    node.assert_settled();
}

/// A chain of calls ends where it has gone through too many workers. A sidecar adds nothing to it.
#[test]
fn hops_are_limited() {
    let mut node = Node::with_workers(&[&[S]]);
    node.install_flow(W1, S);
    node.settle_down();
    let with_hops = |hops| RequestMessage { hops, ..request(S, Bytes::new()) };
    node.call(W1, with_hops(15));
    let (slot, message) = node.next_request(W1);
    assert_eq!(message.hops, 16);
    node.respond(W1, slot, Bytes::new());
    node.next_response(W1);
    for hops in [16, 255] {
        node.call(W1, with_hops(hops));
        assert_eq!(node.next_fault(W1), Fault::HopLimit);
    }
    node.call(SIDECAR, with_hops(16));
    let (slot, message) = node.next_request(W1);
    assert_eq!(message.hops, 16);
    node.respond(W1, slot, Bytes::new());
    node.next_response(SIDECAR);
    node.assert_settled();
}

/// At its deadline a request is answered, its worker hears that nobody waits, and a late answer is dropped.
#[test]
fn deadline_settles_both_sides() {
    let mut node = Node::with_workers(&[&[S]]);
    let deadline = node.now.saturating_add(Duration::from_millis(5));
    node.call(SIDECAR, RequestMessage { deadline, ..request(S, text("slow")) });
    let (slot, message) = node.next_request(W1);
    assert_eq!((message.deadline, node.dpa.next_deadline()), (deadline, Some(deadline)));
    node.pass(Duration::from_millis(5) - Duration::from_nanos(1));
    assert_eq!(node.next(SIDECAR), None);
    node.pass(Duration::from_nanos(1));
    node.stall(W1);
    assert_eq!(node.next_fault(SIDECAR), Fault::Deadline);
    node.ports[W1].respond(slot, answer(text("late, and not yet told")));
    node.settle_down();
    assert_eq!(node.next(W1), None, "the cancel finds the request answered");
    assert_eq!((node.dpa.stats().late_responses, node.dpa.next_deadline()), (1, None));
    node.call(SIDECAR, RequestMessage { deadline: node.now, ..request(S, Bytes::new()) });
    assert_eq!(node.next_fault(SIDECAR), Fault::Deadline, "no time left: not even taken");
    node.assert_settled();
}

/// A held request whose time is up is taken from its worker.
#[test]
fn worker_hears_of_a_passed_deadline() {
    let mut node = Node::with_workers(&[&[S]]);
    node.call(SIDECAR, request(S, text("slow")));
    let (slot, _) = node.next_request(W1);
    node.pass(Duration::from_secs(30));
    assert_eq!(node.next(W1), Some(Arrived::Cancelled { slot }));
    assert_eq!(node.next_fault(SIDECAR), Fault::Deadline);
    node.assert_settled();
}

/// A call that is given up has no outcome for its caller, is taken from its worker, and its place comes back.
#[test]
fn cancelled_call_ends_everywhere() {
    let mut node = Node::with_workers(&[&[S]]);
    let call = node.call(SIDECAR, request(S, text("x")));
    let (slot, _) = node.next_request(W1);
    node.ports[SIDECAR].cancel(call);
    node.ports[SIDECAR].cancel(call);
    assert_eq!(node.next(W1), Some(Arrived::Cancelled { slot }));
    assert_eq!(node.next(SIDECAR), None);
    assert!(node.ports[SIDECAR].is_idle() && node.ports[W1].is_idle());
    assert_eq!(node.dpa.stats().faulted_for(Fault::Cancelled), 1);
    let next = node.call(SIDECAR, request(S, text("y")));
    assert_eq!((next.index, next.generation), (call.index, call.generation + 1));
    node.next_request(W1);
    node.ports[SIDECAR].cancel(next);
    node.assert_settled();
}

/// A cancel that crosses with the answer changes nothing for anybody else.
#[test]
fn cancel_may_cross_the_answer() {
    let mut node = Node::with_workers(&[&[S]]);
    let call = node.call(SIDECAR, request(S, text("x")));
    let (slot, _) = node.next_request(W1);
    node.respond(W1, slot, text("in time"));
    node.stall(SIDECAR);
    node.settle_down();
    node.ports[SIDECAR].cancel(call);
    assert_eq!(node.next(SIDECAR), None);
    assert_eq!((node.dpa.stats().late_cancels, node.ports[SIDECAR].stats().late_outcomes), (1, 1));
    node.assert_settled();
}

/// Large payloads of both directions, at every stage of being cancelled, give back all credit that they held.
#[test]
fn cancelled_streams_give_credit_back() {
    for pumps in 0..24 {
        let mut node = Node::with_workers(&[&[S]]);
        let call = node.call(SIDECAR, request(S, pattern(1 << 20, 1)));
        for _ in 0..pumps {
            node.ports.iter_mut().for_each(|port| _ = port.flush());
            node.dpa.pump(node.now);
            if let Some(Arrived::Request { slot, .. }) = node.ports[W1].poll().expect("an honest DPA") {
                node.respond(W1, slot, pattern(1 << 20, 2));
            }
            assert_eq!(node.ports[SIDECAR].poll(), Ok(None), "it is not over so soon");
        }
        node.ports[SIDECAR].cancel(call);
        while node.next(W1).is_some() || node.next(SIDECAR).is_some() {}
        node.assert_settled();
        assert!(node.ports.iter().all(cellmesh_shm::port::Port::is_idle), "cancelled after {pumps} pumps");
        node.call(SIDECAR, request(S, pattern(1 << 20, 3)));
        let (slot, message) = node.next_request(W1);
        node.respond(W1, slot, message.body);
        assert!(node.next_response(SIDECAR).1 == answer(pattern(1 << 20, 3)), "after {pumps} pumps");
        node.assert_settled();
    }
}

/// Who grants credit goes by its own ring, whatever the ring of the sender holds: large messages pass both ways between rings of
/// different sizes.
#[test]
fn rings_may_differ() {
    let profile = |bulk_chunks| RingProfile { bulk_chunks, ..RingProfile::default() };
    let mut node = Node::new(DpaConfig { profile: profile(2), ..DpaConfig::default() }, &[]);
    node.add_worker(&[S], &DpaConfig { profile: profile(64), ..DpaConfig::default() });
    node.call(SIDECAR, request(S, pattern(4 << 20, 1)));
    let (slot, message) = node.next_request(W1);
    assert!(message.body == pattern(4 << 20, 1));
    node.respond(W1, slot, pattern(4 << 20, 2));
    assert!(node.next_response(SIDECAR).1 == answer(pattern(4 << 20, 2)));
    node.assert_settled();
}

/// What is found outside of an endpoint's turn closes it in the same pump, although nobody looks at all of them then.
#[test]
fn found_outside_a_turn_closes_at_once() {
    let mut node = Node::with_workers(&[&[S]]);
    node.settle_down();
    let violation = Violation::Rule { kind: FrameKind::Cancel, rule: "as a test says" };
    let outlet = &mut node.dpa.exchange.outlets[usize::from(node.ids[W1].0)];
    outlet.as_mut().expect("attached").break_off(violation);
    node.dpa.pump(node.now);
    let closed = node.dpa.take_closed().expect("it is closed");
    assert_eq!((closed.endpoint, closed.rule.as_str()), (node.ids[W1], "Cancel: as a test says"));
}

/// Messages of 16 MiB pass byte for byte through rings of 16 and 256 KiB.
#[test]
fn messages_far_beyond_the_ring_pass() {
    let mut node = Node::with_workers(&[&[S]]);
    node.call(SIDECAR, request(S, pattern(16 << 20, 1)));
    let (slot, message) = node.next_request(W1);
    assert!(message.body == pattern(16 << 20, 1));
    node.respond(W1, slot, pattern(16 << 20, 2));
    assert!(node.next_response(SIDECAR).1 == answer(pattern(16 << 20, 2)));
    assert_eq!(node.dpa.stats().chunks, 2 * (16u64 << 20).div_ceil(16320).max(1029));
    node.assert_settled();
}

/// Large messages of several callers go side by side, and small calls overtake all of them.
#[test]
fn small_calls_overtake_large_ones() {
    let mut node = Node::with_workers(&[&[S], &[OTHER]]);
    node.install_flow(W2, S);
    node.settle_down();
    for caller in [SIDECAR, W2, SIDECAR, W2] {
        node.call(caller, request(S, pattern(4 << 20, 9)));
    }
    for _ in 0..3 {
        node.ports.iter_mut().for_each(|port| _ = port.flush());
        node.dpa.pump(node.now);
        assert_eq!(node.ports[W1].poll(), Ok(None), "the large ones are on their way");
    }
    node.call(W2, request(S, text("small")));
    let (slot, message) = node.next_request(W1);
    assert_eq!(message.body, text("small"));
    node.respond(W1, slot, text("quick"));
    assert_eq!(node.next_response(W2).1, answer(text("quick")));
    for _ in 0..4 {
        let (slot, message) = node.next_request(W1);
        assert!(message.body == pattern(4 << 20, 9));
        node.respond(W1, slot, Bytes::new());
    }
    for caller in [SIDECAR, W2, SIDECAR, W2] {
        assert_eq!(node.next_response(caller).1, answer(Bytes::new()));
    }
    node.assert_settled();
}

/// When the table is full a request is answered at once; a sidecar reaches that before a worker does.
#[test]
fn full_table_answers_at_once() {
    let config = DpaConfig { slots_max: 8, ..DpaConfig::default() };
    let mut node = Node::new(config, &[&[S]]);
    node.install_flow(W1, S);
    node.stall(W1);
    for _ in 0..8 {
        node.call(SIDECAR, request(S, Bytes::new()));
    }
    for _ in 0..2 {
        assert_eq!(node.next_fault(SIDECAR), Fault::Overloaded);
    }
    for _ in 0..3 {
        node.call(W1, request(S, Bytes::new()));
    }
    node.settle_down();
    assert_eq!(node.dpa.stats().live, 8);
    let mut faults = 0;
    while let Some(arrived) = node.next(W1) {
        match arrived {
            Arrived::Request { slot, .. } => node.respond(W1, slot, Bytes::new()),
            Arrived::Response { message, .. } => faults += u32::from(message.fault == Fault::Overloaded),
            Arrived::Cancelled { .. } => panic!("nobody cancelled"),
        }
    }
    assert_eq!(faults, 1);
    for _ in 0..6 {
        assert_eq!(node.next_response(SIDECAR).1.status, 200);
    }
    node.assert_settled();
}

/// A worker that does not take its requests is sent them as it can take them; another worker's calls are not held up.
#[test]
fn slow_worker_holds_nobody_up() {
    let mut node = Node::with_workers(&[&[S], &[OTHER]]);
    node.stall(W1);
    for n in 0..200 {
        node.call(SIDECAR, request(S, pattern(200, n)));
    }
    node.settle_down();
    assert!(node.dpa.stats().parked_now > 0, "the ring is smaller than that");
    node.call(SIDECAR, request(OTHER, text("other")));
    let (slot, _) = node.next_request(W2);
    node.respond(W2, slot, text("not held up"));
    assert_eq!(node.next_response(SIDECAR).1, answer(text("not held up")));
    for n in 0..200 {
        let (slot, message) = node.next_request(W1);
        assert_eq!(message.body, pattern(200, n));
        node.respond(W1, slot, message.body);
    }
    for n in 0..200 {
        assert_eq!(node.next_response(SIDECAR).1, answer(pattern(200, n)));
    }
    node.assert_settled();
}

/// A request that its worker never got is not delivered after its deadline, and its worker hears nothing of it.
#[test]
fn parked_request_expires_silently() {
    let mut node = Node::with_workers(&[&[S]]);
    node.stall(W1);
    for _ in 0..200 {
        node.call(SIDECAR, request(S, pattern(200, 0)));
    }
    node.settle_down();
    let parked = node.dpa.stats().parked_now;
    node.pass(Duration::from_secs(30));
    for _ in 0..200 {
        assert_eq!(node.next_fault(SIDECAR), Fault::Deadline);
    }
    let (mut requests, mut cancels) = (0, 0);
    while let Some(arrived) = node.next(W1) {
        match arrived {
            Arrived::Request { .. } => requests += 1,
            Arrived::Cancelled { .. } => cancels += 1,
            Arrived::Response { .. } => panic!("it called nobody"),
        }
    }
    assert_eq!((requests, cancels), (200 - parked, 200 - parked));
    node.assert_settled();
}

/// The death of a worker is answered for at once; what it had not got goes to another worker.
#[test]
fn lost_worker_is_settled() {
    let mut node = Node::with_workers(&[&[S], &[OTHER]]);
    node.install_flow(W1, OTHER);
    node.settle_down();
    node.stall(W1);
    for n in 0..200 {
        node.call(SIDECAR, request(S, pattern(200, n)));
    }
    node.call(W1, request(OTHER, text("its own")));
    node.settle_down();
    let parked = node.dpa.stats().parked_now;
    assert!((1..200).contains(&parked));
    let replacement = node.add_worker(&[S], &DpaConfig::default());
    let lost = node.ids[W1];
    node.dpa.detach(lost);
    node.dpa.detach(lost);
    for _ in 0..200 - parked {
        assert_eq!(node.next_fault(SIDECAR), Fault::WorkerLost);
    }
    for _ in 0..parked {
        let (slot, message) = node.next_request(replacement);
        node.respond(replacement, slot, message.body);
        assert_eq!(node.next_response(SIDECAR).1.fault, Fault::None);
    }
    let stats = node.dpa.stats();
    assert_eq!((stats.redispatched, stats.abandoned, stats.endpoints), (parked as u64, 1, 3));
    let (slot, _) = node.next_request(W2);
    assert_eq!(node.next(W2), Some(Arrived::Cancelled { slot }), "its own call is given up");
    node.assert_settled();
}

/// A worker may go as soon as its answers are in its rings: small ones and the last chunks of a large one arrive, although
/// the DPA had not looked before it went.
#[test]
fn answers_outlive_their_worker() {
    let mut node = Node::with_workers(&[&[S]]);
    for body in [text("small"), pattern(40_000, 3)] {
        node.call(SIDECAR, request(S, text("x")));
        let (slot, _) = node.next_request(W1);
        node.respond(W1, slot, body.clone());
        while !node.ports[W1].is_idle() {
            node.dpa.pump(node.now);
            assert_eq!(node.ports[SIDECAR].poll(), Ok(None), "the DPA has not seen all of it");
            node.ports[SIDECAR].flush();
            node.dpa.pump(node.now);
            assert_eq!(node.ports[W1].poll(), Ok(None));
            node.ports[W1].flush();
        }
        node.ports[W1].flush();
        let leaving = node.ids[W1];
        node.dpa.detach(leaving);
        assert_eq!(node.next_response(SIDECAR).1, answer(body));
        node.assert_settled();
        let next = node.attach_again(W1, &[S]);
        assert_eq!(next, leaving, "its name is free");
    }
}

/// A new endpoint may get the name of one that is gone, and nothing of its past.
#[test]
fn names_are_used_again() {
    let mut node = Node::with_workers(&[&[S]]);
    let first = node.ids[W1];
    let old_link = node.ports[W1].link().spec;
    node.dpa.detach(first);
    let second = node.add_worker(&[S], &DpaConfig::default());
    let new_link = node.ports[second].link().spec;
    assert_eq!(new_link.endpoint, old_link.endpoint);
    assert_ne!(new_link.generation, old_link.generation);
    node.call(SIDECAR, request(S, text("x")));
    let (slot, _) = node.next_request(second);
    node.respond(second, slot, Bytes::new());
    node.next_response(SIDECAR);
    node.assert_settled();
}

/// Requests go to the worker with fewer in flight.
#[test]
fn load_is_spread() {
    let mut node = Node::with_workers(&[&[S], &[S]]);
    let mut held = [0, 0];
    for _ in 0..20 {
        node.call(SIDECAR, request(S, Bytes::new()));
        for worker in [W1, W2] {
            while let Some(Arrived::Request { .. }) = node.next(worker) {
                held[worker - 1] += 1;
            }
        }
    }
    assert_eq!(held, [10, 10]);
}

/// Whoever is first in a turn gets what is scarce; so everybody is first in turn.
#[test]
fn turns_go_round() {
    let config = DpaConfig { slots_max: 1, ..DpaConfig::default() };
    let mut node = Node::new(config, &[&[OTHER], &[OTHER], &[S]]);
    node.install_flow(W1, S);
    node.install_flow(W2, S);
    node.settle_down();
    let mut served = [0, 0];
    for _ in 0..12 {
        // Else the pumps of a round are a multiple of the endpoints, and the same one is first each time.
        node.dpa.pump(node.now);
        let calls = [W1, W2].map(|worker| node.call(worker, request(S, Bytes::new())));
        let (slot, _) = node.next_request(3);
        node.respond(3, slot, Bytes::new());
        for (worker, call) in [W1, W2].into_iter().zip(calls) {
            let (answered, message) = node.next_response(worker);
            assert_eq!(answered, call);
            served[worker - 1] += u32::from(message.fault == Fault::None);
        }
    }
    assert!(served.iter().all(|count| *count >= 3), "{served:?} of 12");
}

/// Nobody is rung while all are awake; a sleeping worker is.
#[test]
fn only_sleepers_are_rung() {
    let mut node = Node::with_workers(&[&[S]]);
    let (slot, _) = {
        node.call(SIDECAR, request(S, Bytes::new()));
        node.next_request(W1)
    };
    assert_eq!(node.dpa.stats().doorbells, 0);
    node.ports[SIDECAR].announce_sleep();
    node.respond(W1, slot, Bytes::new());
    node.settle_down();
    assert_eq!(node.dpa.stats().doorbells, 1);
    node.dpa.announce_sleep();
    assert!(node.ids.iter().all(|id| node.dpa.wait_fd(*id).is_some()));
    node.dpa.wake();
    node.next_response(SIDECAR);
    node.assert_settled();
}

/// Asks a service that two workers serve, of which W1 fails. Who has answered, and how.
fn ask_failing(node: &mut Node) -> (usize, u16) {
    node.call(SIDECAR, request(S, text("x")));
    node.settle_down();
    let (worker, slot) = [W1, W2]
        .into_iter()
        .find_map(|worker| match node.arrived(worker) {
            Some(Arrived::Request { slot, .. }) => Some((worker, slot)),
            _ => None,
        })
        .expect("a request at one of them");
    let status = if worker == W1 { 503 } else { 200 };
    node.ports[worker].respond(slot, ResponseMessage { status, ..answer(Bytes::new()) });
    assert_eq!(node.next_response(SIDECAR).1.status, status);
    (worker, status)
}

/// A worker that fails again and again gets nothing more until its time is over; who waits for it loses nothing.
#[test]
fn outliers_get_nothing_for_a_while() {
    let mut node = Node::with_workers(&[&[S], &[S]]);
    let rule = OutlierRule { failures_max: 3, ..OutlierRule::default() };
    node.dpa.set_outlier_rule(S, Some(rule));
    let mut failed = 0;
    for _ in 0..100 {
        failed += u32::from(ask_failing(&mut node).0 == W1);
    }
    assert_eq!((failed, node.dpa.stats().ejections, node.dpa.stats().ejected_now), (3, 1, 1));
    assert_eq!(node.dpa.take_ejection(), Some((S, node.ids[W1], rule.ejection)));
    assert_eq!(node.dpa.next_deadline(), Some(node.now.saturating_add(rule.ejection)), "nothing else is due");
    node.pass(rule.ejection);
    let failed = (0..100).filter(|_| ask_failing(&mut node).0 == W1).count();
    assert_eq!((failed, node.dpa.stats().ejections), (3, 2), "it had another chance");
    let healthy = node.ids[W2];
    node.dpa.detach(healthy);
    assert_eq!(ask_failing(&mut node), (W1, 503), "nobody else is left");
    node.assert_settled();
}

/// A worker that leaves requests without an answer fails too.
#[test]
fn silence_is_a_failure() {
    let mut node = Node::with_workers(&[&[S], &[S]]);
    node.dpa.set_outlier_rule(S, Some(OutlierRule { failures_max: 1, ..OutlierRule::default() }));
    let deadline = node.now.saturating_add(Duration::from_secs(1));
    node.call(SIDECAR, RequestMessage { deadline, ..request(S, text("x")) });
    node.settle_down();
    node.pass(Duration::from_secs(1));
    assert_eq!(node.next_fault(SIDECAR), Fault::Deadline);
    assert_eq!(node.dpa.stats().ejected_now, 1);
    node.assert_settled();
}

/// A worker that waits for the rest of a request has not failed when its time is over: its caller has.
#[test]
fn callers_that_stall_are_not_the_workers_fault() {
    let mut node = Node::with_workers(&[&[S], &[S]]);
    node.dpa.set_outlier_rule(S, Some(OutlierRule { failures_max: 1, ..OutlierRule::default() }));
    node.stall(SIDECAR);
    let deadline = node.now.saturating_add(Duration::from_secs(1));
    node.call(SIDECAR, RequestMessage { deadline, ..request(S, pattern(1 << 20, 1)) });
    node.settle_down();
    node.pass(Duration::from_secs(1));
    assert_eq!(node.next_fault(SIDECAR), Fault::Deadline);
    assert_eq!(node.dpa.stats().ejected_now, 0);
    node.assert_settled();
}
