//! Models of the protocols between the two sides of a link, in every order that the memory model allows.
//!
//! `RUSTFLAGS="--cfg loom" cargo test --profile model -p cellmesh-shm --test loom`
//!
//! - The code under test is the ring and the sleep flag themselves, over words that loom watches.
//! - A ring of two lines, at most four frames: every wrap, every full ring, every empty one.
//! - Each ordering that the protocols need is left out once (`planted_*`): those models must fail.
//! - Not seen by loom: a consumer that publishes `head` before it has read (loom runs loads in program order). Miri and
//!   the argument at `Consumer::release` stand for that.
#![cfg(loom)]

use std::sync::Arc;

use cellmesh_shm::doorbell::{News, PeerSleep, SleepFlag};
use cellmesh_shm::frame::{FrameHeader, FrameKind, FrameLimits, RingName};
use cellmesh_shm::layout::{RingPlace, segment_bytes};
use cellmesh_shm::profile::RingProfile;
use cellmesh_shm::ring::{Consumer, Payload, Producer};
use cellmesh_shm::rings::{LinkRx, publish_frames};
use cellmesh_shm::segment;
use cellmesh_shm::sync::planted::{Bug, plant};
use loom::sync::{Condvar, Mutex, Notify};
use loom::thread;

/// Room for two frames without payload.
const TWO_LINES: RingProfile =
    RingProfile { small_bytes: 128, chunk_bytes: 64, bulk_chunks: 0, inline_bytes_max: 0 };

/// What the two sides of a link hold, as far as these protocols go.
struct Sides {
    producer: Producer,
    producer_peer_sleep: PeerSleep,
    producer_sleep: SleepFlag,
    consumer: Consumer,
    consumer_peer_sleep: PeerSleep,
    consumer_sleep: SleepFlag,
}

impl Sides {
    fn new() -> Self {
        let bytes = segment_bytes(&TWO_LINES);
        let (near, near_read) = segment::pair(bytes).expect("words");
        let (far, far_read) = segment::pair(bytes).expect("words");
        let place = RingPlace::small(&TWO_LINES);
        let limits = FrameLimits::new(RingName::Small, 0, &TWO_LINES, 0);
        Self {
            producer: Producer::new(near.clone(), far_read.clone(), place, limits),
            producer_peer_sleep: PeerSleep::new(far_read.clone()),
            producer_sleep: SleepFlag::new(near.clone()),
            consumer: Consumer::new(far.clone(), near_read.clone(), place, limits),
            consumer_peer_sleep: PeerSleep::new(near_read),
            consumer_sleep: SleepFlag::new(far),
        }
    }
}

/// Every order, however often the threads take turns: these models are small enough.
fn check(model: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.max_branches = 100_000;
    builder.check(model);
}

/// Every order in which a thread is interrupted at most four times, for a model with too many others.
fn check_with_few_turns(model: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.max_branches = 100_000;
    builder.preemption_bound = Some(4);
    builder.check(model);
}

fn push(producer: &mut Producer, token: u64) -> bool {
    producer.push(&FrameHeader::new(FrameKind::Cancel, token), Payload::Empty).expect("an honest consumer")
}

/// The next frame, if the last refresh saw one.
fn take(consumer: &mut Consumer) -> Option<u64> {
    let frame = consumer.peek_frame().expect("an honest producer")?;
    consumer.release(&frame);
    Some(frame.token())
}

/// Everything that is pushed is taken once, in order and whole, one by one through a ring of two.
fn frames_cross() {
    let Sides { mut producer, mut consumer, .. } = Sides::new();
    let pushing = thread::spawn(move || {
        for token in 1..=3 {
            while !push(&mut producer, token) {
                thread::yield_now();
            }
            producer.publish();
        }
    });
    let mut expected = 1;
    while expected <= 3 {
        if !consumer.refresh().expect("an honest producer") {
            thread::yield_now();
        }
        while let Some(token) = take(&mut consumer) {
            assert_eq!(token, expected, "a stale frame");
            expected += 1;
        }
        consumer.publish();
    }
    pushing.join().expect("it did not panic");
}

#[test]
fn ring_passes_frames() {
    check(frames_cross);
}

