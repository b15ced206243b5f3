//! A worker that writes its rings itself, next to honest ones: what it may break, and what that costs whom.

use std::time::Duration;

use bytes::Bytes;
use cellmesh_shm::frame::{FrameError, FrameHeader};
use cellmesh_shm::ids::CallId;
use cellmesh_shm::link::Link;
use cellmesh_shm::message::Fault;
use cellmesh_shm::profile::LINE_BYTES;
use cellmesh_shm::ring::Payload;

use super::*;
use crate::testing::{Node, OTHER, S, SIDECAR, answer, pattern, request};
use crate::{DpaConfig, DpaStats};

const W1: usize = 1;

fn text(text: &'static str) -> Bytes {
    Bytes::from_static(text.as_bytes())
}

/// A worker that serves S and writes its rings itself, next to an honest one that serves OTHER.
struct Hostile {
    node: Node,
    link: Link,
}

impl Hostile {
    fn new() -> Self {
        let mut node = Node::with_workers(&[&[OTHER]]);
        let link = node.attach(&[S], DpaConfig::default().profile);
        node.settle_down();
        let mut hostile = Self { node, link };
        hostile.install_flow();
        hostile
    }

    /// One call as it should be, so that its later ones go to the other worker directly.
    fn install_flow(&mut self) {
        let call = CallId { index: 1000, generation: 0 };
        let call = FrameHeader::new(FrameKind::Request, call.raw());
        self.send(&FrameHeader { service: OTHER, deadline: Nanos::MAX, ..call });
        let (slot, _) = self.node.next_request(SIDECAR);
        self.node.ports[SIDECAR].install_flow(slot);
        self.node.respond(SIDECAR, slot, Bytes::new());
        assert!(self.take().is_some_and(|frame| frame.kind == FrameKind::Response));
    }

    fn send(&mut self, frame: &FrameHeader) {
        let ring = if frame.kind.is_chunk() { &mut self.link.tx.bulk } else { &mut self.link.tx.small };
        let payload = vec![0; frame.frame_len as usize];
        assert_eq!(ring.push(frame, Payload::Parts(&[], &payload)), Ok(true));
        self.link.publish();
        self.node.settle_down();
    }

    /// The next frame for the hostile worker.
    fn take(&mut self) -> Option<FrameHeader> {
        self.node.settle_down();
        self.link.rx.refresh().expect("an honest DPA");
        let frame = self.link.rx.small.peek_frame().expect("an honest DPA")?;
        self.link.rx.small.release(&frame);
        self.link.publish();
        Some(frame.header())
    }

    /// Its last frame closed it, by this rule, and cost nobody else anything.
    fn assert_closed(mut self, rule: &str) -> DpaStats {
        let closed = self.node.dpa.take_closed().expect("it is closed");
        assert_eq!((closed.endpoint, closed.rule.as_str()), (self.node.ids[2], rule));
        assert_eq!(self.node.dpa.stats().endpoints, 2);
        self.assert_others_work();
        self.node.dpa.stats()
    }

    fn assert_open(mut self) -> DpaStats {
        assert_eq!(self.node.dpa.take_closed(), None);
        self.assert_others_work();
        self.node.dpa.stats()
    }

    fn assert_others_work(&mut self) {
        self.node.resume();
        while self.node.next(W1).is_some() {}
        self.node.call(SIDECAR, request(OTHER, pattern(50_000, 4)));
        let (slot, message) = self.node.next_request(W1);
        self.node.respond(W1, slot, message.body);
        assert!(self.node.next_response(SIDECAR).1 == answer(pattern(50_000, 4)));
    }
}

fn frame(kind: FrameKind, token: u64) -> FrameHeader {
    FrameHeader { status: 200, ..FrameHeader::new(kind, token) }
}

fn own_request(token: u64) -> FrameHeader {
    FrameHeader { service: OTHER, deadline: Nanos::MAX, ..frame(FrameKind::Request, token) }
}

