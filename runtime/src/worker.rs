//! Worker: hosts cells on one lane and runs their graphs.
//!
//! ```text
//!   worker_sq --> arrive --> handler --> graph engine --> internal step --> call (lane, pool)
//!   (Port)                                    |   ^                              |
//!   worker_cq <-- answer <-- response         |   +---- on_result <--------------+
//!             <-- call   <-- egress step <----+   +---- on_answer <-- worker_sq
//! ```
//!
//! - A pumped value: [`Worker::pump`] does what can be done now and never waits.
//! - Each request in `requests.rs` is ended exactly once: with a response, or by the DPA's cancel, after which
//!   nothing of it is left (its calls to others are cancelled, its guest calls stopped).
//! - A guest call that fails costs its own request and its instance.
//! - Not here: what comes next in a graph ([`cellmesh_graph`]), where a guest call runs ([`crate::call`]).

mod callees;
mod egress;
mod hosted;
mod meters;
mod on_lane;
pub(crate) mod reply;
mod requests;
mod step_names;
mod steps;

use std::collections::VecDeque;
use std::os::fd::BorrowedFd;
use std::sync::Arc;

use cellmesh_dpu::Routes;
use cellmesh_dpu::origin::Origin;
use cellmesh_graph::Limits;
use cellmesh_shm::clock::Nanos;
use cellmesh_shm::ids::{ServiceId, SlotId};
use cellmesh_shm::message::{Fault, RequestMessage, ResponseMessage};
use cellmesh_shm::port::{Arrived, Port, PortError, Progress};

use crate::call::{Call, Finished, LaneHandle, LaneInbox, Polled, Terms, Ticket, ToLane, wait_on_lane};
use crate::cpu;
use crate::host::{Cell, CellFault, Decision, GuestCall, GuestReturn, Instance};
use crate::pool::Pool;
use crate::trace::{Ended, Recorder};
pub use callees::Callees;
use hosted::{Hosted, HostedServices, Waiting};
pub use meters::{CallKind, CallStats, CallsTo, CellStats, Meters, Timing};
pub use requests::RequestId;
pub(crate) use requests::handle_call;
use requests::{Request, Requests, Running};
pub use step_names::{ByStep, StepNames, Tally};
pub(crate) use steps::{resolve, step_call};

/// Guest calls started in one pump before the lane looks after the others again.
const CALLS_PER_PUMP_MAX: usize = 256;

/// One service of a worker: its cell and how many instances of it this lane may have.
#[derive(Debug, Clone)]
pub struct ServiceCell {
    /// The cell.
    pub cell: Cell,
    /// Instances at once on this lane.
    pub instances_max: usize,
    /// Names of its steps that are told apart in metrics, on all lanes.
    pub step_names: StepNames,
}

/// A worker on one lane.
pub struct Worker {
    port: Port,
    routes: Arc<Routes>,
    callees: Callees,
    hosted: HostedServices,
    requests: Requests,
    egress: egress::Waiting,
    /// Guest calls that ended and are not looked at yet.
    finished: VecDeque<Box<Finished>>,
    inbox: LaneInbox,
    lane: LaneHandle,
    pool: Pool,
    limits: Limits,
    retry_worker_lost: bool,
    meters: Meters,
    recorder: Recorder,
    /// As it was told, or as the clock was read since for something that is counted.
    now: Nanos,
}

/// What a worker needs to start.
#[derive(Debug)]
pub struct WorkerParts {
    /// The worker's side of its link to the DPA.
    pub port: Port,
    /// Names of services.
    pub routes: Arc<Routes>,
    /// What it serves, by the DPA's numbers.
    pub services: Vec<(ServiceId, ServiceCell)>,
    /// Where guest calls that last longer than a tick run.
    pub pool: Pool,
    /// The way back from there.
    pub lane: (LaneHandle, LaneInbox),
    /// Bounds on graphs.
    pub limits: Limits,
    /// Instances that wait for calls, of all services together; more are dropped.
    pub idle_instances_max: usize,
    /// Whether an idempotent call whose worker was lost with it is made once more.
    pub retry_worker_lost: bool,
    /// Where it counts.
    pub meters: Meters,
    /// Where it takes note of single requests.
    pub recorder: Recorder,
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.abandon();
        self.hosted.none_busy();
        self.meters.rings_gone();
    }
}