#[test]
#[should_panic(expected = "a stale frame")]
fn planted_relaxed_publish_is_caught() {
    plant(Bug::RelaxedPublish);
    check(frames_cross);
}

#[test]
#[should_panic(expected = "a stale frame")]
fn planted_missing_acquire_is_caught() {
    plant(Bug::NoAcquire);
    check(frames_cross);
}

/// Frames that are published together are seen together.
#[test]
fn batch_is_seen_whole() {
    check(|| {
        let Sides { mut producer, mut consumer, .. } = Sides::new();
        let pushing = thread::spawn(move || {
            assert!(push(&mut producer, 1) && push(&mut producer, 2));
            producer.publish();
        });
        let seen = consumer.refresh().expect("an honest producer");
        let taken = [take(&mut consumer), take(&mut consumer)];
        assert_eq!(taken, if seen { [Some(1), Some(2)] } else { [None, None] });
        pushing.join().expect("it did not panic");
    });
}

/// Two frames, one after the other, and a ring for each if the peer sleeps.
fn push_two(mut producer: Producer, mut peer_sleep: PeerSleep, ring: impl Fn()) {
    for token in 1..=2 {
        assert!(push(&mut producer, token));
        producer.publish();
        if peer_sleep.to_ring(News::Frames) {
            ring();
        }
    }
}

/// A consumer that found nothing sleeps until it is rung; a lost wake-up would leave it there, which loom reports.
fn consumer_sleeps() {
    let Sides { producer, producer_peer_sleep, mut consumer, consumer_sleep: mut sleep, .. } = Sides::new();
    let bell = Arc::new(Notify::new());
    let ring = Arc::clone(&bell);
    let pushing = thread::spawn(move || push_two(producer, producer_peer_sleep, || ring.notify()));
    let mut taken = 0;
    while taken < 2 {
        sleep.raise(false);
        // As the DPA looks, which takes nothing then.
        if consumer.has_no_news() {
            bell.wait();
        }
        sleep.lower();
        consumer.refresh().expect("an honest producer");
        while take(&mut consumer).is_some() {
            taken += 1;
        }
    }
    pushing.join().expect("it did not panic");
}

#[test]
fn no_wake_up_is_lost() {
    check(consumer_sleeps);
}

/// A bell whose rings stay until they are counted: who waits for it goes on as soon as there is one. Locks, as the kernel has.
#[derive(Default)]
struct CountedBell {
    rings: Mutex<u32>,
    rung: Condvar,
}

impl CountedBell {
    fn ring(&self) {
        *self.rings.lock().expect("nobody panics") += 1;
        self.rung.notify_one();
    }

    fn wait(&self) {
        let mut rings = self.rings.lock().expect("nobody panics");
        while *rings == 0 {
            rings = self.rung.wait(rings).expect("nobody panics");
        }
    }

    fn silence(&self) {
        *self.rings.lock().expect("nobody panics") = 0;
    }
}

/// As [`consumer_sleeps`], with rings that are counted at each announcement: before the flag, or (the bug) behind it, where the
/// ring for the sleep that begins is taken away.
fn consumer_counts_rings(behind_the_flag: bool) {
    let Sides { producer, producer_peer_sleep, mut consumer, consumer_sleep: mut sleep, .. } = Sides::new();
    let bell = Arc::new(CountedBell::default());
    let ring = Arc::clone(&bell);
    let pushing = thread::spawn(move || push_two(producer, producer_peer_sleep, || ring.ring()));
    let mut taken = 0;
    while taken < 2 {
        consumer.refresh().expect("an honest producer");
        while take(&mut consumer).is_some() {
            taken += 1;
        }
        if taken == 2 {
            break;
        }
        if !behind_the_flag {
            bell.silence();
        }
        sleep.raise(false);
        if behind_the_flag {
            bell.silence();
        }
        if !consumer.refresh().expect("an honest producer") {
            bell.wait();
        }
        sleep.lower();
    }
    pushing.join().expect("it did not panic");
}

#[test]
fn counting_rings_loses_none() {
    check_with_few_turns(|| consumer_counts_rings(false));
}

