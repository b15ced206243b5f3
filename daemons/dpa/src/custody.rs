//! Custody: every request that was taken and has no outcome yet, in one slot.
//!
//! ```text
//!   Request ---> [slot: who asks, who answers, until when] ---> Response | deadline | cancel | one side is gone
//!   name on the callee's link: SlotId (index, generation)     name on the caller's link: its own CallId
//! ```
//!
//! - A slot ends exactly once: [`Custody::end`] is the only way out, and gives back all that it held.
//! - A generation makes a late or forged name of an earlier request worth nothing.
//! - Deadlines are a dense list beside the slots. It is scanned only when the earliest one can have passed, and a scan
//!   reads 8 bytes per slot.
//! - Not here: frames. Whoever ends a slot tells both sides.

use cellmesh_shm::clock::Nanos;
use cellmesh_shm::ids::{CallId, EndpointId, ServiceId, SlotId};

/// The payload of an announced message on its way through.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Stream {
    /// Bytes of the message; zero: nothing was announced.
    payload_len: u32,
    /// Chunks that its receiver has given credit for.
    granted: u32,
    /// Chunks that went through.
    relayed: u32,
    /// As many had gone through at the last look, and for how many looks it has stayed so.
    seen: (u32, u32),
}

/// One request in custody.
#[derive(Debug)]
pub(crate) struct Slot {
    pub(crate) caller: EndpointId,
    pub(crate) call: CallId,
    pub(crate) callee: EndpointId,
    pub(crate) service: ServiceId,
    /// The request is in the callee's ring; before that it is parked here, and can go elsewhere.
    pub(crate) delivered: bool,
    pub(crate) request: Stream,
    pub(crate) response: Stream,
}

impl Slot {
    /// Whether the callee is the one that is waited for: it has the whole request, or as much as it has asked for, and
    /// nobody keeps it from answering.
    pub(crate) fn is_up_to_callee(&self) -> bool {
        let sender_owes = if self.response.is_announced() {
            self.response.reserved() == 0 // of the room for the answer
        } else {
            self.request.reserved() > 0 // of the request
        };
        self.delivered && !sender_owes
    }
}

/// The table of slots.
#[derive(Debug)]
pub(crate) struct Custody {
    entries: Vec<Entry>,
    /// Of each entry; [`Nanos::MAX`] where there is no slot.
    deadlines: Vec<Nanos>,
    free: Vec<u32>,
    slots_max: u32,
    /// No deadline is earlier.
    next_expiry: Nanos,
}

#[derive(Debug)]
struct Entry {
    generation: u32,
    slot: Option<Slot>,
}

/// A chunk or credit that does not fit its stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum StreamError {
    /// More than was asked for.
    #[error("credit for more chunks than the message has")]
    Credit,
    /// Without credit.
    #[error("chunk without credit")]
    NoCredit,
    /// Not the next one.
    #[error("chunk out of order or of the wrong length")]
    Order,
}

impl Stream {
    /// What an announcement promises.
    pub(crate) fn announced(payload_len: u32) -> Self {
        Self { payload_len, ..Self::default() }
    }

    pub(crate) fn is_announced(&self) -> bool {
        self.payload_len > 0
    }

    /// Chunks that the receiver keeps room for.
    pub(crate) fn reserved(&self) -> u32 {
        self.granted - self.relayed
    }

    /// For how many looks, this one included, its sender has had credit and not used any.
    fn withheld_looks(&mut self) -> u32 {
        let (relayed, looks) = self.seen;
        let withheld = self.reserved() > 0 && relayed == self.relayed;
        self.seen = (self.relayed, if withheld { looks + 1 } else { 0 });
        self.seen.1
    }

    /// Whether every chunk went through.
    pub(crate) fn is_complete(&self, chunk_bytes: u32) -> bool {
        self.relayed == self.payload_len.div_ceil(chunk_bytes)
    }

    /// The receiver takes more.
    pub(crate) fn grant(&mut self, chunks: u32, chunk_bytes: u32) -> Result<(), StreamError> {
        let granted = self.granted.checked_add(chunks).ok_or(StreamError::Credit)?;
        if granted > self.payload_len.div_ceil(chunk_bytes) {
            return Err(StreamError::Credit);
        }
        self.granted = granted;
        Ok(())
    }

    /// The sender sends a chunk: its number, and its bytes.
    pub(crate) fn relay(&mut self, seq: u32, len: u32, chunk_bytes: u32) -> Result<(), StreamError> {
        if self.relayed >= self.granted {
            return Err(StreamError::NoCredit);
        }
        let left = u64::from(self.payload_len) - u64::from(self.relayed) * u64::from(chunk_bytes);
        let expected = left.min(u64::from(chunk_bytes));
        if seq != self.relayed || u64::from(len) != expected {
            return Err(StreamError::Order);
        }
        self.relayed += 1;
        Ok(())
    }
}

