//! Names of things that cross a ring, each its own type so that none is taken for another.
//!
//! - [`CallId`] and [`SlotId`] are an index and a generation: the index finds the entry in a dense table, the
//!   generation tells whether the entry is still the one that was meant.
//! - On a ring both travel as one `u64`, [`CallId::raw`] and [`SlotId::raw`]; whoever reads one looks the
//!   generation up before it believes the index.

use std::fmt;

/// An endpoint: one worker lane or sidecar lane attached to the DPA.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EndpointId(pub u16);

/// A service of the node: an index into the list of services that all parts were configured with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServiceId(pub u16);

/// The caller's name for a call that it made. Chosen by the caller's port, unique among its calls in flight.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CallId {
    /// Place in the caller's table of calls; less than its `calls_max`.
    pub index: u32,
    /// How many calls had this place before.
    pub generation: u32,
}

/// The DPA's name for a request in its custody, as the callee sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SlotId {
    /// Place in the DPA's table of custody slots.
    pub index: u32,
    /// How many requests had this place before.
    pub generation: u32,
}

impl CallId {
    /// As a frame's token: the generation in the upper half, the index in the lower.
    #[must_use]
    #[inline]
    pub const fn raw(self) -> u64 {
        join(self.index, self.generation)
    }

    /// From a frame's token; the inverse of [`CallId::raw`].
    #[must_use]
    #[inline]
    pub const fn from_raw(raw: u64) -> Self {
        Self { index: lower(raw), generation: upper(raw) }
    }
}

impl SlotId {
    /// As a frame's token: the generation in the upper half, the index in the lower.
    #[must_use]
    #[inline]
    pub const fn raw(self) -> u64 {
        join(self.index, self.generation)
    }

    /// From a frame's token; the inverse of [`SlotId::raw`].
    #[must_use]
    #[inline]
    pub const fn from_raw(raw: u64) -> Self {
        Self { index: lower(raw), generation: upper(raw) }
    }
}

impl fmt::Display for EndpointId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl fmt::Display for ServiceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

const fn join(index: u32, generation: u32) -> u64 {
    (generation as u64) << 32 | index as u64
}

#[expect(clippy::cast_possible_truncation, reason = "takes the lower half on purpose")]
const fn lower(raw: u64) -> u32 {
    raw as u32
}

const fn upper(raw: u64) -> u32 {
    (raw >> 32) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A token comes back as the name that it was made from, at the edges too.
    #[test]
    fn raw_round_trips() {
        for (index, generation) in [(0, 0), (1, 0), (0, 1), (u32::MAX, 7), (7, u32::MAX)] {
            let call = CallId { index, generation };
            assert_eq!(CallId::from_raw(call.raw()), call);
            let slot = SlotId { index, generation };
            assert_eq!(SlotId::from_raw(slot.raw()), slot);
        }
    }
}
