//! Flow table: which workers serve a service, and whose calls may go to them directly.
//!
//! - A worker's calls to a service go to a sidecar until a sidecar has installed a flow entry for the two; the entry goes
//!   when the caller does, and when the service's last worker does, so the sidecar decides anew about the next.
//! - All entries go when a sidecar comes or goes: the new one may have been told another policy than the one that installed
//!   them, which may have installed more until its end.
//! - Of several workers: the one with the fewest requests in flight of two that are drawn at random. Two choices keep the
//!   load nearly even, at the cost of two loads.

use cellmesh_shm::ids::{EndpointId, ServiceId};

/// All services that were ever served, by number.
#[derive(Debug)]
pub(crate) struct FlowTable {
    services: Vec<Service>,
    sidecars: Vec<EndpointId>,
    /// Changes of who serves what.
    version: u64,
    random: u64,
}

#[derive(Debug, Default)]
struct Service {
    workers: Vec<EndpointId>,
    /// Callers with a flow entry: a bit for each endpoint.
    callers: Vec<u64>,
}

impl Service {
    fn install(&mut self, caller: EndpointId) {
        let word = usize::from(caller.0 / 64);
        if word >= self.callers.len() {
            self.callers.resize(word + 1, 0);
        }
        self.callers[word] |= 1 << (caller.0 % 64);
    }

    fn uninstall(&mut self, caller: EndpointId) {
        if let Some(word) = self.callers.get_mut(usize::from(caller.0 / 64)) {
            *word &= !(1 << (caller.0 % 64));
        }
    }

    #[inline]
    fn is_installed(&self, caller: EndpointId) -> bool {
        self.callers.get(usize::from(caller.0 / 64)).is_some_and(|word| word >> (caller.0 % 64) & 1 == 1)
    }
}

impl FlowTable {
    pub(crate) fn new(seed: u64) -> Self {
        // Zero is the one state that the generator never leaves.
        Self { services: Vec::new(), sidecars: Vec::new(), version: 0, random: seed | 1 }
    }

    pub(crate) fn version(&self) -> u64 {
        self.version
    }

    pub(crate) fn is_served(&self, service: ServiceId) -> bool {
        self.services.get(usize::from(service.0)).is_some_and(|service| !service.workers.is_empty())
    }

    pub(crate) fn add_worker(&mut self, worker: EndpointId, services: &[ServiceId]) {
        self.version += 1;
        for id in services {
            let index = usize::from(id.0);
            if index >= self.services.len() {
                self.services.resize_with(index + 1, Service::default);
            }
            let workers = &mut self.services[index].workers;
            if !workers.contains(&worker) {
                workers.push(worker);
            }
        }
    }

    pub(crate) fn add_sidecar(&mut self, sidecar: EndpointId) {
        self.uninstall_everything();
        self.sidecars.push(sidecar);
    }

    /// Forgets an endpoint: its own entries, and all entries of each service that it was the last worker of.
    pub(crate) fn remove(&mut self, endpoint: EndpointId) {
        self.version += 1;
        if self.sidecars.contains(&endpoint) {
            self.uninstall_everything();
            self.sidecars.retain(|sidecar| *sidecar != endpoint);
        }
        for service in &mut self.services {
            service.workers.retain(|worker| *worker != endpoint);
            service.uninstall(endpoint);
            if service.workers.is_empty() {
                service.callers.clear();
            }
        }
    }

    /// This worker's calls to this service may go to its workers. Nothing if there are none.
    pub(crate) fn install(&mut self, caller: EndpointId, service: ServiceId) {
        if let Some(service) = self.services.get_mut(usize::from(service.0))
            && !service.workers.is_empty()
        {
            service.install(caller);
        }
    }

    /// Everybody's calls to this service go to a sidecar again.
    pub(crate) fn uninstall_all(&mut self, service: ServiceId) {
        if let Some(service) = self.services.get_mut(usize::from(service.0)) {
            service.callers.clear();
        }
    }

    fn uninstall_everything(&mut self) {
        self.services.iter_mut().for_each(|service| service.callers.clear());
    }

    #[inline]
    pub(crate) fn is_installed(&self, caller: EndpointId, service: ServiceId) -> bool {
        self.services.get(usize::from(service.0)).is_some_and(|service| service.is_installed(caller))
    }

    /// The worker for a request to this service. `in_flight`: requests that an endpoint has to answer.
    #[inline]
    pub(crate) fn worker(
        &mut self,
        service: ServiceId,
        in_flight: impl Fn(EndpointId) -> u32,
    ) -> Option<EndpointId> {
        let workers = &self.services.get(usize::from(service.0))?.workers;
        choose(workers, &mut self.random, in_flight)
    }

