//! The open connections of a lane, so that draining reaches each of them.
//!
//! Each connection's task leaves its waker here once; looking whether a drain has begun then costs
//! it one load per poll, and no timer or channel.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::pin::pin;
use std::task::{Poll, Waker};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::timeout;

use super::Dpu;

/// A client that has said nothing when a drain begins may still say something for so long: its request
/// may be on the way, and is answered then.
const LAST_WORDS: Duration = Duration::from_millis(250);

/// Connections of one lane.
#[derive(Debug, Default)]
pub(super) struct Connections {
    draining: Cell<bool>,
    retiring: Cell<bool>,
    wakers: RefCell<Vec<Option<Waker>>>,
    free: RefCell<Vec<usize>>,
    open: Cell<u32>,
    /// Told when the last connection closes.
    closed: Notify,
}

impl Connections {
    pub(super) fn is_draining(&self) -> bool {
        self.draining.get()
    }

    pub(super) fn is_retiring(&self) -> bool {
        self.retiring.get()
    }

    pub(super) fn open(&self) -> u32 {
        self.open.get()
    }

    /// Tells every connection that is open to end as soon as nobody loses anything by it.
    pub(super) fn retire(&self) {
        self.retiring.set(true);
        self.wake_all();
    }

    fn wake_all(&self) {
        self.wakers.borrow().iter().flatten().for_each(Waker::wake_by_ref);
    }

    /// Tells every connection to end.
    pub(super) fn begin_drain(&self) {
        self.draining.set(true);
        self.wake_all();
        if self.open.get() == 0 {
            self.closed.notify_waiters();
        }
    }

    /// Waits until no connection is open.
    pub(super) async fn all_closed(&self) {
        loop {
            let mut closed = pin!(self.closed.notified());
            closed.as_mut().enable();
            if self.open.get() == 0 {
                return;
            }
            closed.await;
        }
    }

    fn enter(&self) -> usize {
        self.open.set(self.open.get() + 1);
        self.free.borrow_mut().pop().unwrap_or_else(|| {
            self.wakers.borrow_mut().push(None);
            self.wakers.borrow().len() - 1
        })
    }

    fn leave(&self, place: usize) {
        self.wakers.borrow_mut()[place] = None;
        self.free.borrow_mut().push(place);
        self.open.set(self.open.get() - 1);
        if self.open.get() == 0 {
            self.closed.notify_waiters();
        }
    }
}

/// One open connection.
pub(crate) struct Connection {
    dpu: Dpu,
    place: usize,
    /// It was not there yet when clients were told to go.
    is_late: bool,
    /// It was there before a drain.
    is_in_time: bool,
}

impl Connection {
    pub(super) fn new(dpu: Dpu) -> Self {
        let place = dpu.0.connections.enter();
        let (is_late, is_in_time) = (dpu.is_retiring(), !dpu.is_draining());
        Self { dpu, place, is_late, is_in_time }
    }

    /// Whether it was there before a drain: its requests are served until its client has been told to go.
    pub(crate) fn is_in_time(&self) -> bool {
        self.is_in_time
    }

    /// Waits for what the client is to say first; in a drain not for long. `None`: it did not come in time.
    pub(crate) async fn unless_drained<T>(&self, said: impl Future<Output = T>) -> Option<T> {
        let draining = poll_fn(|cx| self.poll_drain(cx.waker()));
        let mut said = pin!(said);
        tokio::select! {
            biased;
            said = &mut said => Some(said),
            () = draining => timeout(LAST_WORDS, said).await.ok(),
        }
    }

    /// Whether a drain has begun; if not, the task is woken when it does.
    pub(crate) fn poll_drain(&self, waker: &Waker) -> Poll<()> {
        self.poll_told(waker, false)
    }

    /// Whether the client is to be told to go, which ends the connection when it has all answers; if not, the task is
    /// woken when it is.
    pub(crate) fn poll_retire(&self, waker: &Waker) -> Poll<()> {
        self.poll_told(waker, !self.is_late)
    }

    fn poll_told(&self, waker: &Waker, retires: bool) -> Poll<()> {
        let connections = &self.dpu.0.connections;
        if connections.is_draining() || (retires && connections.is_retiring()) {
            return Poll::Ready(());
        }
        let mut wakers = connections.wakers.borrow_mut();
        match &mut wakers[self.place] {
            Some(known) => known.clone_from(waker),
            none => *none = Some(waker.clone()),
        }
        Poll::Pending
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.dpu.0.connections.leave(self.place);
    }
}
