//! A worker that writes what it likes: frames of every kind with random fields, names that are not its own.

use cellmesh_shm::clock::Nanos;
use cellmesh_shm::frame::{FrameHeader, FrameKind};
use cellmesh_shm::ids::{EndpointId, ServiceId, SlotId};
use cellmesh_shm::link::{Link, LinkFds};
use cellmesh_shm::message::Fault;
use cellmesh_shm::ring::Payload;

use crate::plan::{MESSAGE_BYTES_MAX, SERVICES};
use crate::random::Random;

/// Its side of a link, without a port.
pub(crate) struct Hostile {
    pub(crate) endpoint: EndpointId,
    link: Link,
    /// So many answers it will announce and never send.
    withholds: u32,
}

impl Hostile {
    pub(crate) fn new(fds: LinkFds) -> Self {
        Self { endpoint: fds.spec.endpoint, link: Link::open(fds).expect("its own link"), withholds: 0 }
    }

    /// From now on it answers nothing, but announces so many large answers.
    pub(crate) fn withhold(&mut self, answers: u32) {
        self.withholds = answers;
    }

    /// Whether it holds room that others need, or will.
    pub(crate) fn is_withholding(&self) -> bool {
        self.withholds > 0
    }

    /// Takes what it was sent, mostly, and answers some of it. `stolen`: the name of somebody else's request.
    pub(crate) fn pump(&mut self, draw: &mut Random, stolen: Option<SlotId>) -> bool {
        if draw.once_in(8) {
            return false;
        }
        let mut taken = self.link.rx.refresh().expect("the DPA breaks no rules");
        while let Ok(Some(frame)) = self.link.rx.bulk.peek_frame() {
            self.link.rx.bulk.release(&frame);
        }
        while let Ok(Some(frame)) = self.link.rx.small.peek_frame() {
            self.link.rx.small.release(&frame);
            if frame.kind() == FrameKind::Request && self.withholds > 0 {
                self.withholds -= 1;
                self.write(&announcement(frame.token()));
            } else if frame.kind() == FrameKind::Request && draw.once_in(2) {
                self.write(&answer(frame.token()));
            }
        }
        if let Some(slot) = stolen.filter(|_| draw.once_in(64)) {
            self.write(&answer(slot.raw()));
            taken = true;
        }
        taken | self.link.publish()
    }

    /// Writes frames that nobody expects.
    pub(crate) fn forge(&mut self, draw: &mut Random, stolen: Option<SlotId>, now: Nanos) {
        for _ in 0..=draw.below(6) {
            let stolen = stolen.filter(|_| draw.once_in(2));
            self.write(&forged(draw, stolen, now));
        }
        self.link.publish();
    }

    /// Nothing if the ring is full.
    fn write(&mut self, header: &FrameHeader) {
        let ring = if header.kind.is_chunk() { &mut self.link.tx.bulk } else { &mut self.link.tx.small };
        let payload = vec![0; header.frame_len as usize];
        ring.push(header, Payload::Parts(&[], &payload)).expect("the DPA breaks no rules");
    }
}

fn answer(token: u64) -> FrameHeader {
    FrameHeader { status: 299, ..FrameHeader::new(FrameKind::Response, token) }
}

fn announcement(token: u64) -> FrameHeader {
    let payload_len = MESSAGE_BYTES_MAX / 2;
    FrameHeader { status: 299, payload_len, ..FrameHeader::new(FrameKind::ResponseAnnounce, token) }
}

/// Fields that are likely to hit something.
fn forged(draw: &mut Random, stolen: Option<SlotId>, now: Nanos) -> FrameHeader {
    let small = |draw: &mut Random, count| u32::try_from(draw.below(count)).expect("less than count");
    let kind = draw.pick(&FrameKind::ALL);
    let guess = SlotId { index: small(draw, 64), generation: small(draw, 4) };
    let payload_len = small(draw, 600);
    FrameHeader {
        status: 200,
        fault: draw.pick(&Fault::ALL),
        service: ServiceId(u16::try_from(draw.below(SERVICES as u64)).expect("few services")),
        deadline: now.saturating_add(draw.micros(0, 50_000)),
        credit: small(draw, 5),
        seq: small(draw, 3),
        payload_len,
        frame_len: if kind.is_chunk() { 1 + payload_len % 60 } else { 0 },
        headers_len: small(draw, 200),
        ..FrameHeader::new(kind, stolen.unwrap_or(guess).raw())
    }
}
