//! A DPA with an honest caller, an honest callee, and the far side of a worker's link.

use std::collections::HashMap;
use std::time::Duration;

use cellmesh_dpa::{Dpa, DpaConfig};
use cellmesh_shm::clock::Nanos;
use cellmesh_shm::ids::{CallId, ServiceId};
use cellmesh_shm::link::{Link, LinkFds};
use cellmesh_shm::message::Fault;
use cellmesh_shm::peer::Hostile;
use cellmesh_shm::port::{Arrived, Port, PortConfig};

use crate::images::images;
use crate::sides::{LARGE, request, response};
use crate::{PROFILE, SPEC};

const HONEST: ServiceId = ServiceId(0);
const HOSTILE: ServiceId = ServiceId(1);

const TIMEOUT: Duration = Duration::from_secs(1);

/// What a turn may take before it is taken for one without an end.
const PUMPS_MAX: u32 = 1000;

/// What a call must come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Any,
    Answer,
    /// Of a large answer: a peer that announces answers and never sends them holds the credit of the caller's port
    /// until it is closed for that, and here every deadline is shorter.
    AnswerOrDeadline,
}

/// A DPA, its honest ports, and the calls of one of them.
pub(crate) struct Node {
    dpa: Dpa,
    sidecar: Port,
    honest: Port,
    now: Nanos,
    /// Calls that have no outcome yet.
    waiting: HashMap<CallId, Outcome>,
}

/// Whatever the far side writes: calls to the honest worker are answered by it, every call has exactly one outcome, the
/// books balance, and nothing is left in the DPA.
pub fn pump(data: &[u8]) {
    let (mut node, far) = Node::new();
    let scratch = far.scratch();
    for image in images(data) {
        scratch.fill(image);
        node.turn();
    }
    node.call(HONEST, 30, Outcome::Answer);
    node.call(HONEST, LARGE, Outcome::AnswerOrDeadline);
    node.turn();
    node.finish();
}

impl Node {
    pub(crate) fn new() -> (Self, Hostile) {
        let config = DpaConfig {
            // For each call as many as in a node: a worker that makes all the calls it may leaves the caller its own.
            slots_max: 32,
            calls_max: 8,
            message_bytes_max: SPEC.message_bytes_max,
            profile: PROFILE,
            request_timeout_max: TIMEOUT,
            ..DpaConfig::default()
        };
        let mut dpa = Dpa::new(config);
        let open = |fds| Port::new(Link::open(fds).expect("its own link"), port_config());
        let sidecar = open(dpa.attach_sidecar(PROFILE).expect("memory and descriptors"));
        let honest = open(dpa.attach_worker(&[HONEST], PROFILE).expect("memory and descriptors"));
        let far: LinkFds = dpa.attach_worker(&[HOSTILE], PROFILE).expect("memory and descriptors");
        assert_eq!(far.spec, SPEC);
        let far = Hostile::open(far).expect("its own link");
        let mut node = Self { dpa, sidecar, honest, now: Nanos(1), waiting: HashMap::new() };
        for len in [10, LARGE, 20] {
            node.call(HOSTILE, len, Outcome::Any);
        }
        node.call(HONEST, 30, Outcome::Answer);
        node.turn();
        (node, far)
    }

    fn call(&mut self, service: ServiceId, len: usize, outcome: Outcome) {
        if !self.sidecar.is_busy() {
            let call = self.sidecar.call(request(service, len)).expect("not busy");
            self.waiting.insert(call, outcome);
        }
    }

    /// Everything moves that can.
    pub(crate) fn turn(&mut self) {
        for _ in 0..PUMPS_MAX {
            let moved = self.dpa.pump(self.now) | self.take() | self.sidecar.flush() | self.honest.flush();
            if !moved.moved() {
                return;
            }
        }
        panic!("it moves for ever");
    }

    fn take(&mut self) -> cellmesh_dpa::Progress {
        let mut moved = false;
        for (decides, port) in [(true, &mut self.sidecar), (false, &mut self.honest)] {
            while let Some(arrived) = port.poll().expect("the DPA breaks no rules") {
                moved = true;
                match arrived {
                    Arrived::Request { slot, message } => {
                        // The far side's first call to a service: its later ones go to the honest worker directly.
                        if decides {
                            port.install_flow(slot);
                        }
                        port.respond(slot, response(message.body));
                    }
                    Arrived::Response { call, message } => {
                        let outcome =
                            self.waiting.remove(&call).expect("one outcome of a call that was made");
                        let right =
                            message.fault == Fault::None && message.body.iter().all(|byte| *byte == 7);
                        let late = outcome == Outcome::AnswerOrDeadline && message.fault == Fault::Deadline;
                        assert!(right || late || outcome == Outcome::Any, "{outcome:?}: {message:?}");
                    }
                    Arrived::Cancelled { .. } => {}
                }
            }
        }
        moved.into()
    }

    fn finish(&mut self) {
        self.now = self.now.saturating_add(TIMEOUT * 2);
        self.turn();
        assert!(self.waiting.is_empty(), "without an outcome: {:?}", self.waiting);
        self.dpa.detach(SPEC.endpoint);
        self.call(HONEST, LARGE, Outcome::Answer);
        self.turn();
        assert!(self.waiting.is_empty(), "nobody is in the way any more: {:?}", self.waiting);
        let stats = self.dpa.stats();
        assert!(stats.is_balanced() && stats.live == 0 && stats.parked_now == 0, "{stats:?}");
        assert_eq!(stats.endpoints, 2, "{stats:?}");
    }
}

pub(crate) fn port_config() -> PortConfig {
    PortConfig { calls_max: 8, ..PortConfig::default() }
}
