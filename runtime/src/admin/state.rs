//! `/v1/state`: what the metrics say of cells, of services and of who calls whom, as one JSON object, for people's eyes.

use std::collections::BTreeMap;
use std::time::{SystemTime, UNIX_EPOCH};

use cellmesh_dpa::{DpaStats, RingStats, WorkerCount};
use cellmesh_dpu::histogram::{BOUNDS, Histogram};
use cellmesh_dpu::policy::breaker::BreakerState;
use cellmesh_dpu::{DpuBounds, DpuStats, HeadProblem, Reason, ServiceStats, TurnedAway};
use cellmesh_shm::message::Fault;
use serde_json::{Value, json};

use super::metrics::{self, Counts, sum_each};
use super::{About, Health, process};
use crate::worker::{CallKind, CallStats, CallsTo, CellStats};

/// All cells of a process, by their services.
type Cells<'c> = BTreeMap<&'c str, CellStats>;

/// The object. Counters and histograms grow as long as the process lives: who wants a rate takes two of them.
pub(super) fn json(about: &About, health: &Health, lanes: &[Counts]) -> String {
    let process = process::Usage::now();
    let missing = health.lines();
    let cells = metrics::cells(lanes);
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
            "descriptors_max": process.descriptors_max,
        },
        "histogram_bounds_seconds": BOUNDS.map(|bound| bound.as_secs_f64()),
        "hosts_cells": about.pool.is_some(),
        "cells": cells.iter().map(|(service, cell)| of_cell(service, cell)).collect::<Vec<_>>(),
        "edges": edges(lanes, &cells),
        "services": services(about, lanes),
        "refused": refused(lanes),
        "custody": custody(lanes),
        "gauges": gauges(about, lanes, &cells),
    })
    .to_string()
}

