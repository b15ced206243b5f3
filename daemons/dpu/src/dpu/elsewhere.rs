//! Calls off this node: when one is made, and who gets its answer.

use cellmesh_shm::ids::{ServiceId, SlotId};
use cellmesh_shm::message::{Fault, RequestMessage, ResponseMessage};
use tokio::task::spawn_local;

use super::tasks::Tasks;
use super::{Dpu, Settings, Shared};
use crate::egress::hosts::Authority;
use crate::egress::{Spare, Way};

impl Dpu {
    /// Calls of workers that are being made here, to whomever.
    pub(super) fn relays(&self) -> usize {
        self.0.calls.borrow().relays() + self.0.sent_off.open() + self.0.tried.open()
    }

    /// Whether as many calls of workers are being made here as may be.
    pub(super) fn has_no_room_for_relay(&self) -> bool {
        self.relays() >= self.0.settings.borrow().config.relays_max as usize
    }

    /// A call made for a worker has its outcome. Without a link the one who called is gone too.
    pub(super) fn relayed(&self, slot: SlotId, message: ResponseMessage) {
        match self.0.egress.take_spare(slot) {
            Some(spare) if message.fault == Fault::NoWorker => {
                let dpu = self.clone();
                self.send_off(slot, async move {
                    let Spare { clients, way, message } = spare;
                    dpu.0.egress.call_service(&clients, &way, message).await.0
                });
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

    fn send_off(&self, slot: SlotId, call: impl Future<Output = ResponseMessage> + 'static) {
        self.run(slot, |shared| &shared.sent_off, call);
    }

    /// Makes a call in a task of its own, which ends when nobody waits for it any more.
    pub(super) fn run(
        &self,
        slot: SlotId,
        tasks: fn(&Shared) -> &Tasks,
        call: impl Future<Output = ResponseMessage> + 'static,
    ) {
        let dpu = self.clone();
        let task = spawn_local(async move {
            let answer = call.await;
            if tasks(&dpu.0).end(slot) {
                dpu.respond(slot, answer);
                dpu.0.work.notify_one();
            }
        });
        tasks(&self.0).begin(slot, task.abort_handle());
    }

    /// Nobody waits for what is done for `slot` in a task.
    pub(super) fn cancel_tasks(&self, slot: SlotId) {
        self.0.egress.take_spare(slot);
        self.0.sent_off.cancel(slot);
        self.0.tried.cancel(slot);
    }

    /// Nobody waits for what is done in tasks.
    pub(super) fn cancel_all_tasks(&self) {
        self.0.egress.clear_spares();
        self.0.sent_off.cancel_all();
        self.0.tried.cancel_all();
    }
}

impl Settings {
    /// Where a client's request goes if nobody here answers it. None if config names no way.
    pub(super) fn way_for_client(&self, service: ServiceId) -> Option<Way> {
        if !self.config.egress.leads_elsewhere() {
            return None;
        }
        let name = self.routes.name(service)?;
        // What the client called us is not where the service is.
        self.clients.way_to_service(name.as_str(), None)
    }

    /// Where a worker's call goes if nobody here answers it. `service`: our own number.
    pub(super) fn way_for_worker(&self, service: ServiceId, message: &RequestMessage) -> Option<Way> {
        if !self.config.egress.leads_elsewhere() {
            return None;
        }
        let name = self.routes.name(service)?;
        self.clients.way_to_service(name.as_str(), self.named(service, message))
    }

    /// The host that a cell's message names, if it means this service: a cell may write what it likes there.
    fn named<'m>(&self, service: ServiceId, message: &'m RequestMessage) -> Option<Authority<'m>> {
        let named = message.headers().get("host").and_then(|host| std::str::from_utf8(host).ok())?;
        let meant = self.routes.id_of_host(named)?;
        Authority::parse(named).filter(|_| meant == service)
    }
}
