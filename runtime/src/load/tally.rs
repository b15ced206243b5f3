//! What became of the requests.

use std::ops::AddAssign;
use std::time::Duration;

use hdrhistogram::Histogram;

use super::search::Verdict;

/// Latencies are kept to three digits, up to an hour.
const DIGITS: u8 = 3;
const NANOS_MAX: u64 = 3_600_000_000_000;

/// Of the requests that came due, as many must have been answered for a step to count as kept up with.
const KEPT_UP: f64 = 0.98;

/// How a request ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ended {
    /// With a status below 400.
    Answered,
    /// With another status.
    Status(u16),
    /// The connection could not be made, or ended.
    Connection,
    /// Nothing came in time.
    Timeout,
}

/// Counts and latencies of some requests.
#[derive(Debug, Clone)]
pub(super) struct Tally {
    /// Requests per second that were offered.
    pub(super) rate: f64,
    /// For how long.
    pub(super) duration: Duration,
    /// Requests that came due.
    pub(super) offered: u64,
    pub(super) answered: u64,
    /// Answers with a status of 400 or more.
    pub(super) refused: u64,
    pub(super) connection_errors: u64,
    pub(super) timeouts: u64,
    /// From when it should have been sent to its last byte, of those answered, in nanoseconds.
    pub(super) latencies: Histogram<u64>,
}

impl Tally {
    pub(super) fn new(rate: f64, duration: Duration) -> Self {
        let latencies = Histogram::new_with_bounds(1, NANOS_MAX, DIGITS).expect("bounds that fit each other");
        Self {
            rate,
            duration,
            offered: 0,
            answered: 0,
            refused: 0,
            connection_errors: 0,
            timeouts: 0,
            latencies,
        }
    }

    /// Counts a request that took `latency` from when it was due.
    pub(super) fn count(&mut self, ended: Ended, latency: Duration) {
        match ended {
            Ended::Answered => {
                self.answered += 1;
                let nanos = u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX);
                self.latencies.saturating_record(nanos);
            }
            Ended::Status(_) => self.refused += 1,
            Ended::Connection => self.connection_errors += 1,
            Ended::Timeout => self.timeouts += 1,
        }
    }

    /// How many came due. What was not sent, or not answered at the end, has waited longer than anybody would.
    pub(super) fn scheduled(&mut self, offered: u64) {
        self.offered = offered;
        let ended = self.answered + self.refused + self.connection_errors + self.timeouts;
        self.timeouts += offered.saturating_sub(ended);
    }

    pub(super) fn errors(&self) -> u64 {
        self.refused + self.connection_errors
    }

    /// Part of the requests that were answered.
    #[expect(clippy::cast_precision_loss, reason = "counts far below 2^52")]
    pub(super) fn achieved(&self) -> f64 {
        self.answered as f64 / (self.offered.max(1)) as f64
    }

    #[expect(clippy::cast_precision_loss, reason = "nanoseconds of an hour fit")]
    pub(super) fn quantile_ms(&self, quantile: f64) -> f64 {
        self.latencies.value_at_quantile(quantile) as f64 / 1e6
    }

    pub(super) fn verdict(&self, p99_max: Duration) -> Verdict {
        if self.errors() + self.timeouts > 0 {
            Verdict::Failing
        } else if self.achieved() < KEPT_UP {
            Verdict::Behind
        } else if self.quantile_ms(0.99) > p99_max.as_secs_f64() * 1e3 {
            Verdict::Slow
        } else {
            Verdict::Clean
        }
    }
}

impl AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.offered += other.offered;
        self.answered += other.answered;
        self.refused += other.refused;
        self.connection_errors += other.connection_errors;
        self.timeouts += other.timeouts;
        self.latencies.add(&other.latencies).expect("the same bounds");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What was never sent counts as a timeout, and only answers have latencies.
    #[test]
    fn nothing_is_left_out() {
        let mut tally = Tally::new(10.0, Duration::from_secs(1));
        tally.count(Ended::Answered, Duration::from_millis(5));
        tally.count(Ended::Status(503), Duration::from_secs(9));
        tally.count(Ended::Connection, Duration::from_secs(9));
        tally.scheduled(10);
        assert_eq!((tally.errors(), tally.timeouts, tally.latencies.len()), (2, 7, 1));
        assert!((4.9..5.1).contains(&tally.quantile_ms(0.5)));
        assert_eq!(tally.verdict(Duration::from_secs(1)), Verdict::Failing);
    }
}
