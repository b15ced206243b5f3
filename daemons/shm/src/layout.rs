//! Where things are in a segment.
//!
//! ```text
//! line 0   small tail   of the small ring in this segment: where its producer, who writes here, is
//! line 1   bulk tail    the same of the bulk ring
//! line 2   small head   of the small ring in the *other* segment: how far the writer of this one has read there
//! line 3   bulk head    the same of the bulk ring
//! line 4   sleep        whether the writer of this segment sleeps, see [`crate::doorbell`]
//! line 5-7 zero
//! line 8.. small ring, then bulk ring
//! ```
//!
//! - Both segments of a link have this layout: a side writes one and reads the other, and never both.
//! - Each counter has a cache line of its own, so that neither side's stores slow the other's loads down.
//! - All positions follow from the [`RingProfile`]; none is read from shared memory.

use crate::profile::{LINE_BYTES, RingProfile};
use crate::segment::WORD_BYTES;
use crate::sync::AtomicU64;

/// Words of a cache line.
pub(crate) const LINE_WORDS: usize = LINE_BYTES as usize / WORD_BYTES;

/// Word of the sleep flag.
pub(crate) const SLEEP_WORD: usize = 4 * LINE_WORDS;

/// Lines before the first ring.
const FRONT_LINES: usize = 8;

/// Where one ring is: its counters in the segments of either side, and its bytes in its producer's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RingPlace {
    /// Word of the tail, in the producer's segment.
    pub(crate) tail_word: usize,
    /// Word of the head, in the consumer's segment.
    pub(crate) head_word: usize,
    /// First word of the frames, in the producer's segment.
    pub(crate) first_word: usize,
    /// Bytes for frames; a power of two.
    pub(crate) capacity: u32,
    /// Each frame takes a multiple of this; a power of two from a line to the capacity.
    pub(crate) unit: u32,
}

impl RingPlace {
    /// The small ring: frames take as many lines as they need.
    #[must_use]
    pub fn small(profile: &RingProfile) -> Self {
        Self {
            tail_word: 0,
            head_word: 2 * LINE_WORDS,
            first_word: FRONT_LINES * LINE_WORDS,
            capacity: profile.small_bytes,
            unit: LINE_BYTES,
        }
    }

    /// The bulk ring, behind the small one: each frame takes the room of one chunk, so that a chunk never wraps and
    /// as many fit as the profile says.
    #[must_use]
    pub fn bulk(profile: &RingProfile) -> Self {
        Self {
            tail_word: LINE_WORDS,
            head_word: 3 * LINE_WORDS,
            first_word: FRONT_LINES * LINE_WORDS + profile.small_bytes as usize / WORD_BYTES,
            capacity: profile.bulk_bytes(),
            unit: profile.chunk_bytes,
        }
    }

    /// Word of the byte that a counter stands for.
    #[inline]
    pub(crate) fn word_of(&self, counter: u32) -> usize {
        self.first_word + (counter & (self.capacity - 1)) as usize / WORD_BYTES
    }

    /// Of the producer's words those of a frame that takes `room`: its header, and what is behind. The caller keeps them from wrapping.
    #[inline(always)]
    pub(crate) fn frame_at<'a>(
        &self,
        words: &'a [AtomicU64],
        counter: u32,
        room: u32,
    ) -> (&'a [AtomicU64; LINE_WORDS], &'a [AtomicU64]) {
        let start = self.word_of(counter);
        let frame = &words[start..start + room as usize / WORD_BYTES];
        frame.split_first_chunk().expect("a frame has a header")
    }

    /// Bytes from the counter's place to the end of the ring.
    #[inline]
    pub(crate) fn left_to_end(&self, counter: u32) -> u32 {
        self.capacity - (counter & (self.capacity - 1))
    }

    /// Room that a frame with `payload` bytes behind its header takes. `payload` is at most half of 2^32.
    #[inline]
    pub(crate) fn footprint(&self, payload: u32) -> u32 {
        (LINE_BYTES + payload + (self.unit - 1)) & !(self.unit - 1)
    }
}

/// Bytes of each of the two segments.
#[must_use]
pub fn segment_bytes(profile: &RingProfile) -> usize {
    FRONT_LINES * LINE_BYTES as usize + profile.small_bytes as usize + profile.bulk_bytes() as usize
}