/// Frames that come to nothing leave room for the next ones, though nothing is written because of them.
#[test]
fn dropped_frames_leave_room() {
    let mut hostile = Hostile::new();
    let frames = 4 * hostile.link.tx.small.capacity() / LINE_BYTES;
    for _ in 0..frames {
        hostile.send(&frame(FrameKind::Response, 0));
    }
    assert_eq!(hostile.assert_open().late_responses, u64::from(frames));
}

/// An answer counts only from the endpoint that has the request, and once: others' slots, old ones, guessed ones and
/// a second answer are dropped and counted, and closed is nobody.
#[test]
fn forged_answers_are_dropped() {
    let mut hostile = Hostile::new();
    hostile.node.call(SIDECAR, request(OTHER, text("for the honest one")));
    let (slot, _) = hostile.node.next_request(W1);
    for generation in 0..3 {
        for index in [slot.index, slot.index + 1, u32::MAX] {
            let token = SlotId { index, generation }.raw();
            hostile.send(&frame(FrameKind::Response, token));
            let announce = FrameHeader { payload_len: 9000, ..frame(FrameKind::ResponseAnnounce, token) };
            hostile.send(&announce);
            hostile.send(&FrameHeader { credit: 1, ..frame(FrameKind::RequestCredit, token) });
            hostile.send(&FrameHeader { frame_len: 64, ..frame(FrameKind::ResponseChunk, token) });
        }
    }
    hostile.node.respond(W1, slot, text("the honest answer"));
    assert_eq!(hostile.node.next_response(SIDECAR).1, answer(text("the honest answer")));
    hostile.send(&frame(FrameKind::Response, slot.raw()));
    let stats = hostile.assert_open();
    assert_eq!((stats.late_responses, stats.late_credits, stats.late_chunks), (19, 9, 9));
    assert_eq!((stats.received, stats.answered), (3, 3), "one of them to install the flow");
}

/// The name of a call that has ended is worth nothing, although another call has its place.
#[test]
fn old_names_of_calls_are_dropped() {
    let mut hostile = Hostile::new();
    let name = |generation| CallId { index: 0, generation }.raw();
    hostile.send(&FrameHeader { hops: 255, ..own_request(name(0)) });
    hostile.send(&own_request(name(1)));
    hostile.send(&frame(FrameKind::Cancel, name(0)));
    hostile.send(&FrameHeader { credit: 1, ..frame(FrameKind::ResponseCredit, name(0)) });
    hostile.send(&FrameHeader { frame_len: 64, ..frame(FrameKind::RequestChunk, name(0)) });
    let stats = hostile.node.dpa.stats();
    assert_eq!((stats.live, stats.late_cancels, stats.late_credits, stats.late_chunks), (1, 1, 1, 1));
    hostile.assert_open();
}

/// A second answer to the same request, and one after an announced one, are dropped.
#[test]
fn second_answer_is_dropped() {
    let mut hostile = Hostile::new();
    hostile.node.call(SIDECAR, request(S, text("x")));
    let taken = hostile.take().expect("the request");
    let announce = FrameHeader { payload_len: 9000, ..frame(FrameKind::ResponseAnnounce, taken.token) };
    hostile.send(&announce);
    hostile.send(&frame(FrameKind::Response, taken.token));
    hostile.send(&announce);
    assert_eq!(hostile.node.next(SIDECAR), None);
    hostile.node.pass(Duration::from_secs(30));
    assert_eq!(hostile.node.next_fault(SIDECAR), Fault::Deadline);
    assert_eq!(hostile.assert_open().late_responses, 2);
}

