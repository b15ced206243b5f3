//! Requests that this port was given to answer.

use crate::ids::SlotId;

/// How far one request is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Held {
    /// Its payload is coming in: index in the inbox.
    Receiving(u32),
    /// The port's user has it.
    Delivered,
    /// Its answer's payload is going out: index in the outbox.
    Sending(u32),
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    generation: u32,
    held: Option<Held>,
}

/// A table by the DPA's slot index, which grows to the highest index seen.
#[derive(Debug, Default)]
pub(super) struct HeldRequests {
    entries: Vec<Entry>,
    count: u32,
}

/// More custody slots than any DPA has: bounds the table against a mad one.
const SLOTS_MOST: usize = 1 << 20;

impl HeldRequests {
    /// Takes a request. `false`: the slot is impossible, or we still hold another request of it.
    #[inline]
    pub(super) fn insert(&mut self, slot: SlotId, held: Held) -> bool {
        let index = slot.index as usize;
        if index >= self.entries.len() {
            if index >= SLOTS_MOST {
                return false;
            }
            self.entries.resize(index + 1, Entry { generation: 0, held: None });
        }
        let entry = &mut self.entries[index];
        if entry.held.is_some() {
            return false;
        }
        *entry = Entry { generation: slot.generation, held: Some(held) };
        self.count += 1;
        true
    }

    /// The request with this name, if we hold it.
    #[inline]
    pub(super) fn get_mut(&mut self, slot: SlotId) -> Option<&mut Held> {
        let entry = self.entries.get_mut(slot.index as usize)?;
        entry.held.as_mut().filter(|_| entry.generation == slot.generation)
    }

    /// Lets go of a request.
    #[inline]
    pub(super) fn remove(&mut self, slot: SlotId) -> Option<Held> {
        let held = *self.get_mut(slot)?;
        self.entries[slot.index as usize].held = None;
        self.count -= 1;
        Some(held)
    }

    /// Requests held.
    pub(super) fn count(&self) -> u32 {
        self.count
    }
}
