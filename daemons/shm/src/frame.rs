//! A frame's header: one cache line in front of each payload.
//!
//! ```text
//! word 0   version u8 | kind u8 | fault u8 | hops u8 | status u16 | service u16
//! word 1   token: the caller's CallId on the caller's link, the DPA's SlotId on the callee's
//! word 2   deadline, nanoseconds of the node's clock
//! word 3   payload_len u32 | frame_len u32
//! word 4   method_len u16 | target_len u16 | headers_len u32
//! word 5   seq u32 | generation u32
//! word 6   credit u32 | zero u32
//! word 7   zero
//! ```
//!
//! - Fields are little-endian, the first in the lowest bits.
//! - The payload of a message is its head, padded with zeros to a word, and its body; `payload_len` is both with the
//!   padding. `frame_len` is what lies behind *this* header: all of it, a chunk of it, or nothing.
//! - A header is copied out of the ring once and goes through [`Frame::admit`], which is where every length in it
//!   becomes believable. Nothing reads it from the ring again.
//! - Whoever passes a frame on keeps the words as they were ([`Frame`], [`Relabel`]): a header that is taken apart, moved
//!   and put together again costs more than the rest of a hop.
//! - What a kind does not use is zero when we write it and not looked at when we read it; reserved bits must be zero.
//! - Not here: whether the token names anything, and whether its sender may say this (the DPA, the port).

use crate::clock::Nanos;
use crate::ids::ServiceId;
use crate::message::Fault;
use crate::profile::LINE_BYTES;

mod admit;

pub use admit::{FrameError, FrameLimits};

/// First byte of every frame: a mark, and the version of this layout in the lower half.
pub const FRAME_VERSION: u8 = 0xc1;

/// What a frame says. Zero is none of them: untouched memory is no frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum FrameKind {
    /// A request, whole.
    Request = 1,
    /// A response, whole; the one outcome of a call.
    Response = 2,
    /// A request whose payload follows on the bulk ring, once there is credit.
    RequestAnnounce = 3,
    /// A response whose payload follows on the bulk ring, once there is credit.
    ResponseAnnounce = 4,
    /// From the callee: takes `credit` more chunks of the request that was announced.
    RequestCredit = 5,
    /// From the caller: takes `credit` more chunks of the response that was announced.
    ResponseCredit = 6,
    /// Chunk number `seq` of an announced request. Bulk ring only.
    RequestChunk = 7,
    /// Chunk number `seq` of an announced response. Bulk ring only.
    ResponseChunk = 8,
    /// From a caller: gives the call up. From the DPA: nobody waits for this request any more.
    Cancel = 9,
    /// Sidecar only: calls to `service` may go worker to worker.
    FlowInstall = 10,
    /// Sidecar only: calls to `service` go through the sidecar again.
    FlowRemove = 11,
    /// Fills a ring up to its end; the ring's own.
    Pad = 12,
}

impl FrameKind {
    /// All kinds, in the order of their numbers, which start at 1.
    pub const ALL: [Self; 12] = [
        Self::Request,
        Self::Response,
        Self::RequestAnnounce,
        Self::ResponseAnnounce,
        Self::RequestCredit,
        Self::ResponseCredit,
        Self::RequestChunk,
        Self::ResponseChunk,
        Self::Cancel,
        Self::FlowInstall,
        Self::FlowRemove,
        Self::Pad,
    ];

    #[inline(always)]
    fn from_number(number: u8) -> Option<Self> {
        Self::ALL.get(usize::from(number.wrapping_sub(1))).copied()
    }

    /// Whether it travels on the bulk ring.
    #[must_use]
    #[inline]
    pub const fn is_chunk(self) -> bool {
        matches!(self, Self::RequestChunk | Self::ResponseChunk)
    }
}

/// Which of the two rings of a direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RingName {
    /// Frames of one cache line and small messages.
    Small,
    /// Chunks of large messages.
    Bulk,
}

impl std::fmt::Display for RingName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Small => "small",
            Self::Bulk => "bulk",
        })
    }
}

