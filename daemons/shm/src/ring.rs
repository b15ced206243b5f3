//! Frame ring: one producer, one consumer, usually in two processes.
//!
//! ```text
//!            head                      tail
//!   |         v                         v            |
//!   |.........[hdr|payload][hdr|payload].............|     capacity bytes, in the producer's segment
//!   0                                                capacity
//! ```
//!
//! - Counters run freely and wrap at 2^32; a byte's place is `counter & (capacity - 1)`. In memory a counter is a word
//!   whose upper half is zero.
//! - A frame is contiguous. One that would reach around the end starts at the beginning, behind a `Pad` frame.
//! - The producer writes whole frames, then stores `tail` with `Release`; that pairs with the fence behind the load in
//!   [`Consumer::refresh`] (`sync.rs` has both). `head` is the same the other way round. Both are published once per batch.
//! - Each side keeps its own counter in private memory; shared memory holds only a copy for the peer.
//! - The peer may be dead, late or hostile: its counter is checked each time it is loaded, and a header each time it is
//!   copied out. The first impossible one closes this side of the ring for ever; it never panics.
//! - Not here: waking a sleeping peer ([`crate::doorbell`]), choosing a destination (the DPA).

use crate::frame::{Frame, FrameError, FrameHeader, FrameKind, FrameLimits, HEADER_WORDS, Relabel, RingName};
use crate::layout::{LINE_WORDS, RingPlace};
use crate::profile::LINE_BYTES;
use crate::segment::{Readable, WORD_BYTES, Words, Writable, prefetch_to_store, store_bytes, store_words};
use crate::sync::{AtomicU64, Ordering, observe, publish, turn};

/// How far ahead of a frame its side asks for the next lines, where they come from another processor: as many bytes as are on
/// their way from there while one frame is looked at. Four, eight and 32 lines moved 0.6 to 0.8 of what 16 do.
const AHEAD_BYTES: u32 = 16 * LINE_BYTES;

/// What no correct peer does. The ring stays closed until its endpoint is attached anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RingError {
    /// A counter that cannot be.
    #[error("{ring} ring: {counter} {found} where {least} to {} can be, in whole lines", least.wrapping_add(*span))]
    Corrupt {
        /// The ring.
        ring: RingName,
        /// `"head"` or `"tail"`.
        counter: &'static str,
        /// The word found.
        found: u64,
        /// The peer's counter as last believed.
        least: u32,
        /// How far it can have come since then, in bytes.
        span: u32,
    },
    /// A header that cannot be.
    #[error("{ring} ring: {error}")]
    Frame {
        /// The ring.
        ring: RingName,
        /// Which rule it breaks.
        error: FrameError,
    },
}

/// What goes behind a header.
#[derive(Debug, Clone, Copy)]
pub enum Payload<'a> {
    /// Nothing.
    Empty,
    /// A head and a body, or parts of them: the second starts on a word.
    Parts(&'a [u8], &'a [u8]),
    /// Words of another ring, as they are.
    Words(Words<'a>),
}

impl Payload<'_> {
    /// Bytes that it takes behind a header.
    #[must_use]
    #[inline]
    pub fn len(&self) -> usize {
        match self {
            Self::Empty => 0,
            Self::Parts(head, body) => head.len().next_multiple_of(WORD_BYTES) + body.len(),
            Self::Words(words) => words.len() * WORD_BYTES,
        }
    }

    /// Whether nothing goes behind the header.
    #[must_use]
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// What a side has written into a ring, since it was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Batches {
    /// Frames, without the padding between them.
    pub frames: u64,
    /// Times that its reader was told of new ones: `frames` by this is the size of a batch.
    pub publishes: u64,
}

impl Batches {
    /// Counts what another has counted.
    pub fn add(&mut self, other: Self) {
        self.frames += other.frames;
        self.publishes += other.publishes;
    }
}

