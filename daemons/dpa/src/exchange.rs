//! What frames go through: custody, the flow table, and what goes to each endpoint.
//!
//! - A frame's token is looked up before anything is done: it must name a live slot that this endpoint asks or answers.
//!   A name that is not live any more is late, not wrong: the two sides end things at the same time. It is dropped
//!   and counted. What no order of events explains is a violation.
//! - Chunks always find room: a receiver may have granted, and not taken, at most what its ring holds, and a sender
//!   sends only what was granted. Both are checked here, so no endpoint can block another's chunks in a ring.
//! - Whoever changes an outlet gets it from [`Exchange::outlet`], which marks it: the pump tells those that are marked of
//!   what was written, and no other.
//! - Not here: whose turn it is (`mover.rs`), how things end (`settle.rs`).

use cellmesh_shm::clock::Nanos;
use cellmesh_shm::frame::{Frame, FrameKind, Relabel};
use cellmesh_shm::ids::{CallId, EndpointId, ServiceId, SlotId};
use cellmesh_shm::message::Fault;
use cellmesh_shm::outlier::Ejection;
use cellmesh_shm::segment::Words;

use crate::custody::{Custody, Slot, Stream};
use crate::endpoint::{Outlet, Role};
use crate::flow::FlowTable;
use crate::mover::Violation;
use crate::{DpaConfig, DpaStats};

/// Everything of a DPA but what comes in.
#[derive(Debug)]
pub(crate) struct Exchange {
    pub(crate) config: DpaConfig,
    chunk_bytes: u32,
    pub(crate) outlets: Vec<Option<Outlet>>,
    pub(crate) custody: Custody,
    pub(crate) flows: FlowTable,
    /// Of workers that were ejected, until somebody asks.
    pub(crate) ejections: Vec<(ServiceId, Ejection<EndpointId>)>,
    /// Of the latest pump.
    pub(crate) now: Nanos,
    /// Of what is taken in this pump.
    latest_deadline: Nanos,
    pub(crate) stats: DpaStats,
}

impl Exchange {
    pub(crate) fn new(config: DpaConfig) -> Self {
        Self {
            config,
            chunk_bytes: config.profile.chunk_payload_bytes(),
            outlets: Vec::new(),
            custody: Custody::new(config.slots_max),
            flows: FlowTable::new(config.seed),
            ejections: Vec::new(),
            now: Nanos(0),
            latest_deadline: Nanos(0),
            stats: DpaStats::default(),
        }
    }

    /// The time of a pump that begins.
    #[inline]
    pub(crate) fn set_now(&mut self, now: Nanos) {
        self.now = now;
        self.latest_deadline = now.saturating_add(self.config.request_timeout_max);
        self.flows.readmit(now);
    }

    /// What goes to an endpoint, which is told of it at the end of the pump.
    #[inline]
    pub(crate) fn outlet(&mut self, endpoint: EndpointId) -> &mut Outlet {
        let outlet = self.outlets[usize::from(endpoint.0)]
            .as_mut()
            .expect("a live slot and a turn name attached endpoints only");
        outlet.is_marked = true;
        outlet
    }

    /// Frames that wait for room in an endpoint's ring.
    #[inline]
    pub(crate) fn parked(&self, endpoint: EndpointId) -> usize {
        self.outlets[usize::from(endpoint.0)].as_ref().map_or(0, Outlet::parked)
    }

    #[inline]
    pub(crate) fn on_small(
        &mut self,
        from: EndpointId,
        frame: &Frame,
        payload: Words<'_>,
    ) -> Result<(), Violation> {
        match frame.kind() {
            FrameKind::Request | FrameKind::RequestAnnounce => self.on_request(from, frame, payload),
            FrameKind::Response | FrameKind::ResponseAnnounce => {
                self.on_response(from, frame, payload);
                Ok(())
            }
            FrameKind::RequestCredit | FrameKind::ResponseCredit => self.on_credit(from, frame, payload),
            FrameKind::Cancel => self.on_cancel(from, frame),
            FrameKind::FlowInstall | FrameKind::FlowRemove => self.on_flow(from, frame),
            FrameKind::RequestChunk | FrameKind::ResponseChunk | FrameKind::Pad => {
                Err(rule(frame, "not a frame of the small ring"))
            }
        }
    }

    #[inline]
    fn on_request(&mut self, from: EndpointId, frame: &Frame, payload: Words<'_>) -> Result<(), Violation> {
        let call = CallId::from_raw(frame.token());
        let caller = self.outlet(from);
        let role = caller.role;
        match caller.call_mut(call) {
            None => return Err(rule(frame, "the call's index must be less than calls_max")),
            Some(Some(_)) => return Err(rule(frame, "the call's index is in use")),
            Some(None) => {}
        }
        self.stats.received += 1;
        match self.admit(from, role, frame) {
            Ok((to, label)) => self.take(from, to, frame, payload, label),
            Err(fault) => self.refuse(from, call, fault),
        }
        Ok(())
    }

