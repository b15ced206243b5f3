//! What a worker counts of its services: requests, guest calls, calls to others, and where their time goes.
//!
//! ```text
//! wanted --queue--> an instance is free --run--> (a thread of the pool: queue; clock, file: neither) --run--> returned
//!    '----------------------------------- handler, step or builder -------------------------------------------'
//! ```
//!
//! - Counted on the lane, by one thread; whoever asks is on the same lane. Nothing is shared with others but names of steps, and
//!   what the pool counts of the processor.
//! - By service, and not by request: what there is to count is bounded by config, and names of steps in `step_names.rs`.
//! - It outlives a worker: one that attaches anew goes on counting where the last one ended.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use cellmesh_dpu::Histogram;
use cellmesh_shm::clock::Nanos;
use cellmesh_shm::ring::Batches;

use super::on_lane::{LaneCpu, OnLane};
use super::step_names::{ByStep, KnownNames, StepNames, Tally};
use crate::cpu::{self, CpuUsed};
use crate::host::{CellFault, GuestCall, MemoryInUse};

/// Of all services of a lane, by name, and of its rings. A cheap handle, for one thread.
#[derive(Debug, Clone, Default)]
pub struct Meters {
    services: Rc<RefCell<BTreeMap<Arc<str>, Metered>>>,
    rings: Rc<Cell<Rings>>,
    lane: Rc<LaneCpu>,
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
    pool_cpu: CpuUsed,
}

/// Of one service on one lane. A cheap handle.
#[derive(Debug, Clone)]
pub(super) struct Meter {
    stats: Rc<RefCell<CellStats>>,
    names: Rc<RefCell<KnownNames>>,
    lane: Rc<LaneCpu>,
    on_lane: Rc<RefCell<OnLane>>,
}

/// What is counted of a cell by others than its worker.
#[derive(Debug, Clone, Copy)]
pub(super) struct HostedCell<'a> {
    pub(super) service: &'a Arc<str>,
    pub(super) memory: &'a MemoryInUse,
    pub(super) pool_cpu: &'a CpuUsed,
    pub(super) step_names: &'a StepNames,
}

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
    /// All of them.
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
    /// How long it waited for a thread of the pool, each time that it was handed there.
    pub waited: Duration,
    /// How long a thread was given to it.
    pub ran: Duration,
    /// Of this, one of the pool.
    pub pooled: Duration,
}

impl Timing {
    /// How long it could have run and nobody ran it: no instance was free, or no thread of the pool.
    #[must_use]
    pub fn queued(&self) -> Duration {
        self.begun.saturating_since(self.wanted) + self.waited
    }

    /// From when it was wanted to its end.
    #[must_use]
    pub fn took(&self) -> Duration {
        self.ended.saturating_since(self.wanted)
    }
}

/// Guest calls of one kind.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CallStats {
    /// From when they were wanted to their end.
    pub duration: Histogram,
    /// Of it, until an instance was free, and a thread of the pool.
    pub queue: Histogram,
    /// Of it, on a thread.
    pub run: Histogram,
    /// Of all, those that ended in an error or did not return.
    pub errors: u64,
}

/// Calls to one other service.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CallsTo {
    /// From sending to their answer.
    pub durations: Histogram,
    /// Of them, those that came to an error of their step.
    pub errors: u64,
}

impl Tally for CallStats {
    fn add(&mut self, other: &Self) {
        self.duration.add(&other.duration);
        self.queue.add(&other.queue);
        self.run.add(&other.run);
        self.errors += other.errors;
    }
}

