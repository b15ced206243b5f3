//! Graphs: from a plan to its response. The engine says what comes next; this file does it.

use std::time::Duration;

use bytes::Bytes;
use cellmesh_dpu::ServiceName;
use cellmesh_dpu::egress::ELSEWHERE;
use cellmesh_dpu::origin::Origin;
use cellmesh_graph::{
    Action, BuiltRequests, Engine, EngineError, OutgoingBody, OutgoingRequest, Plan, StepIndex, StepResult,
};
use cellmesh_shm::clock::Nanos;
use cellmesh_shm::ids::{CallId, ServiceId};
use cellmesh_shm::message::{Fault, RequestMessage, ResponseMessage};

use super::egress::{self, Outgoing, Waiter};
use super::requests::{Request, RequestId};
use super::{Worker, reply};
use crate::call::Ticket;
use crate::host::{CellFault, GuestCall, Returned, ReturnedBody, StepCall, StepInput};

/// What hosts that are no services of the application are called in metrics, all together.
const ELSEWHERE_NAME: &str = "elsewhere";

impl Worker {
    /// The handler answered by itself.
    pub(super) fn respond_directly(&mut self, ticket: Ticket, returned: Returned) {
        let Some(request) = self.requests.get(ticket.request) else { return };
        let response = reply::of_handler(returned, &request.message.body);
        self.end_with(ticket.request, response);
    }

    /// The handler answered with a graph.
    pub(super) fn start_graph(&mut self, ticket: Ticket, plan: Plan) {
        match plan.validate(&self.limits) {
            Ok(plan) => {
                let Some(request) = self.requests.get_mut(ticket.request) else { return };
                request.trace.graph_begins(self.now);
                request.engine = Some(Box::new(Engine::start(plan)));
                self.advance(ticket.request);
            }
            Err(error) => {
                let service = self.service_name(ticket.service);
                self.hosted[ticket.service].meter.faulted(&CellFault::Contract(error.to_string()));
                if let Some(request) = self.requests.get_mut(ticket.request) {
                    let Origin { request_id, trace_id } = request.origin();
                    tracing::warn!(cell = %service, request_id, trace_id, reason = %error, "graph refused");
                    request.trace.failed(|| format!("bad graph: {error}"));
                }
                self.end(
                    ticket.request,
                    reply::error(500, "bad-graph", &format!("bad graph: {error}"), None),
                );
            }
        }
    }

    /// Starts all steps that can start now; ends the request when there is nothing left to do.
    fn advance(&mut self, id: RequestId) {
        loop {
            let Some(request) = self.requests.get_mut(id) else { return };
            let Some(engine) = &mut request.engine else { return };
            match engine.next_action() {
                Some(Action::RunStep { step, function, args }) => {
                    let call = step_call(engine, step, function, args);
                    self.call_step(id, step, GuestCall::RunStep(call));
                }
                Some(Action::Prepared { step, result }) => {
                    self.hosted[request.message.service].meter.prepared(engine.step_id(step));
                    request.trace.prepared(step, self.now, &result);
                    tell(request, |engine| engine.on_result(step, result));
                }
                Some(Action::BuildRequests { step, function, args }) => {
                    let call = step_call(engine, step, function, args);
                    self.call_step(id, step, GuestCall::BuildRequests(call));
                }
                Some(Action::Send { step, request }) => self.send(id, step, request),
                Some(Action::Done(response)) => {
                    let response = reply::of_graph(response, engine);
                    return self.end(id, response);
                }
                None => return,
            }
        }
    }

    fn call_step(&mut self, id: RequestId, step: StepIndex, work: GuestCall) {
        let Some(request) = self.requests.get(id) else { return };
        let service = request.message.service;
        // Others may have been settled since the clock was read.
        self.now = Nanos::now();
        let ticket = Ticket { request: id, step: Some(step), service, wanted: self.now };
        self.call(ticket, work);
    }

    /// Sends one request of an egress step. One that cannot be sent ends its step.
    fn send(&mut self, id: RequestId, step: StepIndex, outgoing: OutgoingRequest) {
        let Some(request) = self.requests.get_mut(id) else { return };
        let outgoing = Outgoing {
            body: match outgoing.body {
                OutgoingBody::Bytes(body) => body,
                OutgoingBody::OfRequest => request.message.body.clone(),
            },
            method: outgoing.method,
            url: outgoing.url,
            headers: outgoing.headers,
        };
        let callees = self.callees.known();
        let allow = callees.allow(request.message.service);
        request.trace.sent(step, || outgoing.to_sent());
        let traceparent = request.trace.header_of_next_call();
        let message = egress::message(outgoing, &request.message, &callees.routes, allow, traceparent);
        drop(callees);
        let message = match message {
            Ok(message) => message,
            Err(result) => {
                let span = request.trace.call(step, ELSEWHERE, self.now);
                return self.not_sent(id, step, ELSEWHERE, span, *result);
            }
        };
        let may_repeat = self.retry_worker_lost && message.is_idempotent();
        let again = may_repeat.then(|| Box::new(message.clone()));
        let span = request.trace.call(step, message.service, self.now);
        self.transmit(id, step, message, span, again);
    }

    /// `again`: what to send once more if the callee's worker is lost with it.
    fn transmit(
        &mut self,
        id: RequestId,
        step: StepIndex,
        message: RequestMessage,
        span: Option<usize>,
        again: Option<Box<RequestMessage>>,
    ) {
        let Some(request) = self.requests.get_mut(id) else { return };
        let service = message.service;
        match self.port.call(message) {
            Ok(call) => {
                request.calls.push(call);
                let sent = self.now;
                self.egress.wait(call, Waiter { request: id, step, service, sent, span, again });
            }
            Err(refused) => {
                let result = egress::refused(refused.why, self.routes.name(service));
                self.not_sent(id, step, service, span, result);
            }
        }
    }

