//! `/v1/requests`: the requests that the lanes keep, as JSON.
//!
//! - A request of a client is put together with those that its steps made, by the ids of a trace where there are some, else by
//!   the id of the request, the service and the time.
//! - What a client or a cell chose was cut when it was kept; it is text here, and never markup.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use crate::trace::{self, RecordId, Recording, RequestRecord, SpanKind, SpanRecord, TraceSettings};

/// Requests inside requests that are told; those below are left out.
const DEPTH_MAX: usize = 8;
/// Requests that one answer tells in all.
const TOLD_MAX: usize = 500;

/// What one answer may still tell.
struct Room {
    requests: usize,
    parts: usize,
    /// Requests that are told, or named as the callee of a call.
    taken: HashSet<RecordId>,
}

/// Of all lanes, newest first.
#[derive(Debug, Default)]
pub(super) struct Kept {
    records: Vec<Arc<RequestRecord>>,
    recordings: HashMap<RecordId, Arc<Recording>>,
    /// Calls that steps made, by their ids: the place of the caller, and that of the span.
    calls: HashMap<u64, (usize, usize)>,
    /// The same by the id of the client's request and the service that was called.
    calls_to: HashMap<RequestOf, Vec<(usize, usize)>>,
    /// Places of the records, by the span that made them, and by the id of the client's request and their service.
    by_parent: HashMap<u64, Vec<usize>>,
    by_request: HashMap<RequestOf, Vec<usize>>,
}

/// The id of a client's request, and a service.
type RequestOf = (Box<str>, Box<str>);

/// Calls, or callees, that are looked through where ids do not say it: a client may send one request id with all of its.
const LOOKED_THROUGH_MAX: usize = 64;
/// Parts of requests that one answer tells; of more only the number is told.
const PARTS_MAX: usize = 5000;

impl Kept {
    pub(super) fn new(kept: Vec<trace::Kept>) -> Self {
        let recorded = |kept: &trace::Kept| Some((kept.record.id, Arc::clone(kept.recording.as_ref()?)));
        let recordings = kept.iter().filter_map(recorded).collect();
        let mut records: Vec<_> = kept.into_iter().map(|kept| kept.record).collect();
        records.sort_by(|one, other| other.started.cmp(&one.started).then(other.id.cmp(&one.id)));
        let mut indexed = Self { recordings, ..Self::default() };
        for (place, record) in records.iter().enumerate() {
            indexed.index(place, record);
        }
        Self { records, ..indexed }
    }

    fn index(&mut self, place: usize, record: &RequestRecord) {
        let request = record.request_id.as_ref();
        for (number, span) in record.spans.iter().enumerate().filter(|(_, span)| is_call(span)) {
            self.calls.insert(span.id, (place, number));
            if let (Some(request), Some(target)) = (request, &span.target) {
                self.calls_to.entry((request.clone(), target.clone())).or_default().push((place, number));
            }
        }
        if let Some(parent) = record.parent {
            self.by_parent.entry(parent).or_default().push(place);
        }
        if let Some(request) = request {
            self.by_request.entry((request.clone(), (&*record.service).into())).or_default().push(place);
        }
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
        let mut room = Room { requests: TOLD_MAX, parts: PARTS_MAX, taken: HashSet::from([record.id]) };
        Some(self.detail(record, DEPTH_MAX, &mut room).to_string())
    }

