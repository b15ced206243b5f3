use super::*;
use crate::profile::RingProfile;
use crate::segment;

const PROFILE: RingProfile =
    RingProfile { small_bytes: 512, chunk_bytes: 128, bulk_chunks: 4, inline_bytes_max: 192 };

/// Both sides of one ring, and the counters that the other side would write.
struct TestRing {
    producer: Producer,
    consumer: Consumer,
    tails: Writable,
    heads: Writable,
    place: RingPlace,
}

impl TestRing {
    fn new() -> Self {
        Self::of(RingName::Small, RingPlace::small(&PROFILE))
    }

    fn of(ring: RingName, place: RingPlace) -> Self {
        let bytes = crate::layout::segment_bytes(&PROFILE);
        let (tails, tails_read) = segment::pair(bytes).expect("memory");
        let (heads, heads_read) = segment::pair(bytes).expect("memory");
        let limits = FrameLimits::new(ring, 1, &PROFILE, 1 << 20);
        Self {
            producer: Producer::new(tails.clone(), heads_read, place, limits),
            consumer: Consumer::new(heads.clone(), tails_read, place, limits),
            tails,
            heads,
            place,
        }
    }

    /// As if so many bytes had gone through already.
    fn started_at(mut self, counter: u32) -> Self {
        let Self { producer, consumer, .. } = &mut self;
        (producer.tail, producer.published, producer.head) = (counter, counter, counter);
        (consumer.head, consumer.published, consumer.tail) = (counter, counter, counter);
        self.tails.words()[self.place.tail_word].store(u64::from(counter), Ordering::Relaxed);
        self.heads.words()[self.place.head_word].store(u64::from(counter), Ordering::Relaxed);
        self
    }

    fn push(&mut self, body: &[u8]) -> bool {
        self.producer.push(&frame(body), Payload::Parts(&[], body)).expect("an honest consumer")
    }

    /// Takes all that was published, and gives the room back.
    fn take_all(&mut self) -> Vec<Vec<u8>> {
        self.consumer.refresh().expect("an honest producer");
        let mut taken = Vec::new();
        while let Some(frame) = self.consumer.peek_frame().expect("an honest producer") {
            let mut body = Vec::new();
            self.consumer.payload(&frame).append_to(frame.frame_len() as usize, &mut body);
            self.consumer.release(&frame);
            taken.push(body);
        }
        self.consumer.publish();
        taken
    }
}

fn frame(body: &[u8]) -> FrameHeader {
    let len = u32::try_from(body.len()).expect("a small body");
    FrameHeader { frame_len: len, payload_len: len, ..FrameHeader::new(FrameKind::Request, 7) }
}

/// What is pushed is seen after it is published, in order and byte for byte.
#[test]
fn frames_come_out_as_they_went_in() {
    let mut ring = TestRing::new();
    assert!(ring.push(b"first") && ring.push(b"") && ring.push(&[7; 192]));
    assert_eq!(ring.take_all(), Vec::<Vec<u8>>::new(), "nothing is published yet");
    assert!(ring.producer.publish());
    assert_eq!(ring.take_all(), [b"first".to_vec(), Vec::new(), vec![7; 192]]);
    assert!(!ring.producer.publish(), "nothing new");
}

/// What is written is counted with how often the reader was told of it, a pad is no frame; both sides see what waits, and a
/// counter that cannot be is passed over.
#[test]
fn batches_are_counted_and_what_waits_is_seen() {
    let mut ring = TestRing::new();
    let waiting = |ring: &TestRing| (ring.producer.waiting_bytes(), ring.consumer.waiting_bytes());
    assert!(ring.push(&[1; 192]) && ring.push(&[2; 64]));
    assert_eq!(waiting(&ring), (0, 0), "nobody was told");
    ring.producer.publish();
    assert_eq!(waiting(&ring), (384, 384));
    assert_eq!(ring.take_all().len(), 2);
    assert_eq!(waiting(&ring), (0, 0));
    assert!(ring.push(&[3; 100]), "behind a pad");
    ring.producer.publish();
    ring.producer.publish();
    assert_eq!(ring.producer.batches(), Batches { frames: 3, publishes: 2 });
    assert_eq!(waiting(&ring), (320, 320));
    ring.tails.words()[ring.place.tail_word].store(7, Ordering::Relaxed);
    ring.heads.words()[ring.place.head_word].store(7, Ordering::Relaxed);
    assert_eq!(waiting(&ring), (320, 0), "as last believed");
}

