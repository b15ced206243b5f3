//! Headers and whole segments that a hostile peer could have written, through the real decoder and the real ring (R-4).
//!
//! The default takes seconds. All of it, 10^9 random and 10^9 mutated headers, takes some minutes:
//!
//! ```text
//! CARGO_PROFILE_RELEASE_OVERFLOW_CHECKS=true CELLMESH_HOSTILE_FRAMES=1000000000 cargo test --release -p cellmesh-shm hostile
//! ```
//!
//! - Nothing may panic (overflow checks are on in test builds, and in the long run above), and what is accepted must be within bounds by
//!   [`in_bounds`], which computes with 128-bit integers and shares no code with the decoder.

use super::*;
use crate::profile::{BULK_CHUNKS_MOST, RingProfile};
use crate::segment;

const PROFILE: RingProfile =
    RingProfile { small_bytes: 1024, chunk_bytes: 256, bulk_chunks: 4, inline_bytes_max: 448 };
const MESSAGE_BYTES_MAX: u32 = 100_000;
const GENERATION: u32 = 7;
const FRAMES_DEFAULT: u64 = 5_000_000;

fn frames() -> u64 {
    match std::env::var("CELLMESH_HOSTILE_FRAMES") {
        Ok(frames) => frames.parse().expect("CELLMESH_HOSTILE_FRAMES is a number"),
        Err(_) => FRAMES_DEFAULT,
    }
}

/// Source: Marsaglia, "Xorshift RNGs" (2003).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        let index = usize::try_from(self.below(from.len() as u64)).expect("less than a length");
        from[index]
    }

    /// Values around which things go wrong, and any other.
    fn edge(&mut self) -> u64 {
        let bits = self.below(65);
        let power = if bits == 64 { 0 } else { 1u64 << bits };
        match self.below(4) {
            0 => power,
            1 => power.wrapping_sub(1),
            2 => self.pick(&[448u64, 449, 192, 193, 100_000, 100_001, 1024, 1025, 99, 100, 999, 1000]),
            _ => self.next(),
        }
    }
}

fn limits(ring: RingName) -> FrameLimits {
    FrameLimits::new(ring, GENERATION, &PROFILE, MESSAGE_BYTES_MAX)
}

/// A header that a correct peer could write.
fn honest(random: &mut Random) -> FrameHeader {
    let small = |random: &mut Random, bound| u32::try_from(random.below(bound)).expect("a small bound");
    let short = |random: &mut Random, bound| u16::try_from(random.below(bound)).expect("a small bound");
    let kind = random.pick(&FrameKind::ALL);
    let mut header = FrameHeader { generation: GENERATION, ..FrameHeader::new(kind, random.next()) };
    match kind {
        FrameKind::Request
        | FrameKind::Response
        | FrameKind::RequestAnnounce
        | FrameKind::ResponseAnnounce => {
            header.status = 100 + short(random, 900);
            (header.method_len, header.target_len) = (short(random, 8), short(random, 40));
            header.headers_len = small(random, 300);
            header.payload_len = 352 + small(random, 97);
            if matches!(kind, FrameKind::Request | FrameKind::Response) {
                header.frame_len = header.payload_len;
            }
        }
        FrameKind::RequestCredit | FrameKind::ResponseCredit => header.credit = 1 + small(random, 4),
        FrameKind::RequestChunk | FrameKind::ResponseChunk => header.frame_len = 1 + small(random, 192),
        FrameKind::Cancel | FrameKind::FlowInstall | FrameKind::FlowRemove | FrameKind::Pad => {}
    }
    header
}

/// Changes a few bits or fields.
fn mutate(random: &mut Random, words: &mut [u64; HEADER_WORDS]) {
    for _ in 0..random.below(4) {
        let word = random.pick(&[0, 0, 1, 2, 3, 3, 3, 4, 4, 5, 6, 7]);
        let shift = random.pick(&[0, 8, 16, 32, 48]);
        match random.below(3) {
            0 => words[word] ^= 1 << random.below(64),
            1 => words[word] = random.edge(),
            _ => words[word] = words[word] & !(0xffff << shift) | random.edge() << shift,
        }
    }
}

/// Whether a header that was accepted can do no harm: the bounds that the rest of the code relies on.
fn in_bounds(words: &[u64; HEADER_WORDS], ring: RingName) -> bool {
    let field = |word: usize, from: u32, bits: u32| u128::from(words[word] >> from) & ((1 << bits) - 1);
    let (kind, status) = (field(0, 8, 8), field(0, 32, 16));
    let (payload_len, frame_len) = (field(3, 0, 32), field(3, 32, 32));
    let head = (field(4, 0, 16) + field(4, 16, 16) + field(4, 32, 32)).div_ceil(8) * 8;
    let whole = matches!(kind, 1 | 2);
    let announced = matches!(kind, 3 | 4);
    let chunk = matches!(kind, 7 | 8);
    let frame_max = if chunk { 192 } else { 448 };
    (1..=12).contains(&kind)
        && chunk == (ring == RingName::Bulk)
        && (kind == 12 || frame_len <= frame_max)
        && (!whole || frame_len == payload_len)
        && (whole || chunk || kind == 12 || frame_len == 0)
        && (!(whole || announced) || (head <= payload_len && payload_len <= u128::from(MESSAGE_BYTES_MAX)))
        && (!matches!(kind, 2 | 4) || (100..=999).contains(&status))
        && (!matches!(kind, 5 | 6) || (1..=u128::from(BULK_CHUNKS_MOST)).contains(&field(6, 0, 32)))
        && field(5, 32, 32) == u128::from(GENERATION)
}

