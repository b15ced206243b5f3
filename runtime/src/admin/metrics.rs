//! Counters of all lanes as text for Prometheus.
//!
//! - Nothing is kept up to date for this: each lane is asked when somebody asks for the text, and answers between two pumps.
//! - Names and units follow the conventions of Prometheus: base units, `_total` for what only grows.
//! - `received = answered + refused + abandoned + inflight` holds in every answer, and of the DPA
//!   `requests = answered + faulted + abandoned + in custody`.

use std::collections::BTreeMap;
use std::fmt::{Display, Write as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use cellmesh_dpa::DpaStats;
use cellmesh_dpu::policy::breaker::BreakerState;
use cellmesh_dpu::policy::{PolicyStats, TryCounts};
use cellmesh_dpu::{Dpu, DpuStats, ServiceStats};
use cellmesh_shm::frame::FrameError;
use cellmesh_shm::message::Fault;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

/// Questions that wait for a lane.
const QUESTIONS_MAX: usize = 4;

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
}

impl Counts {
    /// What this sidecar knows.
    #[must_use]
    pub fn of_dpu(dpu: &Dpu) -> Self {
        Self {
            dpu: Some(dpu.stats()),
            services: dpu.service_stats(),
            policies: dpu.policy_stats(),
            dpa: None,
        }
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

    fn write(&self, text: &mut Text) {
        let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        text.family("config_reloads_total", Kind::Counter, "Times that config was read again, by outcome.");
        text.sample("config_reloads_total{outcome=\"applied\"}", of(&self.0.applied));
        text.sample("config_reloads_total{outcome=\"refused\"}", of(&self.0.refused));
        let help = "Whether the file was right when it was read last: 1 or 0.";
        text.all(Kind::Gauge, &[("config_last_reload_success", help, 1 - of(&self.0.last_refused))]);
    }
}

/// A lane's end: it is asked here.
#[derive(Debug)]
pub struct Asked(mpsc::Receiver<oneshot::Sender<Counts>>);

/// The other end, for the admin port.
#[derive(Debug, Clone)]
pub struct Lane(mpsc::Sender<oneshot::Sender<Counts>>);

/// Both ends of the way to a lane.
#[must_use]
pub fn lane() -> (Lane, Asked) {
    let (ask, asked) = mpsc::channel(QUESTIONS_MAX);
    (Lane(ask), Asked(asked))
}

impl Asked {
    /// Answers until nobody can ask any more. Spawn it on the lane.
    pub async fn answer(mut self, counts: impl Fn() -> Counts) {
        while let Some(reply) = self.0.recv().await {
            // Who does not wait any more needs no answer.
            let _ = reply.send(counts());
        }
    }