impl Tally for CallsTo {
    fn add(&mut self, other: &Self) {
        self.durations.add(&other.durations);
        self.errors += other.errors;
    }
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
    /// Calls of its handler.
    pub handler: CallStats,
    /// Internal steps.
    pub internal: ByStep<CallStats>,
    /// Calls that make the requests of egress steps.
    pub builder: ByStep<CallStats>,
    /// Steps whose prepared result stood.
    pub prepared: ByStep<u64>,
    /// Guest calls that did not return to who waited for them, by [`CellFault::kind`].
    pub faults: BTreeMap<&'static str, u64>,
    /// Calls to other services, by their names, from sending to their answer.
    pub egress: BTreeMap<Arc<str>, ByStep<CallsTo>>,
    /// Names of its steps, by their places.
    pub step_names: Vec<Arc<str>>,
    /// Instances that were made.
    pub instances_made: u64,
    /// Instances that are in use.
    pub instances_busy: u64,
    /// How many that can be.
    pub instances_max: u64,
    /// Linear memory of all its instances.
    pub memory_bytes: u64,
    /// Processor time of its guest calls.
    pub cpu: Duration,
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
        self.handler.add(&other.handler);
        self.internal.add(&other.internal);
        self.builder.add(&other.builder);
        self.prepared.add(&other.prepared);
        // Lanes know more and more of the same names.
        if self.step_names.len() < other.step_names.len() {
            self.step_names.clone_from(&other.step_names);
        }
        for (kind, count) in &other.faults {
            *self.faults.entry(kind).or_default() += count;
        }
        for (target, calls) in &other.egress {
            self.egress.entry(Arc::clone(target)).or_default().add(calls);
        }
        self.instances_made += other.instances_made;
        self.instances_busy += other.instances_busy;
        self.instances_max += other.instances_max;
        self.memory_bytes += other.memory_bytes;
        self.cpu += other.cpu;
    }

    /// Guest calls of a kind, all together.
    #[must_use]
    pub fn calls(&self, kind: CallKind) -> CallStats {
        match kind {
            CallKind::Handler => self.handler.clone(),
            CallKind::Internal => self.internal.sum(),
            CallKind::Builder => self.builder.sum(),
        }
    }

    /// Guest calls, by their kinds and the names of their steps; a handler is its own.
    pub fn calls_by_step(&self) -> impl Iterator<Item = (CallKind, &str, &CallStats)> {
        let handler = (CallKind::Handler, CallKind::Handler.name(), &self.handler);
        let internal = self.internal.named(&self.step_names);
        let builder = self.builder.named(&self.step_names);
        std::iter::once(handler)
            .chain(internal.map(|(step, calls)| (CallKind::Internal, step, calls)))
            .chain(builder.map(|(step, calls)| (CallKind::Builder, step, calls)))
    }
}

impl Meters {
    /// What was counted, by service.
    #[must_use]
    pub fn stats(&self) -> Vec<(Arc<str>, CellStats)> {
        self.share_out(cpu::of_this_thread());
        let meters = self.services.borrow();
        let stats = |Metered { meter, memory, pool_cpu }: &Metered| {
            let stats = meter.stats.borrow().clone();
            let (cpu, step_names) = (stats.cpu + pool_cpu.get(), meter.names.borrow().known().to_vec());
            CellStats { memory_bytes: memory.bytes(), cpu, step_names, ..stats }
        };
        meters.iter().map(|(service, metered)| (Arc::clone(service), stats(metered))).collect()
    }

    /// Counts what guest calls had of the processor, if they have taken enough of the lane's time since that was last done.
    ///
    /// - cost: a comparison; when it is done, a system call and a turn round all services.
    pub(super) fn look_at_cpu(&self) {
        if self.lane.is_due() {
            self.share_out(cpu::of_this_thread());
        }
    }

    /// `now`: what the kernel has counted of the lane's thread. Cells never come to more of it than there was.
    fn share_out(&self, now: Duration) {
        let services = self.services.borrow();
        let had = self.lane.look(now);
        let all = services.values().map(|service| service.meter.on_lane.borrow().cpu()).sum();
        for Metered { meter, .. } in services.values() {
            meter.stats.borrow_mut().cpu += meter.on_lane.borrow_mut().settle(had, all);
        }
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
    pub(super) fn of(&self, cell: &HostedCell<'_>) -> Meter {
        let mut meters = self.services.borrow_mut();
        let HostedCell { service, memory, pool_cpu, step_names } = *cell;
        let meter = || Meter {
            stats: Rc::default(),
            names: Rc::new(RefCell::new(KnownNames::of(step_names))),
            lane: Rc::clone(&self.lane),
            on_lane: Rc::default(),
        };
        let new = || Metered { meter: meter(), memory: memory.clone(), pool_cpu: pool_cpu.clone() };
        let metered = meters.entry(Arc::clone(service)).or_insert_with(new);
        metered.memory = memory.clone();
        let meter = &metered.meter;
        // Of a worker that is gone, and its instances with it.
        meter.stats.borrow_mut().instances_busy = 0;
        meter.clone()
    }
}

impl Meter {
    pub(super) fn received(&self, bytes: usize) {
        let stats = &mut *self.stats.borrow_mut();
        stats.received += 1;
        stats.request_bytes += bytes as u64;
    }