/// A full ring refuses a frame, keeps what it has, and takes the frame after the consumer has made room.
#[test]
fn full_ring_is_backpressure() {
    let mut ring = TestRing::new();
    assert!(ring.push(&[1; 192]) && ring.push(&[2; 192]));
    assert!(!ring.push(&[3; 1]));
    ring.producer.publish();
    assert!(!ring.push(&[3; 1]), "published is not read");
    assert_eq!(ring.take_all().len(), 2);
    assert!(ring.push(&[3; 1]));
}

/// A frame that would reach around the end starts at the beginning; the pad is seen by nobody.
#[test]
fn frame_at_the_wrap_is_contiguous() {
    let mut ring = TestRing::new();
    assert!(ring.push(&[1; 192]));
    ring.producer.publish();
    assert_eq!(ring.take_all().len(), 1);
    assert!(ring.push(&[2; 128]) && ring.push(&[3; 100]));
    ring.producer.publish();
    assert_eq!(ring.producer.tail, 512 + 192, "the third frame starts at 512, behind a pad of 64");
    assert_eq!(ring.take_all(), [vec![2; 128], vec![3; 100]]);
}

/// An empty ring takes a frame of the largest size wherever it stands.
#[test]
fn largest_frame_always_fits_an_empty_ring() {
    for start in (0..512).step_by(64) {
        let mut ring = TestRing::new().started_at(start);
        assert!(ring.push(&[1; 192]), "at {start}");
    }
}

/// Each frame on the bulk ring takes the room of a chunk, so that exactly as many fit as the profile says.
#[test]
fn bulk_ring_holds_its_chunks() {
    let mut ring = TestRing::of(RingName::Bulk, RingPlace::bulk(&PROFILE)).started_at(u32::MAX - 127);
    for seq in 0..9 {
        for frame_len in [1, 64, 64, 64, 1] {
            let chunk = FrameHeader { frame_len, seq, ..FrameHeader::new(FrameKind::RequestChunk, 7) };
            let fits = ring.producer.occupied() != Ok(512);
            assert_eq!(
                ring.producer.push(&chunk, Payload::Parts(&[], &[9; 64][..frame_len as usize])),
                Ok(fits)
            );
        }
        assert_eq!(ring.producer.occupied(), Ok(512));
        ring.producer.publish();
        assert_eq!(ring.take_all().len(), 4);
        assert_eq!(ring.producer.occupied(), Ok(0));
    }
}

/// A producer that claims more than the ring holds is cut off for ever: no panic, nothing taken.
#[test]
fn tail_past_capacity_closes_ring() {
    let mut ring = TestRing::new().started_at(64);
    ring.tails.words()[ring.place.tail_word].store(64 + 576, Ordering::Relaxed);
    let error = ring.consumer.refresh().unwrap_err();
    assert_eq!(error.to_string(), "small ring: tail 640 where 64 to 576 can be, in whole lines");
    ring.tails.words()[ring.place.tail_word].store(128, Ordering::Relaxed);
    assert_eq!(ring.consumer.refresh(), Err(error), "the error stays");
    assert_eq!(ring.consumer.peek_frame(), Err(error));
}

/// What is published and not taken yet counts: a tail that is within the ring of itself, but not of the head, is refused.
#[test]
fn tail_past_what_is_not_taken_closes_ring() {
    for (tail, expected) in [(64 + 512, true), (64 + 512 + 64, false), (128 + 512, false)] {
        let mut ring = TestRing::new().started_at(64);
        assert!(ring.push(&[]) && ring.push(&[]));
        ring.producer.publish();
        assert_eq!(ring.consumer.refresh(), Ok(true));
        ring.tails.words()[ring.place.tail_word].store(tail, Ordering::Relaxed);
        let refreshed = ring.consumer.refresh();
        assert_eq!(refreshed.is_ok(), expected, "tail {tail}");
        if let Err(error) = refreshed {
            assert_eq!(ring.consumer.peek_frame(), Err(error), "what was seen before is not given any more");
            assert!(!ring.consumer.has_no_news(), "who looks for news hears of it");
        }
    }
}

