//! A node for tests: one DPA, ports of endpoints on their own mappings, and a clock that only tests move.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use cellmesh_shm::clock::Nanos;
use cellmesh_shm::ids::{CallId, EndpointId, ServiceId, SlotId};
use cellmesh_shm::link::Link;
use cellmesh_shm::message::{Fault, RequestMessage, ResponseMessage};
use cellmesh_shm::port::{Arrived, Port, PortConfig};
use cellmesh_shm::profile::RingProfile;

use crate::{Dpa, DpaConfig};

/// A service that workers of a test serve.
pub(crate) const S: ServiceId = ServiceId(2);
/// Another one.
pub(crate) const OTHER: ServiceId = ServiceId(3);

pub(crate) struct Node {
    pub(crate) dpa: Dpa,
    pub(crate) ports: Vec<Port>,
    pub(crate) ids: Vec<EndpointId>,
    pub(crate) now: Nanos,
    stalled: Vec<usize>,
    arrived: Vec<VecDeque<Arrived>>,
}

/// Index of the sidecar's port in [`Node::ports`].
pub(crate) const SIDECAR: usize = 0;

impl Node {
    /// A sidecar and a worker for each entry of `workers`.
    pub(crate) fn new(config: DpaConfig, workers: &[&[ServiceId]]) -> Self {
        let mut node = Self {
            dpa: Dpa::new(config),
            ports: Vec::new(),
            ids: Vec::new(),
            now: Nanos(1_000_000_000),
            stalled: Vec::new(),
            arrived: Vec::new(),
        };
        let sidecar = node.dpa.attach_sidecar(config.profile).expect("memory and descriptors");
        node.ids.push(sidecar.spec.endpoint);
        node.add_port(Link::open(sidecar).expect("its own link"), &config);
        for services in workers {
            node.add_worker(services, &config);
        }
        node
    }

    pub(crate) fn with_workers(workers: &[&[ServiceId]]) -> Self {
        Self::new(DpaConfig::default(), workers)
    }

    pub(crate) fn add_worker(&mut self, services: &[ServiceId], config: &DpaConfig) -> usize {
        let link = self.attach(services, config.profile);
        self.add_port(link, config)
    }

    fn add_port(&mut self, link: Link, config: &DpaConfig) -> usize {
        self.ports.push(Port::new(link, PortConfig { calls_max: config.calls_max, ..PortConfig::default() }));
        self.arrived.push(VecDeque::new());
        self.ports.len() - 1
    }

    /// A worker's link without a port, for one that does as it likes. Its id is the last of `ids`.
    pub(crate) fn attach(&mut self, services: &[ServiceId], profile: RingProfile) -> Link {
        let fds = self.dpa.attach_worker(services, profile).expect("memory and descriptors");
        self.ids.push(fds.spec.endpoint);
        Link::open(fds).expect("its own link")
    }

    /// Another worker takes the place of one that has gone.
    pub(crate) fn attach_again(&mut self, port: usize, services: &[ServiceId]) -> EndpointId {
        let config = DpaConfig::default();
        let fds = self.dpa.attach_worker(services, config.profile).expect("memory and descriptors");
        self.ids[port] = fds.spec.endpoint;
        let config = PortConfig { calls_max: config.calls_max, ..PortConfig::default() };
        self.ports[port] = Port::new(Link::open(fds).expect("its own link"), config);
        self.ids[port]
    }

    /// From now on this port takes nothing, until somebody asks what has arrived at it.
    pub(crate) fn stall(&mut self, port: usize) {
        self.stalled.push(port);
    }

    /// Nobody is stalled any more.
    pub(crate) fn resume(&mut self) {
        self.stalled.clear();
    }

    /// Everything moves that can.
    pub(crate) fn settle_down(&mut self) {
        while self.round(None) {}
    }

