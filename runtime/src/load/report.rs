//! The figures, for people and for programs.

use std::fmt::Write as _;
use std::io::Write;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use hdrhistogram::serialization::V2DeflateSerializer;
use hdrhistogram::serialization::interval_log::IntervalLogWriterBuilder;
use serde_json::{Map, Value, json};

use super::interrupt::StopSignal;
use super::step::Step;
use super::tally::Tally;
use super::{Options, Protocol};

/// Quantiles that are reported.
const QUANTILES: [(&str, f64); 8] = [
    ("p50", 0.5),
    ("p75", 0.75),
    ("p90", 0.9),
    ("p99", 0.99),
    ("p99.9", 0.999),
    ("p99.99", 0.9999),
    ("p99.999", 0.99999),
    ("max", 1.0),
];

/// Of the largest value of a line of an HdrHistogram log: tools take it for milliseconds.
const NANOS_PER_MS: f64 = 1e6;

/// Says every second how it goes.
#[derive(Debug)]
pub(super) struct Progress {
    start: Instant,
    second: u32,
    answered: u64,
}

impl Progress {
    /// Seconds are those since `start`, that of the schedule.
    pub(super) fn from(start: Instant) -> Self {
        Self { start, second: 1, answered: 0 }
    }

    /// How long until the next line.
    pub(super) fn wait(&self) -> Duration {
        (self.start + Duration::from_secs(self.second.into())).saturating_duration_since(Instant::now())
    }

    /// The line of the second that has passed.
    pub(super) fn line(&mut self, sum: &Tally) -> String {
        let line = format!(
            "{:4} s  {:8} answers/s  errors {}  timeouts {}  p99 {} ms",
            self.second,
            sum.answered - self.answered,
            sum.errors(),
            sum.timeouts,
            ms(sum.quantile_ms(0.99))
        );
        (self.second, self.answered) = (self.second + 1, sum.answered);
        line
    }
}

/// For people.
pub(super) fn text(options: &Options, tally: &Tally) -> String {
    let mut text = format!(
        "{} {}: {} requests/s offered for {:?}, {} due, {} answered ({:.2} %), {} answers/s achieved\n{}\n",
        protocol(options.protocol),
        options.url,
        per_s(tally.rate),
        tally.duration,
        tally.offered,
        tally.answered,
        percent(tally.answered, tally.offered),
        per_s(tally.achieved_per_s()),
        failures(tally),
    );
    if let Some(signal) = tally.cut_short {
        writeln!(text, "{}", cut_short(options, tally, signal)).expect("writing to memory");
    }
    for (name, quantile) in QUANTILES {
        let value = ms(tally.quantile_ms(quantile));
        writeln!(text, "{name:>8} {value:>12} ms").expect("writing to memory");
    }
    text
}

fn cut_short(options: &Options, tally: &Tally, signal: StopSignal) -> String {
    if options.search {
        return format!("cut short by {signal}: this is the best step until then");
    }
    format!(
        "cut short by {signal} after {:.3} s: {} requests still waited and count neither as answered nor as failed",
        tally.elapsed.as_secs_f64(),
        tally.waiting(),
    )
}

/// What failed, by cause.
pub(super) fn failures(tally: &Tally) -> String {
    let statuses: Vec<_> =
        tally.statuses.range(400..).map(|(status, count)| format!("{status}: {count}")).collect();
    let statuses = if statuses.is_empty() { "0".into() } else { statuses.join(", ") };
    let first = match &tally.first_connection_error {
        Some((_, why)) => format!("; first connection error: {why}"),
        None => String::new(),
    };
    format!(
        "errors {} (status {statuses}; connection {}), timeouts {}{first}",
        tally.errors(),
        tally.connection_errors,
        tally.timeouts
    )
}

/// For programs.
pub(super) fn json(options: &Options, tally: &Tally) -> String {
    let latencies: Map<String, Value> = QUANTILES
        .into_iter()
        .map(|(name, quantile)| (name.into(), tally.quantile_ms(quantile).into()))
        .collect();
    let statuses: Map<String, Value> =
        tally.statuses.iter().map(|(status, count)| (status.to_string(), (*count).into())).collect();
    let report = json!({
        "url": options.url,
        "protocol": protocol(options.protocol),
        "connections": options.connections,
        "offered_per_s": tally.rate,
        "answered_per_s": tally.achieved_per_s(),
        "duration_s": tally.duration.as_secs_f64(),
        "elapsed_s": tally.elapsed.as_secs_f64(),
        "cut_short": tally.cut_short.is_some(),
        "offered": tally.offered,
        "answered": tally.answered,
        "errors": {"status": tally.refused(), "connection": tally.connection_errors},
        "statuses": statuses,
        "first_connection_error": tally.first_connection_error.as_ref().map(|(_, why)| why),
        "timeouts": tally.timeouts,
        "waiting": tally.waiting(),
        "latency_ms": latencies,
    });
    format!("{report:#}\n")
}

