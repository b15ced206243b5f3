//! Calls of workers: the slow path of calls between services, and calls that never get a faster one.
//!
//! - A service without policy gets a flow entry at the first call: the DPA moves later ones from worker to worker.
//! - A service with policy gets none, so that each call comes here and is admitted or refused.
//! - What a call has taken of a policy is kept by its slot, and given back with its answer, or when nobody waits any more.

use std::rc::Rc;

use cellmesh_shm::clock::Nanos;
use cellmesh_shm::ids::{ServiceId, SlotId};
use cellmesh_shm::message::{Fault, RequestMessage, ResponseMessage};

use super::load::add;
use super::{Dpu, Settings, fault_of};
use crate::egress::{ELSEWHERE, Spare};
use crate::faults::Refusal;
use crate::policy::Permit;

impl Dpu {
    /// A worker's call whose flow is not installed: install it if no policy forbids, and make this one call for the worker.
    /// A call to somebody who is not of this node is made from here, always.
    pub(super) fn relay(&self, slot: SlotId, message: RequestMessage, now: Nanos) {
        add(&self.0.load.relayed, 1);
        if message.service == ELSEWHERE {
            return self.relay_elsewhere(slot, message);
        }
        if let Err(answer) = self.try_relay(slot, message, now) {
            self.0.egress.take_spare(slot);
            self.respond(slot, answer);
        }
    }

    /// Shed, admit, call: in the order of a client's request.
    fn try_relay(
        &self,
        slot: SlotId,
        mut message: RequestMessage,
        now: Nanos,
    ) -> Result<(), ResponseMessage> {
        let faulted = ResponseMessage::faulted;
        let settings = self.settings();
        if self.has_no_room_for_relay() {
            return Err(faulted(Fault::Overloaded));
        }
        let mut link = self.0.link.borrow_mut();
        let attached = link.as_mut().ok_or(faulted(Fault::Unroutable))?;
        let ours = attached.our_number(message.service).ok_or(faulted(Fault::Unroutable))?;
        let mut meant = ours;
        if settings.policies.of(ours).is_none() {
            attached.port.install_flow(slot);
        } else {
            message.service = ours;
            let permit = admit_relay(&settings, &mut message, now);
            self.keep_permit(slot, permit.map_err(|refusal| refusal.describe().message())?);
            meant = message.service;
        }
        let way = settings.way_for_worker(meant, &message);
        if settings.policies.of(meant).is_some_and(|policy| policy.tries().is_some()) {
            message.service = meant;
            self.relay_tries(settings, slot, message, way);
            return Ok(());
        }
        message.service = attached.number_of(meant).ok_or(faulted(Fault::NoWorker))?;
        if let Some(way) = way {
            let clients = Rc::clone(&settings.clients);
            self.0.egress.keep_spare(slot, Spare { way, message: message.clone(), clients });
        }
        let deadline = message.deadline;
        let call = attached.port.call(message).map_err(|refused| faulted(fault_of(refused.why)))?;
        self.0.calls.borrow_mut().open_relay(call, deadline, slot);
        Ok(())
    }

    fn keep_permit(&self, slot: SlotId, permit: Permit) {
        self.0.permits.borrow_mut().insert(slot, permit);
    }

    /// Answers a worker's call, and gives back what it has taken.
    pub(super) fn respond(&self, slot: SlotId, mut answer: ResponseMessage) {
        if let Some(permit) = self.0.permits.borrow_mut().remove(&slot) {
            permit.on_answer(&mut answer);
        }
        self.with_port(|port| port.respond(slot, answer));
    }

    /// The caller does not wait any more.
    pub(super) fn end_relay(&self, slot: SlotId) {
        let call = self.0.calls.borrow_mut().abandon_relay(slot);
        self.cancel(call);
        self.cancel_tasks(slot);
        self.0.permits.borrow_mut().remove(&slot);
    }
}

/// `message`: its service is our own number, before and after.
fn admit_relay(settings: &Settings, message: &mut RequestMessage, now: Nanos) -> Result<Permit, Refusal> {
    let mut permit = settings.policies.admit(message.service, (&*message).into(), now)?;
    message.deadline = permit.deadline(now, message.deadline);
    permit.dispatch(message)?;
    Ok(permit)
}

impl super::Attachment {
    /// The DPA's number of a service, by our own.
    pub(super) fn number_of(&self, service: ServiceId) -> Option<ServiceId> {
        self.numbers.get(usize::from(service.0)).copied().flatten()
    }

    /// Our own number of a service, by the DPA's.
    fn our_number(&self, service: ServiceId) -> Option<ServiceId> {
        let place = self.numbers.iter().position(|number| *number == Some(service))?;
        u16::try_from(place).ok().map(ServiceId)
    }
}
