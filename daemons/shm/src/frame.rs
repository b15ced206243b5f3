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
//! - A header is copied out of the ring once and goes through [`FrameHeader::admit`], which is where every length in it
//!   becomes believable. Nothing reads it from the ring again.
//! - What a kind does not use is zero when we write it and not looked at when we read it; reserved bits must be zero.
//! - Not here: whether the token names anything, and whether its sender may say this (the DPA, the port).

use crate::clock::Nanos;
use crate::ids::ServiceId;
use crate::message::Fault;
use crate::profile::{LINE_BYTES, RingProfile};

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

    #[inline]
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

/// A header that is about to be written, or that was admitted.
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

/// What a header on one ring may claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameLimits {
    /// The ring.
    pub ring: RingName,
    /// Generation of the link.
    pub generation: u32,
    /// Most bytes behind a header.
    pub frame_bytes_max: u32,
    /// Most bytes of a message, head and body.
    pub message_bytes_max: u32,
    /// Most chunks that can be granted at once.
    pub credit_max: u32,
}

impl FrameLimits {
    /// Limits of one ring of a link.
    #[must_use]
    pub fn new(ring: RingName, generation: u32, profile: &RingProfile, message_bytes_max: u32) -> Self {
        let frame_bytes_max = match ring {
            RingName::Small => profile.inline_bytes_max,
            RingName::Bulk => profile.chunk_payload_bytes(),
        };
        Self { ring, generation, frame_bytes_max, message_bytes_max, credit_max: profile.bulk_chunks }
    }
}

/// Why a header is not believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// Another layout, or no frame at all.
    #[error("frame version {found:#x}: must be {FRAME_VERSION:#x}")]
    Version {
        /// First byte.
        found: u8,
    },
    /// No kind has this number.
    #[error("frame kind {found}: must be 1 to 12")]
    Kind {
        /// Second byte.
        found: u8,
    },
    /// Chunks travel on the bulk ring and nothing else does.
    #[error("frame kind {kind:?} on the {ring} ring")]
    Ring {
        /// Kind found.
        kind: FrameKind,
        /// Ring that it was found on.
        ring: RingName,
    },
    /// Bits that must be zero are not.
    #[error("frame word {word}: reserved bits must be zero")]
    Reserved {
        /// Word of the header.
        word: u8,
    },
    /// A frame of another life of the endpoint.
    #[error("frame of generation {found}: must be {expected}")]
    Generation {
        /// Generation found.
        found: u32,
        /// Generation of the link.
        expected: u32,
    },
    /// More behind the header than allowed, or not what the kind carries.
    #[error("{kind:?} with {found} bytes behind its header: must be {least} to {most}")]
    FrameLength {
        /// Kind found.
        kind: FrameKind,
        /// Length found.
        found: u32,
        /// Least allowed.
        least: u32,
        /// Most allowed.
        most: u32,
    },
    /// A message longer than allowed, or not what lies behind the header.
    #[error("{kind:?} of {found} bytes: must be {least} to {most}")]
    PayloadLength {
        /// Kind found.
        kind: FrameKind,
        /// Length found.
        found: u32,
        /// Least allowed.
        least: u32,
        /// Most allowed.
        most: u32,
    },
    /// The parts of the head do not fit in the message.
    #[error("head of {found} bytes in a message of {payload_len}")]
    HeadLength {
        /// Length of the padded head.
        found: u64,
        /// Length of the message.
        payload_len: u32,
    },
    /// No fault has this number.
    #[error("fault {found}: must be 0 to 9")]
    Fault {
        /// Third byte.
        found: u8,
    },
    /// No HTTP status.
    #[error("status {found}: must be 100 to 999")]
    Status {
        /// Status found.
        found: u16,
    },
    /// No credit, or more than the receiver's ring holds.
    #[error("credit of {found} chunks: must be 1 to {most}")]
    Credit {
        /// Chunks granted.
        found: u32,
        /// Most allowed.
        most: u32,
    },
    /// The frame reaches beyond what its producer has published, or around the end of the ring.
    #[error("frame of {found} bytes where {published} are published")]
    Overrun {
        /// Room that the frame would take.
        found: u32,
        /// Bytes published and not wrapping.
        published: u32,
    },
}

impl FrameError {
    /// Short names of the reasons, in the order of [`FrameError::reason`]: labels of a counter.
    pub const REASONS: [&str; 12] = [
        "version",
        "kind",
        "ring",
        "reserved",
        "generation",
        "frame-length",
        "payload-length",
        "head-length",
        "fault",
        "status",
        "credit",
        "overrun",
    ];

