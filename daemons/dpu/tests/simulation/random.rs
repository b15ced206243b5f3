//! Draws: everything that is not decided by the code is decided here, from one 64-bit seed.

use std::time::Duration;

use bytes::Bytes;

/// A stream of draws. Source: splitmix64 (Steele, Lea, Flood 2014).
#[derive(Debug, Clone)]
pub(crate) struct Random(u64);

const GAMMA: u64 = 0x9e37_79b9_7f4a_7c15;

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(GAMMA);
        finish(self.0)
    }

    /// Less than `count`, which is not 0.
    pub(crate) fn below(&mut self, count: u64) -> u64 {
        let scaled = (u128::from(self.next()) * u128::from(count)) >> 64;
        u64::try_from(scaled).expect("less than count")
    }

    /// An index of something with `len` entries, which is not 0.
    pub(crate) fn index(&mut self, len: usize) -> usize {
        usize::try_from(self.below(len as u64)).expect("less than len")
    }

    /// True once in `every` draws.
    pub(crate) fn once_in(&mut self, every: u64) -> bool {
        self.below(every) == 0
    }

    pub(crate) fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.index(from.len())]
    }

    pub(crate) fn micros(&mut self, from: u64, to: u64) -> Duration {
        Duration::from_micros(from + self.below(to - from + 1))
    }

    pub(crate) fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.index(last + 1));
        }
    }
}

/// One number out of two, such that each bit depends on all of both.
pub(crate) fn mix(a: u64, b: u64) -> u64 {
    finish(a.wrapping_mul(GAMMA) ^ finish(b.wrapping_add(GAMMA)))
}

fn finish(mut word: u64) -> u64 {
    word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ (word >> 31)
}

/// Bytes that differ from place to place and from seed to seed, so that a chunk out of place is seen.
pub(crate) fn pattern(len: usize, seed: u64) -> Bytes {
    let mut bytes = Vec::with_capacity(len + 8);
    let mut word = seed;
    while bytes.len() < len {
        word = word.wrapping_add(GAMMA);
        bytes.extend_from_slice(&(word ^ (word >> 29)).to_le_bytes());
    }
    bytes.truncate(len);
    bytes.into()
}
