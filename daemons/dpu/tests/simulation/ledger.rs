//! The promises, checked at each thing that a client or a cell sees.
//!
//! - Each node of each plan is delivered at most once, where and as it was sent.
//! - Each call has at most one outcome, and at the end exactly one unless it was given up: the answer of its own cell,
//!   byte for byte, or a fault that [`History`] explains.
//! - Outcomes come by the deadline and [`PROMPT`]; what a dead worker had ends [`LOSS_TOLD`] after its death.
//! - An answer that its cell gave in time is not lost: a deadline is no excuse then.
//! - A promise that is broken is a panic; the caller names the seed.

use std::collections::BTreeMap;
use std::time::Duration;

use cellmesh_shm::clock::Nanos;
use cellmesh_shm::ids::ServiceId;
use cellmesh_shm::message::{Fault, RequestMessage, ResponseMessage};

use crate::history::{History, SeatIndex};
use crate::plan::{ABSENT, Ending, HONEST, HOPS_MAX, HOSTILE, Name, Plan};
use crate::random::mix;

/// Longest way of a message through a node in which nothing stands still, in either direction; for large ones through
/// tiny rings that are full.
const PROMPT: Duration = Duration::from_millis(20);
/// From a worker's death to the outcome of what it had. Source: the promise about dead workers.
const LOSS_TOLD: Duration = Duration::from_millis(100);

/// One node of a plan, on its way.
#[derive(Debug, Clone, Default)]
struct Node {
    /// When it was sent, and until when it must be answered.
    asked: Option<(Nanos, Nanos)>,
    delivered: Option<Nanos>,
    /// Whose cell has got it.
    seat: Option<SeatIndex>,
    /// Its cell has answered.
    answered: Option<Nanos>,
    /// Its worker died with it.
    lost: Option<Nanos>,
    given_up: bool,
    /// What its caller has seen: whether it was a good answer.
    outcome: Option<bool>,
}

#[derive(Debug)]
struct Record {
    plan: Plan,
    nodes: Vec<Node>,
}

/// Everything that was asked, and what became of it.
#[derive(Debug)]
pub(crate) struct Ledger {
    seed: u64,
    inline_bytes_max: usize,
    records: Vec<Record>,
    pub(crate) history: History,
    /// What happened how often.
    pub(crate) counts: BTreeMap<&'static str, u64>,
    digest: u64,
    /// Longest time that a good answer took beyond what its plan has.
    pub(crate) slowest: Duration,
}

impl Ledger {
    /// `inline_bytes_max`: of the node's rings.
    pub(crate) fn new(seed: u64, inline_bytes_max: u32) -> Self {
        Self {
            seed,
            inline_bytes_max: inline_bytes_max as usize,
            records: Vec::new(),
            history: History::default(),
            counts: BTreeMap::new(),
            digest: seed,
            slowest: Duration::ZERO,
        }
    }

    /// Something happened: part of the digest.
    pub(crate) fn note(&mut self, what: &'static str, about: u64, now: Nanos) {
        *self.counts.entry(what).or_default() += 1;
        let what = what.bytes().fold(0, |sum, byte| sum << 5 ^ u64::from(byte) ^ sum >> 27);
        self.digest = mix(self.digest, mix(what ^ about, now.0));
    }

    pub(crate) fn add(&mut self, what: &'static str, count: u64) {
        *self.counts.entry(what).or_default() += count;
    }

    /// A number for the sequence of all events so far.
    pub(crate) fn digest(&self) -> u64 {
        self.digest
    }

    pub(crate) fn requests(&self) -> u64 {
        self.records.len() as u64
    }

    /// A new request of a client.
    pub(crate) fn open(&mut self) -> Plan {
        self.record(Plan::new(self.seed, self.requests()))
    }

    /// A new request that must be answered at once.
    pub(crate) fn open_probe(&mut self, service: ServiceId) -> Plan {
        self.record(Plan::probe(self.seed, self.requests(), service))
    }

    fn record(&mut self, plan: Plan) -> Plan {
        let nodes = vec![Node::default(); usize::from(plan.nodes())];
        self.records.push(Record { plan, nodes });
        plan
    }

    pub(crate) fn plan(&self, name: Name) -> Plan {
        self.records[index(name)].plan
    }

    fn node(&mut self, name: Name) -> &mut Node {
        &mut self.records[index(name)].nodes[usize::from(name.node)]
    }

    /// A client or a cell sends this.
    pub(crate) fn ask(&mut self, name: Name, deadline: Nanos, now: Nanos) {
        let node = self.node(name);
        assert!(node.asked.is_none(), "{name:?} was sent twice by its caller");
        node.asked = Some((now, deadline));
        self.add("calls", 1);
    }

