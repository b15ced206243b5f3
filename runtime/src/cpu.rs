//! Processor time: what the kernel has counted of a thread, and of what ran on it.
//!
//! Reading the kernel's count is a system call, about a third of a microsecond: nothing for a call that lasts a tick, and too
//! much for each of those that a lane runs, some of which last ten times as long. Who counts those is `worker/meters.rs`.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

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

#[cfg(test)]
mod tests {
    use super::*;

    /// What a thread computes is in its count, and what it sleeps is not.
    #[test]
    fn computing_is_counted_and_sleeping_is_not() {
        let computed = |until: Duration| {
            let (before, mut turns) = (of_this_thread(), 0_u64);
            while of_this_thread().saturating_sub(before) < until {
                turns = std::hint::black_box(turns + 1);
            }
            turns
        };
        std::thread::spawn(move || {
            let before = of_this_thread();
            std::thread::sleep(Duration::from_millis(200));
            let asleep = of_this_thread().saturating_sub(before);
            assert!(
                asleep < Duration::from_millis(200) && computed(Duration::from_millis(5)) > 0,
                "{asleep:?}"
            );
        })
        .join()
        .expect("nothing panics");
        let used = CpuUsed::default();
        [3, 4].into_iter().for_each(|ms| used.clone().add(Duration::from_millis(ms)));
        assert_eq!(used.get(), Duration::from_millis(7));
    }
}