    /// Which of [`FrameError::REASONS`] this is.
    #[must_use]
    pub const fn reason(&self) -> usize {
        match self {
            Self::Version { .. } => 0,
            Self::Kind { .. } => 1,
            Self::Ring { .. } => 2,
            Self::Reserved { .. } => 3,
            Self::Generation { .. } => 4,
            Self::FrameLength { .. } => 5,
            Self::PayloadLength { .. } => 6,
            Self::HeadLength { .. } => 7,
            Self::Fault { .. } => 8,
            Self::Status { .. } => 9,
            Self::Credit { .. } => 10,
            Self::Overrun { .. } => 11,
        }
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
    #[inline]
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

    /// Checks a copy of a header and takes it apart. After this every length in it is within `limits`, the head fits
    /// the message, and a whole message is all behind its header.
    ///
    /// - `words`: a copy, on the stack; a peer may be changing the original.
    /// - cost: no loads but from `words`; about 30 compares.
    /// # Errors
    /// The first rule that is broken.
    #[inline]
    pub fn admit(words: &[u64; HEADER_WORDS], limits: &FrameLimits) -> Result<Self, FrameError> {
        let header = Self::decode(words)?;
        if header.generation != limits.generation {
            return Err(FrameError::Generation { found: header.generation, expected: limits.generation });
        }
        if header.kind.is_chunk() != (limits.ring == RingName::Bulk) {
            return Err(FrameError::Ring { kind: header.kind, ring: limits.ring });
        }
        header.check_lengths(limits)?;
        Ok(header)
    }

    #[inline]
    fn decode(words: &[u64; HEADER_WORDS]) -> Result<Self, FrameError> {
        let [version, kind, fault, hops, ..] = words[0].to_le_bytes();
        if version != FRAME_VERSION {
            return Err(FrameError::Version { found: version });
        }
        if words[6] >> 32 != 0 || words[7] != 0 {
            return Err(FrameError::Reserved { word: if words[7] == 0 { 6 } else { 7 } });
        }
        Ok(Self {
            kind: FrameKind::from_number(kind).ok_or(FrameError::Kind { found: kind })?,
            fault: Fault::from_number(fault).ok_or(FrameError::Fault { found: fault })?,
            hops,
            status: half(words[0], 2),
            service: ServiceId(half(words[0], 3)),
            token: words[1],
            deadline: Nanos(words[2]),
            payload_len: lower(words[3]),
            frame_len: upper(words[3]),
            method_len: half(words[4], 0),
            target_len: half(words[4], 1),
            headers_len: upper(words[4]),
            seq: lower(words[5]),
            generation: upper(words[5]),
            credit: lower(words[6]),
        })
    }

    #[inline]
    fn check_lengths(&self, limits: &FrameLimits) -> Result<(), FrameError> {
        match self.kind {
            FrameKind::Request | FrameKind::Response => {
                self.check_frame(0, limits.frame_bytes_max)?;
                self.check_payload(self.frame_len, self.frame_len)?;
                self.check_message()
            }
            FrameKind::RequestAnnounce | FrameKind::ResponseAnnounce => {
                self.check_frame(0, 0)?;
                self.check_payload(1, limits.message_bytes_max)?;
                self.check_message()
            }
            FrameKind::RequestChunk | FrameKind::ResponseChunk => self.check_frame(1, limits.frame_bytes_max),
            FrameKind::RequestCredit | FrameKind::ResponseCredit => {
                self.check_frame(0, 0)?;
                self.check_credit(limits.credit_max)
            }
            FrameKind::Cancel | FrameKind::FlowInstall | FrameKind::FlowRemove => self.check_frame(0, 0),
            // Its length is checked by the ring, which knows where it is.
            FrameKind::Pad => Ok(()),
        }
    }

    #[inline]
    fn check_frame(&self, least: u32, most: u32) -> Result<(), FrameError> {
        if (least..=most).contains(&self.frame_len) {
            return Ok(());
        }
        Err(FrameError::FrameLength { kind: self.kind, found: self.frame_len, least, most })
    }

    #[inline]
    fn check_payload(&self, least: u32, most: u32) -> Result<(), FrameError> {
        if (least..=most).contains(&self.payload_len) {
            return Ok(());
        }
        Err(FrameError::PayloadLength { kind: self.kind, found: self.payload_len, least, most })
    }

    #[inline]
    fn check_credit(&self, most: u32) -> Result<(), FrameError> {
        if (1..=most).contains(&self.credit) {
            return Ok(());
        }
        Err(FrameError::Credit { found: self.credit, most })
    }

    #[inline]
    fn check_message(&self) -> Result<(), FrameError> {
        let head = padded(self.head_len());
        if head > u64::from(self.payload_len) {
            return Err(FrameError::HeadLength { found: head, payload_len: self.payload_len });
        }
        let response = matches!(self.kind, FrameKind::Response | FrameKind::ResponseAnnounce);
        if response && !(100..=999).contains(&self.status) {
            return Err(FrameError::Status { found: self.status });
        }
        Ok(())
    }
}

#[expect(clippy::cast_possible_truncation, reason = "takes one of four 16-bit fields on purpose")]
#[inline]
const fn half(word: u64, index: u32) -> u16 {
    (word >> (16 * index)) as u16
}

#[expect(clippy::cast_possible_truncation, reason = "takes the lower half on purpose")]
#[inline]
const fn lower(word: u64) -> u32 {
    word as u32
}

#[inline]
const fn upper(word: u64) -> u32 {
    (word >> 32) as u32
}

#[cfg(all(test, not(loom)))]
mod tests;