/// No news is the counter as it was, across its wrap too; anything else is news, sane or not.
#[test]
fn news_is_any_other_tail() {
    let mut ring = TestRing::new().started_at(u32::MAX - 63);
    assert!(ring.consumer.has_no_news());
    assert!(ring.push(&[]) && ring.push(&[]));
    assert!(ring.consumer.has_no_news(), "nothing is published");
    ring.producer.publish();
    assert!(!ring.consumer.has_no_news());
    assert_eq!(ring.consumer.refresh(), Ok(true));
    assert!(ring.consumer.has_no_news() && ring.consumer.has_seen());
    let word = &ring.tails.words()[ring.place.tail_word];
    word.store(word.load(Ordering::Relaxed) | 1 << 32, Ordering::Relaxed);
    assert!(!ring.consumer.has_no_news(), "its upper half counts");
    assert!(ring.consumer.refresh().is_err());
}

/// A tail that goes back, is not on a line, or does not fit 32 bits closes the ring.
#[test]
fn impossible_tails_close_ring() {
    for tail in [0, 64 - 64, 100, 1 << 32, u64::MAX, (1 << 32) | 128] {
        let mut ring = TestRing::new().started_at(64);
        ring.tails.words()[ring.place.tail_word].store(tail, Ordering::Relaxed);
        assert!(ring.consumer.refresh().is_err(), "tail {tail} was believed");
    }
}

/// A consumer that claims to have read what was not published, or gives a counter back, closes the ring.
#[test]
fn impossible_heads_close_ring() {
    for head in [0, 64 + 192, 100, 1 << 32, u64::MAX] {
        let mut ring = TestRing::new().started_at(64);
        assert!(ring.push(&[1; 64]));
        ring.producer.publish();
        assert!(ring.push(&[1; 64]), "written, but not published");
        ring.heads.words()[ring.place.head_word].store(head, Ordering::Relaxed);
        let error = ring.producer.occupied().unwrap_err();
        assert!(error.to_string().starts_with("small ring: head"), "{error}");
        ring.heads.words()[ring.place.head_word].store(128, Ordering::Relaxed);
        assert_eq!(ring.producer.occupied(), Err(error), "the error stays");
    }
}

/// A header that reaches beyond what was published, or around the end of the ring, is not believed.
#[test]
fn frame_past_its_publication_closes_ring() {
    let mut ring = TestRing::new();
    let long = FrameHeader { frame_len: 128, payload_len: 128, generation: 1, ..frame(&[]) };
    for (to, word) in ring.tails.words()[ring.place.first_word..].iter().zip(long.encode()) {
        to.store(word, Ordering::Relaxed);
    }
    ring.tails.words()[ring.place.tail_word].store(128, Ordering::Relaxed);
    assert_eq!(ring.consumer.refresh(), Ok(true));
    let error = ring.consumer.peek_frame().unwrap_err();
    assert_eq!(error.to_string(), "small ring: frame of 192 bytes where 128 are published");
}

/// A pad that does not end with the ring is not believed: it could hide frames or lead outside.
#[test]
fn false_pad_closes_ring() {
    for frame_len in [0, 64, 512, u32::MAX] {
        let mut ring = TestRing::new();
        let pad = FrameHeader { frame_len, generation: 1, ..FrameHeader::new(FrameKind::Pad, 0) };
        for (to, word) in ring.tails.words()[ring.place.first_word..].iter().zip(pad.encode()) {
            to.store(word, Ordering::Relaxed);
        }
        ring.tails.words()[ring.place.tail_word].store(256, Ordering::Relaxed);
        assert_eq!(ring.consumer.refresh(), Ok(true));
        let error = ring.consumer.peek_frame().unwrap_err();
        let believed = !matches!(error, RingError::Frame { error: FrameError::Overrun { .. }, .. });
        assert!(!believed, "a pad of {frame_len} was believed: {error}");
    }
}