    /// Where a request goes, and what its callee is told of it.
    #[inline]
    fn admit(&mut self, from: EndpointId, role: Role, frame: &Frame) -> Result<(EndpointId, Relabel), Fault> {
        let deadline = frame.deadline().min(self.latest_deadline);
        if deadline <= self.now {
            return Err(Fault::Deadline);
        }
        let hops = frame.hops().saturating_add(u8::from(role == Role::Worker));
        if hops > self.config.hops_max {
            return Err(Fault::HopLimit);
        }
        let slots =
            if role == Role::Sidecar { self.config.sidecar_slots_max() } else { self.config.slots_max };
        if self.custody.live() >= slots {
            return Err(Fault::Overloaded);
        }
        let to = self.route(from, role, frame)?;
        if self.parked(to) >= self.config.parked_max() {
            return Err(Fault::Overloaded);
        }
        Ok((to, Relabel { hops, deadline, ..frame.relabel(0) }))
    }

    /// A sidecar has decided already. A worker's call goes to a worker if a sidecar has said that it may, else to a
    /// sidecar.
    #[inline]
    fn route(&mut self, from: EndpointId, role: Role, frame: &Frame) -> Result<EndpointId, Fault> {
        let outlets = &self.outlets;
        let in_flight =
            |id: EndpointId| outlets[usize::from(id.0)].as_ref().map_or(u32::MAX, |outlet| outlet.in_flight);
        if role == Role::Sidecar || self.flows.is_installed(from, frame.service()) {
            return self.flows.worker(frame.service(), in_flight).ok_or(Fault::NoWorker);
        }
        self.stats.slow_path += 1;
        self.flows.sidecar(in_flight).ok_or(Fault::Unroutable)
    }

    #[inline]
    fn take(&mut self, from: EndpointId, to: EndpointId, frame: &Frame, payload: Words<'_>, label: Relabel) {
        let call = CallId::from_raw(frame.token());
        let announced = frame.kind() == FrameKind::RequestAnnounce;
        let slot = Slot {
            caller: from,
            call,
            callee: to,
            service: frame.service(),
            delivered: true,
            request: if announced { Stream::announced(frame.payload_len()) } else { Stream::default() },
            response: Stream::default(),
        };
        let id = self.custody.take(slot, label.deadline).expect("`admit` found a free slot");
        *self.outlet(from).call_mut(call).expect("`on_request` looked it up") = Some(id.index);
        self.outlet(to).in_flight += 1;
        if !self.relay(to, frame, payload, Relabel { token: id.raw(), ..label }) {
            self.custody.get_mut(id).expect("just taken").delivered = false;
        }
    }

    /// Copies a small frame from one endpoint's ring to another's. `false`: it is parked.
    #[inline]
    fn relay(&mut self, to: EndpointId, frame: &Frame, payload: Words<'_>, label: Relabel) -> bool {
        let pushed = self.outlet(to).relay(frame, label, payload);
        self.stats.frames += 1;
        self.stats.parked += u64::from(!pushed);
        pushed
    }

    /// An answer, or the announcement of one. Only of the endpoint that has the request, and only once.
    #[inline]
    pub(crate) fn on_response(&mut self, from: EndpointId, frame: &Frame, payload: Words<'_>) {
        let id = SlotId::from_raw(frame.token());
        let slot = self.custody.get_mut(id).filter(|slot| slot.callee == from && slot.delivered);
        let Some(slot) = slot.filter(|slot| !slot.response.is_announced()) else {
            self.stats.late_responses += 1;
            return;
        };
        let (caller, service, label) = (slot.caller, slot.service, frame.relabel(slot.call.raw()));
        if frame.kind() == FrameKind::ResponseAnnounce {
            slot.response = Stream::announced(frame.payload_len());
        } else {
            self.end(id);
            self.stats.answered += 1;
        }
        if self.flows.has_rules() {
            self.note(service, from, frame.is_failure());
        }
        self.relay(caller, frame, payload, label);
    }

    /// A receiver takes more of a message that was announced to it.
    fn on_credit(&mut self, from: EndpointId, frame: &Frame, payload: Words<'_>) -> Result<(), Violation> {
        let Some(id) = self.receiving(from, frame) else {
            self.stats.late_credits += 1;
            return Ok(());
        };
        self.reserve(from, frame)?;
        let request = frame.kind() == FrameKind::RequestCredit;
        let chunk_bytes = self.chunk_bytes;
        let slot = self.custody.get_mut(id).expect("`receiving` found it");
        let (stream, to, token) = if request {
            (&mut slot.request, slot.caller, slot.call.raw())
        } else {
            (&mut slot.response, slot.callee, id.raw())
        };
        stream
            .grant(frame.credit(), chunk_bytes)
            .map_err(|error| Violation::Stream { kind: frame.kind(), error })?;
        self.relay(to, frame, payload, frame.relabel(token));
        Ok(())
    }

