//! A worker's place in the node: who is in it now, and what is about to happen to it.
//!
//! ```text
//!   empty --attach--> attached --leave--> leaving --flushed, idle--> empty
//!                         |                  |
//!                         +--kill------------+----------------------> empty
//!                         +--expelled, DPA replaced--> cut off --notices--> empty
//! ```

use cellmesh_dpa::Dpa;
use cellmesh_shm::clock::Nanos;
use cellmesh_shm::ids::{EndpointId, ServiceId};
use cellmesh_shm::link::LinkFds;

use crate::cell::Worker;
use crate::history::SeatIndex;
use crate::ledger::Ledger;
use crate::planted::Planted;

/// What the DPA knows of the worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Tie {
    Attached,
    /// Gets nothing new.
    Leaving,
    /// Not any more; it learns so at this instant.
    CutOff(Nanos),
}

pub(crate) struct Seat {
    index: SeatIndex,
    services: Vec<ServiceId>,
    worker: Option<(Worker, Tie)>,
    /// It stands still until then.
    resumes: Nanos,
    /// When the next worker comes.
    returns: Nanos,
}

impl Seat {
    pub(crate) fn new(index: SeatIndex, services: Vec<ServiceId>) -> Self {
        Self { index, services, worker: None, resumes: Nanos(0), returns: Nanos(0) }
    }

    pub(crate) fn services(&self) -> &[ServiceId] {
        &self.services
    }

    pub(crate) fn worker(&self) -> Option<&Worker> {
        self.worker.as_ref().map(|(worker, _)| worker)
    }

    /// Whether the DPA has this endpoint as this worker.
    pub(crate) fn is(&self, endpoint: EndpointId) -> bool {
        matches!(&self.worker, Some((worker, Tie::Attached | Tie::Leaving)) if worker.endpoint == endpoint)
    }

    pub(crate) fn wants_worker(&self, now: Nanos) -> bool {
        self.worker.is_none() && now >= self.returns
    }

    pub(crate) fn attach(
        &mut self,
        fds: LinkFds,
        calls_max: u32,
        planted: Option<Planted>,
        ledger: &mut Ledger,
        now: Nanos,
    ) {
        ledger.history.add_worker(&self.services, now);
        let worker = Worker::new(fds, (self.index, &self.services), calls_max, planted, now);
        self.worker = Some((worker, Tie::Attached));
        self.resumes = now;
    }

    /// Pumps the worker, if it can move, and lets it go when it has left or has learnt that it is cut off. `back`: when
    /// the next one comes then.
    pub(crate) fn pump(&mut self, dpa: &mut Dpa, ledger: &mut Ledger, now: Nanos, back: Nanos) -> bool {
        let Some((worker, tie)) = self.worker.as_mut().filter(|_| now >= self.resumes) else { return false };
        let left = *tie == Tie::Leaving && dpa.is_flushed(worker.endpoint);
        let moved = worker.pump(ledger, now);
        match *tie {
            Tie::Leaving if left && worker.is_idle() => {
                ledger.note("left", worker.endpoint.0.into(), now);
                dpa.detach(worker.endpoint);
            }
            Tie::CutOff(notices) if notices <= now => worker.die(ledger, now),
            Tie::Attached | Tie::Leaving | Tie::CutOff(_) => return moved,
        }
        self.worker = None;
        self.returns = back;
        true
    }

    /// Its process dies. `back`: when the next one comes.
    pub(crate) fn kill(&mut self, dpa: &mut Dpa, ledger: &mut Ledger, now: Nanos, back: Nanos) -> bool {
        let Some((worker, tie)) = self.worker.take() else { return false };
        self.returns = back;
        worker.die(ledger, now);
        if !matches!(tie, Tie::CutOff(_)) {
            dpa.detach(worker.endpoint);
            self.lose(tie, ledger, now);
        }
        true
    }

    /// It wants to end.
    pub(crate) fn leave(&mut self, dpa: &mut Dpa, ledger: &mut Ledger, now: Nanos) -> bool {
        let Some((worker, tie @ Tie::Attached)) = &mut self.worker else { return false };
        dpa.leave(worker.endpoint);
        *tie = Tie::Leaving;
        ledger.history.retire_worker(&self.services, now);
        true
    }

    /// It stands still.
    pub(crate) fn stall(&mut self, ledger: &mut Ledger, until: Nanos) -> bool {
        let Some((worker, _)) = &mut self.worker else { return false };
        worker.still = until;
        self.resumes = until;
        ledger.history.still_worker(self.index, &self.services, until);
        true
    }

    /// The DPA has let it go, which it does not know before `notices`.
    pub(crate) fn cut_off(&mut self, ledger: &mut Ledger, now: Nanos, notices: Nanos) {
        let Some((_, tie @ (Tie::Attached | Tie::Leaving))) = &mut self.worker else { return };
        let before = std::mem::replace(tie, Tie::CutOff(notices.max(self.resumes)));
        self.lose(before, ledger, now);
    }

    fn lose(&self, tie: Tie, ledger: &mut Ledger, now: Nanos) {
        ledger.history.lose_worker(self.index, &self.services, now);
        if tie == Tie::Attached {
            ledger.history.retire_worker(&self.services, now);
        }
    }

    /// When it has something to do although nothing arrives.
    pub(crate) fn next_due(&self) -> Option<Nanos> {
        let Some((worker, tie)) = &self.worker else { return Some(self.returns) };
        let notices = if let Tie::CutOff(notices) = tie { Some(*notices) } else { None };
        let due = worker.next_due().into_iter().chain(notices).min();
        // One that stands still has something to do when it moves again.
        due.map(|due| due.max(self.resumes)).into_iter().chain(self.is_still().then_some(self.resumes)).min()
    }

    fn is_still(&self) -> bool {
        self.worker().is_some_and(|worker| worker.pumped < self.resumes)
    }

    /// From now on it moves.
    pub(crate) fn resume(&mut self, now: Nanos) {
        self.resumes = self.resumes.min(now);
    }

    /// There is a worker, it is attached, and it has nothing to do.
    pub(crate) fn is_settled(&self) -> bool {
        matches!(&self.worker, Some((worker, Tie::Attached)) if worker.is_idle())
    }
}
