//! A worker whose cells follow the plans: real port, scripted answers.
//!
//! ```text
//! Request -> held, until its delay is over -> its calls -> all of them back -> respond
//! Cancelled -> its calls are given up, it is forgotten
//! ```
//!
//! - Everything that it sees is told to the [`Ledger`], which knows whether it may.
//! - A worker that was cut off from the DPA does not know it at once, and goes on with what it has.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

use bytes::Bytes;
use cellmesh_shm::clock::Nanos;
use cellmesh_shm::ids::{CallId, EndpointId, ServiceId, SlotId};
use cellmesh_shm::link::{Link, LinkFds};
use cellmesh_shm::message::{Fault, RequestMessage, ResponseMessage};
use cellmesh_shm::port::{Arrived, Port, PortConfig};

use crate::history::SeatIndex;
use crate::ledger::{Caller, Ledger};
use crate::plan::{Ending, Name, name_of};
use crate::planted::Planted;

/// Bytes of large messages that a worker puts together at once: two of them.
const ASSEMBLY_BYTES: u64 = 20_000;

/// A request that its cell has.
#[derive(Debug)]
struct Held {
    name: Name,
    deadline: Nanos,
    hops: u8,
    /// Calls that it waits for.
    open: u8,
}

/// One worker.
pub(crate) struct Worker {
    pub(crate) endpoint: EndpointId,
    seat: SeatIndex,
    services: Vec<ServiceId>,
    port: Port,
    held: BTreeMap<SlotId, Held>,
    calls: BTreeMap<CallId, (SlotId, Name)>,
    delayed: BinaryHeap<Reverse<(Nanos, SlotId)>>,
    /// When it was last pumped.
    pub(crate) pumped: Nanos,
    /// When it last stood still.
    pub(crate) still: Nanos,
    planted: Option<Planted>,
}

impl Worker {
    pub(crate) fn new(
        fds: LinkFds,
        (seat, services): (SeatIndex, &[ServiceId]),
        calls_max: u32,
        planted: Option<Planted>,
        now: Nanos,
    ) -> Self {
        let config = PortConfig { calls_max, assembly_bytes_max: ASSEMBLY_BYTES, ..PortConfig::default() };
        Self {
            endpoint: fds.spec.endpoint,
            seat,
            services: services.to_vec(),
            port: Port::new(Link::open(fds).expect("its own link"), config),
            held: BTreeMap::new(),
            calls: BTreeMap::new(),
            delayed: BinaryHeap::new(),
            pumped: now,
            still: Nanos(0),
            planted,
        }
    }

    /// Takes what has arrived, does what is due, sends. Whether anything moved.
    pub(crate) fn pump(&mut self, ledger: &mut Ledger, now: Nanos) -> bool {
        self.pumped = now;
        let mut moved = false;
        while let Some(arrived) = self.port.poll().expect("the DPA breaks no rules") {
            moved = true;
            match arrived {
                Arrived::Request { slot, message } => self.on_request(slot, &message, ledger, now),
                Arrived::Response { call, message } => self.on_response(call, &message, ledger, now),
                Arrived::Cancelled { slot } => self.on_cancelled(slot, ledger, now),
            }
        }
        while let Some(slot) = self.take_due(now) {
            moved = true;
            self.begin(slot, ledger, now);
        }
        moved | self.port.flush().moved()
    }

    fn take_due(&mut self, now: Nanos) -> Option<SlotId> {
        let due = self.next_due().is_some_and(|due| due <= now);
        due.then(|| self.delayed.pop()).flatten().map(|Reverse((_, slot))| slot)
    }

    /// When it has something to do although nothing arrives.
    pub(crate) fn next_due(&self) -> Option<Nanos> {
        self.delayed.peek().map(|Reverse((due, _))| *due)
    }

    fn on_request(&mut self, slot: SlotId, message: &RequestMessage, ledger: &mut Ledger, now: Nanos) {
        let Some(name) = name_of(message.target()) else {
            // The hostile worker's own call.
            self.port.respond(slot, stranger());
            return;
        };
        ledger.deliver(name, (self.seat, &self.services), message, now);
        let held = Held { name, deadline: message.deadline, hops: message.hops, open: 0 };
        let before = self.held.insert(slot, held);
        assert!(before.is_none(), "{slot:?} names two requests");
        let delay = ledger.plan(name).deed(name.node).delay;
        if delay.is_zero() {
            self.begin(slot, ledger, now);
        } else {
            self.delayed.push(Reverse((now.saturating_add(delay), slot)));
        }
    }

    /// Makes the calls of this request; answers it if there are none.
    fn begin(&mut self, slot: SlotId, ledger: &mut Ledger, now: Nanos) {
        let Some(held) = self.held.get_mut(&slot) else { return };
        let (Name { serial, node }, plan) = (held.name, ledger.plan(held.name));
        for child in plan.children(node).map(|node| Name { serial, node }) {
            ledger.ask(child, held.deadline, now);
            match self.port.call(plan.request(child.node, held.deadline, held.hops)) {
                Ok(call) => {
                    held.open += 1;
                    self.calls.insert(call, (slot, child));
                }
                Err(_) => ledger.refuse(child, now),
            }
        }
        if held.open == 0 {
            self.finish(slot, ledger, now);
        }
    }

    fn on_response(&mut self, call: CallId, message: &ResponseMessage, ledger: &mut Ledger, now: Nanos) {
        let Some((slot, name)) = self.calls.remove(&call) else {
            panic!("an outcome of {call:?}, which has none to come: {message:?}");
        };
        ledger.settle(name, message, Caller { lost: Nanos(0), still: self.still }, now);
        let held = self.held.get_mut(&slot).expect("calls are given up with their request");
        held.open -= 1;
        if held.open == 0 {
            self.finish(slot, ledger, now);
        }
    }

    fn finish(&mut self, slot: SlotId, ledger: &mut Ledger, now: Nanos) {
        let name = self.held[&slot].name;
        let plan = ledger.plan(name);
        if plan.deed(name.node).ending == Ending::Never {
            return;
        }
        let answer = plan.answer(name.node, ledger.has_failed(name));
        ledger.answer(name, now);
        let answer = match self.planted {
            Some(planted) => planted.bend(name, answer),
            None => Some(answer),
        };
        if let Some(answer) = answer {
            self.held.remove(&slot);
            self.port.respond(slot, answer);
        }
    }

    fn on_cancelled(&mut self, slot: SlotId, ledger: &mut Ledger, now: Nanos) {
        self.held.remove(&slot).expect("only a request that it has is cancelled");
        let given_up = self.calls.extract_if(.., |_, (of, _)| *of == slot);
        for (call, (_, name)) in given_up {
            self.port.cancel(call);
            ledger.give_up(name, now);
        }
    }

    /// It dies: what it has is lost, what it asked nobody waits for.
    pub(crate) fn die(&self, ledger: &mut Ledger, now: Nanos) {
        self.held.values().for_each(|held| ledger.lose(held.name, now));
        self.calls.values().for_each(|(_, name)| ledger.give_up(*name, now));
    }

    /// Whether it has nothing to do and nobody has to do anything for it.
    pub(crate) fn is_idle(&self) -> bool {
        self.port.is_idle()
    }

    /// The name of a request that it has: what a hostile worker would like to answer.
    pub(crate) fn any_slot(&self) -> Option<SlotId> {
        self.held.keys().next().copied()
    }
}

fn stranger() -> ResponseMessage {
    ResponseMessage { status: 404, fault: Fault::None, head: Bytes::new(), body: Bytes::new() }
}
