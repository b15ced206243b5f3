//! Two ports on the two sides of one link: what a DPA with one caller and one callee would relay one to one.

use bytes::Bytes;

use super::*;
use crate::clock::Nanos;
use crate::ids::EndpointId;
use crate::link::LinkSpec;
use crate::profile::RingProfile;
use crate::ring::Payload;

const MESSAGE_BYTES_MAX: u32 = (16 << 20) + (64 << 10);

fn link() -> (Link, Link) {
    let spec = LinkSpec {
        endpoint: EndpointId(1),
        generation: 1,
        profile: RingProfile::default(),
        message_bytes_max: MESSAGE_BYTES_MAX,
    };
    let (near, fds) = Link::create(spec).expect("memory and descriptors");
    (near, Link::open(fds).expect("its own link"))
}

fn ports() -> (Port, Port) {
    let (near, far) = link();
    (Port::new(near, PortConfig::default()), Port::new(far, PortConfig::default()))
}

fn request(body: Bytes) -> RequestMessage {
    RequestMessage {
        service: ServiceId(5),
        deadline: Nanos(77),
        hops: 1,
        method_len: 4,
        target_len: 2,
        head: Bytes::from_static(b"POST/xhost: s1\n"),
        body,
    }
}

fn response(body: Bytes) -> ResponseMessage {
    ResponseMessage { status: 203, fault: Fault::None, head: Bytes::from_static(b"a: b\n"), body }
}

/// Bytes that differ from place to place, so that a chunk out of place is seen.
fn pattern(len: usize, seed: u64) -> Bytes {
    let words = (0..len.div_ceil(8) as u64)
        .flat_map(|n| (n.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ seed).to_le_bytes());
    words.take(len).collect::<Vec<u8>>().into()
}

fn poll(port: &mut Port) -> Option<Arrived> {
    port.poll().expect("an honest peer")
}

/// Pumps both sides until `done` is seen on one of them.
fn exchange(near: &mut Port, far: &mut Port, mut on_arrived: impl FnMut(&mut Port, Arrived) -> bool) {
    loop {
        let mut moved = near.flush() | far.flush();
        for port in [&mut *near, &mut *far] {
            while let Some(arrived) = poll(port) {
                moved = Progress::Moved;
                if on_arrived(port, arrived) {
                    return;
                }
            }
        }
        assert!(moved.moved(), "nothing moves, and nothing came");
    }
}

/// A request and its response arrive as they were sent, and nothing is left.
#[test]
fn call_and_answer() {
    let (mut near, mut far) = ports();
    let call = near.call(request(Bytes::from_static(b"hello"))).expect("one call");
    near.flush();
    let Some(Arrived::Request { slot, message }) = poll(&mut far) else { panic!("no request") };
    assert_eq!(message, request(Bytes::from_static(b"hello")));
    assert_eq!((message.method(), message.target()), (&b"POST"[..], &b"/x"[..]));
    assert_eq!((near.in_flight(), far.held()), (1, 1));
    far.respond(slot, response(Bytes::from_static(b"world")));
    far.flush();
    let expected = Arrived::Response { call, message: response(Bytes::from_static(b"world")) };
    assert_eq!(poll(&mut near), Some(expected));
    assert!(near.is_idle() && far.is_idle());
}

/// Nothing is seen by the peer before the flush.
#[test]
fn flush_publishes() {
    let (mut near, mut far) = ports();
    near.call(request(Bytes::new())).expect("one call");
    assert_eq!(poll(&mut far), None);
    assert_eq!(near.flush(), Progress::Moved);
    assert!(poll(&mut far).is_some());
    assert_eq!((far.flush(), far.flush()), (Progress::Moved, Progress::Idle));
}