/// A header taken apart: what somebody is about to say, or was told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameHeader {
    /// What the frame says.
    pub kind: FrameKind,
    /// Of a response.
    pub fault: Fault,
    /// Of a request: calls between workers that led to it.
    pub hops: u8,
    /// Of a response: 100 to 999.
    pub status: u16,
    /// Of a request and of a flow entry.
    pub service: ServiceId,
    /// The call or custody slot that the frame is about.
    pub token: u64,
    /// Of a request.
    pub deadline: Nanos,
    /// Bytes of the whole message: padded head, and body.
    pub payload_len: u32,
    /// Bytes behind this header.
    pub frame_len: u32,
    /// Of a request.
    pub method_len: u16,
    /// Of a request.
    pub target_len: u16,
    /// Bytes of the header lines.
    pub headers_len: u32,
    /// Of a chunk: how many came before it.
    pub seq: u32,
    /// Generation of the link; a frame of another generation is from an earlier life of its endpoint.
    pub generation: u32,
    /// Of a credit: chunks.
    pub credit: u32,
}

/// A header that was admitted, as it lay in the ring.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frame {
    kind: FrameKind,
    words: [u64; HEADER_WORDS],
}

/// What a mover changes in a frame that it passes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Relabel {
    /// What the frame is about, in the receiver's words.
    pub token: u64,
    /// Of a request.
    pub hops: u8,
    /// Of a request.
    pub deadline: Nanos,
}

impl Frame {
    /// No frame yet: room for one to be copied to.
    pub const EMPTY: Self = Self { kind: FrameKind::Pad, words: [0; HEADER_WORDS] };

    /// What the frame says.
    #[must_use]
    #[inline(always)]
    pub const fn kind(&self) -> FrameKind {
        self.kind
    }

    /// The call or custody slot that the frame is about.
    #[must_use]
    #[inline(always)]
    pub const fn token(&self) -> u64 {
        self.words[1]
    }

    /// Of a request and of a flow entry.
    #[must_use]
    #[inline(always)]
    pub const fn service(&self) -> ServiceId {
        ServiceId(half(self.words[0], 3))
    }

    /// Of a response: 100 to 999.
    #[must_use]
    #[inline(always)]
    pub const fn status(&self) -> u16 {
        half(self.words[0], 2)
    }

    /// Of a response: whether its callee has failed, by its own words: a fault, or a status of 500 and above.
    #[must_use]
    #[inline(always)]
    pub const fn is_failure(&self) -> bool {
        self.fault_number() != Fault::None as u8 || self.status() >= 500
    }

    /// Of a request.
    #[must_use]
    #[inline(always)]
    pub const fn hops(&self) -> u8 {
        self.words[0].to_le_bytes()[3]
    }

    /// Of a request.
    #[must_use]
    #[inline(always)]
    pub const fn deadline(&self) -> Nanos {
        Nanos(self.words[2])
    }

    /// Bytes of the whole message: padded head, and body.
    #[must_use]
    #[inline(always)]
    pub const fn payload_len(&self) -> u32 {
        lower(self.words[3])
    }

    /// Bytes behind this header.
    #[must_use]
    #[inline(always)]
    pub const fn frame_len(&self) -> u32 {
        upper(self.words[3])
    }

    /// Of a chunk: how many came before it.
    #[must_use]
    #[inline(always)]
    pub const fn seq(&self) -> u32 {
        lower(self.words[5])
    }

    /// Of a credit: chunks.
    #[must_use]
    #[inline(always)]
    pub const fn credit(&self) -> u32 {
        lower(self.words[6])
    }

    /// The whole header, taken apart.
    #[must_use]
    #[inline(always)]
    pub fn header(&self) -> FrameHeader {
        self.taken_apart(Fault::from_number(self.fault_number()).expect("it was admitted"))
    }

    #[inline(always)]
    const fn fault_number(&self) -> u8 {
        self.words[0].to_le_bytes()[2]
    }

    #[inline(always)]
    const fn taken_apart(&self, fault: Fault) -> FrameHeader {
        FrameHeader {
            kind: self.kind,
            fault,
            hops: self.hops(),
            status: self.status(),
            service: self.service(),
            token: self.token(),
            deadline: self.deadline(),
            payload_len: self.payload_len(),
            frame_len: self.frame_len(),
            method_len: half(self.words[4], 0),
            target_len: half(self.words[4], 1),
            headers_len: upper(self.words[4]),
            seq: self.seq(),
            generation: upper(self.words[5]),
            credit: self.credit(),
        }
    }

