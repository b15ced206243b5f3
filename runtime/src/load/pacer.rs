//! When requests are due: one after the other at equal distances, whatever became of the last.

use std::io;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::sync::Notify;

/// Shortest sleep of the pacer: what comes due meanwhile is handed out together.
const NAP: Duration = Duration::from_micros(50);

/// Requests that are due and not taken up yet.
#[derive(Debug)]
pub(super) struct Due {
    schedule: Schedule,
    /// From the next to take up to the first that is not due yet.
    indices: Mutex<Range<u64>>,
    arrived: Notify,
    ended: AtomicBool,
    stopped: AtomicBool,
}

impl Due {
    fn of(schedule: Schedule) -> Self {
        Self {
            schedule,
            indices: Mutex::new(0..0),
            arrived: Notify::new(),
            ended: AtomicBool::new(false),
            stopped: AtomicBool::new(false),
        }
    }

    /// The time at which the next request should have been sent; none when there are no more.
    pub(super) async fn next(&self) -> Option<Instant> {
        loop {
            let arrived = self.arrived.notified();
            let mut arrived = std::pin::pin!(arrived);
            // From here on nothing that is handed out is missed.
            arrived.as_mut().enable();
            // Read first: whatever was handed out before the end is seen below. Pairs with: end.
            let ended = self.ended.load(Ordering::Acquire);
            if let Some(index) = self.lock().next() {
                return Some(self.schedule.slot(index));
            }
            if ended {
                return None;
            }
            arrived.await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Range<u64>> {
        self.indices.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn hand_out(&self, until: u64) {
        let before = std::mem::replace(&mut self.lock().end, until);
        (before..until).for_each(|_| self.arrived.notify_one());
    }

    fn end(&self) {
        self.ended.store(true, Ordering::Release);
        self.arrived.notify_waiters();
    }
}

/// The slots of a constant rate. Pure.
#[derive(Debug, Clone, Copy)]
pub(super) struct Schedule {
    start: Instant,
    rate: f64,
    count: u64,
}

impl Schedule {
    pub(super) fn new(start: Instant, rate: f64, duration: Duration) -> Self {
        Self { start, rate, count: requests_due(rate, duration) }
    }

    /// Every `shares`-th slot, from that of this index on: together they are the whole schedule.
    #[expect(clippy::cast_precision_loss, reason = "a number of threads")]
    pub(super) fn share(self, index: usize, shares: usize) -> Self {
        Self {
            start: self.slot(index as u64),
            rate: self.rate / shares as f64,
            count: self.count.saturating_sub(index as u64).div_ceil(shares as u64),
        }
    }

    /// When this request should be sent.
    #[expect(clippy::cast_precision_loss, reason = "a count of requests far below 2^52")]
    fn slot(&self, index: u64) -> Instant {
        self.start + Duration::from_secs_f64(index as f64 / self.rate)
    }

    /// The first request that is not due at `now`.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "at most `count`, and never negative"
    )]
    fn due_at(&self, now: Instant) -> u64 {
        match now.checked_duration_since(self.start) {
            None => 0,
            Some(passed) => ((passed.as_secs_f64() * self.rate) as u64 + 1).min(self.count),
        }
    }
}

/// How many requests a constant rate is.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a rate and a duration that were checked: far from the end of 64 bits"
)]
pub(super) fn requests_due(rate: f64, duration: Duration) -> u64 {
    (rate * duration.as_secs_f64()).round() as u64
}

/// The thread that hands requests out.
#[derive(Debug)]
pub(super) struct Pacer {
    due: Arc<Due>,
    thread: JoinHandle<u64>,
}

impl Pacer {
    /// Hands out the requests of `schedule`. A thread of its own: a reactor's timers are a millisecond wide.
    pub(super) fn start(schedule: Schedule) -> io::Result<Self> {
        let due = Arc::new(Due::of(schedule));
        let handed = Arc::clone(&due);
        let thread = std::thread::Builder::new().name("pacer".into()).spawn(move || pace(&handed))?;
        Ok(Self { due, thread })
    }

