//! Calls in flight through the sidecar's port, and who waits for each.
//!
//! ```text
//! CallId.index -> Open { call, deadline, waiter }      waiter: a ticket of an ingress request,
//! ticket       -> Waiting(waker) | Answered(message)           or the slot of a relayed call
//! ```
//!
//! - The port may give an index out again as soon as its answer has arrived, maybe before the ingress task
//!   that waits has run: so answers wait under a ticket, which only the task gives back.
//! - Both tables are bounded by the port's `calls_max` and the ingress requests admitted.

use std::collections::HashMap;
use std::task::{Poll, Waker};

use cellmesh_shm::clock::Nanos;
use cellmesh_shm::ids::{CallId, SlotId};
use cellmesh_shm::message::ResponseMessage;

/// What an ingress request holds while it waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ticket(u32);

#[derive(Debug)]
enum Stub {
    Free,
    Waiting(CallId, Option<Waker>),
    Answered(ResponseMessage),
}

#[derive(Debug, Clone, Copy)]
enum Waiter {
    Ingress(Ticket),
    Relay(SlotId),
}

#[derive(Debug)]
struct Open {
    call: CallId,
    deadline: Nanos,
    waiter: Waiter,
}

/// What became of an answer.
#[derive(Debug)]
pub(super) enum Settled {
    /// An ingress request has it; wake this task.
    Ingress(Option<Waker>),
    /// It belongs to a relayed call: hand it on.
    Relay(SlotId, ResponseMessage),
    /// Nobody waits for it any more.
    Nobody,
}

/// All calls in flight.
#[derive(Debug)]
pub(super) struct Calls {
    open: Vec<Option<Open>>,
    stubs: Vec<Stub>,
    free: Vec<u32>,
    relays: HashMap<SlotId, CallId>,
    /// No open call expires before this; it may be earlier than the first that does.
    next_expiry: Nanos,
}

impl Calls {
    pub(super) fn new() -> Self {
        Self {
            open: Vec::new(),
            stubs: Vec::new(),
            free: Vec::new(),
            relays: HashMap::new(),
            next_expiry: Nanos::MAX,
        }
    }

    /// Notes a call of an ingress request.
    pub(super) fn open_ingress(&mut self, call: CallId, deadline: Nanos) -> Ticket {
        let ticket = self.new_ticket(Stub::Waiting(call, None));
        self.open(Open { call, deadline, waiter: Waiter::Ingress(ticket) });
        ticket
    }

    /// Notes a call made for `slot`.
    pub(super) fn open_relay(&mut self, call: CallId, deadline: Nanos, slot: SlotId) {
        self.relays.insert(slot, call);
        self.open(Open { call, deadline, waiter: Waiter::Relay(slot) });
    }

    pub(super) fn relays(&self) -> usize {
        self.relays.len()
    }

    /// Ends `call` with `message`.
    pub(super) fn settle(&mut self, call: CallId, message: ResponseMessage) -> Settled {
        match self.close(call).map(|open| open.waiter) {
            Some(Waiter::Ingress(ticket)) => Settled::Ingress(self.answer(ticket, message)),
            Some(Waiter::Relay(slot)) => {
                self.relays.remove(&slot);
                Settled::Relay(slot, message)
            }
            None => Settled::Nobody,
        }
    }

    /// The answer, which also gives the ticket back; else remembers whom to wake.
    pub(super) fn poll_answer(&mut self, ticket: Ticket, waker: &Waker) -> Poll<ResponseMessage> {
        let stub = self.stub(ticket);
        if let Stub::Waiting(_, waiting) = stub {
            match waiting {
                Some(known) => known.clone_from(waker),
                None => *waiting = Some(waker.clone()),
            }
            return Poll::Pending;
        }
        let Stub::Answered(message) = std::mem::replace(stub, Stub::Free) else {
            unreachable!("a ticket is given back once")
        };
        self.free.push(ticket.0);
        Poll::Ready(message)
    }

    /// The ingress request is gone. Returns the call that nobody waits for now.
    pub(super) fn abandon(&mut self, ticket: Ticket) -> Option<CallId> {
        let stub = std::mem::replace(self.stub(ticket), Stub::Free);
        self.free.push(ticket.0);
        match stub {
            Stub::Waiting(call, _) => self.close(call).map(|open| open.call),
            Stub::Answered(_) | Stub::Free => None,
        }
    }

    /// The caller of a relayed call is gone. Returns the call that nobody waits for now.
    pub(super) fn abandon_relay(&mut self, slot: SlotId) -> Option<CallId> {
        let call = self.relays.remove(&slot)?;
        self.close(call).map(|open| open.call)
    }

    /// Calls whose deadline is before `now`; looks at the table only when there may be one.
    pub(super) fn expired(&mut self, now: Nanos) -> Vec<CallId> {
        if now < self.next_expiry {
            return Vec::new();
        }
        let (late, alive): (Vec<&Open>, Vec<&Open>) =
            self.open.iter().flatten().partition(|open| open.deadline <= now);
        self.next_expiry = alive.iter().map(|open| open.deadline).min().unwrap_or(Nanos::MAX);
        late.iter().map(|open| open.call).collect()
    }

    /// Earliest instant at which [`Calls::expired`] may have something. What has ended since may have left one
    /// that is too early; then the sweep finds nothing, once.
    pub(super) fn next_expiry(&self) -> Option<Nanos> {
        (self.next_expiry != Nanos::MAX).then_some(self.next_expiry)
    }

