//! A link: all that connects one endpoint with the DPA, seen from one of its two sides.
//!
//! ```text
//!                DPA side (near)                     endpoint side (far)
//!   segment A    writes: tx rings, rx heads   --->   reads: rx rings, tx heads
//!   segment B    reads:  rx rings, tx heads   <---   writes: tx rings, rx heads
//!   bell A       waits                        <---   rings
//!   bell B       rings                        --->   waits
//! ```
//!
//! - The DPA makes everything ([`Link::create`]) and hands the far side out as descriptors ([`LinkFds`]); the endpoint
//!   makes its side from them ([`Link::open`]), in this process or in another: it maps the segments for itself either way.
//! - `tx` leads away from the side that holds the link, `rx` towards it.
//! - Whoever has seen a small frame also sees every chunk that was sent before it ([`crate::rings`]).
//! - One bell per link and direction: endpoints never share one.
//! - Not here: what the frames mean (the port, the DPA), passing descriptors to another process.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use crate::doorbell::{Bell, BellError, News, PeerSleep, SILENCE_EVERY, SleepFlag};
use crate::frame::{FrameLimits, RingName};
use crate::ids::EndpointId;
use crate::layout::{RingPlace, segment_bytes};
use crate::profile::{ProfileError, RingProfile};
use crate::ring::{Batches, Consumer, Producer};
pub use crate::rings::LinkRx;
use crate::rings::publish_frames;
use crate::segment::{self, Readable, SegmentError, Writable};

/// What both sides of a link must agree on before they map anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LinkSpec {
    /// The DPA's name for the endpoint.
    pub endpoint: EndpointId,
    /// Which life of that name: a segment is never used again for another.
    pub generation: u32,
    /// Shape of the rings.
    pub profile: RingProfile,
    /// Longest message, padded head and body, in bytes. At most [`MESSAGE_BYTES_MOST`].
    pub message_bytes_max: u32,
}

/// Longest message that any link carries: lengths stay far from the end of 32 bits.
pub const MESSAGE_BYTES_MOST: u32 = 1 << 30;