    /// The slot whose payload this endpoint receives, by the name that it has on this link.
    fn receiving(&mut self, from: EndpointId, frame: &Frame) -> Option<SlotId> {
        if frame.kind() == FrameKind::ResponseCredit {
            let id = self.slot_of_call(from, CallId::from_raw(frame.token()))?;
            return self.custody.get_mut(id).filter(|slot| slot.response.is_announced()).map(|_| id);
        }
        let id = SlotId::from_raw(frame.token());
        let slot = self.custody.get_mut(id).filter(|slot| slot.callee == from && slot.delivered)?;
        slot.request.is_announced().then_some(id)
    }

    /// What a receiver has granted and not taken fits its ring, or it would block others' chunks.
    fn reserve(&mut self, receiver: EndpointId, frame: &Frame) -> Result<(), Violation> {
        let chunk_bytes = self.config.profile.chunk_bytes;
        let outlet = self.outlet(receiver);
        let in_ring = outlet.tx.bulk.occupied()? / chunk_bytes;
        let reserved = outlet.reserved + frame.credit();
        if in_ring + reserved > outlet.tx.bulk.capacity() / chunk_bytes {
            return Err(rule(frame, "more chunks granted than the ring holds"));
        }
        outlet.reserved = reserved;
        Ok(())
    }

    /// The next chunk of a message that was announced and that its receiver has granted.
    #[inline]
    pub(crate) fn on_chunk(
        &mut self,
        from: EndpointId,
        frame: &Frame,
        payload: Words<'_>,
    ) -> Result<(), Violation> {
        let Some(id) = self.sending(from, frame) else {
            self.stats.late_chunks += 1;
            return Ok(());
        };
        let request = frame.kind() == FrameKind::RequestChunk;
        let chunk_bytes = self.chunk_bytes;
        let slot = self.custody.get_mut(id).expect("`sending` found it");
        let (stream, to, token) = if request {
            (&mut slot.request, slot.callee, id.raw())
        } else {
            (&mut slot.response, slot.caller, slot.call.raw())
        };
        stream
            .relay(frame.seq(), frame.frame_len(), chunk_bytes)
            .map_err(|error| Violation::Stream { kind: frame.kind(), error })?;
        let answered = !request && stream.is_complete(chunk_bytes);
        self.relay_chunk(to, frame, payload, frame.relabel(token));
        if answered {
            self.end(id);
            self.stats.answered += 1;
        }
        Ok(())
    }

    /// The slot whose payload this endpoint sends, by the name that it has on this link.
    #[inline]
    fn sending(&mut self, from: EndpointId, frame: &Frame) -> Option<SlotId> {
        if frame.kind() == FrameKind::RequestChunk {
            let id = self.slot_of_call(from, CallId::from_raw(frame.token()))?;
            return self.custody.get_mut(id).filter(|slot| slot.request.is_announced()).map(|_| id);
        }
        let id = SlotId::from_raw(frame.token());
        let slot = self.custody.get_mut(id).filter(|slot| slot.callee == from)?;
        slot.response.is_announced().then_some(id)
    }

    #[inline]
    fn relay_chunk(&mut self, to: EndpointId, frame: &Frame, payload: Words<'_>, label: Relabel) {
        self.stats.chunks += 1;
        let outlet = self.outlet(to);
        outlet.reserved -= 1;
        match outlet.tx.bulk.relay(frame, label, payload) {
            Ok(pushed) => assert!(pushed, "`reserve` keeps room for every chunk that was granted"),
            Err(error) => outlet.break_off(error.into()),
        }
    }

    /// The live slot of this endpoint's call.
    #[inline]
    pub(crate) fn slot_of_call(&mut self, caller: EndpointId, call: CallId) -> Option<SlotId> {
        let index = (*self.outlet(caller).call_mut(call)?)?;
        let (id, slot) = self.custody.at(index)?;
        (slot.call == call).then_some(id)
    }

    /// A caller gives up. It hears so; a call that has its outcome already needs nothing.
    fn on_cancel(&mut self, from: EndpointId, frame: &Frame) -> Result<(), Violation> {
        let call = CallId::from_raw(frame.token());
        if self.outlet(from).call_mut(call).is_none() {
            return Err(rule(frame, "the call's index must be less than calls_max"));
        }
        match self.slot_of_call(from, call) {
            Some(id) => self.settle(id, Fault::Cancelled),
            None => self.stats.late_cancels += 1,
        }
        Ok(())
    }

    fn on_flow(&mut self, from: EndpointId, frame: &Frame) -> Result<(), Violation> {
        if self.outlet(from).role != Role::Sidecar {
            return Err(rule(frame, "only a sidecar decides about flows"));
        }
        if frame.kind() == FrameKind::FlowRemove {
            self.flows.uninstall_all(frame.service());
        } else if let Some(slot) = self.custody.get_mut(SlotId::from_raw(frame.token()))
            && slot.callee == from
        {
            // What it decides about is the request that it was asked about, whatever else it says.
            self.flows.install(slot.caller, slot.service);
        }
        Ok(())
    }
}

#[cold]
fn rule(frame: &Frame, rule: &'static str) -> Violation {
    Violation::Rule { kind: frame.kind(), rule }
}