/// Decodes `frames` headers that `next` makes; returns how many were accepted, and rejected by reason.
fn decode(
    frames: u64,
    mut next: impl FnMut(&mut Random) -> [u64; HEADER_WORDS],
) -> (u64, [u64; FrameError::REASONS.len()]) {
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let mut accepted = 0;
    let mut rejected = [0; FrameError::REASONS.len()];
    for _ in 0..frames {
        let words = next(&mut random);
        let ring = random.pick(&[RingName::Small, RingName::Small, RingName::Bulk]);
        match Frame::of(&words, &limits(ring)) {
            Ok(header) => {
                assert!(in_bounds(&words, ring), "{header:?} was accepted on the {ring} ring");
                accepted += 1;
            }
            Err(error) => rejected[error.reason()] += 1,
        }
    }
    assert_eq!(accepted + rejected.iter().sum::<u64>(), frames);
    (accepted, rejected)
}

/// Headers that are almost right: none is accepted out of bounds, and every rule is the first to be broken by some.
#[test]
fn mutated_headers_stay_in_bounds() {
    let (accepted, rejected) = decode(frames(), |random| {
        let mut words = honest(random).encode();
        mutate(random, &mut words);
        words
    });
    assert!(accepted > frames() / 10, "the mutations leave something right: {accepted}");
    for (count, reason) in rejected.iter().zip(FrameError::REASONS) {
        // What a ring has published is the ring's to check, see below.
        assert_eq!(*count == 0, reason == "overrun", "rejected for {reason}: {count}");
    }
}

/// Headers of random bits, half of them with a right first byte.
#[test]
fn random_headers_stay_in_bounds() {
    decode(frames(), |random| {
        let mut words: [u64; HEADER_WORDS] = std::array::from_fn(|_| random.next());
        if random.below(2) == 0 {
            words[0] = words[0] & !0xffff | 0xc1 | random.below(14) << 8;
            words[5] = words[5] & 0xffff_ffff | u64::from(GENERATION) << 32;
            words[6] &= 0xffff_ffff;
            words[7] = 0;
        }
        words
    });
}

/// Segments in which anything may be written at any time: whatever a consumer takes lies inside the ring and inside
/// what was published, until the first impossible thing closes it.
#[test]
fn garbage_segments_never_lead_outside() {
    let mut random = Random(0x0123_4567_89ab_cdef);
    let (mut taken, mut closed) = (0u64, 0u64);
    for _ in 0..frames() / 20 {
        let place = random.pick(&[RingPlace::small(&PROFILE), RingPlace::bulk(&PROFILE)]);
        let ring = if place.unit == LINE_BYTES { RingName::Small } else { RingName::Bulk };
        let mut segment = GarbageSegment::new(place, ring);
        for _ in 0..8 {
            segment.scribble(&mut random);
            match segment.take_all(&mut random) {
                Ok(frames) => taken += frames,
                Err(error) => {
                    closed += 1;
                    assert_eq!(segment.consumer.refresh(), Err(error), "closed for ever");
                    assert_eq!(segment.consumer.peek_frame(), Err(error), "closed for ever");
                    break;
                }
            }
        }
    }
    assert!(taken > 1000 && closed > 1000, "both happen: {taken} taken, {closed} closed");
}

std::thread_local! {
    /// One pair of segments, used again: making one costs more than the rest of a round.
    static SEGMENTS: (Writable, Readable) =
        segment::pair(crate::layout::segment_bytes(&PROFILE)).expect("memory");
}

struct GarbageSegment {
    peer: Writable,
    consumer: Consumer,
    place: RingPlace,
    tail: u32,
}

impl GarbageSegment {
    fn new(place: RingPlace, ring: RingName) -> Self {
        let (peer, readable) = SEGMENTS.with(Clone::clone);
        peer.words().iter().for_each(|word| word.store(0, Ordering::Relaxed));
        // Where it publishes its own head does not matter here: behind everything that is read.
        let consumer = Consumer::new(peer.clone(), readable, place, limits(ring));
        Self { peer, consumer, place, tail: 0 }
    }

    /// Frames that are almost right, almost where they should be, and a tail that almost fits them.
    fn scribble(&mut self, random: &mut Random) {
        for _ in 0..random.below(4) {
            let header = honest(random);
            let mut words = header.encode();
            if random.below(4) == 0 {
                mutate(random, &mut words);
            }
            let at = self.place.word_of(self.tail);
            for (to, word) in self.peer.words()[at..].iter().zip(words) {
                to.store(word, Ordering::Relaxed);
            }
            self.tail = self.tail.wrapping_add(self.place.footprint(header.frame_len.min(448)));
        }
        let tail = if random.below(16) == 0 { random.edge() } else { u64::from(self.tail) };
        self.peer.words()[self.place.tail_word].store(tail, Ordering::Relaxed);
    }

    fn take_all(&mut self, random: &mut Random) -> Result<u64, RingError> {
        let mut taken = 0;
        self.consumer.refresh()?;
        while let Some(frame) = self.consumer.peek_frame()? {
            // The peer changes the header after it was checked: what was checked is what counts.
            let at = self.place.word_of(self.consumer.head);
            self.peer.words()[at + 3].store(random.next(), Ordering::Relaxed);
            let mut payload = Vec::new();
            self.consumer.payload(&frame).append_to(frame.frame_len() as usize, &mut payload);
            assert_eq!(payload.len(), frame.frame_len() as usize);
            self.consumer.release(&frame);
            assert!(
                self.consumer.tail.wrapping_sub(self.consumer.head) <= self.place.capacity,
                "past the tail"
            );
            taken += 1;
        }
        Ok(taken)
    }
}
