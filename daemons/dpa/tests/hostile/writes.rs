//! Peers that write their segment while the DPA reads it.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use cellmesh_shm::clock::Nanos;
use cellmesh_shm::frame::{FrameHeader, FrameKind, RingName};
use cellmesh_shm::ids::SlotId;
use cellmesh_shm::message::Fault;
use cellmesh_shm::peer::{Hostile, Scratch, has_ended};

use crate::Task;
use crate::node::{Child, HOSTILE, Holdings, check, config, pattern, scale};
use crate::random::Random;

/// How long a call to the hostile service may take: most are never answered.
const HOSTILE_CALL: Duration = Duration::from_millis(200);

/// a process writes random words over its whole segment at full speed while three honest workers serve. It is
/// evicted each time that it comes, the honest ones have no errors, and the DPA's memory stays flat.
#[test]
fn scribblers_harm_only_themselves() {
    const EVICTIONS: u64 = 60;
    const ROUNDS: u64 = 60;
    check(config(), async |node| {
        let mut honest: Vec<Child> = Vec::new();
        for _ in 0..3 {
            honest.push(node.attached("answer").await);
        }
        let _hostile = node.spawn("scribble", &[]);
        let mut before = None;
        let mut round = 0;
        while round < ROUNDS * scale() || node.host.stats().closed() < EVICTIONS * scale() {
            let to_hostile = node.call(HOSTILE, pattern(500, round), HOSTILE_CALL);
            node.assert_honest_serve(round).await;
            let outcome = to_hostile.await.expect("every call has an outcome");
            assert!(outcome.fault == Fault::None || outcome.body.is_empty(), "{outcome:?}");
            round += 1;
            if before.is_none() && node.host.stats().closed() >= EVICTIONS / 6 {
                before = Some(Holdings::now());
            }
        }
        Holdings::now().assert_flat(before.expect("a sixth comes before all"));
    });
}

/// Comes back as often as it is evicted.
pub(crate) fn scribble(task: &Task<'_>) {
    let mut random = Random::new(6);
    while let Some((channel, mut hostile)) = task.attach_hostile() {
        let way = random.below(3);
        while !has_ended(&channel) {
            match way {
                0 => scribble_anywhere(&hostile.scratch(), &mut random),
                1 => scribble_frames(&hostile.scratch(), &mut random),
                _ => scribble_kinds(&mut hostile, &mut random),
            }
        }
    }
}

/// Random words over all of the segment, its counters among them.
fn scribble_anywhere(scratch: &Scratch, random: &mut Random) {
    for _ in 0..10_000 {
        scratch.store(random.below(scratch.words()), random.next());
    }
}

/// Random words behind tails that can be.
fn scribble_frames(scratch: &Scratch, random: &mut Random) {
    let frames = scratch.frame_word(RingName::Small, 0);
    for _ in 0..1000 {
        scratch.store(frames + random.below(scratch.words() - frames), random.next());
    }
    scratch.store(scratch.tail_word(RingName::Small), 64 * (1 + random.next() % 16));
}

/// Frames of every kind that are frames, about anything.
fn scribble_kinds(hostile: &mut Hostile, random: &mut Random) {
    let kind = random.pick(&FrameKind::ALL[..11]);
    let header = FrameHeader {
        status: 200,
        credit: 1,
        frame_len: if kind.is_chunk() { 64 } else { 0 },
        payload_len: if matches!(kind, FrameKind::RequestAnnounce | FrameKind::ResponseAnnounce) {
            9000
        } else {
            0
        },
        deadline: Nanos::MAX,
        ..FrameHeader::new(kind, random.next() % 32)
    };
    hostile.forge(&header).expect("an honest DPA");
    hostile.link.publish();
    hostile.take().expect("an honest DPA");
}

/// a peer flips lengths and owner of its frames between values while it posts them. No caller gets another
/// request's answer, and no answer has a byte that its sender did not write.
#[test]
fn flipped_headers_reach_nobody_else() {
    const POSTS: u64 = 200_000;
    const FLIPS: u64 = 10_000_000;
    check(config(), async |node| {
        let _honest = [node.attached("answer").await, node.attached("answer").await];
        let _hostile = node.spawn("flip", &[FLIPS * scale()]);
        let (mut answered, mut round, mut flipped) = (0, 0, false);
        while posts(&node.host.stats()) < POSTS * scale() || answered < 100 || !flipped {
            let to_hostile: Vec<_> =
                (0..8).map(|_| node.call(HOSTILE, pattern(64, round), HOSTILE_CALL)).collect();
            node.assert_honest_serve(round).await;
            for call in to_hostile {
                let outcome = call.await.expect("every call has an outcome");
                let own = outcome.head.iter().chain(&outcome.body).all(|byte| *byte == 0);
                assert!(own && outcome.head.len() + outcome.body.len() <= 64, "{outcome:?}");
                answered += u64::from(outcome.fault == Fault::None);
                flipped |= outcome.status == FLIPPED;
            }
            round += 1;
        }
        assert!(node.host.stats().late_responses > 0, "no owner was flipped in time");
    });
}