/// All latencies, in the format that HdrHistogram's tools read; values in nanoseconds.
pub(super) fn hdr_log(mut to: impl Write, step: &Step) -> Result<()> {
    let mut serializer = V2DeflateSerializer::new();
    let mut log = IntervalLogWriterBuilder::new()
        .add_comment("cellmesh load; nanoseconds from when a request was due to its last byte")
        .with_start_time(step.started)
        .with_max_value_divisor(NANOS_PER_MS)
        .begin_log_with(&mut to, &mut serializer)
        .context("cannot write the log of latencies")?;
    log.write_histogram(&step.tally.latencies, Duration::ZERO, step.tally.elapsed, None)
        .map_err(|error| anyhow::anyhow!("cannot write the log of latencies: {error:?}"))
}

/// A rate, as exact as anybody wants to read it.
pub(super) fn per_s(rate: f64) -> String {
    if rate < 1.0 {
        return rate.to_string();
    }
    format!("{rate:.3}").trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// A time, or that there is none.
pub(super) fn ms(time: Option<f64>) -> String {
    time.map_or_else(|| "-".into(), |time| format!("{time:.3}"))
}

#[expect(clippy::cast_precision_loss, reason = "counts far below 2^52")]
fn percent(part: u64, whole: u64) -> f64 {
    part as f64 * 100.0 / whole.max(1) as f64
}

fn protocol(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Http1 => "http1",
        Protocol::Http2 => "http2",
        Protocol::Bridge => "bridge",
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;
    use crate::load::options::tests::options;
    use crate::load::tally::tests::mixed;

    fn parsed(tally: &Tally) -> Value {
        serde_json::from_str(&json(&options(&[]), tally)).expect("JSON")
    }

    /// Each cause has its count, and the first broken connection its text.
    #[test]
    fn failures_are_told_apart() {
        let said =
            "errors 5 (status 404: 1, 503: 2; connection 2), timeouts 1; first connection error: broken";
        assert!(text(&options(&[]), &mixed()).contains(said), "{}", text(&options(&[]), &mixed()));
        let figures = parsed(&mixed());
        assert_eq!(figures["errors"], json!({"status": 3, "connection": 2}));
        assert_eq!(figures["statuses"], json!({"200": 1, "204": 1, "301": 1, "404": 1, "503": 2}));
        assert_eq!(figures["first_connection_error"], "broken");
    }

    /// No answer has no latency: not one of zero.
    #[test]
    fn nothing_answered_has_no_percentiles() {
        let none = Tally::new(0.5, Duration::from_secs(2));
        let said = text(&options(&[]), &none);
        assert!(said.contains("     p99            - ms"), "{said}");
        assert!(said.contains(": 0.5 requests/s offered"), "{said}");
        assert_eq!(parsed(&none)["latency_ms"]["p99"], Value::Null);
    }

    /// What was cut short says so, and how far it came.
    #[test]
    fn cut_short_is_marked() {
        let mut tally = mixed();
        assert_eq!(
            (&parsed(&tally)["cut_short"], &parsed(&tally)["answered_per_s"]),
            (&json!(false), &json!(3.0))
        );
        tally.end(12, Duration::from_millis(500), Some(StopSignal::Interrupt));
        let figures = parsed(&tally);
        assert_eq!((&figures["cut_short"], &figures["waiting"]), (&json!(true), &json!(3)));
        assert_eq!((&figures["elapsed_s"], &figures["answered_per_s"]), (&json!(0.5), &json!(6.0)));
        let said = text(&options(&[]), &tally);
        assert!(said.contains("cut short by SIGINT after 0.500 s: 3 requests still waited"), "{said}");
        let said = text(&options(&["--search"]), &tally);
        assert!(said.contains("cut short by SIGINT: this is the best step until then"), "{said}");
    }

    /// The log begins when the schedule did, lasts as long as the requests, and has its maximum in milliseconds.
    #[test]
    fn hdr_log_has_the_run_s_times() {
        let mut tally = mixed();
        tally.end(9, Duration::from_millis(1500), None);
        let started = SystemTime::UNIX_EPOCH + Duration::from_secs(1000);
        let mut log = Vec::new();
        hdr_log(&mut log, &Step { tally, started }).expect("written");
        let log = String::from_utf8(log).expect("text");
        assert!(log.contains("#[StartTime: 1000.000 (seconds since epoch)]"), "{log}");
        assert!(log.contains("\n0.000,1.500,5.0"), "{log}");
    }

    /// Lines follow each other by a second of the schedule, and have what came since the last.
    #[test]
    fn progress_counts_from_the_start() {
        let start = Instant::now() + Duration::from_secs(3600);
        let mut progress = Progress::from(start);
        assert!(progress.wait() > Duration::from_secs(3600));
        let first = progress.line(&mixed());
        assert!(first.starts_with("   1 s         3 answers/s  errors 5  timeouts 1  p99 5.0"), "{first}");
        let mut sum = mixed();
        sum += &mixed();
        let second = progress.line(&sum);
        assert!(second.starts_with("   2 s         3 answers/s  errors 10  timeouts 2"), "{second}");
    }

    /// A rate is shown with the digits that it needs.
    #[test]
    fn rates_have_their_digits() {
        let shown = [0.5, 0.0001, 1.0, 12.5, 1000.0, 31_400.123_45].map(per_s);
        assert_eq!(shown, ["0.5", "0.0001", "1", "12.5", "1000", "31400.123"]);
    }
}
