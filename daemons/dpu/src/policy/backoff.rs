//! Back-off: how long to wait before a call is made once more.
//!
//! Exponential, bounded, with full jitter: any span from nothing to the bound, so that callers that failed together do not
//! come back together. Pure: randomness is passed in.
//!
//! Source: "Exponential Backoff And Jitter", AWS Architecture Blog, 2015.

use std::time::Duration;

/// Waits before retries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Backoff {
    /// Longest wait before the first retry; doubled for each one after it.
    pub(crate) base: Duration,
    /// Longest wait before any.
    pub(crate) max: Duration,
}

impl Backoff {
    /// The wait before a retry.
    ///
    /// - `retry`: 0 for the first.
    /// - `random`: any 64 random bits; all values are equally likely.
    pub(crate) fn wait(self, retry: u32, random: u64) -> Duration {
        let bound = self.base.saturating_mul(1_u32.checked_shl(retry).unwrap_or(u32::MAX)).min(self.max);
        let bound_ns = u64::try_from(bound.as_nanos()).unwrap_or(u64::MAX);
        let share = ((u128::from(bound_ns) + 1) * u128::from(random)) >> u64::BITS;
        Duration::from_nanos(u64::try_from(share).expect("a product of two 64-bit numbers, shifted by 64"))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MS: Duration = Duration::from_millis(1);

    /// The longest wait doubles until it is at its bound.
    #[test]
    fn bound_doubles_up_to_the_maximum() {
        let backoff = Backoff { base: 25 * MS, max: 250 * MS };
        let longest: Vec<Duration> = (0..6).map(|retry| backoff.wait(retry, u64::MAX)).collect();
        assert_eq!(longest, [25, 50, 100, 200, 250, 250].map(|ms| ms * MS));
        assert_eq!(backoff.wait(3, 0), Duration::ZERO);
        assert_eq!(backoff.wait(0, 1 << 63), 25 * MS / 2);
    }

    proptest! {
        /// No number of retries and no random number leads beyond the bound.
        #[test]
        fn never_longer_than_the_maximum(base: u32, max: u32, retry: u32, random: u64) {
            let backoff = Backoff { base: base * MS, max: max * MS };
            prop_assert!(backoff.wait(retry, random) <= max * MS);
            prop_assert!(backoff.wait(0, random) <= base * MS);
        }
    }
}
