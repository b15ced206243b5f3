//! A guest call on its way between a lane and the thread pool.
//!
//! ```text
//!            returns before a tick            a tick passes              returns
//! lane ------------------------------> done;  -------------> pool thread --------> lane
//!                                              waits (clock, file)        waits
//!                                             -------------> task on the lane <----
//! ```
//!
//! - Every call starts on its lane, so a short one costs no thread hop.
//! - A call that is running when the epoch ticks yields and is moved to the pool: a lane is held for one tick at most.
//! - A call that waits for the host holds no thread: it is a task on its lane, until it is ready to run or late.
//! - A result goes back to the lane through [`LaneInbox`]; a call is in exactly one of these places.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use cellmesh_graph::StepIndex;
use cellmesh_shm::clock::Nanos;
use cellmesh_shm::ids::ServiceId;
use crossbeam_channel::{Receiver, Sender};
use tokio::sync::Notify;

use crate::cpu;
use crate::host::{CallFlags, CallFuture, Cell, CellFault, GuestCall, GuestReturn, Instance};
use crate::pool::Pool;
use crate::worker::{CallKind, RequestId, Timing};

/// What a call is for.
#[derive(Debug, Clone, Copy)]
pub struct Ticket {
    /// The request.
    pub request: RequestId,
    /// The step of its graph; none for the handler.
    pub step: Option<StepIndex>,
    /// The service whose cell runs it.
    pub service: ServiceId,
    /// When it was wanted.
    pub wanted: Nanos,
}

/// What a call is made with.
#[derive(Debug)]
pub struct Terms {
    /// Header lines of the request that it is made for.
    pub headers: Bytes,
    /// When it begins.
    pub begun: Nanos,
    /// When it has to end.
    pub deadline: Nanos,
}

/// A call that has ended.
#[derive(Debug)]
pub struct Finished {
    /// What it was for.
    pub ticket: Ticket,
    /// Where its time went. None of a call under which our own code panicked.
    pub timing: Option<Timing>,
    /// The instance, if it may be used again and was not given to anybody yet.
    pub instance: Option<Instance>,
    /// Whether its room among the calls of its service is still taken.
    pub holds_room: bool,
    /// What the cell returned.
    pub result: Result<GuestReturn, CellFault>,
}

impl Finished {
    /// The result of a call under which our own code panicked.
    pub(crate) fn host_panic(ticket: Ticket) -> Self {
        let result = Err(CellFault::Trap("host code panicked".into()));
        Self { ticket, timing: None, instance: None, holds_room: true, result }
    }
}

/// A call that has not ended.
pub struct Call {
    ticket: Ticket,
    timing: Timing,
    future: CallFuture,
    flags: Arc<CallFlags>,
    cell: Cell,
    deadline: Nanos,
    lane: LaneHandle,
}

impl std::fmt::Debug for Call {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Call").field("ticket", &self.ticket).finish_non_exhaustive()
    }
}

/// What came of polling a call once.
#[derive(Debug)]
pub enum Polled {
    /// It has ended.
    Finished(Box<Finished>),
    /// A tick has passed: it wants to go on.
    Ticked(Call),
    /// It waits for the host.
    Waiting(Call),
}

impl Polled {
    /// When it was.
    #[must_use]
    pub fn looked_at(&self) -> Nanos {
        match self {
            Self::Finished(finished) => finished.timing.map_or(Nanos(0), |timing| timing.ended),
            Self::Ticked(call) | Self::Waiting(call) => call.timing.ended,
        }
    }

    /// How long threads were given to it until then.
    pub(crate) fn ran(&self) -> Duration {
        match self {
            Self::Finished(finished) => finished.timing.map_or(Duration::ZERO, |timing| timing.ran),
            Self::Ticked(call) | Self::Waiting(call) => call.timing.ran,
        }
    }

    fn timing_mut(&mut self) -> Option<&mut Timing> {
        match self {
            Self::Finished(finished) => finished.timing.as_mut(),
            Self::Ticked(call) | Self::Waiting(call) => Some(&mut call.timing),
        }
    }
}

impl Call {
    /// A call that has not started.
    pub fn new(
        cell: &Cell,
        instance: Option<Instance>,
        work: GuestCall,
        ticket: Ticket,
        Terms { headers, begun, deadline }: Terms,
        lane: &LaneHandle,
    ) -> Self {
        let flags = instance.as_ref().map_or_else(Arc::default, |instance| Arc::clone(instance.flags()));
        let kind = CallKind::of(&work);
        let timing = Timing {
            kind,
            wanted: ticket.wanted,
            begun,
            ended: begun,
            waited: Duration::ZERO,
            ran: Duration::ZERO,
            pooled: Duration::ZERO,
        };
        let future = cell.call(instance, &flags, work, headers, deadline);
        Self { ticket, timing, future, flags, cell: cell.clone(), deadline, lane: lane.clone() }
    }

    /// Flags to cancel it with.
    #[must_use]
    pub fn flags(&self) -> &Arc<CallFlags> {
        &self.flags
    }

    /// Runs until it ends, waits or a tick passes; `waker` is for the case that it waits.
    pub fn poll(self, waker: &Waker) -> Polled {
        // The clock is read once for a call that returns at once: it has just been looked at.
        let is_first = self.timing.ended == self.timing.begun;
        let begun = if is_first { self.timing.begun } else { Nanos::now() };
        self.poll_from(begun, waker)
    }

