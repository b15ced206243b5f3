//! Every metric: name, kind, labels, meaning. `docs/metrics.md` is made of this list.
//!
//! - Names and units follow the conventions of Prometheus: base units, `_total` for what only grows.
//! - Labels have values that config or this code bounds; nothing of a request is ever one, and of a cell only names of steps.

/// What kind of samples a metric has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// It only grows, while the process lives.
    Counter,
    /// It goes up and down.
    Gauge,
    /// How many took how long, in seconds.
    Histogram,
}

impl Kind {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

/// One metric.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Family {
    /// As [`Family::prefix`] needs it.
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    pub(super) labels: &'static [&'static str],
    pub(super) help: &'static str,
}

impl Family {
    /// What is before its name: nothing before the names that every process has for what the kernel knows of it.
    pub(super) fn prefix(&self) -> &'static str {
        if self.name.starts_with("process_") { "" } else { "cellmesh_" }
    }
}

/// Declares constants, and lists of them with a title each.
macro_rules! families {
    ($($title:literal { $($constant:ident: $kind:ident $name:literal [$($label:literal),*] $help:literal;)* })*) => {
        $($(pub(super) const $constant: Family =
            Family { name: $name, kind: Kind::$kind, labels: &[$($label),*], help: $help };)*)*
        /// All of them, in the order of the docs.
        #[cfg(test)]
        const ALL: &[(&str, &[&Family])] = &[$(($title, &[$(&$constant),*])),*];
    };
}

