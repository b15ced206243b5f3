//! What a worker counts of its services: requests, guest calls, calls to others, and where their time goes.
//!
//! ```text
//! arrived --queue--> an instance is free --run--> (pool, clock, file: neither) --run--> returned
//!    '------------------------------ handler, step or builder ---------------------------'
//! ```
//!
//! - Counted on the lane, by one thread; whoever asks is on the same lane. Nothing is shared between lanes.
//! - By service, and not by request: what there is to count is bounded by config.
//! - It outlives a worker: one that attaches anew goes on counting where the last one ended.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use cellmesh_dpu::Histogram;
use cellmesh_shm::clock::Nanos;
use cellmesh_shm::ring::Batches;

use crate::host::{CellFault, GuestCall, MemoryInUse};

/// Of all services of a lane, by name, and of its rings. A cheap handle, for one thread.
#[derive(Debug, Clone, Default)]
pub struct Meters {
    services: Rc<RefCell<BTreeMap<Arc<str>, Metered>>>,
    rings: Rc<Cell<Rings>>,
}

/// What workers have written into their rings to the DPA: small, bulk.
#[derive(Debug, Clone, Copy, Default)]
struct Rings {
    /// Of those that are gone.
    past: [Batches; 2],
    now: [Batches; 2],
}

/// What there is to count of a service.
#[derive(Debug)]
struct Metered {
    meter: Meter,
    memory: MemoryInUse,
}

/// Of one service on one lane. A cheap handle.
#[derive(Debug, Clone)]
pub(super) struct Meter(Rc<RefCell<CellStats>>);

/// What a guest call is made for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CallKind {
    /// To answer a request.
    Handler,
    /// To run an internal step.
    Internal,
    /// To make the requests of an egress step.
    Builder,
}

impl CallKind {
    /// All of them, in the order of [`CellStats::calls`].
    pub const ALL: [Self; 3] = [Self::Handler, Self::Internal, Self::Builder];

    /// What `call` is.
    #[must_use]
    pub fn of(call: &GuestCall) -> Self {
        match call {
            GuestCall::Handle { .. } => Self::Handler,
            GuestCall::RunStep(_) => Self::Internal,
            GuestCall::BuildRequests(_) => Self::Builder,
        }
    }

    /// One word for metrics.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Handler => "handler",
            Self::Internal => "internal",
            Self::Builder => "builder",
        }
    }
}

/// Where the time of a guest call went.
#[derive(Debug, Clone, Copy)]
pub struct Timing {
    /// What the call is made for.
    pub kind: CallKind,
    /// When it was wanted.
    pub wanted: Nanos,
    /// When it had room to begin.
    pub begun: Nanos,
    /// When it was looked at last; at its end, that.
    pub ended: Nanos,
    /// How long a thread was given to it.
    pub ran: Duration,
}

/// Guest calls of one kind.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CallStats {
    /// From when they were wanted to their end.
    pub duration: Histogram,
    /// Of it, until an instance was free.
    pub queue: Histogram,
    /// Of it, on a thread.
    pub run: Histogram,
}

/// Calls to one other service.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CallsTo {
    /// From sending to their answer.
    pub durations: Histogram,
    /// Of them, those that came to an error of their step.
    pub errors: u64,
}

impl CallsTo {
    fn ended(&mut self, took: Duration, is_error: bool) {
        self.durations.record(took);
        self.errors += u64::from(is_error);
    }
}

/// What one lane counts of one service.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CellStats {
    /// Requests that came, from clients and from cells.
    pub received: u64,
    /// Of these, given up by who asked.
    pub cancelled: u64,
    /// Responses by the first digit of their status: 1 to 5; 0 is no status of HTTP.
    pub answered: [u64; 6],
    /// From arrival to response.
    pub requests: Histogram,
    /// Bytes of heads and bodies that came.
    pub request_bytes: u64,
    /// Bytes of bodies of responses.
    pub response_bytes: u64,
    /// By [`CallKind`].
    pub calls: [CallStats; 3],
    /// Guest calls that did not return to who waited for them, by [`CellFault::kind`].
    pub faults: BTreeMap<&'static str, u64>,
    /// Calls to other services, by their names, from sending to their answer.
    pub egress: BTreeMap<Arc<str>, CallsTo>,
    /// Instances that were made.
    pub instances_made: u64,
    /// Instances that are in use.
    pub instances_busy: u64,
    /// Linear memory of all its instances.
    pub memory_bytes: u64,
}

impl CellStats {
    /// Counts all that `other` has counted.
    pub fn add(&mut self, other: &Self) {
        self.received += other.received;
        self.cancelled += other.cancelled;
        self.answered.iter_mut().zip(other.answered).for_each(|(count, more)| *count += more);
        self.requests.add(&other.requests);
        self.request_bytes += other.request_bytes;
        self.response_bytes += other.response_bytes;
        for (call, more) in self.calls.iter_mut().zip(&other.calls) {
            call.duration.add(&more.duration);
            call.queue.add(&more.queue);
            call.run.add(&more.run);
        }
        for (kind, count) in &other.faults {
            *self.faults.entry(kind).or_default() += count;
        }
        for (target, calls) in &other.egress {
            let sum = self.egress.entry(Arc::clone(target)).or_default();
            sum.durations.add(&calls.durations);
            sum.errors += calls.errors;
        }
        self.instances_made += other.instances_made;
        self.instances_busy += other.instances_busy;
        self.memory_bytes += other.memory_bytes;
    }
}

