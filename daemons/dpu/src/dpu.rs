//! The sidecar of one lane: ingress requests into the mesh, answers out of it, and the slow path of calls
//! between services.
//!
//! ```text
//! ingress task --call--> port --sidecar_cq--> DPA --> worker
//! ingress task <--wake-- pump <--sidecar_sq-- DPA <-- worker
//!
//! worker --> DPA --sidecar_sq--> pump: install flow, call again --sidecar_cq--> DPA --> worker of the callee
//! ```
//!
//! - [`Dpu`] is a cheap handle (`Rc`) on one lane's sidecar; it never leaves its thread.
//! - [`Dpu::pump`] never waits. [`Dpu::work`] says when an ingress task has queued something for it.
//! - Every call has a deadline. The DPA keeps it; the DPU keeps it too, a little later, so that a
//!   client is answered even when the DPA or the ring to it is stuck.
//! - A client that goes away drops its [`Call`], which cancels it.

mod calls;
mod connections;
mod elsewhere;
mod load;
mod relay;
mod request;
mod settings;
mod tasks;
mod tries;

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use cellmesh_shm::clock::Nanos;
use cellmesh_shm::ids::{CallId, ServiceId, SlotId};
use cellmesh_shm::link::Link;
use cellmesh_shm::message::{Fault, RequestMessage, ResponseMessage};
use cellmesh_shm::port::{Arrived, Port, PortConfig, Progress, Refusal as PortRefusal};
use cellmesh_shm::ring::Batches;
use tokio::sync::Notify;

use self::calls::{Calls, Settled, Ticket};
pub(crate) use self::connections::Connection;
use self::connections::Connections;
pub(crate) use self::load::{HeldAnswer, Received};
use self::load::{Load, add};
pub use self::load::{RouteStats, ServiceStats};
pub use self::request::Request;
pub(crate) use self::settings::Settings;
use self::tasks::Tasks;
use crate::acceptor::TurnedAway;
use crate::config::DpuConfig;
use crate::egress::Egress;
use crate::faults::{Reason, Refusal};
use crate::ingress::HeadProblem;
use crate::policy::{Permit, PolicyStats};
use crate::request_id::RequestIds;
use crate::routes::Routes;
use crate::spans::Spans;

/// Messages taken per [`Dpu::pump`]: one side cannot keep the lane from its other work.
const ARRIVALS_PER_TURN: u32 = 256;
/// How long after a deadline the DPU gives up by itself. The DPA's answer is the exact one.
const DEADLINE_GRACE: Duration = Duration::from_millis(250);
/// What a head may grow by on its way: the request id and the tracing headers of the runtime.
const HEAD_ROOM_BYTES: u64 = 16 * 1024;
/// Answers of the largest size that may be put together at once.
const ASSEMBLIES: u64 = 4;

/// One lane's sidecar.
#[derive(Clone)]
pub struct Dpu(Rc<Shared>);

struct Shared {
    settings: RefCell<Rc<Settings>>,
    /// What a link is made for, whatever config says later.
    port: PortConfig,
    link: RefCell<Option<Attachment>>,
    /// What was written into the rings of links that were let go: small, bulk.
    written: Cell<[Batches; 2]>,
    /// Who wants to hear of clients' requests.
    spans: RefCell<Option<Rc<dyn Spans>>>,
    /// What the acceptor did not take up, if this is the lane that tells it.
    turned_away: RefCell<TurnedAway>,
    /// Links that were let go, ever.
    links_lost: Cell<u64>,
    calls: RefCell<Calls>,
    work: Notify,
    load: Load,
    connections: Connections,
    ids: RequestIds,
    egress: Egress,
    /// Calls of workers on their way off this node.
    sent_off: Tasks,
    /// Calls of workers to services with a policy for their tries.
    tried: Tasks,
    /// What calls of workers have taken of the policies.
    permits: RefCell<HashMap<SlotId, Permit>>,
}

/// The way to the DPA, as long as there is one.
struct Attachment {
    port: Port,
    /// The DPA's numbers of our services, by our own.
    numbers: Vec<Option<ServiceId>>,
}