impl Worker {
    /// A worker with no requests.
    #[must_use]
    pub fn new(parts: WorkerParts) -> Self {
        let (lane, inbox) = parts.lane;
        Self {
            port: parts.port,
            callees: Callees::new(Arc::clone(&parts.routes), &parts.services),
            routes: parts.routes,
            hosted: HostedServices::new(parts.services, parts.idle_instances_max, &parts.meters),
            requests: Requests::default(),
            egress: egress::Waiting::default(),
            finished: VecDeque::new(),
            inbox,
            lane,
            pool: parts.pool,
            limits: parts.limits,
            retry_worker_lost: parts.retry_worker_lost,
            meters: parts.meters,
            recorder: parts.recorder,
            now: Nanos(0),
        }
    }

    /// Does what can be done now.
    ///
    /// # Errors
    /// [`PortError`] when the link to the DPA broke: nothing can be answered any more.
    pub fn pump(&mut self, now: Nanos) -> Result<Progress, PortError> {
        self.now = now;
        let mut budget = CALLS_PER_PUMP_MAX;
        // All that arrived, then all that came of it: code that has just run is still in the caches for the next of its kind.
        while budget > 0 {
            let before = budget;
            while budget > 0 && self.settle_one() {
                budget -= 1;
            }
            while budget > 0
                && let Some(arrived) = self.port.poll()?
            {
                self.arrived(arrived);
                budget -= 1;
            }
            if budget == before {
                break;
            }
        }
        let mut progress = Progress::from(budget < CALLS_PER_PUMP_MAX);
        progress |= self.port.flush();
        if progress.moved() {
            self.meters.wrote(self.port.link().tx.batches());
        }
        Ok(progress)
    }

    /// Whom its cells may call, to change it.
    #[must_use]
    pub fn callees(&self) -> Callees {
        self.callees.clone()
    }

    /// What it counts.
    #[must_use]
    pub fn meters(&self) -> Meters {
        self.meters.clone()
    }

    /// What it keeps of single requests.
    #[must_use]
    pub fn recorder(&self) -> Recorder {
        self.recorder.clone()
    }