impl Meters {
    /// What was counted, by service.
    #[must_use]
    pub fn stats(&self) -> Vec<(Arc<str>, CellStats)> {
        let meters = self.services.borrow();
        let stats = |Metered { meter, memory }: &Metered| CellStats {
            memory_bytes: memory.bytes(),
            ..meter.0.borrow().clone()
        };
        meters.iter().map(|(service, metered)| (Arc::clone(service), stats(metered))).collect()
    }

    /// What was written into the rings to the DPA: small, bulk.
    #[must_use]
    pub fn written(&self) -> [Batches; 2] {
        let Rings { mut past, now } = self.rings.get();
        past.iter_mut().zip(now).for_each(|(sum, more)| sum.add(more));
        past
    }

    /// So much was written by the worker of now.
    pub(super) fn wrote(&self, now: [Batches; 2]) {
        self.rings.set(Rings { now, ..self.rings.get() });
    }

    /// The worker of now is gone, with its rings.
    pub(super) fn rings_gone(&self) {
        self.rings.set(Rings { past: self.written(), now: Default::default() });
    }

    /// That of a service; it goes on if there was one of that name.
    pub(super) fn of(&self, service: &Arc<str>, memory: &MemoryInUse) -> Meter {
        let mut meters = self.services.borrow_mut();
        let new = || Metered { meter: Meter(Rc::default()), memory: memory.clone() };
        let metered = meters.entry(Arc::clone(service)).or_insert_with(new);
        metered.memory = memory.clone();
        let meter = &metered.meter;
        // Of a worker that is gone, and its instances with it.
        meter.0.borrow_mut().instances_busy = 0;
        meter.clone()
    }
}

impl Meter {
    pub(super) fn received(&self, bytes: usize) {
        let stats = &mut *self.0.borrow_mut();
        stats.received += 1;
        stats.request_bytes += bytes as u64;
    }

    pub(super) fn cancelled(&self) {
        self.0.borrow_mut().cancelled += 1;
    }

    pub(super) fn answered(&self, status: u16, bytes: usize, took: Duration) {
        let stats = &mut *self.0.borrow_mut();
        let class = usize::from(status / 100);
        stats.answered[if class < stats.answered.len() { class } else { 0 }] += 1;
        stats.response_bytes += bytes as u64;
        stats.requests.record(took);
    }

    /// A guest call has ended, whether somebody still waits for it or not.
    pub(super) fn called(&self, timing: &Timing) {
        let stats = &mut *self.0.borrow_mut();
        let place = CallKind::ALL.iter().position(|kind| *kind == timing.kind).expect("all kinds are there");
        let call = &mut stats.calls[place];
        call.duration.record(timing.ended.saturating_since(timing.wanted));
        call.queue.record(timing.begun.saturating_since(timing.wanted));
        call.run.record(timing.ran);
    }

    /// A guest call that somebody waited for did not return.
    pub(super) fn faulted(&self, fault: &CellFault) {
        *self.0.borrow_mut().faults.entry(fault.kind()).or_default() += 1;
    }

    pub(super) fn called_other(&self, target: &str, took: Duration, is_error: bool) {
        let stats = &mut *self.0.borrow_mut();
        match stats.egress.get_mut(target) {
            Some(calls) => calls.ended(took, is_error),
            None => stats.egress.entry(target.into()).or_default().ended(took, is_error),
        }
    }

    pub(super) fn instance_made(&self) {
        self.0.borrow_mut().instances_made += 1;
    }

    pub(super) fn instances_busy(&self, count: usize) {
        self.0.borrow_mut().instances_busy = count as u64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A worker that attaches anew has new rings: what the old ones were told stays counted.
    #[test]
    fn rings_that_are_gone_stay_counted() {
        let meters = Meters::default();
        let [first, second] = [(5, 2), (3, 3)].map(|(frames, publishes)| Batches { frames, publishes });
        meters.wrote([first, Batches::default()]);
        meters.wrote([second, first]);
        meters.rings_gone();
        meters.wrote([first, first]);
        assert_eq!(
            meters.written(),
            [Batches { frames: 8, publishes: 5 }, Batches { frames: 10, publishes: 4 }]
        );
    }

    /// Time is split where it was spent; a status that is none counts too.
    #[test]
    fn times_are_split() {
        let (meters, name) = (Meters::default(), Arc::<str>::from("s"));
        let meter = meters.of(&name, &MemoryInUse::default());
        let (kind, ran) = (CallKind::Internal, Duration::from_nanos(5));
        let timing = Timing { kind, wanted: Nanos(0), begun: Nanos(10), ended: Nanos(20), ran };
        meter.called(&timing);
        meter.called(&timing);
        meter.faulted(&CellFault::Deadline);
        meter.answered(204, 7, Duration::from_nanos(30));
        meter.answered(9999, 1, Duration::ZERO);
        // A worker that attaches anew goes on.
        meters.of(&name, &MemoryInUse::default()).called_other("t", Duration::from_nanos(1), true);
        let [(service, stats)] = &meters.stats()[..] else { panic!("one service") };
        let call = &stats.calls[1];
        let nanos = [&call.duration, &call.queue, &call.run].map(|times| times.sum().as_nanos());
        assert_eq!((&**service, nanos, call.run.count()), ("s", [40, 20, 10], 2));
        assert_eq!((stats.faults["deadline"], stats.egress["t"].errors), (1, 1));
        assert_eq!((stats.answered, stats.response_bytes), ([1, 0, 1, 0, 0, 0], 8));
        let mut sum = stats.clone();
        sum.add(stats);
        assert_eq!(
            (sum.requests.count(), sum.egress["t"].durations.count(), sum.faults["deadline"]),
            (4, 2, 2)
        );
    }
}