    fn poll_from(mut self, begun: Nanos, waker: &Waker) -> Polled {
        self.cell.pulse().beat();
        let mut context = Context::from_waker(waker);
        // A panic of host code under a call costs that call, wherever it runs: not the thread, and not its room.
        let polled = catch_unwind(AssertUnwindSafe(|| self.future.as_mut().poll(&mut context)));
        let Ok(polled) = polled else {
            return Polled::Finished(Box::new(Finished::host_panic(self.ticket)));
        };
        self.timing.ended = Nanos::now();
        self.timing.ran += self.timing.ended.saturating_since(begun);
        match polled {
            Poll::Ready((instance, result)) => {
                let Self { ticket, timing, .. } = self;
                let timing = Some(timing);
                Polled::Finished(Box::new(Finished { ticket, timing, instance, holds_room: true, result }))
            }
            Poll::Pending if self.flags.take_ticked() => Polled::Ticked(self),
            Poll::Pending => Polled::Waiting(self),
        }
    }

    /// As [`Call::poll`], on a thread of the pool: how long it waited for that is counted, and what it takes of the processor.
    ///
    /// - cost: two system calls more.
    pub(crate) fn poll_on_pool(mut self) -> Polled {
        let (used, ran) = (self.cell.pool_cpu().clone(), self.timing.ran);
        let before = cpu::of_this_thread();
        // It was handed over when it had been looked at.
        let begun = Nanos::now();
        self.timing.waited += begun.saturating_since(self.timing.ended);
        let mut polled = self.poll_from(begun, Waker::noop());
        used.add(cpu::of_this_thread().saturating_sub(before));
        if let Some(timing) = polled.timing_mut() {
            timing.pooled += timing.ran.saturating_sub(ran);
        }
        polled
    }

    /// Where its result goes.
    pub(crate) fn lane(&self) -> LaneHandle {
        self.lane.clone()
    }

    /// The result of a call that was given up: as a guest that ran into its deadline.
    fn give_up(self) -> Finished {
        let Self { ticket, timing, .. } = self;
        let timing = Some(Timing { ended: Nanos::now(), ..timing });
        Finished { ticket, timing, instance: None, holds_room: true, result: Err(CellFault::Deadline) }
    }
}

/// Waits, on the lane, until `call` is ready to run again; then runs it like any call.
pub async fn wait_on_lane(call: Call, pool: Pool) {
    let (lane, flags) = (call.lane(), Arc::clone(&call.flags));
    let left = Duration::from_nanos(call.deadline.0.saturating_sub(Nanos::now().0));
    let mut call = Some(call);
    let ready = std::future::poll_fn(|cx| match call.take().map(|call| call.poll(cx.waker())) {
        None => Poll::Pending,
        Some(Polled::Waiting(waiting)) => {
            call = Some(waiting);
            Poll::Pending
        }
        Some(moved) => Poll::Ready(moved),
    });
    let moved = tokio::select! {
        moved = ready => Some(moved),
        () = flags.cancelled() => None,
        () = tokio::time::sleep(left) => None,
    };
    match moved {
        Some(Polled::Finished(finished)) => lane.send(ToLane::Finished(finished)),
        Some(Polled::Ticked(ticked) | Polled::Waiting(ticked)) => pool.submit(ticked),
        None => {
            let call = call.take().expect("a call that is not ready is still here");
            lane.send(ToLane::Finished(Box::new(call.give_up())));
        }
    }
}

/// What other threads and tasks send to a lane.
#[derive(Debug)]
pub enum ToLane {
    /// A call has ended.
    Finished(Box<Finished>),
    /// A call has to wait on the lane.
    Park(Call),
}

/// The way to a lane, for threads of the pool and tasks of the lane itself.
#[derive(Debug, Clone)]
pub struct LaneHandle(Arc<WayIn>);

#[derive(Debug)]
struct WayIn {
    sender: Sender<ToLane>,
    wake: Arc<Notify>,
    runtime: tokio::runtime::Handle,
}

/// The lane's end of its handles.
#[derive(Debug)]
pub struct LaneInbox {
    receiver: Receiver<ToLane>,
    wake: Arc<Notify>,
}

impl LaneHandle {
    /// A lane's way in and its inbox, on the current runtime. The inbox holds at most one message for each call
    /// that is not done, and each call holds an instance: the number of instances is its bound.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    #[must_use]
    pub fn new(wake: Arc<Notify>) -> (Self, LaneInbox) {
        let (sender, receiver) = crossbeam_channel::unbounded();
        let way = WayIn { sender, wake: Arc::clone(&wake), runtime: tokio::runtime::Handle::current() };
        (Self(Arc::new(way)), LaneInbox { receiver, wake })
    }

    pub(crate) fn runtime(&self) -> &tokio::runtime::Handle {
        &self.0.runtime
    }

    pub(crate) fn send(&self, message: ToLane) {
        // A lane that is gone has no requests left to answer.
        if self.0.sender.send(message).is_ok() {
            self.0.wake.notify_one();
        }
    }
}

impl LaneInbox {
    /// The next message, if there is one.
    pub fn take(&self) -> Option<ToLane> {
        self.receiver.try_recv().ok()
    }

    /// Woken by every message.
    #[must_use]
    pub fn wake(&self) -> &Arc<Notify> {
        &self.wake
    }
}
