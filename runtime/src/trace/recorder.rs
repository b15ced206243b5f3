//! Recorder: takes note of requests on one lane, and keeps those that somebody will want to see.
//!
//! - A request has its [`Trace`] from its arrival to its end; its buffer goes back and serves the next one.
//! - Two rings of the same size: of what was sampled, and of what was slow or in error, so that neither drives out the other.
//! - It outlives a worker, as meters do: one that attaches anew keeps on recording here.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use cellmesh_dpu::origin::{REQUEST_ID, TRACEPARENT};
use cellmesh_dpu::spans::Sampling;
use cellmesh_dpu::trace_context::{Ids, Parent, Traceparent};
use cellmesh_graph::{Plan, StepIndex};
use cellmesh_shm::clock::Nanos;
use cellmesh_shm::ids::ServiceId;
use cellmesh_shm::message::{RequestMessage, ResponseMessage};

use super::choice::{Choice, Outcome};
use super::export::{Outbox, Outgoing};
use super::noted::{SPANS_MAX, Span, SpanKind, Trace};
use super::record::{
    GraphRecord, PlanShape, RecordId, RequestRecord, SpanRecord, TimeSpent, Why, text, unix_now,
};
use super::recording::{Recording, Tape};
use super::{IngressParts, LeftOut, TraceSettings};

/// Buffers that wait to be used again, and the most parts that such a one holds.
const SPARE_MAX: usize = 64;
const SPARE_SPANS_MAX: usize = 64;

/// A request at its end.
#[derive(Debug)]
pub struct Ended<'a> {
    /// The request.
    pub message: &'a RequestMessage,
    /// Whose it was. Lanes share this name, and so its count of references: it is cloned only for what is kept.
    pub service: &'a Arc<str>,
    /// When it came.
    pub arrived: Nanos,
    /// When it ended.
    pub now: Nanos,
    /// Its answer's; none if nobody waits for one.
    pub status: Option<u16>,
    /// Its answer.
    pub response: Option<&'a ResponseMessage>,
    /// Its graph, if it had one.
    pub plan: Option<&'a Plan>,
    /// Guest calls that nobody waits for any more, and since when they were wanted.
    pub running: &'a [(Option<StepIndex>, Nanos)],
}

/// What a lane's recorder is made of. Unlike that, it can be sent there.
#[derive(Debug)]
pub struct RecorderParts {
    /// The number of the lane.
    pub lane: u16,
    /// What is kept.
    pub settings: TraceSettings,
    /// Where what is kept is sent, too.
    pub(crate) outbox: Option<Outbox>,
    /// What is not kept because there is too much of it.
    pub(crate) left_out: LeftOut,
}

impl RecorderParts {
    /// Of a lane whose requests are sent to no collector.
    #[must_use]
    pub fn new(lane: u16, settings: TraceSettings) -> Self {
        Self { lane, settings, outbox: None, left_out: LeftOut::default() }
    }

    /// For the network side of the same lane.
    #[must_use]
    pub fn ingress(&self) -> IngressParts {
        let (outbox, left_out) = (self.outbox.clone(), self.left_out.clone());
        IngressParts { settings: self.settings.clone(), outbox, left_out }
    }
}

/// A request that is kept. To clone it counts references.
#[derive(Debug, Clone)]
pub struct Kept {
    /// What became of it.
    pub record: Arc<RequestRecord>,
    /// What it takes to run it again, where config asks for that and it is not too much. Nobody else holds it: it goes when
    /// the request is not kept any more.
    pub recording: Option<Arc<Recording>>,
}

/// Of one lane. A cheap handle, for one thread.
#[derive(Debug, Clone)]
pub struct Recorder(Rc<RefCell<State>>);

#[derive(Debug)]
struct State {
    lane: u16,
    settings: TraceSettings,
    choice: Choice,
    random: fastrand::Rng,
    spare: Vec<Vec<Span>>,
    kept: u64,
    sampled: VecDeque<Kept>,
    /// Slow, or in error.
    notable: VecDeque<Kept>,
    outbox: Option<Outbox>,
}

