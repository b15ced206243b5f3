//! What guest calls have of a lane's processor, without a system call or two for each.
//!
//! - Calls of a service that usually takes long on its lane are measured each; of one whose calls are short one in sixty-four is,
//!   and the others had the share of their time that these had. So it is calls that are compared with calls: our own code
//!   waits for a processor elsewhere, where it wakes others.
//! - What all come to is held against the kernel's count of the thread, and cut to it.

use std::cell::Cell;
use std::time::Duration;

use crate::cpu;

/// From here on each call is measured: two system calls are less than a hundredth of it.
const LONG_NS: u64 = 100_000;
/// Of shorter ones, one in so many is.
const MEASURED_EVERY: u32 = 64;
/// So much of the lane's time is put together before it is held against the kernel's count.
const LOOK_EVERY: Duration = Duration::from_millis(10);
/// Measured time that the share is of, before older counts for half: it follows what else the machine does.
const REMEMBERED: Duration = Duration::from_secs(1);

/// What the kernel has counted of a lane's thread, and what its calls took since.
#[derive(Debug)]
pub(super) struct LaneCpu {
    seen: Cell<Duration>,
    taken: Cell<Duration>,
}

impl Default for LaneCpu {
    /// From now on, on this thread.
    fn default() -> Self {
        Self { seen: Cell::new(cpu::of_this_thread()), taken: Cell::default() }
    }
}

impl LaneCpu {
    pub(super) fn took(&self, time: Duration) {
        self.taken.set(self.taken.get() + time);
    }

    pub(super) fn is_due(&self) -> bool {
        self.taken.get() >= LOOK_EVERY
    }

    /// Processor time since the last look. `now`: the kernel's count.
    pub(super) fn look(&self, now: Duration) -> Duration {
        self.taken.set(Duration::ZERO);
        now.saturating_sub(self.seen.replace(now))
    }
}

/// Calls of one service on one lane, since its processor was last looked at, and what is known of earlier ones.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct OnLane {
    /// Time of all of them.
    took: Duration,
    /// Of it, that of those that were measured, and what they had of the processor.
    measured: Duration,
    cpu: Duration,
    /// The same of the latest measured ones, for the share.
    known: Duration,
    known_cpu: Duration,
    /// What a call usually takes, in nanoseconds.
    usual_ns: u64,
    /// Calls until the next one that is measured.
    left: u32,
}

impl OnLane {
    /// A call has ended that took so much of the lane's time.
    pub(super) fn took(&mut self, time: Duration) {
        self.took += time;
        let time_ns = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        self.usual_ns = self.usual_ns - self.usual_ns / 8 + time_ns / 8;
    }

    /// Whether the next call is measured.
    pub(super) fn measures(&mut self) -> bool {
        let is_its_turn = self.left == 0;
        self.left = if is_its_turn { MEASURED_EVERY - 1 } else { self.left - 1 };
        is_its_turn || self.usual_ns >= LONG_NS
    }

    /// It had so much of the processor, in so much time.
    pub(super) fn measured(&mut self, cpu: Duration, time: Duration) {
        // Clocks are read one after the other: it had no more than all of the time.
        let cpu = cpu.min(time);
        (self.measured, self.cpu) = (self.measured + time, self.cpu + cpu);
        if self.known >= REMEMBERED {
            (self.known, self.known_cpu) = (self.known / 2, self.known_cpu / 2);
        }
        (self.known, self.known_cpu) = (self.known + time, self.known_cpu + cpu);
    }

    /// What they had of the processor, since it was last looked at.
    pub(super) fn cpu(&self) -> Duration {
        let others = self.took.saturating_sub(self.measured);
        let of_others = if self.known.is_zero() { others } else { part(others, self.known_cpu, self.known) };
        self.cpu + of_others
    }

    /// The same, cut to what there was: the thread `had` so much of it, and all its services say `all`. Begins anew.
    pub(super) fn settle(&mut self, had: Duration, all: Duration) -> Duration {
        let cpu = if all > had { part(self.cpu(), had, all) } else { self.cpu() };
        // A call that is measured at its beginning and ends later has its time then.
        self.measured = self.measured.saturating_sub(self.took);
        (self.took, self.cpu) = (Duration::ZERO, Duration::ZERO);
        cpu
    }
}

/// `whole * share / of`.
fn part(whole: Duration, share: Duration, of: Duration) -> Duration {
    let nanos = whole.as_nanos().saturating_mul(share.as_nanos()).checked_div(of.as_nanos());
    Duration::from_nanos(nanos.and_then(|nanos| u64::try_from(nanos).ok()).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    const US: fn(u64) -> Duration = Duration::from_micros;

    /// Short calls have the share of those that are measured; with none yet, all of their time.
    #[test]
    fn short_calls_have_the_share_of_the_measured() {
        let mut calls = OnLane::default();
        calls.took(US(10));
        assert_eq!(calls.settle(US(1000), calls.cpu()), US(10));
        let mut measured = 0;
        for _ in 0..640 {
            if calls.measures() {
                calls.measured(US(5), US(10));
                measured += 1;
            }
            calls.took(US(10));
        }
        assert_eq!((measured, calls.settle(US(8000), calls.cpu())), (10, US(3200)));
        assert_eq!(calls.settle(US(2000), calls.cpu()), Duration::ZERO, "nothing has come since");
    }

    /// Long calls are measured each, whatever others had.
    #[test]
    fn long_calls_are_measured_each() {
        let mut calls = OnLane::default();
        (0..50).for_each(|_| calls.took(US(200)));
        let _ = calls.settle(US(0), US(0));
        for call in 0..40 {
            assert!(calls.measures(), "call {call}");
            calls.measured(US(call), US(200));
            calls.took(US(200));
        }
        assert_eq!(calls.settle(US(100_000), calls.cpu()), US((0..40).sum()));
    }

    /// A call that goes on elsewhere is measured at once and has its time at its end, and counts once.
    #[test]
    fn calls_that_end_later_count_once() {
        let mut calls = OnLane::default();
        calls.measured(US(1500), US(2000));
        assert_eq!(calls.settle(US(9000), calls.cpu()), US(1500));
        calls.took(US(2000));
        assert_eq!(calls.settle(US(9000), calls.cpu()), Duration::ZERO);
    }

    /// Services never come to more than their thread had, and share that as they share what they say.
    #[test]
    fn services_share_what_there_was() {
        let calls = |time: u64| {
            let mut calls = OnLane::default();
            calls.measured(US(time), US(time));
            calls.took(US(time));
            calls
        };
        let [mut one, mut other] = [calls(300), calls(100)];
        let (had, all) = (US(200), one.cpu() + other.cpu());
        assert_eq!((one.settle(had, all), other.settle(had, all)), (US(150), US(50)));
    }
}
