//! `/v1/state`: what the metrics say of cells and of who calls whom, as one JSON object, for people's eyes.

use std::collections::BTreeMap;
use std::time::{SystemTime, UNIX_EPOCH};

use cellmesh_dpu::histogram::{BOUNDS, Histogram};
use serde_json::{Value, json};

use super::metrics::Counts;
use super::{About, Health, process};
use crate::worker::{CallKind, CallStats, CallsTo, CellStats};

/// The object. Counters and histograms grow as long as the process lives: who wants a rate takes two of them.
pub(super) fn json(about: &About, health: &Health, lanes: &[Counts]) -> String {
    let process = process::Usage::now();
    let missing = health.lines();
    json!({
        "version": env!("CARGO_PKG_VERSION"),
        "command": about.command,
        "now_ms": SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64() * 1000.0,
        "uptime_seconds": about.started.elapsed().as_secs_f64(),
        "ready": missing.is_empty(),
        "missing": missing,
        "process": {
            "cpu_seconds": process.cpu.as_secs_f64(),
            "memory_bytes": process.memory_bytes,
            "descriptors": process.descriptors,
        },
        "histogram_bounds_seconds": BOUNDS.map(|bound| bound.as_secs_f64()),
        "cells": cells(lanes),
        "edges": edges(lanes),
        "gauges": gauges(about, lanes),
    })
    .to_string()
}

fn summed(lanes: &[Counts]) -> BTreeMap<&str, CellStats> {
    let mut cells: BTreeMap<&str, CellStats> = BTreeMap::new();
    for (service, stats) in lanes.iter().flat_map(|lane| &lane.cells) {
        cells.entry(service).or_default().add(stats);
    }
    cells
}

fn cells(lanes: &[Counts]) -> Vec<Value> {
    summed(lanes).into_iter().map(|(service, cell)| of_cell(service, &cell)).collect()
}

fn of_cell(service: &str, cell: &CellStats) -> Value {
    let [other, informed, well, moved, refused, failed] = cell.answered;
    let ended = cell.answered.iter().sum::<u64>() + cell.cancelled;
    let calls = CallKind::ALL.into_iter().zip(&cell.calls);
    json!({
        "service": service,
        "requests": cell.received,
        "in_flight": cell.received.saturating_sub(ended),
        "cancelled": cell.cancelled,
        "answered": {
            "1xx": informed, "2xx": well, "3xx": moved, "4xx": refused, "5xx": failed, "other": other,
        },
        "duration": histogram(&cell.requests),
        "calls": calls.map(|(kind, call)| of_calls(kind, call)).collect::<Vec<_>>(),
        "faults": cell.faults,
        "instances_made": cell.instances_made,
        "instances_busy": cell.instances_busy,
        "request_bytes": cell.request_bytes,
        "response_bytes": cell.response_bytes,
    })
}

fn of_calls(kind: CallKind, calls: &CallStats) -> Value {
    json!({
        "kind": kind.name(),
        "duration": histogram(&calls.duration),
        "queue": histogram(&calls.queue),
        "run": histogram(&calls.run),
    })
}

/// Who calls whom: clients (null) by what the DPU routed, cells by what they sent.
fn edges(lanes: &[Counts]) -> Vec<Value> {
    let mut clients: BTreeMap<&str, (u64, u64, Histogram)> = BTreeMap::new();
    for stats in lanes.iter().flat_map(|lane| &lane.services) {
        let (calls, errors, durations) = clients.entry(&stats.service).or_default();
        *calls += stats.received;
        *errors += stats.refused;
        durations.add(&stats.durations);
    }
    let clients = clients.into_iter().filter(|(_, (calls, ..))| *calls > 0);
    let clients = clients.map(|(to, (calls, errors, durations))| edge(None, to, calls, errors, &durations));
    let mut edges: Vec<Value> = clients.collect();
    for (from, cell) in &summed(lanes) {
        edges.extend(cell.egress.iter().map(|(to, CallsTo { errors, durations })| {
            edge(Some(from), to, durations.count(), *errors, durations)
        }));
    }
    edges
}

fn edge(from: Option<&str>, to: &str, calls: u64, errors: u64, durations: &Histogram) -> Value {
    json!({ "from": from, "to": to, "calls": calls, "errors": errors, "duration": histogram(durations) })
}

fn histogram(durations: &Histogram) -> Value {
    json!({
        "count": durations.count(),
        "sum_seconds": durations.sum().as_secs_f64(),
        "buckets": durations.buckets(),
    })
}

fn gauges(about: &About, lanes: &[Counts]) -> Vec<Value> {
    let mut gauges = Vec::new();
    let mut add = |name: &str, value: u64, max: Option<u64>, unit: &str, help: &str| {
        gauges.push(json!({ "name": name, "value": value, "max": max, "unit": unit, "help": help }));
    };
    let dpus = || lanes.iter().filter_map(|lane| lane.dpu);
    if dpus().next().is_some() {
        let count = dpus().count() as u64;
        let (requests_max, connections_max) = (about.dpu.requests_max, about.dpu.connections_max);
        let (body_max, answer_max) = (about.dpu.buffered_bytes_max.0, about.dpu.answer_bytes_max.0);
        let of = |of: fn(&cellmesh_dpu::DpuStats) -> u64| dpus().map(|dpu| of(&dpu)).sum::<u64>();
        add(
            "connections",
            of(|dpu| dpu.connections_open.into()),
            Some(connections_max.into()),
            "",
            "Open connections of clients.",
        );
        add(
            "requests in the mesh",
            of(|dpu| dpu.dispatched.into()),
            Some(u64::from(requests_max) * count),
            "",
            "Given to the mesh and not answered.",
        );
        add(
            "request bodies",
            of(|dpu| dpu.buffered_bytes),
            Some(body_max * count),
            "bytes",
            "Bodies of requests that the DPU holds.",
        );
        add(
            "answers",
            of(|dpu| dpu.answer_bytes),
            Some(answer_max * count),
            "bytes",
            "Answers that clients have not taken yet.",
        );
        add(
            "calls off the node",
            of(|dpu| dpu.egress_open as u64),
            Some(u64::from(about.dpu.relays_max) * count),
            "",
            "Calls of cells to hosts elsewhere, not answered.",
        );
    }
    let dpas = || lanes.iter().filter_map(|lane| lane.dpa);
    if dpas().next().is_some() {
        let of = |of: fn(&cellmesh_dpa::DpaStats) -> u64| dpas().map(|dpa| of(&dpa)).sum::<u64>();
        add(
            "custody slots",
            of(|dpa| dpa.live.into()),
            Some(about.slots_max),
            "",
            "Requests in flight in the DPA.",
        );
        add(
            "frames that wait for a ring",
            of(|dpa| dpa.parked_now as u64),
            None,
            "",
            "Their ring is full: back-pressure.",
        );
        add(
            "endpoints",
            of(|dpa| dpa.endpoints as u64),
            None,
            "",
            "Lanes of workers and sidecars that are attached.",
        );
    }
    if let Some(pool) = &about.pool {
        add(
            "calls that wait for the pool",
            pool.waiting() as u64,
            None,
            "",
            "Guest calls longer than a tick that no thread runs now.",
        );
    }
    let busy = summed(lanes).values().map(|cell| cell.instances_busy).sum();
    if lanes.iter().any(|lane| !lane.cells.is_empty()) {
        add("busy instances", busy, None, "", "Instances of cells with a call on them.");
    }
    gauges
}
