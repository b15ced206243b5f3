//! What goes out: small frames in order, large payloads in chunks, round robin.
//!
//! - A small frame goes to the ring at once, or waits here when the ring is full. The queue is bounded by what the port
//!   has open: a request and a cancel per call, a response per held request, a credit per chunk of the bulk ring.
//! - A large payload goes chunk by chunk, as its receiver gives credit; each in its turn, so that one that is huge does
//!   not hold up the others.

use std::collections::VecDeque;

use bytes::Bytes;

use crate::frame::{FrameHeader, FrameKind, padded};
use crate::link::Link;
use crate::ring::{Payload, RingError};
use crate::slab::Slab;

/// A message on its way out: its header, head and body.
#[derive(Debug)]
pub(super) struct Outgoing {
    pub(super) header: FrameHeader,
    pub(super) head: Bytes,
    pub(super) body: Bytes,
}

impl Outgoing {
    /// Bytes `from..from + len` of the payload. `from` is on a word.
    fn window(&self, from: u32, len: u32) -> Payload<'_> {
        let (from, to) = (from as usize, from as usize + len as usize);
        let body_at = self.head.len().next_multiple_of(8);
        let part = |bytes: &'_ Bytes, from: usize, to: usize| (from.min(bytes.len()), to.min(bytes.len()));
        let (head_from, head_to) = part(&self.head, from, to);
        let (body_from, body_to) = part(&self.body, from.saturating_sub(body_at), to.saturating_sub(body_at));
        Payload::Parts(&self.head[head_from..head_to], &self.body[body_from..body_to])
    }
}

/// A payload that goes in chunks.
#[derive(Debug)]
struct Stream {
    message: Outgoing,
    chunk: FrameKind,
    sent: u32,
    seq: u32,
    credit: u32,
}

/// All that waits to go out.
#[derive(Debug)]
pub(super) struct Outbox {
    queue: VecDeque<Outgoing>,
    streams: Slab<Stream>,
    /// Streams with credit, each at most once.
    turns: VecDeque<u32>,
    chunk_bytes: u32,
}

/// A large payload that is now sent.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sent {
    pub(super) kind: FrameKind,
    pub(super) token: u64,
}

impl Outbox {
    pub(super) fn new(chunk_bytes: u32) -> Self {
        Self { queue: VecDeque::new(), streams: Slab::new(), turns: VecDeque::new(), chunk_bytes }
    }

    /// Sends a small frame, now if there is room and nothing is waiting before it.
    #[inline]
    pub(super) fn send(&mut self, link: &mut Link, message: Outgoing) -> Result<(), RingError> {
        let payload = Payload::Parts(&message.head, &message.body);
        if !self.queue.is_empty() || !link.tx.small.push(&message.header, payload)? {
            self.queue.push_back(message);
        }
        Ok(())
    }

    /// Keeps a large payload until its receiver gives credit for it. `chunk` is the kind of its chunks.
    pub(super) fn hold(&mut self, message: Outgoing, chunk: FrameKind) -> u32 {
        self.streams.insert(Stream { message, chunk, sent: 0, seq: 0, credit: 0 })
    }

    /// The receiver takes `chunks` more.
    pub(super) fn credit(&mut self, index: u32, chunks: u32) {
        let stream = self.streams.get_mut(index);
        if stream.credit == 0 {
            self.turns.push_back(index);
        }
        stream.credit = stream.credit.saturating_add(chunks);
    }

    /// Forgets a payload that nobody wants any more.
    pub(super) fn drop_stream(&mut self, index: u32) {
        self.streams.remove(index);
        self.turns.retain(|turn| *turn != index);
    }

    /// Pushes what waits in the queue, as far as there is room.
    #[inline]
    pub(super) fn push_queued(&mut self, link: &mut Link) -> Result<bool, RingError> {
        let mut moved = false;
        while let Some(next) = self.queue.front() {
            if !link.tx.small.push(&next.header, Payload::Parts(&next.head, &next.body))? {
                break;
            }
            self.queue.pop_front();
            moved = true;
        }
        Ok(moved)
    }

    /// Whether a stream has credit to send.
    #[inline]
    pub(super) fn has_turns(&self) -> bool {
        !self.turns.is_empty()
    }

    /// Pushes one chunk of the stream whose turn it is. `None`: no room, or no turn left.
    pub(super) fn push_chunk(&mut self, link: &mut Link) -> Result<Option<Option<Sent>>, RingError> {
        let Some(&index) = self.turns.front() else { return Ok(None) };
        let stream = self.streams.get_mut(index);
        let total = stream.message.header.payload_len;
        let len = self.chunk_bytes.min(total - stream.sent);
        let token = stream.message.header.token;
        let header = FrameHeader { frame_len: len, seq: stream.seq, ..FrameHeader::new(stream.chunk, token) };
        if !link.tx.bulk.push(&header, stream.message.window(stream.sent, len))? {
            return Ok(None);
        }
        stream.sent += len;
        stream.seq += 1;
        stream.credit -= 1;
        let (all_sent, more_credit) = (stream.sent == total, stream.credit > 0);
        self.turns.pop_front();
        if all_sent {
            let stream = self.streams.remove(index);
            return Ok(Some(Some(Sent { kind: stream.message.header.kind, token })));
        }
        if more_credit {
            self.turns.push_back(index);
        }
        Ok(Some(None))
    }

    /// Small frames waiting for room.
    pub(super) fn queued(&self) -> usize {
        self.queue.len()
    }

    /// Whether something waits for room in a ring, and for nothing else.
    pub(super) fn wants_room(&self) -> bool {
        !self.queue.is_empty() || self.has_turns()
    }

    /// Whether nothing waits to go out.
    pub(super) fn is_empty(&self) -> bool {
        self.queue.is_empty() && self.streams.len() == 0
    }
}

/// Length of the payload that head and body make; `None` beyond `max`.
#[inline]
pub(super) fn payload_len(head: &Bytes, body: &Bytes, max: u32) -> Option<u32> {
    let len = padded(head.len() as u64).checked_add(body.len() as u64)?;
    u32::try_from(len).ok().filter(|len| *len <= max)
}
