//! Atomics of this crate, in one place so that loom can replace them (`--cfg loom`).
//!
//! Type aliases rather than re-exports: a lint that forbids the standard atomics elsewhere sees through a re-export.

#[cfg(not(loom))]
pub(crate) type AtomicU64 = std::sync::atomic::AtomicU64;
#[cfg(loom)]
pub(crate) type AtomicU64 = loom::sync::atomic::AtomicU64;

pub(crate) type Ordering = std::sync::atomic::Ordering;

/// Orders what this thread did before against what it does next, see [`std::sync::atomic::fence`].
#[inline]
pub(crate) fn fence(order: Ordering) {
    #[cfg(not(loom))]
    std::sync::atomic::fence(order);
    #[cfg(loom)]
    loom::sync::atomic::fence(order);
}