    /// Its caller does not wait for it any more.
    pub(crate) fn give_up(&mut self, name: Name, now: Nanos) {
        self.node(name).given_up = true;
        self.note("given up", mix(name.serial, name.node.into()), now);
    }

    /// An honest cell of `services` has got it.
    pub(crate) fn deliver(
        &mut self,
        name: Name,
        (seat, services): (SeatIndex, &[ServiceId]),
        message: &RequestMessage,
        now: Nanos,
    ) {
        let plan = self.plan(name);
        let expected = plan.request(name.node, message.deadline, plan.hops(name.node));
        assert!(*message == expected, "{name:?} was changed on its way: {message:?}");
        assert!(services.contains(&message.service), "{name:?} came to a worker of another service");
        assert!(message.hops <= HOPS_MAX, "{name:?} came {} hops far", message.hops);
        let node = self.node(name);
        let (_, deadline) = node.asked.unwrap_or_else(|| panic!("{name:?} was delivered before it was sent"));
        assert!(message.deadline <= deadline, "{name:?} has got a longer deadline");
        let before = node.delivered.replace(now);
        node.seat = Some(seat);
        assert!(before.is_none(), "{name:?} was delivered twice");
        self.note("delivered", mix(name.serial, name.node.into()), now);
    }

    /// Its cell answers.
    pub(crate) fn answer(&mut self, name: Name, now: Nanos) {
        self.node(name).answered = Some(now);
    }

    /// Its worker dies before it has answered.
    pub(crate) fn lose(&mut self, name: Name, now: Nanos) {
        self.node(name).lost = Some(now);
    }

    /// Whether not all of the calls of this node were answered well.
    pub(crate) fn has_failed(&self, name: Name) -> bool {
        let Record { plan, nodes } = &self.records[index(name)];
        plan.children(name.node).any(|child| nodes[usize::from(child)].outcome != Some(true))
    }

    /// Its caller could not send it at all, because of a bound of its own.
    pub(crate) fn refuse(&mut self, name: Name, now: Nanos) {
        self.node(name).outcome = Some(false);
        self.note("refused", mix(name.serial, name.node.into()), now);
    }

    /// Its caller sees this.
    pub(crate) fn settle(&mut self, name: Name, message: &ResponseMessage, caller: Caller, now: Nanos) {
        let good = message.fault == Fault::None && message.status == 200;
        let failed = self.has_failed(name);
        let node = self.node(name);
        assert!(!node.given_up, "{name:?} had an outcome after it was given up");
        assert!(node.outcome.is_none(), "{name:?} had two outcomes");
        node.outcome = Some(good);
        let node = node.clone();
        self.note(outcome_name(message.fault), mix(name.serial, name.node.into()), now);
        let plan = self.plan(name);
        let chunked = plan.is_chunked(name.node, self.inline_bytes_max);
        let call = Settled { name, plan, node, failed, chunked, caller, history: &self.history, now };
        call.check(message);
        self.slowest = self.slowest.max(call.way_back());
    }

    /// All requests of clients from this serial number on were answered well.
    pub(crate) fn assert_all_good(&self, from: u64) {
        for Record { plan, nodes } in self.records.iter().filter(|record| record.plan.serial() >= from) {
            assert_eq!(nodes[0].outcome, Some(true), "a node at rest refused {plan:?}: {:?}", nodes[0]);
        }
    }

    /// Nothing that was asked by a client may be open now.
    pub(crate) fn assert_all_ended(&self) {
        for Record { plan, nodes } in &self.records {
            let root = &nodes[0];
            assert!(root.outcome.is_some() || root.given_up, "no outcome ever: {plan:?} {root:?}");
        }
    }
}

fn index(name: Name) -> usize {
    usize::try_from(name.serial).expect("an index")
}

fn outcome_name(fault: Fault) -> &'static str {
    match fault {
        Fault::None => "answered",
        Fault::NoWorker => "no-worker",
        Fault::Deadline => "deadline",
        Fault::Overloaded => "overloaded",
        Fault::WorkerLost => "worker-lost",
        Fault::Unroutable => "unroutable",
        Fault::HopLimit => "hop-limit",
        Fault::TooLarge => "too-large",
        Fault::Cancelled => "cancelled",
        Fault::Internal => "internal",
    }
}

/// The state of whoever made a call.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Caller {
    /// When it last lost its way to the DPA.
    pub(crate) lost: Nanos,
    /// When it last stood still.
    pub(crate) still: Nanos,
}

impl Caller {
    fn last_still(&self) -> Nanos {
        self.lost.max(self.still)
    }
}

