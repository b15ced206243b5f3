//! Memory stress: blocks that are allocated, read and replaced.

use std::hint::black_box;

use serde::{Deserialize, Serialize};

use super::Count;

const BLOCK_BYTES: usize = 1000;

/// `memory_stress`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Memory {
    pub(crate) run: bool,
    /// Blocks of 1,000 bytes that are held at the same time.
    memory_size: Count,
    /// How many blocks are read and replaced.
    memory_io: Count,
}

impl Default for Memory {
    fn default() -> Self {
        Self { run: false, memory_size: Count::new(10_000), memory_io: Count::new(1000) }
    }
}

impl Memory {
    /// Returns the sum of all bytes that were read, which nobody can know without reading them.
    pub(crate) fn run(&self) -> u64 {
        let mut blocks: Vec<Box<[u8]>> = (0..self.memory_size.get()).map(|_| new_block()).collect();
        let mut sum = 0;
        if !blocks.is_empty() {
            for turn in 0..self.memory_io.get() {
                let index = turn % blocks.len();
                let block = &mut blocks[index];
                sum += block.iter().map(|byte| u64::from(*byte)).sum::<u64>();
                *block = new_block();
            }
        }
        black_box(blocks);
        black_box(sum)
    }
}

fn new_block() -> Box<[u8]> {
    black_box(vec![b'A'; BLOCK_BYTES].into_boxed_slice())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every read sees a whole block; no blocks, no reads.
    #[test]
    fn blocks_are_read() {
        let sum =
            |size, io| Memory { run: true, memory_size: Count::new(size), memory_io: Count::new(io) }.run();
        assert_eq!(sum(3, 7), 7 * 1000 * u64::from(b'A'));
        assert_eq!((sum(3, 0), sum(0, 7)), (0, 0));
    }
}