/// Why a link was not made.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// The profile cannot be used.
    #[error("ring profile")]
    Profile(#[from] ProfileError),
    /// Longer messages than lengths can say.
    #[error("message_bytes_max = {found}: must be at most {MESSAGE_BYTES_MOST}")]
    MessageBytes {
        /// What was asked for.
        found: u32,
    },
    /// No shared memory.
    #[error("segment of endpoint {endpoint}")]
    Segment {
        /// The endpoint.
        endpoint: EndpointId,
        /// Why.
        #[source]
        source: SegmentError,
    },
    /// No doorbell.
    #[error("doorbell of endpoint {endpoint}")]
    Bell {
        /// The endpoint.
        endpoint: EndpointId,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}

/// The far side of a link that nobody has opened yet. Dropping it closes the descriptors.
#[derive(Debug)]
pub struct LinkFds {
    /// What the link looks like.
    pub spec: LinkSpec,
    /// Segment that the far side writes.
    pub tx: OwnedFd,
    /// Segment that the far side reads.
    pub rx: OwnedFd,
    /// Bell that the far side rings.
    pub ring: OwnedFd,
    /// Bell that the far side waits for.
    pub wait: OwnedFd,
}

/// One side of a link. Its halves are public so that a mover can hold what comes from one link and what goes to another
/// at once.
#[derive(Debug)]
pub struct Link {
    /// What the link looks like.
    pub spec: LinkSpec,
    /// What comes to here.
    pub rx: LinkRx,
    /// What goes from here.
    pub tx: LinkTx,
    /// How this side sleeps.
    pub sleep: LinkSleep,
}

/// What goes from this side.
#[derive(Debug)]
pub struct LinkTx {
    /// Small frames.
    pub small: Producer,
    /// Chunks.
    pub bulk: Producer,
    peer_sleep: PeerSleep,
    ring: Bell,
}

/// How this side sleeps until the peer rings.
#[derive(Debug)]
pub struct LinkSleep {
    flag: SleepFlag,
    wait: Bell,
    /// Announced since the rings were last counted.
    sleeps: u32,
}

impl LinkSpec {
    /// # Errors
    /// [`LinkError::Profile`] or [`LinkError::MessageBytes`] if no link can be made from it.
    pub fn validate(&self) -> Result<(), LinkError> {
        self.profile.validate()?;
        if self.message_bytes_max > MESSAGE_BYTES_MOST {
            return Err(LinkError::MessageBytes { found: self.message_bytes_max });
        }
        Ok(())
    }
}

impl Link {
    /// Makes a link: the near side, for the DPA, and the far side as descriptors.
    /// # Errors
    /// [`LinkError`] if the spec is wrong or the kernel has no memory or descriptors left.
    pub fn create(spec: LinkSpec) -> Result<(Self, LinkFds), LinkError> {
        spec.validate()?;
        let bytes = segment_bytes(&spec.profile);
        let in_segment = |source| LinkError::Segment { endpoint: spec.endpoint, source };
        let in_bell = |source| LinkError::Bell { endpoint: spec.endpoint, source };
        let (own, far_rx) = segment::create_outgoing(bytes).map_err(in_segment)?;
        let (peer, far_tx) = segment::create_incoming(bytes).map_err(in_segment)?;
        let (near_wait, far_ring) = Bell::pair().map_err(in_bell)?;
        let (far_wait, near_ring) = Bell::pair().map_err(in_bell)?;
        let fds = LinkFds { spec, tx: far_tx, rx: far_rx, ring: far_ring, wait: far_wait };
        Ok((Self::of(spec, own, peer, Bell::new(near_ring), Bell::new(near_wait)), fds))
    }

    /// Both sides of a link in one process, near and far, which one thread pumps: neither ever rings the other.
    /// # Errors
    /// As [`Link::create`].
    pub fn pair(spec: LinkSpec) -> Result<(Self, Self), LinkError> {
        spec.validate()?;
        let bytes = segment_bytes(&spec.profile);
        let segments =
            || segment::pair(bytes).map_err(|source| LinkError::Segment { endpoint: spec.endpoint, source });
        let bells = || Bell::pair().map_err(|source| LinkError::Bell { endpoint: spec.endpoint, source });
        let ((near_own, far_peer), (far_own, near_peer)) = (segments()?, segments()?);
        let ((near_wait, far_ring), (far_wait, near_ring)) = (bells()?, bells()?);
        let near = Self::of(spec, near_own, near_peer, Bell::new(near_ring), Bell::new(near_wait));
        let far = Self::of(spec, far_own, far_peer, Bell::new(far_ring), Bell::new(far_wait));
        Ok((near.within_lane(), far.within_lane()))
    }

    /// The far side of a link, from its descriptors. Checks the spec and what the segments are; bells of another kind never
    /// ring.
    /// # Errors
    /// [`LinkError`] if they are not what [`Link::create`] makes from this spec, or cannot be mapped.
    pub fn open(fds: LinkFds) -> Result<Self, LinkError> {
        let spec = fds.spec;
        spec.validate()?;
        let bytes = segment_bytes(&spec.profile);
        let in_segment = |source| LinkError::Segment { endpoint: spec.endpoint, source };
        let own = segment::open_writable(fds.tx.as_fd(), bytes).map_err(in_segment)?;
        let peer = segment::open_readable(fds.rx.as_fd(), bytes).map_err(in_segment)?;
        Ok(Self::of(spec, own, peer, Bell::new(fds.ring), Bell::new(fds.wait)))
    }

    fn of(spec: LinkSpec, own: Writable, peer: Readable, ring: Bell, wait: Bell) -> Self {
        let (small, bulk) = (RingPlace::small(&spec.profile), RingPlace::bulk(&spec.profile));
        let limits = |name| FrameLimits::new(name, spec.generation, &spec.profile, spec.message_bytes_max);
        let producer = |place, name| Producer::new(own.clone(), peer.clone(), place, limits(name));
        let consumer = |place, name| Consumer::new(own.clone(), peer.clone(), place, limits(name));
        let tx = LinkTx {
            small: producer(small, RingName::Small),
            bulk: producer(bulk, RingName::Bulk),
            peer_sleep: PeerSleep::new(peer.clone()),
            ring,
        };
        let rx = LinkRx { small: consumer(small, RingName::Small), bulk: consumer(bulk, RingName::Bulk) };
        Self { spec, rx, tx, sleep: LinkSleep { flag: SleepFlag::new(own), wait, sleeps: 0 } }
    }

    fn within_lane(mut self) -> Self {
        self.tx.peer_sleep.never_sleeps();
        for producer in [&mut self.tx.small, &mut self.tx.bulk] {
            producer.is_within_lane();
        }
        for consumer in [&mut self.rx.small, &mut self.rx.bulk] {
            consumer.is_within_lane();
        }
        self
    }

    /// Tells the peer of everything that was written and released, and rings if it sleeps. Once per batch. Returns
    /// whether there was anything to tell.
    ///
    /// - cost: nothing when there is nothing; else up to four stores, a fence, a load; a system call if the peer sleeps.
    #[inline]
    pub fn publish(&mut self) -> bool {
        let room = self.rx.publish();
        self.tx.publish(room)
    }
}

impl LinkTx {
    /// Tells the peer of the frames that were written, bulk before small, and rings if it sleeps and wants to know.
    /// Returns whether there was anything to tell. `room`: what [`LinkRx::publish`] of the same link has just said.
    #[inline]
    pub fn publish(&mut self, room: bool) -> bool {
        let frames = publish_frames(&mut self.small, &mut self.bulk);
        if !(room || frames) {
            return false;
        }
        if self.peer_sleep.to_ring(if frames { News::Frames } else { News::Room }) {
            self.ring.ring();
        }
        true
    }

    /// What was written, into the small ring and into the bulk ring.
    #[must_use]
    pub fn batches(&self) -> [Batches; 2] {
        [self.small.batches(), self.bulk.batches()]
    }

    /// Bytes that they hold, the small ring and the bulk ring.
    #[must_use]
    pub fn capacities(&self) -> [u32; 2] {
        [self.small.capacity(), self.bulk.capacity()]
    }

    /// Bytes that the peer has not read, in the small ring and in the bulk ring.
    #[must_use]
    pub fn waiting_bytes(&self) -> [u32; 2] {
        [self.small.waiting_bytes(), self.bulk.waiting_bytes()]
    }

    /// System calls spent on waking the peer.
    #[must_use]
    pub fn rings(&self) -> u64 {
        self.ring.rings()
    }
}

impl LinkSleep {
    /// Says that this side is about to sleep. The caller then looks for work once more, by [`LinkRx::refresh`] or [`LinkRx::has_no_news`] and by
    /// trying what found no room before, and waits for the bell only if there is none; [`LinkSleep::wake`]
    /// afterwards in either case. `wants_room`: something here waits for room in a ring.
    ///
    /// - cost: a store and a fence; a system call each [`SILENCE_EVERY`] times.
    /// # Errors
    /// [`BellError`] about the bell, which was looked at. The sleep is announced all the same.
    pub fn announce(&mut self, wants_room: bool) -> Result<(), BellError> {
        // Before the flag: a ring for the sleep that now begins must stay in the bell, or it would be no edge any more.
        let counted = if self.sleeps < SILENCE_EVERY { Ok(()) } else { self.count_rings() };
        self.flag.raise(wants_room);
        self.sleeps += 1;
        counted
    }

    #[cold]
    fn count_rings(&mut self) -> Result<(), BellError> {
        let sleeps = std::mem::take(&mut self.sleeps);
        let rings = self.wait.silence().ok_or(BellError::HungUp)?;
        // One more: the ring for the last sleep before the last counting may have come after it.
        if rings > sleeps as usize + 1 { Err(BellError::TooOften { rings, sleeps }) } else { Ok(()) }
    }

    /// Says that this side is awake. Nothing if it had not announced sleep.
    ///
    /// - cost: a store. Nothing is taken from the bell: whoever waits for it waits for its edges ([`crate::bells`]).
    #[inline]
    pub fn wake(&mut self) {
        self.flag.lower();
    }
}

impl AsFd for LinkSleep {
    /// What becomes readable, once more, each time that the peer rings.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.wait.as_fd()
    }
}

#[cfg(test)]
mod tests;
