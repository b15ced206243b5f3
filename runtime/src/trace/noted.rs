//! What is noted of one request while it is under way.
//!
//! - A request has its [`Trace`] from its arrival to its end. Which are kept then is the recorder's to say.
//! - Bounded: so many parts, and texts that are cut.

use std::time::Duration;

use bytes::Bytes;
use cellmesh_dpu::origin::TRACEPARENT;
use cellmesh_dpu::spans::Sampling;
use cellmesh_dpu::trace_context::{Ids, Traceparent};
use cellmesh_graph::{BuiltRequests, StepIndex, StepResult};
use cellmesh_shm::clock::Nanos;
use cellmesh_shm::ids::ServiceId;
use serde::Serialize;

use super::record::{SpanRecord, TimeSpent, text};
use super::recorder::Ended;
use super::recording::{Sent, Tape};
use crate::worker::{CallKind, Timing};

/// Parts of a request that are noted; more are counted.
pub(super) const SPANS_MAX: usize = 1000;

/// What a part of a request is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum SpanKind {
    /// The handler's call.
    Handler,
    /// An internal step.
    Internal,
    /// An internal step whose result was prepared: nothing was called for it.
    Prepared,
    /// A call that makes the requests of an egress step.
    Builder,
    /// A call to another service.
    Egress,
}

impl SpanKind {
    fn is_guest_call(self) -> bool {
        matches!(self, Self::Handler | Self::Internal | Self::Builder)
    }
}

/// What is noted of one request while it is under way.
#[derive(Debug, Default)]
pub struct Trace {
    /// Where it is in a trace; none of a request that nobody looks at from outside.
    pub(super) ids: Option<Ids>,
    pub(super) sampling: Sampling,
    /// Header lines that name it in the log, where its own do not: of the first request of a trace.
    pub(super) naming_lines: Option<Bytes>,
    /// Whether anything is noted at all.
    pub(super) is_on: bool,
    pub(super) spans: Vec<Span>,
    /// When its graph began, if it has one.
    pub(super) graph: Option<Nanos>,
    pub(super) left_out: u32,
    /// Of all its parts, those that are left out too.
    pub(super) totals: Totals,
    pub(super) error: Option<Box<str>>,
    pub(super) tape: Option<Box<Tape>>,
}

/// Where the time of a request went, as far as its parts have ended.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Totals {
    handler: TimeSpent,
    steps: TimeSpent,
    /// Calls to other services that are under way, and since when there has been one.
    calls: u32,
    since: Nanos,
}

/// A part of a request, under way or at its end.
#[derive(Debug)]
pub(super) struct Span {
    pub(super) kind: SpanKind,
    pub(super) step: Option<StepIndex>,
    pub(super) target: Option<ServiceId>,
    wanted: Nanos,
    /// None: it has not ended.
    ended: Option<Nanos>,
    queue: Duration,
    ran: Duration,
    status: u16,
    error: Option<Box<str>>,
}

