//! Counters of all lanes as text for Prometheus.
//!
//! - Nothing is kept up to date for this: each lane is asked when somebody asks for the text, and answers between two pumps.
//! - What there is: `families.rs`; how it is written: `text.rs`; this file says where each value comes from.
//! - `received = answered + refused + abandoned + inflight` holds in every answer, and of the DPA
//!   `requests = answered + faulted + abandoned + in custody`.

mod families;
mod labels;
mod services;
mod text;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use cellmesh_dpa::{DpaHost, DpaStats, WorkerCount};
use cellmesh_dpu::policy::breaker::BreakerState;
use cellmesh_dpu::policy::{PolicyStats, TryCounts};
use cellmesh_dpu::{Dpu, DpuBounds, DpuStats, HeadProblem, Histogram, Reason, ServiceStats, TurnedAway};
use cellmesh_shm::frame::FrameError;
use cellmesh_shm::message::Fault;
use cellmesh_shm::ring::Batches;

use self::families::{self as f, Family};
use self::text::{Seconds, Text};
use super::process::Usage;
use crate::host::CellFault;
use crate::pool::Pool;
use crate::trace::{Exported, LeftOut};
use crate::worker::{CallStats, CellStats, Meters};

/// What a lane knows.
#[derive(Debug, Clone, Default)]
pub struct Counts {
    /// Of its DPU, if it has one.
    pub dpu: Option<DpuStats>,
    /// Of the services on its DPU.
    pub services: Vec<ServiceStats>,
    /// Of the policies of services on its DPU.
    pub policies: Vec<PolicyStats>,
    /// Of its DPA, if it can be asked.
    pub dpa: Option<DpaStats>,
    /// Of the workers of each service that are other processes.
    pub workers: Vec<(String, WorkerCount)>,
    /// Of the cells on it, by service.
    pub cells: Vec<(Arc<str>, CellStats)>,
    /// What its worker has written into the rings to the DPA, if it has one: small, bulk.
    pub written: Option<[Batches; 2]>,
}

impl Counts {
    /// What this sidecar knows.
    #[must_use]
    pub fn of_dpu(dpu: &Dpu) -> Self {
        Self {
            dpu: Some(dpu.stats()),
            services: dpu.service_stats(),
            policies: dpu.policy_stats(),
            ..Self::default()
        }
    }
}

impl Counts {
    /// What this DPA knows.
    #[must_use]
    pub fn of_host(host: &DpaHost) -> Self {
        Self { dpa: Some(host.stats()), workers: host.workers(), ..Self::default() }
    }

    /// What this worker's lane knows.
    #[must_use]
    pub fn of_worker(meters: &Meters) -> Self {
        Self { cells: meters.stats(), written: Some(meters.written()), ..Self::default() }
    }
}

/// How often config was read again, and how it went. A cheap handle.
#[derive(Debug, Clone, Default)]
pub struct Reloads(Arc<ReloadCounts>);

#[derive(Debug, Default)]
struct ReloadCounts {
    applied: AtomicU64,
    refused: AtomicU64,
    /// 1 if the last one was refused.
    last_refused: AtomicU64,
}

impl Reloads {
    /// How it can go, in one word for metrics each.
    const OUTCOMES: [&'static str; 2] = ["applied", "refused"];

    /// A file was taken over.
    pub fn applied(&self) {
        // Relaxed, here and below: counters that nothing else depends on.
        self.0.applied.fetch_add(1, Ordering::Relaxed);
        self.0.last_refused.store(0, Ordering::Relaxed);
    }

    /// A file was refused, or could not be read.
    pub fn refused(&self) {
        self.0.refused.fetch_add(1, Ordering::Relaxed);
        self.0.last_refused.store(1, Ordering::Relaxed);
    }

    /// The file is not what is in force, whatever else was taken over.
    pub fn still_refused(&self) {
        self.0.last_refused.store(1, Ordering::Relaxed);
    }

    /// Whether the file is not what is in force.
    #[must_use]
    pub fn is_refused(&self) -> bool {
        self.0.last_refused.load(Ordering::Relaxed) == 1
    }

    fn write(&self, text: &mut Text) {
        let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let counts = [of(&self.0.applied), of(&self.0.refused)];
        by_word(text, &f::CONFIG_RELOADS, Self::OUTCOMES, counts);
        text.one(&f::CONFIG_LAST_RELOAD, u64::from(!self.is_refused()));
    }
}

/// Of what runs the cells. It does not say so itself: a test compares this with the lock file.
const WASMTIME_VERSION: &str = "48.0.8";

/// What a process has beside its lanes and its config.
#[derive(Debug, Clone, Copy)]
pub(super) struct Beside<'p> {
    pub(super) exported: Option<&'p Exported>,
    pub(super) left_out: &'p LeftOut,
    pub(super) pool: Option<&'p Pool>,
    /// When the certificate ends that clients are shown.
    pub(super) certificate_until: Option<SystemTime>,
}