/// The side that writes frames.
#[derive(Debug)]
pub struct Producer {
    own: Writable,
    peer: Readable,
    place: RingPlace,
    limits: FrameLimits,
    /// Behind the last frame written.
    tail: u32,
    /// What the peer has been told of `tail`.
    published: u32,
    /// What the peer last said it has read; checked.
    head: u32,
    batches: Batches,
    /// The consumer may run on another processor.
    is_apart: bool,
    closed: Option<RingError>,
}

impl Producer {
    /// The producing side of the ring at `place`: frames go to `own`, the consumer's head is in `peer`.
    #[must_use]
    pub fn new(own: Writable, peer: Readable, place: RingPlace, limits: FrameLimits) -> Self {
        let batches = Batches::default();
        Self {
            own,
            peer,
            place,
            limits,
            tail: 0,
            published: 0,
            head: 0,
            batches,
            is_apart: true,
            closed: None,
        }
    }

    /// From now on one thread pumps both sides: lines are where they were left.
    pub(crate) fn is_within_lane(&mut self) {
        self.is_apart = false;
    }

    /// Writes a frame behind the others; the peer sees it after [`Producer::publish`]. `Ok(false)`: the ring is full,
    /// nothing was written. Sets `generation` of the header; `frame_len` must be the payload's length (words may
    /// end in less than a word of padding).
    ///
    /// - cost: the frame's words; a load of the peer's head only when the last known one leaves no room.
    /// # Errors
    /// [`RingError::Corrupt`] if the peer's head is impossible; then and from then on.
    #[inline(always)]
    pub fn push(&mut self, header: &FrameHeader, payload: Payload<'_>) -> Result<bool, RingError> {
        let words = |generation| FrameHeader { generation, ..*header }.encode();
        self.push_words(words, header.frame_len, payload)
    }

    /// Writes a frame that came in on another link, as [`Producer::push`] does.
    /// # Errors
    /// As [`Producer::push`].
    #[inline(always)]
    pub fn relay(&mut self, frame: &Frame, label: Relabel, payload: Words<'_>) -> Result<bool, RingError> {
        let words = |generation| frame.relabelled_words(label, generation);
        self.push_words(words, frame.frame_len(), Payload::Words(payload))
    }

    #[inline(always)]
    fn push_words(
        &mut self,
        header: impl Fn(u32) -> [u64; HEADER_WORDS],
        frame_len: u32,
        payload: Payload<'_>,
    ) -> Result<bool, RingError> {
        debug_assert!(payload.len().abs_diff(frame_len as usize) < WORD_BYTES, "{frame_len} {payload:?}");
        assert!(frame_len <= self.limits.frame_bytes_max, "the caller splits what is too large for the ring");
        // A copy: the compiler would load each field again after each store to the ring.
        let place = self.place;
        let room = place.footprint(frame_len);
        let to_end = place.left_to_end(self.tail);
        let pad = if room > to_end { to_end } else { 0 };
        if !self.has_room(pad + room)? {
            return Ok(false);
        }
        if pad > 0 {
            self.write_pad(pad);
        }
        let (tail, words) = (self.tail, self.own.words());
        if self.is_apart {
            prefetch_to_store(words, place.word_of(tail.wrapping_add(AHEAD_BYTES)));
        }
        let (line, behind) = place.frame_at(words, tail, room);
        store_line(line, &header(self.limits.generation));
        match payload {
            Payload::Empty => {}
            Payload::Parts(head, body) => {
                let used = store_bytes(behind, head);
                store_bytes(&behind[used..], body);
            }
            Payload::Words(words) => store_words(behind, words),
        }
        self.batches.frames += 1;
        self.tail = tail.wrapping_add(room);
        Ok(true)
    }

    /// Tells the peer of all frames written so far. `false`: there was nothing to tell.
    #[inline]
    pub fn publish(&mut self) -> bool {
        if self.tail == self.published {
            return false;
        }
        publish(&self.own.words()[self.place.tail_word], self.tail); // Pairs with: Consumer::refresh.
        self.published = self.tail;
        self.batches.publishes += 1;
        true
    }

    /// What was written so far.
    #[must_use]
    pub fn batches(&self) -> Batches {
        self.batches
    }

