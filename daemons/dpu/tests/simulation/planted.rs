//! Errors that are planted, to see that they are found: a simulation that cannot fail proves nothing.

use cellmesh_shm::message::{Fault, ResponseMessage};

use crate::plan::Name;
use crate::random::mix;

/// What goes wrong, once in [`EVERY`] of the chances.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Planted {
    /// An answer gets lost.
    LoseAnswer,
    /// An answer is another one's.
    SwapAnswer,
    /// An answer lacks its last byte.
    CutAnswer,
    /// A request gets to a cell a second time.
    Redeliver,
    /// A fault for no reason.
    InventFault,
    /// A client's request is never let go.
    LeakRequest,
}

/// Seldom enough that it is no load, often enough for a short run.
const EVERY: u64 = 64;

impl Planted {
    /// Whether it happens to this one.
    pub(crate) fn hits(self, name: Name) -> bool {
        mix(name.serial, name.node.into()).is_multiple_of(EVERY)
    }

    /// What becomes of this answer on its way.
    pub(crate) fn bend(self, name: Name, mut answer: ResponseMessage) -> Option<ResponseMessage> {
        if !self.hits(name) {
            return Some(answer);
        }
        match self {
            Self::LoseAnswer => return None,
            Self::SwapAnswer => answer.body = crate::random::pattern(answer.body.len() + 1, name.serial),
            Self::CutAnswer => answer.body.truncate(answer.body.len().saturating_sub(1)),
            Self::InventFault => return Some(ResponseMessage::faulted(Fault::WorkerLost)),
            Self::Redeliver | Self::LeakRequest => {}
        }
        Some(answer)
    }
}