    /// Requests that are not answered yet.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.requests.len()
    }

    /// Whether nothing is left to do: no request here, and none on its way in or out.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.requests.len() == 0 && self.port.is_idle()
    }

    /// See [`Port::announce_sleep`].
    pub fn announce_sleep(&mut self) {
        self.port.announce_sleep();
    }

    /// See [`Port::wake`].
    pub fn wake(&mut self) {
        self.port.wake();
    }

    /// See [`Port::wait_fd`].
    #[must_use]
    pub fn wait_fd(&self) -> BorrowedFd<'_> {
        self.port.wait_fd()
    }

    fn arrived(&mut self, arrived: Arrived) {
        match arrived {
            Arrived::Request { slot, message } => self.admit(slot, message),
            Arrived::Response { call, message } => self.answered(call, message),
            Arrived::Cancelled { slot } => self.cancelled(slot),
        }
    }

    /// Takes up a request: runs its handler.
    fn admit(&mut self, slot: SlotId, message: RequestMessage) {
        let service = message.service;
        if !self.hosted.has(service) {
            return self.port.respond(slot, ResponseMessage::faulted(Fault::NoWorker));
        }
        self.hosted[service].meter.received(message.head.len() + message.body.len());
        let call = requests::handle_call(&message);
        self.now = Nanos::now();
        let trace = self.recorder.begin(&message, self.now);
        let request = self.requests.insert(Request::new(slot, message, self.now, trace));
        self.call(Ticket { request, step: None, service, wanted: self.now }, call);
    }

    /// Ends everything that a request has started; nobody waits for it any more.
    fn cancelled(&mut self, slot: SlotId) {
        let Some((id, request)) = self.requests.remove_slot(slot) else { return };
        let hosted = &mut self.hosted[request.message.service];
        hosted.meter.cancelled();
        hosted.forget_waiting(id);
        for call in &request.calls {
            self.port.cancel(*call);
            self.egress.take(*call);
        }
        request.running.iter().for_each(|call| call.flags.cancel());
        self.record(request, None, None);
    }

    /// Looks at one guest call that ended or has to wait. Returns whether there was one.
    fn settle_one(&mut self) -> bool {
        if let Some(finished) = self.finished.pop_front() {
            self.settle(*finished);
            return true;
        }
        match self.inbox.take() {
            Some(ToLane::Finished(finished)) => self.settle(*finished),
            Some(ToLane::Park(call)) => self.park(call),
            None => return false,
        }
        true
    }

    /// Runs a guest call on an instance of its service; waits for one if all are busy.
    fn call(&mut self, ticket: Ticket, work: GuestCall) {
        match self.hosted.take_instance(ticket.service) {
            Ok(instance) => self.start(ticket, work, instance),
            Err(()) => {
                if let Err(refused) = self.hosted[ticket.service].wait(Waiting { ticket, work }) {
                    self.fail(refused.ticket, &CellFault::Instance(hosted::QUEUE_FULL.into()));
                }
            }
        }
    }

    /// Starts a call on the lane. It has ended, is on its way to the pool or waits on the lane afterwards.
    fn start(&mut self, ticket: Ticket, work: GuestCall, instance: Option<Instance>) {
        let Some(terms) = self.terms(&ticket, &work) else {
            return self.hosted.give_back(ticket.service, instance);
        };
        let Hosted { cell, meter, .. } = &self.hosted[ticket.service];
        if instance.is_none() {
            meter.instance_made();
        }
        let measured_from = meter.measures().then(cpu::of_this_thread);
        let call = Call::new(cell, instance, work, ticket, terms, &self.lane);
        let flags = Arc::clone(call.flags());
        let polled = call.poll(std::task::Waker::noop());
        if let Some(from) = measured_from {
            meter.measured(cpu::of_this_thread().saturating_sub(from), polled.ran());
        }
        // What comes next in this turn begins now, and not when the turn began.
        self.now = self.now.max(polled.looked_at());
        match polled {
            Polled::Finished(finished) => return self.finished(finished),
            Polled::Ticked(call) => self.pool.submit(call),
            Polled::Waiting(call) => self.park(call),
        }
        if let Some(request) = self.requests.get_mut(ticket.request) {
            request.running.push(Running { step: ticket.step, wanted: ticket.wanted, flags });
        }
    }

    /// A call that has ended on the lane. Unless others wait for its instance that one is ready again at once: the next call
    /// finds it in the caches.
    fn finished(&mut self, mut finished: Box<Finished>) {
        let service = finished.ticket.service;
        if !self.hosted[service].has_waiting() {
            finished.holds_room = false;
            let instance = reusable(finished.instance.take());
            self.hosted.give_back(service, instance);
        }
        self.finished.push_back(finished);
    }

    fn park(&self, call: Call) {
        // The task ends with the call, which ends by its deadline.
        drop(tokio::task::spawn_local(wait_on_lane(call, self.pool.clone())));
    }

    /// Those of a call that begins now; it has to end by its own limit or its request's, whichever is first. None: the request
    /// is gone.
    fn terms(&self, ticket: &Ticket, work: &GuestCall) -> Option<Terms> {
        let limits = &self.hosted[ticket.service].cell.setup().limits;
        let own = match work {
            GuestCall::Handle { .. } | GuestCall::BuildRequests(_) => limits.handler_timeout,
            GuestCall::RunStep(_) => limits.step_timeout,
        };
        let request = self.requests.get(ticket.request)?;
        let (begun, deadline) = (self.now, request.message.deadline.min(self.now.saturating_add(own)));
        Some(Terms { headers: request.naming_lines(), begun, deadline })
    }

    /// Takes the result of a guest call to its request, and its instance to the next that waits.
    fn settle(&mut self, finished: Finished) {
        let Finished { ticket, timing, instance, holds_room, result } = finished;
        if let Some(timing) = timing {
            let request = self.requests.get(ticket.request);
            let step = ticket.step.and_then(|step| request?.step_id(step));
            // A call that nobody waits for any more is stopped: that is no error of its step.
            let is_error = request.is_some() && is_error(&result);
            self.hosted[ticket.service].meter.called(&timing, step, is_error);
            self.meters.look_at_cpu();
            self.now = self.now.max(timing.ended);
        }
        if holds_room {
            self.pass_on(ticket.service, reusable(instance));
        }
        let Some(request) = self.requests.get_mut(ticket.request) else { return };
        request.running.retain(|call| call.step != ticket.step);
        if let Some(timing) = timing.filter(|_| request.trace.is_on()) {
            let fault = result.as_ref().err().map(ToString::to_string);
            request.trace.guest_call(ticket.step, &timing, outcome(&result, fault.as_deref()));
        }
        match result {
            Ok(returned) => self.returned(ticket, returned),
            Err(fault) => self.fail(ticket, &fault),
        }
    }

    /// Gives the room of a call that has ended, and its instance, to the next that waits and is still wanted.
    fn pass_on(&mut self, service: ServiceId, instance: Option<Instance>) {
        while let Some(waiting) = self.hosted[service].next_waiting() {
            if self.requests.get(waiting.ticket.request).is_some() {
                self.now = Nanos::now();
                return self.start(waiting.ticket, waiting.work, instance);
            }
        }
        self.hosted.give_back(service, instance);
    }

    fn returned(&mut self, ticket: Ticket, returned: GuestReturn) {
        match (ticket.step, returned) {
            (None, GuestReturn::Handled(Decision::Response(response))) => {
                self.respond_directly(ticket, response)
            }
            (None, GuestReturn::Handled(Decision::Graph(plan))) => self.start_graph(ticket, *plan),
            (Some(step), GuestReturn::Stepped(result)) => self.stepped(ticket.request, step, result),
            (Some(step), GuestReturn::Built(built)) => self.built(ticket.request, step, built),
            (None, GuestReturn::Stepped(_) | GuestReturn::Built(_)) | (Some(_), GuestReturn::Handled(_)) => {
                unreachable!("a call returns the kind that it was made for")
            }
        }
    }

    /// A guest call failed: as the handler's, it is the response; as a step's, the step's error.
    fn fail(&mut self, ticket: Ticket, fault: &CellFault) {
        let Some(request) = self.requests.get(ticket.request) else { return };
        self.hosted[ticket.service].meter.faulted(fault);
        let service = self.service_name(ticket.service);
        let name = ticket.step.map_or("handler", |step| request.step_id(step).unwrap_or_default());
        let Origin { request_id, trace_id } = request.origin();
        let kind = fault.kind();
        tracing::warn!(cell = %service, request_id, trace_id, step = name, kind, reason = %fault, "guest call failed");
        let Some(step) = ticket.step else {
            return self.end(ticket.request, reply::handler_failed(&service, fault));
        };
        self.step_failed(ticket.request, step, fault.status(), &fault.to_string());
    }

    fn service_name(&self, service: ServiceId) -> Arc<str> {
        Arc::clone(&self.hosted[service].cell.setup().service)
    }

    /// Stops the guest calls of all requests: their link is gone, nobody waits for them.
    fn abandon(&self) {
        let running = self.requests.iter().flat_map(|request| &request.running);
        running.for_each(|call| call.flags.cancel());
    }

    /// Sends the response of a request and forgets it.
    fn end(&mut self, id: RequestId, response: ResponseMessage) {
        self.end_with(id, Ok(response));
    }

    /// The same of one that may have broken the contract.
    fn end_with(&mut self, id: RequestId, response: Result<ResponseMessage, CellFault>) {
        let Some(mut request) = self.requests.remove(id) else { return };
        let response = response.and_then(|response| reply::finish(response, &request.message));
        let response = response.unwrap_or_else(|fault| self.broken(&mut request, &fault));
        let is_carried = self.port.can_carry(&response);
        if !is_carried {
            let cell = self.service_name(request.message.service);
            let Origin { request_id, trace_id } = request.origin();
            tracing::warn!(%cell, request_id, trace_id, bytes = response.body.len(), "the answer is too large to be sent");
        }
        let took = self.now.saturating_since(request.arrived);
        let meter = &self.hosted[request.message.service].meter;
        let status = if is_carried { response.status } else { Fault::TooLarge.status() };
        meter.answered(status, response.body.len(), took);
        // Its bytes are shared with it.
        let told = request.trace.is_recorded().then(|| response.clone());
        self.port.respond(request.slot, response);
        self.record(request, Some(status), told.as_ref());
    }

    /// The answer of a request whose own nobody could be sent.
    fn broken(&self, request: &mut Request, fault: &CellFault) -> ResponseMessage {
        let service = request.message.service;
        self.hosted[service].meter.faulted(fault);
        let cell = self.service_name(service);
        let Origin { request_id, trace_id } = request.origin();
        let kind = fault.kind();
        tracing::warn!(%cell, request_id, trace_id, kind, reason = %fault, "the answer cannot be sent");
        request.trace.failed(|| fault.to_string());
        reply::broken(fault, &request.message)
    }

    /// Keeps what was noted of a request that has ended, if somebody will want to see it.
    fn record(&self, mut request: Box<Request>, status: Option<u16>, response: Option<&ResponseMessage>) {
        let trace = std::mem::take(&mut request.trace);
        if !trace.is_on() {
            return;
        }
        let running: Vec<_> = request.running.iter().map(|call| (call.step, call.wanted)).collect();
        let ended = Ended {
            message: &request.message,
            service: &self.hosted[request.message.service].cell.setup().service,
            arrived: request.arrived,
            now: self.now,
            status,
            response,
            plan: request.engine.as_ref().map(|engine| engine.plan()),
            running: &running,
        };
        self.recorder
            .end(trace, &ended, |service| self.routes.name(service).map(|name| name.as_str().into()));
    }
}

/// A call that was cancelled and returned all the same leaves an instance that would stop the next one.
fn reusable(instance: Option<Instance>) -> Option<Instance> {
    instance.filter(|instance| !instance.flags().is_cancelled())
}

/// Whether a guest call came to an error: its cell says so, or it did not return.
fn is_error(result: &Result<GuestReturn, CellFault>) -> bool {
    match result {
        Ok(GuestReturn::Stepped(result)) => result.error.is_some(),
        Ok(GuestReturn::Built(built)) => built.is_err(),
        Ok(GuestReturn::Handled(_)) => false,
        Err(_) => true,
    }
}

/// What a guest call came to, for who looks at its request: the status of a step result, and what went wrong.
fn outcome<'r>(
    result: &'r Result<GuestReturn, CellFault>,
    fault_text: Option<&'r str>,
) -> (u16, Option<&'r str>) {
    match result {
        Ok(GuestReturn::Stepped(result)) => (result.status, result.error.as_deref()),
        Ok(GuestReturn::Built(Err(why))) => (500, Some(why)),
        Ok(GuestReturn::Handled(_) | GuestReturn::Built(Ok(_))) => (0, None),
        Err(fault) => (fault.status(), fault_text),
    }
}
