//! Tests of [`super`].

use std::time::Duration;

use cellmesh_dpa::RingStats;
use cellmesh_dpu::{Route, RouteStats};

use super::*;

/// What one lane says.
fn counts_of_lane() -> Counts {
    let mut dpu = DpuStats { received: 5, answered: 3, refused: 1, in_flight: 1, ..DpuStats::default() };
    dpu.bounds = DpuBounds { connections_max: 100, requests_max: 10, ..DpuBounds::default() };
    (dpu.dispatched, dpu.relays_open, dpu.egress_open) = (3, 1, 4);
    dpu.refused_for[Reason::Overloaded as usize] = 1;
    dpu.heads_refused[HeadProblem::TooSlow as usize] = 2;
    let tries = Some(TryCounts { retries: 4, circuit: BreakerState::Open, ..TryCounts::default() });
    let policy = PolicyStats {
        service: "s".into(),
        refused: vec![("in-flight", 2)],
        in_flight: 1,
        in_flight_max: Some(9),
        tries,
    };
    let dpa = Some(DpaStats { frames: 7, slots_max: 8, sidecar_slots_max: 6, ..DpaStats::default() });
    let mut route = RouteStats { received: 2, answered: 2, failed: 1, ..RouteStats::default() };
    route.durations.record(Duration::from_micros(30));
    let mut service = ServiceStats {
        service: "s".into(),
        received: 2,
        answered: 2,
        routes: vec![(Route::Service, route)],
        ..ServiceStats::default()
    };
    service.refused_for[Reason::BodyTooLarge as usize] = 1;
    let cell = CellStats {
        received: 4,
        answered: [0, 0, 3, 0, 0, 1],
        cpu: Duration::from_millis(250),
        instances_max: 4,
        ..CellStats::default()
    };
    Counts {
        dpu: Some(dpu),
        services: vec![service],
        policies: vec![policy],
        dpa,
        workers: vec![("s".into(), WorkerCount { attached: 3, ejected: 1 })],
        cells: vec![("s".into(), cell)],
        written: None,
    }
}

/// Lanes are added up, and every family says what it is.
#[test]
fn lanes_are_summed() {
    let lane = counts_of_lane();
    let reloads = Reloads::default();
    reloads.refused();
    let lanes = [Counts { dpa: None, ..lane.clone() }, lane];
    let beside = Beside {
        exported: Some(&Exported::default()),
        left_out: &LeftOut::default(),
        pool: None,
        certificate_until: Some(UNIX_EPOCH + Duration::from_secs(7)),
    };
    let text = text(&lanes, Some(&reloads), &beside);
    for line in [
        "cellmesh_requests_received_total 10",
        "cellmesh_tls_certificate_expiry_time_seconds 7",
        "# TYPE cellmesh_inflight_requests gauge",
        "cellmesh_inflight_requests 2",
        "cellmesh_requests_refused_total{reason=\"overloaded\"} 2",
        "cellmesh_requests_refused_total{reason=\"bad-request\"} 0",
        "cellmesh_service_requests_refused_total{service=\"s\",reason=\"body-too-large\"} 2",
        "cellmesh_heads_refused_total{reason=\"too-slow\"} 4",
        "cellmesh_connections_refused_total{reason=\"per-address-max\"} 0",
        "cellmesh_ring_frames_total 7",
        "cellmesh_service_workers{service=\"s\"} 6",
        "cellmesh_service_workers_ejected{service=\"s\"} 2",
        "cellmesh_policy_refused_total{service=\"s\",reason=\"in-flight\"} 4",
        "cellmesh_policy_inflight_requests{service=\"s\"} 2",
        "cellmesh_service_requests_received_total{service=\"s\"} 4",
        "cellmesh_route_requests_total{service=\"s\",route=\"service\"} 4",
        "cellmesh_route_requests_total{service=\"s\",route=\"host\"} 0",
        "cellmesh_route_requests_answered_total{service=\"s\",route=\"service\"} 4",
        "cellmesh_route_requests_failed_total{service=\"s\",route=\"service\"} 2",
        "cellmesh_route_requests_refused_total{service=\"s\",route=\"service\"} 0",
        "cellmesh_route_request_duration_seconds_count{service=\"s\",route=\"service\"} 2",
        "cellmesh_policy_retries_total{service=\"s\"} 8",
        "cellmesh_circuit_open{service=\"s\"} 1",
        "cellmesh_config_reloads_total{outcome=\"refused\"} 1",
        "cellmesh_cell_cpu_seconds_total{service=\"s\"} 0.5",
        "cellmesh_cell_responses_total{service=\"s\",code=\"2xx\"} 6",
        "cellmesh_cell_responses_total{service=\"s\",code=\"5xx\"} 2",
        "cellmesh_cell_responses_total{service=\"s\",code=\"4xx\"} 0",
        "cellmesh_cell_faults_total{service=\"s\",kind=\"trap\"} 0",
        "cellmesh_config_last_reload_success 0",
        "cellmesh_traced_requests_total{outcome=\"dropped\"} 0",
        "cellmesh_trace_records_left_out_total 0",
        "cellmesh_ring_rejected_frames_total{reason=\"overrun\"} 0",
    ] {
        assert!(text.lines().any(|found| found == line), "{line} in {text}");
    }
    assert!(text.contains("\nprocess_cpu_seconds_total ") && !text.contains("code=\"3xx\""), "{text}");
    assert!(!text.contains("route_requests_answered_total{service=\"s\",route=\"host\"}"), "{text}");
    let names = |prefix: &str| text.lines().filter(|line| line.starts_with(prefix)).count();
    assert_eq!(names("# HELP"), names("# TYPE"));
}