    /// Every open call.
    pub(super) fn all(&self) -> Vec<CallId> {
        self.open.iter().flatten().map(|open| open.call).collect()
    }

    fn open(&mut self, open: Open) {
        self.next_expiry = self.next_expiry.min(open.deadline);
        let index = open.call.index as usize;
        if index >= self.open.len() {
            self.open.resize_with(index + 1, || None);
        }
        self.open[index] = Some(open);
    }

    fn close(&mut self, call: CallId) -> Option<Open> {
        let place = self.open.get_mut(call.index as usize)?;
        place.take_if(|open| open.call == call)
    }

    fn new_ticket(&mut self, stub: Stub) -> Ticket {
        if let Some(index) = self.free.pop() {
            self.stubs[index as usize] = stub;
            return Ticket(index);
        }
        self.stubs.push(stub);
        Ticket(u32::try_from(self.stubs.len() - 1).expect("tickets are bounded by the requests admitted"))
    }

    fn answer(&mut self, ticket: Ticket, message: ResponseMessage) -> Option<Waker> {
        match std::mem::replace(self.stub(ticket), Stub::Answered(message)) {
            Stub::Waiting(_, waker) => waker,
            Stub::Answered(_) | Stub::Free => None,
        }
    }

    fn stub(&mut self, ticket: Ticket) -> &mut Stub {
        &mut self.stubs[ticket.0 as usize]
    }

    /// Tickets in use, for the conservation checks of tests.
    #[cfg(test)]
    pub(super) fn tickets_held(&self) -> usize {
        self.stubs.len() - self.free.len()
    }
}

#[cfg(test)]
mod tests {
    use cellmesh_shm::message::Fault;

    use super::*;

    fn faulted(fault: Fault) -> ResponseMessage {
        ResponseMessage::faulted(fault)
    }

    const LATER: Nanos = Nanos(100);

    fn call(index: u32, generation: u32) -> CallId {
        CallId { index, generation }
    }

    fn poll(calls: &mut Calls, ticket: Ticket) -> Option<Fault> {
        match calls.poll_answer(ticket, Waker::noop()) {
            Poll::Ready(message) => Some(message.fault),
            Poll::Pending => None,
        }
    }

    /// An index that the port gives out again does not disturb the answer that waits under it.
    #[test]
    fn reused_index_keeps_answers_apart() {
        let mut calls = Calls::new();
        let first = calls.open_ingress(call(0, 1), LATER);
        calls.settle(call(0, 1), faulted(Fault::NoWorker));
        let second = calls.open_ingress(call(0, 2), LATER);
        assert_eq!(poll(&mut calls, second), None);
        assert_eq!(poll(&mut calls, first), Some(Fault::NoWorker));
        calls.settle(call(0, 2), faulted(Fault::HopLimit));
        assert_eq!(poll(&mut calls, second), Some(Fault::HopLimit));
        assert_eq!(calls.tickets_held(), 0);
    }

    /// An answer of another generation is nobody's.
    #[test]
    fn stale_answer_is_dropped() {
        let mut calls = Calls::new();
        let ticket = calls.open_ingress(call(3, 2), LATER);
        assert!(matches!(calls.settle(call(3, 1), faulted(Fault::Internal)), Settled::Nobody));
        assert!(matches!(calls.settle(call(9, 0), faulted(Fault::Internal)), Settled::Nobody));
        assert_eq!(poll(&mut calls, ticket), None);
    }

    /// A request that is gone gives its ticket back, before and after its answer.
    #[test]
    fn abandoned_tickets_come_back() {
        let mut calls = Calls::new();
        let waiting = calls.open_ingress(call(0, 1), LATER);
        assert_eq!(calls.abandon(waiting), Some(call(0, 1)));
        let answered = calls.open_ingress(call(0, 2), LATER);
        calls.settle(call(0, 2), faulted(Fault::Internal));
        assert_eq!(calls.abandon(answered), None);
        assert_eq!((calls.tickets_held(), calls.all().len()), (0, 0));
    }

    /// A relayed call is known by its slot until it ends either way.
    #[test]
    fn relays_end_by_answer_or_cancel() {
        let mut calls = Calls::new();
        let slot = |index| SlotId { index, generation: 7 };
        calls.open_relay(call(0, 1), LATER, slot(0));
        calls.open_relay(call(1, 1), LATER, slot(1));
        assert!(
            matches!(calls.settle(call(0, 1), faulted(Fault::None)), Settled::Relay(s, _) if s == slot(0))
        );
        assert_eq!(calls.abandon_relay(slot(0)), None);
        assert_eq!(calls.abandon_relay(slot(1)), Some(call(1, 1)));
        assert_eq!((calls.relays(), calls.all().len()), (0, 0));
    }

    /// The sweep finds exactly what is late, and says when to look again.
    #[test]
    fn late_calls_are_found() {
        let mut calls = Calls::new();
        for (index, deadline) in [(0, 50), (1, 70), (2, 60)] {
            calls.open_ingress(call(index, 1), Nanos(deadline));
        }
        assert_eq!(calls.next_expiry(), Some(Nanos(50)));
        assert_eq!(calls.expired(Nanos(49)), []);
        assert_eq!(calls.expired(Nanos(60)), [call(0, 1), call(2, 1)]);
        assert_eq!(calls.next_expiry(), Some(Nanos(70)));
    }
}