families! {
    "The process" {
        BUILD_INFO: Gauge "build_info" ["version", "wasmtime"] "Constant 1; the versions of the program and of wasmtime are in the labels.";
        CONFIG_RELOADS: Counter "config_reloads_total" ["outcome"] "Times that config was read again, by outcome.";
        CONFIG_LAST_RELOAD: Gauge "config_last_reload_success" [] "Whether the file was right when it was read last: 1 or 0.";
        TRACES_EXPORTED: Counter "traced_requests_total" ["outcome"] "Requests that were to be sent to the collector of traces, as cells and as the network side had them, by outcome: sent, failed, dropped for want of room.";
        TRACES_LEFT_OUT: Counter "trace_records_left_out_total" [] "Records that were not made of requests that were slow, in error or shed, by the cells' side or the network's, because there were more than 100 of a kind in a second on a lane.";
        PROCESS_CPU: Counter "process_cpu_seconds_total" [] "Processor time of all threads, from the kernel's own accounting.";
        PROCESS_MEMORY: Gauge "process_resident_memory_bytes" [] "Resident memory.";
        PROCESS_DESCRIPTORS: Gauge "process_open_fds" [] "Open file descriptors.";
        PROCESS_START: Gauge "process_start_time_seconds" [] "When the process began, in seconds since 1970.";
    }
    "Clients: what the DPU took in" {
        REQUESTS_RECEIVED: Counter "requests_received_total" [] "Requests whose head was read.";
        REQUESTS_ANSWERED: Counter "requests_answered_total" [] "Requests answered by a cell or a host.";
        REQUESTS_REFUSED: Counter "requests_refused_total" ["reason"] "Requests answered by the mesh with an error, by reason: the word that the answer has in x-cellmesh-error.";
        REQUESTS_ABANDONED: Counter "requests_abandoned_total" [] "Requests whose client went away first.";
        REQUESTS_IN_FLIGHT: Gauge "inflight_requests" [] "Requests received and not ended.";
        SERVICE_RECEIVED: Counter "service_requests_received_total" ["service"] "Requests of clients routed to a service.";
        ROUTE_REQUESTS: Counter "route_requests_total" ["service", "route"] "Requests of clients by what has led to the service: their host, the service that they name (x-cellmesh-service, target_service), the first segment of their path, or nothing of it, which leads to the entry.";
        SERVICE_ANSWERED: Counter "service_requests_answered_total" ["service"] "Of these, answered by a cell or a host.";
        SERVICE_FAILED: Counter "service_requests_failed_total" ["service"] "Of the answered, those with a status of 500 or more.";
        SERVICE_REFUSED: Counter "service_requests_refused_total" ["service", "reason"] "Of these, answered by the mesh with an error, by reason; reasons that there were.";
        SERVICE_ABANDONED: Counter "service_requests_abandoned_total" ["service"] "Of these, whose client went away first.";
        SERVICE_IN_FLIGHT: Gauge "service_inflight_requests" ["service"] "Requests of clients routed to a service and not ended.";
        SERVICE_DURATION: Histogram "service_request_duration_seconds" ["service"] "Requests of clients that a cell or a host answered, from when they were routed until their answer was there. What was refused, for a missed deadline too, or abandoned is not in it.";
        CONNECTIONS_OPEN: Gauge "connections_open" [] "Connections of clients.";
        CONNECTIONS_REFUSED: Counter "connections_refused_total" ["reason"] "Connections that were not taken up, by reason: connections-max and per-address-max are bounds of config, accept is the kernel, mostly for want of descriptors, once for each try.";
        HEADS_REFUSED: Counter "heads_refused_total" ["reason"] "Heads over HTTP/1 that no request came of, by reason: malformed (400), too-large (431), too-slow (cut). They are not among the requests received. What is refused over HTTP/2 before a request is one is not seen.";
        TLS_FAILURES: Counter "tls_handshake_failures_total" [] "TLS handshakes that clients began and that came to nothing.";
        REQUEST_BODY_BYTES: Gauge "request_body_bytes" [] "Bytes of request bodies held.";
        ANSWER_BODY_BYTES: Gauge "answer_body_bytes" [] "Bytes of answers that clients have not taken.";
        BAD_RESPONSES: Counter "bad_responses_total" [] "Answers that HTTP cannot say. A worker looks at what its cells answer first (cell_faults_total, contract), so what is counted here came from a host off the node, or from a worker that did not look.";
    }
    "Off the node" {
        CALLS_RELAYED: Counter "calls_relayed_total" [] "Calls of workers that the DPU made or passed on.";
        EGRESS_CALLS: Counter "egress_calls_total" [] "Calls made off this node.";
        EGRESS_FAILURES: Counter "egress_failures_total" [] "Calls off this node without an answer of their callee.";
        EGRESS_OPEN: Gauge "egress_calls_open" [] "Calls of workers on their way off this node.";
        EGRESS_EJECTIONS: Counter "egress_ejections_total" [] "Times that an address of a service off this node was ejected as an outlier.";
        EGRESS_EJECTED: Gauge "egress_addresses_ejected" [] "Addresses of services off this node that are ejected as outliers, by each lane for itself.";
    }
    "Policies of services" {
        POLICY_REFUSED: Counter "policy_refused_total" ["service", "reason"] "Requests refused by the policy of their service.";
        POLICY_IN_FLIGHT: Gauge "policy_inflight_requests" ["service"] "Requests that count for in_flight_max.";
        RETRIES: Counter "policy_retries_total" ["service"] "Calls made once more because one had failed.";
        RETRIES_REFUSED: Counter "policy_retries_refused_total" ["service"] "Retries that the budget has refused.";
        CIRCUIT_OPEN: Gauge "circuit_open" ["service"] "Lanes that leave the service alone, or ask with one call.";
        CIRCUIT_OPENINGS: Counter "circuit_openings_total" ["service"] "Times that the circuit opened.";
        CIRCUIT_REFUSED: Counter "circuit_refused_total" ["service"] "Requests refused because the circuit is open.";
        HEDGES: Counter "policy_hedges_total" ["service"] "Second calls made because the first was slow.";
        HEDGES_WON: Counter "policy_hedges_won_total" ["service"] "Second calls whose answer came first.";
    }
    "Cells: what workers do" {
        CELL_RECEIVED: Counter "cell_requests_received_total" ["service"] "Requests that came to the cells of a service, from clients and from cells.";
        CELL_CANCELLED: Counter "cell_requests_cancelled_total" ["service"] "Of these, given up by who asked.";
        CELL_RESPONSES: Counter "cell_responses_total" ["service", "code"] "Responses by the class of their status: 2xx, 4xx, 5xx and so on.";
        CELL_DURATION: Histogram "cell_request_duration_seconds" ["service"] "Requests from their arrival at the worker to their response.";
        CELL_REQUEST_BYTES: Counter "cell_request_bytes_total" ["service"] "Bytes of heads and bodies of requests.";
        CELL_RESPONSE_BYTES: Counter "cell_response_bytes_total" ["service"] "Bytes of bodies of responses.";
        STEP_DURATION: Histogram "step_duration_seconds" ["service", "kind", "step"] "Calls of a cell's functions, from when they were wanted to their end: handler, internal step, builder.";
        STEP_QUEUE: Histogram "step_queue_seconds" ["service", "kind", "step"] "Of it, until an instance was free, and, of a call that outlasts a tick, until a thread of the pool was, each time that it waited for one.";
        STEP_RUN: Histogram "step_run_seconds" ["service", "kind", "step"] "Of it, on a thread. What is left was spent waiting for a clock or a file.";
        STEP_ERRORS: Counter "step_errors_total" ["service", "kind", "step"] "Of them, those that ended in an error of the step, or did not return (cell_faults_total). What a handler answers with is no error here, whatever its status; nor is a call that was stopped because nobody waited for it any more.";
        STEP_EGRESS: Histogram "step_egress_seconds" ["service", "target", "step"] "Calls to other services, from sending to their answer; hosts that are none are elsewhere, as is what a call names that could not be sent. One that was not sent took no time.";
        STEP_EGRESS_ERRORS: Counter "step_egress_errors_total" ["service", "target", "step"] "Of them, those that were answered with 400 or more, or not at all, or that could not be sent.";
        CELL_FAULTS: Counter "cell_faults_total" ["service", "kind"] "Calls of a cell's functions that did not return what can be used, by reason. contract: a graph or an answer that breaks a rule, too.";
        CELL_INSTANCES_MADE: Counter "cell_instances_started_total" ["service"] "Instances that were made.";
        CELL_MEMORY: Gauge "cell_memory_bytes" ["service"] "Linear memory of the instances of a cell, busy or ready.";
        CELL_CPU: Counter "cell_cpu_seconds_total" ["service"] "Processor time of calls of a cell's functions, with the making of their instances. On threads of the pool, and on a lane of calls of a service that usually take 100 us or more there, it is the kernel's own count; of shorter ones one in sixty-four is measured, and the others count with the share of their time that these had. No more than the kernel has counted of the lane.";
        CELL_INSTANCES_BUSY: Gauge "cell_instances_busy" ["service"] "Instances that run a function, or wait in one.";
    }
    "The DPA: rings and custody" {
        CUSTODY_RECEIVED: Counter "custody_requests_total" [] "Requests taken into custody or refused by the DPA.";
        CUSTODY_ANSWERED: Counter "custody_answered_total" [] "Of these, answered by their callee.";
        CUSTODY_ABANDONED: Counter "custody_abandoned_total" [] "Of these, given up by their caller.";
        CUSTODY_FAULTED: Counter "custody_faulted_total" ["fault"] "Of these, answered by the DPA itself, by fault.";
        CUSTODY_LIVE: Gauge "custody_requests" [] "Requests in custody.";
        RING_FRAMES: Counter "ring_frames_total" [] "Small frames passed on.";
        RING_CHUNKS: Counter "ring_chunks_total" [] "Chunks of large messages passed on.";
        RING_PUBLISHED: Counter "ring_published_frames_total" ["ring", "kind"] "Frames written into rings, counted by who writes: sidecar_cq and worker_cq lead to the DPA, sidecar_sq and worker_sq from it; large messages go through bulk rings.";
        RING_PUBLISHES: Counter "ring_publishes_total" ["ring", "kind"] "Times that the reader of a ring was told of new frames. Frames written by this: how many a batch has.";
        RING_WAITING: Gauge "ring_waiting_bytes" ["ring", "kind"] "Bytes that wait in rings to be read, when the DPA was asked.";
        RING_FULL: Counter "ring_full_total" [] "Frames that found a ring full and waited.";
        RING_DOORBELLS: Counter "ring_doorbells_total" [] "System calls spent on waking endpoints that slept.";
        RING_PARKED: Gauge "ring_parked_frames" [] "Frames that wait for room in a ring.";
        RING_REJECTED: Counter "ring_rejected_frames_total" ["reason"] "Frames that were not believed, by rule.";
        REDISPATCHED: Counter "redispatched_total" [] "Requests sent to another worker than the first.";
        LATE_RESPONSES: Counter "late_responses_total" [] "Responses for no live request, dropped.";
        ENDPOINTS: Gauge "endpoints" [] "Lanes of workers and DPUs that are attached.";
        SERVICE_WORKERS: Gauge "service_workers" ["service"] "Lanes of workers that serve a service, where workers are other processes.";
        SERVICE_EJECTED: Gauge "service_workers_ejected" ["service"] "Of these, ejected as outliers.";
        EVICTIONS: Counter "worker_evictions_total" ["reason"] "Endpoints that were closed, by reason.";
        EJECTIONS: Counter "outlier_ejections_total" [] "Times that a worker was ejected as an outlier.";
        EJECTED: Gauge "outliers_ejected" [] "Workers that are ejected as outliers.";
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use super::*;

    const PAGE_HEAD: &str = "# Metrics

`GET /metrics` on the admin port, for Prometheus. This page is made of the list in `runtime/src/admin/metrics/families.rs`; a test compares them.

- Base units throughout: seconds, bytes. Counters begin at zero with the process.
- Each process tells of what it does: `run` of everything, `node` and `dpu` of clients, `node` and `dpa` of rings, `worker` of its cells. A family
  without samples is left out.
- `requests_received = answered + refused + abandoned + inflight` in every answer, of all and of each service; and of the DPA
  `custody_requests_total = answered + faulted + abandoned + custody_requests`.
- Labels are bounded: `service` and `target` by config, `step` to sixteen names of each service, the others by the program. No label is ever taken
  from a request.
- `step` is what the id of a step has before `#`, as the cell wrote it. Names beyond the first sixteen, those of more than 64 bytes, and steps whose request was
  given up before they ended, are `other`. A handler is `handler`.
";

    /// The list as a page in Markdown.
    fn page() -> String {
        let mut page = String::from(PAGE_HEAD);
        for (title, families) in ALL {
            write!(page, "\n## {title}\n\n| metric | kind | labels | meaning |\n|---|---|---|---|\n")
                .expect("memory takes all text");
            for family in *families {
                let Family { name, kind, labels, help } = family;
                let labels =
                    if labels.is_empty() { String::new() } else { format!("`{}`", labels.join("`, `")) };
                writeln!(page, "| `{}{name}` | {} | {labels} | {help} |", family.prefix(), kind.name())
                    .expect("memory takes all text");
            }
        }
        page
    }

    /// The page in the docs is this list. `CELLMESH_WRITE_DOCS=1 cargo test -p cellmesh page_of_metrics` writes it.
    #[test]
    fn page_of_metrics_is_current() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/metrics.md");
        if std::env::var_os("CELLMESH_WRITE_DOCS").is_some() {
            std::fs::write(path, page()).expect("the docs are writable");
        }
        let found = std::fs::read_to_string(path).expect("docs/metrics.md");
        assert!(found == page(), "docs/metrics.md is not of this list: write it with CELLMESH_WRITE_DOCS=1");
    }

    /// Operators see each: Grafana's dashboard has it in a panel.
    #[test]
    fn each_is_in_a_panel() {
        let dashboard = include_str!("../../../../deploy/kustomize/monitoring/dashboard.json");
        let dashboard: serde_json::Value = serde_json::from_str(dashboard).expect("JSON");
        let panels = dashboard["panels"].as_array().expect("panels").iter();
        let targets = panels.filter_map(|panel| panel["targets"].as_array()).flatten();
        let queries: Vec<&str> = targets.map(|target| target["expr"].as_str().expect("a query")).collect();
        for family in ALL.iter().flat_map(|(_, families)| families.iter()) {
            let name = format!("{}{}", family.prefix(), family.name);
            let parts: &[&str] = if family.kind == Kind::Histogram { &["_bucket", "_sum"] } else { &[""] };
            let begins = |query: &&str| parts.iter().any(|part| query.contains(&format!("{name}{part}{{")));
            assert!(queries.iter().any(begins), "no panel has {name}");
        }
    }

    /// Each has its own name, and one that says what it is.
    #[test]
    fn names_follow_the_conventions() {
        let all: Vec<&Family> = ALL.iter().flat_map(|(_, families)| families.iter().copied()).collect();
        for (index, family) in all.iter().enumerate() {
            let Family { name, kind, help, .. } = family;
            assert!(all[index + 1..].iter().all(|other| other.name != *name), "{name} is there twice");
            assert_eq!(name.ends_with("_total"), *kind == Kind::Counter, "{name}");
            // An instant, and the name that every process has for it.
            let is_span = name.ends_with("_seconds") && !name.ends_with("_time_seconds");
            assert_eq!(is_span, *kind == Kind::Histogram, "{name}");
            assert!(help.ends_with('.') && !help.contains(['"', '\\', '\n']), "{name}: {help}");
        }
    }
}