/// The text of a scrape.
pub(super) fn text(lanes: &[Counts], reloads: Option<&Reloads>, beside: &Beside<'_>) -> String {
    let mut text = Text::default();
    text.family(&f::BUILD_INFO, [(&[env!("CARGO_PKG_VERSION"), WASMTIME_VERSION][..], 1)]);
    of_process(&mut text);
    if let Some(reloads) = reloads {
        reloads.write(&mut text);
    }
    if let Some(exported) = beside.exported {
        by_word(&mut text, &f::TRACES_EXPORTED, Exported::OUTCOMES, exported.counts());
    }
    text.one(&f::TRACES_LEFT_OUT, beside.left_out.count());
    let dpus: Vec<DpuStats> = lanes.iter().filter_map(|lane| lane.dpu).collect();
    if !dpus.is_empty() {
        of_dpus(&mut text, &dpus);
    }
    let certificate_until = beside.certificate_until.map(|until| until.duration_since(UNIX_EPOCH));
    if let Some(Ok(until)) = certificate_until {
        text.one(&f::TLS_CERTIFICATE_END, Seconds(until));
    }
    let of_services = lanes.iter().flat_map(|lane| &lane.services);
    services::write(&mut text, &by_name(of_services.map(|stats| (stats.service.as_str(), stats))));
    of_policies(&mut text, lanes);
    let policies = lanes.iter().flat_map(|lane| &lane.policies);
    let tries = policies.filter_map(|policy| Some((policy.service.as_str(), policy.tries.as_ref()?)));
    of_tries(&mut text, &by_name(tries));
    of_cells(&mut text, lanes);
    beside.pool.iter().for_each(|pool| of_pool(&mut text, pool));
    let dpas: Vec<DpaStats> = lanes.iter().filter_map(|lane| lane.dpa).collect();
    if !dpas.is_empty() {
        of_dpas(&mut text, &dpas);
        state_of_dpas(&mut text, &dpas);
    }
    of_workers(&mut text, lanes);
    of_rings(&mut text, lanes);
    text.into_string()
}

/// What the kernel knows of this process. What cannot be read is left out.
fn of_process(text: &mut Text) {
    let usage = Usage::now();
    text.one(&f::PROCESS_CPU, Seconds(usage.cpu));
    if let Some(bytes) = usage.memory_bytes {
        text.one(&f::PROCESS_MEMORY, bytes);
    }
    if let Some(descriptors) = usage.descriptors {
        text.one(&f::PROCESS_DESCRIPTORS, descriptors);
    }
    if let Some(descriptors) = usage.descriptors_max {
        text.one(&f::PROCESS_DESCRIPTORS_MAX, descriptors);
    }
    if let Some(started) = usage.started {
        text.one(&f::PROCESS_START, Seconds(started));
    }
}

