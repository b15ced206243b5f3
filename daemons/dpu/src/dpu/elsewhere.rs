//! Calls off this node: when one is made, and who gets its answer.

use std::rc::Rc;

use cellmesh_shm::ids::{ServiceId, SlotId};
use cellmesh_shm::message::{Fault, RequestMessage, ResponseMessage};
use tokio::task::spawn_local;

use super::{Dpu, Settings};
use crate::egress::Spare;
use crate::egress::hosts::Authority;

impl Dpu {
    /// Calls of workers that are being made here, to whomever.
    pub(super) fn relays(&self) -> usize {
        self.0.calls.borrow().relays() + self.0.egress.open()
    }

    /// Whether as many calls of workers are being made here as may be.
    pub(super) fn has_no_room_for_relay(&self) -> bool {
        self.relays() >= self.0.settings.borrow().config.relays_max as usize
    }

    /// Keeps a worker's call for the case that nobody here answers it. `service`: our own number.
    pub(super) fn keep_spare(
        &self,
        settings: &Settings,
        slot: SlotId,
        service: ServiceId,
        message: &RequestMessage,
    ) {
        if settings.config.egress.leads_elsewhere()
            && let Some(name) = settings.routes.name(service)
            && let Some(spare) = settings.spare(name.as_str(), settings.named(service, message), message)
        {
            self.0.egress.keep_spare(slot, spare);
        }
    }

    /// A call made for a worker has its outcome. Without a link the one who called is gone too.
    pub(super) fn relayed(&self, slot: SlotId, message: ResponseMessage) {
        match self.0.egress.take_spare(slot) {
            Some(spare) if message.fault == Fault::NoWorker => {
                let dpu = self.clone();
                self.send_off(slot, async move { dpu.0.egress.call_service(spare).await });
            }
            Some(_) | None => self.respond(slot, message),
        }
    }

    /// A worker calls a host that is not of this application.
    pub(super) fn relay_elsewhere(&self, slot: SlotId, message: RequestMessage) {
        if self.has_no_room_for_relay() {
            let answer = ResponseMessage::faulted(Fault::Overloaded);
            return self.respond(slot, answer);
        }
        let (dpu, settings) = (self.clone(), self.settings());
        self.send_off(slot, async move { dpu.0.egress.call_elsewhere(&settings.clients, message).await });
    }

    /// Makes a call in a task of its own, which ends when nobody waits for it any more.
    fn send_off(&self, slot: SlotId, call: impl Future<Output = ResponseMessage> + 'static) {
        let dpu = self.clone();
        let task = spawn_local(async move {
            let answer = call.await;
            if dpu.0.egress.end(slot) {
                dpu.respond(slot, answer);
                dpu.0.work.notify_one();
            }
        });
        self.0.egress.begin(slot, task.abort_handle());
    }
}

impl Settings {
    /// What an ingress request becomes if nobody here answers it. None if config names no way.
    pub(super) fn spare_of(&self, message: &RequestMessage) -> Option<Spare> {
        if !self.config.egress.leads_elsewhere() {
            return None;
        }
        let name = self.routes.name(message.service)?;
        // What the client called us is not where the service is.
        self.spare(name.as_str(), None, message)
    }

    fn spare(&self, service: &str, named: Option<Authority<'_>>, message: &RequestMessage) -> Option<Spare> {
        let host = self.clients.host_of_service(service, named)?;
        Some(Spare { host, message: message.clone(), clients: Rc::clone(&self.clients) })
    }

    /// The host that a cell's message names, if it means this service: a cell may write what it likes there.
    fn named<'m>(&self, service: ServiceId, message: &'m RequestMessage) -> Option<Authority<'m>> {
        let named = message.headers().get("host").and_then(|host| std::str::from_utf8(host).ok())?;
        let meant = self.routes.id_of_host(named)?;
        Authority::parse(named).filter(|_| meant == service)
    }
}
