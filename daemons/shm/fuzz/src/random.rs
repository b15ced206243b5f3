//! Numbers that look random and come again with the same seed.

/// Source: Marsaglia, "Xorshift RNGs" (2003).
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    pub(crate) fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % bound as u64).expect("less than a length")
    }

    /// Values around which things go wrong, and any other.
    pub(crate) fn edge(&mut self) -> u64 {
        let power = 1u64 << self.below(64);
        match self.below(4) {
            0 => power,
            1 => power - 1,
            2 => self.next() % 1024,
            _ => self.next(),
        }
    }
}
