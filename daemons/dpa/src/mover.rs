//! The pump: takes frames from each endpoint in turn and relays them.
//!
//! ```text
//!   pump:  deadlines that passed, then a turn for each endpoint, then one publication for each, then who stands still
//!   turn:  what is parked for it | at most `chunks_per_turn` | if that was all: at most `budget_per_turn` small frames
//! ```
//!
//! - Turns go round robin, from another endpoint each time, so nobody is always first.
//! - A frame's token is looked up before anything is done: it must name a live slot that this endpoint asks or answers.
//!   A name that is not live any more is late, not wrong: the two sides end things at the same time. It is dropped
//!   and counted. What no order of events explains is a violation.
//! - A violation closes its endpoint, and nothing else.
//! - Chunks always find room: a receiver may have granted, and not taken, at most what its ring holds, and a sender
//!   sends only what was granted. Both are checked here, so no endpoint can block another's chunks in a ring.
//! - Chunks that were granted are room that nobody else has: who does not send them is expelled as one that stands still
//!   is (`settle.rs`).
//! - An endpoint that does not take what it is sent is not read from either: see [`crate::DpaConfig::parked_max`].

use std::time::Duration;

use cellmesh_shm::clock::Nanos;
use cellmesh_shm::doorbell::BellError;
use cellmesh_shm::frame::{Frame, FrameKind, Relabel};
use cellmesh_shm::ids::{CallId, EndpointId, SlotId};
use cellmesh_shm::message::Fault;
use cellmesh_shm::ring::RingError;

use crate::custody::{Slot, Stream, StreamError};
use crate::endpoint::Role;
use crate::{Dpa, Progress};

