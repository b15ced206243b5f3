//! Choice: which requests of a lane are sampled, and of which that have ended a record is made.
//!
//! - A record is made of each one that was sampled and served, and of those that were slow, in error or shed: of these so many a second,
//!   since they may come in floods when there is no time for it. The rest is counted.
//! - To decide costs a few comparisons; a record costs allocations, and others their room.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use cellmesh_dpu::spans::Sampling;
use cellmesh_dpu::trace_context::Parent;
use cellmesh_shm::clock::Nanos;

use super::record::Why;
use super::tokens::Tokens;
use super::{Sampler, TraceSettings};

/// Records that a lane makes each second of requests that were slow or in error, and as many of those that were shed; after a quiet second so many at once.
/// More than a person looks through.
const NOTABLE_PER_SECOND_MAX: u32 = 100;

/// Requests that no record was made of because there were too many at once. A cheap handle, of all lanes of a process.
#[derive(Debug, Clone, Default)]
pub struct LeftOut(Arc<AtomicU64>);

impl LeftOut {
    /// So many.
    #[must_use]
    pub fn count(&self) -> u64 {
        // Relaxed, here and below: a counter that nothing else depends on.
        self.0.load(Ordering::Relaxed)
    }

    fn add_one(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// Of one lane.
#[derive(Debug)]
pub(super) struct Choice {
    sampler: Sampler,
    slow: Duration,
    /// Of those that were served, and of those that were not: a flood of either leaves the other's.
    notable: Option<Tokens>,
    shed: Option<Tokens>,
    left_out: LeftOut,
}

/// How a request has ended.
#[derive(Debug, Clone, Copy)]
pub(super) struct Outcome {
    pub(super) sampling: Sampling,
    /// Its answer's; none if nobody waited for one.
    pub(super) status: Option<u16>,
    /// Nobody has served it.
    pub(super) is_shed: bool,
    pub(super) took: Duration,
}

impl Choice {
    pub(super) fn new(settings: &TraceSettings, left_out: LeftOut) -> Self {
        let sampler = Sampler::new(settings.share, settings.sample_per_second_min);
        let [notable, shed] = [NOTABLE_PER_SECOND_MAX; 2].map(Tokens::per_second);
        Self { sampler, slow: settings.slow, notable, shed, left_out }
    }

    /// Whether a request that comes `now` is sampled: as its caller says, if it has one that says so. `random`: uniform over all
    /// numbers.
    pub(super) fn begin(&mut self, parent: Option<Parent>, now: Nanos, random: u64) -> Sampling {
        match parent {
            Some(Parent { sampled: true, .. }) => Sampling::Caller,
            Some(_) => Sampling::No,
            None => self.sampler.draw(now, random),
        }
    }

    /// Why a record is made of a request that has ended. None: none is.
    pub(super) fn end(&mut self, outcome: &Outcome, now: Nanos) -> Option<Why> {
        let Outcome { sampling, status, is_shed, took } = *outcome;
        self.sampler.ended(sampling, is_shed, now);
        let is_sampled = match sampling {
            Sampling::No => false,
            // It has given back its sample.
            Sampling::Guaranteed => !is_shed,
            Sampling::Caller | Sampling::Share => true,
        };
        let why = Why::of(status, took > self.slow, is_sampled)?;
        let is_free = is_sampled && !is_shed;
        let tokens = if is_shed { &mut self.shed } else { &mut self.notable };
        if is_free || tokens.as_mut().is_some_and(|tokens| tokens.take(now)) {
            return Some(why);
        }
        self.left_out.add_one();
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Nanos = Nanos(100_000_000_000);

    fn choice() -> (Choice, LeftOut) {
        let left_out = LeftOut::default();
        let settings = TraceSettings { share: 0, sample_per_second_min: 1, ..TraceSettings::default() };
        (Choice::new(&settings, left_out.clone()), left_out)
    }

    fn outcome(sampling: Sampling, status: u16, is_shed: bool) -> Outcome {
        Outcome { sampling, status: Some(status), is_shed, took: Duration::ZERO }
    }

    /// Of a flood of errors, of slow requests or of shed ones so many records are made, whoever sampled the shed ones; the
    /// others are counted. The next second has its own.
    #[test]
    fn records_of_floods_are_bounded() {
        let slow = Outcome { took: Duration::from_secs(9), ..outcome(Sampling::No, 200, false) };
        for flood in [
            outcome(Sampling::No, 500, false),
            outcome(Sampling::No, 503, true),
            outcome(Sampling::Caller, 429, true),
            outcome(Sampling::Share, 503, true),
            slow,
        ] {
            let (mut choice, left_out) = choice();
            let made =
                |choice: &mut Choice, now| (0..1000).filter(|_| choice.end(&flood, now).is_some()).count();
            assert_eq!((made(&mut choice, NOW), left_out.count()), (101, 899), "{flood:?}");
            let later = NOW.saturating_add(Duration::from_millis(500));
            assert_eq!((made(&mut choice, later), left_out.count()), (50, 899 + 950), "{flood:?}");
            let served = outcome(Sampling::Caller, 200, false);
            assert_eq!(choice.end(&served, later), Some(Why::Sampled), "beside {flood:?}");
        }
    }

    /// A flood of shed requests leaves room for the errors of served ones.
    #[test]
    fn shed_requests_leave_room_for_errors() {
        let (mut choice, _) = choice();
        (0..1000).for_each(|_| _ = choice.end(&outcome(Sampling::No, 503, true), NOW));
        assert!(choice.end(&outcome(Sampling::No, 500, false), NOW).is_some());
    }

    /// Requests that are sampled and served are none of these, not even those in error.
    #[test]
    fn sampled_requests_are_not_bounded() {
        let (mut choice, left_out) = choice();
        for status in [200, 500] {
            let sampled = outcome(Sampling::Caller, status, false);
            assert!((0..1000).all(|_| choice.end(&sampled, NOW).is_some()));
        }
        assert_eq!(left_out.count(), 0);
    }

    /// A request that is shed is sampled for nobody: the sample goes to the next that is served.
    #[test]
    fn shed_requests_are_no_samples() {
        let (mut choice, left_out) = choice();
        for _ in 0..100 {
            let sampling = choice.begin(None, NOW, u64::MAX);
            assert_eq!(sampling, Sampling::Guaranteed);
            assert_eq!(choice.end(&outcome(sampling, 429, true), NOW), None);
        }
        let served = outcome(choice.begin(None, NOW, u64::MAX), 200, false);
        assert_eq!((choice.end(&served, NOW), left_out.count()), (Some(Why::Sampled), 0));
    }
}
