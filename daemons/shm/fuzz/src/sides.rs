//! A port with calls in flight, and the far side of its link.

use bytes::Bytes;
use cellmesh_shm::clock::Nanos;
use cellmesh_shm::ids::{CallId, ServiceId};
use cellmesh_shm::link::Link;
use cellmesh_shm::message::{Fault, RequestMessage, ResponseMessage};
use cellmesh_shm::peer::Hostile;
use cellmesh_shm::port::{Arrived, Port, PortConfig, PortError};

use crate::SPEC;
use crate::images::images;

/// Longer than goes behind a header here: it travels in chunks.
pub(crate) const LARGE: usize = 300;

/// A port and its calls.
pub(crate) struct Sides {
    near: Port,
    calls: Vec<CallId>,
}

/// Whatever the far side writes, every call has at most one outcome, no message is longer than the link carries, and an
/// error stays.
pub fn port(data: &[u8]) {
    let (mut sides, far) = Sides::new();
    let scratch = far.scratch();
    for image in images(data) {
        scratch.fill(image);
        if let Err(error) = sides.turn() {
            assert_eq!(sides.near.poll(), Err(error), "closed for ever");
            return;
        }
    }
}

impl Sides {
    /// With the far side of the link.
    pub(crate) fn new() -> (Self, Hostile) {
        let (near, fds) = Link::create(SPEC).expect("memory and descriptors");
        let mut near = Port::new(near, PortConfig { calls_max: 8, ..PortConfig::default() });
        let bodies = [10, LARGE, 10];
        let calls = bodies.map(|len| near.call(request(ServiceId(0), len)).expect("few calls"));
        near.flush();
        let far = Hostile::open(fds).expect("its own link");
        (Self { near, calls: calls.into() }, far)
    }

    /// Takes what has come, answers every request.
    pub(crate) fn turn(&mut self) -> Result<(), PortError> {
        while let Some(arrived) = self.near.poll()? {
            match arrived {
                Arrived::Request { slot, message } => {
                    let len = message.head.len() + message.body.len();
                    assert!(len <= SPEC.message_bytes_max as usize);
                    self.near.respond(slot, response(message.body));
                }
                Arrived::Response { call, message } => {
                    assert!(message.head.len() + message.body.len() <= SPEC.message_bytes_max as usize);
                    let open = self.calls.iter().position(|open| *open == call);
                    self.calls.swap_remove(open.expect("one outcome of a call that was made"));
                }
                Arrived::Cancelled { .. } => {}
            }
        }
        self.near.flush();
        Ok(())
    }
}

pub(crate) fn request(service: ServiceId, body_len: usize) -> RequestMessage {
    RequestMessage {
        service,
        deadline: Nanos::MAX,
        hops: 0,
        method_len: 4,
        target_len: 2,
        head: Bytes::from_static(b"POST/xhost: s2\n"),
        body: vec![7; body_len].into(),
    }
}

pub(crate) fn response(body: Bytes) -> ResponseMessage {
    ResponseMessage { status: 200, fault: Fault::None, head: Bytes::from_static(b"a: b\n"), body }
}
