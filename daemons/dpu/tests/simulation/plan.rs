//! What a request asks for and what everybody must see of it: a pure function of its serial number and the seed.
//!
//! ```text
//!   One    0            Chain  0 -> 1 -> 2            Fan  0 -> 1, 0 -> 2, 0 -> 3
//! ```
//!
//! - A plan is a tree of calls; a node is one request at one cell, which first makes the calls below it. The target of
//!   each says which node of which plan it is, so a cell needs no other script.
//! - A chain that is longer than the hops allowed stands for a loop between services.

use std::ops::Range;
use std::time::Duration;

use bytes::Bytes;
use cellmesh_shm::clock::Nanos;
use cellmesh_shm::ids::ServiceId;
use cellmesh_shm::message::{Fault, RequestMessage, ResponseMessage};

use crate::random::{Random, mix, pattern};

/// Services 0 to 2 have honest workers.
pub(crate) const HONEST: u16 = 3;
/// Its only worker writes what it likes.
pub(crate) const HOSTILE: ServiceId = ServiceId(3);
/// The DPA knows it, but it never has a worker: egress that leads nowhere.
pub(crate) const IDLE: ServiceId = ServiceId(4);
/// The DPU has a route to it, but no DPA knows it.
pub(crate) const ABSENT: ServiceId = ServiceId(5);
/// All of these.
pub(crate) const SERVICES: usize = 6;

/// Calls between workers that one request may lead to.
pub(crate) const HOPS_MAX: u8 = 5;
/// Longest message; small, so that too large ones are cheap.
pub(crate) const MESSAGE_BYTES_MAX: u32 = 8192;
/// Bytes of the longest head of a plan's message: a method and a target of two short numbers.
const HEAD_BYTES_MOST: usize = 16;
/// Patient enough that an honest cell's answer is in time unless something stands still.
const LONG: Duration = Duration::from_millis(300);

/// One request at one cell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Name {
    pub(crate) serial: u64,
    pub(crate) node: u8,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shape {
    One,
    Chain,
    Fan,
}

/// How a cell ends a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ending {
    Answer,
    /// With an error of its own: status 500.
    Error,
    /// With a status that none is.
    BadStatus,
    /// With more than a message may have.
    TooLarge,
    /// Not at all.
    Never,
}

/// What one cell does for one node.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Deed {
    pub(crate) service: ServiceId,
    pub(crate) ending: Ending,
    /// Before it makes its calls.
    pub(crate) delay: Duration,
    request_len: usize,
    answer_len: usize,
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Plan {
    serial: u64,
    salt: u64,
    shape: Shape,
    nodes: u8,
    /// Of a request that must be answered at once: its service.
    probe: Option<ServiceId>,
    pub(crate) timeout: Duration,
    /// The client gives up after so long.
    pub(crate) patience: Option<Duration>,
}

impl Plan {
    pub(crate) fn new(seed: u64, serial: u64) -> Self {
        let salt = mix(seed, serial);
        let mut draw = Random::new(salt);
        let (shape, nodes) = match draw.below(1000) {
            0..760 => (Shape::One, 1),
            760..880 => (Shape::Chain, 2 + draw.below(3)),
            880..996 => (Shape::Fan, 3 + draw.below(3)),
            _ => (Shape::Chain, u64::from(HOPS_MAX) + 2),
        };
        let timeout = match draw.below(20) {
            0..16 => LONG,
            16..19 => draw.micros(15_000, 25_000),
            _ => draw.micros(0, 2000),
        };
        let patience = draw.once_in(40).then(|| draw.micros(0, 3000));
        let nodes = u8::try_from(nodes).expect("a few");
        Self { serial, salt, shape, nodes, probe: None, timeout, patience }
    }

    /// One small request to `service`, which its cell answers at once.
    pub(crate) fn probe(seed: u64, serial: u64, service: ServiceId) -> Self {
        let probe = Some(service);
        Self { shape: Shape::One, nodes: 1, probe, timeout: LONG, patience: None, ..Self::new(seed, serial) }
    }

    pub(crate) fn serial(&self) -> u64 {
        self.serial
    }

    pub(crate) fn nodes(&self) -> u8 {
        self.nodes
    }

    /// The calls that this node makes.
    pub(crate) fn children(&self, node: u8) -> Range<u8> {
        match self.shape {
            Shape::One => 0..0,
            Shape::Chain => node + 1..(node + 2).min(self.nodes),
            Shape::Fan if node == 0 => 1..self.nodes,
            Shape::Fan => 0..0,
        }
    }

