//! Peers of another release.

use cellmesh_shm::attach::{AttachListener, FromDpa, Received, ToDpa, VERSION, Welcome};
use cellmesh_shm::frame::{FRAME_VERSION, FrameError, FrameHeader, FrameKind, RingName};
use cellmesh_shm::peer::{AttachError, connect, receive, until_ended};

use crate::node::{Child, HONEST_NAME, check, config};
use crate::{Task, hello};

/// Releases that are not this one. A packet has its version, little-endian, behind eight bytes that never change.
const OTHER_VERSIONS: [u16; 3] = [0, VERSION + 1, u16::MAX];

fn of_version(mut packet: Vec<u8>, version: u16) -> Vec<u8> {
    packet[8..10].copy_from_slice(&version.to_le_bytes());
    packet
}

fn version(task: &Task<'_>) -> u16 {
    let [version] = task.numbers else { panic!("one number: the version") };
    u16::try_from(*version).expect("a version")
}

/// a worker of another release meets this DPA. It is told both versions, it is not attached, and others are served.
#[test]
fn worker_of_another_release_is_told_why() {
    check(config(), async |node| {
        let _honest = node.attached("answer").await;
        for version in OTHER_VERSIONS {
            node.spawn("speak-version", &[version.into()]).succeeded().await;
        }
        let stats = node.host.stats();
        assert_eq!((stats.endpoints, stats.closed()), (2, 0), "{stats:?}");
        node.assert_honest_serve(0).await;
    });
}

pub(crate) fn speak_version(task: &Task<'_>) {
    let theirs = version(task);
    let channel = connect(task.socket).expect("the DPA listens");
    let packet = of_version(ToDpa::Hello(hello(HONEST_NAME)).encode(), theirs);
    channel.send(&packet, &[]).expect("room");
    let Received::Said(FromDpa::Refused { why }) = receive(&channel).expect("an answer") else {
        panic!("a refusal")
    };
    let both = format!("version {theirs} of the attach protocol, this is version {VERSION}");
    assert!(why.contains(&both), "{why}");
    until_ended(&channel);
}

/// this worker meets a DPA of another release, which welcomes or refuses it in its own version. It says both
/// versions, or what it was told, and does not take what it was given.
#[test]
fn dpa_of_another_release_is_not_joined() {
    check(config(), async |node| {
        let path = node.path("other.sock");
        let other = AttachListener::bind(&path).expect("a free path");
        for version in OTHER_VERSIONS {
            for answer in [FromDpa::Welcome(welcome()), FromDpa::Refused { why: "too new for me".into() }] {
                let worker = Child::spawn("meet-version", &path, &[version.into()]);
                let channel = loop {
                    match other.accept() {
                        Ok(channel) => break channel,
                        Err(_) => tokio::time::sleep(std::time::Duration::from_millis(1)).await,
                    }
                };
                channel.send(&of_version(answer.encode(), version), &[]).expect("room");
                worker.succeeded().await;
            }
        }
    });
}

fn welcome() -> Welcome {
    Welcome {
        services: vec![HONEST_NAME.into()],
        calls_max: 1,
        message_bytes_max: 1 << 20,
        links: Vec::new(),
    }
}

pub(crate) fn meet_version(task: &Task<'_>) {
    let theirs = version(task);
    match task.attach(HONEST_NAME).expect_err("another release") {
        AttachError::Refused { why } => assert_eq!(why, "too new for me"),
        AttachError::Channel(error) => {
            let why = error.to_string();
            let both = format!("version {theirs} of the attach protocol, this is version {VERSION}");
            assert!(why.contains(&both), "{why}");
        }
        other @ (AttachError::Connect(_) | AttachError::Unexpected { .. }) => panic!("{other}"),
    }
}

/// a worker whose frames have another layout was attached all the same. Its first frame is counted as that, it is
/// let go, and others are served.
#[test]
fn frames_of_another_release_are_counted() {
    check(config(), async |node| {
        let _honest = node.attached("answer").await;
        let others = [FRAME_VERSION - 1, FRAME_VERSION + 1, 0xff];
        for version in others {
            node.spawn("post-version", &[version.into()]).succeeded().await;
        }
        let rejected = FrameError::Version { found: 0 }.reason();
        let stats = node.host.stats();
        assert_eq!((stats.rejected[rejected], stats.closed()), (3, 3), "{stats:?}");
        node.assert_honest_serve(0).await;
    });
}

pub(crate) fn post_version(task: &Task<'_>) {
    let (channel, mut hostile) = task.attach_hostile().expect("admitted");
    let scratch = hostile.scratch();
    hostile.forge(&FrameHeader::new(FrameKind::Cancel, 0)).expect("an honest DPA");
    let first = scratch.frame_word(RingName::Small, 0);
    scratch.store(first, scratch.load(first) & !0xff | u64::from(version(task)));
    hostile.link.publish();
    until_ended(&channel);
}
