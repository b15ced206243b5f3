//! `/v1/requests`: the requests that the lanes keep, as JSON.
//!
//! - A request of a client is put together with those that its steps made, by the ids of a trace where there are some, else by
//!   the id of the request, the service and the time.
//! - What a client or a cell chose was cut when it was kept; it is text here, and never markup.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use crate::trace::{RecordId, RequestRecord, SpanKind, SpanRecord, TraceSettings};

/// Requests inside requests that are told; those below are left out.
const DEPTH_MAX: usize = 8;
/// Requests that one answer tells in all.
const TOLD_MAX: usize = 500;

/// Of all lanes, newest first.
#[derive(Debug)]
pub(super) struct Kept {
    records: Vec<Arc<RequestRecord>>,
    /// Calls that steps made, by their ids: the place of the caller, and that of the span.
    calls: HashMap<u64, (usize, usize)>,
    /// Places of the records, by the span that made them, and by the id of the client's request.
    by_parent: HashMap<u64, usize>,
    by_request: HashMap<Box<str>, Vec<usize>>,
}

/// Records with one request id that are looked through for a callee.
const SAME_REQUEST_MAX: usize = 64;

impl Kept {
    pub(super) fn new(mut records: Vec<Arc<RequestRecord>>) -> Self {
        records.sort_by(|one, other| other.started.cmp(&one.started).then(other.id.cmp(&one.id)));
        let (mut calls, mut by_parent) = (HashMap::new(), HashMap::new());
        let mut by_request: HashMap<Box<str>, Vec<usize>> = HashMap::new();
        for (place, record) in records.iter().enumerate() {
            for (number, span) in record.spans.iter().enumerate().filter(|(_, span)| is_call(span)) {
                calls.insert(span.id, (place, number));
            }
            if let Some(parent) = record.parent {
                by_parent.insert(parent, place);
            }
            if let Some(id) = &record.request_id {
                by_request.entry(id.clone()).or_default().push(place);
            }
        }
        Self { records, calls, by_parent, by_request }
    }

    /// All of them, without their parts.
    pub(super) fn list(&self, settings: &TraceSettings, lanes: usize) -> String {
        let requests: Vec<Value> = self.records.iter().map(|record| self.summary(record)).collect();
        json!({
            "kept_max": settings.kept_max * 2 * lanes,
            "slow_seconds": settings.slow.as_secs_f64(),
            "requests": requests,
        })
        .to_string()
    }

    /// One with all its parts. None: it is not kept.
    pub(super) fn one(&self, id: RecordId) -> Option<String> {
        let record = self.records.iter().find(|record| record.id == id)?;
        let mut room = TOLD_MAX;
        Some(self.detail(record, DEPTH_MAX, &mut room).to_string())
    }

    /// What it takes to run one again. None: it is not kept, or was not recorded.
    pub(super) fn recording(&self, id: RecordId) -> Option<String> {
        let record = self.records.iter().find(|record| record.id == id)?;
        serde_json::to_string_pretty(record.recording.as_ref()?).ok()
    }

    fn summary(&self, record: &RequestRecord) -> Value {
        json!({
            "id": record.id,
            "trace_id": format!("{:032x}", record.ids.trace_id),
            "request_id": record.request_id,
            "service": &*record.service,
            "method": record.method,
            "target": record.target,
            "status": record.status,
            "error": record.error,
            "started_ms": record.started.as_secs_f64() * 1000.0,
            "duration_seconds": record.took.as_secs_f64(),
            "steps": record.plan.as_ref().map_or(0, |plan| plan.steps.len() + plan.steps_left_out),
            "why": record.why,
            "caller": self.caller_of(record).map(|caller| caller.id),
            "has_recording": record.recording.is_some(),
        })
    }

    fn detail(&self, record: &RequestRecord, depth: usize, room: &mut usize) -> Value {
        *room -= 1;
        let mut callees = Vec::new();
        let mut spans = Vec::new();
        for span in &record.spans {
            let callee = self.callee_of(record, span);
            spans.push(part(span, callee.map(|callee| callee.id)));
            if let (Some(callee), true) = (callee, depth > 0 && *room > 0) {
                callees.push(self.detail(callee, depth - 1, room));
            }
        }
        json!({
            "request": self.summary(record),
            "plan": record.plan,
            "spans": spans,
            "spans_left_out": record.spans_left_out,
            "critical_path": record.critical_path(),
            "callees": callees,
        })
    }

    fn caller_of(&self, record: &RequestRecord) -> Option<&RequestRecord> {
        if let Some((place, number)) = record.parent.and_then(|parent| self.calls.get(&parent)) {
            let caller = &self.records[*place];
            return is_made_by(record, caller, &caller.spans[*number]).then_some(caller);
        }
        let makes = |other: &&RequestRecord| other.spans.iter().any(|span| is_made_by(record, other, span));
        self.of_same_request(record).find(makes)
    }

    fn callee_of(&self, record: &RequestRecord, span: &SpanRecord) -> Option<&RequestRecord> {
        if let Some(place) = self.by_parent.get(&span.id) {
            let callee = &self.records[*place];
            return is_made_by(callee, record, span).then_some(callee);
        }
        self.of_same_request(record).find(|other| is_made_by(other, record, span))
    }

    fn of_same_request(&self, record: &RequestRecord) -> impl Iterator<Item = &RequestRecord> {
        let places = record.request_id.as_ref().and_then(|id| self.by_request.get(id));
        let places = places.map(Vec::as_slice).unwrap_or_default();
        places.iter().take(SAME_REQUEST_MAX).map(|place| &*self.records[*place])
    }
}

/// Whether `span` of `caller` is the call that `record` answers.
fn is_made_by(record: &RequestRecord, caller: &RequestRecord, span: &SpanRecord) -> bool {
    if !is_call(span) || record.id == caller.id {
        return false;
    }
    if record.parent == Some(span.id) && record.ids.trace_id == caller.ids.trace_id {
        return true;
    }
    // Without ids of its own: the same request of a client, and nothing else that fits.
    let is_traced = record.parent.is_some() && caller.parent != record.parent;
    let (begins, ends) = (caller.started + span.start, caller.started + span.start + span.took);
    !is_traced
        && record.request_id.is_some()
        && record.request_id == caller.request_id
        && span.target.as_deref() == Some(&*record.service)
        && record.started + CLOCK_SLACK >= begins
        && record.started + record.took <= ends + CLOCK_SLACK
}

fn is_call(span: &SpanRecord) -> bool {
    span.kind == SpanKind::Egress
}

/// The beginning of a request is counted back from its end, by two clocks.
const CLOCK_SLACK: Duration = Duration::from_micros(50);

fn part(span: &SpanRecord, callee: Option<RecordId>) -> Value {
    json!({
        "step": span.step,
        "kind": span.kind,
        "start_seconds": span.start.as_secs_f64(),
        "queue_seconds": span.queue_and_run.map(|(queue, _)| queue.as_secs_f64()),
        "run_seconds": span.queue_and_run.map(|(_, run)| run.as_secs_f64()),
        "duration_seconds": span.took.as_secs_f64(),
        "status": (span.status > 0).then_some(span.status),
        "error": span.error,
        "target": span.target,
        "callee": callee,
    })
}
