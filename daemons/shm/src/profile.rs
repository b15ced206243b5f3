//! What the rings of one endpoint look like: sizes that config may change without a rebuild.
//!
//! - Every size is checked by [`RingProfile::validate`] before a segment is made from it, on both sides: the
//!   profile travels with the segments, and a wrong one must not become a wrong index.
//! - Not here: how a config file spells it (each daemon's own section).

use serde::{Deserialize, Serialize};

/// Shape of an endpoint's rings, the same in both directions. Sizes in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RingProfile {
    /// Capacity of the ring for small frames. A power of two from [`SMALL_BYTES_LEAST`] to [`SMALL_BYTES_MOST`].
    pub small_bytes: u32,
    /// Room of one chunk on the bulk ring, its 64-byte header included. A power of two from
    /// [`CHUNK_BYTES_LEAST`] to [`CHUNK_BYTES_MOST`].
    pub chunk_bytes: u32,
    /// Chunks that the bulk ring holds. A power of two from 2 to [`BULK_CHUNKS_MOST`].
    pub bulk_chunks: u32,
    /// Longest head and body that travel behind their own header on the small ring; longer ones go in chunks.
    /// A multiple of 64 that leaves room for two such frames in the small ring.
    pub inline_bytes_max: u32,
}

/// Two of the shortest frames with a payload.
pub const SMALL_BYTES_LEAST: u32 = 256;
/// Far beyond the near caches; a larger ring only hides a slow peer.
pub const SMALL_BYTES_MOST: u32 = 16 << 20;
/// A header and one line of payload, rounded up to a power of two.
pub const CHUNK_BYTES_LEAST: u32 = 128;
/// A chunk is copied in one piece, in one turn of the DPA.
pub const CHUNK_BYTES_MOST: u32 = 1 << 20;
/// With the largest chunks this is 1 GiB, half of what a counter can tell apart.
pub const BULK_CHUNKS_MOST: u32 = 1024;

impl Default for RingProfile {
    /// Between processes: 16 KiB of small frames stay in the nearest cache; 16 chunks of 16 KiB keep a large message flowing while
    /// its receiver sleeps or copies. A longer frame would be more that a DPA has to keep for a process that takes nothing.
    fn default() -> Self {
        Self { small_bytes: 16 << 10, chunk_bytes: 16 << 10, bulk_chunks: 16, inline_bytes_max: 4096 }
    }
}

/// A profile that no ring can be made of: the field, what was found, what would be right.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field} = {found}: must be {right}")]
pub struct ProfileError {
    /// The field of [`RingProfile`].
    pub field: &'static str,
    /// Its value.
    pub found: u32,
    /// What would be right.
    pub right: String,
}

impl RingProfile {
    /// Within a lane, where what is sent is taken a turn later: messages of 8 KiB go in one frame with their heads, and what four chunks
    /// lie in stays in the near caches. Source: `docs/decisions/0012-rings-as-large-as-their-work.md`.
    #[must_use]
    pub fn within_lane() -> Self {
        Self { small_bytes: 32 << 10, bulk_chunks: 4, inline_bytes_max: 12 << 10, ..Self::default() }
    }

    /// Checks each field, and what the fields promise each other.
    /// # Errors
    /// The first field that is wrong.
    pub fn validate(&self) -> Result<(), ProfileError> {
        power_of_two("small_bytes", self.small_bytes, SMALL_BYTES_LEAST, SMALL_BYTES_MOST)?;
        power_of_two("chunk_bytes", self.chunk_bytes, CHUNK_BYTES_LEAST, CHUNK_BYTES_MOST)?;
        power_of_two("bulk_chunks", self.bulk_chunks, 2, BULK_CHUNKS_MOST)?;
        self.validate_inline()
    }

    /// A frame is contiguous, so at a wrap the rest of the ring is padded: a ring can be certain to take a frame
    /// only when two of them would fit.
    fn validate_inline(&self) -> Result<(), ProfileError> {
        let most = self.small_bytes / 2 - LINE_BYTES;
        if self.inline_bytes_max.is_multiple_of(LINE_BYTES) && self.inline_bytes_max <= most {
            return Ok(());
        }
        let right = format!("a multiple of 64 up to {most} (half of small_bytes, less a header)");
        Err(ProfileError { field: "inline_bytes_max", found: self.inline_bytes_max, right })
    }

    /// Capacity of the bulk ring. At most 1 GiB.
    #[must_use]
    #[inline]
    pub const fn bulk_bytes(&self) -> u32 {
        self.bulk_chunks * self.chunk_bytes
    }

    /// Bytes of a message that one chunk carries.
    #[must_use]
    #[inline]
    pub const fn chunk_payload_bytes(&self) -> u32 {
        self.chunk_bytes - LINE_BYTES
    }
}

/// A cache line, and the size of a frame's header.
pub const LINE_BYTES: u32 = 64;

fn power_of_two(field: &'static str, found: u32, least: u32, most: u32) -> Result<(), ProfileError> {
    if found.is_power_of_two() && (least..=most).contains(&found) {
        return Ok(());
    }
    Err(ProfileError { field, found, right: format!("a power of two from {least} to {most}") })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The defaults can be used.
    #[test]
    fn default_is_valid() {
        for profile in [RingProfile::default(), RingProfile::within_lane()] {
            assert_eq!(profile.validate(), Ok(()));
        }
        assert_eq!(RingProfile::default().bulk_bytes(), 256 << 10);
        assert_eq!(RingProfile::within_lane().bulk_bytes(), 64 << 10);
    }

    /// Each wrong field is named with what was found and what would be right.
    #[test]
    fn wrong_fields_are_named() {
        let check = |change: fn(&mut RingProfile), expected: &str| {
            let mut profile = RingProfile::default();
            change(&mut profile);
            assert_eq!(profile.validate().unwrap_err().to_string(), expected);
        };
        check(|p| p.small_bytes = 1000, "small_bytes = 1000: must be a power of two from 256 to 16777216");
        check(|p| p.chunk_bytes = 64, "chunk_bytes = 64: must be a power of two from 128 to 1048576");
        check(|p| p.bulk_chunks = 0, "bulk_chunks = 0: must be a power of two from 2 to 1024");
        check(
            |p| p.inline_bytes_max = 8192,
            "inline_bytes_max = 8192: must be a multiple of 64 up to 8128 (half of small_bytes, less a header)",
        );
    }
}
