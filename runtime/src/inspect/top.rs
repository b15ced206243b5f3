//! `cellmesh top`: what a process does now, once a second: cells, who calls whom, and how full what is bounded is.
//!
//! - Everything is the difference of two looks at `/v1/state`.
//! - On a terminal each look takes the place of the one before; elsewhere they come one behind the other.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::io::{IsTerminal, Write};
use std::time::Duration;

use clap::Args;
use serde::Deserialize;

use super::AdminPort;
use super::graph::{clean, time, title};

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
    /// Rows of each table.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub rows: u16,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
struct State {
    command: String,
    uptime_seconds: f64,
    missing: Vec<String>,
    process: Process,
    histogram_bounds_seconds: Vec<f64>,
    cells: Vec<Cell>,
    edges: Vec<Edge>,
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
/// The process does not answer, or is none of ours.
pub fn run(options: &Options) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let port = AdminPort::new(&options.admin)?;
        let takes_place = std::io::stdout().is_terminal() && !options.once;
        let mut before: State = port.get("/v1/state").await?;
        loop {
            tokio::time::sleep(Duration::from_secs(options.interval)).await;
            let now: State = port.get("/v1/state").await?;
            let page = page(&options.admin, &before, &now, options.rows.into());
            let clear = if takes_place { "\x1b[H\x1b[2J" } else { "" };
            let mut out = std::io::stdout();
            if out.write_all(format!("{clear}{page}").as_bytes()).and_then(|()| out.flush()).is_err()
                || options.once
            {
                // A reader that has seen enough is no failure.
                return Ok(());
            }
            before = now;
        }
    })
}

/// What happened between two looks.
fn page(admin: &str, before: &State, now: &State, rows: usize) -> String {
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
    cells(&mut out, before, now, seconds, rows);
    edges(&mut out, before, now, seconds, rows);
    for gauge in now.gauges.iter().filter(|gauge| gauge.value > 0) {
        let show = |count| if gauge.unit == "bytes" { bytes(count) } else { count.to_string() };
        let of = gauge.max.map_or_else(String::new, |max| format!(" of {}", show(max)));
        let _ = writeln!(out, "{}: {}{of}", clean(&gauge.name), show(gauge.value));
    }
    out
}

fn cells(out: &mut String, before: &State, now: &State, seconds: f64, rows: usize) {
    let known: HashMap<&str, &Cell> = before.cells.iter().map(|cell| (&*cell.service, cell)).collect();
    let mut table = Vec::new();
    for cell in &now.cells {
        let old = known.get(&*cell.service);
        let requests = cell.requests.saturating_sub(old.map_or(0, |old| old.requests));
        let failed = |cell: &Cell| cell.answered.get("5xx").copied().unwrap_or_default();
        let errors = failed(cell).saturating_sub(old.map_or(0, |old| failed(old)));
        let taken = since(&cell.duration, old.map(|old| &old.duration));
        let quantile = |share| quantile(&taken, &now.histogram_bounds_seconds, share);
        let row = [
            clean(&cell.service),
            rate(requests, seconds),
            rate(errors, seconds),
            quantile(0.5),
            quantile(0.99),
            cell.in_flight.to_string(),
            cell.instances_busy.to_string(),
        ];
        table.push((requests, row));
    }
    write_table(out, ["CELL", "REQ/S", "5XX/S", "P50", "P99", "IN FLIGHT", "BUSY"], table, rows);
}

fn edges(out: &mut String, before: &State, now: &State, seconds: f64, rows: usize) {
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
        let row = [who, rate(calls, seconds), rate(errors, seconds), quantile(0.5), quantile(0.99)];
        table.push((calls, row));
    }
    write_table(out, ["CALLS", "PER S", "ERRORS/S", "P50", "P99"], table, rows);
}