    pub(super) fn cancelled(&self) {
        self.stats.borrow_mut().cancelled += 1;
    }

    pub(super) fn answered(&self, status: u16, bytes: usize, took: Duration) {
        let stats = &mut *self.stats.borrow_mut();
        let class = usize::from(status / 100);
        stats.answered[if class < stats.answered.len() { class } else { 0 }] += 1;
        stats.response_bytes += bytes as u64;
        stats.requests.record(took);
    }

    /// A guest call has ended, whether somebody still waits for it or not. `step`: the id of its step, if that is known still.
    pub(super) fn called(&self, timing: &Timing, step: Option<&str>, is_error: bool) {
        let stats = &mut *self.stats.borrow_mut();
        let place = || self.names.borrow_mut().place(step);
        let call = match timing.kind {
            CallKind::Handler => &mut stats.handler,
            CallKind::Internal => stats.internal.at(place()),
            CallKind::Builder => stats.builder.at(place()),
        };
        call.duration.record(timing.took());
        call.queue.record(timing.queued());
        call.run.record(timing.ran);
        call.errors += u64::from(is_error);
        let took = timing.ran.saturating_sub(timing.pooled);
        self.on_lane.borrow_mut().took(took);
        self.lane.took(took);
    }

    /// Whether what the next call has of the processor is to be measured.
    pub(super) fn measures(&self) -> bool {
        self.on_lane.borrow_mut().measures()
    }

    /// It was: of so much time on the lane.
    pub(super) fn measured(&self, cpu: Duration, took: Duration) {
        self.on_lane.borrow_mut().measured(cpu, took);
    }

    /// A guest call that somebody waited for did not return.
    pub(super) fn faulted(&self, fault: &CellFault) {
        *self.stats.borrow_mut().faults.entry(fault.kind()).or_default() += 1;
    }

    /// A call to another service, made by the step with this id, has its outcome.
    /// The prepared result of a step stood.
    pub(super) fn prepared(&self, step: &str) {
        let place = self.names.borrow_mut().place(Some(step));
        *self.stats.borrow_mut().prepared.at(place) += 1;
    }

    pub(super) fn called_other(&self, target: &str, step: Option<&str>, took: Duration, is_error: bool) {
        let stats = &mut *self.stats.borrow_mut();
        let place = self.names.borrow_mut().place(step);
        let calls = match stats.egress.get_mut(target) {
            Some(calls) => calls,
            None => stats.egress.entry(target.into()).or_default(),
        };
        calls.at(place).ended(took, is_error);
    }

    pub(super) fn instance_made(&self) {
        self.stats.borrow_mut().instances_made += 1;
    }

    pub(super) fn instances_busy(&self, count: usize) {
        self.stats.borrow_mut().instances_busy = count as u64;
    }

