//! CPU stress: digits of pi.

use std::hint::black_box;

use serde::{Deserialize, Serialize};

use super::pi::Pi;
use super::{Count, Range};

/// `cpu_stress`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Cpu {
    pub(crate) run: bool,
    /// One less than the digits to compute.
    pub(crate) range_complexity: Range,
    /// Copies that run at the same time.
    pub(crate) thread_pool_size: Count,
    /// How often each copy computes the digits.
    pub(crate) trials: Count,
}

impl Default for Cpu {
    fn default() -> Self {
        let once = Count::new(1);
        Self { run: false, range_complexity: Range::of(100, 100), thread_pool_size: once, trials: once }
    }
}

impl Cpu {
    /// One copy.
    pub(crate) fn run(&self) {
        let digits = self.range_complexity.draw() as usize + 1;
        for _ in 0..self.trials.get() {
            Pi::new().take(black_box(digits)).for_each(|digit| {
                black_box(digit);
            });
        }
    }
}
