//! Which refusals the log tells: one that repeats is told at growing distances, with how often it came.
//!
//! - A worker that is in the wrong place tries again for ever: one line for each try would bury everything else.
//! - Told apart are the process, by its number and its name, and the reason: a second one of either is told at once.
//! - Names and reasons are words of the peer, and processes are quickly made: beyond a bound all others are one.

use std::cell::RefCell;
use std::collections::HashMap;
use std::hash::{BuildHasher as _, RandomState};
use std::time::Duration;

use tokio::time::Instant;

use super::offences::Origin;

/// From the first line to the second; doubled from there to the next ones.
const INTERVAL_FIRST: Duration = Duration::from_secs(60);

/// Longest time between two lines of a refusal that goes on: often enough to be seen in a log of a day.
const INTERVAL_MOST: Duration = Duration::from_secs(60 * 60);

/// A refusal is new again when it did not come for so long: longer than anybody waits between two tries.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(10 * 60);

/// Refusals that are told apart at once.
const TOLD_APART_MAX: usize = 64;

/// Who was refused why; none for all that are not told apart. Of its name and of the reason only a hash: they may be long.
type Key = Option<(Origin, u64)>;

/// Refusals of one socket lately.
#[derive(Debug, Default)]
pub(super) struct Refusals {
    of: RefCell<HashMap<Key, Record>>,
    hasher: RandomState,
}

#[derive(Debug, Clone, Copy)]
struct Record {
    times: u64,
    last: Instant,
    /// When it is told again, and how long that is after the line before.
    next: Instant,
    interval: Duration,
}

impl Refusals {
    /// Notes one, by the name that the process gives itself. Says how often it came, if the log should tell it now.
    pub(super) fn note(&self, origin: Origin, name: &str, why: &str, now: Instant) -> Option<u64> {
        let mut of = self.of.borrow_mut();
        of.retain(|_, record| now < record.last + FORGOTTEN_AFTER);
        let key = Some((origin, self.hasher.hash_one((name, why))));
        let crowded = of.len() >= TOLD_APART_MAX && !of.contains_key(&key);
        let new = Record { times: 0, last: now, next: now, interval: INTERVAL_FIRST };
        of.entry(if crowded { None } else { key }).or_insert(new).note(now)
    }
}

impl Record {
    fn note(&mut self, now: Instant) -> Option<u64> {
        (self.times, self.last) = (self.times.saturating_add(1), now);
        if now < self.next {
            return None;
        }
        self.next = now + self.interval;
        self.interval = (self.interval * 2).min(INTERVAL_MOST);
        Some(self.times)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WORKER: Origin = Origin::Process(7);

    /// Minutes from the first try at which a refusal that comes each second of a day is told.
    fn told_minutes(refusals: &Refusals, start: Instant) -> Vec<u64> {
        let seconds = 0..24 * 60 * 60;
        let told = seconds.filter(|second| {
            let now = start + Duration::from_secs(*second);
            refusals.note(WORKER, "w", "no", now).is_some_and(|times| times == second + 1)
        });
        told.map(|second| second / 60).collect()
    }

    /// It is told at once, then less and less often, with how often it came by then.
    #[test]
    fn repeated_refusal_is_told_less_and_less() {
        let told = told_minutes(&Refusals::default(), Instant::now());
        assert_eq!(told[..8], [0, 1, 3, 7, 15, 31, 63, 123]);
        assert_eq!(told.len(), 29);
    }

    /// Another process, another reason, and one that comes back after a while, are told at once.
    #[test]
    fn new_refusal_is_told_at_once() {
        let (refusals, now) = (Refusals::default(), Instant::now());
        assert_eq!(refusals.note(WORKER, "w", "no", now), Some(1));
        assert_eq!(refusals.note(WORKER, "w", "no", now), None);
        assert_eq!(refusals.note(Origin::Process(8), "w", "no", now), Some(1));
        assert_eq!(refusals.note(WORKER, "x", "no", now), Some(1));
        assert_eq!(refusals.note(WORKER, "w", "never", now), Some(1));
        assert_eq!(refusals.note(WORKER, "w", "no", now + FORGOTTEN_AFTER), Some(1));
    }

    /// Whoever changes its number and its words with each try is told as one, and costs no more memory.
    #[test]
    fn too_many_refusals_are_one() {
        let (refusals, now) = (Refusals::default(), Instant::now());
        let told =
            (1..=10_000).filter(|pid| refusals.note(Origin::of(*pid), "w", &pid.to_string(), now).is_some());
        assert_eq!(told.count(), TOLD_APART_MAX + 1);
        assert_eq!(refusals.of.borrow().len(), TOLD_APART_MAX + 1);
    }
}