impl Recorder {
    /// One that has kept nothing yet.
    #[must_use]
    pub fn new(parts: RecorderParts) -> Self {
        let RecorderParts { lane, settings, outbox, left_out } = parts;
        Self(Rc::new(RefCell::new(State {
            lane,
            choice: Choice::new(&settings, left_out),
            settings,
            random: fastrand::Rng::new(),
            spare: Vec::new(),
            kept: 0,
            sampled: VecDeque::new(),
            notable: VecDeque::new(),
            outbox,
        })))
    }

    /// What is kept, in no order.
    #[must_use]
    pub fn kept(&self) -> Vec<Kept> {
        let state = self.0.borrow();
        state.sampled.iter().chain(&state.notable).cloned().collect()
    }

    /// A request has come.
    ///
    /// - cost: a look at its header lines; no allocation where one has ended before, but for the first request of a trace.
    pub(crate) fn begin(&self, message: &RequestMessage, now: Nanos) -> Trace {
        let state = &mut *self.0.borrow_mut();
        if !state.is_on() {
            return Trace::default();
        }
        let parent = parent_of(message);
        let random = state.random.u64(..);
        let sampling = state.choice.begin(parent, now, random);
        let is_sampled = sampling != Sampling::No;
        let is_seen = is_sampled || state.outbox.is_some();
        let ids = is_seen.then(|| Ids::below(parent, &mut state.random));
        let spans = state.spare.pop().unwrap_or_default();
        let tape = state.settings.record_bytes_max.and_then(|bytes_max| Tape::of(message, bytes_max));
        let tape = tape.map(Box::new);
        let naming_lines = ids.filter(|_| parent.is_none()).map(|ids| naming_lines(message, ids, is_sampled));
        Trace { ids, sampling, naming_lines, is_on: true, spans, tape, ..Trace::default() }
    }

    /// A request of which something was noted has ended: it is kept, or forgotten. `name_of`: names of services.
    pub(crate) fn end(
        &self,
        mut trace: Trace,
        ended: &Ended<'_>,
        name_of: impl Fn(ServiceId) -> Option<Box<str>>,
    ) {
        let state = &mut *self.0.borrow_mut();
        if let Some(why) = state.choice.end(&outcome(&trace, ended), ended.now) {
            let tape = trace.tape.take();
            let record = state.record(&trace, ended, why, name_of);
            let finish =
                |tape: Box<Tape>| tape.finish(ended.service, ended.message, ended.plan, ended.response?);
            state.keep(record, tape.and_then(finish));
        }
        state.take_back(trace.spans);
    }
}

impl State {
    fn is_on(&self) -> bool {
        self.settings.kept_max > 0 || self.outbox.is_some()
    }

    fn record(
        &mut self,
        trace: &Trace,
        ended: &Ended<'_>,
        why: Why,
        name_of: impl Fn(ServiceId) -> Option<Box<str>>,
    ) -> RequestRecord {
        let message = ended.message;
        let parent = parent_of(message);
        let ids = trace.ids.unwrap_or_else(|| Ids::below(parent, &mut self.random));
        self.kept += 1;
        let took = ended.now.saturating_since(ended.arrived);
        let step_name = |step: StepIndex| {
            let node = ended.plan.and_then(|plan| Some((plan, plan.nodes.get(step.0 as usize)?)));
            node.and_then(|(plan, node)| Some(text(&plan.arena[node.id.range_in(plan.arena.len())?])))
        };
        let mut spans: Vec<SpanRecord> = Vec::with_capacity(trace.spans.len() + ended.running.len());
        for (number, span) in trace.spans.iter().enumerate() {
            let step = span.step.and_then(step_name);
            let target = span.target.map(|service| name_of(service).unwrap_or_else(|| "elsewhere".into()));
            spans.push(span.record(ids.part(number), step, target, ended));
        }
        for (number, (step, wanted)) in ended.running.iter().enumerate() {
            let id = ids.part(SPANS_MAX + 1 + number);
            spans.push(still_running(id, step.and_then(step_name), *wanted, ended));
        }
        RequestRecord {
            id: RecordId { lane: self.lane, number: self.kept },
            ids,
            parent: parent.map(|parent| parent.span_id),
            request_id: message.headers().get(REQUEST_ID).map(text),
            service: Arc::clone(ended.service),
            method: text(message.method()),
            target: text(message.target()),
            status: ended.status,
            error: what_went_wrong(trace, ended, &spans),
            started: unix_now().saturating_sub(took),
            took,
            spent: trace.totals.of_request(ended.now),
            why,
            plan: ended.plan.map(PlanShape::of),
            graph: trace.graph.map(|begun| graph(ids, begun, trace.totals.of_graph(ended.now), ended)),
            spans,
            spans_left_out: trace.left_out,
        }
    }

