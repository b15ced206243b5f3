//! What became of the requests.

use std::collections::BTreeMap;
use std::ops::AddAssign;
use std::time::Duration;

use hdrhistogram::Histogram;

use super::interrupt::StopSignal;
use super::search::Verdict;

/// Times are kept to three digits, up to an hour.
const DIGITS: u8 = 3;
const NANOS_MAX: u64 = 3_600_000_000_000;

/// A step is kept up with if its achieved rate is at least this part of the offered one.
const KEPT_UP: f64 = 0.98;

/// The answers of a step may come later than its end by the time of the fastest, and by this part of the step.
const GRACE: u32 = 50;

/// How a request ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Ended {
    /// With an answer.
    Status(u16),
    /// The connection could not be made, or ended: why.
    Connection(String),
    /// Nothing came in time.
    Timeout,
}

/// Counts and latencies of some requests.
#[derive(Debug, Clone)]
pub(super) struct Tally {
    /// Requests per second that were offered.
    pub(super) rate: f64,
    /// For how long, if it was not cut short.
    pub(super) duration: Duration,
    /// From the start of the schedule to the end of its last request.
    pub(super) elapsed: Duration,
    /// How long requests came due: `duration`, or until it was cut short.
    span: Duration,
    pub(super) cut_short: Option<StopSignal>,
    /// Requests that came due.
    pub(super) offered: u64,
    /// Those with a status below 400.
    pub(super) answered: u64,
    /// All that were answered, by status.
    pub(super) statuses: BTreeMap<u16, u64>,
    pub(super) connection_errors: u64,
    /// When, and why.
    pub(super) first_connection_error: Option<(Duration, String)>,
    pub(super) timeouts: u64,
    /// From when it should have been sent to its last byte, of those answered, in nanoseconds.
    pub(super) latencies: Histogram<u64>,
    /// From the start of the schedule to its last byte, of those answered, in nanoseconds.
    ends: Histogram<u64>,
}

impl Tally {
    pub(super) fn new(rate: f64, duration: Duration) -> Self {
        let times = Histogram::new_with_bounds(1, NANOS_MAX, DIGITS).expect("bounds that fit each other");
        Self {
            rate,
            duration,
            elapsed: Duration::ZERO,
            span: Duration::ZERO,
            cut_short: None,
            offered: 0,
            answered: 0,
            statuses: BTreeMap::new(),
            connection_errors: 0,
            first_connection_error: None,
            timeouts: 0,
            latencies: times.clone(),
            ends: times,
        }
    }

    /// Counts a request that took `latency` from when it was due, and ended at this time of the schedule.
    pub(super) fn count(&mut self, ended: Ended, latency: Duration, at: Duration) {
        match ended {
            Ended::Status(status) => {
                *self.statuses.entry(status).or_default() += 1;
                if status < 400 {
                    self.answered += 1;
                    self.latencies.saturating_record(nanos(latency));
                    self.ends.saturating_record(nanos(at));
                }
            }
            Ended::Connection(why) => {
                self.connection_errors += 1;
                self.first_connection_error.get_or_insert((at, why));
            }
            Ended::Timeout => self.timeouts += 1,
        }
    }

    /// The schedule has ended: so many came due.
    pub(super) fn end(&mut self, offered: u64, elapsed: Duration, cut_short: Option<StopSignal>) {
        self.offered = offered;
        self.elapsed = elapsed;
        self.span = cut_short.map_or(self.duration, |_| elapsed.min(self.duration));
        self.cut_short = cut_short;
    }

    /// Answers with a status of 400 or more.
    pub(super) fn refused(&self) -> u64 {
        self.statuses.range(400..).map(|(_, count)| count).sum()
    }

    pub(super) fn errors(&self) -> u64 {
        self.refused() + self.connection_errors
    }

    /// Requests that were due and had not ended when the load was cut short.
    pub(super) fn waiting(&self) -> u64 {
        self.offered.saturating_sub(self.answered + self.errors() + self.timeouts)
    }

    /// Answers per second of the schedule. Those count that came while it lasted, or so soon after it that they were on their
    /// way: within the time of the fastest answer and a grace. What had to queue until then does not.
    #[expect(clippy::cast_precision_loss, reason = "counts far below 2^52")]
    pub(super) fn achieved_per_s(&self) -> f64 {
        if self.span.is_zero() || self.ends.is_empty() {
            return 0.0;
        }
        let until = nanos(self.span + self.span / GRACE).saturating_add(self.latencies.min());
        self.ends.count_between(0, until) as f64 / self.span.as_secs_f64()
    }

    /// None without answers.
    #[expect(clippy::cast_precision_loss, reason = "nanoseconds of an hour fit")]
    pub(super) fn quantile_ms(&self, quantile: f64) -> Option<f64> {
        (!self.latencies.is_empty()).then(|| self.latencies.value_at_quantile(quantile) as f64 / 1e6)
    }

    /// What a step of a search was.
    #[expect(clippy::cast_precision_loss, reason = "counts far below 2^52")]
    pub(super) fn verdict(&self, p99_max: Duration) -> Verdict {
        // Whole requests are offered: for a low rate that is not quite the rate.
        let offered_per_s = self.offered as f64 / self.duration.as_secs_f64();
        if self.errors() + self.timeouts + self.waiting() > 0 {
            Verdict::Failing
        } else if self.achieved_per_s() < KEPT_UP * offered_per_s {
            Verdict::Behind
        } else if self.quantile_ms(0.99).is_none_or(|p99| p99 > p99_max.as_secs_f64() * 1e3) {
            Verdict::Slow
        } else {
            Verdict::Clean
        }
    }
}