impl Custody {
    pub(crate) fn new(slots_max: u32) -> Self {
        Self {
            entries: Vec::new(),
            deadlines: Vec::new(),
            free: Vec::new(),
            slots_max,
            next_expiry: Nanos::MAX,
        }
    }

    /// Takes a request. `None`: every slot is taken.
    #[inline]
    pub(crate) fn take(&mut self, slot: Slot, deadline: Nanos) -> Option<SlotId> {
        let index = match self.free.pop() {
            Some(index) => index,
            None => self.grow()?,
        };
        let entry = &mut self.entries[index as usize];
        entry.slot = Some(slot);
        self.deadlines[index as usize] = deadline;
        self.next_expiry = self.next_expiry.min(deadline);
        Some(SlotId { index, generation: entry.generation })
    }

    fn grow(&mut self) -> Option<u32> {
        let index = u32::try_from(self.entries.len()).ok().filter(|index| *index < self.slots_max)?;
        self.entries.push(Entry { generation: 0, slot: None });
        self.deadlines.push(Nanos::MAX);
        Some(index)
    }

    /// The slot with this name, if it is still that request's.
    #[inline]
    pub(crate) fn get_mut(&mut self, id: SlotId) -> Option<&mut Slot> {
        let entry = self.entries.get_mut(id.index as usize)?;
        entry.slot.as_mut().filter(|_| entry.generation == id.generation)
    }

    /// The slot at this index, with its name.
    #[inline]
    pub(crate) fn at(&self, index: u32) -> Option<(SlotId, &Slot)> {
        let entry = self.entries.get(index as usize)?;
        let slot = entry.slot.as_ref()?;
        Some((SlotId { index, generation: entry.generation }, slot))
    }

    /// Ends a request and frees its slot; its name is worth nothing from now on.
    #[inline]
    pub(crate) fn end(&mut self, id: SlotId) -> Option<Slot> {
        let entry =
            self.entries.get_mut(id.index as usize).filter(|entry| entry.generation == id.generation)?;
        let slot = entry.slot.take()?;
        entry.generation = entry.generation.wrapping_add(1);
        self.deadlines[id.index as usize] = Nanos::MAX;
        self.free.push(id.index);
        Some(slot)
    }

    /// Requests in custody.
    #[inline]
    pub(crate) fn live(&self) -> u32 {
        u32::try_from(self.entries.len() - self.free.len()).expect("bounded by slots_max")
    }

    /// Whether a deadline can have passed.
    #[inline]
    pub(crate) fn is_due(&self, now: Nanos) -> bool {
        now >= self.next_expiry
    }

    /// The names of all whose deadline has passed.
    pub(crate) fn expired(&mut self, now: Nanos) -> Vec<SlotId> {
        self.next_expiry =
            self.deadlines.iter().copied().filter(|deadline| *deadline > now).min().unwrap_or(Nanos::MAX);
        let passed = self.deadlines.iter().zip(0u32..).filter(|(deadline, _)| **deadline <= now);
        passed.filter_map(|(_, index)| self.at(index).map(|(id, _)| id)).collect()
    }

    /// When a deadline can pass next. Never later than one does, perhaps earlier.
    pub(crate) fn next_expiry(&self) -> Option<Nanos> {
        (self.live() > 0).then_some(self.next_expiry)
    }

    /// Those who have had credit for a message for more than so many looks, and sent none of it. Each once.
    pub(crate) fn withholders(&mut self, looks_max: u32) -> Vec<EndpointId> {
        let mut found = Vec::new();
        for slot in self.entries.iter_mut().filter_map(|entry| entry.slot.as_mut()) {
            let senders = [(slot.caller, &mut slot.request), (slot.callee, &mut slot.response)];
            let withheld =
                senders.map(|(sender, stream)| (stream.withheld_looks() > looks_max).then_some(sender));
            found.extend(withheld.into_iter().flatten());
        }
        found.sort_unstable();
        found.dedup();
        found
    }

    /// The names of all that this endpoint asks or answers.
    pub(crate) fn of_endpoint(&self, endpoint: EndpointId) -> Vec<SlotId> {
        let all = (0u32..).zip(&self.entries).filter_map(|(index, _)| self.at(index));
        all.filter(|(_, slot)| slot.caller == endpoint || slot.callee == endpoint).map(|(id, _)| id).collect()
    }
}

#[cfg(test)]
mod tests;
