//! How much this lane has taken on, and what became of it.
//!
//! Conservation: `received = answered + refused + abandoned + in flight`, at every instant. A request
//! is counted from its head to its end by a guard, so no path can forget to give back what it took.
//! The same holds of each service, for what was routed to it.

mod services;

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use cellmesh_shm::clock::Nanos;
use cellmesh_shm::head::HeaderLines;
use cellmesh_shm::ids::ServiceId;

use self::services::{OfService, RoutePlace};
pub use self::services::{RouteStats, ServiceStats};
use super::{Dpu, Settings};
use crate::faults::{Reason, Refusal};
use crate::forward::Head;
use crate::ingress::HeadProblem;
use crate::origin::Origin;
use crate::request_id::RequestIds;
use crate::routes::{Route, Routes};
use crate::spans::{Ended, Spans};
use crate::units::ByteSize;

/// Counters of one lane.
#[derive(Debug, Default)]
pub(super) struct Load {
    pub(super) requests: Outcomes,
    /// Of those that were routed, by the place of their service.
    services: Box<[OfService]>,
    /// Given to the mesh and not ended.
    pub(super) dispatched: Cell<u32>,
    pub(super) buffered_bytes: Cell<u64>,
    /// Of answers that clients have not taken yet.
    pub(super) answer_bytes: Cell<u64>,
    pub(super) relayed: Cell<u64>,
    pub(super) bad_responses: Cell<u64>,
    pub(super) tls_failed: Cell<u64>,
    /// By the places of [`HeadProblem::ALL`].
    pub(super) heads_refused: [Cell<u64>; HeadProblem::ALL.len()],
}

/// What became of requests.
#[derive(Debug, Default)]
pub(super) struct Outcomes {
    pub(super) received: Cell<u64>,
    pub(super) answered: Cell<u64>,
    /// By the places of [`Reason::ALL`].
    refused: [Cell<u64>; Reason::ALL.len()],
    pub(super) abandoned: Cell<u64>,
}

impl Load {
    pub(super) fn new(services: usize) -> Self {
        Self { services: (0..services).map(|_| OfService::default()).collect(), ..Self::default() }
    }

    /// Of each service; `routes` are those that requests were routed by.
    pub(super) fn service_stats(&self, routes: &Routes) -> Vec<ServiceStats> {
        let stats = routes.services().iter().zip(&self.services);
        stats.map(|(name, of_service)| of_service.stats(name.to_string())).collect()
    }
}

impl Outcomes {
    fn end(&self, end: End) {
        add(
            match end {
                End::Abandoned => &self.abandoned,
                End::Answered { .. } => &self.answered,
                End::Refused { reason, .. } => &self.refused[reason as usize],
            },
            1,
        );
    }

    pub(super) fn in_flight(&self) -> u64 {
        let ended = self.answered.get() + self.refused() + self.abandoned.get();
        self.received.get() - ended
    }

    pub(super) fn refused(&self) -> u64 {
        self.refused.iter().map(Cell::get).sum()
    }

    pub(super) fn refused_for(&self) -> [u64; Reason::ALL.len()] {
        self.refused.each_ref().map(Cell::get)
    }
}

pub(super) fn add(counter: &Cell<u64>, count: u64) {
    counter.set(counter.get() + count);
}

/// What became of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// Nobody was left to answer.
    Abandoned,
    Answered {
        status: u16,
    },
    Refused {
        status: u16,
        reason: Reason,
        /// No cell or host had it.
        is_shed: bool,
    },
}

/// A request, from its head to its end.
pub(crate) struct Received {
    dpu: Dpu,
    /// What config said when it began.
    settings: Rc<Settings>,
    /// The service that it was routed to, by what, and when.
    service: Option<(usize, RoutePlace, Nanos)>,
    /// Its head as it went on, once it was routed.
    head: Head,
    buffered_bytes: u64,
    dispatched: bool,
    end: End,
}

impl Received {
    pub(super) fn new(dpu: Dpu) -> Self {
        add(&dpu.0.load.requests.received, 1);
        let settings = dpu.settings();
        Self {
            dpu,
            settings,
            service: None,
            head: Head::default(),
            buffered_bytes: 0,
            dispatched: false,
            end: End::Abandoned,
        }
    }

    /// It is for this service. Said once. `route`: what has led there, of a request of the network. `head`: to keep it
    /// counts a reference.
    pub(crate) fn routed(&mut self, service: ServiceId, route: Option<Route>, head: &Head) {
        self.head = head.clone();
        let place = usize::from(service.0);
        if let Some(of_service) = self.dpu.0.load.services.get(place) {
            of_service.begin(route.into());
            self.service = Some((place, route.into(), Nanos::now()));
        }
    }