    /// What it takes to run one again. None: it is not kept, or was not recorded.
    pub(super) fn recording(&self, id: RecordId) -> Option<String> {
        serde_json::to_string_pretty(&**self.recordings.get(&id)?).ok()
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
            "queue_seconds": record.spent.queue.as_secs_f64(),
            "run_seconds": record.spent.run.as_secs_f64(),
            "egress_seconds": record.spent.egress.as_secs_f64(),
            "steps": record.plan.as_ref().map_or(0, |plan| plan.steps.len() + plan.steps_left_out),
            "why": record.why,
            "caller": self.caller_of(record).map(|caller| caller.id),
            "has_recording": self.recordings.contains_key(&record.id),
        })
    }

    fn detail(&self, record: &RequestRecord, depth: usize, room: &mut Room) -> Value {
        room.requests -= 1;
        let told = record.spans.len().min(room.parts);
        room.parts -= told;
        let led_to = self.callees_of(record, &record.spans[..told], &mut room.taken);
        let spans: Vec<Value> =
            record.spans.iter().zip(&led_to).map(|(span, callee)| part(span, *callee)).collect();
        let mut callees = Vec::new();
        for callee in led_to.into_iter().flatten() {
            if depth > 0 && room.requests > 0 {
                callees.push(self.detail(callee, depth - 1, room));
            }
        }
        let left_out = record.spans_left_out as usize + record.spans.len() - told;
        json!({
            "request": self.summary(record),
            "plan": record.plan,
            "spans": spans,
            "spans_left_out": left_out,
            "critical_path": record.critical_path(),
            "callees": callees,
        })
    }

    fn caller_of(&self, record: &RequestRecord) -> Option<&RequestRecord> {
        if let Some((place, number)) = record.parent.and_then(|parent| self.calls.get(&parent)) {
            let caller = &self.records[*place];
            return is_made_by(record, caller, &caller.spans[*number]).then_some(caller);
        }
        let key = (record.request_id.clone()?, (&*record.service).into());
        let calls = self.calls_to.get(&key)?.iter().take(LOOKED_THROUGH_MAX);
        let mut callers = calls.map(|(place, number)| (&*self.records[*place], *number));
        callers
            .find(|(caller, number)| is_made_by(record, caller, &caller.spans[*number]))
            .map(|(caller, _)| caller)
    }

    /// For each of `spans` the request that answered it. Those that ended first choose first: what fits into a short call fits
    /// into a longer one too.
    fn callees_of(
        &self,
        record: &RequestRecord,
        spans: &[SpanRecord],
        taken: &mut HashSet<RecordId>,
    ) -> Vec<Option<&RequestRecord>> {
        let mut led_to = vec![None; spans.len()];
        let mut order: Vec<usize> = (0..spans.len()).collect();
        order.sort_by_key(|number| spans[*number].start + spans[*number].took);
        for number in order {
            led_to[number] = self.callee_of(record, &spans[number], taken);
            taken.extend(led_to[number].map(|callee| callee.id));
        }
        led_to
    }

    /// `taken`: those that other calls led to.
    fn callee_of(
        &self,
        record: &RequestRecord,
        span: &SpanRecord,
        taken: &HashSet<RecordId>,
    ) -> Option<&RequestRecord> {
        let fits = |place: &&usize| {
            let callee = &self.records[**place];
            !taken.contains(&callee.id) && is_made_by(callee, record, span)
        };
        // Of several that which began first: what began later may fit into a later call.
        let first = |places: &'_ Vec<usize>| {
            let fitting = places.iter().take(LOOKED_THROUGH_MAX).filter(fits);
            fitting.min_by_key(|place| self.records[**place].started).copied()
        };
        let of_parent = self.by_parent.get(&span.id).and_then(first);
        let place = of_parent.or_else(|| {
            let key = (record.request_id.clone()?, span.target.clone()?);
            self.by_request.get(&key).and_then(first)
        })?;
        Some(&self.records[place])
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

fn part(span: &SpanRecord, callee: Option<&RequestRecord>) -> Value {
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
        "callee": callee.map(|callee| callee.id),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trace::{Ids, TimeSpent, Why};

    fn millis(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    /// A call to `back`, so many milliseconds after its request began, and for so many.
    fn call(id: u64, start_ms: u64, took_ms: u64) -> SpanRecord {
        SpanRecord {
            id,
            kind: SpanKind::Egress,
            step: None,
            target: Some("back".into()),
            start: millis(start_ms),
            took: millis(took_ms),
            queue_and_run: None,
            status: 503,
            error: None,
        }
    }

    /// A request of one client's, begun `started_ms` after the first.
    fn record(
        number: u64,
        service: &str,
        started_ms: u64,
        took_ms: u64,
        spans: Vec<SpanRecord>,
    ) -> trace::Kept {
        let record = RequestRecord {
            id: RecordId { lane: 0, number },
            ids: Ids { trace_id: u128::from(number), span_id: number },
            parent: None,
            request_id: Some("one".into()),
            service: service.into(),
            method: "GET".into(),
            target: "/".into(),
            status: Some(503),
            error: None,
            started: Duration::from_secs(1000) + millis(started_ms),
            took: millis(took_ms),
            spent: TimeSpent::default(),
            why: Why::Error,
            plan: None,
            graph: None,
            spans,
            spans_left_out: 0,
        };
        trace::Kept { record: Arc::new(record), recording: None }
    }

    /// A long call, into which all fit, leaves the short ones those that they could have made.
    #[test]
    fn every_call_finds_its_callee() {
        let caller = record(9, "front", 0, 20, vec![call(101, 0, 12), call(102, 0, 6), call(103, 0, 5)]);
        let callees =
            [(1, 4), (2, 5), (3, 11)].map(|(number, took)| record(number, "back", 0, took, Vec::new()));
        let kept = Kept::new([caller].into_iter().chain(callees).collect());
        let told = kept.one(RecordId { lane: 0, number: 9 }).expect("it is kept");
        let told: Value = serde_json::from_str(&told).expect("JSON");
        let callees: Vec<&Value> =
            told["spans"].as_array().expect("a list").iter().map(|span| &span["callee"]).collect();
        assert_eq!(
            (callees[0], told["callees"].as_array().map(Vec::len)),
            (&Value::from("0-3"), Some(3)),
            "{told}"
        );
        assert!(callees.iter().all(|callee| callee.is_string()), "{told}");
    }

    /// Of two that fit a call, the one that began first is its callee: the other fits a call that began later too.
    #[test]
    fn what_began_first_is_chosen() {
        let caller = record(9, "front", 0, 20, vec![call(101, 0, 10), call(102, 5, 6)]);
        let callees = [record(1, "back", 1, 7, Vec::new()), record(2, "back", 6, 3, Vec::new())];
        let kept = Kept::new([caller].into_iter().chain(callees).collect());
        let told = kept.one(RecordId { lane: 0, number: 9 }).expect("it is kept");
        let told: Value = serde_json::from_str(&told).expect("JSON");
        assert_eq!(
            (&told["spans"][0]["callee"], &told["spans"][1]["callee"]),
            (&"0-1".into(), &"0-2".into())
        );
    }
}
