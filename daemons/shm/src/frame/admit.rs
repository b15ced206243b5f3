//! Which headers are believed: trust boundary rule 3.
//!
//! - [`Frame::admit`] is the only way from words of a ring to a header. It reads a copy, so what was checked is what
//!   is used, whatever the peer does to the original meanwhile.
//! - Every rule has its own [`FrameError`], which is counted by its reason.

use super::{
    FRAME_VERSION, Frame, FrameHeader, FrameKind, HEADER_WORDS, RingName, half, lower, padded, upper,
};
use crate::message::Fault;
use crate::profile::{BULK_CHUNKS_MOST, RingProfile};

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
}

impl FrameLimits {
    /// Limits of one ring of a link.
    #[must_use]
    pub fn new(ring: RingName, generation: u32, profile: &RingProfile, message_bytes_max: u32) -> Self {
        let frame_bytes_max = match ring {
            RingName::Small => profile.inline_bytes_max,
            RingName::Bulk => profile.chunk_payload_bytes(),
        };
        Self { ring, generation, frame_bytes_max, message_bytes_max }
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
    /// No credit, or more than any receiver's ring holds: which of them grants it is not the link's that brings it.
    #[error("credit of {found} chunks: must be 1 to {BULK_CHUNKS_MOST}")]
    Credit {
        /// Chunks granted.
        found: u32,
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

impl Frame {
    /// Copies a header by `word` and checks the copy. After this every length in it is within `limits`, the head fits
    /// the message, and a whole message is all behind its header.
    ///
    /// - `word`: each of the header's words, loaded once; a peer may be changing the original.
    /// - cost: eight loads and as many stores; ten compares of a whole message, about 30 of others. In place, because a header that is built somewhere and
    ///   moved to where it is used is loaded in pieces wider than it was stored, which a processor waits for.
    /// # Errors
    /// The first rule that is broken; what is in the frame then says nothing.
    #[inline(always)]
    pub fn admit(&mut self, word: impl Fn(usize) -> u64, limits: &FrameLimits) -> Result<(), FrameError> {
        for (index, copy) in self.words.iter_mut().enumerate() {
            *copy = word(index);
        }
        if self.is_plain(limits) {
            return Ok(());
        }
        self.admit_other(limits)
    }

    /// Whether it is a whole message that breaks no rule, by comparisons that are made all at once. Sets the kind if so.
    #[inline(always)]
    pub(super) fn is_plain(&mut self, limits: &FrameLimits) -> bool {
        let [first, _, _, lengths, head, seq, credit, last] = self.words;
        let [version, kind, fault, ..] = first.to_le_bytes();
        let response = kind == FrameKind::Response as u8;
        let head_len = u64::from(half(head, 0)) + u64::from(half(head, 1)) + u64::from(upper(head));
        let plain = (version == FRAME_VERSION)
            & (response | (kind == FrameKind::Request as u8))
            & (limits.ring == RingName::Small)
            & (usize::from(fault) < Fault::ALL.len())
            & (upper(seq) == limits.generation)
            & (credit >> 32 | last == 0)
            & (upper(lengths) <= limits.frame_bytes_max)
            & (upper(lengths) == lower(lengths))
            & (padded(head_len) <= u64::from(lower(lengths)))
            & (!response | (100..=999).contains(&half(first, 2)));
        if plain {
            self.kind = if response { FrameKind::Response } else { FrameKind::Request };
        }
        plain
    }

    /// Rule by rule: the first that is broken is named.
    #[inline(never)]
    pub(super) fn admit_other(&mut self, limits: &FrameLimits) -> Result<(), FrameError> {
        let header = self.decode()?;
        if header.generation != limits.generation {
            return Err(FrameError::Generation { found: header.generation, expected: limits.generation });
        }
        if header.kind.is_chunk() != (limits.ring == RingName::Bulk) {
            return Err(FrameError::Ring { kind: header.kind, ring: limits.ring });
        }
        header.check_lengths(limits)
    }

    /// A header that lies in words of our own.
    /// # Errors
    /// As [`Frame::admit`].
    pub fn of(words: &[u64; HEADER_WORDS], limits: &FrameLimits) -> Result<Self, FrameError> {
        let mut frame = Self::EMPTY;
        frame.admit(|index| words[index], limits)?;
        Ok(frame)
    }

    #[inline(always)]
    fn decode(&mut self) -> Result<FrameHeader, FrameError> {
        let [version, kind, ..] = self.words[0].to_le_bytes();
        if version != FRAME_VERSION {
            return Err(FrameError::Version { found: version });
        }
        let [.., credit, last] = self.words;
        if credit >> 32 != 0 || last != 0 {
            return Err(FrameError::Reserved { word: if last == 0 { 6 } else { 7 } });
        }
        self.kind = FrameKind::from_number(kind).ok_or(FrameError::Kind { found: kind })?;
        let fault = self.fault_number();
        Ok(self.taken_apart(Fault::from_number(fault).ok_or(FrameError::Fault { found: fault })?))
    }
}

impl FrameHeader {
    #[inline(always)]
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
                self.check_credit()
            }
            FrameKind::Cancel | FrameKind::FlowInstall | FrameKind::FlowRemove => self.check_frame(0, 0),
            // Its length is checked by the ring, which knows where it is.
            FrameKind::Pad => Ok(()),
        }
    }

    #[inline(always)]
    fn check_frame(&self, least: u32, most: u32) -> Result<(), FrameError> {
        if (least..=most).contains(&self.frame_len) {
            return Ok(());
        }
        Err(FrameError::FrameLength { kind: self.kind, found: self.frame_len, least, most })
    }

    #[inline(always)]
    fn check_payload(&self, least: u32, most: u32) -> Result<(), FrameError> {
        if (least..=most).contains(&self.payload_len) {
            return Ok(());
        }
        Err(FrameError::PayloadLength { kind: self.kind, found: self.payload_len, least, most })
    }

    #[inline(always)]
    fn check_credit(&self) -> Result<(), FrameError> {
        if (1..=BULK_CHUNKS_MOST).contains(&self.credit) {
            return Ok(());
        }
        Err(FrameError::Credit { found: self.credit })
    }

    #[inline(always)]
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