    /// Whether this request may begin. Asked once, before its body is read: what began before a drain
    /// is finished in it. `is_in_time`: it came over a connection from before, whose client may not know yet.
    pub(crate) fn admit(&self, is_in_time: bool) -> Result<(), Refusal> {
        if self.dpu.is_draining() && !is_in_time {
            return Err(Refusal::Draining);
        }
        self.check_room()
    }

    fn check_room(&self) -> Result<(), Refusal> {
        if self.dpu.0.load.dispatched.get() >= self.settings.config.requests_max {
            return Err(Refusal::Overloaded("requests in flight"));
        }
        Ok(())
    }

    /// Takes a place among the requests in flight, for as long as this lives. A body that is still
    /// being read has none: slow clients must not shut out others.
    pub(crate) fn dispatch(&mut self) -> Result<(), Refusal> {
        self.check_room()?;
        let count = &self.dpu.0.load.dispatched;
        count.set(count.get() + 1);
        self.dispatched = true;
        Ok(())
    }

    /// Counts bytes that are held for this request, for as long as this lives.
    pub(crate) fn hold(&mut self, bytes: usize) -> Result<(), Refusal> {
        let held = &self.dpu.0.load.buffered_bytes;
        let total = held.get() + bytes as u64;
        if total > self.settings.config.buffered_bytes_max.0 {
            return Err(Refusal::Overloaded("bytes of request bodies held"));
        }
        held.set(total);
        self.buffered_bytes += bytes as u64;
        Ok(())
    }

    /// Counts the answer's bytes until its client has taken them.
    /// # Errors
    /// [`Refusal::Overloaded`] if that would be more than config allows with those that others have not taken. One alone always
    /// fits: written as JSON a body may be longer than a body may be.
    pub(crate) fn hold_answer(&self, bytes: usize) -> Result<HeldAnswer, Refusal> {
        HeldAnswer::new(self.dpu.clone(), bytes, self.settings.config.answer_bytes_max)
    }

    /// What config said when this request began: it holds to its end.
    pub(crate) fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Header lines of its head as it went on; none before it was routed.
    pub(crate) fn lines(&self) -> HeaderLines<'_> {
        self.head.lines()
    }

    /// What it is called in the log.
    pub(crate) fn origin(&self) -> Origin {
        Origin::of(self.lines())
    }

    /// Who wants to hear of it.
    pub(crate) fn spans(&self) -> Option<Rc<dyn Spans>> {
        self.dpu.0.spans.borrow().clone()
    }

    /// Where its id comes from if its client gave it none.
    pub(crate) fn ids(&self) -> &RequestIds {
        self.dpu.ids()
    }

    /// A cell answered.
    pub(crate) fn answered(&mut self, status: u16) {
        self.end = End::Answered { status };
    }

    /// The mesh answered. `is_shed`: before a cell or a host had the request.
    pub(crate) fn refused(&mut self, status: u16, reason: Reason, is_shed: bool) {
        self.end = End::Refused { status, reason, is_shed };
    }
}

impl Received {
    /// Tells who wants to hear of it.
    fn tell(&self, place: usize, took: Duration) {
        let (Some(begun), Some(spans)) = (self.head.begun, self.spans()) else { return };
        let (status, is_shed) = match self.end {
            End::Abandoned => (None, !self.dispatched),
            End::Answered { status } => (Some(status), false),
            End::Refused { status, is_shed, .. } => (Some(status), is_shed),
        };
        let Some(service) = self.settings.routes.services().get(place) else { return };
        let Head { bytes, method_len, target_len, .. } = &self.head;
        spans.end(&begun.ended(bytes, (*method_len, *target_len), service, Ended { status, is_shed, took }));
    }
}

/// Bytes of an answer that its client has not taken yet, for as long as this lives.
pub(crate) struct HeldAnswer {
    dpu: Dpu,
    bytes: u64,
}

impl HeldAnswer {
    fn new(dpu: Dpu, bytes: usize, bytes_max: ByteSize) -> Result<Self, Refusal> {
        let (held, bytes) = (&dpu.0.load.answer_bytes, bytes as u64);
        if held.get() > 0 && held.get() + bytes > bytes_max.0 {
            return Err(Refusal::Overloaded("bytes of answers that clients have not taken"));
        }
        held.set(held.get() + bytes);
        Ok(Self { dpu, bytes })
    }
}

impl Drop for HeldAnswer {
    fn drop(&mut self) {
        let held = &self.dpu.0.load.answer_bytes;
        held.set(held.get() - self.bytes);
    }
}

impl Drop for Received {
    fn drop(&mut self) {
        let load = &self.dpu.0.load;
        load.buffered_bytes.set(load.buffered_bytes.get() - self.buffered_bytes);
        load.dispatched.set(load.dispatched.get() - u32::from(self.dispatched));
        load.requests.end(self.end);
        if let Some((place, route, since)) = self.service {
            let took = Nanos::now().saturating_since(since);
            load.services[place].end(route, self.end, took);
            self.tell(place, took);
        }
    }
}
