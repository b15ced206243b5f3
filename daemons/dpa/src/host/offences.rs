//! Who broke a rule waits before it may attach again, longer each time.
//!
//! - Else it costs the lane that pumps the DPA the making of segments, hundreds of times a second.
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
const KEPT_MOST: Duration = Duration::from_millis(500);

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
        let record = of
            .entry(if crowded { Origin::Socket } else { origin })
            .or_insert(Record { count: 0, until: now });
        record.count = record.count.saturating_add(1);
        let growth =
            1_u32.checked_shl(record.count - 1).map_or(GROWTH_MOST, |growth| growth.min(GROWTH_MOST));
        record.until = now + self.first_wait * growth;
    }

    /// Waits until this one may attach, but not long.
    /// # Errors
    /// What to tell it, if it still may not.
    pub(super) async fn wait(&self, origin: Origin) -> Result<(), String> {
        tokio::time::sleep(self.left(origin, Instant::now()).1.min(KEPT_MOST)).await;
        let (count, left) = self.left(origin, Instant::now());
        if left.is_zero() {
            return Ok(());
        }
        let who = if origin == Origin::Socket { "a process of this socket" } else { "this process" };
        Err(format!("{who} broke a rule of the rings ({count} times lately): try again in {left:.1?}"))
    }

    /// How often it offended, and how long it still has to wait.
    fn left(&self, origin: Origin, now: Instant) -> (u32, Duration) {
        let of = self.of.borrow();
        let records = [origin, Origin::Socket].map(|origin| of.get(&origin));
        let last = records.into_iter().flatten().max_by_key(|record| record.until);
        last.map_or((0, Duration::ZERO), |record| (record.count, record.until.saturating_duration_since(now)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: Duration = Duration::from_millis(100);

    /// Each offence doubles the wait, up to a bound; others do not wait; and it is forgotten.
    #[test]
    fn waits_double_and_end() {
        let (offences, now) = (Offences::new(FIRST), Instant::now());
        let (bad, good) = (Origin::Process(7), Origin::Process(8));
        for growth in [1, 2, 4, 8, 16, 32, 64, 64, 64] {
            offences.note(bad, now);
            assert_eq!(offences.left(bad, now).1, FIRST * growth);
            assert_eq!(offences.left(good, now), (0, Duration::ZERO));
        }
        assert_eq!(offences.left(bad, now + FIRST * 64).1, Duration::ZERO);
        let later = now + FIRST * 64 + FORGIVEN_AFTER;
        offences.note(bad, later);
        assert_eq!(offences.left(bad, later), (1, FIRST));
    }

    /// A count that never ends does not turn the wait to nothing.
    #[test]
    fn waits_stay_at_their_bound() {
        let (offences, now) = (Offences::new(FIRST), Instant::now());
        (0..1000).for_each(|_| offences.note(Origin::Socket, now));
        assert_eq!(offences.left(Origin::Process(9), now), (1000, FIRST * GROWTH_MOST));
    }

    /// Somebody that makes a new process for each offence makes all of its socket wait.
    #[test]
    fn too_many_offenders_are_one() {
        let (offences, now) = (Offences::new(FIRST), Instant::now());
        for pid in 1..=i32::try_from(OFFENDERS_MAX).expect("few") + 1 {
            offences.note(Origin::of(pid), now);
        }
        assert_eq!(offences.of.borrow().len(), OFFENDERS_MAX + 1);
        assert_eq!(offences.left(Origin::of(9999), now), (1, FIRST));
    }

    /// A wait that is over soon is waited out; a longer one is told.
    #[tokio::test]
    async fn short_waits_are_waited_out() {
        let offences = Offences::new(FIRST);
        let origin = Origin::of(7);
        offences.note(origin, Instant::now());
        assert_eq!(offences.wait(origin).await, Ok(()));
        (0..9).for_each(|_| offences.note(origin, Instant::now()));
        let told = offences.wait(origin).await.expect_err("6.4 s are longer");
        assert!(
            told.starts_with("this process broke a rule of the rings (10 times lately): try again in 5."),
            "{told}"
        );
    }
}
