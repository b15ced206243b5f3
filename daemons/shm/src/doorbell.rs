//! Waking a side that sleeps, and only then.
//!
//! ```text
//!   sleeper                              producer
//!   sleep word := asleep                 tail := new
//!   fence SeqCst                         fence SeqCst
//!   look at the rings once more          asleep, and not rung for yet? ring (one system call)
//!   still nothing: wait for the bell
//!   sleep word := awake
//!
//!   sleep word   bit 0: asleep   bit 1: wants to be woken for room in its rings too   bits 2..: number of the sleep
//! ```
//!
//! - Of the two fences one comes first: either the sleeper sees the new tail, or the producer sees the flag. So no
//!   wake-up is lost; `tests/loom.rs` has the proof and the broken variants.
//! - Each sleep has its own number, so a producer rings once per sleep although only the sleeper can write the word.
//! - Room in a ring wakes a sleeper only if it has something that waits for room: else each answer that a worker takes
//!   would wake the DPA for nothing.
//! - A bell may ring for nothing (the sleeper woke by itself meanwhile). It must never fail to ring.
//! - A hostile peer can ring more often than we sleep, or never. The first fills its bell, which is silent from then on, and
//!   is found out when the rings are counted ([`SILENCE_EVERY`]); against the second a sleeper that has deadlines wakes
//!   for those.

use crate::layout::SLEEP_WORD;
use crate::segment::{Readable, Writable};
use crate::sync::{Ordering, producer_fence, sleeper_fence};

const ASLEEP: u64 = 1;
const WANTS_ROOM: u64 = 2;
const NEXT_SLEEP: u64 = 4;

/// Our own sleep word, which the peer reads before it rings.
#[derive(Debug)]
pub struct SleepFlag {
    own: Writable,
    word: u64,
}

impl SleepFlag {
    /// Awake.
    #[must_use]
    pub fn new(own: Writable) -> Self {
        Self { own, word: 0 }
    }

    /// Says that we are about to sleep. The caller looks at its rings once more *after* this, and sleeps only if
    /// there is still nothing. `wants_room`: something of ours waits for room in a ring.
    pub fn raise(&mut self, wants_room: bool) {
        let number = self.word & !(ASLEEP | WANTS_ROOM);
        self.store(number | ASLEEP | if wants_room { WANTS_ROOM } else { 0 });
        sleeper_fence(); // Pairs with: PeerSleep::to_ring.
    }

    /// Says that we are awake. Nothing if we had not said otherwise.
    #[inline]
    pub fn lower(&mut self) {
        if self.word & ASLEEP != 0 {
            self.store((self.word & !(ASLEEP | WANTS_ROOM)).wrapping_add(NEXT_SLEEP));
        }
    }

    fn store(&mut self, word: u64) {
        self.word = word;
        self.own.words()[SLEEP_WORD].store(word, Ordering::Relaxed);
    }
}

/// What a side has published.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum News {
    /// Frames.
    Frames,
    /// No frames, but room in rings that were full perhaps.
    Room,
}

/// The peer's sleep word.
#[derive(Debug)]
pub struct PeerSleep {
    peer: Readable,
    rung: u64,
    never: bool,
}

impl PeerSleep {
    /// Not rung yet.
    #[must_use]
    pub fn new(peer: Readable) -> Self {
        Self { peer, rung: 0, never: false }
    }

    /// From now on the peer never sleeps by itself: whoever pumps this side pumps it too.
    pub fn never_sleeps(&mut self) {
        self.never = true;
    }

    /// Whether the peer sleeps, wants to be woken for this, and has not been rung for this sleep. Call after
    /// publishing.
    ///
    /// - cost: a full fence and one load; nothing for a peer that never sleeps.
    #[must_use]
    #[inline]
    pub fn to_ring(&mut self, news: News) -> bool {
        if self.never {
            return false;
        }
        producer_fence(); // Pairs with: SleepFlag::raise.
        let word = self.peer.words().get(SLEEP_WORD);
        let sleep = word & !WANTS_ROOM;
        if word & ASLEEP == 0 || sleep == self.rung || (news == News::Room && word & WANTS_ROOM == 0) {
            return false;
        }
        self.rung = sleep;
        true
    }
}

/// Sleeps between two countings of the rings: fewer than a bell has room for, so that an honest ring is never lost; as many as
/// make the system call that counts them cheap. A model has no time for so many.
pub const SILENCE_EVERY: u32 = if cfg!(shuttle) { 2 } else { 64 };

/// Bytes that a bell may hold, with what the kernel keeps beside each ring: some 340 rings.
#[cfg(not(any(loom, miri)))]
const BELL_BYTES: usize = 128 << 10;

#[cfg(not(any(loom, miri)))]
pub use bell::{Bell, BellError};

