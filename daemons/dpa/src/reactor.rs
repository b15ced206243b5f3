//! Waiting for descriptors with tokio's reactor.

use std::cell::RefCell;
use std::future::{pending, poll_fn};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use cellmesh_shm::bells::Bells;
use cellmesh_shm::ids::EndpointId;
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

/// Bells in tokio's reactor.
#[derive(Debug)]
pub struct BellWatch(RefCell<AsyncFd<Bells>>);

impl BellWatch {
    /// No bells. Call it where a tokio runtime runs.
    /// # Errors
    /// The kernel's, for want of descriptors.
    pub fn new() -> io::Result<Self> {
        Ok(Self(RefCell::new(watch(Bells::new()?)?)))
    }

    /// See [`Bells::add`].
    /// # Errors
    /// The kernel's, for want of descriptors.
    pub fn add(&self, endpoint: EndpointId, bell: BorrowedFd<'_>) -> io::Result<()> {
        self.0.borrow_mut().get_mut().add(endpoint, bell)
    }

    /// See [`Bells::remove`].
    pub fn remove(&self, endpoint: EndpointId) {
        self.0.borrow_mut().get_mut().remove(endpoint);
    }

    /// Waits until a bell rings. One task at a time may wait.
    pub async fn rung(&self) {
        let rung = poll_fn(|cx| {
            let bells = self.0.borrow();
            bells.poll_read_ready(cx).map_ok(|mut ready| ready.clear_ready())
        });
        if rung.await.is_err() {
            // The reactor has ended, and with it the lane.
            pending::<()>().await;
        }
    }
}
