//! Calls that this port made and that have no outcome yet.
//!
//! - A call keeps its place until the DPA has said its last word on it, also when it was given up: so a place is never
//!   used for two calls that anybody could confuse, and `calls_max` bounds what the DPA has of us.

use crate::ids::CallId;

/// One call.
#[derive(Debug, Default)]
pub(super) struct Call {
    /// The port's user gave it up.
    pub(super) cancelled: bool,
    /// The request's payload, in the outbox, while not all of it is sent.
    pub(super) sending: Option<u32>,
    /// The response's payload, in the inbox, while not all of it is here.
    pub(super) receiving: Option<u32>,
}

#[derive(Debug)]
struct Entry {
    generation: u32,
    call: Option<Call>,
}

/// A dense table, of at most `max` entries, which grows as they are first needed.
#[derive(Debug)]
pub(super) struct Calls {
    entries: Vec<Entry>,
    free: Vec<u32>,
    max: u32,
    cancelled: u32,
}

impl Calls {
    pub(super) fn new(max: u32) -> Self {
        Self { entries: Vec::new(), free: Vec::new(), max, cancelled: 0 }
    }

    /// A place for a new call; `None` if all are taken.
    #[inline]
    pub(super) fn open(&mut self) -> Option<CallId> {
        let index = match self.free.pop() {
            Some(index) => index,
            None => self.grow()?,
        };
        let entry = &mut self.entries[index as usize];
        entry.call = Some(Call::default());
        Some(CallId { index, generation: entry.generation })
    }

    fn grow(&mut self) -> Option<u32> {
        let index = u32::try_from(self.entries.len()).ok().filter(|index| *index < self.max)?;
        self.entries.push(Entry { generation: 0, call: None });
        Some(index)
    }

    #[inline]
    pub(super) fn is_full(&self) -> bool {
        self.free.is_empty() && self.entries.len() >= self.max as usize
    }

    /// The call with this name, if it is still open.
    #[inline]
    pub(super) fn get_mut(&mut self, id: CallId) -> Option<&mut Call> {
        let entry = self.entries.get_mut(id.index as usize)?;
        entry.call.as_mut().filter(|_| entry.generation == id.generation)
    }

    /// Marks a call as given up and hands its sending stream over. `None`: it has its outcome already, or was given
    /// up before.
    pub(super) fn cancel(&mut self, id: CallId) -> Option<Option<u32>> {
        let call = self.get_mut(id).filter(|call| !call.cancelled)?;
        call.cancelled = true;
        let sending = call.sending.take();
        self.cancelled += 1;
        Some(sending)
    }

    /// Ends a call and frees its place.
    #[inline]
    pub(super) fn close(&mut self, id: CallId) -> Option<Call> {
        self.get_mut(id)?;
        let entry = &mut self.entries[id.index as usize];
        let call = entry.call.take()?;
        entry.generation = entry.generation.wrapping_add(1);
        self.cancelled -= u32::from(call.cancelled);
        self.free.push(id.index);
        Some(call)
    }

    /// Places taken.
    pub(super) fn open_count(&self) -> usize {
        self.entries.len() - self.free.len()
    }

    /// Calls whose outcome somebody waits for.
    pub(super) fn waiting(&self) -> u32 {
        u32::try_from(self.open_count()).unwrap_or(u32::MAX) - self.cancelled
    }
}
