//! A rate of requests with bursts: a token bucket, kept as the one instant at which it would be full again.
//!
//! ```text
//! tokens in the bucket = burst - (full_at - now) / interval        a request takes one: full_at += interval
//! ```
//!
//! - All lanes of the process take from one bucket: the rate is that of the node.
//! - Time is told, in the clock of the lanes. A lane that is told it a little late takes less, never more.
//! - cost: one atomic write for each request that is let through, none for one that is not.
//!
//! Source: the generic cell rate algorithm (ITU-T I.371), which is a token bucket without a timer.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use cellmesh_shm::clock::Nanos;
use serde::Deserialize;

/// Most requests per second, and most in a burst, that may be configured: beyond it the interval is too coarse.
pub(super) const RATE_MOST: u32 = 1_000_000;

/// `rate = { per_second, burst }`: so many requests per second for ever, and so many at once after a pause.
#[derive(Debug, Clone, Copy, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct Rate {
    /// Requests per second, 1 to 1,000,000.
    pub per_second: u32,
    /// Requests at once after a pause, 1 to 1,000,000.
    pub burst: u32,
}

impl Rate {
    pub(super) fn is_valid(self) -> bool {
        (1..=RATE_MOST).contains(&self.per_second) && (1..=RATE_MOST).contains(&self.burst)
    }

    /// Nanoseconds in which one token comes. Rounded down: nobody gets less than was promised.
    fn interval(self) -> u64 {
        NANOS_PER_SECOND / u64::from(self.per_second.clamp(1, RATE_MOST))
    }
}

const NANOS_PER_SECOND: u64 = 1_000_000_000;

/// A bucket of tokens, full at the start. Clones are the same bucket.
#[derive(Debug, Clone, Default)]
pub(super) struct Bucket {
    full_at: Arc<AtomicU64>,
}

impl Bucket {
    /// Takes a token.
    /// # Errors
    /// There is none; says how long until there is one, if nobody else takes it.
    pub(super) fn take(&self, rate: Rate, now: Nanos) -> Result<(), Duration> {
        let interval = rate.interval();
        let spare = interval * u64::from(rate.burst.saturating_sub(1));
        let one_less = |full_at: u64| {
            let is_there = full_at.saturating_sub(spare) <= now.0;
            is_there.then(|| full_at.max(now.0).saturating_add(interval))
        };
        // The instant guards no other memory: nothing has to be ordered with it.
        let taken = self.full_at.try_update(Ordering::Relaxed, Ordering::Relaxed, one_less);
        match taken {
            Ok(_) => Ok(()),
            Err(full_at) => Err(Duration::from_nanos(full_at.saturating_sub(spare).saturating_sub(now.0))),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The bucket as it is told: tokens come with time, up to the burst.
    struct Model {
        rate: Rate,
        /// In nanoseconds of the interval: one token is one interval.
        level: u64,
        now: u64,
    }

    impl Model {
        fn take(&mut self, now: u64) -> bool {
            let (interval, most) = (self.rate.interval(), self.rate.interval() * u64::from(self.rate.burst));
            self.level = most.min(self.level.saturating_add(now - self.now));
            self.now = now;
            let is_there = self.level >= interval;
            self.level -= if is_there { interval } else { 0 };
            is_there
        }
    }

    proptest! {
        /// The bucket lets through what the model does, and says exactly when the next one may come.
        #[test]
        fn bucket_is_a_token_bucket(
            per_second in 1u32..5000,
            burst in 1u32..8,
            start in 0u64..u64::MAX / 4,
            steps in prop::collection::vec(0u64..900_000_000, 1..200),
        ) {
            let rate = Rate { per_second, burst };
            let bucket = Bucket::default();
            let mut model = Model { rate, level: rate.interval() * u64::from(burst), now: start };
            let mut now = start;
            for step in steps {
                // Most steps near the interval, where it matters.
                now += step % (rate.interval() * 3);
                let taken = bucket.take(rate, Nanos(now));
                prop_assert_eq!(taken.is_ok(), model.take(now));
                if let Err(wait) = taken {
                    let wait = u64::try_from(wait.as_nanos()).expect("fits");
                    prop_assert!(wait > 0);
                    now += wait - 1;
                    prop_assert!(bucket.take(rate, Nanos(now)).is_err());
                    prop_assert!(!model.take(now));
                    now += 1;
                    prop_assert!(bucket.take(rate, Nanos(now)).is_ok());
                    prop_assert!(model.take(now));
                }
            }
        }

        /// In no span of time more than the rate and one burst, however many lanes ask and however late they are told the time.
        #[test]
        fn bound_holds_with_clocks_that_differ(late in prop::collection::vec(0u64..50_000_000, 1..300)) {
            let rate = Rate { per_second: 100, burst: 5 };
            let lanes = Bucket::default();
            let lanes = [lanes.clone(), lanes];
            let (first, step) = (1_000_000_000_u64, 1_000_000);
            let taken = (0u64..).zip(&late).filter(|(turn, late)| {
                let now = first + turn * step - *late;
                lanes[usize::from(*late % 2 == 0)].take(rate, Nanos(now)).is_ok()
            });
            // Whole intervals in the span, and before it what the latest clock is behind.
            let span = late.len() as u64 * step + 50_000_000;
            prop_assert!(taken.count() as u64 <= 5 + span / rate.interval() + 1);
        }
    }

    /// A clock at its end stays there: no wrap lets everything through, or nothing.
    #[test]
    fn far_ends_of_the_clock_are_safe() {
        let rate = Rate { per_second: 1, burst: 2 };
        let bucket = Bucket::default();
        assert_eq!(bucket.take(rate, Nanos(0)), Ok(()));
        assert_eq!(bucket.take(rate, Nanos(0)), Ok(()));
        assert_eq!(bucket.take(rate, Nanos(0)), Err(Duration::from_secs(1)));
        assert_eq!(bucket.take(rate, Nanos::MAX), Ok(()));
    }
}
