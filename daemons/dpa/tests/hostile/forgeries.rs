//! A worker that answers what is not its own.

use std::time::Duration;

use bytes::Bytes;
use cellmesh_shm::attach::Channel;
use cellmesh_shm::frame::{FrameHeader, FrameKind};
use cellmesh_shm::ids::SlotId;
use cellmesh_shm::link::Link;
use cellmesh_shm::message::{Fault, RequestMessage, ResponseMessage};
use cellmesh_shm::peer::{Hostile, attach, has_ended, until_ended};
use cellmesh_shm::port::{Arrived, Port, PortConfig};
use tokio::time::sleep;

use crate::node::{HONEST, HONEST_NAME, HOSTILE, Node, check, config, pattern, scale};
use crate::{Task, hello};

const WITHIN: Duration = Duration::from_secs(60);

/// worker A answers B's requests, replays old names, and names other generations, its own request's too. None is
/// accepted, all are counted, and B is not affected.
#[test]
fn forged_answers_are_counted_and_dropped() {
    const FORGERIES: u64 = 1_000_000;
    check(config(), async |node| {
        let mut victim = Victim::attach(node).await;
        for round in 0..100 {
            let call = node.call(HONEST, pattern(64, round), WITHIN);
            let (slot, message) = victim.take().await;
            victim.answer(slot, message.body);
            assert_eq!(call.await.expect("an outcome").fault, Fault::None);
        }
        let bodies: Vec<Bytes> = (0..8).map(|n| pattern(100, 1000 + n)).collect();
        let calls: Vec<_> = bodies.iter().map(|body| node.call(HONEST, body.clone(), WITHIN)).collect();
        let mut held = Vec::new();
        for _ in &calls {
            held.push(victim.take().await);
        }
        let forgeries = FORGERIES * scale();
        let mut numbers = vec![forgeries];
        numbers.extend(held.iter().map(|(slot, _)| slot.raw()));
        let _hostile = node.spawn("forge", &numbers);
        node.until("it is attached", |stats| stats.endpoints == 3).await;
        let own = node.call(HOSTILE, Bytes::new(), WITHIN).await.expect("an outcome");
        assert_eq!((own.fault, own.status), (Fault::None, 299), "its own answer, after all forged ones");
        let stats = node.host.stats();
        assert_eq!(stats.late_responses + stats.late_credits + stats.late_chunks, forgeries, "{stats:?}");
        assert_eq!(stats.closed(), 0, "{stats:?}");
        for (slot, message) in held {
            victim.answer(slot, message.body);
        }
        for (call, body) in calls.into_iter().zip(bodies) {
            let answer = call.await.expect("an outcome");
            assert!(answer.status == 200 && answer.body == body, "{answer:?}");
        }
    });
}

/// B: a worker whose requests the test holds as long as it likes.
struct Victim {
    port: Port,
    _channel: Channel,
}

impl Victim {
    async fn attach(node: &Node) -> Self {
        let socket = node.socket();
        let attached = tokio::task::spawn_blocking(move || attach(&socket, &hello(HONEST_NAME)));
        let (channel, attached) = attached.await.expect("no panic").expect("admitted");
        let fds = attached.links.into_iter().next().expect("one lane");
        let link = Link::open(fds).expect("segments of the DPA");
        Self { port: Port::new(link, PortConfig::default()), _channel: channel }
    }

    async fn take(&mut self) -> (SlotId, RequestMessage) {
        loop {
            let arrived = self.port.poll().expect("the DPA breaks no rules");
            self.port.flush();
            match arrived {
                Some(Arrived::Request { slot, message }) => return (slot, message),
                Some(other) => panic!("a request was expected, not {other:?}"),
                None => sleep(Duration::from_millis(1)).await,
            }
        }
    }

    fn answer(&mut self, slot: SlotId, body: Bytes) {
        let message = ResponseMessage { status: 200, fault: Fault::None, head: Bytes::new(), body };
        self.port.respond(slot, message);
        self.port.flush();
    }
}

/// A: forges about the requests that it was told of, then answers the one that is its own. Numbers: how many forgeries,
/// and the victim's requests.
pub(crate) fn forge(task: &Task<'_>) {
    let (forgeries, others) = task.numbers.split_first().expect("numbers of this role");
    let (channel, mut hostile) = task.attach_hostile().expect("admitted");
    let own = loop {
        if let Some(request) = hostile.take().expect("an honest DPA") {
            break SlotId::from_raw(request.token);
        }
        std::thread::yield_now();
    };
    let names = forged_names(own, others);
    for (_, (token, kind)) in (0..*forgeries).zip(names.iter().cycle()) {
        post(&mut hostile, &channel, &forgery(*kind, *token));
    }
    let answer = FrameHeader { status: 299, ..FrameHeader::new(FrameKind::Response, own.raw()) };
    post(&mut hostile, &channel, &answer);
    until_ended(&channel);
}

/// Names that are not the forger's: the victim's requests, all that came before them in their places, some that come
/// after, some beyond the table; of its own place every generation but the right one.
fn forged_names(own: SlotId, others: &[u64]) -> Vec<(u64, FrameKind)> {
    const KINDS: [FrameKind; 4] = [
        FrameKind::Response,
        FrameKind::ResponseAnnounce,
        FrameKind::RequestCredit,
        FrameKind::ResponseChunk,
    ];
    let others = others.iter().map(|raw| SlotId::from_raw(*raw)).chain([own]);
    let beyond = SlotId { index: u32::MAX, generation: 0 };
    let names = others.flat_map(|SlotId { index, generation }| {
        (0..generation + 3).chain([u32::MAX]).map(move |generation| SlotId { index, generation })
    });
    let names = names.chain([beyond]).filter(|name| *name != own);
    names.flat_map(|name| KINDS.map(|kind| (name.raw(), kind))).collect()
}

/// A header that is admitted, of any of the forged kinds.
fn forgery(kind: FrameKind, token: u64) -> FrameHeader {
    FrameHeader {
        status: 200,
        credit: 1,
        payload_len: if kind == FrameKind::ResponseAnnounce { 9000 } else { 0 },
        frame_len: if kind.is_chunk() { 64 } else { 0 },
        ..FrameHeader::new(kind, token)
    }
}

/// Posts a frame as soon as there is room for it.
fn post(hostile: &mut Hostile, channel: &Channel, frame: &FrameHeader) {
    while !hostile.forge(frame).expect("an honest DPA") {
        assert!(!has_ended(channel), "evicted for a name that is only late");
        std::thread::yield_now();
    }
    hostile.link.publish();
}