/// A bound of each lane is summed as what it bounds; one that all lanes share is not.
#[test]
fn bounds_of_lanes_are_summed() {
    let lane = counts_of_lane();
    let pool = Pool::start(2).expect("threads");
    let beside =
        Beside { exported: None, left_out: &LeftOut::default(), pool: Some(&pool), certificate_until: None };
    let text = text(&[Counts { dpa: None, ..lane.clone() }, lane], None, &beside);
    for line in [
        // Of the whole process.
        "cellmesh_policy_inflight_requests_max{service=\"s\"} 9",
        "cellmesh_connections_max 100",
        // Of each lane.
        "cellmesh_dispatched_requests 6",
        "cellmesh_dispatched_requests_max 20",
        "cellmesh_relayed_calls_open 10",
        "cellmesh_custody_requests_max 8",
        "cellmesh_custody_sidecar_requests_max 6",
        "cellmesh_cell_instances_max{service=\"s\"} 8",
        "cellmesh_pool_threads_max 2",
        "cellmesh_pool_threads_busy 0",
    ] {
        assert!(text.lines().any(|found| found == line), "{line} in {text}");
    }
}

/// What is said of wasmtime is what is built in.
#[test]
fn version_of_wasmtime_is_true() {
    let lock = include_str!("../../../../Cargo.lock");
    assert!(lock.contains(&format!("name = \"wasmtime\"\nversion = \"{WASMTIME_VERSION}\"\n")));
}

/// A ring is counted by who writes it, wherever that is; what waits in it is the DPA's look.
#[test]
fn rings_are_told_by_who_writes_them() {
    let batches = Batches { frames: 6, publishes: 2 };
    let workers = RingStats {
        written: [batches, Batches::default()],
        to_waiting: [64, 0],
        from_waiting: [0, 128],
        to_waiting_max: [1024, 4096],
        from_waiting_max: [2048, 8192],
    };
    let dpu = Some(DpuStats::default());
    let dpa = Some(DpaStats { workers, ..DpaStats::default() });
    let lane = Counts { written: Some([batches; 2]), dpu, ..Counts::default() };
    let beside =
        Beside { exported: None, left_out: &LeftOut::default(), pool: None, certificate_until: None };
    let text = text(&[Counts { dpa, ..lane.clone() }, lane], None, &beside);
    for line in [
        "cellmesh_ring_published_frames_total{ring=\"worker_sq\",kind=\"small\"} 6",
        "cellmesh_ring_published_frames_total{ring=\"worker_cq\",kind=\"bulk\"} 12",
        "cellmesh_ring_published_frames_total{ring=\"sidecar_cq\",kind=\"small\"} 0",
        "cellmesh_ring_publishes_total{ring=\"worker_sq\",kind=\"small\"} 2",
        "cellmesh_ring_waiting_bytes{ring=\"worker_sq\",kind=\"small\"} 64",
        "cellmesh_ring_waiting_bytes{ring=\"worker_cq\",kind=\"bulk\"} 128",
        "cellmesh_ring_waiting_bytes_max{ring=\"worker_sq\",kind=\"small\"} 1024",
        "cellmesh_ring_waiting_bytes_max{ring=\"worker_cq\",kind=\"bulk\"} 8192",
    ] {
        assert!(text.lines().any(|found| found == line), "{line} in {text}");
    }
}