    /// Bytes that the peer was told of and has not read, as it says itself: for who watches, and nothing follows from it.
    #[must_use]
    pub fn waiting_bytes(&self) -> u32 {
        let found = self.peer.words().get(self.place.head_word);
        let span = self.published.wrapping_sub(self.head);
        let head = believable(found, self.head, span, self.place.unit).unwrap_or(self.head);
        self.published.wrapping_sub(head)
    }

    /// Bytes that the ring holds.
    #[must_use]
    #[inline]
    pub fn capacity(&self) -> u32 {
        self.place.capacity
    }

    /// Bytes written and not yet read by the peer, with the peer's head loaded anew.
    /// # Errors
    /// [`RingError::Corrupt`] if that head is impossible.
    #[inline]
    pub fn occupied(&mut self) -> Result<u32, RingError> {
        self.load_head()?;
        Ok(self.tail.wrapping_sub(self.head))
    }

    /// The peer's head, loaded anew, if it has not yet read all that it was told of.
    /// # Errors
    /// [`RingError::Corrupt`] if that head is impossible.
    pub fn waiting_at(&mut self) -> Result<Option<u32>, RingError> {
        self.load_head()?;
        Ok((self.head != self.published).then_some(self.head))
    }

    /// Whether a frame of the largest size fits. Loads the peer's head if needed.
    /// # Errors
    /// [`RingError::Corrupt`] if that head is impossible.
    #[inline]
    pub fn has_room_for_any(&mut self) -> Result<bool, RingError> {
        let room = self.place.footprint(self.limits.frame_bytes_max);
        let to_end = self.place.left_to_end(self.tail);
        self.has_room(if room > to_end { to_end + room } else { room })
    }

    #[inline(always)]
    fn has_room(&mut self, needed: u32) -> Result<bool, RingError> {
        if self.free() < needed {
            self.load_head()?;
        }
        Ok(self.free() >= needed)
    }

    #[inline(always)]
    fn free(&self) -> u32 {
        self.place.capacity - self.tail.wrapping_sub(self.head)
    }

    /// Trust boundary rule 2: the head may have come as far as what was published, and not back.
    #[cold]
    fn load_head(&mut self) -> Result<(), RingError> {
        if let Some(error) = self.closed {
            return Err(error);
        }
        let found = self.peer.words().get(self.place.head_word);
        observe(); // Pairs with: Consumer::publish.
        let span = self.published.wrapping_sub(self.head);
        match believable(found, self.head, span, self.place.unit) {
            Some(head) => self.head = head,
            None => {
                let error = RingError::Corrupt {
                    ring: self.limits.ring,
                    counter: "head",
                    found,
                    least: self.head,
                    span,
                };
                self.closed = Some(error);
                return Err(error);
            }
        }
        Ok(())
    }

    #[cold]
    fn write_pad(&mut self, pad: u32) {
        let generation = self.limits.generation;
        let header =
            FrameHeader { frame_len: pad - LINE_BYTES, generation, ..FrameHeader::new(FrameKind::Pad, 0) };
        let (line, _) = self.place.frame_at(self.own.words(), self.tail, pad);
        store_line(line, &header.encode());
        self.tail = self.tail.wrapping_add(pad);
    }
}

/// The side that reads frames.
#[derive(Debug)]
pub struct Consumer {
    own: Writable,
    peer: Readable,
    place: RingPlace,
    limits: FrameLimits,
    /// Behind the last frame released.
    head: u32,
    /// What the peer has been told of `head`.
    published: u32,
    /// What the peer last said it has written; checked.
    tail: u32,
    /// Bytes behind the header of the frame that was released last, and the room that it took.
    last: (u32, u32),
    /// The producer may run on another processor.
    is_apart: bool,
    /// Somewhere else: the way of every frame passes by, and asks only whether it is there.
    closed: Option<Box<RingError>>,
}