/// Two threads pass frames of every length through a ring that is mostly full or empty, and across the wrap of the
/// counters. Under Miri this also looks for data races and stale reads.
#[test]
fn two_threads_pass_frames() {
    let frames: usize = if cfg!(miri) { 60 } else { 100_000 };
    let body = |n: usize| vec![n.to_le_bytes()[0]; n % 193];
    let TestRing { mut producer, mut consumer, .. } = TestRing::new().started_at(0u32.wrapping_sub(1024));
    let pushing = std::thread::spawn(move || {
        for n in 0..frames {
            while !producer.push(&frame(&body(n)), Payload::Parts(&[], &body(n))).expect("an honest consumer")
            {
                std::thread::yield_now();
            }
            producer.publish();
        }
    });
    let mut taken = 0;
    while taken < frames {
        if !consumer.refresh().expect("an honest producer") {
            std::thread::yield_now();
        }
        while let Some(frame) = consumer.peek_frame().expect("an honest producer") {
            let mut found = Vec::new();
            consumer.payload(&frame).append_to(frame.frame_len() as usize, &mut found);
            consumer.release(&frame);
            assert_eq!(found, body(taken));
            taken += 1;
        }
        consumer.publish();
    }
    pushing.join().expect("it did not panic");
}

#[cfg(not(miri))] // Its random numbers take Miri minutes.
mod model {
    use std::collections::VecDeque;

    use proptest::prelude::*;

    use super::*;

    #[derive(Debug, Clone)]
    enum Move {
        Push(Vec<u8>),
        Publish,
        Take(usize),
        GiveBack,
    }

    fn moves() -> impl Strategy<Value = Vec<Move>> {
        let one = prop_oneof![
            4 => proptest::collection::vec(any::<u8>(), 0..=192).prop_map(Move::Push),
            2 => Just(Move::Publish),
            3 => (0..6usize).prop_map(Move::Take),
            2 => Just(Move::GiveBack),
        ];
        proptest::collection::vec(one, 1..200)
    }

    /// The slow, obvious ring: frames written, how many of them are published, what the consumer has seen.
    #[derive(Default)]
    struct Queue {
        written: VecDeque<Vec<u8>>,
        published: usize,
    }

    fn run(start: u32, moves: &[Move]) -> Result<(), TestCaseError> {
        let mut ring = TestRing::new().started_at(start);
        let mut queue = Queue::default();
        for next in moves {
            match next {
                Move::Push(body) => {
                    let pushed = ring.push(body);
                    prop_assert!(
                        pushed || !queue.written.is_empty() || ring.consumer.published != ring.consumer.head
                    );
                    if pushed {
                        queue.written.push_back(body.clone());
                    }
                }
                Move::Publish => {
                    ring.producer.publish();
                    queue.published = queue.written.len();
                }
                Move::Take(count) => take(&mut ring, &mut queue, *count)?,
                Move::GiveBack => _ = ring.consumer.publish(),
            }
        }
        ring.producer.publish();
        prop_assert_eq!(ring.take_all(), Vec::from(queue.written), "what is left comes out at the end");
        Ok(())
    }

    fn take(ring: &mut TestRing, queue: &mut Queue, count: usize) -> Result<(), TestCaseError> {
        let seen = ring.consumer.refresh().expect("an honest producer");
        prop_assert_eq!(seen, queue.published > 0);
        for _ in 0..count {
            let frame = ring.consumer.peek_frame().expect("an honest producer");
            prop_assert_eq!(frame.is_some(), queue.published > 0);
            let Some(frame) = frame else { break };
            let mut body = Vec::new();
            ring.consumer.payload(&frame).append_to(frame.frame_len() as usize, &mut body);
            prop_assert_eq!(Some(body), queue.written.pop_front());
            queue.published -= 1;
            ring.consumer.release(&frame);
        }
        Ok(())
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

        /// Any schedule of pushes, publications and takes gives what a queue would give, also across the wrap of the
        /// counters.
        #[test]
        fn ring_is_a_queue(lines_before_wrap in 0..40u32, moves in moves()) {
            run(0u32.wrapping_sub(64 * lines_before_wrap), &moves)?;
        }
    }
}