/// Frames of the flipping peer that the DPA has decided about.
fn posts(stats: &cellmesh_dpa::DpaStats) -> u64 {
    stats.late_responses + stats.closed()
}

/// Status of its answers from a flipping peer that has flipped as often as it was told to.
const FLIPPED: u16 = 299;

/// Comes back as often as it is evicted. Its number: flips before it says that there were so many.
pub(crate) fn flip(task: &Task<'_>) {
    let mut flips = 0;
    while let Some((channel, hostile)) = task.attach_hostile() {
        let aim = Aim { flips: AtomicU64::new(flips), flips_wanted: task.numbers[0], ..Aim::default() };
        let scratch = hostile.scratch();
        std::thread::scope(|threads| {
            threads.spawn(|| aim.flip(&scratch));
            aim.post(hostile, || has_ended(&channel));
            aim.over.store(true, Ordering::Relaxed);
        });
        flips = aim.flips.into_inner();
    }
}

/// What the two threads of a flipping peer tell each other.
#[derive(Default)]
struct Aim {
    /// Where the frame is that is being posted.
    counter: AtomicU32,
    /// The request that it answers.
    token: AtomicU64,
    over: AtomicBool,
    /// Headers changed so far, in all lives.
    flips: AtomicU64,
    flips_wanted: u64,
}

impl Aim {
    /// Room of each of its frames: a header, and up to a line of payload. The ring is a multiple of it.
    const ROOM: u32 = 128;
    /// Bytes of the payload, as they were pushed.
    const BYTES: u32 = 64;
    /// How often each request is answered: most answers are about somebody else's.
    const ANSWERS: u32 = 16;
    /// Flips between two that the DPA must evict for, so that it serves this peer for a while.
    const FLIPS_BETWEEN_IMPOSSIBLE: usize = 4096;

    fn post(&self, mut hostile: Hostile, ended: impl Fn() -> bool) {
        while !ended() {
            while let Ok(Some(request)) = hostile.take() {
                self.token.store(request.token, Ordering::Relaxed);
                (0..Self::ANSWERS).for_each(|_| self.answer(&mut hostile, request.token, &ended));
            }
            hostile.link.publish();
            std::thread::yield_now();
        }
    }

    fn answer(&self, hostile: &mut Hostile, token: u64, ended: &impl Fn() -> bool) {
        let (frame_len, payload_len) = (Self::BYTES, Self::BYTES);
        let is_flipped = self.flips.load(Ordering::Relaxed) >= self.flips_wanted;
        let header = FrameHeader {
            status: if is_flipped { FLIPPED } else { 200 },
            frame_len,
            payload_len,
            ..FrameHeader::new(FrameKind::Response, token)
        };
        while !hostile.forge(&header).expect("an honest DPA") {
            hostile.link.publish();
            if ended() {
                return;
            }
        }
        hostile.link.publish();
        self.counter.fetch_add(Self::ROOM, Ordering::Relaxed);
    }

    fn flip(&self, scratch: &Scratch) {
        let mut random = Random::new(7);
        while !self.over.load(Ordering::Relaxed) {
            let counter = self.counter.load(Ordering::Relaxed);
            // The one that is being posted, and those just before it, which the DPA may be reading.
            for back in 0..4 {
                let at = scratch.frame_word(RingName::Small, counter.wrapping_sub(back * Self::ROOM));
                scratch.store(at + 1, self.any_owner(&mut random));
                let (lengths, head) = any_lengths(&mut random);
                scratch.store(at + 3, lengths);
                scratch.store(at + 4, head);
            }
            self.flips.fetch_add(4, Ordering::Relaxed);
        }
    }

    /// Its own request, its neighbours in the DPA's table, and an earlier one.
    fn any_owner(&self, random: &mut Random) -> u64 {
        let own = SlotId::from_raw(self.token.load(Ordering::Relaxed));
        let SlotId { index, generation } = own;
        let near = SlotId { index: index.wrapping_add(1), generation };
        let other = SlotId { index: index.wrapping_sub(1), generation };
        let earlier = SlotId { index, generation: generation.wrapping_sub(1) };
        random.pick(&[own, own, near, other, earlier]).raw()
    }
}

/// Words of the lengths: now and then some that cannot be. Longer than any frame, not just than what is published: what
/// lies behind a frame may be published too, and is this sender's own.
fn any_lengths(random: &mut Random) -> (u64, u64) {
    let both = |payload_len: u64, frame_len: u64| payload_len | frame_len << 32;
    if random.below(Aim::FLIPS_BETWEEN_IMPOSSIBLE) == 0 {
        return random.pick(&[
            (both(64, 8), 0),
            (both(8192, 8192), 0),
            (both(u64::from(u32::MAX), u64::from(u32::MAX)), 0),
            (both(64, 64), 65 << 32),
            (both(64, 64), u64::MAX),
        ]);
    }
    random.pick(&[(both(64, 64), 0), (both(8, 8), 0), (both(64, 64), 8 << 32), (both(64, 64), 64 << 32)])
}