    /// The next thing that arrives at a port, after everything has moved that can.
    pub(crate) fn next(&mut self, port: usize) -> Option<Arrived> {
        while self.arrived[port].is_empty() && self.round(Some(port)) {}
        self.arrived[port].pop_front()
    }

    /// What has arrived at a port so far.
    pub(crate) fn arrived(&mut self, port: usize) -> Option<Arrived> {
        self.arrived[port].pop_front()
    }

    /// Pumps every module once; ports that are stalled take nothing but for `wanted`, which takes one thing at most.
    fn round(&mut self, wanted: Option<usize>) -> bool {
        let mut moved = self.dpa.pump(self.now);
        for (index, port) in self.ports.iter_mut().enumerate() {
            let arrived = &mut self.arrived[index];
            if wanted == Some(index) {
                arrived.extend(port.poll().expect("the DPA breaks no rules"));
            } else if !self.stalled.contains(&index) {
                arrived.extend(std::iter::from_fn(|| port.poll().expect("the DPA breaks no rules")));
            }
            moved |= port.flush();
        }
        moved.moved()
    }

    pub(crate) fn next_request(&mut self, port: usize) -> (SlotId, RequestMessage) {
        match self.next(port) {
            Some(Arrived::Request { slot, message }) => (slot, message),
            other => panic!("a request was expected, not {other:?}"),
        }
    }

    pub(crate) fn next_response(&mut self, port: usize) -> (CallId, ResponseMessage) {
        match self.next(port) {
            Some(Arrived::Response { call, message }) => (call, message),
            other => panic!("a response was expected, not {other:?}"),
        }
    }

    pub(crate) fn next_fault(&mut self, port: usize) -> Fault {
        let (_, message) = self.next_response(port);
        assert_eq!(message, ResponseMessage::faulted(message.fault));
        message.fault
    }

    /// Lets a sidecar decide that calls of this worker to this service need no decision any more.
    pub(crate) fn install_flow(&mut self, caller: usize, service: ServiceId) {
        self.call(caller, request(service, Bytes::new()));
        let (slot, _) = self.next_request(SIDECAR);
        self.ports[SIDECAR].install_flow(slot);
        self.respond(SIDECAR, slot, Bytes::new());
        self.next_response(caller);
    }

    pub(crate) fn call(&mut self, port: usize, message: RequestMessage) -> CallId {
        self.ports[port].call(message).expect("few calls")
    }

    pub(crate) fn respond(&mut self, port: usize, slot: SlotId, body: Bytes) {
        self.ports[port].respond(slot, answer(body));
    }

    pub(crate) fn pass(&mut self, time: Duration) {
        self.now = self.now.saturating_add(time);
    }

    /// The books balance and nothing is in flight anywhere.
    pub(crate) fn assert_settled(&mut self) {
        self.settle_down();
        let stats = self.dpa.stats();
        assert!(stats.is_balanced(), "{stats:?}");
        assert_eq!((stats.live, stats.parked_now), (0, 0), "{stats:?}");
        for outlet in self.dpa.exchange.outlets.iter().flatten() {
            assert_eq!((outlet.in_flight, outlet.reserved), (0, 0));
        }
    }
}

/// A request without a deadline of its own.
pub(crate) fn request(service: ServiceId, body: Bytes) -> RequestMessage {
    RequestMessage {
        service,
        deadline: Nanos::MAX,
        hops: 0,
        method_len: 4,
        target_len: 2,
        head: Bytes::from_static(b"POST/xhost: s2\n"),
        body,
    }
}

pub(crate) fn answer(body: Bytes) -> ResponseMessage {
    ResponseMessage { status: 200, fault: Fault::None, head: Bytes::from_static(b"a: b\n"), body }
}

/// Bytes that differ from place to place, so that a chunk out of place is seen.
pub(crate) fn pattern(len: usize, seed: u64) -> Bytes {
    let words = (0..len.div_ceil(8) as u64)
        .flat_map(|n| (n.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ seed).to_le_bytes());
    words.take(len).collect::<Vec<u8>>().into()
}