    /// As [`Asked::answer`], for a lane with nothing but this sidecar to ask.
    pub async fn answer_of(self, dpu: Dpu) {
        self.answer(|| Counts::of_dpu(&dpu)).await;
    }
}

impl Lane {
    /// What the lane knows now. `None`: it does not answer within `patience`.
    pub(super) async fn ask(&self, patience: Duration) -> Option<Counts> {
        let (reply, counts) = oneshot::channel();
        let asked = async {
            self.0.send(reply).await.ok()?;
            counts.await.ok()
        };
        timeout(patience, asked).await.ok().flatten()
    }
}

/// The text of a scrape.
pub(super) fn text(lanes: &[Counts], reloads: Option<&Reloads>) -> String {
    let mut text = Text(String::new());
    text.family("build_info", Kind::Gauge, "Constant 1; the version is in the label.");
    text.sample(&format!("build_info{{version=\"{}\"}}", env!("CARGO_PKG_VERSION")), 1);
    if let Some(reloads) = reloads {
        reloads.write(&mut text);
    }
    let dpus: Vec<DpuStats> = lanes.iter().filter_map(|lane| lane.dpu).collect();
    if !dpus.is_empty() {
        of_dpus(&mut text, &dpus);
    }
    let services = lanes.iter().flat_map(|lane| &lane.services);
    by_service(&mut text, &SERVICES, services.map(|stats| (stats.service.as_str(), stats)));
    of_policies(&mut text, lanes);
    let policies = lanes.iter().flat_map(|lane| &lane.policies);
    let tries = policies.filter_map(|policy| Some((policy.service.as_str(), policy.tries.as_ref()?)));
    by_service(&mut text, &TRIES, tries);
    let dpas: Vec<DpaStats> = lanes.iter().filter_map(|lane| lane.dpa).collect();
    if !dpas.is_empty() {
        of_dpas(&mut text, &dpas);
    }
    text.0
}

fn of_dpus(text: &mut Text, dpus: &[DpuStats]) {
    let sum = |of: fn(&DpuStats) -> u64| dpus.iter().map(of).sum::<u64>();
    text.all(
        Kind::Counter,
        &[
            ("requests_received_total", "Requests whose head was read.", sum(|dpu| dpu.received)),
            ("requests_answered_total", "Requests answered by a cell or a host.", sum(|dpu| dpu.answered)),
            (
                "requests_refused_total",
                "Requests answered by the mesh with an error.",
                sum(|dpu| dpu.refused),
            ),
            ("requests_abandoned_total", "Requests whose client went away first.", sum(|dpu| dpu.abandoned)),
            (
                "calls_relayed_total",
                "Calls of workers that the sidecar made or passed on.",
                sum(|dpu| dpu.relayed),
            ),
            ("egress_calls_total", "Calls made off this node.", sum(|dpu| dpu.egress_sent)),
            (
                "egress_failures_total",
                "Calls off this node without an answer of their callee.",
                sum(|dpu| dpu.egress_failed),
            ),
            (
                "tls_handshake_failures_total",
                "TLS handshakes that clients began and that came to nothing.",
                sum(|dpu| dpu.tls_failed),
            ),
            ("bad_responses_total", "Answers of cells that HTTP cannot say.", sum(|dpu| dpu.bad_responses)),
        ],
    );
    text.all(
        Kind::Gauge,
        &[
            ("inflight_requests", "Requests received and not ended.", sum(|dpu| dpu.in_flight)),
            ("connections_open", "Connections of clients.", sum(|dpu| dpu.connections_open.into())),
            ("request_body_bytes", "Bytes of request bodies held.", sum(|dpu| dpu.buffered_bytes)),
            (
                "answer_body_bytes",
                "Bytes of answers that clients have not taken.",
                sum(|dpu| dpu.answer_bytes),
            ),
            (
                "egress_calls_open",
                "Calls of workers on their way off this node.",
                sum(|dpu| dpu.egress_open as u64),
            ),
        ],
    );
}

/// Counters of services with policy: each service once, all lanes together.
/// Name, kind, help, and how it is read from what a lane counts of one service.
type ServiceFamily<C> = (&'static str, Kind, &'static str, fn(&C) -> u64);

/// Families of a sample for each service: all lanes together. Nothing without services.
fn by_service<'c, C: 'c>(
    text: &mut Text,
    families: &[ServiceFamily<C>],
    counts: impl Iterator<Item = (&'c str, &'c C)>,
) {
    let mut services: BTreeMap<&str, Vec<&C>> = BTreeMap::new();
    counts.for_each(|(service, counts)| services.entry(service).or_default().push(counts));
    if services.is_empty() {
        return;
    }
    for (name, kind, help, of) in families {
        text.family(name, *kind, help);
        for (service, lanes) in &services {
            let sum = lanes.iter().map(|counts| of(counts)).sum();
            text.sample(&format!("{name}{{service=\"{service}\"}}"), sum);
        }
    }
}

const SERVICES: [ServiceFamily<ServiceStats>; 5] = [
    ("service_requests_received_total", Kind::Counter, "Requests of clients routed to a service.", |c| {
        c.received
    }),
    ("service_requests_answered_total", Kind::Counter, "Of these, answered by a cell or a host.", |c| {
        c.answered
    }),
    ("service_requests_refused_total", Kind::Counter, "Of these, answered by the mesh with an error.", |c| {
        c.refused
    }),
    ("service_requests_abandoned_total", Kind::Counter, "Of these, whose client went away first.", |c| {
        c.abandoned
    }),
    (
        "service_inflight_requests",
        Kind::Gauge,
        "Requests of clients routed to a service and not ended.",
        |c| c.in_flight,
    ),
];

fn of_policies(text: &mut Text, lanes: &[Counts]) {
    let (mut refused, mut in_flight) = (BTreeMap::new(), BTreeMap::new());
    for policy in lanes.iter().flat_map(|lane| &lane.policies) {
        *in_flight.entry(&policy.service).or_insert(0) += policy.in_flight;
        for (reason, count) in &policy.refused {
            *refused.entry((&policy.service, *reason)).or_insert(0) += count;
        }
    }
    if in_flight.is_empty() {
        return;
    }
    text.family("policy_refused_total", Kind::Counter, "Requests refused by the policy of their service.");
    for ((service, reason), count) in refused {
        let labels = format!("service=\"{service}\",reason=\"{reason}\"");
        text.sample(&format!("policy_refused_total{{{labels}}}"), count);
    }
    text.family("policy_inflight_requests", Kind::Gauge, "Requests that count for in_flight_max.");
    for (service, count) in in_flight {
        text.sample(&format!("policy_inflight_requests{{service=\"{service}\"}}"), count);
    }
}

const TRIES: [ServiceFamily<TryCounts>; 7] = [
    ("policy_retries_total", Kind::Counter, "Calls made once more because one had failed.", |c| c.retries),
    ("policy_retries_refused_total", Kind::Counter, "Retries that the budget has refused.", |c| {
        c.retries_refused
    }),
    ("circuit_open", Kind::Gauge, "Lanes that leave the service alone, or ask with one call.", |c| {
        u64::from(c.circuit != BreakerState::Closed)
    }),
    ("circuit_openings_total", Kind::Counter, "Times that the circuit opened.", |c| c.circuit_openings),
    ("circuit_refused_total", Kind::Counter, "Requests refused because the circuit is open.", |c| {
        c.circuit_refused
    }),
    ("policy_hedges_total", Kind::Counter, "Second calls made because the first was slow.", |c| c.hedges),
    ("policy_hedges_won_total", Kind::Counter, "Second calls whose answer came first.", |c| c.hedges_won),
];

fn of_dpas(text: &mut Text, dpas: &[DpaStats]) {
    let sum = |of: fn(&DpaStats) -> u64| dpas.iter().map(of).sum::<u64>();
    text.all(
        Kind::Counter,
        &[
            (
                "custody_requests_total",
                "Requests taken into custody or refused by the DPA.",
                sum(|dpa| dpa.received),
            ),
            ("custody_answered_total", "Of these, answered by their callee.", sum(|dpa| dpa.answered)),
            ("custody_abandoned_total", "Of these, given up by their caller.", sum(|dpa| dpa.abandoned)),
            ("ring_frames_total", "Small frames passed on.", sum(|dpa| dpa.frames)),
            ("ring_chunks_total", "Chunks of large messages passed on.", sum(|dpa| dpa.chunks)),
            ("ring_full_total", "Frames that found a ring full and waited.", sum(|dpa| dpa.parked)),
            (
                "redispatched_total",
                "Requests sent to another worker than the first.",
                sum(|dpa| dpa.redispatched),
            ),
            (
                "outlier_ejections_total",
                "Times that a worker was ejected as an outlier.",
                sum(|dpa| dpa.ejections),
            ),
            (
                "late_responses_total",
                "Responses for no live request, dropped.",
                sum(|dpa| dpa.late_responses),
            ),
        ],
    );
    text.family("custody_faulted_total", Kind::Counter, "Of these, answered by the DPA itself, by fault.");
    for fault in Fault::ALL.into_iter().filter(|fault| *fault != Fault::None) {
        let count: u64 = dpas.iter().map(|dpa| dpa.faulted_for(fault)).sum();
        text.sample(&format!("custody_faulted_total{{fault=\"{}\"}}", fault.code()), count);
    }
    text.family("ring_rejected_frames_total", Kind::Counter, "Frames that were not believed, by rule.");
    for (index, reason) in FrameError::REASONS.iter().enumerate() {
        let count: u64 = dpas.iter().map(|dpa| dpa.rejected[index]).sum();
        text.sample(&format!("ring_rejected_frames_total{{reason=\"{reason}\"}}"), count);
    }
    text.family("worker_evictions_total", Kind::Counter, "Endpoints that were closed, by reason.");
    for (reason, count) in [
        ("frame", dpas.iter().flat_map(|dpa| dpa.rejected).sum::<u64>()),
        ("ring", sum(|dpa| dpa.corrupt_rings)),
        ("rule", sum(|dpa| dpa.violations)),
        ("stalled", sum(|dpa| dpa.stalled)),
    ] {
        text.sample(&format!("worker_evictions_total{{reason=\"{reason}\"}}"), count);
    }
    state_of_dpas(text, dpas);
}

/// What they hold now.
fn state_of_dpas(text: &mut Text, dpas: &[DpaStats]) {
    let sum = |of: fn(&DpaStats) -> u64| dpas.iter().map(of).sum::<u64>();
    text.all(
        Kind::Gauge,
        &[
            ("custody_requests", "Requests in custody.", sum(|dpa| dpa.live.into())),
            ("outliers_ejected", "Workers that are ejected as outliers.", sum(|dpa| dpa.ejected_now as u64)),
            (
                "endpoints",
                "Lanes of workers and sidecars that are attached.",
                sum(|dpa| dpa.endpoints as u64),
            ),
            ("ring_parked_frames", "Frames that wait for room in a ring.", sum(|dpa| dpa.parked_now as u64)),
        ],
    );
}

#[derive(Debug, Clone, Copy)]
enum Kind {
    Counter,
    Gauge,
}

struct Text(String);

impl Text {
    /// Families of one sample each: name, help, value.
    fn all(&mut self, kind: Kind, families: &[(&str, &str, u64)]) {
        for (name, help, value) in families {
            self.family(name, kind, help);
            self.sample(name, *value);
        }
    }

