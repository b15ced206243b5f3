//! Which requests that nobody has decided on are kept whatever becomes of them.
//!
//! - A share of all, and at least so many a second: under load the share decides, and a service that is called twice a minute
//!   is seen all the same. Source: the lower bound is that of Jaeger's `GuaranteedThroughputSampler`.
//! - The lower bound is of requests that are served: one that turns out to be shed gives back what it took, so that a flood of
//!   refusals does not hide those beside it.

use cellmesh_dpu::spans::Sampling;
use cellmesh_shm::clock::Nanos;

use super::tokens::Tokens;

/// Decides for one lane.
#[derive(Debug)]
pub struct Sampler {
    /// Thousandths of all.
    share: u64,
    /// The lower bound. None: there is none.
    guaranteed: Option<Tokens>,
}

impl Sampler {
    /// - `share`: thousandths of all requests. `per_second_min`: of them, if there are so many; 0 for no such bound.
    #[must_use]
    pub fn new(share: u64, per_second_min: u32) -> Self {
        Self { share, guaranteed: Tokens::per_second(per_second_min) }
    }

    /// Whether a request that comes `now` is kept. `random`: uniform over all numbers.
    pub fn draw(&mut self, now: Nanos, random: u64) -> Sampling {
        // The high half of a product: uniform in 0..1000. Source: Lemire, Fast Random Integer Generation in an Interval, 2019.
        let drawn = (u128::from(random) * 1000) >> 64;
        if drawn < u128::from(self.share) {
            return Sampling::Share;
        }
        let is_due = self.guaranteed.as_mut().is_some_and(|tokens| tokens.take(now));
        if is_due { Sampling::Guaranteed } else { Sampling::No }
    }

    /// A request that was drawn so has ended. `is_shed`: nobody has served it.
    pub fn ended(&mut self, drawn: Sampling, is_shed: bool, now: Nanos) {
        let Some(tokens) = &mut self.guaranteed else { return };
        match drawn {
            // They count, but never put off the next one for longer than its interval.
            Sampling::Share if !is_shed => tokens.take_at_most_next(now),
            Sampling::Guaranteed if is_shed => tokens.give_back(),
            Sampling::No | Sampling::Caller | Sampling::Share | Sampling::Guaranteed => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const SECOND: u64 = 1_000_000_000;

    /// A request that is served at once.
    fn samples(sampler: &mut Sampler, now: Nanos, random: u64) -> bool {
        let drawn = sampler.draw(now, random);
        sampler.ended(drawn, false, now);
        drawn != Sampling::No
    }

    fn count(sampler: &mut Sampler, requests: u64, apart: Duration) -> usize {
        let mut random = fastrand::Rng::with_seed(7);
        let apart = u64::try_from(apart.as_nanos()).unwrap();
        (0..requests).filter(|n| samples(sampler, Nanos(n * apart), random.u64(..))).count()
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
        let begin = 100 * SECOND;
        (0..100_000).for_each(|n| assert!(samples(&mut sampler, Nanos(begin + n), 0)));
        sampler.share = 0;
        assert!(!samples(&mut sampler, Nanos(begin + SECOND / 20), u64::MAX), "they count");
        assert!(samples(&mut sampler, Nanos(begin + SECOND), u64::MAX));
    }

    /// Some are kept each second however small the share; all, if they are fewer.
    #[test]
    fn lower_bound_is_kept() {
        assert_eq!(count(&mut Sampler::new(0, 10), 10_000, Duration::from_millis(1)), 100);
        let mut saved = Sampler::new(0, 10);
        let late = Nanos(100 * SECOND);
        assert_eq!((0..100).filter(|_| samples(&mut saved, late, u64::MAX)).count(), 11);
        assert_eq!(count(&mut Sampler::new(0, 10), 20, Duration::from_secs(1)), 20);
    }

    /// Of a flood of requests that are shed none takes the sample of one that is served, whoever drew them; and what they give
    /// back is no more than they took.
    #[test]
    fn shed_requests_leave_the_lower_bound_to_others() {
        for share in [0, 500] {
            let mut sampler = Sampler::new(share, 10);
            let mut random = fastrand::Rng::with_seed(7);
            let begin = 100 * SECOND;
            for n in 0..10_000 {
                let now = Nanos(begin + n * 1000);
                let drawn = sampler.draw(now, random.u64(..));
                sampler.ended(drawn, true, now);
            }
            let now = Nanos(begin + SECOND / 20);
            let served = (0..100).filter(|_| samples(&mut sampler, now, u64::MAX)).count();
            assert_eq!(served, 11, "a share of {share}");
        }
    }
}
