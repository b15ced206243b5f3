//! What comes in: messages put together, and credit for large ones.
//!
//! ```text
//!   announced ---> waiting (in order, until the budget of bytes allows) ---> hungry <--> served ---> whole
//!                                                                           (wants credit)
//! ```
//!
//! - A large message is announced first. Its buffers are made when `bytes_max` has room for all of it, or when it is
//!   the only one: so there is always one that can finish.
//! - Credit is chunks that the sender may send. All that is granted and not yet taken is at most what the bulk ring
//!   holds: so a chunk that was granted always fits, and no message's chunks hold up another's.
//! - A message that ends early gives back what was granted and not sent. That is exact because everything sent before
//!   the end was taken before it (see [`crate::link`], "bulk before small").

use std::collections::VecDeque;

use crate::frame::{Frame, FrameHeader, padded};
use crate::segment::{WORD_BYTES, Words};
use crate::slab::Slab;

/// Head and body of a message, as far as they are here.
#[derive(Debug, Default)]
pub(super) struct Buffers {
    pub(super) head: Vec<u8>,
    pub(super) body: Vec<u8>,
}

impl Buffers {
    /// Room for exactly the message of this header.
    #[inline]
    pub(super) fn for_message(header: &FrameHeader) -> Self {
        let len = |len: u64| usize::try_from(len).expect("admitted lengths fit 32 bits");
        Self {
            head: Vec::with_capacity(len(header.head_len())),
            body: Vec::with_capacity(len(header.body_len())),
        }
    }

    /// Appends bytes `at..at + len` of the payload. `at` is on a word.
    #[inline]
    pub(super) fn append(&mut self, header: &FrameHeader, at: usize, len: usize, words: Words<'_>) {
        let head_len = usize::try_from(header.head_len()).expect("admitted lengths fit 32 bits");
        let head_part = head_len.next_multiple_of(WORD_BYTES).saturating_sub(at).min(len);
        if head_part > 0 {
            words.append_to(head_part.min(head_len - at), &mut self.head);
        }
        if len > head_part {
            let skip = head_part / WORD_BYTES;
            words.part(skip, words.len() - skip).append_to(len - head_part, &mut self.body);
        }
    }
}

/// A large message that is coming in.
#[derive(Debug)]
struct Assembly {
    header: FrameHeader,
    buffers: Buffers,
    chunks: u32,
    granted: u32,
    taken: u32,
    /// Its bytes count against the budget.
    accepted: bool,
    /// Nobody wants it any more, but it is still coming.
    unwanted: bool,
    /// It is in the list of those who want credit.
    hungry: bool,
}

/// All that is coming in.
#[derive(Debug)]
pub(super) struct Inbox {
    assemblies: Slab<Assembly>,
    waiting: VecDeque<u32>,
    hungry: VecDeque<u32>,
    accepted: u32,
    bytes: u64,
    bytes_max: u64,
    /// Chunks granted and not yet taken, of all messages.
    granted: u32,
    granted_max: u32,
    chunk_bytes: u32,
}

/// A chunk that does not continue its message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct BadChunk;

impl Inbox {
    pub(super) fn new(bytes_max: u64, granted_max: u32, chunk_bytes: u32) -> Self {
        Self {
            assemblies: Slab::new(),
            waiting: VecDeque::new(),
            hungry: VecDeque::new(),
            accepted: 0,
            bytes: 0,
            bytes_max,
            granted: 0,
            granted_max,
            chunk_bytes,
        }
    }

    /// A large message will come. Its index is good until it is whole or ended.
    pub(super) fn announce(&mut self, header: FrameHeader) -> u32 {
        let index = self.assemblies.insert(Assembly {
            header,
            buffers: Buffers::default(),
            chunks: header.payload_len.div_ceil(self.chunk_bytes),
            granted: 0,
            taken: 0,
            accepted: false,
            unwanted: false,
            hungry: false,
        });
        self.waiting.push_back(index);
        index
    }

