//! `cellmesh top`: what a process does now, once a second: cells, who calls whom, what went wrong, and how full what is bounded is.
//!
//! - Everything is the difference of two looks at `/v1/state`.
//! - On a terminal each look takes the place of the one before, and its tables have room there; elsewhere they come one behind the
//!   other.

mod faults;
mod table;

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;
use std::io::IsTerminal;
use std::time::Duration;

use clap::{Args, ValueEnum};
use serde::Deserialize;

use super::AdminPort;
use super::graph::{clean, title};
use table::{Row, quantile, rate, write_table};

/// Whom to look at.
#[derive(Debug, Args)]
pub struct Options {
    /// The admin port of a process, such as 127.0.0.1:9901.
    pub admin: String,
    /// Seconds between two looks.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub interval: u64,
    /// Ends after the first look.
    #[arg(long)]
    pub once: bool,
    /// Rows of each table [default: as many as the terminal has room for, else 20].
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub rows: Option<u16>,
    /// What comes first: the most of REQ/S and PER S (rate), of P99, or of 5XX/S and ERRORS/S (errors).
    #[arg(long, value_enum, default_value_t = Sort::Rate)]
    pub sort: Sort,
}

/// Which rows come first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Sort {
    /// The busiest.
    Rate,
    /// The slowest.
    P99,
    /// Those that fail most often.
    Errors,
}

/// Rows of each table where there is no terminal, and the fewest where there is one.
const ROWS_USUAL: usize = 20;
const ROWS_LEAST: usize = 3;

/// What only an admin port says is not optional: any service may answer with an object.
#[derive(Debug, Clone, Default, Deserialize)]
struct State {
    command: String,
    uptime_seconds: f64,
    #[serde(default)]
    missing: Vec<String>,
    process: Process,
    #[serde(default)]
    histogram_bounds_seconds: Vec<f64>,
    #[serde(default)]
    cells: Vec<Cell>,
    #[serde(default)]
    edges: Vec<Edge>,
    #[serde(default)]
    services: Vec<faults::Service>,
    refused: Option<faults::Refused>,
    custody: Option<faults::Custody>,
    #[serde(default)]
    gauges: Vec<Gauge>,
}

#[derive(Debug, Clone, Default, Deserialize)]
struct Process {
    cpu_seconds: f64,
    memory_bytes: Option<u64>,
    descriptors: Option<u64>,
}

#[derive(Debug, Clone, Deserialize)]
struct Cell {
    service: String,
    requests: u64,
    in_flight: u64,
    answered: HashMap<String, u64>,
    duration: Histogram,
    #[serde(default)]
    faults: BTreeMap<String, u64>,
    instances_busy: u64,
}

#[derive(Debug, Clone, Deserialize)]
struct Edge {
    from: Option<String>,
    to: String,
    calls: u64,
    errors: u64,
    duration: Histogram,
}

#[derive(Debug, Clone, Deserialize)]
struct Histogram {
    buckets: Vec<u64>,
}

#[derive(Debug, Clone, Deserialize)]
struct Gauge {
    name: String,
    value: u64,
    max: Option<u64>,
    unit: String,
}

/// Looks until it is told to end.
///
/// # Errors
/// The process does not answer, or is none of ours, or standard output cannot be written.
pub fn run(options: &Options) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let port = AdminPort::new(&options.admin)?;
        let takes_place = std::io::stdout().is_terminal() && !options.once;
        let mut before: State = port.get("/v1/state").await?;
        loop {
            tokio::time::sleep(Duration::from_secs(options.interval)).await;
            let now: State = port.get("/v1/state").await?;
            let rows = options.rows.map_or_else(|| rows(&now), usize::from);
            let page = page(&options.admin, &before, &now, (options.sort, rows));
            let clear = if takes_place { "\x1b[H\x1b[2J" } else { "" };
            let is_read = super::say(&format!("{clear}{page}"))?;
            if !is_read || options.once {
                return Ok(());
            }
            before = now;
        }
    })
}

/// As many rows for each table as all of them have room for.
fn rows(now: &State) -> usize {
    let height = rustix::termios::tcgetwinsize(std::io::stdout()).map_or(0, |size| size.ws_row.into());
    if height == 0 { ROWS_USUAL } else { rows_of(height, now) }
}

fn rows_of(height: usize, now: &State) -> usize {
    /// What a table has beside its rows: a head, how many are left out, and a line without anything.
    const AROUND: usize = 3;
    /// The head of the page, and where the cursor stands.
    const OTHERS: usize = 4;
    let tables = [now.cells.len(), now.edges.len(), faults::known(now).len()];
    let tables = tables.into_iter().filter(|rows| *rows > 0).count();
    let gauges = now.gauges.iter().filter(|gauge| gauge.value > 0).count();
    let free = height.saturating_sub(OTHERS + gauges + AROUND * tables);
    (free / tables.max(1)).max(ROWS_LEAST)
}

