//! What was done to the node, and when: the only things that may explain a fault.
//!
//! - A fault of a call is explained by something that happened while the call was under way, and to the worker that had
//!   it; if none had it yet, to a worker of its service. Never by something elsewhere.
//! - Spans are kept as their last instant: a call that began before it has seen it.

use cellmesh_shm::clock::Nanos;
use cellmesh_shm::ids::ServiceId;

use crate::plan::SERVICES;

/// Workers that there can be at once, the hostile one included.
const SEATS: usize = 8;

/// A worker's place; [`HOSTILE_SEAT`] is not among the node's seats.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SeatIndex(pub(crate) usize);

pub(crate) const HOSTILE_SEAT: SeatIndex = SeatIndex(SEATS - 1);

/// Of a worker, or of the workers of a service: last instants; zero is before everything.
#[derive(Debug, Default, Clone, Copy)]
struct Fate {
    /// It went away with what it had.
    lost: Nanos,
    /// It stood still.
    still: Nanos,
}

#[derive(Debug, Default)]
pub(crate) struct History {
    seats: [Fate; SEATS],
    services: [Fate; SERVICES],
    /// Workers of the service that requests go to now.
    workers: [u32; SERVICES],
    /// The service had no such worker.
    unserved: [Nanos; SERVICES],
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
    pub(crate) fn lose_worker(&mut self, seat: SeatIndex, services: &[ServiceId], now: Nanos) {
        self.seats[seat.0].lost = now;
        services.iter().for_each(|service| self.services[usize::from(service.0)].lost = now);
    }

    /// Nothing is expected of this worker before `until`.
    pub(crate) fn still_worker(&mut self, seat: SeatIndex, services: &[ServiceId], until: Nanos) {
        self.seats[seat.0].still = until;
        for service in services {
            let still = &mut self.services[usize::from(service.0)].still;
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

    /// When a worker last went away that had a call to this service, or may have had it.
    pub(crate) fn worker_lost(&self, service: ServiceId, seat: Option<SeatIndex>) -> Nanos {
        self.fate(service, seat).lost
    }

    fn fate(&self, service: ServiceId, seat: Option<SeatIndex>) -> Fate {
        seat.map_or(self.services[usize::from(service.0)], |seat| self.seats[seat.0])
    }

    pub(crate) fn sidecar_lost(&self) -> Nanos {
        self.sidecar_lost
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

    pub(crate) fn node_still(&self) -> Nanos {
        self.node_still
    }

    /// When an honest node last had a reason to be slow with a call to this service. `chunked`: its messages need room
    /// in a bulk ring, which any other worker may hold until it is expelled for standing still.
    pub(crate) fn still(&self, service: ServiceId, seat: Option<SeatIndex>, chunked: bool) -> Nanos {
        let fates = if chunked { self.seats.as_slice() } else { &[] };
        let fates = fates.iter().copied().chain([self.fate(service, seat)]);
        fates.fold(self.node_still, |last, Fate { lost, still }| last.max(lost).max(still))
    }
}
