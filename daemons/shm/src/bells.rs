//! The doorbells of one sleeper, as one thing to wait for.
//!
//! - An epoll set, edge-triggered: it becomes readable each time that any of its bells rings. Nothing is read from the
//!   bells at a wake-up, so it costs no system call for each of them.
//! - It holds descriptors of its own: a bell has others, and stays in an epoll set until it is taken out by the
//!   descriptor that put it in.
//! - Not here: waiting (whoever has a reactor waits for [`Bells`] with it).

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};

use crate::ids::EndpointId;

/// Bells by the endpoint that rings them.
#[derive(Debug)]
pub struct Bells {
    set: OwnedFd,
    held: HashMap<EndpointId, OwnedFd>,
}

impl Bells {
    /// No bells.
    /// # Errors
    /// The kernel's, for want of descriptors.
    pub fn new() -> io::Result<Self> {
        Ok(Self { set: epoll::create(CreateFlags::CLOEXEC)?, held: HashMap::new() })
    }

    /// From now on this endpoint's bell is heard. One that it had before is not any more.
    /// # Errors
    /// The kernel's, for want of descriptors.
    pub fn add(&mut self, endpoint: EndpointId, bell: BorrowedFd<'_>) -> io::Result<()> {
        self.remove(endpoint);
        let bell = bell.try_clone_to_owned()?;
        let data = EventData::new_u64(u64::from(endpoint.0));
        epoll::add(&self.set, &bell, data, EventFlags::IN | EventFlags::ET)?;
        self.held.insert(endpoint, bell);
        Ok(())
    }

    /// This endpoint's bell is not heard any more. Nothing if it was not.
    pub fn remove(&mut self, endpoint: EndpointId) {
        if let Some(bell) = self.held.remove(&endpoint) {
            epoll::delete(&self.set, &bell).expect("it was put in by this descriptor");
        }
    }
}

impl AsFd for Bells {
    /// What becomes readable, once more, each time that a bell rings.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.set.as_fd()
    }
}

/// Tokio's reactor asks for both.
impl AsRawFd for Bells {
    fn as_raw_fd(&self) -> RawFd {
        self.set.as_raw_fd()
    }
}

#[cfg(test)]
mod tests {
    use rustix::event::epoll::Event;

    use super::*;
    use crate::doorbell::Bell;

    /// Waits for edges of the set as a reactor does, without ever looking into the set itself.
    struct Reactor(OwnedFd);

    impl Reactor {
        fn of(bells: &Bells) -> Self {
            let outer = epoll::create(CreateFlags::CLOEXEC).expect("descriptors");
            let flags = EventFlags::IN | EventFlags::ET;
            epoll::add(&outer, bells, EventData::new_u64(7), flags).expect("descriptors");
            Self(outer)
        }

        fn heard(&self) -> bool {
            let mut events = [Event { flags: EventFlags::empty(), data: EventData::new_u64(0) }; 4];
            let now = rustix::time::Timespec { tv_sec: 0, tv_nsec: 0 };
            epoll::wait(&self.0, &mut events[..], Some(&now)).expect("a set") > 0
        }
    }

    fn bell() -> (Bell, OwnedFd) {
        let (wait, ring) = Bell::pair().expect("descriptors");
        (Bell::new(ring), wait)
    }

    /// Every ring is heard, also of a bell that has rung before and that nobody read.
    #[test]
    fn every_ring_is_an_edge() {
        let mut bells = Bells::new().expect("descriptors");
        let reactor = Reactor::of(&bells);
        let (mut first, first_wait) = bell();
        let (mut second, second_wait) = bell();
        bells.add(EndpointId(1), first_wait.as_fd()).expect("descriptors");
        bells.add(EndpointId(2), second_wait.as_fd()).expect("descriptors");
        assert!(!reactor.heard());
        for _ in 0..3 {
            first.ring();
            assert!(reactor.heard());
            assert!(!reactor.heard(), "one ring, one edge");
            second.ring();
            first.ring();
            assert!(reactor.heard());
        }
    }

    /// A bell that was taken out is not heard, although its other end still rings; and no descriptor is left.
    #[test]
    fn removed_bells_are_not_heard() {
        let mut bells = Bells::new().expect("descriptors");
        let reactor = Reactor::of(&bells);
        let (mut ring, wait) = bell();
        bells.add(EndpointId(1), wait.as_fd()).expect("descriptors");
        drop(wait);
        ring.ring();
        assert!(reactor.heard());
        bells.remove(EndpointId(1));
        bells.remove(EndpointId(1));
        ring.ring();
        assert!(!reactor.heard());
        assert!(bells.held.is_empty());
    }
}