/// Messages of every kind of length, around the edges of a frame and of a chunk, come back byte for byte.
#[test]
fn every_length_is_exact() {
    let profile = RingProfile::default();
    let (inline, chunk) = (profile.inline_bytes_max as usize, profile.chunk_payload_bytes() as usize);
    let head = 16;
    let edges = [0, 1, 7, 8, 9, inline - head, chunk - head, 2 * chunk - head, 20 * chunk - head, 16 << 20];
    for len in edges.into_iter().flat_map(|edge| [edge.saturating_sub(1), edge, edge + 1]) {
        let (mut near, mut far) = ports();
        let (sent, answered) = (pattern(len, 1), pattern(len, 2));
        near.call(request(sent.clone())).expect("one call");
        exchange(&mut near, &mut far, |port, arrived| match arrived {
            Arrived::Request { slot, message } => {
                assert!(message == request(sent.clone()), "request of {len} bytes");
                port.respond(slot, response(answered.clone()));
                false
            }
            Arrived::Response { message, .. } => {
                assert!(message == response(answered.clone()), "response of {len} bytes");
                true
            }
            Arrived::Cancelled { .. } => panic!("nobody cancelled"),
        });
        assert!(near.is_idle() && far.is_idle(), "after {len} bytes: {near:?} {far:?}");
    }
}

/// A thousand calls on a ring of a hundred wait their turn: none is lost, all come in order.
#[test]
fn full_ring_loses_nothing() {
    let (mut near, mut far) = ports();
    let calls: Vec<_> = (0..1000).map(|n| near.call(request(pattern(100, n))).expect("few calls")).collect();
    assert!(near.queued() > 0, "the ring is smaller than that");
    let mut outcomes = Vec::new();
    let mut next = 0;
    exchange(&mut near, &mut far, |port, arrived| match arrived {
        Arrived::Request { slot, message } => {
            assert_eq!(message.body, pattern(100, next));
            next += 1;
            port.respond(slot, response(message.body));
            false
        }
        Arrived::Response { call, message } => {
            assert_eq!(message.body, pattern(100, outcomes.len() as u64));
            outcomes.push(call);
            outcomes.len() == calls.len()
        }
        Arrived::Cancelled { .. } => panic!("nobody cancelled"),
    });
    assert_eq!(outcomes, calls);
}

/// Ten large messages share the bulk ring, and a small call that starts after them is over long before they are.
#[test]
fn small_overtakes_large() {
    let (mut near, mut far) = ports();
    let large: Vec<_> =
        (0..10).map(|n| near.call(request(pattern(1 << 20, n))).expect("few calls")).collect();
    let mut order = Vec::new();
    for _ in 0..3 {
        near.flush();
        assert_eq!(poll(&mut far), None);
        far.flush();
        assert_eq!(poll(&mut near), None);
    }
    let small = near.call(request(Bytes::new())).expect("few calls");
    exchange(&mut near, &mut far, |port, arrived| match arrived {
        Arrived::Request { slot, message } => {
            port.respond(slot, response(message.body.slice(..message.body.len().min(1))));
            false
        }
        Arrived::Response { call, .. } => {
            order.push(call);
            order.len() == large.len() + 1
        }
        Arrived::Cancelled { .. } => panic!("nobody cancelled"),
    });
    assert_eq!(order[0], small, "the small one waited for a large one");
}

/// Chunks of messages that both have credit take turns.
#[test]
fn chunks_take_turns() {
    let (near, mut far) = link();
    let mut port = Port::new(near, PortConfig::default());
    let calls = [1, 2].map(|seed| port.call(request(pattern(300_000, seed))).expect("few calls").raw());
    for token in calls {
        let credit = FrameHeader { credit: 4, ..FrameHeader::new(FrameKind::RequestCredit, token) };
        assert_eq!(far.tx.small.push(&credit, Payload::Empty), Ok(true));
    }
    far.publish();
    assert_eq!(poll(&mut port), None);
    while port.flush().moved() {}
    far.rx.refresh().expect("an honest port");
    let mut order = Vec::new();
    while let Some(chunk) = far.rx.bulk.peek_frame().expect("an honest port") {
        far.rx.bulk.release(&chunk);
        order.push(chunk.token());
    }
    assert_eq!(order, calls.repeat(4));
}

