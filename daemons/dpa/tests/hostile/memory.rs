//! What a process can do with the descriptors of its segments.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use cellmesh_shm::attach::Channel;
use cellmesh_shm::frame::{FrameHeader, FrameKind};
use cellmesh_shm::layout::segment_bytes;
use cellmesh_shm::link::Link;
use cellmesh_shm::message::Fault;
use cellmesh_shm::peer::{Hostile, Manner, Peer, has_ended, until_ended};
use cellmesh_shm::segment;
use rustix::fs::{FallocateFlags, Mode, OFlags, SealFlags};
use rustix::io::Errno;

use crate::Task;
use crate::node::{HOSTILE, HOSTILE_NAME, check, config, pattern, scale};

const WITHIN: Duration = Duration::from_secs(60);

const PUNCH: FallocateFlags = FallocateFlags::PUNCH_HOLE.union(FallocateFlags::KEEP_SIZE);

/// a peer truncates, grows, seals, punches holes into and makes writable the memory that it was given, by its own
/// descriptors and by re-opened ones. The kernel refuses it or it is harmless: the same links carry messages afterwards.
#[test]
fn tricks_with_memory_are_refused_or_harmless() {
    check(config(), async |node| {
        let _honest = node.attached("answer").await;
        let _tricky = node.attached("tricks").await;
        for round in 0..10 * scale() {
            let body = pattern(30_000, round);
            let answer = node.call(HOSTILE, body.clone(), WITHIN).await.expect("an outcome");
            assert_eq!(answer.fault, Fault::None, "the role has failed, see above");
            assert!(answer.body == body, "its own bytes");
            node.assert_honest_serve(round).await;
        }
        assert_eq!(node.host.stats().closed(), 0);
    });
}

/// Asserts what the kernel says to each trick, then works as if nothing had been.
pub(crate) fn tricks(task: &Task<'_>) {
    let (channel, fds) = task.attach(HOSTILE_NAME).expect("admitted");
    let bytes = segment_bytes(&fds.spec.profile) as u64;
    for fd in [fds.tx.as_fd(), fds.rx.as_fd()] {
        assert_size_is_fixed(fd, bytes);
    }
    assert_only_readable(fds.rx.as_fd(), bytes);
    rustix::fs::fallocate(&fds.tx, PUNCH, 0, bytes).expect("its own memory, and nothing in it yet");
    let link = Link::open(fds).expect("segments of the DPA");
    Peer::new(link, Manner::Honest).run(&channel).expect("the DPA breaks no rules");
}

/// By the descriptor itself, and by one that is opened anew for writing, where the kernel gives one.
fn assert_size_is_fixed(fd: BorrowedFd<'_>, bytes: u64) {
    let again = reopen(fd);
    for fd in [Some(fd), again.as_ref().map(AsFd::as_fd)].into_iter().flatten() {
        for size in [0, bytes / 2, bytes * 2] {
            rustix::fs::ftruncate(fd, size).expect_err("the size is sealed");
        }
        rustix::fs::fallocate(fd, FallocateFlags::empty(), 0, bytes * 2).expect_err("the size is sealed");
        rustix::fs::fcntl_add_seals(fd, SealFlags::WRITE).expect_err("the seals are sealed");
    }
}

/// What the DPA writes: not by writing, mapping, changing the mapping's rights or punching.
fn assert_only_readable(fd: BorrowedFd<'_>, bytes: u64) {
    let len = usize::try_from(bytes).expect("it is mapped");
    assert_eq!(rustix::io::write(fd, b"x"), Err(Errno::BADF));
    rustix::fs::fallocate(fd, PUNCH, 0, bytes).expect_err("opened for reading");
    segment::make_writable(fd, len).expect_err("opened for reading");
    if let Some(again) = reopen(fd) {
        assert_eq!(rustix::io::write(&again, b"x"), Err(Errno::PERM));
        assert_eq!(rustix::fs::fallocate(&again, PUNCH, 0, bytes), Err(Errno::PERM));
        segment::open_writable(again.as_fd(), len).expect_err("sealed against new writers");
        segment::make_writable(again.as_fd(), len).expect_err("sealed against new writers");
    }
}

/// The same file, opened for writing.
fn reopen(fd: BorrowedFd<'_>) -> Option<OwnedFd> {
    let path = format!("/proc/self/fd/{}", fd.as_raw_fd());
    rustix::fs::open(path, OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()).ok()
}

/// R-9, B4: a peer punches holes under frames that the DPA is reading, and goes on writing its memory after it was let go.
/// The DPA lives, others are served, and no segment stays mapped for it.
#[test]
fn holes_under_frames_harm_only_their_maker() {
    const EVICTIONS: u64 = 20;
    check(config(), async |node| {
        let _honest = node.attached("answer").await;
        let punching = node.spawn("punch", &[]);
        let mut round = 0;
        while node.host.stats().closed() < EVICTIONS * scale() {
            node.assert_honest_serve(round).await;
            round += 1;
        }
        drop(punching);
        node.until("it is gone", |stats| stats.endpoints == 2).await;
        node.assert_honest_serve(round).await;
    });
}

/// Comes back as often as it is evicted; keeps what it was given, and writes it, until it has come back once more.
pub(crate) fn punch(task: &Task<'_>) {
    const HOLES: u32 = 20;
    let mut kept: Option<(Hostile, OwnedFd)> = None;
    while let Ok((channel, fds)) = task.attach(HOSTILE_NAME) {
        let memory = fds.tx.try_clone().expect("descriptors");
        let mut hostile = Hostile::open(fds).expect("segments of the DPA");
        for _ in 0..HOLES {
            post_and_punch(&mut hostile, memory.as_fd(), &channel);
            if let Some((old, old_memory)) = &kept {
                old.scratch().fill(&[0xff; 4096]);
                rustix::fs::fallocate(old_memory, PUNCH, 0, 1 << 14).expect("still its own memory");
            }
        }
        // Its counters too: back to zero, which no counter goes.
        rustix::fs::fallocate(&memory, PUNCH, 0, 1 << 14).expect("its own memory");
        hostile.ring();
        until_ended(&channel);
        kept = Some((hostile, memory));
    }
}

/// Holes where the frames are that were just posted; the page of the counters stays.
fn post_and_punch(hostile: &mut Hostile, memory: BorrowedFd<'_>, channel: &Channel) {
    const PAGE: u64 = 4096;
    for token in 0..64 {
        let cancel = FrameHeader::new(FrameKind::Cancel, token);
        while !hostile.forge(&cancel).unwrap_or(true) {
            if has_ended(channel) {
                return;
            }
        }
        hostile.link.publish();
    }
    rustix::fs::fallocate(memory, PUNCH, PAGE, 3 * PAGE).expect("its own memory");
}
