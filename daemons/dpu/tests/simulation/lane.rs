//! A sidecar lane and its clients: requests without a network, and a link to the DPA that may be cut.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use cellmesh_dpu::{Dpu, DpuConfig, DpuStats, Request, Routes};
use cellmesh_shm::clock::Nanos;
use cellmesh_shm::ids::{EndpointId, ServiceId};
use cellmesh_shm::link::{Link, LinkFds};
use cellmesh_shm::message::{Fault, ResponseMessage};

use crate::ledger::{Caller, Ledger};
use crate::plan::{Name, Plan, SERVICES};
use crate::planted::Planted;

/// Names of the DPA's services, by its numbers.
pub(crate) const DPA_NAMES: [&str; 5] = ["s0", "s1", "s2", "hostile", "idle"];
/// The DPU's numbers of the same services, and of the one that the DPA does not know: its own order.
const DPU_NUMBERS: [u16; SERVICES] = [5, 4, 2, 3, 1, 0];
const DPU_NAMES: [&str; SERVICES] = ["absent", "idle", "s2", "hostile", "s1", "s0"];
/// How long after a deadline a sidecar gives up by itself, when the DPA says nothing.
const DEADLINE_GRACE: Duration = Duration::from_millis(250);

/// A client's request.
struct Waiting {
    name: Name,
    request: Request,
    deadline: Nanos,
    gives_up: Option<Nanos>,
}

pub(crate) struct Lane {
    dpu: Dpu,
    config: DpuConfig,
    /// As the DPA allows.
    calls_max: u32,
    waiting: Vec<Waiting>,
    /// Its name at the DPA; none: the link is cut.
    pub(crate) sidecar: Option<EndpointId>,
    /// When it learns that its link is cut.
    pub(crate) notices: Option<Nanos>,
    /// When it can be attached again.
    pub(crate) returns: Nanos,
    /// It stands still until then.
    pub(crate) resumes: Nanos,
    pub(crate) pumped: Nanos,
    pub(crate) caller: Caller,
    /// Calls given up, and calls made for workers, since the node was last idle: each may still have its place in the
    /// port.
    ended: u32,
    planted: Option<Planted>,
    echoes: Vec<Request>,
}

impl Lane {
    pub(crate) fn new(config: DpuConfig, calls_max: u32, planted: Option<Planted>) -> Self {
        Self {
            dpu: Dpu::new(routes(), config.clone()),
            config,
            calls_max,
            waiting: Vec::new(),
            sidecar: None,
            notices: None,
            returns: Nanos(0),
            resumes: Nanos(0),
            pumped: Nanos(0),
            caller: Caller::default(),
            ended: 0,
            planted,
            echoes: Vec::new(),
        }
    }

    pub(crate) fn attach(&mut self, fds: LinkFds, now: Nanos) {
        self.sidecar = Some(fds.spec.endpoint);
        self.dpu.attach(Link::open(fds).expect("its own link"), self.calls_max, DPA_NAMES);
        self.caller.lost = now;
        self.pumped = now;
        self.ended = 0;
    }

    /// It learns that its link is cut.
    pub(crate) fn detach(&mut self, now: Nanos) {
        self.dpu.detach();
        self.caller.lost = now;
    }

    pub(crate) fn is_attached(&self) -> bool {
        self.dpu.is_attached()
    }

    /// It dies and another takes its place: its clients lose their connections, and nothing else happens.
    pub(crate) fn replace(&mut self, ledger: &mut Ledger, now: Nanos) {
        self.echoes.clear();
        for waiting in self.waiting.drain(..) {
            ledger.give_up(waiting.name, now);
        }
        assert_eq!((self.stats().in_flight, self.stats().dispatched), (0, 0), "a request is not let go");
        self.dpu = Dpu::new(routes(), self.config.clone());
    }

    /// A client sends what `plan` asks for.
    pub(crate) fn send(&mut self, plan: Plan, name: Name, ledger: &mut Ledger, now: Nanos) {
        let deadline = now.saturating_add(plan.timeout);
        ledger.ask(name, deadline, now);
        let mut message = plan.request(0, deadline, 0);
        message.service = ServiceId(DPU_NUMBERS[usize::from(message.service.0)]);
        if self.planted == Some(Planted::Redeliver) && Planted::Redeliver.hits(name) {
            self.echoes.extend(self.dpu.request(message.clone()));
        }
        let full = self.is_full();
        match self.dpu.request(message) {
            Ok(request) => {
                let gives_up = plan.patience.map(|patience| now.saturating_add(patience));
                self.waiting.push(Waiting { name, request, deadline, gives_up });
            }
            Err(fault) => {
                if full {
                    ledger.history.crowd(now);
                }
                if !self.dpu.is_attached() {
                    self.caller.lost = now;
                }
                ledger.settle(name, &ResponseMessage::faulted(fault), self.caller, now);
            }
        }
    }

