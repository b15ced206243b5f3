//! When requests are due: one after the other at equal distances, whatever became of the last.

use std::collections::VecDeque;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::sync::Notify;

/// Shortest sleep of the pacer: what comes due meanwhile is handed out together.
const NAP: Duration = Duration::from_micros(50);

/// Requests that are due and not taken up yet.
#[derive(Debug, Default)]
pub(super) struct Due {
    times: Mutex<VecDeque<Instant>>,
    arrived: Notify,
    ended: AtomicBool,
    stopped: AtomicBool,
    scheduled: AtomicU64,
}

impl Due {
    /// The time at which the next request should have been sent; none when there are no more.
    pub(super) async fn next(&self) -> Option<Instant> {
        loop {
            let arrived = self.arrived.notified();
            let mut arrived = std::pin::pin!(arrived);
            // From here on nothing that is handed out is missed.
            arrived.as_mut().enable();
            if let Some(time) = self.lock().pop_front() {
                return Some(time);
            }
            if self.ended.load(Ordering::Acquire) {
                return None;
            }
            arrived.await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Instant>> {
        self.times.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn hand_out(&self, times: impl Iterator<Item = Instant>) {
        let count = {
            let mut queue = self.lock();
            let before = queue.len();
            queue.extend(times);
            queue.len() - before
        };
        self.scheduled.fetch_add(count as u64, Ordering::Relaxed);
        (0..count).for_each(|_| self.arrived.notify_one());
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
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a rate and a duration that were checked: far from the end of 64 bits"
    )]
    fn new(start: Instant, rate: f64, duration: Duration) -> Self {
        Self { start, rate, count: (rate * duration.as_secs_f64()).round() as u64 }
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

/// The thread that hands requests out.
#[derive(Debug)]
pub(super) struct Pacer {
    due: Arc<Due>,
    thread: JoinHandle<()>,
}

impl Pacer {
    /// Hands out requests from `start` on. A thread of its own: a reactor's timers are a millisecond wide.
    pub(super) fn start(due: Arc<Due>, start: Instant, rate: f64, duration: Duration) -> io::Result<Self> {
        let schedule = Schedule::new(start, rate, duration);
        let handed = Arc::clone(&due);
        let thread =
            std::thread::Builder::new().name("pacer".into()).spawn(move || pace(&schedule, &handed))?;
        Ok(Self { due, thread })
    }

    /// Stops it. Returns the number of requests that came due.
    pub(super) fn end(self) -> u64 {
        self.due.stopped.store(true, Ordering::Relaxed);
        self.thread.join().expect("the pacer does not panic");
        self.due.scheduled.load(Ordering::Relaxed)
    }
}

fn pace(schedule: &Schedule, due: &Due) {
    let mut next = 0;
    while next < schedule.count && !due.stopped.load(Ordering::Relaxed) {
        let until = schedule.due_at(Instant::now());
        due.hand_out((next..until).map(|index| schedule.slot(index)));
        next = next.max(until);
        let wait = schedule.slot(next).saturating_duration_since(Instant::now());
        std::thread::sleep(wait.max(NAP));
    }
    due.end();
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
        let due = Arc::new(Due::default());
        let takers: Vec<_> = (0..4)
            .map(|_| {
                let due = Arc::clone(&due);
                tokio::spawn(async move {
                    let mut taken = 0;
                    while due.next().await.is_some() {
                        taken += 1;
                    }
                    taken
                })
            })
            .collect();
        let pacer = Pacer::start(Arc::clone(&due), Instant::now(), 20_000.0, Duration::from_millis(100));
        let pacer = pacer.expect("a thread");
        let mut taken = 0;
        for taker in takers {
            taken += taker.await.expect("no panic");
        }
        assert_eq!((taken, pacer.end()), (2000, 2000));
    }
}