/// A port refuses more calls than it may have, and takes the next when one has ended.
#[test]
fn calls_are_bounded() {
    let (near, far) = link();
    let mut near = Port::new(near, PortConfig { calls_max: 2, ..PortConfig::default() });
    let mut far = Port::new(far, PortConfig::default());
    let first = near.call(request(Bytes::new())).expect("one of two");
    near.call(request(Bytes::new())).expect("two of two");
    let refused = near.call(request(pattern(9, 9))).unwrap_err();
    assert_eq!((refused.why, refused.message), (Refusal::Busy, request(pattern(9, 9))));
    assert!(near.is_busy());
    near.flush();
    let Some(Arrived::Request { slot, .. }) = poll(&mut far) else { panic!("no request") };
    far.respond(slot, response(Bytes::new()));
    far.flush();
    assert!(matches!(poll(&mut near), Some(Arrived::Response { call, .. }) if call == first));
    let third = near.call(request(Bytes::new())).expect("one has ended");
    assert_eq!((third.index, third.generation), (first.index, first.generation + 1));
}

/// What the link cannot carry is refused before anything of it is sent.
#[test]
fn impossible_messages_are_refused() {
    let (mut near, mut far) = ports();
    let refused = near.call(request(pattern(MESSAGE_BYTES_MAX as usize, 0))).unwrap_err();
    assert_eq!(refused.why, Refusal::TooLarge);
    let refused = near.call(RequestMessage { method_len: 100, ..request(Bytes::new()) }).unwrap_err();
    assert_eq!(refused.why, Refusal::Head);
    near.call(request(Bytes::new())).expect("a good call");
    near.call(request(Bytes::new())).expect("a good call");
    near.flush();
    let Some(Arrived::Request { slot, .. }) = poll(&mut far) else { panic!("no request") };
    far.respond(slot, response(pattern(MESSAGE_BYTES_MAX as usize, 0)));
    let Some(Arrived::Request { slot, .. }) = poll(&mut far) else { panic!("no request") };
    far.respond(slot, ResponseMessage { status: 99, ..response(Bytes::new()) });
    far.flush();
    for fault in [Fault::TooLarge, Fault::Internal] {
        let Some(Arrived::Response { message, .. }) = poll(&mut near) else { panic!("no response") };
        assert_eq!(message, ResponseMessage::faulted(fault));
    }
}

/// An answer to a request that was answered, or never was, is dropped and counted.
#[test]
fn answers_count_once() {
    let (mut near, mut far) = ports();
    near.call(request(Bytes::new())).expect("one call");
    near.flush();
    let Some(Arrived::Request { slot, .. }) = poll(&mut far) else { panic!("no request") };
    far.respond(slot, response(Bytes::new()));
    far.respond(slot, response(Bytes::new()));
    far.respond(SlotId { index: 999_999, generation: 0 }, response(Bytes::new()));
    far.flush();
    assert!(poll(&mut near).is_some());
    assert_eq!(poll(&mut near), None);
    assert_eq!((far.stats().answers, far.stats().late_answers), (1, 2));
}

/// A request that is cancelled while it is held is reported; one whose payload is still coming is forgotten silently,
/// and the credit that it had is there for the next.
#[test]
fn cancelled_requests_are_let_go() {
    let (mut near, mut far) = ports();
    let held = near.call(request(Bytes::new())).expect("one call");
    let cut = near.call(request(pattern(1 << 20, 1))).expect("another");
    let mut slots = Vec::new();
    for _ in 0..3 {
        near.flush();
        while let Some(Arrived::Request { slot, .. }) = poll(&mut far) {
            slots.push(slot);
        }
        far.flush();
        assert_eq!(poll(&mut near), None);
    }
    assert_eq!((slots.len(), far.held()), (1, 2));
    near.cancel(held);
    near.cancel(cut);
    near.flush();
    assert_eq!(poll(&mut far), Some(Arrived::Cancelled { slot: slots[0] }));
    assert_eq!(poll(&mut far), None);
    assert!(far.is_idle());
    assert_eq!((near.in_flight(), far.stats().cut_short), (0, 1));
    let body = pattern(1 << 20, 2);
    near.call(request(body.clone())).expect("the next call");
    exchange(
        &mut near,
        &mut far,
        |_, arrived| matches!(arrived, Arrived::Request { message, .. } if message.body == body),
    );
}