fn of_dpus(text: &mut Text, dpus: &[DpuStats]) {
    let mut sum =
        |family: &Family, of: fn(&DpuStats) -> u64| text.one(family, dpus.iter().map(of).sum::<u64>());
    sum(&f::REQUESTS_RECEIVED, |dpu| dpu.received);
    sum(&f::REQUESTS_ANSWERED, |dpu| dpu.answered);
    sum(&f::REQUESTS_ABANDONED, |dpu| dpu.abandoned);
    sum(&f::REQUESTS_IN_FLIGHT, |dpu| dpu.in_flight);
    sum(&f::CALLS_RELAYED, |dpu| dpu.relayed);
    sum(&f::EGRESS_CALLS, |dpu| dpu.egress_sent);
    sum(&f::EGRESS_FAILURES, |dpu| dpu.egress_failed);
    sum(&f::EGRESS_OPEN, |dpu| dpu.egress_open as u64);
    sum(&f::EGRESS_EJECTIONS, |dpu| dpu.egress_ejections);
    sum(&f::TLS_FAILURES, |dpu| dpu.tls_failed);
    sum(&f::BAD_RESPONSES, |dpu| dpu.bad_responses);
    sum(&f::CONNECTIONS_OPEN, |dpu| dpu.connections_open.into());
    sum(&f::REQUEST_BODY_BYTES, |dpu| dpu.buffered_bytes);
    sum(&f::ANSWER_BODY_BYTES, |dpu| dpu.answer_bytes);
    sum(&f::REQUESTS_DISPATCHED, |dpu| dpu.dispatched.into());
    sum(&f::RELAYED_OPEN, DpuStats::relays_in_flight);
    text.one(&f::EGRESS_EJECTED, DpuStats::egress_ejected_of(dpus) as u64);
    bounds_of_dpus(text, dpus);
    refused_by(text, dpus);
}

fn bounds_of_dpus(text: &mut Text, dpus: &[DpuStats]) {
    let bounds = DpuBounds::of(dpus);
    text.one(&f::CONNECTIONS_MAX, bounds.connections_max);
    text.one(&f::REQUESTS_DISPATCHED_MAX, bounds.requests_max);
    text.one(&f::RELAYED_MAX, bounds.relays_max);
    text.one(&f::REQUEST_BODY_BYTES_MAX, bounds.buffered_bytes_max);
    text.one(&f::ANSWER_BODY_BYTES_MAX, bounds.answer_bytes_max);
}

/// What was refused, by reason.
fn refused_by(text: &mut Text, dpus: &[DpuStats]) {
    let refused = sum_each(dpus.iter().map(|dpu| dpu.refused_for));
    by_word(text, &f::REQUESTS_REFUSED, Reason::ALL.map(Reason::word), refused);
    let heads = sum_each(dpus.iter().map(|dpu| dpu.heads_refused));
    by_word(text, &f::HEADS_REFUSED, HeadProblem::ALL.map(HeadProblem::word), heads);
    let connections = sum_each(dpus.iter().map(|dpu| dpu.connections_refused));
    by_word(text, &f::CONNECTIONS_REFUSED, TurnedAway::REASONS, connections);
}

/// What all lanes together have counted at each place.
pub(super) fn sum_each<const N: usize>(lanes: impl Iterator<Item = [u64; N]>) -> [u64; N] {
    lanes.fold([0; N], |sum, counts| std::array::from_fn(|place| sum[place] + counts[place]))
}

/// A sample for each word that a label can be. Zeros too: a rate misses what a series begins with.
fn by_word<const N: usize>(text: &mut Text, family: &Family, words: [&str; N], counts: [u64; N]) {
    text.family(family, words.iter().map(std::slice::from_ref).zip(counts));
}

/// What all lanes know of each name.
type ByName<'c, C> = BTreeMap<&'c str, Vec<&'c C>>;

fn by_name<'c, C>(counts: impl Iterator<Item = (&'c str, &'c C)>) -> ByName<'c, C> {
    let mut names = ByName::new();
    counts.for_each(|(name, counts)| names.entry(name).or_default().push(counts));
    names
}

/// A sample for each name: all lanes together.
fn sums<C>(text: &mut Text, family: &Family, names: &ByName<'_, C>, of: fn(&C) -> u64) {
    let samples = names.iter().map(|(name, lanes)| {
        let sum = lanes.iter().map(|counts| of(counts)).sum::<u64>();
        (std::slice::from_ref(name), sum)
    });
    text.family(family, samples);
}

