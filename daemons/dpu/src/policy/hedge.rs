//! Hedging: when a call is slow, a second one is made, and the first answer wins.
//!
//! - Slow is what takes longer than the given percentile of the latest answers; before there are `SAMPLES_MIN` of them nothing is.
//! - A call that is given up because the other won counts with the time that it had taken: else only the fast ones would be
//!   remembered, and more and more calls would be slow.
//! - How many are made is the business of a budget. Pure: spans are passed in.
//! - Source: Dean and Barroso, "The Tail at Scale", 2013.

use std::time::Duration;

use serde::Deserialize;

use super::Problems;
use super::retry::Methods;
use crate::units::Ratio;

/// `hedge` of `[service.NAME]`: when a second call is made because the first is slow.
#[derive(Debug, Clone, Copy, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields, default)]
pub struct HedgePolicy {
    /// A call is slow if it takes longer than so many hundredths of the latest.
    pub percentile: u8,
    /// Second calls, as a share of all, of all lanes of the process together.
    pub budget_ratio: Ratio,
    /// Which requests may be made twice.
    pub methods: Methods,
}

impl Default for HedgePolicy {
    fn default() -> Self {
        Self { percentile: 95, budget_ratio: Ratio::thousandths(100), methods: Methods::default() }
    }
}

impl HedgePolicy {
    pub(super) fn check(&self, problems: &mut Problems) {
        let percentile = self.percentile;
        problems.check("hedge.percentile", &percentile, (1..=99).contains(&percentile), "from 1 to 99");
    }
}

/// Latencies that are remembered: enough for the 99th percentile to be one of them.
const SAMPLES_MAX: usize = 256;
/// Fewer say nothing of a percentile.
const SAMPLES_MIN: usize = 20;
/// Answers after which the percentile is found anew.
const RENEWED_EVERY: usize = 16;

/// The latest latencies of a callee, and what is slow for it.
#[derive(Debug)]
pub(crate) struct Latencies {
    percentile: u8,
    /// In the order in which they came, from `next` round to it.
    samples_us: Vec<u32>,
    next: usize,
    slow: Option<Duration>,
    until_renewed: usize,
}

impl Latencies {
    /// - `percentile`: 1 to 99.
    pub(crate) fn new(percentile: u8) -> Self {
        Self { percentile, samples_us: Vec::new(), next: 0, slow: None, until_renewed: SAMPLES_MIN }
    }

    /// Remembers how long a call took.
    ///
    /// - cost: a store; every sixteenth time one pass over 256 numbers.
    pub(crate) fn record(&mut self, latency: Duration) {
        let latency_us = u32::try_from(latency.as_micros()).unwrap_or(u32::MAX);
        if self.samples_us.len() < SAMPLES_MAX {
            self.samples_us.push(latency_us);
        } else {
            self.samples_us[self.next] = latency_us;
        }
        self.next = (self.next + 1) % SAMPLES_MAX;
        self.until_renewed -= 1;
        if self.until_renewed == 0 {
            self.until_renewed = RENEWED_EVERY;
            self.slow = Some(self.found());
        }
    }

    /// How long a call may take before it is slow, if that is known.
    pub(crate) fn slow_after(&self) -> Option<Duration> {
        self.slow
    }

    /// Nearest rank.
    fn found(&self) -> Duration {
        let mut samples_us = self.samples_us.clone();
        let rank = (samples_us.len() * usize::from(self.percentile)).div_ceil(100).max(1);
        let (_, found_us, _) = samples_us.select_nth_unstable(rank - 1);
        Duration::from_micros((*found_us).into())
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    fn us(count: u32) -> Duration {
        Duration::from_micros(count.into())
    }

    fn after(percentile: u8, samples_us: impl IntoIterator<Item = u32>) -> Option<Duration> {
        let mut latencies = Latencies::new(percentile);
        samples_us.into_iter().for_each(|sample| latencies.record(us(sample)));
        latencies.slow_after()
    }

    /// Nothing is slow before there is something to compare it with.
    #[test]
    fn too_few_samples_say_nothing() {
        assert_eq!(after(95, 0..19), None);
        assert_eq!(after(95, 1..=20), Some(us(19)));
    }

    /// What was slow once is forgotten when enough has come since.
    #[test]
    fn old_samples_are_forgotten() {
        assert_eq!(
            after(50, std::iter::repeat_n(9_000, 300).chain(std::iter::repeat_n(5, 272))),
            Some(us(5))
        );
    }

    proptest! {
        /// As a slow and obvious model says: of the latest samples, so many are not slower.
        #[test]
        fn percentile_is_one_of_the_latest_samples(
            percentile in 1..=99_u8,
            samples_us in vec(any::<u32>(), 20..700),
        ) {
            let renewed_at = samples_us.len() - (samples_us.len() - SAMPLES_MIN) % RENEWED_EVERY;
            let mut latest = samples_us[renewed_at.saturating_sub(SAMPLES_MAX)..renewed_at].to_vec();
            latest.sort_unstable();
            let rank = (latest.len() * usize::from(percentile)).div_ceil(100);
            prop_assert_eq!(after(percentile, samples_us), Some(us(latest[rank - 1])));
        }
    }
}