    fn keep(&mut self, record: RequestRecord, recording: Option<Recording>) {
        let record = Arc::new(record);
        if let Some(outbox) = &self.outbox {
            outbox.send(Outgoing::Request(Arc::clone(&record)));
        }
        let ring = if record.why == Why::Sampled { &mut self.sampled } else { &mut self.notable };
        if self.settings.kept_max == 0 {
            return;
        }
        while ring.len() >= self.settings.kept_max {
            ring.pop_front();
        }
        ring.push_back(Kept { record, recording: recording.map(Arc::new) });
    }

    fn take_back(&mut self, mut spans: Vec<Span>) {
        if self.spare.len() < SPARE_MAX && spans.capacity() <= SPARE_SPANS_MAX {
            spans.clear();
            self.spare.push(spans);
        }
    }
}

/// A request in error whose handler did not even begin was shed.
fn outcome(trace: &Trace, ended: &Ended<'_>) -> Outcome {
    let is_error = ended.status.is_none_or(|status| status >= 500);
    Outcome {
        sampling: trace.sampling,
        status: ended.status,
        is_shed: is_error && trace.spans.is_empty() && ended.running.is_empty(),
        took: ended.now.saturating_since(ended.arrived),
    }
}

/// The first failure inside it says more than the status that came of it.
fn what_went_wrong(trace: &Trace, ended: &Ended<'_>, spans: &[SpanRecord]) -> Option<Box<str>> {
    match ended.status {
        None => Some("nobody waited for the answer any more: its deadline, or the client went away".into()),
        Some(status) if status >= 400 => {
            let of_a_span = || spans.iter().find_map(|span| span.error.clone());
            trace.error.clone().or_else(of_a_span)
        }
        Some(_) => None,
    }
}

/// The parts before it have the numbers from 0, those that were still running the ones behind it.
fn graph(ids: Ids, begun: Nanos, spent: TimeSpent, request: &Ended<'_>) -> GraphRecord {
    GraphRecord {
        id: ids.part(SPANS_MAX),
        start: begun.saturating_since(request.arrived),
        took: request.now.saturating_since(begun),
        spent,
    }
}

fn still_running(id: u64, step: Option<Box<str>>, wanted: Nanos, request: &Ended<'_>) -> SpanRecord {
    SpanRecord {
        id,
        kind: if step.is_some() { SpanKind::Internal } else { SpanKind::Handler },
        step,
        target: None,
        start: wanted.saturating_since(request.arrived),
        took: request.now.saturating_since(wanted),
        queue_and_run: None,
        status: 0,
        error: Some("had not returned".into()),
    }
}

/// What a request that begins a trace is called in the log: its callees' lines have the same.
fn naming_lines(message: &RequestMessage, ids: Ids, sampled: bool) -> Bytes {
    let parent = Traceparent { trace_id: ids.trace_id, span_id: ids.span_id, sampled };
    let mut lines = format!("{TRACEPARENT}: {parent}\n").into_bytes();
    if let Some(id) = message.headers().get(REQUEST_ID) {
        lines.reserve_exact(REQUEST_ID.len() + id.len() + 3);
        [REQUEST_ID.as_bytes(), b": ", id, b"\n"].iter().for_each(|part| lines.extend_from_slice(part));
    }
    lines.into()
}

