//! An answer's body on its way to the client: in pieces, and counted until the last of them is taken.
//!
//! - An HTTP/2 client says how much it takes: what it does not take stays here, and not in hyper's buffers.
//! - What all clients have not taken yet is bounded ([`crate::DpuConfig::answer_bytes_max`]).

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};

use crate::dpu::HeldAnswer;

/// What hyper is given at once.
const PIECE_BYTES: usize = 64 * 1024;

/// The body of an answer.
pub(super) struct ReplyBody {
    rest: Bytes,
    held: Option<HeldAnswer>,
}

impl ReplyBody {
    /// A body of the mesh's own: short, and not counted.
    pub(super) fn short(bytes: Bytes) -> Self {
        Self { rest: bytes, held: None }
    }

    /// The body of an answer that is counted by `held`.
    pub(super) fn counted(bytes: Bytes, held: HeldAnswer) -> Self {
        Self { rest: bytes, held: Some(held) }
    }

    /// Bytes not yet taken.
    pub(super) fn len(&self) -> usize {
        self.rest.len()
    }
}

impl Body for ReplyBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if self.rest.is_empty() {
            return Poll::Ready(None);
        }
        let at = self.rest.len().min(PIECE_BYTES);
        let piece = self.rest.split_to(at);
        if self.rest.is_empty() {
            self.held = None;
        }
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.rest.len() as u64)
    }
}