fn of_policies(text: &mut Text, lanes: &[Counts]) {
    let (mut refused, mut in_flight, mut bounds) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
    for policy in lanes.iter().flat_map(|lane| &lane.policies) {
        *in_flight.entry([policy.service.as_str()]).or_insert(0) += policy.in_flight;
        // All lanes together have one.
        bounds.extend(policy.in_flight_max.map(|max| ([policy.service.as_str()], max)));
        for (reason, count) in &policy.refused {
            *refused.entry([policy.service.as_str(), reason]).or_insert(0) += count;
        }
    }
    text.family(&f::POLICY_REFUSED, refused.iter().map(|(labels, count)| (&labels[..], count)));
    text.family(&f::POLICY_IN_FLIGHT, in_flight.iter().map(|(labels, count)| (&labels[..], count)));
    text.family(&f::POLICY_IN_FLIGHT_MAX, bounds.iter().map(|(labels, max)| (&labels[..], max)));
}

fn of_tries(text: &mut Text, services: &ByName<'_, TryCounts>) {
    sums(text, &f::RETRIES, services, |tries| tries.retries);
    sums(text, &f::RETRIES_REFUSED, services, |tries| tries.retries_refused);
    // All lanes have one circuit.
    let is_open = |lanes: &[&TryCounts]| lanes.iter().any(|tries| tries.circuit != BreakerState::Closed);
    let open = services.iter().map(|(name, lanes)| (std::slice::from_ref(name), u64::from(is_open(lanes))));
    text.family(&f::CIRCUIT_OPEN, open);
    sums(text, &f::CIRCUIT_OPENINGS, services, |tries| tries.circuit_openings);
    sums(text, &f::CIRCUIT_REFUSED, services, |tries| tries.circuit_refused);
    sums(text, &f::HEDGES, services, |tries| tries.hedges);
    sums(text, &f::HEDGES_WON, services, |tries| tries.hedges_won);
}

/// The first digit of a status, as it is written for a class.
const CODES: [&str; 6] = ["other", "1xx", "2xx", "3xx", "4xx", "5xx"];
/// Those that alerts ask for.
const CODES_ALWAYS: [&str; 3] = ["2xx", "4xx", "5xx"];

/// What all lanes together count of each cell.
pub(super) fn cells(lanes: &[Counts]) -> BTreeMap<&str, CellStats> {
    let mut cells: BTreeMap<&str, CellStats> = BTreeMap::new();
    for (service, stats) in lanes.iter().flat_map(|lane| &lane.cells) {
        cells.entry(service).or_default().add(stats);
    }
    cells
}

