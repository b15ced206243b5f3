//! Bytes that a peer could have written, through everything that reads them.
//!
//! ```text
//!   frame    1 byte for the ring, a header                   FrameHeader::admit
//!   packet   1 byte for the direction, a packet              ToDpa::decode, FromDpa::decode
//!   ring     images of a whole segment, one after another    LinkRx, and the heads that a Producer reads
//!   port     the same                                        Port with calls in flight
//!   pump     the same                                        Dpa with calls in flight, between honest ports
//! ```
//!
//! - An image is all that a peer can write; the reader is turned once after each. So a target sees what a peer does over
//!   time, and its input is still nothing but the bytes of segments.
//! - Nothing may panic; what is believed is within bounds; what is not believed stays closed; honest ports notice nothing.
//! - [`seeds`] writes what a correct peer writes, and mutations of it.

mod images;
mod node;
mod random;
pub mod seeds;
mod sides;

use cellmesh_shm::attach::{FromDpa, LANES_MAX, ToDpa};
use cellmesh_shm::frame::{Frame, FrameKind, FrameLimits, HEADER_WORDS, RingName, padded};
use cellmesh_shm::ids::EndpointId;
use cellmesh_shm::link::LinkSpec;
use cellmesh_shm::profile::RingProfile;

pub use images::ring;
pub use node::pump;
pub use sides::port;

/// Small rings: an image is 1,280 bytes, and a message of a few hundred goes in chunks.
const PROFILE: RingProfile =
    RingProfile { small_bytes: 512, chunk_bytes: 128, bulk_chunks: 2, inline_bytes_max: 192 };

/// What all links here look like; the third that a DPA makes has this generation.
const SPEC: LinkSpec =
    LinkSpec { endpoint: EndpointId(2), generation: 2, profile: PROFILE, message_bytes_max: 1 << 16 };

/// Images of one input: enough for a message in chunks with its credits, and back.
const IMAGES_MAX: usize = 12;

/// A header that is admitted is within its limits, and is what its words say.
pub fn frame(data: &[u8]) {
    let Some((&[ring], data)) = data.split_first_chunk() else { return };
    let Some(bytes) = data.first_chunk::<{ 8 * HEADER_WORDS }>() else { return };
    let words = std::array::from_fn(|word| {
        u64::from_le_bytes(bytes[8 * word..8 * word + 8].try_into().expect("eight bytes"))
    });
    let ring = if ring & 1 == 0 { RingName::Small } else { RingName::Bulk };
    let limits = FrameLimits::new(ring, SPEC.generation, &PROFILE, SPEC.message_bytes_max);
    let Ok(frame) = Frame::of(&words, &limits) else { return };
    let header = frame.header();
    assert_eq!(header.encode(), words, "admitted as something else");
    assert!(
        header.kind == FrameKind::Pad || header.kind.is_chunk() == (ring == RingName::Bulk),
        "{header:?}"
    );
    let carried = seeds::carries(header.kind);
    if carried.payload {
        assert!(header.payload_len <= limits.message_bytes_max, "{header:?}");
        assert!(padded(header.head_len()) <= u64::from(header.payload_len), "{header:?}");
    }
    assert!(!carried.behind || header.frame_len <= limits.frame_bytes_max, "{header:?}");
}

/// A packet that is understood says the same when it is encoded anew, and keeps the bounds of its messages.
pub fn packet(data: &[u8]) {
    let Some((&[direction], packet)) = data.split_first_chunk() else { return };
    if direction & 1 == 0 {
        let Ok(message) = ToDpa::decode(packet) else { return };
        if let ToDpa::Hello(hello) = &message {
            assert!((1..=LANES_MAX).contains(&hello.lanes));
            assert!(hello.profile.is_none_or(|profile| profile.validate().is_ok()));
        }
        assert_eq!(ToDpa::decode(&message.encode()), Ok(message));
    } else {
        let Ok(message) = FromDpa::decode(packet) else { return };
        if let FromDpa::Welcome(welcome) = &message {
            let specs = (0..welcome.links.len()).map(|lane| welcome.spec(lane).expect("a lane of it"));
            specs.for_each(|spec| spec.validate().expect("checked by the decoder"));
        }
        assert_eq!(FromDpa::decode(&message.encode()), Ok(message));
    }
}
