//! Who broke a rule waits before it may attach again, longer each time.
//!
//! - Else it costs the lane that pumps the DPA the making of segments and the settling of what it broke, hundreds of times a
//!   second. Coming and going breaks no rule, however often: it costs who does it about as much.
//! - Who it is: the number of its process where that is known, else the socket that it came in on, which is then all that
//!   tells one container from another.
//! - It is kept waiting first and refused only then, so that one that asks again at once is not heard more often.

use std::cell::RefCell;
use std::collections::HashMap;
use std::time::Duration;

use tokio::time::Instant;

/// The wait doubles with each offence, up to so many times the first.
const GROWTH_MOST: u32 = 64;

/// An offence is forgotten when there was none for so long after its wait.
const FORGIVEN_AFTER: Duration = Duration::from_secs(60);

/// Offenders that are told apart at once. With more, the socket as a whole is the offender.
const OFFENDERS_MAX: usize = 256;

/// Longest time that a process is kept waiting without being told why.
pub(super) const KEPT_MOST: Duration = Duration::from_millis(500);

/// A process as far as this socket can tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Origin {
    Process(i32),
    Socket,
}

/// Who broke a rule lately, of those that came in through one socket.
#[derive(Debug)]
pub(super) struct Offences {
    first_wait: Duration,
    of: RefCell<HashMap<Origin, Record>>,
}

#[derive(Debug, Clone, Copy)]
struct Record {
    count: u32,
    wait: Duration,
    until: Instant,
}

impl Origin {
    /// `pid`: of the peer, 0 where it is not known.
    pub(super) fn of(pid: i32) -> Self {
        if pid > 0 { Self::Process(pid) } else { Self::Socket }
    }
}

impl Offences {
    /// None so far. `first_wait`: after the first offence.
    pub(super) fn new(first_wait: Duration) -> Self {
        Self { first_wait, of: RefCell::default() }
    }

    pub(super) fn note(&self, origin: Origin, now: Instant) {
        let mut of = self.of.borrow_mut();
        of.retain(|_, record| now < record.until + FORGIVEN_AFTER);
        let crowded = of.len() >= OFFENDERS_MAX && !of.contains_key(&origin);
        let record = of.entry(if crowded { Origin::Socket } else { origin }).or_insert(Record {
            count: 0,
            wait: Duration::ZERO,
            until: now,
        });
        record.count = record.count.saturating_add(1);
        let growth =
            1_u32.checked_shl(record.count - 1).map_or(GROWTH_MOST, |growth| growth.min(GROWTH_MOST));
        record.wait = self.first_wait * growth;
        record.until = now + record.wait;
    }

    /// Waits until this one may attach, but not long.
    /// # Errors
    /// What to tell it, if it still may not.
    pub(super) async fn wait(&self, origin: Origin) -> Result<(), String> {
        if let Some((_, record)) = self.blocking(origin, Instant::now()) {
            tokio::time::sleep_until(record.until.min(Instant::now() + KEPT_MOST)).await;
        }
        let Some((of, Record { count, wait, .. })) = self.blocking(origin, Instant::now()) else {
            return Ok(());
        };
        let who = if of == Origin::Socket { "processes of this socket" } else { "this process" };
        // Not how long it still takes: who asks again and again is told the same.
        Err(format!("{who} broke a rule {count} times lately, and may attach {wait:?} after the last time"))
    }

    /// What keeps it waiting at this time: the record of the process itself, or of its whole socket.
    fn blocking(&self, origin: Origin, now: Instant) -> Option<(Origin, Record)> {
        let of = self.of.borrow();
        let records = [origin, Origin::Socket].map(|origin| Some((origin, *of.get(&origin)?)));
        let last = records.into_iter().flatten().max_by_key(|(_, record)| record.until);
        last.filter(|(_, record)| now < record.until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: Duration = Duration::from_millis(100);

    /// Which offence keeps it waiting, and until how long after `now`.
    fn left(offences: &Offences, origin: Origin, now: Instant) -> Option<(u32, Duration)> {
        offences.blocking(origin, now).map(|(_, record)| (record.count, record.until - now))
    }

    /// Each offence doubles the wait, up to a bound; others do not wait; and it is forgotten.
    #[test]
    fn waits_double_and_end() {
        let (offences, now) = (Offences::new(FIRST), Instant::now());
        let (bad, good) = (Origin::Process(7), Origin::Process(8));
        for (count, growth) in (1..).zip([1, 2, 4, 8, 16, 32, 64, 64, 64]) {
            offences.note(bad, now);
            assert_eq!(left(&offences, bad, now), Some((count, FIRST * growth)));
            assert_eq!(left(&offences, good, now), None);
        }
        assert_eq!(left(&offences, bad, now + FIRST * 64), None);
        let later = now + FIRST * 64 + FORGIVEN_AFTER;
        offences.note(bad, later);
        assert_eq!(left(&offences, bad, later), Some((1, FIRST)));
    }

    /// A count that never ends does not turn the wait to nothing.
    #[test]
    fn waits_stay_at_their_bound() {
        let (offences, now) = (Offences::new(FIRST), Instant::now());
        (0..1000).for_each(|_| offences.note(Origin::Socket, now));
        assert_eq!(left(&offences, Origin::Process(9), now), Some((1000, FIRST * GROWTH_MOST)));
    }

    /// Somebody that makes a new process for each offence makes all of its socket wait.
    #[test]
    fn too_many_offenders_are_one() {
        let (offences, now) = (Offences::new(FIRST), Instant::now());
        for pid in 1..=i32::try_from(OFFENDERS_MAX).expect("few") + 1 {
            offences.note(Origin::of(pid), now);
        }
        assert_eq!(offences.of.borrow().len(), OFFENDERS_MAX + 1);
        assert_eq!(left(&offences, Origin::of(9999), now), Some((1, FIRST)));
    }

    /// A wait that is over soon is waited out; a longer one is told, with who has earned it.
    #[tokio::test]
    async fn short_waits_are_waited_out() {
        let offences = Offences::new(FIRST);
        let origin = Origin::of(7);
        offences.note(origin, Instant::now());
        assert_eq!(offences.wait(origin).await, Ok(()));
        (0..9).for_each(|_| offences.note(origin, Instant::now()));
        let told = offences.wait(origin).await.expect_err("6.4 s are longer");
        assert_eq!(
            told,
            "this process broke a rule 10 times lately, and may attach 6.4s after the last time"
        );
        (0..10).for_each(|_| offences.note(Origin::Socket, Instant::now()));
        let told = offences.wait(Origin::of(8)).await.expect_err("6.4 s are longer");
        assert!(told.starts_with("processes of this socket broke a rule 10 times"), "{told}");
    }
}