/// A fault in place of the rest of a response ends the call at once, and its credit is there for the next.
#[test]
fn fault_cuts_a_response_short() {
    let (mut near, far) = link();
    let mut port = Port::new(far, PortConfig::default());
    for round in 0..40 {
        let call = port.call(request(Bytes::new())).expect("one call");
        port.flush();
        let announce = FrameHeader {
            payload_len: 1 << 20,
            status: 200,
            ..FrameHeader::new(FrameKind::ResponseAnnounce, call.raw())
        };
        assert_eq!(near.tx.small.push(&announce, Payload::Empty), Ok(true));
        near.publish();
        assert_eq!(poll(&mut port), None);
        port.flush();
        near.rx.refresh().expect("an honest port");
        let mut granted = 0;
        while let Some(header) = near.rx.small.peek_frame().expect("an honest port") {
            granted += header.credit();
            near.rx.small.release(&header);
        }
        assert_eq!(granted, 8, "half of the ring, in round {round} too");
        let chunk =
            FrameHeader { frame_len: 16320, ..FrameHeader::new(FrameKind::ResponseChunk, call.raw()) };
        assert_eq!(near.tx.bulk.push(&chunk, Payload::Parts(&[], &[7; 16320])), Ok(true));
        assert_eq!(
            near.tx.small.push(&FrameHeader::faulted(call.raw(), Fault::WorkerLost), Payload::Empty),
            Ok(true)
        );
        near.publish();
        let expected = ResponseMessage::faulted(Fault::WorkerLost);
        assert_eq!(poll(&mut port), Some(Arrived::Response { call, message: expected }));
    }
    assert!(port.is_idle());
    assert_eq!(port.stats().cut_short, 40);
}

/// Each frame that no order of events explains closes the port, for ever, with the rule that it breaks.
#[test]
fn broken_rules_close_the_port() {
    let check = |frames: &[FrameHeader], expected: &str| {
        let (mut near, far) = link();
        let mut port = Port::new(far, PortConfig::default());
        let call = port.call(request(Bytes::new())).expect("one call");
        assert_eq!(call.raw(), 0);
        port.flush();
        for frame in frames {
            let ring = if frame.kind.is_chunk() { &mut near.tx.bulk } else { &mut near.tx.small };
            let payload = vec![0; frame.frame_len as usize];
            assert_eq!(ring.push(frame, Payload::Parts(&[], &payload)), Ok(true));
            near.publish();
            while let Ok(Some(_)) = port.poll() {}
        }
        let error = port.poll().unwrap_err();
        assert_eq!(error.to_string(), expected);
        assert_eq!(port.poll(), Err(error), "it stays closed");
        assert_eq!(port.flush(), Progress::Idle);
    };
    let frame = FrameHeader::new;
    let request = frame(FrameKind::Request, 3);
    check(&[request, request], "Request for 0x3: the slot is still held");
    check(
        &[frame(FrameKind::Request, u64::from(u32::MAX))],
        "Request for 0xffffffff: the slot is still held",
    );
    check(&[frame(FrameKind::FlowInstall, 0)], "FlowInstall for 0x0: never sent to a port");
    let announce = FrameHeader { payload_len: 20_000, status: 200, ..frame(FrameKind::ResponseAnnounce, 0) };
    check(&[announce, announce], "ResponseAnnounce for 0x0: announced twice");
    let chunk = FrameHeader { frame_len: 16320, ..frame(FrameKind::ResponseChunk, 0) };
    check(&[announce, chunk], "ResponseChunk for 0x0: does not continue its message, or was not granted");
    check(&[frame(FrameKind::Response, 0)], "small ring: status 0: must be 100 to 999");
}

