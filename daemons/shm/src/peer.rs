//! Another side of a link for tests: honest, late, dead or hostile. Cargo feature `peer`; no daemon is built with it.
//!
//! ```text
//!   attach    connect, hello, welcome, as any endpoint process does, in one call that waits
//!   Peer      keeps the rules of the rings and answers in its own [`Manner`]
//!   Hostile   writes every word that it can write, sends frames that nobody may send, rings when it likes
//! ```
//!
//! - Only what a process can do that was given one side of a link: nothing here reaches into the other side.
//! - Memory is written through [`Scratch`], words and all: the unsafe code stays in [`crate::segment`].
//! - Not here: what becomes of it (the tests of the DPA, the fuzz targets).

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::OFlags;
use rustix::io::Errno;
use rustix::net::SendFlags;

use crate::attach::{Attached, Channel, ChannelError, FromDpa, Hello, Received, ToDpa};
use crate::clock::Nanos;
use crate::frame::{FrameHeader, RingName};
use crate::ids::SlotId;
use crate::layout::{RingPlace, SLEEP_WORD, segment_bytes};
use crate::link::{Link, LinkError, LinkFds};
use crate::message::{Fault, ResponseMessage};
use crate::port::{Arrived, Port, PortConfig, PortError};
use crate::profile::RingProfile;
use crate::progress::Progress;
use crate::ring::{Payload, RingError};
use crate::segment::{self, Writable};
use crate::sync::Ordering;

/// Ends a hang, and measures nothing: no machine is so busy that a DPA which lives does not answer within this.
const PATIENCE: Duration = Duration::from_secs(60);

/// Pause before another try to connect: the queue of the listener was full.
const CONNECT_PAUSE: Duration = Duration::from_millis(1);

