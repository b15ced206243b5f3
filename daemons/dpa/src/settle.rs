//! Ends: of a request, and of an endpoint with all that is in flight on it.
//!
//! - Whatever ends a request before its answer, both sides hear of it: the caller gets a fault, the callee a cancel.
//!   A callee that does not have the request yet never gets it.
//! - An endpoint that goes by itself is heard out first; one that broke a rule is not.
//! - Closing an endpoint is idempotent: no new requests go to it, what is in flight on it is settled, its memory is
//!   unmapped and its descriptors are closed. Requests that it has not got yet go to another worker.

use cellmesh_shm::frame::{Frame, FrameHeader, FrameKind};
use cellmesh_shm::ids::{CallId, EndpointId, ServiceId, SlotId};
use cellmesh_shm::message::Fault;
use cellmesh_shm::ring::RingError;
use cellmesh_shm::rings::LinkRx;

use crate::custody::Slot;
use crate::endpoint::Role;
use crate::exchange::Exchange;
use crate::mover::Violation;
use crate::{Closed, Dpa};

/// How often within a stall timeout the endpoints are looked at: a stall is found at most half of it late.
const STALL_CHECKS: u32 = 4;

impl Exchange {
    /// Answers a request that was not taken into custody.
    pub(crate) fn refuse(&mut self, caller: EndpointId, call: CallId, fault: Fault) {
        self.stats.faulted[fault as usize] += 1;
        let pushed = self.outlet(caller).send(&FrameHeader::faulted(call.raw(), fault));
        self.stats.parked += u64::from(!pushed);
    }

    /// Ends a request with the mesh's own answer. Nothing if it has ended.
    pub(crate) fn settle(&mut self, id: SlotId, fault: Fault) {
        let Some(slot) = self.end(id) else { return };
        self.refuse(slot.caller, slot.call, fault);
        self.tell_callee(id, &slot);
    }

    /// Ends a request that has had its time, which may be the fault of the worker that has it.
    pub(crate) fn settle_late(&mut self, id: SlotId) {
        if self.flows.has_rules()
            && let Some(slot) = self.custody.get_mut(id).filter(|slot| slot.is_up_to_callee())
        {
            let (service, callee) = (slot.service, slot.callee);
            self.note(service, callee, true);
        }
        self.settle(id, Fault::Deadline);
    }

    /// How a callee has done: nothing if it is not a worker of a service with a rule for outliers.
    pub(crate) fn note(&mut self, service: ServiceId, callee: EndpointId, has_failed: bool) {
        if let Some(ejection) = self.flows.note(service, callee, has_failed, self.now) {
            self.stats.ejections += 1;
            self.ejections.push((service, ejection));
        }
    }

    /// Frees a slot and gives back all that the request held.
    #[inline]
    pub(crate) fn end(&mut self, id: SlotId) -> Option<Slot> {
        let slot = self.custody.end(id)?;
        let caller = self.outlet(slot.caller);
        *caller.call_mut(slot.call).expect("it was found when the slot was taken") = None;
        caller.reserved -= slot.response.reserved();
        let callee = self.outlet(slot.callee);
        callee.reserved -= slot.request.reserved();
        callee.in_flight -= 1;
        Some(slot)
    }

    /// Nobody waits for this request any more.
    fn tell_callee(&mut self, id: SlotId, slot: &Slot) {
        let outlet = self.outlet(slot.callee);
        if slot.delivered {
            let pushed = outlet.send(&FrameHeader::new(FrameKind::Cancel, id.raw()));
            self.stats.parked += u64::from(!pushed);
        } else {
            outlet.take_back(id);
        }
    }

    /// Relays the answers that an endpoint has written before it went. At most what its rings hold: what the one
    /// refresh has seen.
    fn take_last_words(&mut self, from: EndpointId, rx: &mut LinkRx) -> Result<(), Violation> {
        rx.refresh()?;
        let mut frame = Frame::EMPTY;
        while rx.bulk.peek(&mut frame)? {
            self.on_chunk(from, &frame, rx.bulk.payload(&frame))?;
            rx.bulk.release(&frame);
        }
        while rx.small.peek(&mut frame)? {
            if frame.kind() == FrameKind::Response {
                self.on_response(from, &frame, rx.small.payload(&frame));
            }
            rx.small.release(&frame);
        }
        Ok(())
    }

    /// Settles all that it has to do with; nothing goes to it any more.
    fn remove(&mut self, endpoint: EndpointId) {
        let Some(role) = self.outlets[usize::from(endpoint.0)].as_ref().map(|outlet| outlet.role) else {
            return;
        };
        self.flows.remove(endpoint, self.now);
        for id in self.custody.of_endpoint(endpoint) {
            self.let_go(id, endpoint, role);
        }
        if let Some(outlet) = self.outlets[usize::from(endpoint.0)].take() {
            self.stats.doorbells += outlet.tx.rings();
            self.stats.rings_of(role).wrote(outlet.tx.batches());
        }
    }

    /// One of the two sides of this request is going.
    fn let_go(&mut self, id: SlotId, leaving: EndpointId, role: Role) {
        let Some(slot) = self.custody.get_mut(id) else { return };
        if slot.caller == leaving {
            let slot = self.end(id).expect("just looked up");
            self.stats.abandoned += 1;
            self.tell_callee(id, &slot);
        } else if slot.delivered || !self.redispatch(id, leaving, role) {
            self.settle(id, Fault::WorkerLost);
        }
    }

