//! Every metric: name, kind, labels, meaning. `docs/metrics.md` is made of this list.
//!
//! - Names and units follow the conventions of Prometheus: base units, `_total` for what only grows.
//! - Labels have values that config or this code bounds; nothing of a request is ever one, and of a cell only names of steps.

use super::labels::Label;

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
    /// What its values count or measure; 1 where it is a mere sign.
    pub(super) unit: &'static str,
    pub(super) labels: &'static [Label],
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
    ($($title:literal { $($constant:ident: $kind:ident $name:literal $unit:literal [$($label:ident),*] $help:literal;)* })*) => {
        $($(pub(super) const $constant: Family =
            Family { name: $name, kind: Kind::$kind, unit: $unit, labels: &[$(Label::$label),*], help: $help };)*)*
        /// All of them, in the order of the docs.
        #[cfg(test)]
        const ALL: &[(&str, &[&Family])] = &[$(($title, &[$(&$constant),*])),*];
    };
}

families! {
    "The process" {
        BUILD_INFO: Gauge "build_info" "1" [Version, Wasmtime] "Constant 1; the versions of the program and of wasmtime are in the labels.";
        CONFIG_RELOADS: Counter "config_reloads_total" "reloads" [Reloaded] "Times that config was read again, by outcome.";
        CONFIG_LAST_RELOAD: Gauge "config_last_reload_success" "1" [] "Whether the file was right when it was read last: 1 or 0.";
        TRACES_EXPORTED: Counter "traced_requests_total" "requests" [Traced] "Requests that were to be sent to the collector of traces, as cells and as the network side had them, by outcome: sent, failed, dropped for want of room.";
        TRACES_LEFT_OUT: Counter "trace_records_left_out_total" "records" [] "Records that were not made of requests that were slow, in error or shed, by the cells' side or the network's, because there were more than 100 of a kind in a second on a lane.";
        PROCESS_CPU: Counter "process_cpu_seconds_total" "seconds" [] "Processor time of all threads, from the kernel's own accounting.";
        PROCESS_MEMORY: Gauge "process_resident_memory_bytes" "bytes" [] "Resident memory.";
        PROCESS_DESCRIPTORS: Gauge "process_open_fds" "descriptors" [] "Open file descriptors.";
        PROCESS_DESCRIPTORS_MAX: Gauge "process_max_fds" "descriptors" [] "File descriptors that it may have open.";
        PROCESS_START: Gauge "process_start_time_seconds" "seconds" [] "When the process began, in seconds since 1970.";
    }
    "Clients: what the DPU took in" {
        REQUESTS_RECEIVED: Counter "requests_received_total" "requests" [] "Requests whose head was read.";
        REQUESTS_ANSWERED: Counter "requests_answered_total" "requests" [] "Requests answered by a cell or a host.";
        REQUESTS_REFUSED: Counter "requests_refused_total" "requests" [RefusedFor] "Requests answered by the mesh with an error, by reason: the word that the answer has in x-cellmesh-error.";
        REQUESTS_ABANDONED: Counter "requests_abandoned_total" "requests" [] "Requests whose client went away first.";
        REQUESTS_IN_FLIGHT: Gauge "inflight_requests" "requests" [] "Requests received and not ended.";
        REQUESTS_DISPATCHED: Gauge "dispatched_requests" "requests" [] "Of these, given to the mesh: one whose body is still read is not.";
        REQUESTS_DISPATCHED_MAX: Gauge "dispatched_requests_max" "requests" [] "Their bound: dpu.requests_max, of all lanes.";
        SERVICE_RECEIVED: Counter "service_requests_received_total" "requests" [Service] "Requests of clients routed to a service.";
        SERVICE_ANSWERED: Counter "service_requests_answered_total" "requests" [Service] "Of these, answered by a cell or a host.";
        SERVICE_FAILED: Counter "service_requests_failed_total" "requests" [Service] "Of the answered, those with a status of 500 or more.";
        SERVICE_REFUSED: Counter "service_requests_refused_total" "requests" [Service, RefusedFor] "Of these, answered by the mesh with an error, by reason; reasons that there were.";
        SERVICE_ABANDONED: Counter "service_requests_abandoned_total" "requests" [Service] "Of these, whose client went away first.";
        SERVICE_IN_FLIGHT: Gauge "service_inflight_requests" "requests" [Service] "Requests of clients routed to a service and not ended.";
        SERVICE_DURATION: Histogram "service_request_duration_seconds" "seconds" [Service] "Requests of clients that a cell or a host answered, from when they were routed until their answer was there. What was refused, for a missed deadline too, or abandoned is not in it.";
        ROUTE_REQUESTS: Counter "route_requests_total" "requests" [Service, Route] "Requests of clients by what has led to the service: their host, the service that they name (x-cellmesh-service, target_service), the first segment of their path, or nothing of it, which leads to the entry.";
        ROUTE_ANSWERED: Counter "route_requests_answered_total" "requests" [Service, Route] "Of these, answered by a cell or a host; this and what follows only of routes that there were.";
        ROUTE_FAILED: Counter "route_requests_failed_total" "requests" [Service, Route] "Of the answered, those with a status of 500 or more.";
        ROUTE_REFUSED: Counter "route_requests_refused_total" "requests" [Service, Route] "Of these, answered by the mesh with an error.";
        ROUTE_DURATION: Histogram "route_request_duration_seconds" "seconds" [Service, Route] "The answered as service_request_duration_seconds has them, which is their sum.";
        CONNECTIONS_OPEN: Gauge "connections_open" "connections" [] "Connections of clients.";
        CONNECTIONS_MAX: Gauge "connections_max" "connections" [] "Their bound: dpu.connections_max.";
        CONNECTIONS_REFUSED: Counter "connections_refused_total" "connections" [ConnectionRefusedFor] "Connections that were not taken up, by reason: connections-max and per-address-max are bounds of config, accept is the kernel, mostly for want of descriptors, once for each try.";
        HEADS_REFUSED: Counter "heads_refused_total" "heads" [HeadRefusedFor] "Heads over HTTP/1 that no request came of, by reason: malformed (400), too-large (431), too-slow (cut). They are not among the requests received. What is refused over HTTP/2 before a request is one is not seen.";
        TLS_FAILURES: Counter "tls_handshake_failures_total" "handshakes" [] "TLS handshakes that clients began and that came to nothing.";
        TLS_CERTIFICATE_END: Gauge "tls_certificate_expiry_time_seconds" "seconds" [] "When the certificate ends that clients are shown, in seconds since 1970.";
        REQUEST_BODY_BYTES: Gauge "request_body_bytes" "bytes" [] "Bytes of request bodies held.";
        REQUEST_BODY_BYTES_MAX: Gauge "request_body_bytes_max" "bytes" [] "Their bound: dpu.buffered_bytes_max, of all lanes.";
        ANSWER_BODY_BYTES: Gauge "answer_body_bytes" "bytes" [] "Bytes of answers that clients have not taken.";
        ANSWER_BODY_BYTES_MAX: Gauge "answer_body_bytes_max" "bytes" [] "Their bound: dpu.answer_bytes_max, of all lanes.";
        BAD_RESPONSES: Counter "bad_responses_total" "responses" [] "Answers that HTTP cannot say. A worker looks at what its cells answer first (cell_faults_total, contract), so what is counted here came from a host off the node, or from a worker that did not look.";
    }
    "Off the node" {
        CALLS_RELAYED: Counter "calls_relayed_total" "calls" [] "Calls of workers that the DPU made or passed on.";
        RELAYED_OPEN: Gauge "relayed_calls_open" "calls" [] "Of these, on their way, those off the node too.";
        RELAYED_MAX: Gauge "relayed_calls_max" "calls" [] "Their bound: dpu.relays_max, of all lanes.";
        EGRESS_CALLS: Counter "egress_calls_total" "calls" [] "Calls made off this node.";
        EGRESS_FAILURES: Counter "egress_failures_total" "calls" [] "Calls off this node without an answer of their callee.";
        EGRESS_OPEN: Gauge "egress_calls_open" "calls" [] "Calls of workers on their way off this node.";
        EGRESS_EJECTIONS: Counter "egress_ejections_total" "ejections" [] "Times that an address of a service off this node was ejected as an outlier.";
        EGRESS_EJECTED: Gauge "egress_addresses_ejected" "addresses" [] "Addresses of services off this node that are ejected as outliers.";
    }
    "Policies of services" {
        POLICY_REFUSED: Counter "policy_refused_total" "requests" [Service, PolicyRefusedFor] "Requests refused by the policy of their service.";
        POLICY_IN_FLIGHT: Gauge "policy_inflight_requests" "requests" [Service] "Requests that count for in_flight_max.";
        POLICY_IN_FLIGHT_MAX: Gauge "policy_inflight_requests_max" "requests" [Service] "Their bound: service.NAME.in_flight_max, where there is one.";
        RETRIES: Counter "policy_retries_total" "calls" [Service] "Calls made once more because one had failed.";
        RETRIES_REFUSED: Counter "policy_retries_refused_total" "calls" [Service] "Retries that the budget has refused.";
        CIRCUIT_OPEN: Gauge "circuit_open" "1" [Service] "1 while the service is left alone, or asked with one call.";
        CIRCUIT_OPENINGS: Counter "circuit_openings_total" "openings" [Service] "Times that the circuit opened.";
        CIRCUIT_REFUSED: Counter "circuit_refused_total" "requests" [Service] "Requests refused because the circuit is open.";
        HEDGES: Counter "policy_hedges_total" "calls" [Service] "Second calls made because the first was slow.";
        HEDGES_WON: Counter "policy_hedges_won_total" "calls" [Service] "Second calls whose answer came first.";
    }
    "Cells: what workers do" {
        CELL_RECEIVED: Counter "cell_requests_received_total" "requests" [Service] "Requests that came to the cells of a service, from clients and from cells.";
        CELL_CANCELLED: Counter "cell_requests_cancelled_total" "requests" [Service] "Of these, given up by who asked.";
        CELL_RESPONSES: Counter "cell_responses_total" "responses" [Service, Code] "Responses by the class of their status: 2xx, 4xx, 5xx and so on.";
        CELL_DURATION: Histogram "cell_request_duration_seconds" "seconds" [Service] "Requests from their arrival at the worker to their response.";
        CELL_REQUEST_BYTES: Counter "cell_request_bytes_total" "bytes" [Service] "Bytes of heads and bodies of requests.";
        CELL_RESPONSE_BYTES: Counter "cell_response_bytes_total" "bytes" [Service] "Bytes of bodies of responses.";
        STEP_DURATION: Histogram "step_duration_seconds" "seconds" [Service, CallKind, Step] "Calls of a cell's functions, from when they were wanted to their end: handler, internal step, builder.";
        STEP_QUEUE: Histogram "step_queue_seconds" "seconds" [Service, CallKind, Step] "Of it, until an instance was free, and, of a call that outlasts a tick, until a thread of the pool was, each time that it waited for one.";
        STEP_RUN: Histogram "step_run_seconds" "seconds" [Service, CallKind, Step] "Of it, on a thread. What is left was spent waiting for a clock or a file.";
        STEP_ERRORS: Counter "step_errors_total" "calls" [Service, CallKind, Step] "Of them, those that ended in an error of the step, or did not return (cell_faults_total). What a handler answers with is no error here, whatever its status; nor is a call that was stopped because nobody waited for it any more, or that never began.";
        STEP_PREPARED: Counter "step_prepared_total" "steps" [Service, Step] "Internal steps whose prepared result stood: the cell was not called for them.";
        STEP_EGRESS: Histogram "step_egress_seconds" "seconds" [Service, Target, Step] "Calls to other services, from sending to their answer; hosts that are none are elsewhere, as is what a call names that could not be sent. One that was not sent took no time.";
        STEP_EGRESS_ERRORS: Counter "step_egress_errors_total" "calls" [Service, Target, Step] "Of them, those that were answered with 400 or more, or not at all, or that could not be sent.";
        CELL_FAULTS: Counter "cell_faults_total" "calls" [Service, CellFault] "Calls of a cell's functions that did not return what can be used, by reason. contract: a graph or an answer that breaks a rule, too.";
        CELL_INSTANCES_MADE: Counter "cell_instances_started_total" "instances" [Service] "Instances that were made.";
        CELL_MEMORY: Gauge "cell_memory_bytes" "bytes" [Service] "Linear memory of the instances of a cell, busy or ready.";
        CELL_CPU: Counter "cell_cpu_seconds_total" "seconds" [Service] "Processor time of calls of a cell's functions, with the making of their instances. On threads of the pool, and on a lane of calls of a service that usually take 100 us or more there, it is the kernel's own count; of shorter ones one in sixty-four is measured, and the others count with the share of their time that these had. No more than the kernel has counted of the lane.";
        CELL_INSTANCES_BUSY: Gauge "cell_instances_busy" "instances" [Service] "Instances that run a function, or wait in one.";
        CELL_INSTANCES_MAX: Gauge "cell_instances_max" "instances" [Service] "Their bound: instances_max of the cell; of several lanes each has its share, rounded up.";
        POOL_BUSY: Gauge "pool_threads_busy" "threads" [] "Threads of the pool that run a function which takes longer than a tick.";
        POOL_MAX: Gauge "pool_threads_max" "threads" [] "Threads of the pool.";
        POOL_WAITING: Gauge "pool_calls_waiting" "calls" [] "Calls of functions that wait for a thread of the pool.";
    }
    "The DPA: rings and custody" {
        CUSTODY_RECEIVED: Counter "custody_requests_total" "requests" [] "Requests taken into custody or refused by the DPA.";
        CUSTODY_ANSWERED: Counter "custody_answered_total" "requests" [] "Of these, answered by their callee.";
        CUSTODY_ABANDONED: Counter "custody_abandoned_total" "requests" [] "Of these, given up by their caller.";
        CUSTODY_FAULTED: Counter "custody_faulted_total" "requests" [Fault] "Of these, answered by the DPA itself, by fault.";
        CUSTODY_LIVE: Gauge "custody_requests" "requests" [] "Requests in custody.";
        CUSTODY_MAX: Gauge "custody_requests_max" "requests" [] "Their bound: custody slots.";
        CUSTODY_SIDECAR_MAX: Gauge "custody_sidecar_requests_max" "requests" [] "From so many requests in custody on those of clients get no slot: the others are for calls of cells.";
        RING_FRAMES: Counter "ring_frames_total" "frames" [] "Small frames passed on.";
        RING_CHUNKS: Counter "ring_chunks_total" "chunks" [] "Chunks of large messages passed on.";
        RING_PUBLISHED: Counter "ring_published_frames_total" "frames" [Ring, RingKind] "Frames written into rings, counted by who writes: sidecar_cq and worker_cq lead to the DPA, sidecar_sq and worker_sq from it; large messages go through bulk rings.";
        RING_PUBLISHES: Counter "ring_publishes_total" "batches" [Ring, RingKind] "Times that the reader of a ring was told of new frames. Frames written by this: how many a batch has.";
        RING_WAITING: Gauge "ring_waiting_bytes" "bytes" [Ring, RingKind] "Bytes that wait in rings to be read, when the DPA was asked.";
        RING_WAITING_MAX: Gauge "ring_waiting_bytes_max" "bytes" [Ring, RingKind] "Their bound: the depth of these rings.";
        RING_FULL: Counter "ring_full_total" "frames" [] "Frames that found a ring full and waited.";
        RING_DOORBELLS: Counter "ring_doorbells_total" "system calls" [] "System calls spent on waking endpoints that slept.";
        RING_PARKED: Gauge "ring_parked_frames" "frames" [] "Frames that wait for room in a ring.";
        RING_REJECTED: Counter "ring_rejected_frames_total" "frames" [FrameRejectedFor] "Frames that were not believed, by rule.";
        REDISPATCHED: Counter "redispatched_total" "requests" [] "Requests sent to another worker than the first.";
        LATE_RESPONSES: Counter "late_responses_total" "responses" [] "Responses for no live request, dropped.";
        ENDPOINTS: Gauge "endpoints" "lanes" [] "Lanes of workers and DPUs that are attached.";
        SERVICE_WORKERS: Gauge "service_workers" "lanes" [Service] "Lanes of workers that serve a service, where workers are other processes.";
        SERVICE_EJECTED: Gauge "service_workers_ejected" "lanes" [Service] "Of these, ejected as outliers.";
        EVICTIONS: Counter "worker_evictions_total" "lanes" [EvictedFor] "Endpoints that were closed, by reason.";
        EJECTIONS: Counter "outlier_ejections_total" "ejections" [] "Times that a worker was ejected as an outlier.";
        EJECTED: Gauge "outliers_ejected" "lanes" [] "Workers that are ejected as outliers.";
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
- What ends in `_max` is the bound of the gauge that has the rest of its name, `_open` or `_busy` (`process_max_fds`: of `process_open_fds`). Both are of all lanes; where
  config has a bound for each lane, one can be full before the sum is.
- `requests_received = answered + refused + abandoned + inflight` in every answer, of all and of each service; and of the DPA
  `custody_requests_total = answered + faulted + abandoned + custody_requests`.
- Labels are bounded: `service` and `target` by config, `step` to sixteen names of each service, the others by the program: see [Labels](#labels). No label is
  ever taken from a request.
- `step` is what the id of a step has before `#`, as the cell wrote it. Names beyond the first sixteen, those of more than 64 bytes, and steps whose request was
  given up before they ended, are `other`. A handler is `handler`.
";

    const LABELS_HEAD: &str = "
## Labels

All that a label can say, where the program knows that.

| label | of | values |
|---|---|---|
";

    /// The list as a page in Markdown.
    fn page() -> String {
        let mut page = String::from(PAGE_HEAD);
        for (title, families) in ALL {
            write!(
                page,
                "\n## {title}\n\n| metric | kind | unit | labels | meaning |\n|---|---|---|---|---|\n"
            )
            .expect("memory takes all text");
            for family in *families {
                let Family { name, kind, unit, labels, help } = family;
                let labels = quoted(labels.iter().map(|label| label.name().to_owned()));
                writeln!(
                    page,
                    "| `{}{name}` | {} | {unit} | {labels} | {help} |",
                    family.prefix(),
                    kind.name()
                )
                .expect("memory takes all text");
            }
        }
        write_labels(&mut page);
        page
    }

    /// What each label can say, and of what; each where it comes first.
    fn write_labels(page: &mut String) {
        page.push_str(LABELS_HEAD);
        for (label, values) in labels().into_iter().filter_map(|label| Some((label, label.values()?))) {
            let having = all().into_iter().filter(|family| family.labels.contains(&label));
            let having = quoted(having.map(|family| format!("{}{}", family.prefix(), family.name)));
            let values = quoted(values.into_iter().map(str::to_owned));
            writeln!(page, "| `{}` | {having} | {values} |", label.name()).expect("memory takes all text");
        }
    }

    fn quoted(words: impl Iterator<Item = String>) -> String {
        words.map(|word| format!("`{word}`")).collect::<Vec<_>>().join(", ")
    }

    fn all() -> Vec<&'static Family> {
        ALL.iter().flat_map(|(_, families)| families.iter().copied()).collect()
    }

    /// Those that metrics have, each once.
    fn labels() -> Vec<Label> {
        let mut labels = Vec::new();
        for label in all().iter().flat_map(|family| family.labels) {
            if !labels.contains(label) {
                labels.push(*label);
            }
        }
        labels
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
        for family in all() {
            let name = format!("{}{}", family.prefix(), family.name);
            let parts: &[&str] = if family.kind == Kind::Histogram { &["_bucket", "_sum"] } else { &[""] };
            let begins = |query: &&str| parts.iter().any(|part| query.contains(&format!("{name}{part}{{")));
            assert!(queries.iter().any(begins), "no panel has {name}");
        }
    }

    /// Each has its own name, and one that says what it is.
    #[test]
    fn names_follow_the_conventions() {
        let all = all();
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

    /// A name ends with its unit where that is a base unit, and has no other one.
    #[test]
    fn units_are_those_of_the_names() {
        for family in all() {
            let Family { name, kind, unit, .. } = family;
            let base = name.strip_suffix("_total").or(name.strip_suffix("_max")).unwrap_or(name);
            for of_base in ["seconds", "bytes", "ratio"] {
                assert_eq!(base.ends_with(&format!("_{of_base}")), *unit == of_base, "{name} in {unit}");
            }
            assert!(*kind != Kind::Histogram || *unit == "seconds", "{name} in {unit}");
            let is_sign = ["_info", "_success", "circuit_open"].iter().any(|end| name.ends_with(end));
            assert_eq!(is_sign, *unit == "1", "{name} in {unit}");
            assert!(is_sign || unit.ends_with('s'), "{name}: {unit} is no plural");
            // Where a name says what is counted, it is this; longer words first.
            let counted =
                ["requests", "responses", "connections", "frames", "chunks", "instances", "retries"];
            let said = counted.iter().find(|word| base.split('_').any(|part| part == **word));
            let unit = if *unit == "calls" && base.contains("retries") { "retries" } else { *unit };
            let is_base = ["seconds", "bytes"].contains(&unit);
            assert!(is_base || said.is_none_or(|word| *word == unit), "{name} in {unit}");
        }
    }

    /// A bound has the unit and the labels of what it bounds, and the same name, but for what is left out of that.
    #[test]
    fn bounds_are_of_something() {
        for bound in all() {
            let Some(stem) = bound.name.strip_suffix("_max") else { continue };
            let stem = if bound == &CUSTODY_SIDECAR_MAX { CUSTODY_LIVE.name } else { stem };
            let names = [stem.to_owned(), format!("{stem}_open"), format!("{stem}_busy")];
            let bounded = all().into_iter().find(|family| names.iter().any(|name| name == family.name));
            let bounded = bounded.unwrap_or_else(|| panic!("nothing is bounded by {}", bound.name));
            assert_eq!((bound.kind, bounded.kind), (Kind::Gauge, Kind::Gauge), "{}", bound.name);
            assert_eq!((bound.unit, bound.labels), (bounded.unit, bounded.labels), "{}", bound.name);
        }
    }

    /// What labels can say are words, each once, and of each name at most so many; so series stay few.
    #[test]
    fn labels_say_few_words() {
        for label in labels() {
            let values = label.values().unwrap_or_default();
            assert!(values.len() <= 40, "{label:?}: {values:?}");
            for (place, value) in values.iter().enumerate() {
                let is_word =
                    value.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || "-_".contains(c));
                assert!(is_word && !value.is_empty(), "{label:?}: {value}");
                assert!(!values[..place].contains(value), "{label:?}: {value} is there twice");
            }
        }
    }
}
