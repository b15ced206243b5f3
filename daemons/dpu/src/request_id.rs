//! Ids for requests that come without one.
//!
//! 128 bits in the form of a version-4 UUID: a counter, mixed with a seed from the operating system.
//! The mixing is a bijection, so one generator never repeats itself; two generators meet with the
//! probability of two random UUIDs. Ids are for finding a request in logs. They are no secret.

use std::cell::Cell;

use uuid::Uuid;

/// Length of an id as text.
pub(crate) const ID_BYTES: usize = uuid::fmt::Hyphenated::LENGTH;

/// Makes ids for one lane.
#[derive(Debug)]
pub(crate) struct RequestIds {
    seed: (u64, u64),
    made: Cell<u64>,
}

impl RequestIds {
    pub(crate) fn new() -> Self {
        Self { seed: Uuid::new_v4().as_u64_pair(), made: Cell::new(0) }
    }

    /// The next id, written to `text`.
    ///
    /// - cost: a dozen multiplications; no system call, no allocation.
    pub(crate) fn next<'a>(&self, text: &'a mut [u8; ID_BYTES]) -> &'a str {
        let made = self.made.get().wrapping_add(1);
        self.made.set(made);
        let bits = (mixed(self.seed.0.wrapping_add(made)), mixed(self.seed.1 ^ made));
        let bytes = (u128::from(bits.0) << 64 | u128::from(bits.1)).to_be_bytes();
        uuid::Builder::from_random_bytes(bytes).into_uuid().hyphenated().encode_lower(text)
    }
}

/// Spreads each bit of `x` over the whole word, one to one.
///
/// Source: SplitMix64's finaliser (Steele, Lea, Flood 2014).
fn mixed(x: u64) -> u64 {
    let x = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    /// Ids are version-4 UUIDs and do not repeat.
    #[test]
    fn ids_are_unique_uuids() {
        let ids = RequestIds::new();
        let mut seen = HashSet::new();
        for _ in 0..10_000 {
            let mut text = [0; ID_BYTES];
            let id = ids.next(&mut text);
            assert_eq!(Uuid::parse_str(id).expect("a UUID").get_version_num(), 4);
            assert!(seen.insert(id.to_owned()), "{id} came twice");
        }
    }
}