/// Counters of one lane since its start, and what is in flight now.
///
/// `received = answered + refused + abandoned + in_flight` always holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct DpuStats {
    /// Requests whose head was read.
    pub received: u64,
    /// Answered by a cell.
    pub answered: u64,
    /// Answered by the mesh: errors of the client, of the mesh, or of a cell.
    pub refused: u64,
    /// Of these, by why: the places of [`Reason::ALL`].
    pub refused_for: [u64; Reason::ALL.len()],
    /// The client went away first.
    pub abandoned: u64,
    /// Received and not ended.
    pub in_flight: u64,
    /// Of these, given to the mesh.
    pub dispatched: u32,
    /// Bytes of request bodies held.
    pub buffered_bytes: u64,
    /// Bytes of answers that clients have not taken yet.
    pub answer_bytes: u64,
    /// Connections open.
    pub connections_open: u32,
    /// Calls between services that took the slow path, ever.
    pub relayed: u64,
    /// Of these, in flight.
    pub relays_open: usize,
    /// Calls off this node, ever: of workers and of clients.
    pub egress_sent: u64,
    /// Of these, without an answer of their callee.
    pub egress_failed: u64,
    /// Calls of workers that are on their way off this node.
    pub egress_open: usize,
    /// Times that an address of a service off this node was ejected as an outlier.
    pub egress_ejections: u64,
    /// Addresses that are ejected, by what all lanes know. See [`DpuStats::egress_ejected_of`].
    pub egress_ejected: usize,
    /// Answers of cells that could not be sent as HTTP.
    pub bad_responses: u64,
    /// TLS handshakes that a client began and that came to nothing.
    pub tls_failed: u64,
    /// Heads that no request came of, by the places of [`HeadProblem::ALL`].
    pub heads_refused: [u64; HeadProblem::ALL.len()],
    /// Connections that were not taken up, by the places of [`TurnedAway::REASONS`]: of all lanes, told by one.
    pub connections_refused: [u64; TurnedAway::REASONS.len()],
    /// What was written into the rings to the DPA: small, bulk.
    pub written: [Batches; 2],
    /// Of what is in flight.
    pub bounds: DpuBounds,
}

/// Bounds of what one lane has in flight, as config has them now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct DpuBounds {
    /// Of `connections_open`, of all lanes together.
    pub connections_max: u32,
    /// Of `dispatched`.
    pub requests_max: u64,
    /// Of [`DpuStats::relays_in_flight`].
    pub relays_max: u64,
    /// Of `buffered_bytes`.
    pub buffered_bytes_max: u64,
    /// Of `answer_bytes`.
    pub answer_bytes_max: u64,
}

impl DpuStats {
    /// Calls of workers that are being made here, off this node too.
    #[must_use]
    pub fn relays_in_flight(&self) -> u64 {
        (self.relays_open + self.egress_open) as u64
    }

    /// Addresses off this node that are ejected, of all lanes of a process. They know the same, but while config is replaced.
    #[must_use]
    pub fn egress_ejected_of(lanes: &[Self]) -> usize {
        lanes.iter().map(|lane| lane.egress_ejected).max().unwrap_or_default()
    }
}

impl DpuBounds {
    /// Those of all lanes of a process together.
    #[must_use]
    pub fn of(lanes: &[DpuStats]) -> Self {
        let sum = |of: fn(&Self) -> u64| lanes.iter().map(|lane| of(&lane.bounds)).sum::<u64>();
        Self {
            connections_max: lanes.iter().map(|lane| lane.bounds.connections_max).max().unwrap_or_default(),
            requests_max: sum(|bounds| bounds.requests_max),
            relays_max: sum(|bounds| bounds.relays_max),
            buffered_bytes_max: sum(|bounds| bounds.buffered_bytes_max),
            answer_bytes_max: sum(|bounds| bounds.answer_bytes_max),
        }
    }
}

impl Dpu {
    /// A sidecar that serves `routes` and is not attached to a DPA: it answers 503 until [`Dpu::attach`].
    #[must_use]
    pub fn new(routes: Arc<Routes>, config: DpuConfig) -> Self {
        let port = port_config(&config);
        let services = routes.services().len();
        Self(Rc::new(Shared {
            settings: RefCell::new(Rc::new(Settings::new(routes, config))),
            port,
            sent_off: Tasks::default(),
            tried: Tasks::default(),
            permits: RefCell::default(),
            link: RefCell::new(None),
            written: Cell::default(),
            spans: RefCell::default(),
            turned_away: RefCell::default(),
            links_lost: Cell::default(),
            calls: RefCell::new(Calls::new()),
            work: Notify::new(),
            load: Load::new(services),
            connections: Connections::default(),
            ids: RequestIds::new(),
            egress: Egress::default(),
        }))
    }

