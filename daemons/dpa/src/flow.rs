//! Flow table: which workers serve a service, and whose calls may go to them directly.
//!
//! - A worker's calls to a service go to a sidecar until a sidecar has installed a flow entry for the two; the entry goes
//!   when the caller does, and when the service's last worker does, so the sidecar decides anew about the next.
//! - All entries go when a sidecar comes or goes: the new one may have been told another policy than the one that installed
//!   them, which may have installed more until its end.
//! - A worker that is ejected ([`Outliers`]) is not among those that are chosen from.
//! - Of several workers: the one with the fewest requests in flight of two that are drawn at random. Two choices keep the
//!   load nearly even, at the cost of two loads.

use cellmesh_shm::clock::Nanos;
use cellmesh_shm::ids::{EndpointId, ServiceId};
use cellmesh_shm::outlier::{Ejection, OutlierRule, Outliers};

use crate::stats::WorkerCount;

/// All services that were ever served, by number.
#[derive(Debug)]
pub(crate) struct FlowTable {
    services: Vec<Service>,
    sidecars: Vec<EndpointId>,
    /// Changes of who serves what.
    version: u64,
    random: u64,
    /// Whether any service has a rule for outliers.
    has_rules: bool,
    /// When the first of those that are ejected is readmitted.
    next_readmission: Nanos,
}