/// Each violation closes the endpoint with its rule, and all that it had in flight is settled.
#[test]
fn violations_close_their_endpoint_only() {
    let check = |frames: &[FrameHeader], rule: &str| {
        let mut hostile = Hostile::new();
        hostile.node.call(SIDECAR, request(S, text("in flight on it")));
        hostile.node.call(SIDECAR, request(S, pattern(50_000, 0)));
        let taken = [hostile.take().expect("a request"), hostile.take().expect("another")];
        hostile.node.stall(SIDECAR);
        for frame in frames {
            // Small numbers stand for the requests that it has.
            let taken = usize::try_from(frame.token).ok().and_then(|number| taken.get(number));
            let token = taken.filter(|_| frame.service != OTHER);
            hostile.send(&FrameHeader { token: token.map_or(frame.token, |taken| taken.token), ..*frame });
        }
        for _ in 0..2 {
            assert_eq!(hostile.node.next_fault(SIDECAR), Fault::WorkerLost, "{rule}");
        }
        let stats = hostile.assert_closed(rule);
        assert_eq!((stats.violations, stats.closed()), (1, 1));
        assert!(stats.is_balanced() && stats.live == 0, "{stats:?}");
    };
    check(&[own_request(1024)], "Request: the call's index must be less than calls_max");
    check(&[own_request(7), own_request(7)], "Request: the call's index is in use");
    check(&[frame(FrameKind::Cancel, u64::MAX)], "Cancel: the call's index must be less than calls_max");
    check(&[frame(FrameKind::FlowInstall, 0)], "FlowInstall: only a sidecar decides about flows");
    let credit = |credit| FrameHeader { credit, ..frame(FrameKind::RequestCredit, 1) };
    check(&[credit(5)], "RequestCredit: credit for more chunks than the message has");
    check(&[credit(4), credit(1)], "RequestCredit: credit for more chunks than the message has");
    check(&[credit(16), credit(1)], "RequestCredit: credit for more chunks than the message has");
    let announce = FrameHeader { payload_len: 40_000, ..frame(FrameKind::ResponseAnnounce, 0) };
    let chunk = FrameHeader { frame_len: 16320, ..frame(FrameKind::ResponseChunk, 0) };
    check(&[announce, chunk], "ResponseChunk: chunk without credit");
}

/// A receiver that grants more than its ring holds, over several messages, is closed.
#[test]
fn granting_beyond_the_ring_closes() {
    let mut hostile = Hostile::new();
    for _ in 0..2 {
        hostile.node.call(SIDECAR, request(S, pattern(300_000, 0)));
    }
    let taken = [hostile.take().expect("a request"), hostile.take().expect("another")];
    for (taken, credit) in taken.into_iter().zip([10, 7]) {
        hostile.send(&FrameHeader { credit, ..frame(FrameKind::RequestCredit, taken.token) });
    }
    for _ in 0..2 {
        assert_eq!(hostile.node.next_fault(SIDECAR), Fault::WorkerLost);
    }
    hostile.assert_closed("RequestCredit: more chunks granted than the ring holds");
}

/// Room that was granted to a sender which never uses it is taken back with the sender: large messages of others wait
/// for the stall timeout, not for the deadline.
#[test]
fn withheld_chunks_are_given_up() {
    let mut hostile = Hostile::new();
    // Credit is shared, but three that hold what they got leave none.
    for _ in 0..3 {
        hostile.node.call(SIDECAR, request(S, text("x")));
        let token = hostile.take().expect("a request").token;
        let announce =
            FrameHeader { status: 200, payload_len: 300_000, ..frame(FrameKind::ResponseAnnounce, token) };
        hostile.send(&announce);
        assert_eq!(hostile.take().expect("credit").kind, FrameKind::ResponseCredit);
    }
    hostile.node.call(SIDECAR, request(OTHER, text("y")));
    let (slot, _) = hostile.node.next_request(W1);
    hostile.node.respond(W1, slot, pattern(100_000, 1));
    assert_eq!(hostile.node.next(SIDECAR), None, "no credit is left");
    let pumped_while = |hostile: &mut Hostile, looks: u32| {
        for _ in 0..looks {
            hostile.node.pass(DpaConfig::default().stall_timeout / 4);
            hostile.node.settle_down();
        }
    };
    pumped_while(&mut hostile, 4);
    assert_eq!(hostile.node.dpa.stats().closed(), 0, "it has its time");
    pumped_while(&mut hostile, 2);
    for _ in 0..3 {
        assert_eq!(hostile.node.next_fault(SIDECAR), Fault::WorkerLost);
    }
    assert_eq!(hostile.node.next_response(SIDECAR).1, answer(pattern(100_000, 1)));
    let rule = "sent nothing of a message that it has announced and that is waited for, for 5s";
    assert_eq!(hostile.assert_closed(rule).stalled, 1);
}

