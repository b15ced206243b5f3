//! Calls off this node: when one is made, and who gets its answer.

use cellmesh_shm::ids::{ServiceId, SlotId};
use cellmesh_shm::message::{Fault, RequestMessage, ResponseMessage};
use tokio::task::spawn_local;

use super::Dpu;
use crate::egress::hosts::Authority;

impl Dpu {
    /// Calls of workers that are being made here, to whomever.
    pub(super) fn relays(&self) -> usize {
        self.0.calls.borrow().relays() + self.0.egress.open()
    }

    /// What an ingress request becomes if nobody here answers it: a host, and the message once more. None if config names
    /// no way.
    pub(super) fn spare_of(&self, message: &RequestMessage) -> Option<(String, RequestMessage)> {
        if !self.0.config.egress.leads_elsewhere() {
            return None;
        }
        let name = self.0.routes.name(message.service)?;
        // What the client called us is not where the service is.
        let host = self.0.egress.host_of_service(name.as_str(), None)?;
        Some((host, message.clone()))
    }

    /// Keeps a worker's call for the case that nobody here answers it. `service`: our own number.
    pub(super) fn keep_spare(&self, slot: SlotId, service: ServiceId, message: &RequestMessage) {
        if self.0.config.egress.leads_elsewhere()
            && let Some(name) = self.0.routes.name(service)
            && let Some(host) = self.0.egress.host_of_service(name.as_str(), self.named(service, message))
        {
            self.0.egress.keep_spare(slot, host, message.clone());
        }
    }

    /// The host that a cell's message names, if it means this service: a cell may write what it likes there.
    fn named<'m>(&self, service: ServiceId, message: &'m RequestMessage) -> Option<Authority<'m>> {
        let named = message.headers().get("host").and_then(|host| std::str::from_utf8(host).ok())?;
        let meant = self.0.routes.id_of_host(named)?;
        Authority::parse(named).filter(|_| meant == service)
    }

    /// A call made for a worker has its outcome. Without a link the one who called is gone too.
    pub(super) fn relayed(&self, slot: SlotId, message: ResponseMessage) {
        match self.0.egress.take_spare(slot) {
            Some((host, spare)) if message.fault == Fault::NoWorker => {
                let dpu = self.clone();
                self.send_off(slot, async move { dpu.0.egress.call_service(&host, spare).await });
            }
            Some(_) | None => self.respond(slot, message),
        }
    }

    /// A worker calls a host that is not of this application.
    pub(super) fn relay_elsewhere(&self, slot: SlotId, message: RequestMessage) {
        if self.relays() >= self.0.config.relays_max as usize {
            let answer = ResponseMessage::faulted(Fault::Overloaded);
            return self.respond(slot, answer);
        }
        let dpu = self.clone();
        self.send_off(slot, async move { dpu.0.egress.call_elsewhere(message).await });
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
