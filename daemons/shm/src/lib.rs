//! Shared-memory rings, frames and messages between the parts of a cellmesh node.
//!
//! ```text
//!   message   port      calls, answers, cancellation; splits what is large, grants credits
//!   frame     link      two small rings, two bulk rings and two doorbells, seen from one side
//!   bytes     ring      one producer, one consumer, frames without a copy between them
//!   words     segment   sealed anonymous memory, written by one side, read by the other
//! ```
//!
//! - Workers and sidecars speak through a [`port::Port`]; the DPA relays frames between [`link::Link`]s.
//! - [`outlier`] is beside them: the decision that both daemons make of whoever fails again and again.
//! - Nothing here assumes that both sides live in one address space, or that the other side is honest.
//! - The only unsafe code of the project is in [`segment`].
//! - Feature `peer` adds another side for tests that breaks rules on purpose (`peer.rs`).
//! - Not here: where a message goes (the DPA), what its head means (the DPU and the worker), sleeping
//!   (each placement's own loop; [`doorbell`] gives it what to sleep on).

#[cfg(not(any(loom, miri)))]
pub mod attach;
#[cfg(not(any(loom, miri)))]
pub mod bells;
pub mod clock;
pub mod doorbell;
pub mod frame;
pub mod head;
pub mod ids;
pub mod layout;
#[cfg(not(any(loom, miri)))]
pub mod link;
pub mod message;
pub mod outlier;
#[cfg(all(feature = "peer", not(any(loom, miri))))]
pub mod peer;
#[cfg(not(any(loom, miri)))]
pub mod port;
pub mod profile;
pub mod progress;
pub mod ring;
pub mod rings;
#[allow(unsafe_code, reason = "the one module that maps memory; each use says why it is sound")]
pub mod segment;
#[cfg(not(any(loom, miri)))]
mod slab;
#[cfg(not(loom))]
mod sync;
#[cfg(loom)]
pub mod sync;
