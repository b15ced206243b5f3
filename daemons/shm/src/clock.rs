//! Points in time that every process of a node agrees on.
//!
//! - `CLOCK_MONOTONIC`: the same count in every process and container of one kernel, never set back.
//! - A deadline crosses a ring as such a count, so no side has to know how long a frame waited.
//! - Pumped modules are told the time (`pump(now)`); only the loop around them asks for it.

use std::time::Duration;

/// A point in time: nanoseconds of `CLOCK_MONOTONIC`, whose zero is the start of the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Nanos(pub u64);

impl Nanos {
    /// Later than every deadline that is one: "no deadline".
    pub const MAX: Self = Self(u64::MAX);

    /// The present. Cost: one vDSO call, about 20 ns.
    #[must_use]
    #[cfg(not(loom))]
    pub fn now() -> Self {
        let time = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
        let whole = u64::try_from(time.tv_sec).unwrap_or(0).saturating_mul(NANOS_PER_SECOND);
        Self(whole.saturating_add(u64::try_from(time.tv_nsec).unwrap_or(0)))
    }

    /// `span` later, or [`Nanos::MAX`] if that is beyond the clock.
    #[must_use]
    pub fn saturating_add(self, span: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)))
    }

    /// How long after `earlier` this is; zero if it is not.
    #[must_use]
    pub fn saturating_since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

#[cfg(not(loom))]
const NANOS_PER_SECOND: u64 = 1_000_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    /// Adding past the end of the clock stays at its end, and never wraps to the past.
    #[test]
    fn addition_saturates() {
        assert_eq!(Nanos(5).saturating_add(Duration::from_nanos(7)), Nanos(12));
        assert_eq!(Nanos(5).saturating_add(Duration::MAX), Nanos::MAX);
        assert_eq!(Nanos(5).saturating_since(Nanos(7)), Duration::ZERO);
    }

    /// Two readings never go backwards.
    #[test]
    #[cfg(not(miri))]
    fn now_does_not_go_back() {
        let first = Nanos::now();
        assert!(Nanos::now() >= first);
    }
}