#[derive(Debug, Default)]
struct Service {
    /// Those that are chosen from.
    workers: Vec<EndpointId>,
    outliers: Option<Box<Outliers<EndpointId>>>,
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
        Self {
            services: Vec::new(),
            sidecars: Vec::new(),
            version: 0,
            random: seed | 1,
            has_rules: false,
            next_readmission: Nanos::MAX,
        }
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
            let service = self.service(*id);
            if !service.workers.contains(&worker) {
                service.workers.push(worker);
                service.outliers.iter_mut().for_each(|outliers| outliers.add(worker));
            }
        }
    }

    fn service(&mut self, id: ServiceId) -> &mut Service {
        let index = usize::from(id.0);
        if index >= self.services.len() {
            self.services.resize_with(index + 1, Service::default);
        }
        &mut self.services[index]
    }

    /// From now on this is the rule for outliers of a service. Another one begins with everybody readmitted.
    pub(crate) fn set_rule(&mut self, service: ServiceId, rule: Option<OutlierRule>) {
        let service = self.service(service);
        if service.outliers.as_ref().map(|outliers| outliers.rule()) != rule {
            let ejected = service.outliers.take();
            service.workers.extend(ejected.iter().flat_map(|outliers| outliers.all_ejected()));
            service.outliers = rule.map(|rule| Box::new(Outliers::new(rule, &service.workers)));
        }
        self.has_rules = self.services.iter().any(|service| service.outliers.is_some());
        self.find_next_readmission();
    }

    fn find_next_readmission(&mut self) {
        let outliers = self.services.iter().filter_map(|service| service.outliers.as_ref());
        self.next_readmission = outliers.filter_map(|outliers| outliers.next()).min().unwrap_or(Nanos::MAX);
    }

    /// Whether anybody wants to know how workers do.
    #[inline]
    pub(crate) fn has_rules(&self) -> bool {
        self.has_rules
    }

    /// A worker has answered for a service, or has not in time. Whether it is ejected for it.
    pub(crate) fn note(
        &mut self,
        service: ServiceId,
        worker: EndpointId,
        has_failed: bool,
        now: Nanos,
    ) -> Option<Ejection<EndpointId>> {
        let service = self.services.get_mut(usize::from(service.0))?;
        let ejection = service.outliers.as_mut()?.note(worker, has_failed, now)?;
        service.workers.retain(|other| *other != worker);
        self.find_next_readmission();
        Some(ejection)
    }

    /// Chooses again from those whose time is over.
    #[inline]
    pub(crate) fn readmit(&mut self, now: Nanos) {
        if now < self.next_readmission {
            return;
        }
        for service in &mut self.services {
            if let Some(outliers) = &mut service.outliers {
                service.workers.extend(outliers.readmit(now));
            }
        }
        self.find_next_readmission();
    }

    /// When [`FlowTable::readmit`] has something to do.
    pub(crate) fn next_readmission(&self) -> Option<Nanos> {
        Some(self.next_readmission).filter(|next| *next < Nanos::MAX)
    }

    /// Who serves this service.
    pub(crate) fn workers(&self, service: ServiceId) -> WorkerCount {
        let Some(service) = self.services.get(usize::from(service.0)) else { return WorkerCount::default() };
        let ejected = service.outliers.as_ref().map_or(0, |outliers| outliers.ejected());
        WorkerCount { attached: service.workers.len() + ejected, ejected }
    }

    /// Workers that are ejected, of all services together.
    pub(crate) fn ejected(&self) -> usize {
        let outliers = self.services.iter().filter_map(|service| service.outliers.as_ref());
        outliers.map(|outliers| outliers.ejected()).sum()
    }

    pub(crate) fn add_sidecar(&mut self, sidecar: EndpointId) {
        self.uninstall_everything();
        self.sidecars.push(sidecar);
    }

    /// Forgets an endpoint: its own entries, and all entries of each service that it was the last worker of.
    pub(crate) fn remove(&mut self, endpoint: EndpointId, now: Nanos) {
        self.version += 1;
        if self.sidecars.contains(&endpoint) {
            self.uninstall_everything();
            self.sidecars.retain(|sidecar| *sidecar != endpoint);
        }
        for service in &mut self.services {
            service.workers.retain(|worker| *worker != endpoint);
            if let Some(outliers) = &mut service.outliers {
                service.workers.extend(outliers.remove(endpoint, now));
            }
            service.uninstall(endpoint);
            if service.workers.is_empty() {
                service.callers.clear();
            }
        }
        if self.has_rules {
            self.find_next_readmission();
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
        flows.remove(C, Nanos(0));
        assert!(!flows.is_installed(C, S), "another may have this name now");
        flows.install(C, S);
        flows.remove(EndpointId(0), Nanos(0));
        assert!(flows.is_installed(C, S));
        flows.remove(EndpointId(1), Nanos(0));
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
        flows.remove(SIDECARS[0], Nanos(0));
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

    /// Fails so often that it is ejected, unless that is not allowed.
    fn fail(flows: &mut FlowTable, worker: u16, now: Nanos) {
        for _ in 0..OutlierRule::default().failures_max {
            flows.note(S, EndpointId(worker), true, now);
        }
    }

    fn chosen(flows: &mut FlowTable) -> Vec<u16> {
        let mut chosen: Vec<u16> = (0..200).map(|_| flows.worker(S, |_| 0).expect("a worker").0).collect();
        chosen.sort_unstable();
        chosen.dedup();
        chosen
    }

    /// A worker that is ejected is not chosen until its time is over, a change of the rule ends it, or the others are gone.
    #[test]
    fn ejected_workers_are_not_chosen() {
        let rule = OutlierRule::default();
        let mut flows = table(3);
        fail(&mut flows, 0, Nanos(0));
        assert_eq!(chosen(&mut flows), [0, 1, 2], "there is no rule");
        flows.set_rule(S, Some(rule));
        fail(&mut flows, 0, Nanos(0));
        assert_eq!((chosen(&mut flows), flows.ejected()), (vec![1, 2], 1));
        assert_eq!(flows.workers(S), WorkerCount { attached: 3, ejected: 1 });
        flows.set_rule(S, Some(rule));
        flows.readmit(Nanos(0).saturating_add(rule.ejection - std::time::Duration::from_nanos(1)));
        assert_eq!(chosen(&mut flows), [1, 2]);
        flows.readmit(Nanos(0).saturating_add(rule.ejection));
        assert_eq!((chosen(&mut flows), flows.ejected()), (vec![0, 1, 2], 0));
        fail(&mut flows, 1, Nanos(1));
        flows.set_rule(S, Some(OutlierRule { failures_max: 9, ..rule }));
        assert_eq!(chosen(&mut flows), [0, 1, 2]);
        flows.set_rule(S, Some(rule));
        fail(&mut flows, 2, Nanos(1));
        flows.remove(EndpointId(0), Nanos(2));
        assert_eq!(chosen(&mut flows), [1]);
        flows.remove(EndpointId(1), Nanos(2));
        assert_eq!(chosen(&mut flows), [2], "it is the last one");
        flows.add_worker(EndpointId(7), &[S]);
        assert_eq!(chosen(&mut flows), [2, 7]);
        assert_eq!(flows.workers(S), WorkerCount { attached: 2, ejected: 0 });
        assert_eq!(flows.workers(ServiceId(99)), WorkerCount::default(), "nobody ever served it");
    }
}
