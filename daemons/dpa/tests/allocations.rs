//! A hop on the steady path allocates nothing: frame in, validated, routed, kept in custody, frame out, and the answer.

use cellmesh_dpa::{Dpa, DpaConfig};
use cellmesh_shm::clock::Nanos;
use cellmesh_shm::frame::{FrameHeader, FrameKind};
use cellmesh_shm::ids::{CallId, ServiceId};
use cellmesh_shm::link::Link;
use cellmesh_shm::profile::RingProfile;
use cellmesh_shm::ring::Payload;

const SERVICE: ServiceId = ServiceId(0);
const BATCH: u32 = 16;
const BODY: [u8; 64] = [7; 64];

/// Tables have grown after the first batch; from then on nothing does.
#[test]
fn hops_allocate_nothing() {
    let mut dpa = Dpa::new(DpaConfig::default());
    let profile = RingProfile::default();
    let caller = dpa.attach_sidecar(profile).expect("memory and descriptors");
    let callee = dpa.attach_worker(&[SERVICE], profile).expect("memory and descriptors");
    let mut caller = Link::open(caller).expect("its own link");
    let mut callee = Link::open(callee).expect("its own link");
    there_and_back(&mut dpa, &mut caller, &mut callee);
    let first = allocation_counter::measure(|| drop(std::hint::black_box(Box::new(0))));
    assert_eq!(first.count_total, 1, "allocations are counted");
    let hops = allocation_counter::measure(|| {
        (0..1000).for_each(|_| there_and_back(&mut dpa, &mut caller, &mut callee));
    });
    assert_eq!((hops.count_total, hops.bytes_total), (0, 0));
}

/// A batch of requests, each answered with its own body.
fn there_and_back(dpa: &mut Dpa, caller: &mut Link, callee: &mut Link) {
    let now = Nanos::now();
    for index in 0..BATCH {
        let header = FrameHeader {
            service: SERVICE,
            deadline: Nanos::MAX,
            frame_len: 64,
            payload_len: 64,
            ..FrameHeader::new(FrameKind::Request, CallId { index, generation: 0 }.raw())
        };
        assert_eq!(caller.tx.small.push(&header, Payload::Parts(&[], &BODY)), Ok(true));
    }
    caller.publish();
    dpa.pump(now);
    let mut answered = 0;
    callee.rx.refresh().expect("an honest DPA");
    while let Some(request) = callee.rx.small.peek_frame().expect("an honest DPA") {
        let header = FrameHeader {
            status: 200,
            frame_len: 64,
            payload_len: 64,
            ..FrameHeader::new(FrameKind::Response, request.token())
        };
        let payload = Payload::Words(callee.rx.small.payload(&request));
        assert_eq!(callee.tx.small.push(&header, payload), Ok(true));
        callee.rx.small.release(&request);
    }
    callee.publish();
    dpa.pump(now);
    caller.rx.refresh().expect("an honest DPA");
    while let Some(response) = caller.rx.small.peek_frame().expect("an honest DPA") {
        caller.rx.small.release(&response);
        answered += 1;
    }
    caller.publish();
    assert_eq!(answered, BATCH);
}
