//! A request's body, read to its end within its limits.
//!
//! - A declared length over the limit is refused before a byte is read.
//! - Memory grows with what has arrived, not with what was promised.
//! - Trailers are read and dropped.

use std::future::poll_fn;
use std::pin::Pin;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use cellmesh_shm::clock::Nanos;
use hyper::body::{Body, Incoming};
use tokio::time::{Instant, timeout_at};

use crate::dpu::Received;
use crate::faults::Refusal;

/// Less than this is a small piece of a body.
const SMALL_PIECE_BYTES: usize = 1024;
/// A promise of more than that, or of more than has arrived, is believed when the bytes are there.
const BELIEVED_BYTES_LEAST: usize = 256;

/// The whole body, within the time that the request has.
///
/// - cost: a body of one piece is not copied; a longer one is copied once.
pub(super) async fn read(
    received: &mut Received,
    mut body: Incoming,
    deadline: Nanos,
) -> Result<Bytes, Refusal> {
    if body.is_end_stream() {
        return Ok(Bytes::new());
    }
    let config = &received.settings().config;
    let (limit, idle) = (config.body_bytes_max, config.body_idle_timeout.0);
    if body.size_hint().lower() > limit.0 {
        return Err(Refusal::BodyTooLarge { limit });
    }
    let until = Instant::now() + deadline.saturating_since(Nanos::now());
    let mut pieces = Pieces::default();
    while !body.is_end_stream() {
        let Some(piece) = next_piece(&mut body, idle, until).await? else {
            break;
        };
        if (pieces.len() + piece.len()) as u64 > limit.0 {
            return Err(Refusal::BodyTooLarge { limit });
        }
        received.hold(piece.len())?;
        pieces.push(piece, body.size_hint().lower(), body.is_end_stream());
    }
    Ok(pieces.join())
}

/// The next bytes; `None` at the end.
async fn next_piece(body: &mut Incoming, idle: Duration, until: Instant) -> Result<Option<Bytes>, Refusal> {
    loop {
        let patience = until.min(Instant::now() + idle);
        match timeout_at(patience, poll_fn(|cx| Pin::new(&mut *body).poll_frame(cx))).await {
            Err(_elapsed) => return Err(Refusal::BodyTooSlow),
            Ok(None) => return Ok(None),
            Ok(Some(Err(error))) => {
                return Err(Refusal::BadRequest(format!("the body cannot be read: {error}")));
            }
            Ok(Some(Ok(frame))) => {
                if let Ok(data) = frame.into_data() {
                    return Ok(Some(data));
                }
            }
        }
    }
}

/// What has arrived: nothing, one piece as it is, or all of them in one buffer.
#[derive(Default)]
struct Pieces {
    first: Bytes,
    joined: BytesMut,
}

impl Pieces {
    fn len(&self) -> usize {
        self.first.len() + self.joined.len()
    }

    /// - `expected`: bytes that are still to come, as far as that is known. `ended`: none are.
    fn push(&mut self, piece: Bytes, expected: u64, ended: bool) {
        let is_first = self.len() == 0;
        // A small piece of more is copied: kept as it is it would keep the whole buffer that it was read into.
        if is_first && (ended || piece.len() >= SMALL_PIECE_BYTES) {
            self.first = piece;
            return;
        }
        if self.joined.is_empty() {
            let arrived = self.first.len() + piece.len();
            let believed = BELIEVED_BYTES_LEAST.max(arrived);
            self.joined
                .reserve(arrived + usize::try_from(expected).map_or(believed, |room| room.min(believed)));
            self.joined.extend_from_slice(&std::mem::take(&mut self.first));
        }
        self.joined.extend_from_slice(&piece);
    }

    fn join(self) -> Bytes {
        if self.joined.is_empty() { self.first } else { self.joined.freeze() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A small piece with more behind it does not keep the buffer that it was read into, whether the length is known or not; one
    /// that is all there is, or large, is not copied.
    #[test]
    fn small_pieces_are_copied() {
        let buffer = Bytes::from(vec![b'x'; 8192]);
        let (small, large) = (buffer.slice(..10), buffer.slice(..SMALL_PIECE_BYTES));
        let keeps = |piece: &Bytes, expected, ended| {
            let mut pieces = Pieces::default();
            pieces.push(piece.clone(), expected, ended);
            let joined = pieces.join();
            assert_eq!(joined, *piece);
            joined.as_ptr() == buffer.as_ptr()
        };
        assert!(!keeps(&small, 100, false) && !keeps(&small, 0, false));
        assert!(keeps(&small, 0, true) && keeps(&large, 100, false));
        let mut pieces = Pieces::default();
        [&small, &large, &small].into_iter().for_each(|piece| pieces.push(piece.clone(), 0, false));
        assert_eq!(pieces.join(), buffer.slice(..2 * small.len() + large.len()));
    }
}