impl Trace {
    /// Whether anything is noted at all.
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.is_on
    }

    /// A guest call has ended: with a status of HTTP if it is a step's result, with an error if it went wrong.
    pub(crate) fn guest_call(
        &mut self,
        step: Option<StepIndex>,
        timing: &Timing,
        (status, error): (u16, Option<&str>),
    ) {
        let kind = match timing.kind {
            CallKind::Handler => SpanKind::Handler,
            CallKind::Internal => SpanKind::Internal,
            CallKind::Builder => SpanKind::Builder,
        };
        self.totals.guest_call(timing);
        self.push(Span {
            kind,
            step,
            target: None,
            wanted: timing.wanted,
            ended: Some(timing.ended),
            queue: timing.queued(),
            ran: timing.ran,
            status,
            error: error.map(cut),
        });
    }

    /// The handler's graph begins.
    pub(crate) fn graph_begins(&mut self, now: Nanos) {
        self.graph = Some(now);
    }

    /// A call to another service begins. The answer: what its end is told with.
    pub(crate) fn call(&mut self, step: StepIndex, target: ServiceId, now: Nanos) -> Option<usize> {
        self.totals.call_begins(now);
        self.push(Span {
            kind: SpanKind::Egress,
            step: Some(step),
            target: Some(target),
            wanted: now,
            ended: None,
            queue: Duration::ZERO,
            ran: Duration::ZERO,
            status: 0,
            error: None,
        })
    }

    /// It has its outcome. Once for each call, whether it is one of the parts that are kept or not.
    pub(crate) fn answered(&mut self, span: Option<usize>, now: Nanos, status: u16, error: Option<&str>) {
        self.totals.call_ends(now);
        if let Some(span) = span.and_then(|span| self.spans.get_mut(span)) {
            (span.ended, span.status, span.error) = (Some(now), status, error.map(cut));
        }
    }

    /// The header line that the next call to another service is sent with, if somebody looks at this request.
    pub(crate) fn header_of_next_call(&self) -> Option<Bytes> {
        let ids = self.ids?;
        // Of a call that is not kept the request itself is the parent.
        let is_kept = self.spans.len() < SPANS_MAX;
        let (trace_id, span_id) =
            (ids.trace_id, if is_kept { ids.part(self.spans.len()) } else { ids.span_id });
        let value = Traceparent { trace_id, span_id, sampled: self.sampling != Sampling::No };
        Some(format!("{TRACEPARENT}: {value}\n").into())
    }

    /// Header lines that name the request in the log, where its own do not.
    pub(crate) fn naming_lines(&self) -> Option<Bytes> {
        self.naming_lines.clone()
    }

    /// Whether all of it is recorded, its answer too.
    #[must_use]
    pub fn is_recorded(&self) -> bool {
        self.tape.is_some()
    }

    /// Where all of the request is recorded, if it is.
    fn tape(&mut self) -> Option<&mut Tape> {
        self.tape.as_deref_mut()
    }

    /// A step sends a request.
    pub(crate) fn sent(&mut self, step: StepIndex, sent: impl FnOnce() -> Sent) {
        if let Some(tape) = self.tape() {
            tape.sent(step, &sent());
        }
    }

    /// Its answer has come, or it could not be sent.
    pub(crate) fn came(&mut self, step: StepIndex, result: &StepResult) {
        if let Some(tape) = self.tape() {
            tape.answered(step, result);
        }
    }

    /// An internal step has returned.
    pub(crate) fn returned(&mut self, step: StepIndex, result: impl FnOnce() -> StepResult) {
        if let Some(tape) = self.tape() {
            tape.returned(step, &result());
        }
    }

    /// An internal step has the result that its handler prepared.
    pub(crate) fn prepared(&mut self, step: StepIndex, now: Nanos, result: &StepResult) {
        if let Some(tape) = self.tape() {
            tape.returned(step, result);
        }
        self.push(Span {
            kind: SpanKind::Prepared,
            step: Some(step),
            target: None,
            wanted: now,
            ended: Some(now),
            queue: Duration::ZERO,
            ran: Duration::ZERO,
            status: result.status,
            error: None,
        });
    }

    /// A builder has returned.
    pub(crate) fn built(&mut self, step: StepIndex, built: &Result<BuiltRequests, Box<str>>) {
        if let Some(tape) = self.tape() {
            tape.built(step, built);
        }
    }

    /// The request fails for a reason that no part of it has.
    pub(crate) fn failed(&mut self, why: impl FnOnce() -> String) {
        if self.is_on {
            self.error.get_or_insert_with(|| cut(&why()));
        }
    }

    fn push(&mut self, span: Span) -> Option<usize> {
        if !self.is_on {
            return None;
        }
        if self.spans.len() == SPANS_MAX {
            self.left_out += 1;
            return None;
        }
        self.spans.push(span);
        Some(self.spans.len() - 1)
    }
}

impl Totals {
    fn guest_call(&mut self, timing: &Timing) {
        let spent = match timing.kind {
            CallKind::Handler => &mut self.handler,
            CallKind::Internal | CallKind::Builder => &mut self.steps,
        };
        spent.queue += timing.queued();
        spent.run += timing.ran;
    }

    fn call_begins(&mut self, now: Nanos) {
        if self.calls == 0 {
            self.since = now;
        }
        self.calls += 1;
    }

    fn call_ends(&mut self, now: Nanos) {
        self.calls = self.calls.saturating_sub(1);
        if self.calls == 0 {
            self.steps.egress += now.saturating_since(self.since);
        }
    }

    /// Of the steps of its graph, at the end of the request: calls that are not answered have lasted until then.
    pub(super) fn of_graph(&self, now: Nanos) -> TimeSpent {
        let open = if self.calls == 0 { Duration::ZERO } else { now.saturating_since(self.since) };
        TimeSpent { egress: self.steps.egress + open, ..self.steps }
    }

    /// Of all of it.
    pub(super) fn of_request(&self, now: Nanos) -> TimeSpent {
        let TimeSpent { queue, run, egress } = self.of_graph(now);
        TimeSpent { queue: self.handler.queue + queue, run: self.handler.run + run, egress }
    }
}

impl Span {
    /// As it is kept.
    pub(super) fn record(
        &self,
        id: u64,
        step: Option<Box<str>>,
        target: Option<Box<str>>,
        request: &Ended<'_>,
    ) -> SpanRecord {
        let end = self.ended.unwrap_or(request.now);
        let unanswered = || self.ended.is_none().then(|| "no answer yet".into());
        SpanRecord {
            id,
            kind: self.kind,
            step,
            target,
            start: self.wanted.saturating_since(request.arrived),
            took: end.saturating_since(self.wanted),
            queue_and_run: self.kind.is_guest_call().then_some((self.queue, self.ran)),
            status: self.status,
            error: self.error.clone().or_else(unanswered),
        }
    }
}

/// What a cell says of its failure has whatever length.
fn cut(error: &str) -> Box<str> {
    text(error.as_bytes())
}