fn of_cells(text: &mut Text, lanes: &[Counts]) {
    let cells = cells(lanes);
    let mut all = |family: &Family, of: fn(&CellStats) -> u64| {
        text.family(family, cells.iter().map(|(service, stats)| (std::slice::from_ref(service), of(stats))));
    };
    all(&f::CELL_RECEIVED, |cell| cell.received);
    all(&f::CELL_CANCELLED, |cell| cell.cancelled);
    all(&f::CELL_REQUEST_BYTES, |cell| cell.request_bytes);
    all(&f::CELL_RESPONSE_BYTES, |cell| cell.response_bytes);
    all(&f::CELL_INSTANCES_MADE, |cell| cell.instances_made);
    all(&f::CELL_MEMORY, |cell| cell.memory_bytes);
    all(&f::CELL_INSTANCES_BUSY, |cell| cell.instances_busy);
    all(&f::CELL_INSTANCES_MAX, |cell| cell.instances_max);
    let cpu = cells.iter().map(|(service, stats)| (std::slice::from_ref(service), Seconds(stats.cpu)));
    text.family(&f::CELL_CPU, cpu);
    let mut responses = BTreeMap::new();
    let mut faults = BTreeMap::new();
    let mut egress = BTreeMap::new();
    let mut calls = BTreeMap::new();
    let mut prepared = BTreeMap::new();
    for (service, stats) in &cells {
        let service: &str = service;
        if stats.received > 0 {
            // Zeros too: a rate misses what a series begins with.
            let counts = CODES.into_iter().zip(stats.answered);
            let seen = counts.filter(|(code, count)| CODES_ALWAYS.contains(code) || *count > 0);
            responses.extend(seen.map(|(code, count)| ([service, code], count)));
            let count = |kind| stats.faults.get(kind).copied().unwrap_or_default();
            faults.extend(CellFault::KINDS.map(|kind| ([service, kind], count(kind))));
        }
        for (target, calls) in &stats.egress {
            let named = calls.named(&stats.step_names).filter(|(_, calls)| calls.durations.count() > 0);
            egress.extend(named.map(|(step, calls)| ([service, &**target, step], calls)));
        }
        let stood = stats.prepared.named(&stats.step_names).filter(|(_, count)| **count > 0);
        prepared.extend(stood.map(|(step, count)| ([service, step], *count)));
        calls.extend(stats.calls_by_step().map(|(kind, step, call)| ([service, kind.name(), step], call)));
    }
    text.family(&f::CELL_RESPONSES, responses.iter().map(|(labels, count)| (&labels[..], count)));
    text.family(&f::CELL_FAULTS, faults.iter().map(|(labels, count)| (&labels[..], count)));
    let requests = cells.iter().map(|(service, stats)| (std::slice::from_ref(service), &stats.requests));
    text.histograms(&f::CELL_DURATION, requests);
    for (family, of) in [
        (&f::STEP_DURATION, (|call| &call.duration) as fn(&CallStats) -> &Histogram),
        (&f::STEP_QUEUE, |call| &call.queue),
        (&f::STEP_RUN, |call| &call.run),
    ] {
        text.histograms(family, calls.iter().map(|(labels, call)| (&labels[..], of(call))));
    }
    // Zeros too, beside each histogram.
    let called = calls.iter().filter(|(_, call)| call.duration.count() > 0);
    text.family(&f::STEP_ERRORS, called.map(|(labels, call)| (&labels[..], call.errors)));
    text.family(&f::STEP_PREPARED, prepared.iter().map(|(labels, count)| (&labels[..], *count)));
    text.histograms(&f::STEP_EGRESS, egress.iter().map(|(labels, calls)| (&labels[..], &calls.durations)));
    text.family(&f::STEP_EGRESS_ERRORS, egress.iter().map(|(labels, calls)| (&labels[..], calls.errors)));
}

/// Why an endpoint is closed: a frame, a ring, a rule that it broke, or that it took nothing.
const EVICTED_FOR: [&str; 4] = ["frame", "ring", "rule", "stalled"];

/// What the DPA can answer itself.
fn faults() -> [Fault; Fault::ALL.len() - 1] {
    std::array::from_fn(|place| Fault::ALL[place + 1])
}

fn of_pool(text: &mut Text, pool: &Pool) {
    text.one(&f::POOL_BUSY, pool.busy());
    text.one(&f::POOL_MAX, pool.threads());
    text.one(&f::POOL_WAITING, pool.waiting());
}

fn of_dpas(text: &mut Text, dpas: &[DpaStats]) {
    let count = |of: fn(&DpaStats) -> u64| dpas.iter().map(of).sum::<u64>();
    let mut sum = |family: &Family, of: fn(&DpaStats) -> u64| text.one(family, count(of));
    sum(&f::CUSTODY_RECEIVED, |dpa| dpa.received);
    sum(&f::CUSTODY_ANSWERED, |dpa| dpa.answered);
    sum(&f::CUSTODY_ABANDONED, |dpa| dpa.abandoned);
    sum(&f::RING_FRAMES, |dpa| dpa.frames);
    sum(&f::RING_CHUNKS, |dpa| dpa.chunks);
    sum(&f::RING_FULL, |dpa| dpa.parked);
    sum(&f::REDISPATCHED, |dpa| dpa.redispatched);
    sum(&f::EJECTIONS, |dpa| dpa.ejections);
    sum(&f::LATE_RESPONSES, |dpa| dpa.late_responses);
    let faulted = faults().map(|fault| dpas.iter().map(|dpa| dpa.faulted_for(fault)).sum());
    by_word(text, &f::CUSTODY_FAULTED, faults().map(Fault::code), faulted);
    let rejected = sum_each(dpas.iter().map(|dpa| dpa.rejected));
    by_word(text, &f::RING_REJECTED, FrameError::REASONS, rejected);
    let evicted = [
        rejected.iter().sum(),
        count(|dpa| dpa.corrupt_rings),
        count(|dpa| dpa.violations),
        count(|dpa| dpa.stalled),
    ];
    by_word(text, &f::EVICTIONS, EVICTED_FOR, evicted);
}