/// Why a peer was not attached.
#[derive(Debug, thiserror::Error)]
pub enum AttachError {
    /// Nobody listens there, or not any more.
    #[error("connecting to the DPA")]
    Connect(#[source] io::Error),
    /// What came was no answer.
    #[error(transparent)]
    Channel(#[from] ChannelError),
    /// The DPA does not want it.
    #[error("refused: {why}")]
    Refused {
        /// In the DPA's words.
        why: String,
    },
    /// Something else came than an answer to the hello.
    #[error("{said:?} is no answer to a hello")]
    Unexpected {
        /// What came.
        said: FromDpa,
    },
}

/// Attaches to the DPA that listens at `path`, waiting for its answer.
/// # Errors
/// [`AttachError`], the DPA's refusal among them.
pub fn attach(path: &Path, hello: &Hello) -> Result<(Channel, Attached), AttachError> {
    let channel = connect(path)?;
    channel.send_to_dpa(&ToDpa::Hello(hello.clone()))?;
    match receive(&channel)? {
        Received::Attached(attached) => Ok((channel, *attached)),
        Received::Said(FromDpa::Refused { why }) => Err(AttachError::Refused { why }),
        Received::Said(said @ (FromDpa::Welcome(_) | FromDpa::Left)) => Err(AttachError::Unexpected { said }),
    }
}

/// Connects to the DPA that listens at `path`, however many others do.
/// # Errors
/// [`AttachError::Connect`] if nobody listens there.
pub fn connect(path: &Path) -> Result<Channel, AttachError> {
    let start = Nanos::now();
    loop {
        match Channel::connect(path) {
            Err(error)
                if error.kind() == io::ErrorKind::WouldBlock
                    && Nanos::now().saturating_since(start) < PATIENCE =>
            {
                std::thread::sleep(CONNECT_PAUSE);
            }
            connected => return connected.map_err(AttachError::Connect),
        }
    }
}

/// What the DPA says next, waiting for it.
/// # Errors
/// As [`Channel::receive_from_dpa`].
pub fn receive(channel: &Channel) -> Result<Received, ChannelError> {
    loop {
        match channel.receive_from_dpa() {
            Err(error) if error.would_block() && wait_readable(&[channel.as_fd()], Some(PATIENCE))? => {}
            received => return received,
        }
    }
}

/// Waits until the DPA has let this process go, or is gone itself.
pub fn until_ended(channel: &Channel) {
    while !has_ended(channel) {
        if wait_readable(&[channel.as_fd()], None).is_err() {
            return;
        }
    }
}

/// Whether the DPA has let this process go, or is gone itself.
#[must_use]
pub fn has_ended(channel: &Channel) -> bool {
    match channel.receive_from_dpa() {
        Ok(_) => false,
        Err(error) => !error.would_block(),
    }
}

/// Waits until one of them can be read. `false`: `within` has passed.
fn wait_readable(fds: &[BorrowedFd<'_>], within: Option<Duration>) -> io::Result<bool> {
    let mut fds: Vec<PollFd<'_>> =
        fds.iter().map(|fd| PollFd::from_borrowed_fd(*fd, PollFlags::IN)).collect();
    let within = within.map(|within| Timespec::try_from(within).expect("not a geological age"));
    match rustix::event::poll(&mut fds, within.as_ref()) {
        Ok(ready) => Ok(ready > 0),
        Err(Errno::INTR) => Ok(true),
        Err(errno) => Err(errno.into()),
    }
}

/// How a peer answers that keeps the rules of the rings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Manner {
    /// Answers each request with its own body, at once.
    Honest,
    /// The same, so long after the request has come.
    Late(Duration),
    /// Takes requests and never answers.
    Silent,
    /// Takes nothing.
    Dead,
}

/// A peer that keeps the rules of the rings.
#[derive(Debug)]
pub struct Peer {
    port: Port,
    manner: Manner,
    /// Requests that are answered at this time, with this body.
    due: VecDeque<(Nanos, SlotId, Bytes)>,
}

impl Peer {
    /// A peer at this side of a link.
    #[must_use]
    pub fn new(link: Link, manner: Manner) -> Self {
        Self { port: Port::new(link, PortConfig::default()), manner, due: VecDeque::new() }
    }

    /// Its port, to make calls with.
    pub fn port(&mut self) -> &mut Port {
        &mut self.port
    }

    /// Takes what has come and answers what is due, once.
    /// # Errors
    /// [`PortError`] if the other side broke a rule.
    pub fn turn(&mut self, now: Nanos) -> Result<Progress, PortError> {
        let mut moved = false;
        while self.manner != Manner::Dead
            && let Some(arrived) = self.port.poll()?
        {
            self.on_arrived(arrived, now);
            moved = true;
        }
        while self.due.front().is_some_and(|(at, ..)| *at <= now) {
            let (_, slot, body) = self.due.pop_front().expect("just seen");
            self.port.respond(slot, echo(body));
            moved = true;
        }
        Ok(self.port.flush() | Progress::from(moved))
    }

    fn on_arrived(&mut self, arrived: Arrived, now: Nanos) {
        let Arrived::Request { slot, message } = arrived else { return };
        match self.manner {
            Manner::Honest => self.port.respond(slot, echo(message.body)),
            Manner::Late(by) => self.due.push_back((now.saturating_add(by), slot, message.body)),
            Manner::Silent | Manner::Dead => {}
        }
    }

    /// Turns, and sleeps between turns, until `channel` ends.
    /// # Errors
    /// [`PortError`] if the other side broke a rule.
    pub fn run(&mut self, channel: &Channel) -> Result<(), PortError> {
        while !has_ended(channel) {
            while self.turn(Nanos::now())?.moved() {}
            self.port.announce_sleep();
            if !self.turn(Nanos::now())?.moved() {
                self.sleep(channel);
            }
            self.port.wake();
        }
        Ok(())
    }

    /// Until the bell rings, an answer is due, or something comes through the channel.
    fn sleep(&self, channel: &Channel) {
        let due = self.due.front().map(|(at, ..)| at.saturating_since(Nanos::now()));
        let bell = self.port.wait_fd();
        // One that cannot wait looks again at once.
        let _ = wait_readable(&[bell, channel.as_fd()], due);
        // It waits for a level, not for edges.
        let _ = rustix::io::read(bell, &mut [0; 256]);
    }
}

fn echo(body: Bytes) -> ResponseMessage {
    ResponseMessage { status: 200, fault: Fault::None, head: Bytes::new(), body }
}

/// A peer that keeps no rule.
#[derive(Debug)]
pub struct Hostile {
    /// Its side of the link, for what it does by the rules.
    pub link: Link,
    scratch: Scratch,
    bell: OwnedFd,
    own_bell: OwnedFd,
}

impl Hostile {
    /// A hostile peer at this side of a link.
    /// # Errors
    /// [`LinkError`] as of [`Link::open`].
    pub fn open(fds: LinkFds) -> Result<Self, LinkError> {
        let spec = fds.spec;
        let bytes = segment_bytes(&spec.profile);
        let own = segment::open_writable(fds.tx.as_fd(), bytes)
            .map_err(|source| LinkError::Segment { endpoint: spec.endpoint, source })?;
        let in_bell = |source| LinkError::Bell { endpoint: spec.endpoint, source };
        let bell = fds.ring.try_clone().map_err(in_bell)?;
        let own_bell = fds.wait.try_clone().map_err(in_bell)?;
        Ok(Self { scratch: Scratch::new(own, spec.profile), bell, own_bell, link: Link::open(fds)? })
    }

    /// All that it can write, for as many threads as it likes.
    #[must_use]
    pub fn scratch(&self) -> Scratch {
        self.scratch.clone()
    }

    /// Writes a frame behind the others, whatever it says, with zeros as its payload. `false`: the ring is full.
    /// # Errors
    /// [`RingError`] if the other side broke a rule.
    pub fn forge(&mut self, header: &FrameHeader) -> Result<bool, RingError> {
        let ring = if header.kind.is_chunk() { &mut self.link.tx.bulk } else { &mut self.link.tx.small };
        ring.push(header, Payload::Parts(&[], &vec![0; header.frame_len as usize]))
    }

    /// The next frame that has come, without its payload.
    /// # Errors
    /// [`RingError`] if the other side broke a rule.
    pub fn take(&mut self) -> Result<Option<FrameHeader>, RingError> {
        self.link.rx.refresh()?;
        let frame = self.link.rx.small.peek_frame()?;
        if let Some(frame) = &frame {
            self.link.rx.small.release(frame);
        }
        Ok(frame.map(|frame| frame.header()))
    }

    /// Does to the bell that the other side rings all that its own end lets it do so that ringing waits: has it wait for
    /// room, and has no room. An eventfd, whose two ends are one file, would be full and wait after this.
    pub fn jam(&self) {
        // What the kernel does not let it do is what the test is about.
        let _ = rustix::fs::fcntl_setfl(&self.own_bell, OFlags::empty());
        let full = (u64::MAX - 1).to_ne_bytes();
        let _ = rustix::net::send(&self.own_bell, &full, SendFlags::DONTWAIT | SendFlags::NOSIGNAL)
            .or_else(|_| rustix::io::write(&self.own_bell, &full));
    }

    /// Rings, for nothing.
    pub fn ring(&self) {
        // A bell that is full rings already.
        let _ = rustix::net::send(&self.bell, &[1], SendFlags::DONTWAIT | SendFlags::NOSIGNAL);
    }
}

/// A segment that can be written word by word, by no rule at all.
#[derive(Debug, Clone)]
pub struct Scratch {
    own: Writable,
    profile: RingProfile,
}

impl Scratch {
    /// The segment of a side whose rings have this profile.
    #[must_use]
    pub fn new(own: Writable, profile: RingProfile) -> Self {
        Self { own, profile }
    }

    /// How many words it has.
    #[must_use]
    pub fn words(&self) -> usize {
        self.own.words().len()
    }

    /// One word as it is now. Panics beyond the end.
    #[must_use]
    pub fn load(&self, word: usize) -> u64 {
        self.own.words()[word].load(Ordering::Relaxed)
    }

    /// Stores one word. Panics beyond the end.
    pub fn store(&self, word: usize, value: u64) {
        self.own.words()[word].store(value, Ordering::Relaxed);
    }

    /// Stores bytes into the first words; what the segment has no room for is left out.
    pub fn fill(&self, bytes: &[u8]) {
        let room = self.words() * segment::WORD_BYTES;
        segment::store_bytes(self.own.words(), &bytes[..bytes.len().min(room)]);
    }

    /// All of it, as it is now.
    #[must_use]
    pub fn image(&self) -> Vec<u8> {
        (0..self.words()).flat_map(|word| self.load(word).to_le_bytes()).collect()
    }

    /// Word of the sleep flag.
    #[must_use]
    pub fn sleep_word(&self) -> usize {
        SLEEP_WORD
    }

    /// Word of the tail of a ring.
    #[must_use]
    pub fn tail_word(&self, ring: RingName) -> usize {
        self.place(ring).tail_word
    }

    /// First word of the frame that a counter of a ring stands for.
    #[must_use]
    pub fn frame_word(&self, ring: RingName, counter: u32) -> usize {
        self.place(ring).word_of(counter)
    }

    fn place(&self, ring: RingName) -> RingPlace {
        match ring {
            RingName::Small => RingPlace::small(&self.profile),
            RingName::Bulk => RingPlace::bulk(&self.profile),
        }
    }
}

#[cfg(test)]
mod tests;