    fn family(&mut self, name: &str, kind: Kind, help: &str) {
        let kind = match kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
        };
        self.line(format_args!("# HELP cellmesh_{name} {help}"));
        self.line(format_args!("# TYPE cellmesh_{name} {kind}"));
    }

    fn sample(&mut self, name: &str, value: u64) {
        self.line(format_args!("cellmesh_{name} {value}"));
    }

    fn line(&mut self, line: impl Display) {
        writeln!(self.0, "{line}").expect("memory takes all text");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Lanes are added up, and every family says what it is.
    #[test]
    fn lanes_are_summed() {
        let dpu = DpuStats { received: 5, answered: 3, refused: 1, in_flight: 1, ..DpuStats::default() };
        let tries = Some(TryCounts { retries: 4, circuit: BreakerState::Open, ..TryCounts::default() });
        let policy =
            PolicyStats { service: "s".into(), refused: vec![("in-flight", 2)], in_flight: 1, tries };
        let dpa = Some(DpaStats { frames: 7, ..DpaStats::default() });
        let service =
            ServiceStats { service: "s".into(), received: 2, answered: 2, ..ServiceStats::default() };
        let lane = Counts { dpu: Some(dpu), services: vec![service], policies: vec![policy], dpa };
        let reloads = Reloads::default();
        reloads.refused();
        let text = text(&[Counts { dpa: None, ..lane.clone() }, lane], Some(&reloads));
        for line in [
            "cellmesh_requests_received_total 10",
            "# TYPE cellmesh_inflight_requests gauge",
            "cellmesh_inflight_requests 2",
            "cellmesh_ring_frames_total 7",
            "cellmesh_policy_refused_total{service=\"s\",reason=\"in-flight\"} 4",
            "cellmesh_policy_inflight_requests{service=\"s\"} 2",
            "cellmesh_service_requests_received_total{service=\"s\"} 4",
            "cellmesh_policy_retries_total{service=\"s\"} 8",
            "cellmesh_circuit_open{service=\"s\"} 2",
            "cellmesh_config_reloads_total{outcome=\"refused\"} 1",
            "cellmesh_config_last_reload_success 0",
            "cellmesh_ring_rejected_frames_total{reason=\"overrun\"} 0",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} in {text}");
        }
        let names = |prefix: &str| text.lines().filter(|line| line.starts_with(prefix)).count();
        assert_eq!(names("# HELP"), names("# TYPE"));
    }
}
