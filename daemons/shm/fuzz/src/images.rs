//! Images of a segment, and the two consumers that read them.

use cellmesh_shm::frame::{FrameHeader, FrameKind, FrameLimits, RingName};
use cellmesh_shm::layout::{RingPlace, segment_bytes};
use cellmesh_shm::link::LinkRx;
use cellmesh_shm::peer::Scratch;
use cellmesh_shm::ring::{Consumer, Payload, Producer, RingError};
use cellmesh_shm::segment::{self, Readable, Writable};

use crate::{IMAGES_MAX, PROFILE, SPEC};

/// The images of an input, the last perhaps of the first part of a segment only.
pub(crate) fn images(data: &[u8]) -> impl Iterator<Item = &[u8]> {
    data.chunks(segment_bytes(&PROFILE)).take(IMAGES_MAX)
}

std::thread_local! {
    /// The two segments of a link, used again: making them costs more than the rest.
    static SEGMENTS: (Side, Side) = (Side::new(), Side::new());
}

/// A segment, from both ends.
#[derive(Clone)]
struct Side {
    writable: Writable,
    readable: Readable,
    scratch: Scratch,
}

impl Side {
    fn new() -> Self {
        let (writable, readable) = segment::pair(segment_bytes(&PROFILE)).expect("memory");
        let scratch = Scratch::new(writable.clone(), PROFILE);
        Self { writable, readable, scratch }
    }
}

/// Whatever is taken lies inside the ring and inside what was published, until the first impossible thing; from then on
/// nothing is taken.
pub fn ring(data: &[u8]) {
    let (own, peer) = SEGMENTS.with(Clone::clone);
    (0..peer.scratch.words()).for_each(|word| peer.scratch.store(word, 0));
    let (small, bulk) = (RingPlace::small(&PROFILE), RingPlace::bulk(&PROFILE));
    let limits = |name| FrameLimits::new(name, SPEC.generation, &PROFILE, SPEC.message_bytes_max);
    let consumer = |place, name| {
        Consumer::new(own.writable.clone(), peer.readable.clone(), place, limits(name))
    };
    let mut rx = LinkRx { small: consumer(small, RingName::Small), bulk: consumer(bulk, RingName::Bulk) };
    let mut tx =
        Producer::new(own.writable.clone(), peer.readable.clone(), small, limits(RingName::Small));
    for image in images(data) {
        peer.scratch.fill(image);
        push(&mut tx);
        if let Err(error) = take_all(&mut rx, &peer.scratch) {
            assert_eq!(rx.refresh().expect_err("closed for ever"), error);
            return;
        }
    }
}

/// Writes what there is room for by the heads of the image.
fn push(tx: &mut Producer) {
    const FRAMES: u32 = 3;
    for _ in 0..FRAMES {
        let header =
            FrameHeader { frame_len: 100, payload_len: 100, ..FrameHeader::new(FrameKind::Request, 1) };
        // Full, or closed by an impossible head: both are right.
        let _ = tx.push(&header, Payload::Parts(&[], &[7; 100]));
    }
    tx.publish();
    if let Ok(occupied) = tx.occupied() {
        assert!(occupied <= tx.capacity());
    }
}

fn take_all(rx: &mut LinkRx, peer: &Scratch) -> Result<(), RingError> {
    rx.refresh()?;
    for ring in [&mut rx.bulk, &mut rx.small] {
        let mut taken = 0;
        while let Some(frame) = ring.peek_frame()? {
            let mut payload = Vec::new();
            // What was checked is what is used, whatever becomes of the original.
            let image = peer.image();
            peer.fill(&[0xff; 4096]);
            ring.payload(&frame).append_to(frame.frame_len() as usize, &mut payload);
            assert_eq!(payload.len(), frame.frame_len() as usize);
            ring.release(&frame);
            peer.fill(&image);
            taken += 64 + frame.frame_len();
        }
        assert!(taken <= PROFILE.small_bytes, "more than the ring holds");
    }
    let _ = rx.publish();
    Ok(())
}