    /// Whether a bound of this lane may be reached now.
    fn is_full(&self) -> bool {
        let stats = self.dpu.stats();
        stats.dispatched >= self.config.requests_max || self.calls_open(&stats) >= self.calls_most()
    }

    fn calls_open(&self, stats: &DpuStats) -> u32 {
        stats.dispatched + self.ended
    }

    fn calls_most(&self) -> u32 {
        self.calls_max.min(self.config.requests_max + self.config.relays_max)
    }

    /// Pumps the sidecar, then lets its clients look. Whether anything moved.
    pub(crate) fn pump(&mut self, ledger: &mut Ledger, now: Nanos) -> bool {
        self.pumped = now;
        let before = self.dpu.stats();
        let moved = self.dpu.pump(now).moved();
        let stats = self.dpu.stats();
        assert_conserved(&stats);
        let relayed = u32::try_from(stats.relayed - before.relayed).expect("one pump's worth");
        let relays = before.relays_open + relayed as usize;
        self.ended += relayed;
        let full = self.calls_open(&before) >= self.calls_most();
        if relayed > 0 && (full || relays >= self.config.relays_max as usize) {
            ledger.history.crowd(now);
        }
        ledger.add("relayed", relayed.into());
        moved | self.look(ledger, now)
    }

    /// Each client looks for its answer, or gives up.
    fn look(&mut self, ledger: &mut Ledger, now: Nanos) -> bool {
        let mut context = Context::from_waker(Waker::noop());
        let before = self.waiting.len();
        let mut index = 0;
        while let Some(waiting) = self.waiting.get_mut(index) {
            let name = waiting.name;
            if let Poll::Ready(message) = Pin::new(&mut waiting.request).poll(&mut context) {
                self.waiting.swap_remove(index);
                ledger.settle(name, &message, self.caller, now);
                // One that the sidecar ended by itself keeps its place in the port, as one that was given up does.
                self.ended += u32::from(message.fault == Fault::Deadline);
            } else if waiting.gives_up.is_some_and(|gives_up| gives_up <= now) {
                let waiting = self.waiting.swap_remove(index);
                self.give_up(waiting, ledger, now);
            } else {
                let last = waiting.deadline.saturating_add(DEADLINE_GRACE);
                assert!(last > now, "the sidecar has no answer {:?} after the deadline", DEADLINE_GRACE);
                index += 1;
            }
        }
        self.waiting.len() < before
    }

    fn give_up(&mut self, waiting: Waiting, ledger: &mut Ledger, now: Nanos) {
        ledger.give_up(waiting.name, now);
        self.ended += 1;
        if self.planted == Some(Planted::LeakRequest) {
            std::mem::forget(waiting.request);
        }
    }

    /// All clients leave at once.
    pub(crate) fn hang_up(&mut self, now: Nanos) {
        self.waiting.iter_mut().for_each(|waiting| waiting.gives_up = Some(now));
    }

    /// Nothing is on its way anywhere: every place is given back, but those of calls that are open.
    pub(crate) fn on_idle(&mut self) {
        self.ended = u32::try_from(self.stats().relays_open).expect("bounded by relays_max");
    }

    /// When it has something to do although nothing arrives.
    pub(crate) fn next_due(&self) -> Option<Nanos> {
        let gives_up = self.waiting.iter().filter_map(|waiting| waiting.gives_up);
        gives_up.chain(self.dpu.next_deadline()).min()
    }

    pub(crate) fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// It is attached, the DPA knows it, and neither a client nor a worker waits for it.
    pub(crate) fn is_at_rest(&self) -> bool {
        let linked = self.is_attached() && self.sidecar.is_some();
        linked && self.waiting.is_empty() && self.stats().relays_open == 0
    }

    pub(crate) fn stats(&self) -> DpuStats {
        self.dpu.stats()
    }

    /// Nothing is in flight, and it holds nothing.
    pub(crate) fn assert_settled(&self) {
        let stats = self.dpu.stats();
        let left = (stats.in_flight, stats.dispatched, stats.buffered_bytes, stats.relays_open);
        assert_eq!(left, (0, 0, 0, 0), "a request is not let go: {stats:?}");
    }
}

fn assert_conserved(stats: &DpuStats) {
    let ended = stats.answered + stats.refused + stats.abandoned;
    assert_eq!(stats.received, ended + stats.in_flight, "the sidecar's books: {stats:?}");
}

fn routes() -> Arc<Routes> {
    let names = DPU_NAMES.map(|name| name.parse().expect("a name")).to_vec();
    Arc::new(Routes::new(names, ServiceId(5)).expect("valid routes"))
}
