//! The two rings of one direction, and the order between them.
//!
//! ```text
//!   from here                      to here
//!   publish bulk tail              load small tail
//!   publish small tail             load bulk tail
//!                                  take the chunks, then the small frames
//! ```
//!
//! - Bulk is published before small and looked at after it. So whoever has seen a small frame also sees every chunk that
//!   was sent before it. A message that ends early rests on that: its receiver knows that no chunk of it is on the way.
//! - Small frames and chunks have no other order: neither waits for the other.

use crate::ring::{Consumer, Producer, RingError};

/// What comes to this side.
#[derive(Debug)]
pub struct LinkRx {
    /// Small frames.
    pub small: Consumer,
    /// Chunks.
    pub bulk: Consumer,
}

impl LinkRx {
    /// Looks how far the peer has written, in the order that the module's header asks for. Returns whether there is
    /// anything to take.
    ///
    /// - cost: two loads of the peer's lines.
    /// # Errors
    /// [`RingError`] if the peer broke a rule.
    #[inline]
    pub fn refresh(&mut self) -> Result<bool, RingError> {
        let small = self.small.refresh()?;
        let bulk = self.bulk.refresh()?;
        Ok(small || bulk)
    }

    /// Whether the peer's counters are as the last [`LinkRx::refresh`] has seen them: it would see nothing new, and nothing wrong.
    ///
    /// - cost: two loads of the peer's lines.
    #[must_use]
    #[inline]
    pub fn has_no_news(&self) -> bool {
        self.small.has_no_news() && self.bulk.has_no_news()
    }

    /// Whether something that the last [`LinkRx::refresh`] has seen is not released yet. Who leaves chunks for later leaves
    /// the small frames behind them too, and does not look again before: or it would take a small frame before its chunks.
    #[must_use]
    #[inline]
    pub fn has_seen(&self) -> bool {
        self.small.has_seen() || self.bulk.has_seen()
    }

    /// Bytes that they hold, the small ring and the bulk ring.
    #[must_use]
    pub fn capacities(&self) -> [u32; 2] {
        [self.small.capacity(), self.bulk.capacity()]
    }

    /// Bytes that the peer has written and that are not released here, in the small ring and in the bulk ring.
    #[must_use]
    pub fn waiting_bytes(&self) -> [u32; 2] {
        [self.small.waiting_bytes(), self.bulk.waiting_bytes()]
    }

    /// Tells the peer of the room that was given back. Returns whether there was any: to be told to
    /// [`crate::link::LinkTx::publish`], which wakes the peer. Bulk before small here too: a credit that the peer sees
    /// stands for chunks whose room it sees.
    #[must_use]
    #[inline]
    pub fn publish(&mut self) -> bool {
        self.bulk.publish() | self.small.publish()
    }
}

/// Tells the peer of the frames that were written, in the order that the module's header asks for. Returns whether
/// there were any.
#[inline]
pub fn publish_frames(small: &mut Producer, bulk: &mut Producer) -> bool {
    bulk.publish() | small.publish()
}
