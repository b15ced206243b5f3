//! The pump: takes frames from each endpoint in turn and gives them to the exchange (`exchange.rs`).
//!
//! ```text
//!   pump:  deadlines that passed, then a turn for each endpoint, then each that is marked is told, then who stands still
//!   turn:  what is parked for it | at most `chunks_per_turn` | if that was all: at most `budget_per_turn` small frames
//! ```
//!
//! - Turns go round robin, from another endpoint each time, so nobody is always first.
//! - A violation closes its endpoint, and nothing else.
//! - Chunks that were granted are room that nobody else has: who does not send them is expelled as one that stands still
//!   is (`settle.rs`).
//! - An endpoint that does not take what it is sent is not read from either: see [`crate::DpaConfig::parked_max`].

use std::time::Duration;

use cellmesh_shm::clock::Nanos;
use cellmesh_shm::doorbell::BellError;
use cellmesh_shm::frame::{Frame, FrameKind};
use cellmesh_shm::ids::{EndpointId, SlotId};
use cellmesh_shm::ring::RingError;
use cellmesh_shm::rings::LinkRx;

use crate::custody::StreamError;
use crate::exchange::Exchange;
use crate::{Dpa, Progress};

/// What an endpoint did that no correct one does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Violation {
    #[error(transparent)]
    Ring(#[from] RingError),
    #[error(transparent)]
    Bell(#[from] BellError),
    #[error("{kind:?}: {error}")]
    Stream { kind: FrameKind, error: StreamError },
    #[error("{kind:?}: {rule}")]
    Rule { kind: FrameKind, rule: &'static str },
    #[error("took none of the frames that wait for it for {0:?}")]
    Stalled(Duration),
    #[error("sent nothing of a message that it has announced and that is waited for, for {0:?}")]
    Withheld(Duration),
}

impl Dpa {
    /// Moves what can be moved, settles what is overdue, and tells every endpoint of it.
    ///
    /// - `now`: deadlines before it have passed; never earlier than at the last call.
    /// - cost: two loads per endpoint when nothing is there; per small frame two cache lines and a table entry.
    pub fn pump(&mut self, now: Nanos) -> Progress {
        self.exchange.set_now(now);
        let mut moved = self.exchange.expire();
        let count = self.inlets.len();
        self.first_turn = if self.first_turn + 1 < count { self.first_turn + 1 } else { 0 };
        let mut index = self.first_turn;
        for _ in 0..count {
            moved |= self.turn(index);
            index = if index + 1 < count { index + 1 } else { 0 };
        }
        let (told, broken) = self.publish();
        moved |= told;
        // After the turns: what somebody has just done counts.
        let looks_at_all = now >= self.next_stall_check;
        moved |= self.expel_stalled();
        if broken || looks_at_all {
            moved |= self.expel_broken();
        }
        Progress::from(moved)
    }

    #[inline]
    fn turn(&mut self, index: usize) -> bool {
        let Some(rx) = &mut self.inlets[index] else { return false };
        let endpoint = EndpointId(u16::try_from(index).expect("at most ENDPOINTS_MAX"));
        self.exchange.take_turn(endpoint, rx).unwrap_or_else(|violation| {
            self.expel(endpoint, violation);
            true
        })
    }

    /// Whether there was anything to tell, and whether anybody is to be closed.
    #[inline]
    fn publish(&mut self) -> (bool, bool) {
        let (mut moved, mut broken) = (false, false);
        for (rx, outlet) in self.inlets.iter_mut().zip(&mut self.exchange.outlets) {
            if let (Some(rx), Some(outlet)) = (rx, outlet)
                && std::mem::take(&mut outlet.is_marked)
            {
                let room = rx.publish();
                moved |= outlet.tx.publish(room);
                broken |= outlet.broken.is_some();
            }
        }
        (moved, broken)
    }
}

impl Exchange {
    #[inline]
    fn expire(&mut self) -> bool {
        if !self.custody.is_due(self.now) {
            return false;
        }
        let expired = self.custody.expired(self.now);
        expired.iter().for_each(|id| self.settle_late(*id));
        !expired.is_empty()
    }

    /// Trust boundary rule 5: a bounded share of every turn.
    #[inline]
    fn take_turn(&mut self, from: EndpointId, rx: &mut LinkRx) -> Result<bool, Violation> {
        let mut moved = self.parked(from) > 0 && self.unpark(from);
        // A look before all chunks that the last one has seen are through could see small frames whose chunks still wait.
        if !rx.bulk.has_seen() && !rx.refresh()? {
            return Ok(moved);
        }
        let mut frame = Frame::EMPTY;
        for _ in 0..self.config.chunks_per_turn.max(1) {
            if !rx.bulk.peek(&mut frame)? {
                break;
            }
            self.on_chunk(from, &frame, rx.bulk.payload(&frame))?;
            rx.bulk.release(&frame);
            moved = true;
        }
        if !rx.bulk.has_seen() {
            for _ in 0..self.config.budget_per_turn {
                if self.parked(from) >= self.config.parked_max() || !rx.small.peek(&mut frame)? {
                    break;
                }
                self.on_small(from, &frame, rx.small.payload(&frame))?;
                rx.small.release(&frame);
                moved = true;
            }
        }
        if moved {
            self.outlet(from); // Room in its rings is told with what goes to it.
        }
        Ok(moved)
    }

    fn unpark(&mut self, endpoint: EndpointId) -> bool {
        let mut moved = false;
        while let Some(sent) = self.outlet(endpoint).unpark() {
            moved = true;
            if matches!(sent.kind, FrameKind::Request | FrameKind::RequestAnnounce)
                && let Some(slot) = self.custody.get_mut(SlotId::from_raw(sent.token))
            {
                slot.delivered = true;
            }
        }
        moved
    }
}

#[cfg(test)]
mod hostile_tests;
#[cfg(test)]
mod tests;