impl Consumer {
    /// The consuming side of the ring at `place`: frames come from `peer`, our head goes to `own`.
    #[must_use]
    pub fn new(own: Writable, peer: Readable, place: RingPlace, limits: FrameLimits) -> Self {
        let last = (0, place.footprint(0));
        Self { own, peer, place, limits, head: 0, published: 0, tail: 0, last, is_apart: true, closed: None }
    }

    /// From now on one thread pumps both sides: lines are where they were left.
    pub(crate) fn is_within_lane(&mut self) {
        self.is_apart = false;
    }

    /// Looks how far the peer has written. Returns whether there are frames to take. Once per batch.
    ///
    /// - cost: one load of the peer's line.
    /// # Errors
    /// [`RingError::Corrupt`] if the tail is impossible; then and from then on.
    #[inline(always)]
    pub fn refresh(&mut self) -> Result<bool, RingError> {
        if let Some(error) = &self.closed {
            return Err(**error);
        }
        let found = self.peer.words().get(self.place.tail_word);
        observe(); // Pairs with: Producer::publish.
        if found == u64::from(self.tail) {
            return Ok(self.has_seen());
        }
        let span = self.place.capacity - self.tail.wrapping_sub(self.head);
        match believable(found, self.tail, span, self.place.unit) {
            Some(tail) => self.tail = tail,
            None => {
                let ring = self.limits.ring;
                return Err(self.close(RingError::Corrupt {
                    ring,
                    counter: "tail",
                    found,
                    least: self.tail,
                    span,
                }));
            }
        }
        Ok(self.has_seen())
    }

    /// Whether the peer's tail is as it was last seen, and the ring is open.
    #[must_use]
    #[inline(always)]
    pub fn has_no_news(&self) -> bool {
        let found = self.peer.words().get(self.place.tail_word);
        turn();
        found == u64::from(self.tail) && self.closed.is_none()
    }

    /// Whether frames that the last [`Consumer::refresh`] has seen are not released yet.
    #[must_use]
    #[inline(always)]
    pub fn has_seen(&self) -> bool {
        self.head != self.tail
    }

    /// Copies the next frame's header to `frame`, of those that the last [`Consumer::refresh`] has seen. `false`: there is
    /// none. Asking again gives the same frame, from memory that the peer may have changed: use the copy that you have.
    ///
    /// - cost: one copy of the header's line.
    /// # Errors
    /// [`RingError::Frame`] if the header breaks a rule; then and from then on.
    #[inline(always)]
    pub fn peek(&mut self, frame: &mut Frame) -> Result<bool, RingError> {
        while self.has_seen() {
            match self.admit_next(frame) {
                Ok(()) if frame.kind() == FrameKind::Pad => self.release(frame),
                Ok(()) => return Ok(true),
                Err(error) => return Err(self.close(RingError::Frame { ring: self.limits.ring, error })),
            }
        }
        self.closed.as_ref().map_or(Ok(false), |error| Err(**error))
    }

    /// As [`Consumer::peek`], with a frame of its own. Where speed matters, one frame is used again and again.
    /// # Errors
    /// As [`Consumer::peek`].
    #[inline]
    pub fn peek_frame(&mut self) -> Result<Option<Frame>, RingError> {
        let mut frame = Frame::EMPTY;
        Ok(self.peek(&mut frame)?.then_some(frame))
    }

    /// Trust boundary rule 3: copied once, checked, then used.
    #[inline(always)]
    fn admit_next(&self, frame: &mut Frame) -> Result<(), FrameError> {
        let (place, head, words) = (self.place, self.head, self.peer.words());
        let published = self.tail.wrapping_sub(head);
        // Beyond the tail are lines that the producer is about to write.
        if self.is_apart && published > AHEAD_BYTES {
            words.prefetch(place.word_of(head.wrapping_add(AHEAD_BYTES)));
        }
        let header = words.part(place.word_of(head), HEADER_WORDS);
        frame.admit(|index| header.get(index), &self.limits)?;
        let to_end = place.left_to_end(head);
        if frame.kind() == FrameKind::Pad {
            return check_pad(frame, published, to_end);
        }
        let room = place.footprint(frame.frame_len());
        if room > published.min(to_end) {
            return Err(FrameError::Overrun { found: room, published: published.min(to_end) });
        }
        Ok(())
    }