    /// What it hands out.
    pub(super) fn due(&self) -> Arc<Due> {
        Arc::clone(&self.due)
    }

    /// Stops it. Returns the number of requests that came due.
    pub(super) fn end(self) -> u64 {
        self.due.stopped.store(true, Ordering::Relaxed);
        self.thread.thread().unpark();
        self.thread.join().expect("the pacer does not panic")
    }
}

/// Ends when the last request is due, or when it is stopped. Returns the number of those that came due.
fn pace(due: &Due) -> u64 {
    let schedule = due.schedule;
    let mut next = 0;
    while next < schedule.count && !due.stopped.load(Ordering::Relaxed) {
        next = next.max(schedule.due_at(Instant::now()));
        due.hand_out(next);
        if next < schedule.count {
            let wait = schedule.slot(next).saturating_duration_since(Instant::now());
            std::thread::park_timeout(wait.max(NAP));
        }
    }
    due.end();
    next
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Slots lie at equal distances, and each is due at its own time and not before.
    #[test]
    fn slots_are_due_at_their_times() {
        let start = Instant::now();
        let schedule = Schedule::new(start, 250.0, Duration::from_secs(2));
        assert_eq!(schedule.count, 500);
        assert_eq!(schedule.slot(250), start + Duration::from_secs(1));
        assert_eq!(schedule.due_at(start - Duration::from_secs(1)), 0);
        assert_eq!(schedule.due_at(start), 1);
        assert_eq!(schedule.due_at(start + Duration::from_millis(7)), 2);
        assert_eq!(schedule.due_at(start + Duration::from_millis(9)), 3);
        assert_eq!(schedule.due_at(start + Duration::from_secs(9)), 500);
    }

    /// Everything that is handed out is taken once, by whoever waits, and then it ends for all.
    #[tokio::test]
    async fn due_requests_are_taken_once() {
        let schedule = Schedule::new(Instant::now(), 20_000.0, Duration::from_millis(100));
        let pacer = Pacer::start(schedule).expect("a thread");
        let takers: Vec<_> = (0..4)
            .map(|_| {
                let due = pacer.due();
                tokio::spawn(async move {
                    let mut taken = 0;
                    while due.next().await.is_some() {
                        taken += 1;
                    }
                    taken
                })
            })
            .collect();
        let mut taken = 0;
        for taker in takers {
            taken += taker.await.expect("no panic");
        }
        assert_eq!((taken, pacer.end()), (2000, 2000));
    }
    /// The threads of a load have all of its requests between them, each once, also when there are more threads than requests.
    #[test]
    fn shares_are_the_whole_schedule() {
        let start = Instant::now();
        for (rate, shares) in [(7.0, 3), (1.0, 4), (8.0, 1)] {
            let whole = Schedule::new(start, rate, Duration::from_secs(1));
            let mut slots: Vec<_> = (0..shares)
                .map(|index| whole.share(index, shares))
                .flat_map(|share| (0..share.count).map(move |index| share.slot(index)))
                .collect();
            slots.sort();
            assert_eq!(slots.len() as u64, whole.count);
            for (index, slot) in (0..).zip(slots) {
                let apart = slot.saturating_duration_since(whole.slot(index)).max(whole.slot(index) - slot);
                assert!(apart < Duration::from_micros(1), "{index} of {whole:?}");
            }
        }
    }

    /// What is not due yet when it is stopped is not counted, and nobody waits for it.
    #[tokio::test]
    async fn stopped_pacer_ends_at_once() {
        let pacer = Pacer::start(Schedule::new(Instant::now(), 0.01, Duration::from_secs(100_000)));
        let pacer = pacer.expect("a thread");
        let due = pacer.due();
        assert!(due.next().await.is_some());
        assert_eq!(pacer.end(), 1);
        assert!(due.next().await.is_none());
    }
}
