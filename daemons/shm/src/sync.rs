//! Atomics of this crate and the orderings that its protocols are made of, in one place so that loom can replace
//! them (`--cfg loom`), and shuttle can go on with another thread at each of them (`--cfg shuttle`).
//!
//! - [`publish`] and [`observe`] are a pair: who observes a published value sees all that was written before it.
//! - [`sleeper_fence`] and [`producer_fence`] order a store before a later load of another word: nothing weaker does.
//! - Under loom each can be left out on purpose ([`planted`]): a model that does not notice proves nothing.
//! - Type aliases rather than re-exports: a lint that forbids the standard atomics elsewhere sees through a re-export.

#[cfg(not(loom))]
pub(crate) type AtomicU64 = std::sync::atomic::AtomicU64;
#[cfg(loom)]
pub(crate) type AtomicU64 = loom::sync::atomic::AtomicU64;

pub(crate) type Ordering = std::sync::atomic::Ordering;

#[cfg(not(loom))]
use std::sync::atomic::fence;

#[cfg(loom)]
use loom::sync::atomic::fence;

/// Stores a counter so that who observes it sees what was written before. Pairs with: [`observe`].
#[inline]
pub(crate) fn publish(word: &AtomicU64, counter: u32) {
    #[cfg(loom)]
    if planted::is(planted::Bug::RelaxedPublish) {
        return word.store(u64::from(counter), Ordering::Relaxed);
    }
    turn();
    word.store(u64::from(counter), Ordering::Release);
}

/// Makes a counter that was just loaded an observation of what was published with it. Pairs with: [`publish`].
///
/// A fence and not an acquiring load, because only relaxed loads are allowed on read-only pages.
#[inline]
pub(crate) fn observe() {
    #[cfg(loom)]
    if planted::is(planted::Bug::NoAcquire) {
        return;
    }
    fence(Ordering::Acquire);
    turn();
}

/// Orders that one says one sleeps against looking once more. Pairs with: [`producer_fence`].
#[inline]
pub(crate) fn sleeper_fence() {
    #[cfg(loom)]
    if planted::is(planted::Bug::NoSleeperFence) {
        return;
    }
    fence(Ordering::SeqCst);
    turn();
}

/// Orders publishing against looking whether the peer sleeps. Pairs with: [`sleeper_fence`].
#[inline]
pub(crate) fn producer_fence() {
    #[cfg(loom)]
    if planted::is(planted::Bug::NoProducerFence) {
        return;
    }
    turn();
    fence(Ordering::SeqCst);
}

/// Where shuttle may go on with another thread: before and after what the other side of a link can notice. Its
/// schedules are of these places, over shared memory as it is.
#[inline]
pub(crate) fn turn() {
    #[cfg(shuttle)]
    shuttle::sync::atomic::AtomicBool::new(false).load(Ordering::SeqCst);
}

/// Bugs to be found by models.
#[cfg(loom)]
pub mod planted {
    use std::cell::Cell;

    /// A way to get the orderings wrong.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub enum Bug {
        /// A counter is published without what was written before it.
        RelaxedPublish,
        /// A counter is loaded without what was published with it.
        NoAcquire,
        /// The sleeping side of the handshake has no fence.
        NoSleeperFence,
        /// The waking side of the handshake has no fence.
        NoProducerFence,
    }

    // A model runs all its threads on one thread of the system, so a model plants for itself only.
    std::thread_local! {
        static PLANTED: Cell<Option<Bug>> = const { Cell::new(None) };
    }

    /// From now on this bug is in the code that this thread's models run.
    pub fn plant(bug: Bug) {
        PLANTED.set(Some(bug));
    }

    pub(super) fn is(bug: Bug) -> bool {
        PLANTED.get() == Some(bug)
    }
}
