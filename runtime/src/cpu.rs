//! Processor time of threads: what the kernel has counted, and how long a lane's thread was awake meanwhile.
//!
//! - Reading the kernel's count is a system call, about a third of a microsecond: nothing for a call that lasts a tick, and
//!   too much for each of those that a lane runs, which may last ten times as long.
//! - So a lane measures these by the clock on the wall, which costs next to nothing, and looks now and then what share of
//!   the time that it was awake it had a processor. Asleep is where its runtime waits for events: it calls
//!   `falls_asleep` and `wakes_up`.

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use cellmesh_shm::clock::Nanos;
use rustix::time::{ClockId, clock_gettime};

/// Processor time that is counted where it was used: of one cell on one lane, by the threads of the pool. A cheap handle.
#[derive(Debug, Clone, Default)]
pub struct CpuUsed(Arc<AtomicU64>);

impl CpuUsed {
    /// How much there was until now.
    #[must_use]
    pub fn get(&self) -> Duration {
        // Relaxed, here and below: a counter that nothing else depends on.
        Duration::from_nanos(self.0.load(Ordering::Relaxed))
    }

    /// More was used.
    pub(crate) fn add(&self, used: Duration) {
        self.0.fetch_add(u64::try_from(used.as_nanos()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }
}

/// Processor time that the kernel has counted for this thread. Cost: a system call.
pub(crate) fn of_this_thread() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    let seconds = u64::try_from(time.tv_sec).unwrap_or_default();
    Duration::new(seconds, u32::try_from(time.tv_nsec).unwrap_or_default())
}

/// How a thread has slept.
#[derive(Debug, Clone, Copy, Default)]
struct Sleeps {
    total: Duration,
    since: Option<Nanos>,
}

thread_local! {
    static SLEEPS: Cell<Sleeps> = const { Cell::new(Sleeps { total: Duration::ZERO, since: None }) };
}

/// This thread is about to wait for events.
pub(crate) fn falls_asleep() {
    SLEEPS.with(|sleeps| sleeps.set(Sleeps { since: Some(Nanos::now()), ..sleeps.get() }));
}

/// It has waited.
pub(crate) fn wakes_up() {
    SLEEPS.with(|sleeps| {
        let Sleeps { total, since } = sleeps.get();
        let slept = since.map_or(Duration::ZERO, |since| Nanos::now().saturating_since(since));
        sleeps.set(Sleeps { total: total + slept, since: None });
    });
}

/// What a thread's clocks show, at one moment. Only differences of two mean something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Reading {
    /// Time, without that asleep.
    pub(crate) awake: Duration,
    /// Processor time.
    pub(crate) cpu: Duration,
}

impl Reading {
    /// Of this thread, which is awake. Cost: a system call.
    pub(crate) fn now() -> Self {
        let slept = SLEEPS.with(Cell::get).total;
        Self { awake: Duration::from_nanos(Nanos::now().0).saturating_sub(slept), cpu: of_this_thread() }
    }

    /// From an earlier one to this.
    pub(crate) fn since(self, earlier: Self) -> Self {
        Self { awake: self.awake.saturating_sub(earlier.awake), cpu: self.cpu.saturating_sub(earlier.cpu) }
    }

    /// The processor time in `part` of the time awake, if all of it had the same share. `all`: the parts together; what was
    /// measured of them may begin before this did, and still they come to no more than all processor time.
    pub(crate) fn share_of(self, part: Duration, all: Duration) -> Duration {
        let (cpu, whole) = (self.cpu.as_nanos(), self.awake.max(all).as_nanos());
        let share = part.as_nanos().saturating_mul(cpu.min(whole)).checked_div(whole).unwrap_or_default();
        Duration::from_nanos(u64::try_from(share).unwrap_or(u64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: fn(u64) -> Duration = Duration::from_millis;

    /// A thread that had a processor all the time gives each part what the clock says; one that had it half of the time, half
    /// of that; and never more than there was.
    #[test]
    fn parts_share_what_there_was() {
        let whole = Reading { awake: MS(100), cpu: MS(100) };
        assert_eq!((whole.share_of(MS(30), MS(60)), whole.share_of(MS(0), MS(60))), (MS(30), MS(0)));
        let half = Reading { awake: MS(100), cpu: MS(50) };
        assert_eq!((half.share_of(MS(30), MS(60)), half.share_of(MS(100), MS(100))), (MS(15), MS(50)));
        let too_much = Reading { awake: MS(100), cpu: MS(40) };
        assert_eq!(too_much.share_of(MS(100), MS(200)) + too_much.share_of(MS(100), MS(200)), MS(40));
        // Clocks are read one after the other: a thread never had more than all of the time.
        assert_eq!(Reading { awake: MS(10), cpu: MS(11) }.share_of(MS(10), MS(10)), MS(10));
        assert_eq!(Reading { awake: MS(0), cpu: MS(0) }.share_of(MS(0), MS(0)), MS(0));
    }

    /// Time asleep is no time awake, and what a thread computes is in its own count.
    #[test]
    fn sleep_is_told_from_work() {
        std::thread::spawn(|| {
            let before = Reading::now();
            falls_asleep();
            std::thread::sleep(MS(50));
            wakes_up();
            let slept = SLEEPS.with(Cell::get).total;
            let mut turns = 0_u64;
            while Reading::now().since(before).cpu < MS(5) {
                turns = std::hint::black_box(turns + 1);
            }
            let since = Reading::now().since(before);
            assert!(slept >= MS(50) && since.awake > Duration::ZERO && turns > 0, "{slept:?} {since:?}");
        })
        .join()
        .expect("nothing panics");
    }
}