    pub(super) fn instances_max(&self, count: usize) {
        self.stats.borrow_mut().instances_max = count as u64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(meters: &Meters, service: &Arc<str>, pool_cpu: &CpuUsed) -> Meter {
        let (memory, step_names) = (&MemoryInUse::default(), &StepNames::default());
        meters.of(&HostedCell { service, memory, pool_cpu, step_names })
    }

    /// Of the lane's processor each cell has what was measured of its calls, of the pool's what was counted there; one that
    /// nobody called has none.
    #[test]
    fn cells_share_the_processor() {
        const MS: fn(u64) -> Duration = Duration::from_millis;
        let (meters, pool) = (Meters::default(), CpuUsed::default());
        let busy = of(&meters, &"busy".into(), &pool);
        let light = of(&meters, &"light".into(), &CpuUsed::default());
        let _idle = of(&meters, &"idle".into(), &CpuUsed::default());
        meters.share_out(MS(500));
        let (kind, at) = (CallKind::Handler, Nanos(0));
        let (waited, ran, pooled) = (MS(0), MS(60), MS(20));
        let timing = Timing { kind, wanted: at, begun: at, ended: at, waited, ran, pooled };
        assert!(busy.measures() && light.measures(), "the first call");
        busy.measured(MS(30), MS(40));
        busy.called(&timing, None, false);
        light.measured(MS(5), MS(10));
        light.called(&Timing { ran: MS(10), pooled: MS(0), ..timing }, None, false);
        light.called(&Timing { ran: MS(4), pooled: MS(0), ..timing }, None, false);
        pool.add(MS(15));
        meters.share_out(MS(600));
        // Looked at again, with nothing between.
        meters.share_out(MS(700));
        let cpu: Vec<(Arc<str>, Duration)> =
            meters.stats().into_iter().map(|(service, stats)| (service, stats.cpu)).collect();
        assert_eq!(cpu, [("busy".into(), MS(30 + 15)), ("idle".into(), MS(0)), ("light".into(), MS(5 + 2))]);
    }

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

    /// Time is split where it was spent, and by the step that it was spent for, as errors are; a status that is none counts too.
    #[test]
    fn times_are_split() {
        let (meters, name) = (Meters::default(), Arc::<str>::from("s"));
        let of = || of(&meters, &name, &CpuUsed::default());
        let meter = of();
        let (kind, ran) = (CallKind::Internal, Duration::from_nanos(5));
        let (waited, pooled) = (Duration::from_nanos(3), Duration::ZERO);
        let timing =
            Timing { kind, wanted: Nanos(0), begun: Nanos(10), ended: Nanos(20), waited, ran, pooled };
        meter.called(&timing, Some("a#1"), true);
        meter.called(&timing, Some("a#2"), false);
        meter.called(&timing, None, true);
        meter.called(&Timing { kind: CallKind::Handler, ..timing }, None, false);
        meter.faulted(&CellFault::Deadline);
        meter.answered(204, 7, Duration::from_nanos(30));
        meter.answered(9999, 1, Duration::ZERO);
        // A worker that attaches anew goes on.
        of().called_other("t", Some("b"), Duration::from_nanos(1), true);
        let [(service, stats)] = &meters.stats()[..] else { panic!("one service") };
        let call = stats.calls(CallKind::Internal);
        let nanos = [&call.duration, &call.queue, &call.run].map(|times| times.sum().as_nanos());
        assert_eq!((&**service, nanos, call.run.count()), ("s", [60, 39, 15], 3));
        let counts = |stats: &CellStats| -> Vec<(&str, String, [u64; 2])> {
            let counts = stats.calls_by_step().filter(|(.., calls)| calls.run.count() > 0);
            let counted = |calls: &CallStats| [calls.run.count(), calls.errors];
            counts.map(|(kind, step, calls)| (kind.name(), step.to_owned(), counted(calls))).collect()
        };
        let split = |of: u64| {
            vec![
                ("handler", "handler".into(), [of, 0]),
                ("internal", "a".into(), [2 * of, of]),
                ("internal", "other".into(), [of, of]),
            ]
        };
        assert_eq!(counts(stats), split(1));
        let egress: Vec<(&str, u64)> =
            stats.egress["t"].named(&stats.step_names).map(|(step, calls)| (step, calls.errors)).collect();
        assert_eq!((stats.faults["deadline"], &egress[..]), (1, &[("a", 0), ("b", 1)][..]));
        assert_eq!((stats.answered, stats.response_bytes), ([1, 0, 1, 0, 0, 0], 8));
        let mut sum = CellStats::default();
        sum.add(stats);
        sum.add(stats);
        assert_eq!((counts(&sum), sum.egress["t"].sum().durations.count()), (split(2), 2));
        assert_eq!((sum.requests.count(), sum.faults["deadline"]), (4, 2));
    }
}
