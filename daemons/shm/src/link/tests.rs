use super::*;
use crate::frame::{FrameHeader, FrameKind};
use crate::ring::Payload;

fn spec() -> LinkSpec {
    LinkSpec {
        endpoint: EndpointId(7),
        generation: 3,
        profile: RingProfile::default(),
        message_bytes_max: 1 << 24,
    }
}

fn both_sides() -> (Link, Link) {
    let (near, fds) = Link::create(spec()).expect("memory and descriptors");
    (near, Link::open(fds).expect("its own link"))
}

/// How often the bell rang since it was last asked.
fn bell_rings(link: &Link) -> u64 {
    let mut rings = [0; 64];
    match rustix::net::recv(&link.sleep, &mut rings, rustix::net::RecvFlags::DONTWAIT) {
        Ok((taken, _)) => taken as u64,
        Err(rustix::io::Errno::AGAIN) => 0,
        Err(errno) => panic!("a bell is read: {errno}"),
    }
}

/// A frame pushed on either side comes out on the other, on the same ring.
#[test]
fn frames_cross_both_ways() {
    frames_cross(both_sides());
    frames_cross(Link::pair(spec()).expect("memory and descriptors"));
}

fn frames_cross((mut near, mut far): (Link, Link)) {
    for (from, to) in [(&mut near, 1), (&mut far, 2)].map(|(link, token)| (link, token)) {
        let header = FrameHeader::new(FrameKind::Cancel, to);
        assert_eq!(from.tx.small.push(&header, Payload::Empty), Ok(true));
        assert!(from.publish());
    }
    for (side, token) in [(&mut far, 1), (&mut near, 2)] {
        assert_eq!(side.rx.refresh(), Ok(true));
        let frame = side.rx.small.peek_frame().expect("an honest peer").expect("one frame");
        let header = frame.header();
        assert_eq!((header.kind, header.token, header.generation), (FrameKind::Cancel, token, 3));
    }
}

/// Nobody is rung who does not sleep; a sleeper is rung once, however much is published meanwhile.
#[test]
fn bell_rings_once_per_sleep() {
    let (mut near, mut far) = both_sides();
    let header = FrameHeader::new(FrameKind::Cancel, 1);
    let send = |near: &mut Link| {
        assert_eq!(near.tx.small.push(&header, Payload::Empty), Ok(true));
        near.publish();
    };
    send(&mut near);
    assert_eq!((near.tx.rings(), bell_rings(&far)), (0, 0));
    for sleeps in 1..=3 {
        far.sleep.announce(false).expect("an honest peer");
        send(&mut near);
        send(&mut near);
        assert_eq!((near.tx.rings(), bell_rings(&far)), (sleeps, 1));
        far.sleep.wake();
        send(&mut near);
        assert_eq!(bell_rings(&far), 0);
    }
}

/// The sides of a pair are pumped by one thread, which a bell would only wake for nothing.
#[test]
fn sides_of_a_pair_ring_nobody() {
    let (mut near, mut far) = Link::pair(spec()).expect("memory and descriptors");
    let header = FrameHeader::new(FrameKind::Cancel, 1);
    for side in [&mut near, &mut far] {
        assert_eq!(side.tx.small.push(&header, Payload::Empty), Ok(true));
    }
    near.sleep.announce(true).expect("an honest peer");
    far.sleep.announce(true).expect("an honest peer");
    assert!(near.publish() && far.publish());
    assert_eq!((near.tx.rings(), far.tx.rings()), (0, 0));
    assert_eq!((bell_rings(&near), bell_rings(&far)), (0, 0));
}

/// Publishing nothing wakes nobody.
#[test]
fn nothing_published_rings_nothing() {
    let (mut near, mut far) = both_sides();
    far.sleep.announce(false).expect("an honest peer");
    assert!(!near.publish());
    assert_eq!(bell_rings(&far), 0);
}

/// Descriptors that do not fit the spec that came with them are refused.
#[test]
fn wrong_descriptors_are_refused() {
    let (_near, mut fds) = Link::create(spec()).expect("memory and descriptors");
    fds.spec.profile.small_bytes *= 2;
    let error = Link::open(fds).unwrap_err();
    assert_eq!(error.to_string(), "segment of endpoint 7");
    let (_near, mut fds) = Link::create(spec()).expect("memory and descriptors");
    std::mem::swap(&mut fds.tx, &mut fds.rx);
    assert!(matches!(Link::open(fds), Err(LinkError::Segment { .. })));
    let wrong = LinkSpec { message_bytes_max: u32::MAX, ..spec() };
    assert!(matches!(Link::create(wrong), Err(LinkError::MessageBytes { .. })));
}

/// Room alone wakes only a side that waits for room.
#[test]
fn room_wakes_who_waits_for_it() {
    for wants_room in [false, true] {
        let (mut near, mut far) = both_sides();
        let header = FrameHeader::new(FrameKind::Cancel, 1);
        assert_eq!(far.tx.small.push(&header, Payload::Empty), Ok(true));
        far.publish();
        far.sleep.announce(wants_room).expect("an honest peer");
        assert_eq!(near.rx.refresh(), Ok(true));
        let frame = near.rx.small.peek_frame().expect("an honest peer").expect("one frame");
        near.rx.small.release(&frame);
        assert!(near.publish());
        assert_eq!(bell_rings(&far), u64::from(wants_room));
    }
}

/// One ring for each sleep is never too often, also when the last one comes late; two are.
#[test]
fn peer_that_rings_too_often_is_found_out() {
    for (rings_per_sleep, is_late) in [(1, false), (1, true), (2, false), (2, true)] {
        let (mut near, mut far) = both_sides();
        let mut found = Ok(());
        for sleep in 0..10 * SILENCE_EVERY {
            found = found.and(near.sleep.announce(false));
            if !(is_late && sleep == 0) {
                (0..rings_per_sleep).for_each(|_| far.tx.ring.ring());
            }
            if is_late && sleep == SILENCE_EVERY {
                far.tx.ring.ring();
            }
            near.sleep.wake();
        }
        assert_eq!(found.is_err(), rings_per_sleep == 2, "{found:?}");
    }
}

/// A peer that has closed its end is no longer waited for.
#[test]
fn closed_bell_is_told() {
    let (mut near, far) = both_sides();
    drop(far);
    let found: Vec<_> = (0..2 * SILENCE_EVERY).filter_map(|_| near.sleep.announce(false).err()).collect();
    assert_eq!(found, [BellError::HungUp]);
}

/// The bells of each side, and the rings, are waited for by the other side only.
#[test]
fn bells_have_two_ends() {
    let (mut near, mut far) = both_sides();
    near.tx.ring.ring();
    assert_eq!((bell_rings(&near), bell_rings(&far)), (0, 1));
    far.tx.ring.ring();
    assert_eq!((bell_rings(&near), bell_rings(&far)), (1, 0));
}