/// A call at the moment of its outcome.
struct Settled<'l> {
    name: Name,
    plan: Plan,
    node: Node,
    failed: bool,
    chunked: bool,
    caller: Caller,
    history: &'l History,
    now: Nanos,
}

impl Settled<'_> {
    fn check(&self, message: &ResponseMessage) {
        let Self { name, node, now, .. } = self;
        let (asked, deadline) = node.asked.expect("an outcome is of something that was sent");
        let service = self.plan.deed(name.node).service;
        let last = deadline.max(self.last_still(service)).saturating_add(PROMPT);
        assert!(*now <= last, "{name:?} ended {:?} after its deadline", now.saturating_since(deadline));
        if message.fault != Fault::None {
            assert!(*message == ResponseMessage::faulted(message.fault), "{name:?}: a fault that says more");
        }
        if service == HOSTILE {
            return;
        }
        if message.fault == Fault::None || self.is_planned(message) {
            assert!(node.answered.is_some(), "{name:?} was answered by nobody: {message:?}");
            assert!(
                *message == self.plan.seen(name.node, self.failed),
                "the wrong answer to {name:?}: {message:?}"
            );
        } else {
            let explained = self.explains(message.fault, service, asked, deadline);
            assert!(explained, "nothing explains {:?} of {self:?}", message.fault);
        }
        if let Some(lost) = node.lost {
            let still = self.caller.last_still().max(self.history.node_still());
            assert!(
                *now <= lost.max(still).saturating_add(LOSS_TOLD),
                "{name:?} ended {:?} after its worker",
                now.saturating_since(lost)
            );
        }
    }

    /// A fault that is what the mesh makes of this cell's answer.
    fn is_planned(&self, message: &ResponseMessage) -> bool {
        matches!(self.plan.deed(self.name.node).ending, Ending::BadStatus | Ending::TooLarge)
            && self.node.answered.is_some()
            && *message == self.plan.seen(self.name.node, self.failed)
    }

    /// When something last stood still that this call needs.
    fn last_still(&self, service: ServiceId) -> Nanos {
        self.caller.last_still().max(self.history.still(service, self.node.seat, self.chunked))
    }

    fn explains(&self, fault: Fault, service: ServiceId, asked: Nanos, deadline: Nanos) -> bool {
        let history = self.history;
        match fault {
            Fault::NoWorker => service == ABSENT || history.unserved_since(service, asked),
            Fault::Deadline => self.now >= deadline && self.had_no_chance(service, asked, deadline),
            Fault::Overloaded => history.crowded_since(asked),
            Fault::WorkerLost => {
                let relayed = self.name.node > 0 && history.sidecar_lost() >= asked;
                let lost = history.worker_lost(service, self.node.seat).max(self.caller.lost);
                lost >= asked || relayed
            }
            Fault::Unroutable => {
                let of_worker = self.name.node > 0;
                if of_worker { history.unrouted_since(asked) } else { self.caller.lost >= asked }
            }
            Fault::HopLimit => self.plan.hops(self.name.node) > HOPS_MAX,
            // Only a cell's own answer is too large, or none.
            Fault::TooLarge | Fault::Internal => false,
            Fault::None | Fault::Cancelled => false,
        }
    }

    /// Whether the deadline had to pass: the cell was slow by plan, or something stood still.
    fn had_no_chance(&self, service: ServiceId, asked: Nanos, deadline: Nanos) -> bool {
        let deed = self.plan.deed(self.name.node);
        let since = match (self.node.answered, self.node.delivered) {
            (Some(answered), _) => answered,
            (None, Some(_)) if deed.ending == Ending::Never => return true,
            // Its own calls have outcomes of their own, which were checked; and whom they wait for may stand still.
            (None, Some(_)) if !self.plan.children(self.name.node).is_empty() => return true,
            (None, Some(delivered)) => delivered.saturating_add(deed.delay),
            (None, None) => asked,
        };
        let unserved = service.0 >= HONEST && self.history.unserved_since(service, asked);
        unserved || deadline <= since.max(self.last_still(service)).saturating_add(PROMPT)
    }

    /// From the cell's answer to here, if nothing stood still meanwhile.
    fn way_back(&self) -> Duration {
        let service = self.plan.deed(self.name.node).service;
        match self.node.answered {
            Some(answered) if self.last_still(service) < answered => self.now.saturating_since(answered),
            _ => Duration::ZERO,
        }
    }
}

impl std::fmt::Debug for Settled<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let deed = self.plan.deed(self.name.node);
        write!(
            f,
            "{:?} {deed:?} {:?} {:?} at {:?}, {:?}",
            self.name, self.plan, self.node, self.now, self.history
        )
    }
}