    /// A call that could not be sent is answered at once, and counts as one that was sent and failed.
    fn not_sent(
        &mut self,
        id: RequestId,
        step: StepIndex,
        service: ServiceId,
        span: Option<usize>,
        result: StepResult,
    ) {
        let Some(request) = self.requests.get_mut(id) else { return };
        let target = self.routes.name(service).map_or(ELSEWHERE_NAME, ServiceName::as_str);
        let meter = &self.hosted[request.message.service].meter;
        meter.called_other(target, request.step_id(step), Duration::ZERO, true);
        came_to(request, step, span, self.now, result);
    }

    /// A call to another service has its outcome.
    pub(super) fn answered(&mut self, call: CallId, message: ResponseMessage) {
        let Some(waiter) = self.egress.take(call) else { return };
        let Waiter { request: id, step, service, sent, span, again } = waiter;
        self.now = Nanos::now();
        let Some(request) = self.requests.get_mut(id) else { return };
        let target = self.routes.name(service).map_or(ELSEWHERE_NAME, ServiceName::as_str);
        let meter = &self.hosted[request.message.service].meter;
        let is_error = message.fault != Fault::None || message.status >= 400;
        meter.called_other(target, request.step_id(step), self.now.saturating_since(sent), is_error);
        request.calls.retain(|waited| *waited != call);
        if let Some(again) = again.filter(|_| message.fault == Fault::WorkerLost) {
            self.transmit(id, step, *again, span, None);
            return self.advance(id);
        }
        let result = egress::answer(message, self.routes.name(service));
        came_to(request, step, span, self.now, result);
        self.advance(id);
    }

    /// An internal step returned.
    pub(super) fn stepped(&mut self, id: RequestId, step: StepIndex, returned: Returned) {
        let Some(request) = self.requests.get(id) else { return };
        let Some(engine) = &request.engine else { return };
        let result = match resolve(engine, &request.message.body, step, returned.body) {
            Ok(body) => {
                StepResult { status: returned.status, error: returned.error, headers: returned.headers, body }
            }
            Err(why) => StepResult::failure(500, why),
        };
        if let Some(request) = self.requests.get_mut(id) {
            request.trace.returned(step, || result.clone());
        }
        self.tell_and_advance(id, |engine| engine.on_result(step, result));
    }

    /// A function that a step ran did not return.
    pub(super) fn step_failed(&mut self, id: RequestId, step: StepIndex, status: u16, why: &str) {
        if let Some(request) = self.requests.get_mut(id) {
            request.trace.returned(step, || StepResult::failure(status, why));
        }
        self.tell_and_advance(id, |engine| engine.on_failure(step, status, why));
    }

    /// A request builder returned, or failed with a reason.
    pub(super) fn built(&mut self, id: RequestId, step: StepIndex, built: Result<BuiltRequests, Box<str>>) {
        if let Some(request) = self.requests.get_mut(id) {
            request.trace.built(step, &built);
        }
        self.tell_and_advance(id, |engine| engine.on_built(step, built));
    }

    fn tell_and_advance(&mut self, id: RequestId, what: impl FnOnce(&mut Engine) -> Result<(), EngineError>) {
        let Some(request) = self.requests.get_mut(id) else { return };
        tell(request, what);
        self.advance(id);
    }
}

/// A call has its outcome, whoever it is of: noted, and told to the graph.
fn came_to(request: &mut Request, step: StepIndex, span: Option<usize>, now: Nanos, result: StepResult) {
    request.trace.answered(span, now, result.status, result.error.as_deref());
    request.trace.came(step, &result);
    tell(request, |engine| engine.on_answer(step, result));
}

fn tell(request: &mut Request, what: impl FnOnce(&mut Engine) -> Result<(), EngineError>) {
    let Some(engine) = &mut request.engine else { return };
    if let Err(error) = what(engine) {
        // Each call has one outcome, and the engine waits for each: it was told something twice.
        let Origin { request_id, trace_id } = request.origin();
        tracing::error!(request_id, trace_id, %error, "a result was not expected");
    }
}

/// What a function of the cell is given: its arguments and the results that its step named.
pub(crate) fn step_call(engine: &Engine, step: StepIndex, function: u32, args: Bytes) -> StepCall {
    let inputs = engine
        .inputs(step)
        .map(|input| StepInput {
            id: Bytes::copy_from_slice(input.id.as_bytes()),
            status: input.result.status,
            error: input.error().map(Into::into),
            headers: input.result.headers.clone(),
            body: input.with_body.then(|| input.result.body.clone()),
        })
        .collect();
    StepCall { function, args, inputs }
}

/// The body that a step returned: its own bytes, the request's or an input's.
pub(crate) fn resolve(
    engine: &Engine,
    of_request: &Bytes,
    step: StepIndex,
    body: ReturnedBody,
) -> Result<Bytes, String> {
    match body {
        ReturnedBody::Bytes(body) => Ok(body),
        ReturnedBody::OfRequest => Ok(of_request.clone()),
        ReturnedBody::OfInput(index) => engine
            .input(step, index)
            .map(|input| input.result.body.clone())
            .ok_or_else(|| format!("body of input {index}: the step has no such input")),
    }
}