/// What they hold now.
fn state_of_dpas(text: &mut Text, dpas: &[DpaStats]) {
    let mut sum =
        |family: &Family, of: fn(&DpaStats) -> u64| text.one(family, dpas.iter().map(of).sum::<u64>());
    sum(&f::CUSTODY_LIVE, |dpa| dpa.live.into());
    sum(&f::CUSTODY_MAX, |dpa| dpa.slots_max.into());
    sum(&f::CUSTODY_SIDECAR_MAX, |dpa| dpa.sidecar_slots_max.into());
    sum(&f::RING_DOORBELLS, |dpa| dpa.doorbells);
    sum(&f::EJECTED, |dpa| dpa.ejected_now as u64);
    sum(&f::ENDPOINTS, |dpa| dpa.endpoints as u64);
    sum(&f::RING_PARKED, |dpa| dpa.parked_now as u64);
}

/// Who serves each service, where workers are other processes.
fn of_workers(text: &mut Text, lanes: &[Counts]) {
    let workers = by_name(
        lanes.iter().flat_map(|lane| &lane.workers).map(|(service, count)| (service.as_str(), count)),
    );
    sums(text, &f::SERVICE_WORKERS, &workers, |count| count.attached as u64);
    sums(text, &f::SERVICE_EJECTED, &workers, |count| count.ejected as u64);
}

/// Rings: completion queues lead to the DPA, submission queues from it.
const RINGS: [&str; 4] = ["sidecar_cq", "sidecar_sq", "worker_cq", "worker_sq"];
/// The two rings of one direction.
const RING_KINDS: [&str; 2] = ["small", "bulk"];

/// Rings, by who reads and writes them: a completion queue leads to the DPA, a submission queue from it. Who writes into a
/// ring counts that; what waits in it is the DPA's look.
fn of_rings(text: &mut Text, lanes: &[Counts]) {
    let mut written: BTreeMap<[&str; 2], Batches> = BTreeMap::new();
    let mut waiting: BTreeMap<[&str; 2], [u64; 2]> = BTreeMap::new();
    let mut wrote = |ring: &'static str, batches: [Batches; 2]| {
        for (kind, batches) in RING_KINDS.into_iter().zip(batches) {
            written.entry([ring, kind]).or_default().add(batches);
        }
    };
    let mut waits = |ring: &'static str, bytes: [u64; 2], bytes_max: [u64; 2]| {
        for (kind, more) in RING_KINDS.into_iter().zip(bytes.into_iter().zip(bytes_max)) {
            let [sum, max] = waiting.entry([ring, kind]).or_default();
            (*sum, *max) = (*sum + more.0, *max + more.1);
        }
    };
    for lane in lanes {
        if let Some(dpa) = &lane.dpa {
            for (to, from, rings) in
                [("worker_sq", "worker_cq", dpa.workers), ("sidecar_sq", "sidecar_cq", dpa.sidecars)]
            {
                wrote(to, rings.written);
                waits(to, rings.to_waiting, rings.to_waiting_max);
                waits(from, rings.from_waiting, rings.from_waiting_max);
            }
        }
        lane.dpu.iter().for_each(|dpu| wrote("sidecar_cq", dpu.written));
        lane.written.iter().for_each(|written| wrote("worker_cq", *written));
    }
    let samples =
        |of: fn(&Batches) -> u64| written.iter().map(move |(labels, batches)| (&labels[..], of(batches)));
    text.family(&f::RING_PUBLISHED, samples(|batches| batches.frames));
    text.family(&f::RING_PUBLISHES, samples(|batches| batches.publishes));
    text.family(&f::RING_WAITING, waiting.iter().map(|(labels, [bytes, _])| (&labels[..], bytes)));
    text.family(&f::RING_WAITING_MAX, waiting.iter().map(|(labels, [_, max])| (&labels[..], max)));
}

#[cfg(test)]
mod tests;