    /// The words behind the header that [`Consumer::peek`] gave. The last may have padding.
    #[must_use]
    #[inline(always)]
    pub fn payload(&self, frame: &Frame) -> Words<'_> {
        let start = self.place.word_of(self.head) + LINE_WORDS;
        self.peer.words().part(start, (frame.frame_len() as usize).div_ceil(WORD_BYTES))
    }

    /// Gives the room of the frame that [`Consumer::peek`] gave back; the peer learns it after
    /// [`Consumer::publish`]. Nothing that can close the ring comes between the two.
    ///
    /// - cost: a guess that is right while frames are of one length. Were the room counted from each header, a processor could not
    ///   know where the next frame is before the line of this one has come, and would wait for one line after the other; on a guess it
    ///   goes on at once.
    #[inline(always)]
    pub fn release(&mut self, frame: &Frame) {
        let (len, room) = self.last;
        let room = if frame.frame_len() == len { room } else { self.note_length(frame.frame_len()) };
        debug_assert!(
            room <= self.tail.wrapping_sub(self.head),
            "{frame:?} was not seen, or the ring is closed"
        );
        self.head = self.head.wrapping_add(room);
    }

    /// Never inlined: both ways would become one again, without a guess.
    #[inline(never)]
    fn note_length(&mut self, frame_len: u32) -> u32 {
        let room = self.place.footprint(frame_len);
        self.last = (frame_len, room);
        room
    }

    /// Tells the peer of all frames released so far. `false`: there was nothing to tell.
    #[inline]
    pub fn publish(&mut self) -> bool {
        if self.head == self.published {
            return false;
        }
        publish(&self.own.words()[self.place.head_word], self.head); // Pairs with: Producer::load_head.
        self.published = self.head;
        true
    }

    /// Bytes that the ring holds.
    #[must_use]
    pub fn capacity(&self) -> u32 {
        self.place.capacity
    }

    /// Bytes that the peer has written and that are not released here, as it says itself: for who watches, and nothing
    /// follows from it.
    #[must_use]
    pub fn waiting_bytes(&self) -> u32 {
        let found = self.peer.words().get(self.place.tail_word);
        let span = self.place.capacity - self.tail.wrapping_sub(self.head);
        let tail = believable(found, self.tail, span, self.place.unit).unwrap_or(self.tail);
        tail.wrapping_sub(self.head)
    }

    /// Whatever was seen is not there any more: [`Consumer::peek`] asks whether it is closed only when there is nothing.
    #[cold]
    fn close(&mut self, error: RingError) -> RingError {
        self.closed = Some(Box::new(error));
        self.tail = self.head;
        error
    }
}

#[inline(always)]
fn store_line(to: &[AtomicU64; HEADER_WORDS], words: &[u64; HEADER_WORDS]) {
    for (to, word) in to.iter().zip(words) {
        to.store(*word, Ordering::Relaxed);
    }
}

/// A pad reaches exactly to the end of the ring, and the frame behind it was published with it.
fn check_pad(frame: &Frame, published: u32, to_end: u32) -> Result<(), FrameError> {
    let found = frame.frame_len().saturating_add(LINE_BYTES);
    if found != to_end || found > published {
        return Err(FrameError::Overrun { found, published: published.min(to_end) });
    }
    Ok(())
}

/// The peer's counter, if it can be: at most `span` beyond `least`, in whole units.
#[inline]
fn believable(found: u64, least: u32, span: u32, unit: u32) -> Option<u32> {
    let counter = u32::try_from(found).ok()?;
    let sane = counter.wrapping_sub(least) <= span && counter & (unit - 1) == 0;
    sane.then_some(counter)
}

#[cfg(all(test, not(any(loom, miri))))]
mod hostile_tests;
#[cfg(all(test, not(loom)))]
mod tests;
