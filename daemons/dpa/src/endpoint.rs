//! One attached endpoint: what it may do, what it has asked for, and what goes to it.
//!
//! - What comes from it lies in a table of its own, so that a frame can be copied from one endpoint's rings into
//!   another's (or its own) in one step.
//! - A frame that finds the ring full is parked, and later ones queue behind it: order is kept, nothing is lost, and no
//!   other endpoint waits. What is parked is bounded by custody: at most a request or a cancel per slot that the
//!   endpoint answers, an outcome per call that it made, a credit per chunk of the receivers' rings.

use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd};

use cellmesh_shm::doorbell::BellError;
use cellmesh_shm::frame::{Frame, FrameHeader, FrameKind, Relabel};
use cellmesh_shm::ids::{CallId, SlotId};
use cellmesh_shm::link::{LinkSleep, LinkTx};
use cellmesh_shm::ring::{Payload, RingError};
use cellmesh_shm::segment::Words;

use crate::mover::Violation;

/// What an endpoint may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// Answers requests of its services and makes calls.
    Worker,
    /// Decides about calls without a flow entry, and installs entries.
    Sidecar,
}

/// A frame that waits for room.
#[derive(Debug)]
pub(crate) struct Parked {
    pub(crate) header: FrameHeader,
    payload: Vec<u8>,
}

/// What goes to an endpoint, and what is known of it.
#[derive(Debug)]
pub(crate) struct Outlet {
    pub(crate) tx: LinkTx,
    pub(crate) role: Role,
    /// Something was written for it, or taken from it: it is to be told so.
    pub(crate) is_marked: bool,
    sleep: LinkSleep,
    /// Custody slot of each of its calls, by the call's index.
    calls: Vec<Option<u32>>,
    parked: VecDeque<Parked>,
    /// Requests in custody that it has to answer.
    pub(crate) in_flight: u32,
    /// Chunks that it has granted and that are not in its ring yet.
    pub(crate) reserved: u32,
    /// Where it stood at the last look if something waited for it, and for how many looks it has stood there.
    stalled: Option<(u32, u32)>,
    /// It broke a rule outside its own turn; it is closed at the end of this pump.
    pub(crate) broken: Option<Violation>,
}

impl Outlet {
    pub(crate) fn new(tx: LinkTx, sleep: LinkSleep, role: Role, calls_max: u32) -> Self {
        Self {
            tx,
            role,
            is_marked: false,
            sleep,
            calls: vec![None; calls_max as usize],
            parked: VecDeque::new(),
            in_flight: 0,
            reserved: 0,
            stalled: None,
            broken: None,
        }
    }

    /// The entry of this call; `None` if its index is beyond `calls_max`.
    #[inline]
    pub(crate) fn call_mut(&mut self, call: CallId) -> Option<&mut Option<u32>> {
        self.calls.get_mut(call.index as usize)
    }

    /// It broke a rule: it is closed at the end of this pump.
    #[cold]
    pub(crate) fn break_off(&mut self, violation: Violation) {
        self.broken = Some(violation);
        self.is_marked = true;
    }

    /// Passes a small frame on. `false`: it had to be parked.
    #[inline]
    pub(crate) fn relay(&mut self, frame: &Frame, label: Relabel, payload: Words<'_>) -> bool {
        if self.parked.is_empty() {
            let pushed = self.tx.small.relay(frame, label, payload);
            if self.is_sent(pushed) {
                return true;
            }
        }
        self.park(frame, label, payload);
        false
    }

    #[cold]
    fn park(&mut self, frame: &Frame, label: Relabel, payload: Words<'_>) {
        let header = frame.relabelled(label);
        let mut copy = Vec::new();
        payload.append_to(header.frame_len as usize, &mut copy);
        self.parked.push_back(Parked { header, payload: copy });
    }

    /// Sends a frame of the DPA's own. `false`: it had to be parked.
    #[inline]
    pub(crate) fn send(&mut self, header: &FrameHeader) -> bool {
        if self.parked.is_empty() && self.push(header, Payload::Empty) {
            return true;
        }
        self.parked.push_back(Parked { header: *header, payload: Vec::new() });
        false
    }

    /// Sends a frame that was parked elsewhere. `false`: it is parked here now.
    pub(crate) fn send_parked(&mut self, frame: Parked) -> bool {
        if self.parked.is_empty() && self.push(&frame.header, Payload::Parts(&[], &frame.payload)) {
            return true;
        }
        self.parked.push_back(frame);
        false
    }

    /// The next parked frame, if there is room for it now: it is in the ring.
    #[inline]
    pub(crate) fn unpark(&mut self) -> Option<FrameHeader> {
        let frame = self.parked.pop_front()?;
        if self.push(&frame.header, Payload::Parts(&[], &frame.payload)) {
            return Some(frame.header);
        }
        self.parked.push_front(frame);
        None
    }

    /// What is sent to an endpoint that is about to be closed is gone: everything in flight on it is settled then.
    #[inline]
    fn push(&mut self, header: &FrameHeader, payload: Payload<'_>) -> bool {
        let pushed = self.tx.small.push(header, payload);
        self.is_sent(pushed)
    }

    #[inline]
    fn is_sent(&mut self, pushed: Result<bool, RingError>) -> bool {
        match pushed {
            Ok(pushed) => pushed,
            Err(error) => {
                self.break_off(error.into());
                true
            }
        }
    }

    /// Takes a request back that it has not got yet.
    pub(crate) fn take_back(&mut self, slot: SlotId) -> Option<Parked> {
        let is_request = |kind| matches!(kind, FrameKind::Request | FrameKind::RequestAnnounce);
        let found = |frame: &Parked| is_request(frame.header.kind) && frame.header.token == slot.raw();
        self.parked.remove(self.parked.iter().position(found)?)
    }

    #[inline]
    pub(crate) fn parked(&self) -> usize {
        self.parked.len()
    }

    /// For how many looks, this one included, it has taken nothing although something waits for it in its rings.
    /// Looks and not time: a machine that stood still must not cost every endpoint its place.
    pub(crate) fn stalled_looks(&mut self) -> u32 {
        let stands = self.waiting_at();
        self.stalled = stands.map(|stands| match self.stalled {
            Some((stood, looks)) if stood == stands => (stands, looks + 1),
            _ => (stands, 0),
        });
        self.stalled.map_or(0, |(_, looks)| looks)
    }

    /// A number that changes whenever the endpoint takes something; none if nothing waits for it.
    fn waiting_at(&mut self) -> Option<u32> {
        let counts = [self.tx.small.waiting_at(), self.tx.bulk.waiting_at()];
        match counts {
            [Ok(None), Ok(None)] => None,
            [Ok(small), Ok(bulk)] => Some(small.unwrap_or(0).wrapping_add(bulk.unwrap_or(0))),
            [Err(error), _] | [_, Err(error)] => {
                self.break_off(error.into());
                None
            }
        }
    }

    /// See [`LinkSleep::announce`]. `false`: its bell will never ring again.
    #[must_use]
    pub(crate) fn announce_sleep(&mut self) -> bool {
        let announced = self.sleep.announce(!self.parked.is_empty());
        if let Err(rung @ BellError::TooOften { .. }) = announced {
            self.break_off(rung.into());
        }
        announced != Err(BellError::HungUp)
    }

    /// See [`LinkSleep::wake`].
    pub(crate) fn wake(&mut self) {
        self.sleep.wake();
    }

    pub(crate) fn wait_fd(&self) -> BorrowedFd<'_> {
        self.sleep.as_fd()
    }
}