impl AddAssign<&Self> for Tally {
    fn add_assign(&mut self, other: &Self) {
        self.elapsed = self.elapsed.max(other.elapsed);
        self.span = self.span.max(other.span);
        self.cut_short = self.cut_short.or(other.cut_short);
        self.offered += other.offered;
        self.answered += other.answered;
        for (status, count) in &other.statuses {
            *self.statuses.entry(*status).or_default() += count;
        }
        self.connection_errors += other.connection_errors;
        let errors =
            self.first_connection_error.take().into_iter().chain(other.first_connection_error.clone());
        self.first_connection_error = errors.min();
        self.timeouts += other.timeouts;
        self.latencies.add(&other.latencies).expect("the same bounds");
        self.ends.add(&other.ends).expect("the same bounds");
    }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::load::search::Search;

    const MS: Duration = Duration::from_millis(1);

    fn connection(why: &str) -> Ended {
        Ended::Connection(why.into())
    }

    /// A second at ten requests per second: three answered, three refused, one without a connection.
    pub(in crate::load) fn mixed() -> Tally {
        let mut tally = Tally::new(10.0, Duration::from_secs(1));
        for (index, status) in (0..).zip([200, 204, 301, 404, 503, 503]) {
            tally.count(Ended::Status(status), 5 * MS, (index * 100 + 5) * MS);
        }
        tally.count(connection("broken"), 5 * MS, 700 * MS);
        tally.count(connection("later"), 5 * MS, 800 * MS);
        tally.count(Ended::Timeout, 5 * MS, 900 * MS);
        tally.end(9, Duration::from_secs(1), None);
        tally
    }

    /// Each is counted once, by how it ended; only answers have latencies.
    #[test]
    fn nothing_is_left_out() {
        let tally = mixed();
        assert_eq!((tally.answered, tally.refused(), tally.connection_errors, tally.timeouts), (3, 3, 2, 1));
        assert_eq!((tally.statuses[&503], tally.latencies.len(), tally.waiting()), (2, 3, 0));
        let p50 = tally.quantile_ms(0.5).expect("answers");
        assert!((4.9..5.1).contains(&p50), "{p50}");
        assert_eq!(tally.verdict(Duration::from_secs(1)), Verdict::Failing);
    }

    /// The sum of two threads has all of both, and of the errors the one that came first.
    #[test]
    fn threads_add_up() {
        let mut other = Tally::new(10.0, Duration::from_secs(1));
        other.count(connection("first"), 5 * MS, 10 * MS);
        other.count(Ended::Status(503), 5 * MS, 20 * MS);
        other.end(5, Duration::from_secs(2), Some(StopSignal::Interrupt));
        let mut sum = mixed();
        sum += &other;
        assert_eq!((sum.offered, sum.errors(), sum.statuses[&503], sum.waiting()), (14, 7, 3, 3));
        assert_eq!((sum.elapsed, sum.cut_short), (Duration::from_secs(2), Some(StopSignal::Interrupt)));
        assert_eq!(sum.first_connection_error, Some((10 * MS, "first".into())));
        other += &mixed();
        assert_eq!(other.first_connection_error, sum.first_connection_error);
    }

    /// Without answers there is no latency, not one of zero, and nothing is clean.
    #[test]
    fn nothing_answered_has_no_latency() {
        let tally = Tally::new(10.0, Duration::from_secs(1));
        assert_eq!((tally.quantile_ms(0.99), tally.achieved_per_s()), (None, 0.0));
        assert_ne!(tally.verdict(Duration::from_secs(1)), Verdict::Clean);
    }

    /// A step of a server with one queue that takes `service` for each request, `delay` of it without being busy.
    fn step(rate: f64, duration: Duration, service: Duration, delay: Duration) -> Tally {
        let mut tally = Tally::new(rate, duration);
        let count = super::super::pacer::requests_due(rate, duration);
        let mut free = Duration::ZERO;
        for index in 0..u32::try_from(count).expect("few") {
            let due = Duration::from_secs_f64(f64::from(index) / rate);
            free = free.max(due) + service;
            tally.count(Ended::Status(200), free + delay - due, free + delay);
        }
        tally.end(count, free + delay, None);
        tally
    }

    /// A server of ten requests per second is not reported as doing more because those that queued are answered in the end.
    #[test]
    fn search_finds_what_is_kept_up_with() {
        for (start, seconds) in [(24.0, 1), (10.0, 10), (3.0, 10)] {
            let mut search = Search::from(start);
            let mut clean: f64 = 0.0;
            while let Some(rate) = search.next_rate(Duration::from_secs(seconds)) {
                let step = step(rate, Duration::from_secs(seconds), 100 * MS, Duration::ZERO);
                let is_clean = step.verdict(Duration::from_secs(60)) == Verdict::Clean;
                search.tell(is_clean);
                clean = if is_clean { clean.max(rate) } else { clean };
            }
            assert!((9.5..=11.5).contains(&clean), "{clean}/s from {start}/s, steps of {seconds} s");
        }
    }

    /// What is only far away keeps up, also in a short step.
    #[test]
    fn delay_is_not_backlog() {
        let far = step(100.0, Duration::from_secs(1), MS, 900 * MS);
        assert!((99.0..=100.0).contains(&far.achieved_per_s()), "{}", far.achieved_per_s());
        assert_eq!(far.verdict(Duration::from_secs(1)), Verdict::Clean);
        assert_eq!(far.verdict(500 * MS), Verdict::Slow);
        let behind = step(24.0, Duration::from_secs(1), 100 * MS, Duration::ZERO);
        assert_eq!((behind.answered, behind.verdict(Duration::from_secs(60))), (24, Verdict::Behind));
        assert!((9.0..=12.0).contains(&behind.achieved_per_s()), "{}", behind.achieved_per_s());
    }
}
