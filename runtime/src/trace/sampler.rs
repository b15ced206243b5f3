//! Which requests that nobody has decided on are kept whatever becomes of them.
//!
//! A share of all, and at least so many a second: under load the share decides, and a service that is called twice a minute
//! is seen all the same. Source: the lower bound is that of Jaeger's `GuaranteedThroughputSampler`.

use std::time::Duration;

use cellmesh_shm::clock::Nanos;

/// How long samples of the lower bound that were not needed are saved.
const BURST_NANOS: u64 = 1_000_000_000;

/// Decides for one lane.
#[derive(Debug)]
pub struct Sampler {
    /// Thousandths of all.
    share: u64,
    /// Between two samples of the lower bound. None: there is none.
    interval: Option<Duration>,
    /// When the next one of these is due.
    due: Nanos,
}

impl Sampler {
    /// - `share`: thousandths of all requests. `per_second_min`: of them, if there are so many; 0 for no such bound.
    #[must_use]
    pub fn new(share: u64, per_second_min: u32) -> Self {
        let interval = (per_second_min > 0).then(|| Duration::from_secs(1) / per_second_min);
        Self { share, interval, due: Nanos(0) }
    }

    /// Whether a request that comes `now` is kept. `random`: uniform over all numbers.
    pub fn samples(&mut self, now: Nanos, random: u64) -> bool {
        let is_due = self.interval.is_some() && self.due <= now;
        // The high half of a product: uniform in 0..1000. Source: Lemire, Fast Random Integer Generation in an Interval, 2019.
        let drawn = (u128::from(random) * 1000) >> 64;
        let samples = is_due || drawn < u128::from(self.share);
        if let (true, Some(interval)) = (samples, self.interval) {
            // What was not used in the last second may be used at once: a few requests of a person are all seen.
            let oldest = Nanos(now.0.saturating_sub(BURST_NANOS));
            // Those that the share drew count, but never put off the next one for longer than that.
            self.due = self.due.max(oldest).saturating_add(interval).min(now.saturating_add(interval));
        }
        samples
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(sampler: &mut Sampler, requests: u64, apart: Duration) -> usize {
        let mut random = fastrand::Rng::with_seed(7);
        let apart = u64::try_from(apart.as_nanos()).unwrap();
        (0..requests).filter(|n| sampler.samples(Nanos(n * apart), random.u64(..))).count()
    }

    /// The share of many is about what was asked for.
    #[test]
    fn share_is_kept() {
        let kept = count(&mut Sampler::new(100, 0), 100_000, Duration::from_nanos(1));
        assert!((9_000..11_000).contains(&kept), "{kept} of 100,000");
        assert_eq!(count(&mut Sampler::new(0, 0), 1000, Duration::from_secs(1)), 0);
        assert_eq!(count(&mut Sampler::new(1000, 0), 1000, Duration::from_nanos(1)), 1000);
    }

    /// What a share has drawn does not put off the lower bound when there are few requests again.
    #[test]
    fn lower_bound_holds_after_a_rush() {
        let mut sampler = Sampler::new(1000, 10);
        let begin = 100 * BURST_NANOS;
        (0..100_000).for_each(|n| assert!(sampler.samples(Nanos(begin + n), 0)));
        sampler.share = 0;
        assert!(sampler.samples(Nanos(begin + BURST_NANOS), u64::MAX));
    }

    /// Some are kept each second however small the share; all, if they are fewer.
    #[test]
    fn lower_bound_is_kept() {
        assert_eq!(count(&mut Sampler::new(0, 10), 10_000, Duration::from_millis(1)), 100);
        let mut saved = Sampler::new(0, 10);
        let late = Nanos(100 * BURST_NANOS);
        assert_eq!((0..100).filter(|_| saved.samples(late, u64::MAX)).count(), 11);
        assert_eq!(count(&mut Sampler::new(0, 10), 20, Duration::from_secs(1)), 20);
    }
}
