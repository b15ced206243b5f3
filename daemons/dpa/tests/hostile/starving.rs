//! Peers that ring all the time, never ring, never take or never answer.

use std::time::Duration;

use cellmesh_dpa::DpaConfig;
use cellmesh_shm::frame::{FrameHeader, FrameKind};
use cellmesh_shm::link::Link;
use cellmesh_shm::message::Fault;
use cellmesh_shm::peer::{Manner, Peer, has_ended};

use crate::Task;
use crate::node::{HONEST_NAME, HOSTILE, HOSTILE_NAME, check, config, pattern, scale};

/// How late a late peer answers: long after every deadline that its callers have.
pub(crate) const LATE: Duration = Duration::from_millis(500);

/// Deadline of calls that are not answered in time, or only if somebody else wakes the DPA.
const SHORT: Duration = Duration::from_millis(50);

const ROUNDS: u64 = 200;

/// a peer rings as fast as it can, for nothing. The honest worker is served all the same, and each time that the rings
/// are counted the peer is let go.
#[test]
fn bell_flood_stops_nobody() {
    const EVICTIONS: u64 = 20;
    check(config(), async |node| {
        let _honest = node.attached("answer").await;
        let _flooding = node.attached("flood").await;
        let mut round = 0;
        while round < ROUNDS * scale() || node.host.stats().violations < EVICTIONS * scale() {
            node.assert_honest_serve(round).await;
            round += 1;
        }
        let stats = node.host.stats();
        assert_eq!(stats.closed(), stats.violations, "{stats:?}");
    });
}

/// Comes back as often as it is evicted.
pub(crate) fn flood(task: &Task<'_>) {
    while let Some((channel, hostile)) = task.attach_hostile() {
        while !has_ended(&channel) {
            (0..1000).for_each(|_| hostile.ring());
        }
    }
}

/// a peer jams the bell that the DPA rings for it. The DPA rings it all the same, and is not held up.
#[test]
fn jammed_bell_holds_up_nobody() {
    // It takes nothing either, which is another test's matter.
    let config = DpaConfig { stall_timeout: Duration::from_secs(3600), ..config() };
    check(config, async |node| {
        let _honest = node.attached("answer").await;
        let _jamming = node.attached("jam").await;
        for round in 0..20 * scale() {
            let call = node.call(HOSTILE, pattern(10, round), SHORT);
            node.assert_honest_serve(round).await;
            assert_eq!(call.await.expect("every call has an outcome").fault, Fault::Deadline);
        }
    });
}

/// Asleep, by what it says, and its bell is jammed.
pub(crate) fn jam(task: &Task<'_>) {
    let (channel, hostile) = task.attach_hostile().expect("admitted");
    // Bit 0: asleep; bit 1: wants to be woken for room too; above them the number of the sleep.
    let sleeps = (1_u64..).map(|number| 4 * number + 3);
    for sleep in sleeps.take_while(|_| !has_ended(&channel)) {
        hostile.jam();
        let scratch = hostile.scratch();
        scratch.store(scratch.sleep_word(), sleep);
        std::thread::yield_now();
    }
}

/// a peer answers and never rings. Others are served; each of its requests has an outcome, and what it answered is
/// found at the latest with the next wake-up.
#[test]
fn peer_that_never_rings_delays_only_itself() {
    check(config(), async |node| {
        let _honest = node.attached("answer").await;
        let _mute = node.attached("mute").await;
        let (mut answered, mut round) = (0, 0);
        while answered < 10 * scale() {
            let call = node.call(HOSTILE, pattern(10, round), SHORT);
            node.assert_honest_serve(round).await;
            let outcome = call.await.expect("every call has an outcome").fault;
            assert!(matches!(outcome, Fault::None | Fault::Deadline), "{outcome:?}");
            answered += u64::from(outcome == Fault::None);
            round += 1;
        }
        assert_eq!(node.host.stats().closed(), 0);
    });
}

pub(crate) fn mute(task: &Task<'_>) {
    let (channel, mut hostile) = task.attach_hostile().expect("admitted");
    while !has_ended(&channel) {
        while let Some(request) = hostile.take().expect("an honest DPA") {
            let header = FrameHeader { status: 200, ..FrameHeader::new(FrameKind::Response, request.token) };
            hostile.forge(&header).expect("an honest DPA");
        }
        // The words alone, without the bell.
        let _ = hostile.link.rx.publish();
        hostile.link.tx.small.publish();
        std::thread::yield_now();
    }
}

/// a peer never takes anything. Its ring runs full and its requests wait in the DPA; others are served meanwhile,
/// and it is let go: each of its requests fails, once.
#[test]
fn peer_that_never_takes_is_let_go() {
    let config = DpaConfig { stall_timeout: Duration::from_millis(200), ..config() };
    check(config, async |node| {
        let _honest = node.attached("answer").await;
        let _dead = node.attached("dead").await;
        let calls: Vec<_> =
            (0..64).map(|n| node.call(HOSTILE, pattern(3000, n), Duration::from_secs(60))).collect();
        let mut round = 0;
        while node.host.stats().stalled == 0 {
            node.assert_honest_serve(round).await;
            round += 1;
        }
        for call in calls {
            assert_eq!(call.await.expect("every call has an outcome").fault, Fault::WorkerLost);
        }
        let stats = node.host.stats();
        assert!(stats.parked > 0, "its ring was not full: {stats:?}");
        assert_eq!((stats.closed(), stats.endpoints, stats.parked_now), (1, 2, 0), "{stats:?}");
    });
}

/// R-10, K-3: requests of a peer that answers late, or never, end by their deadline, and late answers reach nobody.
#[test]
fn late_answers_become_deadlines() {
    check(config(), async |node| {
        let _honest = node.attached("answer").await;
        for manner in ["late", "silent"] {
            let slow = node.attached(manner).await;
            for round in 0..5 * scale() {
                let calls: Vec<_> =
                    (0..8).map(|n| node.call(HOSTILE, pattern(100, 8 * round + n), SHORT)).collect();
                node.assert_honest_serve(round).await;
                for call in calls {
                    assert_eq!(call.await.expect("every call has an outcome").fault, Fault::Deadline);
                }
            }
            drop(slow);
            node.until("it is gone", |stats| stats.endpoints == 2).await;
        }
        let stats = node.host.stats();
        assert_eq!(stats.faulted_for(Fault::Deadline), 80 * scale(), "{stats:?}");
        assert_eq!((stats.closed(), stats.live), (0, 0), "{stats:?}");
    });
}

/// A worker that keeps the rules: of the honest service if it is honest, else of the hostile one.
pub(crate) fn answer(task: &Task<'_>, manner: Manner) {
    let service = if manner == Manner::Honest { HONEST_NAME } else { HOSTILE_NAME };
    let (channel, fds) = task.attach(service).expect("admitted");
    let link = Link::open(fds).expect("segments of the DPA");
    Peer::new(link, manner).run(&channel).expect("the DPA breaks no rules");
}
