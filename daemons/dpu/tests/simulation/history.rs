//! What was done to the node, and when: the only things that may explain a fault.
//!
//! - A fault of a call is explained by something that happened while the call was under way, and to the service that it
//!   went to; never by something elsewhere.
//! - Spans are kept as their last instant: a call that began before it has seen it.

use cellmesh_shm::clock::Nanos;
use cellmesh_shm::ids::ServiceId;

use crate::plan::SERVICES;

/// Last instants; zero is before everything.
#[derive(Debug, Default)]
pub(crate) struct History {
    /// A worker of the service went away with what it had.
    worker_lost: [Nanos; SERVICES],
    /// Workers of the service that requests go to now.
    workers: [u32; SERVICES],
    /// The service had no such worker.
    unserved: [Nanos; SERVICES],
    /// A worker of the service stood still, or left.
    worker_still: [Nanos; SERVICES],
    /// A sidecar went away with what it had.
    sidecar_lost: Nanos,
    sidecars: u32,
    /// The DPA had no sidecar.
    unrouted: Nanos,
    /// The DPA, a sidecar or the whole machine stood still.
    node_still: Nanos,
    /// A table or a queue of the node was as full as it may be.
    crowded: Nanos,
}

impl History {
    pub(crate) fn add_worker(&mut self, services: &[ServiceId], now: Nanos) {
        for index in services.iter().map(|service| usize::from(service.0)) {
            if self.workers[index] == 0 {
                self.unserved[index] = now;
            }
            self.workers[index] += 1;
        }
    }

    /// No more requests go to this worker; it may finish what it has.
    pub(crate) fn retire_worker(&mut self, services: &[ServiceId], now: Nanos) {
        for index in services.iter().map(|service| usize::from(service.0)) {
            self.workers[index] -= 1;
            self.unserved[index] = self.unserved[index].max(now);
        }
    }

    /// What this worker had is lost.
    pub(crate) fn lose_worker(&mut self, services: &[ServiceId], now: Nanos) {
        services.iter().for_each(|service| self.worker_lost[usize::from(service.0)] = now);
    }

    /// Nothing is expected of this worker before `until`.
    pub(crate) fn still_worker(&mut self, services: &[ServiceId], until: Nanos) {
        for service in services {
            let still = &mut self.worker_still[usize::from(service.0)];
            *still = until.max(*still);
        }
    }

    pub(crate) fn add_sidecar(&mut self, now: Nanos) {
        if self.sidecars == 0 {
            self.unrouted = now;
        }
        self.sidecars += 1;
    }

    pub(crate) fn lose_sidecar(&mut self, now: Nanos) {
        self.sidecars -= 1;
        self.sidecar_lost = now;
        self.still_node(now);
    }

    /// Nothing is expected of the node before `until`.
    pub(crate) fn still_node(&mut self, until: Nanos) {
        self.node_still = until.max(self.node_still);
    }

    pub(crate) fn crowd(&mut self, now: Nanos) {
        self.crowded = now;
    }

    pub(crate) fn lost_worker_since(&self, service: ServiceId, since: Nanos) -> bool {
        self.worker_lost[usize::from(service.0)] >= since
    }

    pub(crate) fn lost_sidecar_since(&self, since: Nanos) -> bool {
        self.sidecar_lost >= since
    }

    pub(crate) fn unserved_since(&self, service: ServiceId, since: Nanos) -> bool {
        let index = usize::from(service.0);
        self.workers[index] == 0 || self.unserved[index] >= since
    }

    pub(crate) fn unrouted_since(&self, since: Nanos) -> bool {
        self.sidecars == 0 || self.unrouted >= since
    }

    pub(crate) fn crowded_since(&self, since: Nanos) -> bool {
        self.crowded >= since
    }

    pub(crate) fn node_still_since(&self, since: Nanos) -> bool {
        self.node_still >= since
    }

    /// Whether an honest node may have been slow with a call to this service.
    pub(crate) fn still_since(&self, service: ServiceId, since: Nanos) -> bool {
        let index = usize::from(service.0);
        self.node_still_since(since) || self.worker_still[index] >= since || self.worker_lost[index] >= since
    }
}