    /// From now on clients' requests are parts of traces, of which `spans` are told.
    pub fn tell_spans(&self, spans: Rc<dyn Spans>) {
        *self.0.spans.borrow_mut() = Some(spans);
    }

    /// From now on requests go through `link`. What was in flight on an earlier one is lost.
    ///
    /// - `services`: names of the services of the DPA at its other end; a service's number there is its place.
    pub fn attach<'n>(&self, link: Link, calls_max: u32, services: impl IntoIterator<Item = &'n str>) {
        self.detach();
        let routes = Arc::clone(&self.0.settings.borrow().routes);
        let mut numbers = vec![None; routes.services().len()];
        for (number, name) in (0..=u16::MAX).zip(services) {
            if let Some(ours) = routes.id(name) {
                numbers[usize::from(ours.0)] = Some(ServiceId(number));
            }
        }
        let config = PortConfig { calls_max: self.0.port.calls_max.min(calls_max), ..self.0.port };
        let port = Port::new(link, config);
        *self.0.link.borrow_mut() = Some(Attachment { port, numbers });
        self.0.work.notify_one();
    }

    /// Lets the link go, if there is one: its other end is gone. What is in flight ends with an error.
    pub fn detach(&self) {
        let Some(gone) = self.0.link.borrow_mut().take() else { return };
        self.0.written.set(self.0.written_with(&gone));
        add(&self.0.links_lost, 1);
        self.cancel_all_tasks();
        self.0.permits.borrow_mut().clear();
        let calls = self.0.calls.borrow().all();
        for call in calls {
            self.settle(call, ResponseMessage::faulted(Fault::WorkerLost));
        }
        self.0.work.notify_one();
    }

    /// Whether there is a link to a DPA.
    #[must_use]
    pub fn is_attached(&self) -> bool {
        self.0.link.borrow().is_some()
    }

    /// Takes what has arrived, gives up what is late, publishes what was queued. Never waits.
    ///
    /// - cost: idle, one load of the peer's counter per ring and one comparison with the clock.
    pub fn pump(&self, now: Nanos) -> Progress {
        let mut progress = self.take_arrived(now);
        progress |= self.give_up_late(now);
        progress |= self.with_port(Port::flush).unwrap_or_default();
        progress
    }

    fn with_port<T>(&self, deed: impl FnOnce(&mut Port) -> T) -> Option<T> {
        self.0.link.borrow_mut().as_mut().map(|attached| deed(&mut attached.port))
    }

    /// See [`Port::announce_sleep`].
    pub fn announce_sleep(&self) {
        self.with_port(Port::announce_sleep);
    }

    /// See [`Port::wake`].
    pub fn wake(&self) {
        self.with_port(Port::wake);
    }

    /// Notified when an ingress task has queued something for [`Dpu::pump`].
    #[must_use]
    pub fn work(&self) -> &Notify {
        &self.0.work
    }

    /// When [`Dpu::pump`] must be called at the latest even if nothing arrives.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Nanos> {
        self.0.calls.borrow().next_expiry().map(|expiry| expiry.saturating_add(DEADLINE_GRACE))
    }

    /// Refuses requests over new connections, lets those in flight finish, closes connections as they fall idle. What comes over
    /// one that was there before is served until its client has been told: it was sent before that.
    /// Ready when no connection is left; the caller bounds the wait. The drain goes on if this is dropped.
    pub fn drain(&self) -> impl Future<Output = ()> + use<> {
        self.0.connections.begin_drain();
        let shared = Rc::clone(&self.0);
        async move { shared.connections.all_closed().await }
    }

    /// Serves on, and tells the clients of the connections that are open to come over others the next time: answers over
    /// HTTP/1 say `connection: close`, HTTP/2 connections get a GOAWAY and finish what is in flight. A connection that
    /// comes later is served too, for one answer over HTTP/1.
    pub fn retire(&self) {
        self.0.connections.retire();
    }

    /// Whether clients are told to go.
    pub(crate) fn is_retiring(&self) -> bool {
        self.0.connections.is_retiring()
    }

    /// Whether a drain has begun.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.0.connections.is_draining()
    }

    /// Requests received and not ended.
    #[must_use]
    pub fn in_flight(&self) -> u64 {
        self.0.load.requests.in_flight()
    }

    /// Whether the DPA has anything of this side that is not over: calls without an outcome, requests without an answer,
    /// messages on their way.
    #[must_use]
    pub fn awaits_answers(&self) -> bool {
        self.0.link.borrow().as_ref().is_some_and(|link| !link.port.is_idle())
    }

    /// The counters now.
    #[must_use]
    pub fn stats(&self) -> DpuStats {
        let load = &self.0.load;
        let (egress_sent, egress_failed) = self.0.egress.counts();
        DpuStats {
            received: load.requests.received.get(),
            answered: load.requests.answered.get(),
            refused: load.requests.refused(),
            refused_for: load.requests.refused_for(),
            abandoned: load.requests.abandoned.get(),
            in_flight: load.requests.in_flight(),
            dispatched: load.dispatched.get(),
            buffered_bytes: load.buffered_bytes.get(),
            answer_bytes: load.answer_bytes.get(),
            connections_open: self.0.connections.open(),
            relayed: load.relayed.get(),
            relays_open: self.0.calls.borrow().relays() + self.0.tried.open(),
            egress_sent,
            egress_failed,
            egress_open: self.0.sent_off.open(),
            egress_ejections: self.0.egress.ejections(),
            egress_ejected: self.settings().clients.ejected(Nanos::now()),
            bad_responses: load.bad_responses.get(),
            tls_failed: load.tls_failed.get(),
            heads_refused: load.heads_refused.each_ref().map(Cell::get),
            connections_refused: self.0.turned_away.borrow().counts(),
            written: self.written(),
            bounds: self.bounds(),
        }
    }

    fn bounds(&self) -> DpuBounds {
        let settings = self.settings();
        let config = &settings.config;
        DpuBounds {
            connections_max: config.connections_max,
            requests_max: config.requests_max.into(),
            relays_max: config.relays_max.into(),
            buffered_bytes_max: config.buffered_bytes_max.0,
            answer_bytes_max: config.answer_bytes_max.0,
        }
    }

    fn written(&self) -> [Batches; 2] {
        let link = self.0.link.borrow();
        link.as_ref().map_or(self.0.written.get(), |attached| self.0.written_with(attached))
    }

    /// The counters of each service now.
    #[must_use]
    pub fn service_stats(&self) -> Vec<ServiceStats> {
        self.0.load.service_stats(&self.0.settings.borrow().routes)
    }

    /// The counters of the policies of services now.
    #[must_use]
    pub fn policy_stats(&self) -> Vec<PolicyStats> {
        self.0.settings.borrow().policies.stats()
    }

    pub(crate) fn ids(&self) -> &RequestIds {
        &self.0.ids
    }

    pub(crate) fn open_connection(&self) -> Connection {
        Connection::new(self.clone())
    }

    pub(crate) fn receive(&self) -> Received {
        Received::new(self.clone())
    }

    pub(crate) fn count_bad_response(&self) {
        add(&self.0.load.bad_responses, 1);
    }

    pub(crate) fn count_head(&self, problem: HeadProblem) {
        add(&self.0.load.heads_refused[problem as usize], 1);
    }

    /// This lane tells what the acceptor did not take up.
    pub(crate) fn tell_turned_away(&self, turned_away: TurnedAway) {
        *self.0.turned_away.borrow_mut() = turned_away;
    }

    pub(crate) fn count_tls_failure(&self) {
        add(&self.0.load.tls_failed, 1);
    }

    /// Sends a client's `message` into the mesh and waits for the answer.
    pub(crate) async fn exchange(
        &self,
        settings: &Settings,
        message: RequestMessage,
    ) -> Result<ResponseMessage, Refusal> {
        let way = settings.way_for_client(message.service);
        let repeats = settings.config.retry_worker_lost;
        if way.is_none() && !settings.has_tries(message.service) {
            return self.exchange_here(message, repeats).await;
        }
        // Boxed: a request that is waited for has no room for what it does not do.
        Box::pin(self.exchange_to(settings, message, way, repeats)).await
    }

    /// Sends `message` into the mesh. The answer always comes: a fault at the latest after the deadline.
    fn call(&self, mut message: RequestMessage) -> Result<Call, Refusal> {
        let (service, deadline) = (message.service, message.deadline);
        let call = {
            let mut link = self.0.link.borrow_mut();
            let attached = link.as_mut().ok_or(Refusal::Detached)?;
            message.service =
                attached.number_of(service).ok_or_else(|| self.refusal(service, Fault::NoWorker))?;
            attached.port.call(message).map_err(|refused| self.refusal(service, fault_of(refused.why)))?
        };
        let ticket = self.0.calls.borrow_mut().open_ingress(call, deadline);
        self.0.work.notify_one();
        Ok(Call { dpu: self.clone(), ticket: Some(ticket) })
    }

    fn refusal(&self, service: ServiceId, fault: Fault) -> Refusal {
        let service =
            self.0.settings.borrow().routes.name(service).map(ToString::to_string).unwrap_or_default();
        Refusal::Mesh { fault, service }
    }

    fn take_arrived(&self, now: Nanos) -> Progress {
        let mut progress = Progress::Idle;
        for _ in 0..ARRIVALS_PER_TURN {
            let Some(arrived) = self.with_port(Port::poll) else { return progress };
            match arrived {
                Ok(None) => return progress,
                Ok(Some(arrived)) => self.on_arrived(arrived, now),
                Err(error) => {
                    tracing::error!(%error, "the DPA broke a rule of the rings; requests in flight end with an error");
                    self.detach();
                    return Progress::Moved;
                }
            }
            progress = Progress::Moved;
        }
        progress
    }

    fn on_arrived(&self, arrived: Arrived, now: Nanos) {
        match arrived {
            Arrived::Response { call, message } => self.settle(call, message),
            Arrived::Request { slot, message } => self.relay(slot, message, now),
            Arrived::Cancelled { slot } => self.end_relay(slot),
        }
    }

    fn settle(&self, call: CallId, message: ResponseMessage) {
        let settled = self.0.calls.borrow_mut().settle(call, message);
        match settled {
            Settled::Ingress(waker) => waker.into_iter().for_each(std::task::Waker::wake),
            Settled::Relay(slot, message) => self.relayed(slot, message),
            Settled::Nobody => {}
        }
    }

    fn give_up_late(&self, now: Nanos) -> Progress {
        let late = self.0.calls.borrow_mut().expired(Nanos(now.0.saturating_sub(grace_ns())));
        let progress = if late.is_empty() { Progress::Idle } else { Progress::Moved };
        for call in late {
            self.cancel(Some(call));
            self.settle(call, ResponseMessage::faulted(Fault::Deadline));
        }
        progress
    }

    fn cancel(&self, call: Option<CallId>) {
        let Some(call) = call else { return };
        self.with_port(|port| port.cancel(call));
        self.0.work.notify_one();
    }
}