/// What happened between two looks.
fn page(admin: &str, before: &State, now: &State, shown: (Sort, usize)) -> String {
    // A process that was started again counts anew.
    let fresh = State::default();
    let before = if now.uptime_seconds < before.uptime_seconds { &fresh } else { before };
    let seconds = (now.uptime_seconds - before.uptime_seconds).max(1e-3);
    let mut out = String::new();
    let cpu = (now.process.cpu_seconds - before.process.cpu_seconds) / seconds * 100.0;
    let memory = now.process.memory_bytes.map_or_else(|| "?".into(), bytes);
    let descriptors = now.process.descriptors.unwrap_or_default();
    let state = if now.missing.is_empty() {
        "ready".into()
    } else {
        format!("not ready: {}", title(&now.missing.join("; ")))
    };
    let _ = writeln!(
        out,
        "cellmesh {} at {admin}: {state}\nup {:.0} s   cpu {cpu:.0} %   memory {memory}   descriptors {descriptors}\n",
        clean(&now.command),
        now.uptime_seconds,
    );
    cells(&mut out, before, now, seconds, shown);
    edges(&mut out, before, now, seconds, shown);
    faults::write(&mut out, before, now, seconds, shown.1);
    for gauge in now.gauges.iter().filter(|gauge| gauge.value > 0) {
        let show = |count| if gauge.unit == "bytes" { bytes(count) } else { count.to_string() };
        let of = gauge.max.map_or_else(String::new, |max| format!(" of {}", show(max)));
        let _ = writeln!(out, "{}: {}{of}", clean(&gauge.name), show(gauge.value));
    }
    out
}

fn cells(out: &mut String, before: &State, now: &State, seconds: f64, shown: (Sort, usize)) {
    let known: HashMap<&str, &Cell> = before.cells.iter().map(|cell| (&*cell.service, cell)).collect();
    let mut table = Vec::new();
    for cell in &now.cells {
        let old = known.get(&*cell.service);
        let requests = cell.requests.saturating_sub(old.map_or(0, |old| old.requests));
        let failed = |cell: &Cell| cell.answered.get("5xx").copied().unwrap_or_default();
        let errors = failed(cell).saturating_sub(old.map_or(0, |old| failed(old)));
        let taken = since(&cell.duration, old.map(|old| &old.duration));
        let quantile = |share| quantile(&taken, &now.histogram_bounds_seconds, share);
        let p99 = quantile(0.99);
        let texts = [
            clean(&cell.service),
            rate(requests, seconds),
            rate(errors, seconds),
            quantile(0.5).to_string(),
            p99.to_string(),
            cell.in_flight.to_string(),
            cell.instances_busy.to_string(),
        ];
        table.push(Row { rate: requests, p99, errors, texts });
    }
    write_table(out, ["CELL", "REQ/S", "5XX/S", "P50", "P99", "IN FLIGHT", "BUSY"], table, shown);
}

fn edges(out: &mut String, before: &State, now: &State, seconds: f64, shown: (Sort, usize)) {
    let known: HashMap<(Option<&str>, &str), &Edge> =
        before.edges.iter().map(|edge| ((edge.from.as_deref(), &*edge.to), edge)).collect();
    let mut table = Vec::new();
    for edge in &now.edges {
        let old = known.get(&(edge.from.as_deref(), &*edge.to));
        let calls = edge.calls.saturating_sub(old.map_or(0, |old| old.calls));
        let errors = edge.errors.saturating_sub(old.map_or(0, |old| old.errors));
        let taken = since(&edge.duration, old.map(|old| &old.duration));
        let quantile = |share| quantile(&taken, &now.histogram_bounds_seconds, share);
        let who = format!("{} -> {}", edge.from.as_deref().map_or("clients".into(), clean), clean(&edge.to));
        let p99 = quantile(0.99);
        let [median, slowest] = [quantile(0.5).to_string(), p99.to_string()];
        let texts = [who, rate(calls, seconds), rate(errors, seconds), median, slowest];
        table.push(Row { rate: calls, p99, errors, texts });
    }
    write_table(out, ["CALLS", "PER S", "ERRORS/S", "P50", "P99"], table, shown);
}

fn since(now: &Histogram, before: Option<&Histogram>) -> Vec<u64> {
    let old = |place: usize| before.and_then(|before| before.buckets.get(place)).copied().unwrap_or_default();
    now.buckets.iter().enumerate().map(|(place, count)| count.saturating_sub(old(place))).collect()
}