fn of_cell(service: &str, cell: &CellStats) -> Value {
    let [other, informed, well, moved, refused, failed] = cell.answered;
    let ended = cell.answered.iter().sum::<u64>() + cell.cancelled;
    json!({
        "service": service,
        "requests": cell.received,
        "in_flight": cell.received.saturating_sub(ended),
        "cancelled": cell.cancelled,
        "answered": {
            "1xx": informed, "2xx": well, "3xx": moved, "4xx": refused, "5xx": failed, "other": other,
        },
        "duration": histogram(&cell.requests),
        "calls": CallKind::ALL.map(|kind| of_calls(kind, &cell.calls(kind))),
        "faults": cell.faults,
        "instances_made": cell.instances_made,
        "instances_busy": cell.instances_busy,
        "memory_bytes": cell.memory_bytes,
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

/// A service as the network side and the DPA see it.
#[derive(Default)]
struct OfService {
    /// What clients had of it, if this process has clients.
    clients: Option<ServiceStats>,
    /// Who serves it, if workers are other processes.
    workers: Option<WorkerCount>,
    /// Whether it is left alone, if a policy may: all lanes have one circuit.
    circuit_open: Option<bool>,
}

/// All services that this process leads to, by what is known of each.
fn services(about: &About, lanes: &[Counts]) -> Vec<Value> {
    let mut services: BTreeMap<&str, OfService> = BTreeMap::new();
    for stats in lanes.iter().flat_map(|lane| &lane.services) {
        services.entry(&stats.service).or_default().clients.get_or_insert_default().add(stats);
    }
    for (service, count) in lanes.iter().flat_map(|lane| &lane.workers) {
        let workers = services.entry(service).or_default().workers.get_or_insert_default();
        workers.attached += count.attached;
        workers.ejected += count.ejected;
    }
    for policy in lanes.iter().flat_map(|lane| &lane.policies) {
        if let Some(tries) = &policy.tries {
            let open = services.entry(&policy.service).or_default().circuit_open.get_or_insert_default();
            *open |= tries.circuit != BreakerState::Closed;
        }
    }
    services.iter().map(|(name, service)| of_service(about, name, service)).collect()
}

fn of_service(about: &About, name: &str, service: &OfService) -> Value {
    json!({
        "service": name,
        "elsewhere": about.dpu.egress.leads_to(name),
        "clients": service.clients.as_ref().map(|stats| json!({
            "requests": stats.received,
            "answered": stats.answered,
            "failed": stats.failed,
            "refused": stats.refused,
            "refused_for": counted(Reason::ALL.map(Reason::word), stats.refused_for),
            "abandoned": stats.abandoned,
            "in_flight": stats.in_flight,
            "duration": histogram(&stats.durations),
        })),
        "workers": service.workers.map(|count| json!({ "attached": count.attached, "ejected": count.ejected })),
        "circuit_open": service.circuit_open,
    })
}

/// What was refused by reason, with what is for no service, in a process with clients.
fn refused(lanes: &[Counts]) -> Option<Value> {
    let dpus: Vec<&DpuStats> = lanes.iter().filter_map(|lane| lane.dpu.as_ref()).collect();
    let requests = sum_each(dpus.iter().map(|dpu| dpu.refused_for));
    let connections = sum_each(dpus.iter().map(|dpu| dpu.connections_refused));
    let heads = sum_each(dpus.iter().map(|dpu| dpu.heads_refused));
    (!dpus.is_empty()).then(|| {
        json!({
            "requests": counted(Reason::ALL.map(Reason::word), requests),
            "connections": counted(TurnedAway::REASONS, connections),
            "heads": counted(HeadProblem::ALL.map(HeadProblem::word), heads),
        })
    })
}

/// What was counted, by its names. Only what there was.
fn counted<const N: usize>(names: [&'static str; N], counts: [u64; N]) -> BTreeMap<&'static str, u64> {
    names.into_iter().zip(counts).filter(|(_, count)| *count > 0).collect()
}

/// What became of requests between endpoints, in a process with a DPA.
fn custody(lanes: &[Counts]) -> Option<Value> {
    let dpas: Vec<DpaStats> = lanes.iter().filter_map(|lane| lane.dpa).collect();
    let sum = |of: &dyn Fn(&DpaStats) -> u64| dpas.iter().map(of).sum::<u64>();
    let faults = Fault::ALL.into_iter().filter(|fault| *fault != Fault::None);
    let faults: BTreeMap<&str, u64> =
        faults.map(|fault| (fault.code(), sum(&|dpa| dpa.faulted_for(fault)))).collect();
    (!dpas.is_empty()).then(|| json!({ "requests": sum(&|dpa| dpa.received), "faults": faults }))
}

/// Who calls whom: clients (null) by what the DPU routed, cells by what they sent.
fn edges(lanes: &[Counts], cells: &Cells<'_>) -> Vec<Value> {
    let mut clients: BTreeMap<&str, (u64, u64, Histogram)> = BTreeMap::new();
    for stats in lanes.iter().flat_map(|lane| &lane.services) {
        let (calls, errors, durations) = clients.entry(&stats.service).or_default();
        *calls += stats.received;
        *errors += stats.refused + stats.failed;
        durations.add(&stats.durations);
    }
    let clients = clients.into_iter().filter(|(_, (calls, ..))| *calls > 0);
    let clients = clients.map(|(to, (calls, errors, durations))| edge(None, to, calls, errors, &durations));
    let mut edges: Vec<Value> = clients.collect();
    for (from, cell) in cells {
        edges.extend(cell.egress.iter().map(|(to, calls)| {
            let CallsTo { errors, durations } = calls.sum();
            edge(Some(from), to, durations.count(), errors, &durations)
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

/// How full something is that has a bound, or how many there are of something.
fn gauge(name: &str, value: u64, max: Option<u64>, unit: &str, help: &str) -> Value {
    json!({ "name": name, "value": value, "max": max, "unit": unit, "help": help })
}

fn gauges(about: &About, lanes: &[Counts], cells: &Cells<'_>) -> Vec<Value> {
    let mut gauges = Vec::new();
    let dpus: Vec<DpuStats> = lanes.iter().filter_map(|lane| lane.dpu).collect();
    if !dpus.is_empty() {
        gauges.extend(of_dpus(&dpus));
    }
    let dpas: Vec<DpaStats> = lanes.iter().filter_map(|lane| lane.dpa).collect();
    if !dpas.is_empty() {
        gauges.extend(of_dpas(&dpas));
    }
    if let Some(pool) = &about.pool {
        let help = "Guest calls longer than a tick that no thread runs now.";
        gauges.push(gauge("calls that wait for the pool", pool.waiting() as u64, None, "", help));
        let (busy, threads) = (pool.busy() as u64, pool.threads() as u64);
        gauges.push(gauge("busy threads of the pool", busy, Some(threads), "", "They run such calls."));
        let sum = |of: fn(&CellStats) -> u64| cells.values().map(of).sum::<u64>();
        let (busy, max) = (sum(|cell| cell.instances_busy), sum(|cell| cell.instances_max));
        gauges.push(gauge("busy instances", busy, Some(max), "", "Instances of cells with a call on them."));
    }
    gauges
}

fn of_dpus(dpus: &[DpuStats]) -> [Value; 7] {
    let sum = |of: fn(&DpuStats) -> u64| dpus.iter().map(of).sum::<u64>();
    let bounds = DpuBounds::of(dpus);
    let connections_max = u64::from(bounds.connections_max);
    let (bodies_max, answers_max) = (bounds.buffered_bytes_max, bounds.answer_bytes_max);
    let (connections, requests) = (sum(|dpu| dpu.connections_open.into()), sum(|dpu| dpu.dispatched.into()));
    let (bodies, answers) = (sum(|dpu| dpu.buffered_bytes), sum(|dpu| dpu.answer_bytes));
    let elsewhere = sum(|dpu| dpu.egress_open as u64);
    [
        gauge("connections", connections, Some(connections_max), "", "Open connections of clients."),
        gauge(
            "requests in the mesh",
            requests,
            Some(bounds.requests_max),
            "",
            "Given to the mesh and not answered.",
        ),
        gauge("request bodies", bodies, Some(bodies_max), "bytes", "Bodies of requests that the DPU holds."),
        gauge("answers", answers, Some(answers_max), "bytes", "Answers that clients have not taken yet."),
        gauge(
            "calls through the DPU",
            sum(DpuStats::relays_in_flight),
            Some(bounds.relays_max),
            "",
            "Calls of cells that it makes or passes on, not answered.",
        ),
        gauge("calls off the node", elsewhere, None, "", "Of these, calls to hosts elsewhere."),
        gauge(
            "addresses left out",
            DpuStats::egress_ejected_of(dpus) as u64,
            None,
            "",
            "Addresses off this node that only failed of late.",
        ),
    ]
}

fn of_dpas(dpas: &[DpaStats]) -> [Value; 6] {
    let sum = |of: fn(&DpaStats) -> u64| dpas.iter().map(of).sum::<u64>();
    let (live, parked) = (sum(|dpa| dpa.live.into()), sum(|dpa| dpa.parked_now as u64));
    let (endpoints, ejected) = (sum(|dpa| dpa.endpoints as u64), sum(|dpa| dpa.ejected_now as u64));
    let waiting = |of: fn(&RingStats) -> [u64; 2]| {
        dpas.iter().flat_map(|dpa| [of(&dpa.workers), of(&dpa.sidecars)]).flatten().sum::<u64>()
    };
    let to_endpoints = [waiting(|rings| rings.to_waiting), waiting(|rings| rings.to_waiting_max)];
    let from_endpoints = [waiting(|rings| rings.from_waiting), waiting(|rings| rings.from_waiting_max)];
    let slots_max = sum(|dpa| dpa.slots_max.into());
    [
        gauge("custody slots", live, Some(slots_max), "", "Requests in flight in the DPA."),
        gauge("frames that wait for a ring", parked, None, "", "Their ring is full: back-pressure."),
        gauge(
            "waiting for endpoints",
            to_endpoints[0],
            Some(to_endpoints[1]),
            "bytes",
            "In rings that workers and sidecars have to read.",
        ),
        gauge(
            "waiting for the DPA",
            from_endpoints[0],
            Some(from_endpoints[1]),
            "bytes",
            "In rings that workers and sidecars have written.",
        ),
        gauge("endpoints", endpoints, None, "", "Lanes of workers and sidecars that are attached."),
        gauge("workers left out", ejected, None, "", "Workers that only failed of late."),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is refused is told by reason, of all lanes together: of each service, and of all that came.
    #[test]
    fn refusals_say_why() {
        let mut stats = ServiceStats { service: "s".into(), refused: 2, ..ServiceStats::default() };
        stats.refused_for[Reason::Deadline as usize] = 2;
        let mut dpu = DpuStats { connections_refused: [0, 3, 0], ..DpuStats::default() };
        dpu.refused_for[Reason::Deadline as usize] = 2;
        dpu.refused_for[Reason::UnknownService as usize] = 1;
        let lane = Counts { dpu: Some(dpu), services: vec![stats], ..Counts::default() };
        let found = refused(&[lane.clone(), lane.clone()]);
        let expected = json!({
            "requests": { "deadline": 4, "unknown-service": 2 },
            "connections": { "per-address-max": 6 },
            "heads": {},
        });
        assert_eq!(found, Some(expected));
        assert_eq!(refused(&[Counts::default()]), None);
        let counted = counted(Reason::ALL.map(Reason::word), lane.services[0].refused_for);
        assert_eq!(counted, BTreeMap::from([("deadline", 2)]));
    }

    /// To a client a request has failed if the mesh refused it, and if a cell answered so.
    #[test]
    fn errors_of_clients_are_refusals_and_failed_answers() {
        let stats = ServiceStats {
            service: "s".into(),
            received: 5,
            answered: 4,
            failed: 2,
            refused: 1,
            ..ServiceStats::default()
        };
        let lane = Counts { services: vec![stats], ..Counts::default() };
        let edges = edges(&[lane.clone(), lane], &Cells::new());
        let [edge] = &edges[..] else { panic!("{edges:?}") };
        assert_eq!((&edge["from"], &edge["to"]), (&Value::Null, &"s".into()));
        assert_eq!((&edge["calls"], &edge["errors"]), (&10.into(), &6.into()));
    }
}
