//! Tokens that come at a rate: a second's worth of them may be saved, so that a few at once are all there.
//!
//! Source: the generic cell rate algorithm (ITU-T I.371), which is a token bucket without a timer; for one thread.

use std::time::Duration;

use cellmesh_shm::clock::Nanos;

/// How long tokens that nobody took are saved.
const SAVED_NANOS: u64 = 1_000_000_000;

/// Of one lane.
#[derive(Debug)]
pub(super) struct Tokens {
    /// Between two tokens.
    interval: Duration,
    /// When the next one is there.
    due: Nanos,
}

impl Tokens {
    /// None: a rate of 0.
    pub(super) fn per_second(count: u32) -> Option<Self> {
        (count > 0).then(|| Self { interval: Duration::from_secs(1) / count, due: Nanos(0) })
    }

    /// Takes one, if there is one.
    pub(super) fn take(&mut self, now: Nanos) -> bool {
        let is_there = self.due <= now;
        if is_there {
            self.due = self.one_later(now);
        }
        is_there
    }

    /// Takes one, but not what comes after the next one.
    pub(super) fn take_at_most_next(&mut self, now: Nanos) {
        self.due = self.one_later(now).min(now.saturating_add(self.interval));
    }

    /// One that was taken was not used.
    pub(super) fn give_back(&mut self) {
        let interval = u64::try_from(self.interval.as_nanos()).unwrap_or(u64::MAX);
        self.due = Nanos(self.due.0.saturating_sub(interval));
    }

    fn one_later(&self, now: Nanos) -> Nanos {
        let oldest = Nanos(now.0.saturating_sub(SAVED_NANOS));
        self.due.max(oldest).saturating_add(self.interval)
    }
}