fn bytes(count: u64) -> String {
    match count {
        count if count >= 1 << 30 => format!("{:.1} GiB", count as f64 / f64::from(1 << 30)),
        count if count >= 1 << 20 => format!("{:.0} MiB", count as f64 / f64::from(1 << 20)),
        count => format!("{:.0} KiB", count as f64 / 1024.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHOWN: (Sort, usize) = (Sort::Rate, 20);

    fn state(uptime: u64, requests: u64, buckets: [u64; 3]) -> State {
        let text = format!(
            r#"{{"command": "run", "uptime_seconds": {uptime}, "missing": [],
                "process": {{"cpu_seconds": {uptime}, "memory_bytes": 52428800, "descriptors": 9}},
                "histogram_bounds_seconds": [0.001, 0.01],
                "cells": [{{"service": "s0", "requests": {requests}, "in_flight": 2, "answered": {{"5xx": {uptime}}},
                            "duration": {{"buckets": {buckets:?}}}, "faults": {{"trap": {uptime}}}, "instances_busy": 1}}],
                "edges": [{{"from": null, "to": "s0", "calls": {requests}, "errors": 0, "duration": {{"buckets": {buckets:?}}}}}],
                "gauges": [{{"name": "connections", "value": 3, "max": 100, "unit": ""}},
                           {{"name": "idle", "value": 0, "max": null, "unit": ""}}]}}"#
        );
        serde_json::from_str(&text).unwrap()
    }

    /// Rates and quantiles are of what happened between two looks.
    #[test]
    fn page_tells_what_happened_between_two_looks() {
        let page = page("here:1", &state(10, 100, [50, 50, 0]), &state(12, 120, [60, 59, 1]), SHOWN);
        let expected = "\
cellmesh run at here:1: ready
up 12 s   cpu 100 %   memory 50 MiB   descriptors 9

CELL  REQ/S  5XX/S     P50        P99  IN FLIGHT  BUSY
s0     10.0    1.0  1.0 ms  > 10.0 ms          2     1

CALLS          PER S  ERRORS/S     P50        P99
clients -> s0   10.0         0  1.0 ms  > 10.0 ms

FAULTS    PER S  SO FAR
s0: trap    1.0      12

connections: 3 of 100
";
        assert_eq!(page, expected);
    }

    /// A process that was started again is looked at from its start; one that does nothing says so.
    #[test]
    fn restart_counts_anew() {
        let again = page("here:1", &state(10, 100, [50, 50, 0]), &state(1, 3, [3, 0, 0]), SHOWN);
        assert!(again.contains("s0      3.0"), "{again}");
        let idle = page("here:1", &state(10, 100, [50, 50, 0]), &state(11, 100, [50, 50, 0]), SHOWN);
        assert!(idle.contains("s0        0    1.0    -    -"), "{idle}");
    }

    /// Rows come in the order that was asked for, and as many as there is room for.
    #[test]
    fn rows_are_sorted_and_fit() {
        let cell = |name: &str, requests: u64, failed: u64, buckets: [u64; 3]| {
            format!(
                r#"{{"service": "{name}", "requests": {requests}, "in_flight": 0, "answered": {{"5xx": {failed}}},
                    "duration": {{"buckets": {buckets:?}}}, "instances_busy": 0}}"#
            )
        };
        let cells = [
            cell("busy", 90, 0, [90, 0, 0]),
            cell("slow", 9, 1, [0, 0, 9]),
            cell("failing", 5, 5, [0, 5, 0]),
            cell("idle", 0, 0, [0, 0, 0]),
        ];
        let text = format!(
            r#"{{"command": "run", "uptime_seconds": 1, "process": {{"cpu_seconds": 0}}, "histogram_bounds_seconds": [0.001, 0.01], "cells": [{}]}}"#,
            cells.join(", ")
        );
        let state: State = serde_json::from_str(&text).unwrap();
        for (sort, order) in [
            (Sort::Rate, ["busy", "slow", "failing", "idle"]),
            (Sort::P99, ["slow", "failing", "busy", "idle"]),
            (Sort::Errors, ["failing", "slow", "busy", "idle"]),
        ] {
            let page = page("here:1", &State::default(), &state, (sort, 20));
            let places = order.map(|name| page.find(&format!("\n{name} ")).expect(name));
            assert!(places.is_sorted(), "{sort:?}: {page}");
        }
        for (height, rows) in [(5, ROWS_LEAST), (24, 17), (60, 53)] {
            assert_eq!(rows_of(height, &state), rows, "{height} lines");
        }
    }
}