    /// The sidecar for a request that a sidecar has to decide about.
    #[inline]
    pub(crate) fn sidecar(&mut self, in_flight: impl Fn(EndpointId) -> u32) -> Option<EndpointId> {
        choose(&self.sidecars, &mut self.random, in_flight)
    }
}

/// The less busy of two different ones, drawn at random; the only one, if there is one.
#[inline]
fn choose(
    from: &[EndpointId],
    random: &mut u64,
    in_flight: impl Fn(EndpointId) -> u32,
) -> Option<EndpointId> {
    if from.len() < 2 {
        return from.first().copied();
    }
    let draw = next_random(random);
    let first = below(draw, from.len());
    let second = below(draw << 32, from.len() - 1);
    let (first, second) = (from[first], from[if second < first { second } else { second + 1 }]);
    Some(if in_flight(second) < in_flight(first) { second } else { first })
}

/// Maps the upper half of `draw` to `0..count`.
fn below(draw: u64, count: usize) -> usize {
    let scaled = (u128::from(draw) * count as u128) >> 64;
    usize::try_from(scaled).expect("less than count")
}

/// Source: Marsaglia, "Xorshift RNGs" (2003), with the multiplier of xorshift64*.
fn next_random(state: &mut u64) -> u64 {
    *state ^= *state >> 12;
    *state ^= *state << 25;
    *state ^= *state >> 27;
    state.wrapping_mul(0x2545_f491_4f6c_dd1d)
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: ServiceId = ServiceId(3);

    fn table(workers: u16) -> FlowTable {
        let mut flows = FlowTable::new(0);
        (0..workers).for_each(|worker| flows.add_worker(EndpointId(worker), &[S, S]));
        flows
    }

    /// An entry needs a worker and is one caller's; it goes with the caller, and with the last worker.
    #[test]
    fn entry_lives_as_long_as_both_sides() {
        const C: EndpointId = EndpointId(200);
        let mut flows = table(2);
        assert!(!flows.is_installed(C, S));
        flows.install(C, S);
        flows.install(C, ServiceId(9));
        assert!(flows.is_installed(C, S) && !flows.is_installed(C, ServiceId(9)));
        assert!(!flows.is_installed(EndpointId(199), S), "another caller is decided about by itself");
        flows.remove(C);
        assert!(!flows.is_installed(C, S), "another may have this name now");
        flows.install(C, S);
        flows.remove(EndpointId(0));
        assert!(flows.is_installed(C, S));
        flows.remove(EndpointId(1));
        assert!(!flows.is_installed(C, S));
        flows.install(C, S);
        assert!(!flows.is_installed(C, S), "no worker, no entry");
        flows.add_worker(EndpointId(2), &[S]);
        assert!(!flows.is_installed(C, S), "a new worker is decided about anew");
        flows.install(C, S);
        flows.uninstall_all(S);
        assert!(!flows.is_installed(C, S));
    }

    /// What one sidecar has decided does not hold for the next.
    #[test]
    fn entries_go_with_a_sidecar() {
        const C: EndpointId = EndpointId(200);
        const SIDECARS: [EndpointId; 2] = [EndpointId(300), EndpointId(301)];
        let mut flows = table(2);
        flows.add_sidecar(SIDECARS[0]);
        flows.install(C, S);
        flows.add_sidecar(SIDECARS[1]);
        assert!(!flows.is_installed(C, S), "the new one has not decided");
        flows.install(C, S);
        flows.remove(SIDECARS[0]);
        assert!(!flows.is_installed(C, S), "the old one may have installed it");
    }

    /// Every worker is drawn, none that is gone, and of two the less busy one.
    #[test]
    fn less_busy_of_two_is_chosen() {
        let mut flows = table(5);
        let mut drawn = [0; 5];
        for _ in 0..1000 {
            let worker = flows.worker(S, |_| 0).expect("five workers");
            drawn[usize::from(worker.0)] += 1;
        }
        assert!(drawn.iter().all(|count| (100..=300).contains(count)), "{drawn:?}");
        for _ in 0..1000 {
            let busiest = |id: EndpointId| u32::from(id.0 == 4);
            assert_ne!(flows.worker(S, busiest), Some(EndpointId(4)), "somebody else of the two was free");
        }
        assert_eq!(flows.worker(ServiceId(99), |_| 0), None);
        assert_eq!(flows.sidecar(|_| 0), None);
    }

    /// The same seed makes the same choices.
    #[test]
    fn choices_repeat_from_the_seed() {
        let choices = || {
            let mut flows = table(7);
            (0..50).map(|_| flows.worker(S, |_| 0)).collect::<Vec<_>>()
        };
        assert_eq!(choices(), choices());
    }
}