impl Shared {
    fn written_with(&self, attached: &Attachment) -> [Batches; 2] {
        let mut sums = self.written.get();
        sums.iter_mut().zip(attached.port.link().tx.batches()).for_each(|(sum, more)| sum.add(more));
        sums
    }
}

/// What a port's refusal is to a caller.
fn fault_of(why: PortRefusal) -> Fault {
    match why {
        PortRefusal::Busy => Fault::Overloaded,
        PortRefusal::TooLarge => Fault::TooLarge,
        PortRefusal::Head => Fault::Internal,
    }
}

fn grace_ns() -> u64 {
    u64::try_from(DEADLINE_GRACE.as_nanos()).expect("a fraction of a second")
}

fn port_config(config: &DpuConfig) -> PortConfig {
    let message_bytes_max = config.body_bytes_max.0 + HEAD_ROOM_BYTES + config.head_bytes_max.0;
    PortConfig {
        calls_max: config.requests_max.saturating_add(config.relays_max),
        message_bytes_max: u32::try_from(message_bytes_max).unwrap_or(u32::MAX),
        assembly_bytes_max: message_bytes_max * ASSEMBLIES,
    }
}

/// An answer that is on its way. Dropping it cancels the call.
pub(crate) struct Call {
    dpu: Dpu,
    ticket: Option<Ticket>,
}

impl Future for Call {
    type Output = ResponseMessage;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<ResponseMessage> {
        let ticket = self.ticket.expect("not polled after it was ready");
        let answer = self.dpu.0.calls.borrow_mut().poll_answer(ticket, cx.waker());
        if answer.is_ready() {
            self.ticket = None;
        }
        answer
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        if let Some(ticket) = self.ticket.take() {
            let call = self.dpu.0.calls.borrow_mut().abandon(ticket);
            self.dpu.cancel(call);
        }
    }
}
