//! Waiting for a descriptor with tokio's reactor.

use std::io;
use std::os::fd::{AsFd, AsRawFd};

use tokio::io::unix::AsyncFd;

/// Waits for edges of a descriptor that `inner` owns: it must be the same one from now on.
/// # Errors
/// The kernel's, for want of descriptors.
#[expect(
    deprecated,
    reason = "its successor is unsafe for types whose descriptor changes under way, which safe code here keeps from"
)]
pub fn watch<T: AsFd + AsRawFd>(inner: T) -> io::Result<AsyncFd<T>> {
    AsyncFd::new(inner)
}