    /// Calls between workers that lead to this node.
    pub(crate) fn hops(&self, node: u8) -> u8 {
        if self.shape == Shape::Chain { node } else { node.min(1) }
    }

    fn is_loop(&self) -> bool {
        self.shape == Shape::Chain && self.nodes > HOPS_MAX
    }

    pub(crate) fn deed(&self, node: u8) -> Deed {
        let mut draw = Random::new(mix(self.salt, u64::from(node)));
        let honest = ServiceId(u16::try_from(draw.below(HONEST.into())).expect("few services"));
        let plain = Deed {
            service: self.probe.unwrap_or(honest),
            ending: Ending::Answer,
            delay: Duration::ZERO,
            request_len: len(&mut draw),
            answer_len: len(&mut draw),
        };
        if self.is_loop() || self.probe.is_some() {
            return plain;
        }
        let service = match draw.below(100) {
            0..2 => HOSTILE,
            2 => IDLE,
            3 if node == 0 => ABSENT,
            _ => honest,
        };
        Deed { service, ending: ending(&mut draw), delay: delay(&mut draw), ..plain }
    }

    /// Whether its request or its answer is longer than what is sent in one frame.
    pub(crate) fn is_chunked(&self, node: u8, inline_bytes_max: usize) -> bool {
        let Deed { request_len, answer_len, .. } = self.deed(node);
        request_len.max(answer_len) + HEAD_BYTES_MOST > inline_bytes_max
    }

    fn seed_of(&self, node: u8) -> u64 {
        mix(self.salt, u64::from(node) | 0x100)
    }

    /// The request of this node; its service is the DPA's number.
    pub(crate) fn request(&self, node: u8, deadline: Nanos, hops: u8) -> RequestMessage {
        let Deed { service, request_len, .. } = self.deed(node);
        let head = Bytes::from(format!("GET/{}/{node}", self.serial));
        let target_len = u16::try_from(head.len() - 3).expect("two short numbers");
        let body = pattern(request_len, self.seed_of(node));
        RequestMessage { service, deadline, hops, method_len: 3, target_len, head, body }
    }

    /// What the cell of this node says; not for [`Ending::Never`]. `failed`: not all of its calls were answered well.
    pub(crate) fn answer(&self, node: u8, failed: bool) -> ResponseMessage {
        let deed = self.deed(node);
        let (status, len) = match deed.ending {
            _ if failed => (502, 40),
            Ending::Answer | Ending::Never => (200, deed.answer_len),
            Ending::Error => (500, 24),
            Ending::BadStatus => (0, 8),
            Ending::TooLarge => (200, MESSAGE_BYTES_MAX as usize + 1),
        };
        let body = pattern(len, !self.seed_of(node));
        ResponseMessage { status, fault: Fault::None, head: Bytes::from_static(b"a: b\n"), body }
    }

    /// What the caller sees of that answer.
    pub(crate) fn seen(&self, node: u8, failed: bool) -> ResponseMessage {
        match self.deed(node).ending {
            Ending::BadStatus if !failed => ResponseMessage::faulted(Fault::Internal),
            Ending::TooLarge if !failed => ResponseMessage::faulted(Fault::TooLarge),
            Ending::Answer | Ending::Error | Ending::BadStatus | Ending::TooLarge | Ending::Never => {
                self.answer(node, failed)
            }
        }
    }
}

/// Mostly small; some at the edge between inline and chunks; some large.
fn len(draw: &mut Random) -> usize {
    let (from, count) = match draw.below(20) {
        0..15 => (0, 60),
        15..17 => (400, 80),
        17..19 => (20, 400),
        _ => (500, 6500),
    };
    from + draw.index(count)
}

fn delay(draw: &mut Random) -> Duration {
    match draw.below(40) {
        0..32 => Duration::ZERO,
        32..39 => draw.micros(1, 400),
        _ => draw.micros(1000, 20_000),
    }
}

fn ending(draw: &mut Random) -> Ending {
    match draw.below(1000) {
        0..15 => Ending::Error,
        15..20 => Ending::Never,
        20..23 => Ending::BadStatus,
        23..26 => Ending::TooLarge,
        _ => Ending::Answer,
    }
}

/// The node that a target names; none if it was not made by [`Plan::request`].
pub(crate) fn name_of(target: &[u8]) -> Option<Name> {
    let (serial, node) = str::from_utf8(target).ok()?.strip_prefix('/')?.split_once('/')?;
    Some(Name { serial: serial.parse().ok()?, node: node.parse().ok()? })
}
