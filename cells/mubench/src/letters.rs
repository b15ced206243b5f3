//! Random ASCII letters, fast: a body has a hundred thousand of them.

/// Words that are drawn at the same time: none has to wait for the one before.
const LANES: usize = 4;

/// Letters per draw: one for each byte of the random words.
const PER_DRAW: usize = LANES * size_of::<u64>();

/// `len` random letters, in a list with room for at least `spare` more bytes.
pub(crate) fn random(len: usize, spare: usize) -> Vec<u8> {
    let drawn = len.next_multiple_of(PER_DRAW);
    let mut letters = Vec::with_capacity(drawn + spare);
    letters.resize(drawn, 0);
    let seed = fastrand::u64(..);
    let mut words = [0, 1, 2, 3].map(|lane| first(seed, lane));
    for place in letters.chunks_exact_mut(PER_DRAW) {
        words = words.map(next);
        for (place, word) in place.chunks_exact_mut(size_of::<u64>()).zip(words) {
            place.copy_from_slice(&to_letters(word).to_le_bytes());
        }
    }
    letters.truncate(len);
    letters
}

/// The first word of a lane, never 0: SplitMix64 (Steele, Lea, Flood 2014), so that no lane looks like another.
fn first(seed: u64, lane: u64) -> u64 {
    let word = seed.wrapping_add(lane.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    let word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (word ^ (word >> 31)) | 1
}

/// Marsaglia's xorshift: a few instructions for eight letters; nobody's secrets are made of it. Never 0
/// after a word that is not.
fn next(mut word: u64) -> u64 {
    word ^= word << 13;
    word ^= word >> 7;
    word ^ (word << 17)
}

/// Maps each byte to one of 52 letters, all eight at once: the even and the odd bytes are scaled in 16-bit
/// places, then moved to where the letters are in ASCII.
fn to_letters(word: u64) -> u64 {
    const EVEN: u64 = 0x00ff_00ff_00ff_00ff;
    const ALL: u64 = 0x0101_0101_0101_0101;
    let scale = |bytes: u64| ((bytes * 52) >> 8) & EVEN;
    let index = scale(word & EVEN) | (scale((word >> 8) & EVEN) << 8);
    let is_small = ((index + ALL * (128 - 26)) >> 7) & ALL;
    index + ALL * u64::from(b'A') + is_small * u64::from(b'a' - b'Z' - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every byte value becomes a letter, every letter is reached, at every place of a word.
    #[test]
    fn bytes_become_all_letters() {
        let mut seen = std::collections::BTreeSet::new();
        for byte in 0..=255_u8 {
            let letters = to_letters(u64::from_le_bytes([byte; 8])).to_le_bytes();
            assert!(
                letters.iter().all(|letter| *letter == letters[0] && letter.is_ascii_alphabetic()),
                "{letters:?}"
            );
            seen.insert(letters[0]);
        }
        assert_eq!(seen.len(), 52);
    }

    /// Neighbours in a word do not touch each other.
    #[test]
    fn places_are_independent() {
        let word = u64::from_le_bytes([0, 255, 0, 255, 255, 0, 128, 127]);
        assert_eq!(&to_letters(word).to_le_bytes(), b"AzAzzAaZ");
    }

    /// Any length, also one that is no multiple of a word; no two bodies are alike.
    #[test]
    fn length_is_exact() {
        for len in [0, 1, 7, 8, 9, 1000] {
            assert_eq!(random(len, 0).len(), len);
        }
        assert_ne!(random(1000, 0), random(1000, 0));
    }
}