/// What crosses with an end is dropped and counted, and closes nothing.
#[test]
fn late_frames_are_dropped() {
    let (mut near, far) = link();
    let mut port = Port::new(far, PortConfig::default());
    let ended = CallId { index: 0, generation: 0 }.raw();
    let credit = |kind| FrameHeader { credit: 1, ..FrameHeader::new(kind, ended) };
    for frame in [
        FrameHeader::faulted(ended, Fault::Deadline),
        FrameHeader {
            payload_len: 5000,
            status: 200,
            ..FrameHeader::new(FrameKind::ResponseAnnounce, ended)
        },
        credit(FrameKind::RequestCredit),
        credit(FrameKind::ResponseCredit),
        FrameHeader::new(FrameKind::Cancel, ended),
    ] {
        assert_eq!(near.tx.small.push(&frame, Payload::Empty), Ok(true));
    }
    let chunk = FrameHeader { frame_len: 1, ..FrameHeader::new(FrameKind::RequestChunk, ended) };
    assert_eq!(near.tx.bulk.push(&chunk, Payload::Parts(&[], &[0])), Ok(true));
    near.publish();
    assert_eq!(poll(&mut port), None);
    let expected = PortStats { late_outcomes: 2, late_credits: 2, late_chunks: 1, ..PortStats::default() };
    assert_eq!(port.stats(), expected);
}

/// Chunks are taken one in a turn, and the small frames that were sent behind them wait until they are through.
#[test]
fn small_frames_wait_for_the_chunks_before_them() {
    let (near, mut far) = link();
    let mut port = Port::new(near, PortConfig::default());
    let large = port.call(request(Bytes::new())).expect("few calls").raw();
    let small = port.call(request(Bytes::new())).expect("few calls");
    let announce = FrameHeader {
        status: 200,
        payload_len: 300_000,
        ..FrameHeader::new(FrameKind::ResponseAnnounce, large)
    };
    assert_eq!(far.tx.small.push(&announce, Payload::Empty), Ok(true));
    far.publish();
    assert_eq!(poll(&mut port), None);
    assert!(port.flush().moved(), "credit goes out");
    let frame_len = far.spec.profile.chunk_payload_bytes();
    for seq in 0..2 {
        let chunk = FrameHeader { frame_len, seq, ..FrameHeader::new(FrameKind::ResponseChunk, large) };
        let bytes = vec![0; frame_len as usize];
        assert_eq!(far.tx.bulk.push(&chunk, Payload::Parts(&[], &bytes)), Ok(true));
    }
    let last = FrameHeader::faulted(small.raw(), Fault::NoWorker);
    assert_eq!(far.tx.small.push(&last, Payload::Empty), Ok(true));
    far.publish();
    assert_eq!(poll(&mut port), None, "the second chunk waits, and so does what is behind it");
    assert!(port.flush().moved(), "there is more to take");
    assert!(matches!(poll(&mut port), Some(Arrived::Response { call, .. }) if call == small));
}

/// What a large message took of its ring is given back when it is whole, before anybody has done anything with it: else who is
/// busy with it looks as one who takes nothing.
#[test]
fn room_of_a_large_message_is_given_back_at_once() {
    let (mut near, mut far) = ports();
    near.call(request(pattern(1 << 20, 1))).expect("one call");
    let arrived = loop {
        near.flush();
        far.flush();
        assert_eq!(poll(&mut near), None);
        if let Some(arrived) = poll(&mut far) {
            break arrived;
        }
    };
    assert!(matches!(arrived, Arrived::Request { .. }), "{arrived:?}");
    assert_eq!(near.link.tx.bulk.occupied().expect("an honest peer"), 0);
}