/// What an endpoint did that no correct one does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Violation {
    #[error(transparent)]
    Ring(#[from] RingError),
    #[error(transparent)]
    Bell(#[from] BellError),
    #[error("{kind:?}: {error}")]
    Stream { kind: FrameKind, error: StreamError },
    #[error("{kind:?}: {rule}")]
    Rule { kind: FrameKind, rule: &'static str },
    #[error("took none of the frames that wait for it for {0:?}")]
    Stalled(Duration),
    #[error("sent nothing of a message that it has announced and that is waited for, for {0:?}")]
    Withheld(Duration),
}

impl Dpa {
    /// Moves what can be moved, settles what is overdue, and tells every endpoint of it.
    ///
    /// - `now`: deadlines before it have passed; never earlier than at the last call.
    /// - cost: two loads per endpoint when nothing is there; per small frame two cache lines and a table entry.
    pub fn pump(&mut self, now: Nanos) -> Progress {
        self.now = now;
        self.flows.readmit(now);
        let mut moved = self.expire(now);
        let count = self.inlets.len();
        self.first_turn = if self.first_turn + 1 < count { self.first_turn + 1 } else { 0 };
        for index in (self.first_turn..count).chain(0..self.first_turn.min(count)) {
            moved |= self.turn(index, now);
        }
        let (told, broken) = self.publish();
        moved |= told;
        // After the turns: what somebody has just done counts.
        let looks_at_all = now >= self.next_stall_check;
        moved |= self.expel_stalled(now);
        if broken || looks_at_all {
            moved |= self.expel_broken();
        }
        Progress::from(moved)
    }

    #[inline]
    fn expire(&mut self, now: Nanos) -> bool {
        if !self.custody.is_due(now) {
            return false;
        }
        let expired = self.custody.expired(now);
        expired.iter().for_each(|id| self.settle_late(*id));
        !expired.is_empty()
    }

    #[inline]
    fn turn(&mut self, index: usize, now: Nanos) -> bool {
        let (Some(inlet), Some(outlet)) = (&mut self.inlets[index], &self.outlets[index]) else {
            return false;
        };
        // Most have nothing to say, and nothing waits for them.
        if outlet.parked() == 0 && !inlet.rx.has_seen() && inlet.rx.has_no_news() {
            return false;
        }
        let endpoint = EndpointId(u16::try_from(index).expect("at most ENDPOINTS_MAX"));
        self.take_turn(endpoint, now).unwrap_or_else(|violation| {
            self.expel(endpoint, violation);
            true
        })
    }

    /// Trust boundary rule 5: a bounded share of every turn.
    #[inline]
    fn take_turn(&mut self, from: EndpointId, now: Nanos) -> Result<bool, Violation> {
        let mut moved = self.unpark(from);
        let rx = &mut self.inlet(from).rx;
        // A look before all chunks that the last one has seen are through could see small frames whose chunks still wait.
        if !rx.bulk.has_seen() && !rx.refresh()? {
            return Ok(moved);
        }
        let mut frame = Frame::EMPTY;
        for _ in 0..self.config.chunks_per_turn.max(1) {
            if !self.inlet(from).rx.bulk.peek(&mut frame)? {
                break;
            }
            self.on_chunk(from, &frame)?;
            self.inlet(from).rx.bulk.release(&frame);
            moved = true;
        }
        if self.inlet(from).rx.bulk.has_seen() {
            return Ok(moved);
        }
        for _ in 0..self.config.budget_per_turn {
            if self.outlet(from).parked() >= self.config.parked_max() {
                break;
            }
            if !self.inlet(from).rx.small.peek(&mut frame)? {
                break;
            }
            self.on_small(from, &frame, now)?;
            self.inlet(from).rx.small.release(&frame);
            moved = true;
        }
        Ok(moved)
    }

    #[inline]
    fn unpark(&mut self, endpoint: EndpointId) -> bool {
        let mut moved = false;
        while let Some(sent) = self.outlet(endpoint).unpark() {
            moved = true;
            if matches!(sent.kind, FrameKind::Request | FrameKind::RequestAnnounce)
                && let Some(slot) = self.custody.get_mut(SlotId::from_raw(sent.token))
            {
                slot.delivered = true;
            }
        }
        moved
    }

    /// Whether there was anything to tell, and whether anybody is to be closed.
    #[inline]
    fn publish(&mut self) -> (bool, bool) {
        let (mut moved, mut broken) = (false, false);
        for (inlet, outlet) in self.inlets.iter_mut().zip(&mut self.outlets) {
            if let (Some(inlet), Some(outlet)) = (inlet, outlet) {
                let room = inlet.rx.publish();
                moved |= outlet.tx.publish(room);
                broken |= outlet.broken.is_some();
            }
        }
        (moved, broken)
    }

    #[inline]
    fn on_small(&mut self, from: EndpointId, frame: &Frame, now: Nanos) -> Result<(), Violation> {
        match frame.kind() {
            FrameKind::Request | FrameKind::RequestAnnounce => self.on_request(from, frame, now),
            FrameKind::Response | FrameKind::ResponseAnnounce => {
                self.on_response(from, frame);
                Ok(())
            }
            FrameKind::RequestCredit | FrameKind::ResponseCredit => self.on_credit(from, frame),
            FrameKind::Cancel => self.on_cancel(from, frame),
            FrameKind::FlowInstall | FrameKind::FlowRemove => self.on_flow(from, frame),
            FrameKind::RequestChunk | FrameKind::ResponseChunk | FrameKind::Pad => {
                Err(rule(frame, "not a frame of the small ring"))
            }
        }
    }

    #[inline]
    fn on_request(&mut self, from: EndpointId, frame: &Frame, now: Nanos) -> Result<(), Violation> {
        let call = CallId::from_raw(frame.token());
        match self.inlet(from).call_mut(call) {
            None => return Err(rule(frame, "the call's index must be less than calls_max")),
            Some(Some(_)) => return Err(rule(frame, "the call's index is in use")),
            Some(None) => {}
        }
        self.stats.received += 1;
        match self.admit(from, frame, now) {
            Ok((to, label)) => self.take(from, to, frame, label),
            Err(fault) => self.refuse(from, call, fault),
        }
        Ok(())
    }

    /// Where a request goes, and what its callee is told of it.
    #[inline]
    fn admit(&mut self, from: EndpointId, frame: &Frame, now: Nanos) -> Result<(EndpointId, Relabel), Fault> {
        let role = self.inlet(from).role;
        let deadline = frame.deadline().min(now.saturating_add(self.config.request_timeout_max));
        if deadline <= now {
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
        if self.outlet(to).parked() >= self.config.parked_max() {
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
    fn take(&mut self, from: EndpointId, to: EndpointId, frame: &Frame, label: Relabel) {
        let call = CallId::from_raw(frame.token());
        let announced = frame.kind() == FrameKind::RequestAnnounce;
        let slot = Slot {
            caller: from,
            call,
            callee: to,
            service: frame.service(),
            delivered: false,
            request: if announced { Stream::announced(frame.payload_len()) } else { Stream::default() },
            response: Stream::default(),
        };
        let id = self.custody.take(slot, label.deadline).expect("`admit` found a free slot");
        *self.inlet(from).call_mut(call).expect("`on_request` looked it up") = Some(id.index);
        self.outlet(to).in_flight += 1;
        if self.relay(from, frame, to, Relabel { token: id.raw(), ..label }) {
            self.custody.get_mut(id).expect("just taken").delivered = true;
        }
    }

    /// Copies a small frame from one endpoint's ring to another's. `false`: it is parked.
    #[inline]
    fn relay(&mut self, from: EndpointId, frame: &Frame, to: EndpointId, label: Relabel) -> bool {
        let inlet = self.inlets[usize::from(from.0)].as_ref().expect("it has the turn");
        let outlet =
            self.outlets[usize::from(to.0)].as_mut().expect("a live slot names attached endpoints only");
        let pushed = outlet.relay(frame, label, inlet.rx.small.payload(frame));
        self.stats.frames += 1;
        self.stats.parked += u64::from(!pushed);
        pushed
    }

    /// An answer, or the announcement of one. Only of the endpoint that has the request, and only once.
    #[inline]
    pub(crate) fn on_response(&mut self, from: EndpointId, frame: &Frame) {
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
        self.relay(from, frame, caller, label);
    }

    /// A receiver takes more of a message that was announced to it.
    fn on_credit(&mut self, from: EndpointId, frame: &Frame) -> Result<(), Violation> {
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
        self.relay(from, frame, to, frame.relabel(token));
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
    pub(crate) fn on_chunk(&mut self, from: EndpointId, frame: &Frame) -> Result<(), Violation> {
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
        self.relay_chunk(from, frame, to, frame.relabel(token));
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
    fn relay_chunk(&mut self, from: EndpointId, frame: &Frame, to: EndpointId, label: Relabel) {
        let inlet = self.inlets[usize::from(from.0)].as_ref().expect("it has the turn");
        let outlet =
            self.outlets[usize::from(to.0)].as_mut().expect("a live slot names attached endpoints only");
        outlet.reserved -= 1;
        self.stats.chunks += 1;
        match outlet.tx.bulk.relay(frame, label, inlet.rx.bulk.payload(frame)) {
            Ok(pushed) => assert!(pushed, "`reserve` keeps room for every chunk that was granted"),
            Err(error) => outlet.broken = Some(error.into()),
        }
    }

    /// The live slot of this endpoint's call.
    #[inline]
    pub(crate) fn slot_of_call(&mut self, caller: EndpointId, call: CallId) -> Option<SlotId> {
        let index = (*self.inlet(caller).call_mut(call)?)?;
        let (id, slot) = self.custody.at(index)?;
        (slot.call == call).then_some(id)
    }

    /// A caller gives up. It hears so; a call that has its outcome already needs nothing.
    fn on_cancel(&mut self, from: EndpointId, frame: &Frame) -> Result<(), Violation> {
        let call = CallId::from_raw(frame.token());
        if self.inlet(from).call_mut(call).is_none() {
            return Err(rule(frame, "the call's index must be less than calls_max"));
        }
        match self.slot_of_call(from, call) {
            Some(id) => self.settle(id, Fault::Cancelled),
            None => self.stats.late_cancels += 1,
        }
        Ok(())
    }

    fn on_flow(&mut self, from: EndpointId, frame: &Frame) -> Result<(), Violation> {
        if self.inlet(from).role != Role::Sidecar {
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

#[cfg(test)]
mod hostile_tests;
#[cfg(test)]
mod tests;