/// One that goes on at the last moment is not expelled: what it has just sent is seen before it is looked at.
#[test]
fn chunk_in_time_is_seen() {
    let mut hostile = Hostile::new();
    hostile.node.call(SIDECAR, request(S, text("x")));
    let token = hostile.take().expect("a request").token;
    let announce =
        FrameHeader { status: 200, payload_len: 300_000, ..frame(FrameKind::ResponseAnnounce, token) };
    hostile.send(&announce);
    assert_eq!(hostile.take().expect("credit").kind, FrameKind::ResponseCredit);
    for _ in 0..4 {
        hostile.node.pass(DpaConfig::default().stall_timeout / 4);
        hostile.node.settle_down();
    }
    hostile.node.pass(DpaConfig::default().stall_timeout / 4);
    hostile.send(&FrameHeader { frame_len: 16320, ..frame(FrameKind::ResponseChunk, token) });
    assert_eq!(hostile.assert_open().stalled, 0);
}

/// Chunks go one in a turn, and the small frames that were sent behind them wait until they are through.
#[test]
fn small_frames_wait_for_the_chunks_before_them() {
    let mut hostile = Hostile::new();
    hostile.node.call(SIDECAR, request(S, text("x")));
    let token = hostile.take().expect("a request").token;
    hostile.send(&FrameHeader { payload_len: 300_000, ..frame(FrameKind::ResponseAnnounce, token) });
    assert_eq!(hostile.take().expect("credit").kind, FrameKind::ResponseCredit);
    for seq in 0..3 {
        let chunk = FrameHeader { frame_len: 16320, seq, ..frame(FrameKind::ResponseChunk, token) };
        assert_eq!(hostile.link.tx.bulk.push(&chunk, Payload::Parts(&[], &[0; 16320])), Ok(true));
    }
    assert_eq!(hostile.link.tx.small.push(&own_request(7), Payload::Empty), Ok(true));
    hostile.link.publish();
    let before = hostile.node.dpa.stats();
    for turn in 1..=3 {
        hostile.node.dpa.pump(hostile.node.now);
        let stats = hostile.node.dpa.stats();
        let moved = (stats.chunks - before.chunks, stats.received - before.received);
        assert_eq!(moved, (turn, u64::from(turn == 3)));
    }
}

/// A receiver that grants all of its ring and never takes a chunk keeps its own messages waiting, nobody else's.
#[test]
fn never_taking_chunks_harms_nobody_else() {
    let mut hostile = Hostile::new();
    hostile.node.call(SIDECAR, request(S, pattern(300_000, 0)));
    let taken = hostile.take().expect("a request");
    hostile.send(&FrameHeader { credit: 16, ..frame(FrameKind::RequestCredit, taken.token) });
    hostile.node.settle_down();
    hostile.node.pass(Duration::from_secs(30));
    assert_eq!(hostile.node.next_fault(SIDECAR), Fault::Deadline);
    hostile.assert_open();
}

/// A header that cannot be is counted by its reason.
#[test]
fn impossible_headers_are_counted_by_reason() {
    let mut hostile = Hostile::new();
    hostile.send(&FrameHeader { status: 5, ..frame(FrameKind::Response, 0) });
    let stats = hostile.assert_closed("small ring: status 5: must be 100 to 999");
    assert_eq!(stats.rejected[FrameError::Status { found: 5 }.reason()], 1);
}

/// An endpoint that makes calls and takes no answer is read no further than its answers can be kept.
#[test]
fn taking_no_answers_stops_the_service() {
    let config = DpaConfig { calls_max: 300, ..DpaConfig::default() };
    let mut node = Node::new(config, &[&[OTHER]]);
    let mut link = node.attach(&[S], config.profile);
    let mut sent = 0;
    for generation in 0..100u32 {
        for index in 0..200 {
            let token = CallId { index, generation }.raw();
            let frame = FrameHeader { hops: 255, ..own_request(token) };
            sent += u32::from(link.tx.small.push(&frame, Payload::Empty).expect("an honest DPA"));
        }
        link.publish();
        node.settle_down();
    }
    let parked = node.dpa.stats().parked_now;
    assert!((300..300 + 64).contains(&parked), "{parked} answers parked of {sent} calls");
}
