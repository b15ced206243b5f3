//! The figures, for people and for programs.

use std::cell::RefCell;
use std::fmt::Write as _;
use std::io::Write;
use std::rc::Rc;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result};
use hdrhistogram::serialization::V2DeflateSerializer;
use hdrhistogram::serialization::interval_log::IntervalLogWriterBuilder;
use serde_json::json;

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

/// Says every second how it goes, on standard error. Never ends.
pub(super) async fn progress(tally: &Rc<RefCell<Tally>>, start: Instant) {
    let mut before = 0;
    loop {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let tally = tally.borrow();
        let answered = tally.answered;
        eprintln!(
            "{:4} s  {:8} answers/s  errors {}  timeouts {}  p99 {:.3} ms",
            start.elapsed().as_secs(),
            answered - before,
            tally.errors(),
            tally.timeouts,
            tally.quantile_ms(0.99)
        );
        before = answered;
    }
}

/// For people.
pub(super) fn text(options: &Options, tally: &Tally) -> String {
    let mut text = String::new();
    let line = writeln!(
        text,
        "{} {}: {:.0} requests/s offered for {:?}, {} due, {} answered ({:.2} %)\nerrors {} (status {}, connection {}), timeouts {}",
        protocol(options.protocol),
        options.url,
        tally.rate,
        tally.duration,
        tally.offered,
        tally.answered,
        tally.achieved() * 100.0,
        tally.errors(),
        tally.refused,
        tally.connection_errors,
        tally.timeouts,
    );
    line.expect("writing to memory");
    for (name, quantile) in QUANTILES {
        writeln!(text, "{name:>8} {:>12.3} ms", tally.quantile_ms(quantile)).expect("writing to memory");
    }
    text
}

/// For programs.
pub(super) fn json(options: &Options, tally: &Tally) -> String {
    let latencies: serde_json::Map<String, serde_json::Value> = QUANTILES
        .into_iter()
        .map(|(name, quantile)| (name.into(), tally.quantile_ms(quantile).into()))
        .collect();
    let report = json!({
        "url": options.url,
        "protocol": protocol(options.protocol),
        "connections": options.connections,
        "offered_per_s": tally.rate,
        "duration_s": tally.duration.as_secs_f64(),
        "offered": tally.offered,
        "answered": tally.answered,
        "errors": {"status": tally.refused, "connection": tally.connection_errors},
        "timeouts": tally.timeouts,
        "latency_ms": latencies,
    });
    format!("{report:#}\n")
}

/// All latencies, in the format that HdrHistogram's tools read; values in nanoseconds.
pub(super) fn hdr_log(mut to: impl Write, tally: &Tally) -> Result<()> {
    let mut serializer = V2DeflateSerializer::new();
    let mut log = IntervalLogWriterBuilder::new()
        .add_comment("cellmesh load; nanoseconds from when a request was due to its last byte")
        .with_start_time(SystemTime::now())
        .begin_log_with(&mut to, &mut serializer)
        .context("cannot write the log of latencies")?;
    log.write_histogram(&tally.latencies, Duration::ZERO, tally.duration, None)
        .map_err(|error| anyhow::anyhow!("cannot write the log of latencies: {error:?}"))
}

fn protocol(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Http1 => "http1",
        Protocol::Http2 => "http2",
        Protocol::Bridge => "bridge",
    }
}