#[test]
#[should_panic(expected = "deadlock")]
fn planted_counting_behind_the_flag_is_caught() {
    check_with_few_turns(|| consumer_counts_rings(true));
}

#[test]
#[should_panic(expected = "deadlock")]
fn planted_missing_fence_of_the_sleeper_is_caught() {
    plant(Bug::NoSleeperFence);
    check(consumer_sleeps);
}

#[test]
#[should_panic(expected = "deadlock")]
fn planted_missing_fence_of_the_producer_is_caught() {
    plant(Bug::NoProducerFence);
    check(consumer_sleeps);
}

/// A producer whose ring is full sleeps until there is room, and is rung for room because it said that it wants to be.
#[test]
fn full_producer_is_woken_for_room() {
    check(|| {
        let Sides {
            mut producer,
            producer_sleep: mut sleep,
            mut consumer,
            consumer_peer_sleep: mut peer_sleep,
            ..
        } = Sides::new();
        assert!(push(&mut producer, 1) && push(&mut producer, 2));
        producer.publish();
        let bell = Arc::new(Notify::new());
        let ring = Arc::clone(&bell);
        let taking = thread::spawn(move || {
            assert!(consumer.refresh().expect("an honest producer"));
            assert_eq!(take(&mut consumer), Some(1));
            consumer.publish();
            if peer_sleep.to_ring(News::Room) {
                ring.notify();
            }
        });
        while !push(&mut producer, 3) {
            sleep.raise(true);
            let room = producer.has_room_for_any().expect("an honest consumer");
            if !room {
                bell.wait();
            }
            sleep.lower();
        }
        taking.join().expect("it did not panic");
    });
}

/// Who sees a small frame also sees the chunk that was sent before it, on another ring.
#[test]
fn chunks_are_seen_before_later_small_frames() {
    const BOTH: RingProfile = RingProfile { chunk_bytes: 128, bulk_chunks: 2, ..TWO_LINES };
    check(|| {
        let (near, near_read) = segment::pair(segment_bytes(&BOTH)).expect("words");
        let (far, far_read) = segment::pair(segment_bytes(&BOTH)).expect("words");
        let limits = |ring| FrameLimits::new(ring, 0, &BOTH, 0);
        let producer = |place, ring| Producer::new(near.clone(), far_read.clone(), place, limits(ring));
        let consumer = |place, ring| Consumer::new(far.clone(), near_read.clone(), place, limits(ring));
        let (small, bulk) = (RingPlace::small(&BOTH), RingPlace::bulk(&BOTH));
        let mut small_tx = producer(small, RingName::Small);
        let mut bulk_tx = producer(bulk, RingName::Bulk);
        let mut rx = LinkRx { small: consumer(small, RingName::Small), bulk: consumer(bulk, RingName::Bulk) };
        let sending = thread::spawn(move || {
            for token in 1..=2 {
                let chunk = FrameHeader { frame_len: 1, ..FrameHeader::new(FrameKind::RequestChunk, token) };
                assert_eq!(bulk_tx.push(&chunk, Payload::Parts(&[], &[7])), Ok(true));
                assert!(push(&mut small_tx, token));
                publish_frames(&mut small_tx, &mut bulk_tx);
            }
        });
        rx.refresh().expect("an honest producer");
        let chunks = std::iter::from_fn(|| take(&mut rx.bulk)).count();
        let frames = std::iter::from_fn(|| take(&mut rx.small)).count();
        assert!(chunks >= frames, "{frames} small frames are here, and {chunks} of the chunks before them");
        sending.join().expect("it did not panic");
    });
}

/// A side that goes away in the middle of anything leaves the other with a ring that is full or empty, and whole.
#[test]
fn either_side_may_go_away() {
    check(|| {
        let Sides { mut producer, mut consumer, .. } = Sides::new();
        let pushing = thread::spawn(move || {
            let pushed = (1..=4).take_while(|token| {
                let pushed = push(&mut producer, *token);
                producer.publish();
                pushed
            });
            assert!(pushed.count() >= 2, "there is room for two");
        });
        if consumer.refresh().expect("an honest producer") {
            assert_eq!(take(&mut consumer), Some(1));
            consumer.publish();
        }
        drop(consumer);
        pushing.join().expect("it did not panic");
    });
}