#[cfg(not(any(loom, miri)))]
mod bell {
    use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

    use rustix::net::{AddressFamily, RecvFlags, SendFlags, Shutdown, SocketFlags, SocketType, sockopt};

    use super::{BELL_BYTES, SILENCE_EVERY};

    /// One end of a pair of sockets: the one side rings it, the other waits for it in its reactor.
    ///
    /// - Not an eventfd: both sides would hold one open file, and the other side could take `O_NONBLOCK` from it and fill it, so
    ///   that our next ring never returns. Each end of a pair is a file of its own.
    /// - A ring is a byte, and nothing goes the other way.
    #[derive(Debug)]
    pub struct Bell {
        fd: OwnedFd,
        rings: u64,
    }

    /// What a peer did with its end of a bell.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
    pub enum BellError {
        /// It rang more often than once for each of our sleeps.
        #[error("rang {rings} times for {sleeps} sleeps")]
        TooOften {
            /// Rings taken from the bell, as far as it had room for them.
            rings: usize,
            /// How often we had announced sleep meanwhile.
            sleeps: u32,
        },
        /// It closed it, as a process that ends does: it will never ring again.
        #[error("closed its end of the bell")]
        HungUp,
    }

    impl Bell {
        /// Both ends of a new bell: the one that waits, and the one that rings.
        /// # Errors
        /// The kernel's, for want of descriptors.
        pub fn pair() -> std::io::Result<(OwnedFd, OwnedFd)> {
            let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
            let (wait, ring) = rustix::net::socketpair(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
            sockopt::set_socket_send_buffer_size(&ring, BELL_BYTES)?;
            rustix::net::shutdown(&ring, Shutdown::Read)?;
            Ok((wait, ring))
        }

        /// One end, from its descriptor.
        #[must_use]
        pub fn new(fd: OwnedFd) -> Self {
            Self { fd, rings: 0 }
        }

        /// Wakes the other end. A bell that is full or broken is passed over: full means that it rings already, and
        /// a broken one belongs to a peer that does not want to be woken.
        #[cold]
        pub fn ring(&mut self) {
            let _ = rustix::net::send(&self.fd, &[1], SendFlags::DONTWAIT | SendFlags::NOSIGNAL);
            self.rings += 1;
        }

        /// How often [`Bell::ring`] was called: system calls spent on waking.
        #[must_use]
        pub fn rings(&self) -> u64 {
            self.rings
        }

        /// Takes the rings that the other end has made since this was last called, and says how many they were; none if
        /// there are none left and never will be.
        pub fn silence(&mut self) -> Option<usize> {
            let mut rings = [0; 8 * SILENCE_EVERY as usize];
            match rustix::net::recv(&self.fd, &mut rings[..], RecvFlags::DONTWAIT) {
                Ok((0, _)) => None,
                Ok((taken, _)) => Some(taken),
                Err(_) => Some(0),
            }
        }
    }

    impl AsFd for Bell {
        fn as_fd(&self) -> BorrowedFd<'_> {
            self.fd.as_fd()
        }
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        /// A bell has room for all rings between two countings, with what a machine gives it by default.
        #[test]
        fn bell_has_room_for_its_rings() {
            let (wait, ring) = Bell::pair().expect("descriptors");
            let (mut wait, mut ring) = (Bell::new(wait), Bell::new(ring));
            for _ in 0..10 {
                (0..=SILENCE_EVERY).for_each(|_| ring.ring());
                assert_eq!(wait.silence(), Some(SILENCE_EVERY as usize + 1));
                assert_eq!(wait.silence(), Some(0));
            }
        }

        /// Ringing returns at once, also when the bell is full and when nobody waits any more.
        #[test]
        fn ringing_never_waits() {
            let (wait, ring) = Bell::pair().expect("descriptors");
            let mut ring = Bell::new(ring);
            (0..100_000).for_each(|_| ring.ring());
            assert!(Bell::new(wait).silence().is_some_and(|rings| rings > SILENCE_EVERY as usize));
            ring.ring();
            assert_eq!(ring.rings(), 100_001);
        }

        /// The end of the other side is told once what it left is taken, and nothing goes the other way.
        #[test]
        fn bell_has_an_end() {
            let (wait, ring) = Bell::pair().expect("descriptors");
            let back = rustix::net::send(&wait, &[1], SendFlags::DONTWAIT | SendFlags::NOSIGNAL);
            assert_eq!(back, Err(rustix::io::Errno::PIPE));
            let (mut wait, mut ring) = (Bell::new(wait), Bell::new(ring));
            ring.ring();
            drop(ring);
            assert_eq!((wait.silence(), wait.silence()), (Some(1), None));
        }
    }
}