    /// Sends a request elsewhere that the leaving endpoint has not got. `false`: there is nobody else.
    fn redispatch(&mut self, id: SlotId, leaving: EndpointId, role: Role) -> bool {
        let outlets = &self.outlets;
        let in_flight =
            |id: EndpointId| outlets[usize::from(id.0)].as_ref().map_or(u32::MAX, |outlet| outlet.in_flight);
        let service = self.custody.get_mut(id).expect("looked up by the caller").service;
        let to = match role {
            Role::Worker => self.flows.worker(service, in_flight),
            Role::Sidecar => self.flows.sidecar(in_flight),
        };
        let Some(to) = to else { return false };
        let Some(frame) = self.outlet(leaving).take_back(id) else { return false };
        self.outlet(leaving).in_flight -= 1;
        self.outlet(to).in_flight += 1;
        let delivered = self.outlet(to).send_parked(frame);
        let slot = self.custody.get_mut(id).expect("looked up by the caller");
        (slot.callee, slot.delivered) = (to, delivered);
        self.stats.redispatched += 1;
        true
    }
}

impl Dpa {
    /// Lets an endpoint go: its socket has closed, or it is leaving. Nothing if it is not attached.
    ///
    /// Answers that are in its rings count: one that leaves may go as soon as it has said everything. Callers get
    /// [`Fault::WorkerLost`] for what else it had; what it had not got yet goes to another worker, if there is one. Its
    /// own calls are given up.
    pub fn detach(&mut self, endpoint: EndpointId) {
        let Some(rx) = self.inlets.get_mut(usize::from(endpoint.0)).and_then(Option::as_mut) else { return };
        // A rule that it breaks now costs nobody anything: it is going.
        let _ = self.exchange.take_last_words(endpoint, rx);
        self.remove(endpoint);
    }

    fn remove(&mut self, endpoint: EndpointId) {
        self.exchange.remove(endpoint);
        self.inlets[usize::from(endpoint.0)] = None;
    }

    /// Closes an endpoint that broke a rule. Whoever knows whose it is takes that and says so: [`Dpa::take_closed`].
    #[cold]
    pub(crate) fn expel(&mut self, endpoint: EndpointId, violation: Violation) {
        match violation {
            Violation::Ring(RingError::Frame { error, .. }) => {
                self.exchange.stats.rejected[error.reason()] += 1
            }
            Violation::Ring(RingError::Corrupt { .. }) => self.exchange.stats.corrupt_rings += 1,
            Violation::Stream { .. } | Violation::Rule { .. } | Violation::Bell(_) => {
                self.exchange.stats.violations += 1
            }
            Violation::Stalled(_) | Violation::Withheld(_) => self.exchange.stats.stalled += 1,
        }
        self.remove(endpoint);
        let slow = matches!(violation, Violation::Stalled(_) | Violation::Withheld(_));
        self.closed.push_back(Closed { endpoint, rule: violation.to_string(), slow });
    }

    /// Closes those that take nothing for too long, or send nothing of what they were asked for. Looks at them a few times
    /// per timeout, and only while requests are in flight: an endpoint that owes nobody anything may sleep as long as it
    /// likes.
    #[inline]
    pub(crate) fn expel_stalled(&mut self) -> bool {
        let now = self.exchange.now;
        if now < self.next_stall_check {
            return false;
        }
        self.next_stall_check = now.saturating_add(self.exchange.config.stall_timeout / STALL_CHECKS);
        if self.exchange.custody.live() == 0 {
            return false;
        }
        let mut expelled = self.expel_withholders();
        for index in 0..self.exchange.outlets.len() {
            let Some(outlet) = &mut self.exchange.outlets[index] else { continue };
            if outlet.stalled_looks() >= STALL_CHECKS {
                let endpoint = EndpointId(u16::try_from(index).expect("at most ENDPOINTS_MAX"));
                self.expel(endpoint, Violation::Stalled(self.exchange.config.stall_timeout));
                expelled = true;
            }
        }
        expelled
    }

    /// What was granted to them is room in a receiver's ring that no other message has meanwhile.
    fn expel_withholders(&mut self) -> bool {
        let found = self.exchange.custody.withholders(STALL_CHECKS);
        found
            .iter()
            .for_each(|sender| self.expel(*sender, Violation::Withheld(self.exchange.config.stall_timeout)));
        !found.is_empty()
    }

    /// Sends nothing new to a worker: it wants to end. What it has it may finish; what waits here for room in its ring
    /// it still gets. Nothing if it is not attached.
    pub fn leave(&mut self, endpoint: EndpointId) {
        self.exchange.flows.remove(endpoint, self.exchange.now);
    }

    /// Whether all that an endpoint was sent is in its rings, told of and to be read.
    #[must_use]
    pub fn is_flushed(&self, endpoint: EndpointId) -> bool {
        let outlet = self.exchange.outlets.get(usize::from(endpoint.0)).and_then(Option::as_ref);
        outlet.is_none_or(|outlet| outlet.parked() == 0)
    }

    /// Closes those that were found to break a rule while it was not their turn.
    #[inline]
    pub(crate) fn expel_broken(&mut self) -> bool {
        let mut expelled = false;
        for index in 0..self.exchange.outlets.len() {
            let Some(broken) = self.exchange.outlets[index].as_ref().and_then(|outlet| outlet.broken) else {
                continue;
            };
            self.expel(EndpointId(u16::try_from(index).expect("at most ENDPOINTS_MAX")), broken);
            expelled = true;
        }
        expelled
    }
}