    /// The frame for a receiver that calls what it is about `token`, unchanged otherwise.
    #[must_use]
    #[inline(always)]
    pub const fn relabel(&self, token: u64) -> Relabel {
        Relabel { token, hops: self.hops(), deadline: self.deadline() }
    }

    /// The header for that receiver, taken apart.
    #[must_use]
    pub fn relabelled(&self, label: Relabel) -> FrameHeader {
        FrameHeader { token: label.token, hops: label.hops, deadline: label.deadline, ..self.header() }
    }

    /// Its words for that receiver, on a link of this generation.
    #[inline(always)]
    pub(crate) const fn relabelled_words(&self, label: Relabel, generation: u32) -> [u64; HEADER_WORDS] {
        let [first, _, _, lengths, head, seq, credit, _] = self.words;
        [
            first & !(0xff << 24) | (label.hops as u64) << 24,
            label.token,
            label.deadline.0,
            lengths,
            head,
            lower(seq) as u64 | (generation as u64) << 32,
            credit,
            0,
        ]
    }
}

/// Words of a header.
pub const HEADER_WORDS: usize = LINE_BYTES as usize / 8;

/// Bytes of the head with its padding: bodies start on a word.
#[inline]
#[must_use]
pub const fn padded(head_len: u64) -> u64 {
    (head_len + 7) & !7
}

impl FrameHeader {
    /// A header of this kind about this call or slot, everything else zero.
    #[must_use]
    #[inline]
    pub const fn new(kind: FrameKind, token: u64) -> Self {
        Self {
            kind,
            fault: Fault::None,
            hops: 0,
            status: 0,
            service: ServiceId(0),
            token,
            deadline: Nanos(0),
            payload_len: 0,
            frame_len: 0,
            method_len: 0,
            target_len: 0,
            headers_len: 0,
            seq: 0,
            generation: 0,
            credit: 0,
        }
    }

    /// The mesh's own answer to a call.
    #[must_use]
    pub const fn faulted(token: u64, fault: Fault) -> Self {
        Self { fault, status: fault.status(), ..Self::new(FrameKind::Response, token) }
    }

    /// Bytes of the head without its padding.
    #[must_use]
    #[inline]
    pub const fn head_len(&self) -> u64 {
        self.method_len as u64 + self.target_len as u64 + self.headers_len as u64
    }

    /// Bytes of the body; 0 if the head does not fit the payload, which `admit` never lets pass.
    #[must_use]
    #[inline]
    pub const fn body_len(&self) -> u64 {
        (self.payload_len as u64).saturating_sub(padded(self.head_len()))
    }

    /// As it lies in the ring.
    #[must_use]
    #[inline(always)]
    pub const fn encode(&self) -> [u64; HEADER_WORDS] {
        [
            FRAME_VERSION as u64
                | (self.kind as u64) << 8
                | (self.fault as u64) << 16
                | (self.hops as u64) << 24
                | (self.status as u64) << 32
                | (self.service.0 as u64) << 48,
            self.token,
            self.deadline.0,
            self.payload_len as u64 | (self.frame_len as u64) << 32,
            self.method_len as u64 | (self.target_len as u64) << 16 | (self.headers_len as u64) << 32,
            self.seq as u64 | (self.generation as u64) << 32,
            self.credit as u64,
            0,
        ]
    }
}

#[expect(clippy::cast_possible_truncation, reason = "takes one of four 16-bit fields on purpose")]
#[inline(always)]
const fn half(word: u64, index: u32) -> u16 {
    (word >> (16 * index)) as u16
}

#[expect(clippy::cast_possible_truncation, reason = "takes the lower half on purpose")]
#[inline(always)]
const fn lower(word: u64) -> u32 {
    word as u32
}

#[inline(always)]
const fn upper(word: u64) -> u32 {
    (word >> 32) as u32
}

#[cfg(all(test, not(loom)))]
mod tests;