/// The busiest first; nothing where there is nothing.
fn write_table<const N: usize>(
    out: &mut String,
    head: [&str; N],
    mut table: Vec<(u64, [String; N])>,
    rows: usize,
) {
    if table.is_empty() {
        return;
    }
    table.sort_by(|(busy, row), (other_busy, other)| other_busy.cmp(busy).then(row[0].cmp(&other[0])));
    let left_out = table.len().saturating_sub(rows);
    table.truncate(rows);
    let lines = std::iter::once(head.map(str::to_owned)).chain(table.into_iter().map(|(_, row)| row));
    let lines: Vec<[String; N]> = lines.collect();
    let width =
        |column: usize| lines.iter().map(|line| line[column].chars().count()).max().unwrap_or_default();
    let widths: [usize; N] = std::array::from_fn(width);
    for line in &lines {
        let _ = write!(out, "{:<width$}", line[0], width = widths[0]);
        for (value, width) in line.iter().zip(widths).skip(1) {
            let _ = write!(out, "  {value:>width$}");
        }
        out.push('\n');
    }
    if left_out > 0 {
        let _ = writeln!(out, "and {left_out} more");
    }
    out.push('\n');
}

fn since(now: &Histogram, before: Option<&Histogram>) -> Vec<u64> {
    let old = |place: usize| before.and_then(|before| before.buckets.get(place)).copied().unwrap_or_default();
    now.buckets.iter().enumerate().map(|(place, count)| count.saturating_sub(old(place))).collect()
}

/// The time that so large a share stayed below, linear inside a bucket; beyond the last bound that is said.
///
/// Source: `histogram_quantile` of Prometheus.
fn quantile(buckets: &[u64], bounds: &[f64], share: f64) -> String {
    let all = buckets.iter().copied().fold(0, u64::saturating_add);
    if all == 0 {
        return "-".into();
    }
    // Counts of a second or an hour are far below 2^53.
    let wanted = all as f64 * share;
    let (mut below, mut lower) = (0.0, 0.0);
    for (count, bound) in buckets.iter().zip(bounds) {
        let count = *count as f64;
        if below + count >= wanted && count > 0.0 {
            return time(lower + (bound - lower) * ((wanted - below) / count));
        }
        (below, lower) = (below + count, *bound);
    }
    format!("> {}", time(lower))
}

fn rate(count: u64, seconds: f64) -> String {
    let rate = count as f64 / seconds;
    if rate >= 100.0 || rate == 0.0 { format!("{rate:.0}") } else { format!("{rate:.1}") }
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

    fn state(uptime: u64, requests: u64, buckets: [u64; 3]) -> State {
        let text = format!(
            r#"{{"command": "run", "uptime_seconds": {uptime}, "missing": [],
                "process": {{"cpu_seconds": {uptime}, "memory_bytes": 52428800, "descriptors": 9}},
                "histogram_bounds_seconds": [0.001, 0.01],
                "cells": [{{"service": "s0", "requests": {requests}, "in_flight": 2, "answered": {{"5xx": {uptime}}},
                            "duration": {{"buckets": {buckets:?}}}, "instances_busy": 1}}],
                "edges": [{{"from": null, "to": "s0", "calls": {requests}, "errors": 0, "duration": {{"buckets": {buckets:?}}}}}],
                "gauges": [{{"name": "connections", "value": 3, "max": 100, "unit": ""}},
                           {{"name": "idle", "value": 0, "max": null, "unit": ""}}]}}"#
        );
        serde_json::from_str(&text).unwrap()
    }

    /// Rates and quantiles are of what happened between two looks.
    #[test]
    fn page_tells_what_happened_between_two_looks() {
        let page = page("here:1", &state(10, 100, [50, 50, 0]), &state(12, 120, [60, 59, 1]), 20);
        let expected = "\
cellmesh run at here:1: ready
up 12 s   cpu 100 %   memory 50 MiB   descriptors 9

CELL  REQ/S  5XX/S     P50        P99  IN FLIGHT  BUSY
s0     10.0    1.0  1.0 ms  > 10.0 ms          2     1

CALLS          PER S  ERRORS/S     P50        P99
clients -> s0   10.0         0  1.0 ms  > 10.0 ms

connections: 3 of 100
";
        assert_eq!(page, expected);
    }

    /// A process that was started again is looked at from its start; one that does nothing says so.
    #[test]
    fn restart_counts_anew() {
        let again = page("here:1", &state(10, 100, [50, 50, 0]), &state(1, 3, [3, 0, 0]), 20);
        assert!(again.contains("s0      3.0"), "{again}");
        let idle = page("here:1", &state(10, 100, [50, 50, 0]), &state(11, 100, [50, 50, 0]), 20);
        assert!(idle.contains("s0        0    1.0    -    -"), "{idle}");
    }
}
