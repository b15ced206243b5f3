//! Peers that come and go, and strangers that never say a proper hello.

use std::os::fd::AsFd;
use std::time::Duration;

use cellmesh_shm::attach::{FromDpa, Received, ToDpa};
use cellmesh_shm::peer::{AttachError, connect, receive};

use crate::node::{HONEST_NAME, Holdings, Node, check, config, scale};
use crate::random::Random;
use crate::{Task, hello};

/// Peers that are attached at once.
const AT_ONCE: usize = 100;

/// 1,000 peers come and go, 100 at a time, and 10,000 strangers talk nonsense (scale 10: 10,000 and 100,000).
/// Descriptors and segments are back to what they were, resident memory too but for what an allocator keeps, and
/// a proper peer is served afterwards.
#[test]
fn comings_and_goings_leave_nothing() {
    const CYCLES: u64 = 10;
    const STRANGERS: u64 = 10_000;
    check(config(), async |node| {
        node.spawn("come-and-go", &[2]).succeeded().await;
        node.spawn("babble", &[300]).succeeded().await;
        let before = settled(node, None).await;
        let coming = node.spawn("come-and-go", &[CYCLES * scale()]);
        node.spawn("babble", &[STRANGERS * scale()]).succeeded().await;
        coming.succeeded().await;
        let after = settled(node, Some(before)).await;
        assert_eq!((after.descriptors, after.segments), (before.descriptors, before.segments));
        after.assert_flat(before);
        assert_eq!(node.host.stats().closed(), 0);
        let _honest = node.attached("answer").await;
        node.assert_honest_serve(0).await;
    });
}

/// What is held once nobody is attached; a stranger that has gone is noticed a moment later.
async fn settled(node: &Node, as_before: Option<Holdings>) -> Holdings {
    /// Ends the wait for a descriptor that never goes: longer than a handshake may last.
    const LOOKS_MAX: u32 = 3000;
    node.until("nobody is attached", |stats| stats.endpoints == 1).await;
    for _ in 0..LOOKS_MAX {
        let now = Holdings::now();
        if as_before.is_some_and(|before| now.descriptors <= before.descriptors) {
            return now;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    Holdings::now()
}

pub(crate) fn come_and_go(task: &Task<'_>) {
    let [rounds] = task.numbers else { panic!("one number: how many rounds") };
    for _ in 0..*rounds {
        let mut attached = Vec::new();
        while attached.len() < AT_ONCE {
            match task.attach(HONEST_NAME) {
                Ok(peer) => attached.push(peer),
                // Those of the last round are not all gone yet.
                Err(AttachError::Refused { why }) if why.contains("processes are attached") => {
                    std::thread::sleep(Duration::from_millis(1));
                }
                Err(error) => panic!("{error}"),
            }
        }
    }
}

/// Says what is no hello, and waits for an answer or does not.
pub(crate) fn babble(task: &Task<'_>) {
    let [strangers] = task.numbers else { panic!("one number: how many strangers") };
    let mut random = Random::new(11);
    for _ in 0..*strangers {
        let channel = connect(task.socket).expect("the DPA listens");
        let packet = nonsense(&mut random);
        let gift = std::io::stdin();
        let gifts = [gift.as_fd(), gift.as_fd()];
        // One that is refused already cannot be talked to.
        let _ = channel.send(&packet, &gifts[..random.below(3)]);
        if random.below(2) == 0
            && let Ok(Received::Attached(attached)) = receive(&channel)
        {
            panic!("{packet:?} was welcome: {attached:?}");
        }
    }
}

fn nonsense(random: &mut Random) -> Vec<u8> {
    let mut packet = ToDpa::Hello(hello(HONEST_NAME)).encode();
    match random.below(6) {
        0 => {
            let count = 1 + random.below(300);
            random.bytes(count)
        }
        1 => packet[..1 + random.below(packet.len() - 1)].to_vec(),
        2 => ToDpa::Leave.encode(),
        3 => FromDpa::Left.encode(),
        4 => vec![b'x'; 150_000],
        _ => {
            let at = random.below(11);
            packet[at] ^= 1 << random.below(8);
            packet
        }
    }
}
