use super::*;
use crate::frame::FrameKind;
use crate::ids::{EndpointId, ServiceId};
use crate::link::LinkSpec;
use crate::message::RequestMessage;

fn link() -> (Link, LinkFds) {
    let spec = LinkSpec {
        endpoint: EndpointId(1),
        generation: 3,
        profile: RingProfile::default(),
        message_bytes_max: 1 << 20,
    };
    Link::create(spec).expect("memory and descriptors")
}

/// What comes back from a peer of this manner at this time, of one request at time 0.
fn answer(manner: Manner, now: u64) -> Option<Bytes> {
    let (near, fds) = link();
    let mut near = Port::new(near, PortConfig::default());
    let mut peer = Peer::new(Link::open(fds).expect("its own link"), manner);
    let message = RequestMessage {
        service: ServiceId(0),
        deadline: Nanos::MAX,
        hops: 0,
        method_len: 0,
        target_len: 0,
        head: Bytes::new(),
        body: Bytes::from_static(b"hi"),
    };
    near.call(message).expect("the first call");
    near.flush();
    for now in [0, now] {
        peer.turn(Nanos(now)).expect("an honest caller");
    }
    match near.poll().expect("the rules are kept") {
        Some(Arrived::Response { message, .. }) => Some(message.body),
        _ => None,
    }
}

/// Each manner answers when it says, with what it was sent, or not at all.
#[test]
fn manners_are_kept() {
    assert_eq!(answer(Manner::Honest, 1).as_deref(), Some(&b"hi"[..]));
    let late = Manner::Late(Duration::from_nanos(100));
    assert_eq!(answer(late, 99), None);
    assert_eq!(answer(late, 100).as_deref(), Some(&b"hi"[..]));
    assert_eq!(answer(Manner::Silent, 100), None);
    assert_eq!(answer(Manner::Dead, 100), None);
}

/// A word that a hostile peer stores is where the other side looks for a tail, and a frame is where it looks for one.
#[test]
fn hostile_words_reach_the_other_side() {
    let (mut near, fds) = link();
    let mut hostile = Hostile::open(fds).expect("its own link");
    let scratch = hostile.scratch();
    assert!(hostile.forge(&FrameHeader::new(FrameKind::Cancel, 5)).expect("an honest side"));
    hostile.link.publish();
    scratch.store(scratch.frame_word(RingName::Small, 0) + 1, 6);
    assert!(near.rx.refresh().expect("a tail that can be"));
    assert_eq!(near.rx.small.peek_frame().expect("a frame that can be").map(|frame| frame.token()), Some(6));
    scratch.store(scratch.tail_word(RingName::Small), 1 << 32);
    near.rx.refresh().expect_err("no counter");
}
