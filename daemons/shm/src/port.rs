//! Messages over a link: what a worker lane or a sidecar lane holds.

use crate::ids::{CallId, ServiceId, SlotId};
use crate::message::{RequestMessage, ResponseMessage};

/// Whether a pump did anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Progress {
    /// Nothing to do; the caller may sleep.
    #[default]
    Idle,
    /// Something moved; pump again.
    Moved,
}

impl Progress {
    /// Whether something moved.
    #[must_use]
    #[inline]
    pub fn moved(self) -> bool {
        self == Self::Moved
    }
}

impl From<bool> for Progress {
    #[inline]
    fn from(moved: bool) -> Self {
        if moved { Self::Moved } else { Self::Idle }
    }
}

impl std::ops::BitOrAssign for Progress {
    #[inline]
    fn bitor_assign(&mut self, other: Self) {
        if other.moved() {
            *self = Self::Moved;
        }
    }
}

/// Bounds of one port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PortConfig {
    /// Own calls in flight at once.
    pub calls_max: u32,
    /// Longest message: head and body together, in bytes.
    pub message_bytes_max: u32,
    /// Bytes of large messages that may be put together at once; further ones wait for their turn.
    pub assembly_bytes_max: u64,
}

/// What came in.
#[derive(Debug)]
pub enum Arrived {
    /// A request to be answered with [`Port::respond`].
    Request {
        /// Name it in the response.
        slot: SlotId,
        /// The whole request.
        message: RequestMessage,
    },
    /// The one outcome of a call.
    Response {
        /// The call, as [`Port::call`] named it.
        call: CallId,
        /// The whole response, or a fault.
        message: ResponseMessage,
    },
    /// Nobody waits for the answer to this request any more; [`Port::respond`] need not be called.
    Cancelled {
        /// The request.
        slot: SlotId,
    },
}

/// A call that was not made; the message comes back.
#[derive(Debug)]
pub struct CallRefused {
    /// The message.
    pub message: RequestMessage,
    /// Why.
    pub why: Refusal,
}

/// Why a call was not made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// `calls_max` calls are in flight.
    Busy,
    /// Longer than `message_bytes_max`.
    TooLarge,
}

/// The other side broke a rule of the rings: the port is closed for ever.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("port closed")]
pub struct PortError;

/// One side of a link, speaking in messages.
#[derive(Debug)]
pub struct Port {
    #[expect(
        dead_code,
        reason = "signatures first; the implementation follows in the next commit"
    )]
    config: PortConfig,
}

#[expect(
    clippy::todo,
    clippy::unused_self,
    unused_variables,
    reason = "signatures first; the implementation follows in the next commit"
)]
impl Port {
    // pub fn new(link: Link, config: PortConfig) -> Self

    /// Sends a request. Call [`Port::flush`] after a batch.
    /// # Errors
    /// [`CallRefused`] gives the message back when `calls_max` are in flight or it is too large.
    #[expect(clippy::result_large_err, reason = "gives the message back")]
    pub fn call(&mut self, message: RequestMessage) -> Result<CallId, CallRefused> {
        todo!()
    }

    /// Gives a call up: no [`Arrived::Response`] will come for it.
    pub fn cancel(&mut self, call: CallId) {
        todo!()
    }

    /// Answers a request. An answer that nobody waits for is dropped and counted.
    pub fn respond(&mut self, slot: SlotId, message: ResponseMessage) {
        todo!()
    }

    /// Sidecar only: from now on calls to `service` go worker to worker.
    pub fn install_flow(&mut self, service: ServiceId) {
        todo!()
    }

    /// Sidecar only: from now on calls to `service` come here first.
    pub fn remove_flow(&mut self, service: ServiceId) {
        todo!()
    }

    /// The next thing that came in. Ok(None): nothing more now.
    /// # Errors
    /// [`PortError`] if the other side broke a rule; the port stays closed.
    pub fn poll(&mut self) -> Result<Option<Arrived>, PortError> {
        todo!()
    }

    /// Pushes what waits, publishes all once, rings the doorbell if the other side sleeps.
    pub fn flush(&mut self) -> Progress {
        todo!()
    }

    /// Own calls without an outcome yet.
    #[must_use]
    pub fn in_flight(&self) -> u32 {
        todo!()
    }
}