    /// Takes a chunk. `Ok(true)`: the message is whole now.
    /// # Errors
    /// [`BadChunk`] if it was not granted, is out of order, or has the wrong length.
    pub(super) fn take(&mut self, index: u32, chunk: &Frame, words: Words<'_>) -> Result<bool, BadChunk> {
        let assembly = self.assemblies.get_mut(index);
        let at = u64::from(assembly.taken) * u64::from(self.chunk_bytes);
        let left = u64::from(assembly.header.payload_len).saturating_sub(at);
        let expected = left.min(u64::from(self.chunk_bytes));
        if assembly.taken >= assembly.granted
            || chunk.seq() != assembly.taken
            || u64::from(chunk.frame_len()) != expected
        {
            return Err(BadChunk);
        }
        if !assembly.unwanted {
            let at = usize::try_from(at).expect("less than payload_len, which is 32 bits");
            assembly.buffers.append(&assembly.header, at, chunk.frame_len() as usize, words);
        }
        assembly.taken += 1;
        let whole = assembly.taken == assembly.chunks;
        self.granted -= 1;
        self.ask_again(index);
        Ok(whole)
    }

    /// A message whose credit is half used wants more.
    fn ask_again(&mut self, index: u32) {
        let window = self.window();
        let assembly = self.assemblies.get_mut(index);
        let wants = assembly.granted < assembly.chunks && !assembly.unwanted && !assembly.hungry;
        if wants && assembly.granted - assembly.taken <= window / 2 {
            assembly.hungry = true;
            self.hungry.push_back(index);
        }
    }

    /// Chunks granted to one message at once: shared among those that are coming in, with room left for one more.
    fn window(&self) -> u32 {
        (self.granted_max / (self.accepted + 1)).max(1)
    }

    /// The message is whole or has ended: its header and what is here of it.
    pub(super) fn remove(&mut self, index: u32) -> (FrameHeader, Buffers) {
        let assembly = self.assemblies.remove(index);
        self.granted -= assembly.granted - assembly.taken;
        if assembly.hungry {
            self.hungry.retain(|entry| *entry != index);
        }
        if assembly.accepted {
            self.accepted -= 1;
            self.bytes -= u64::from(assembly.header.payload_len);
        } else {
            self.waiting.retain(|entry| *entry != index);
        }
        (assembly.header, assembly.buffers)
    }

    /// Nobody wants the message any more, but its sender does not know yet: takes what was granted, and no more.
    pub(super) fn unwant(&mut self, index: u32) {
        let assembly = self.assemblies.get_mut(index);
        assembly.unwanted = true;
        assembly.buffers = Buffers::default();
        if std::mem::take(&mut assembly.hungry) {
            self.hungry.retain(|entry| *entry != index);
        }
        if !assembly.accepted {
            self.waiting.retain(|entry| *entry != index);
        }
    }

    /// The next credit to give: the announcement's header, and chunks. `None`: nobody wants any, or the ring's worth
    /// is out.
    #[inline]
    pub(super) fn next_credit(&mut self) -> Option<(FrameHeader, u32)> {
        if !self.waiting.is_empty() {
            self.accept_waiting();
        }
        let left = self.granted_max - self.granted;
        if left == 0 || self.hungry.is_empty() {
            return None;
        }
        let (index, window) = (self.hungry.pop_front()?, self.window());
        let assembly = self.assemblies.get_mut(index);
        let open = window.saturating_sub(assembly.granted - assembly.taken).max(1);
        let chunks = open.min(left).min(assembly.chunks - assembly.granted);
        assembly.hungry = false;
        assembly.granted += chunks;
        self.granted += chunks;
        Some((assembly.header, chunks))
    }

    fn accept_waiting(&mut self) {
        while let Some(&index) = self.waiting.front() {
            let assembly = self.assemblies.get_mut(index);
            let len = u64::from(assembly.header.payload_len);
            if self.accepted > 0 && self.bytes + len > self.bytes_max {
                return;
            }
            assembly.buffers = Buffers::for_message(&assembly.header);
            (assembly.accepted, assembly.hungry) = (true, true);
            self.accepted += 1;
            self.bytes += len;
            self.waiting.pop_front();
            self.hungry.push_back(index);
        }
    }

    /// Whether nothing is coming in or waiting to, and every chunk that was granted is taken or given back.
    pub(super) fn is_empty(&self) -> bool {
        self.assemblies.len() == 0 && self.granted == 0
    }
}

/// The padded head must be what the announcement said; kept here because both use it.
const _: () = assert!(padded(9) == 16 && WORD_BYTES == 8);

#[cfg(test)]
mod tests;