fn parent_of(message: &RequestMessage) -> Option<Parent> {
    message.headers().get(TRACEPARENT).and_then(Parent::parse)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use cellmesh_graph::{FunctionCall, Node, Span as Bytewise, Work};
    use cellmesh_shm::message::Fault;

    use super::*;
    use crate::trace::{Exporter, Otlp};
    use crate::worker::{CallKind, Timing};

    fn message(headers: &str) -> RequestMessage {
        let head = format!("GET/path?secret{headers}").into();
        let (service, deadline, hops) = (ServiceId(0), Nanos::MAX, 0);
        RequestMessage { service, deadline, hops, method_len: 3, target_len: 12, head, body: Bytes::new() }
    }

    fn recorder(settings: TraceSettings) -> Recorder {
        Recorder::new(RecorderParts::new(0, settings))
    }

    fn end(recorder: &Recorder, trace: Trace, message: &RequestMessage, status: u16, plan: Option<&Plan>) {
        let response = ResponseMessage { status, fault: Fault::None, head: Bytes::new(), body: Bytes::new() };
        let ended = Ended {
            message,
            service: &"s".into(),
            arrived: Nanos(0),
            now: Nanos(10),
            status: Some(status),
            response: Some(&response),
            plan,
            running: &[],
        };
        recorder.end(trace, &ended, |_| None);
    }

    fn timing() -> Timing {
        let (wanted, begun, ended) = (Nanos(0), Nanos(1), Nanos(5));
        let (waited, ran, pooled) = (Duration::from_nanos(1), Duration::from_nanos(3), Duration::ZERO);
        Timing { kind: CallKind::Handler, wanted, begun, ended, waited, ran, pooled }
    }

    /// What a cell says of its failure is kept as far as a person reads it.
    #[test]
    fn long_errors_are_cut() {
        let recorder = recorder(TraceSettings::default());
        let message = message("");
        let mut trace = recorder.begin(&message, Nanos(0));
        trace.guest_call(None, &timing(), (500, Some(&"x".repeat(1 << 20))));
        trace.failed(|| "y".repeat(1 << 20));
        end(&recorder, trace, &message, 500, None);
        let record = &recorder.kept()[0].record;
        let lengths = [&record.error, &record.spans[0].error]
            .map(|error| error.as_ref().map_or(0, |error| error.len()));
        assert!(lengths.iter().all(|length| (256..300).contains(length)), "{lengths:?}");
    }

    /// Parts beyond the bound are counted, and a call that is none of the kept ones is not said to be one.
    #[test]
    fn parts_are_bounded() {
        let recorder = recorder(TraceSettings { share: 1000, ..TraceSettings::default() });
        let message = message("");
        let mut trace = recorder.begin(&message, Nanos(0));
        for _ in 0..SPANS_MAX + 7 {
            trace.guest_call(Some(StepIndex(0)), &timing(), (200, None));
        }
        let ids = trace.ids.expect("it is sampled");
        let header = trace.header_of_next_call().expect("it is sampled");
        assert!(String::from_utf8_lossy(&header).contains(&format!("-{:016x}-01", ids.span_id)));
        assert_eq!(trace.call(StepIndex(0), ServiceId(1), Nanos(3)), None);
        end(&recorder, trace, &message, 200, None);
        let record = &recorder.kept()[0].record;
        assert_eq!((record.spans.len(), record.spans_left_out), (SPANS_MAX, 8));
        assert_eq!(record.why, Why::Sampled);
    }

    /// A request has the sums of its guest calls, its graph those of its steps; calls that overlap count once, and until the
    /// end where they are not answered. Parts that are not kept count too.
    #[test]
    fn time_is_summed() {
        let recorder = recorder(TraceSettings { share: 1000, ..TraceSettings::default() });
        let message = message("");
        let mut trace = recorder.begin(&message, Nanos(0));
        trace.guest_call(None, &timing(), (0, None));
        trace.graph_begins(Nanos(0));
        let step = Timing { kind: CallKind::Internal, ..timing() };
        for _ in 0..SPANS_MAX {
            trace.guest_call(Some(StepIndex(0)), &step, (200, None));
        }
        trace.guest_call(Some(StepIndex(0)), &Timing { kind: CallKind::Builder, ..step }, (0, None));
        for (begin, end) in [(1, 2), (3, 5)] {
            let calls =
                [Nanos(begin), Nanos(begin + 1)].map(|now| trace.call(StepIndex(1), ServiceId(1), now));
            calls.into_iter().for_each(|call| trace.answered(call, Nanos(end), 200, None));
        }
        trace.call(StepIndex(1), ServiceId(1), Nanos(8));
        end(&recorder, trace, &message, 200, None);
        let record = &recorder.kept()[0].record;
        let sums = |guest_calls: usize| {
            let times = |each: u64| Duration::from_nanos(each * guest_calls as u64);
            TimeSpent { queue: times(2), run: times(3), egress: Duration::from_nanos(1 + 2 + 2) }
        };
        assert_eq!(record.spent, sums(SPANS_MAX + 2));
        assert_eq!(record.graph.map(|graph| graph.spent), Some(sums(SPANS_MAX + 1)));
    }

    /// A graph is a part of its own, with an id that no other part has.
    #[test]
    fn graph_is_a_part_of_its_own() {
        let recorder = recorder(TraceSettings { share: 1000, ..TraceSettings::default() });
        let message = message("");
        let mut trace = recorder.begin(&message, Nanos(0));
        trace.guest_call(None, &timing(), (0, None));
        trace.graph_begins(Nanos(4));
        trace.guest_call(Some(StepIndex(0)), &timing(), (200, None));
        end(&recorder, trace, &message, 200, None);
        let trace = recorder.begin(&message, Nanos(0));
        end(&recorder, trace, &message, 200, None);
        let [with, without] = &recorder.kept()[..] else { panic!("two are kept") };
        let graph = with.record.graph.expect("it had a graph");
        assert_eq!((graph.start, graph.took), (Duration::from_nanos(4), Duration::from_nanos(6)));
        let others = with.record.spans.iter().map(|span| span.id).chain([with.record.ids.span_id]);
        assert!(others.into_iter().all(|id| id != graph.id));
        assert_eq!(without.record.graph, None);
    }

    /// A plan that names the same bytes again and again is as large as what would be written of it.
    #[test]
    fn recordings_are_bounded_by_what_is_written() {
        let settings =
            TraceSettings { share: 1000, record_bytes_max: Some(64 << 10), ..TraceSettings::default() };
        let recorder = recorder(settings);
        let message = message("");
        let plan = |steps: usize| {
            let args = Bytewise { start: 0, len: 8 << 10 };
            let work = Work::Internal(FunctionCall { function: 0, args });
            let id = Bytewise { start: 0, len: 1 };
            let node = Node { id, work, inputs: Bytewise::default(), tolerant: false };
            Plan { nodes: vec![node; steps], arena: vec![b'a'; 8 << 10].into(), ..Plan::default() }
        };
        for steps in [2, 100] {
            let trace = recorder.begin(&message, Nanos(0));
            end(&recorder, trace, &message, 200, Some(&plan(steps)));
        }
        let recorded: Vec<bool> = recorder.kept().iter().map(|kept| kept.recording.is_some()).collect();
        assert_eq!(recorded, [true, false]);
    }

    /// Requests whose handler nobody could run take no sample of those that are served, whoever decides it.
    #[test]
    fn shed_requests_take_no_samples() {
        let recorder = recorder(TraceSettings { sample_per_second_min: 1, ..TraceSettings::default() });
        let message = message("");
        let now = Nanos(100_000_000_000);
        for _ in 0..10 {
            let mut trace = recorder.begin(&message, now);
            assert_eq!(trace.sampling, Sampling::Guaranteed);
            trace.failed(|| "too many wait".into());
            end(&recorder, trace, &message, 500, None);
        }
        for sampling in [Sampling::Guaranteed, Sampling::Guaranteed, Sampling::No] {
            let mut trace = recorder.begin(&message, now);
            assert_eq!(trace.sampling, sampling);
            trace.guest_call(None, &timing(), (500, Some("it failed")));
            end(&recorder, trace, &message, 500, None);
        }
    }

    /// With a collector callees are told the trace of a request that nobody samples too, and that nobody does.
    #[test]
    fn callees_are_told_whether_a_request_is_sampled() {
        let otlp = Otlp::parse("http://127.0.0.1:4318").expect("an address");
        for (share, flags) in [(0, "-00\n"), (1000, "-01\n")] {
            let (outbox, _exporter) = Exporter::new(&otlp);
            let settings = TraceSettings { share, sample_per_second_min: 0, ..TraceSettings::default() };
            let recorder =
                Recorder::new(RecorderParts { outbox: Some(outbox), ..RecorderParts::new(0, settings) });
            let header = recorder.begin(&message(""), Nanos(0)).header_of_next_call().expect("a collector");
            assert!(header.ends_with(flags.as_bytes()), "{header:?}");
        }
    }

    /// Of a lane that nobody can ask, and without a collector, nothing is noted.
    #[test]
    fn nothing_is_noted_for_nobody() {
        let recorder = recorder(TraceSettings { kept_max: 0, share: 1000, ..TraceSettings::default() });
        let trace = recorder.begin(&message(""), Nanos(0));
        assert!(!trace.is_on() && trace.header_of_next_call().is_none());
    }
}
