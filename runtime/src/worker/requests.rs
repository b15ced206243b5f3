//! The requests of one lane that are not answered yet.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use cellmesh_dpu::origin::Origin;
use cellmesh_graph::{Engine, StepIndex};
use cellmesh_shm::clock::Nanos;
use cellmesh_shm::head::HeaderLines;
use cellmesh_shm::ids::{CallId, SlotId};
use cellmesh_shm::message::RequestMessage;

use crate::host::{CallFlags, GuestCall};
use crate::trace::Trace;

/// Names a request on its lane; never means another one later.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RequestId {
    index: u32,
    generation: u32,
}

/// A request between its arrival and its response.
pub(super) struct Request {
    pub(super) slot: SlotId,
    pub(super) message: RequestMessage,
    pub(super) arrived: Nanos,
    /// The graph, once the handler has returned one.
    pub(super) engine: Option<Box<Engine>>,
    /// Calls to other services that are not answered yet.
    pub(super) calls: Vec<CallId>,
    /// Guest calls that left the lane.
    pub(super) running: Vec<Running>,
    /// What is noted of it.
    pub(super) trace: Trace,
}

/// A guest call that has not returned.
pub(super) struct Running {
    pub(super) step: Option<StepIndex>,
    pub(super) wanted: Nanos,
    pub(super) flags: Arc<CallFlags>,
}

impl Request {
    pub(super) fn new(slot: SlotId, message: RequestMessage, arrived: Nanos, trace: Trace) -> Self {
        Self { slot, message, arrived, engine: None, calls: Vec::new(), running: Vec::new(), trace }
    }

    /// Header lines that it is called by in the log.
    ///
    /// - cost: a count of references.
    pub(super) fn naming_lines(&self) -> Bytes {
        self.trace.naming_lines().unwrap_or_else(|| self.message.header_bytes())
    }

    /// What it is called in the log.
    pub(super) fn origin(&self) -> Origin {
        Origin::of(HeaderLines(&self.naming_lines()))
    }

    /// The id of a step.
    pub(super) fn step_id(&self, step: StepIndex) -> Option<&str> {
        self.engine.as_ref().map(|engine| engine.step_id(step))
    }
}

/// The handler's call for a request.
pub(crate) fn handle_call(message: &RequestMessage) -> GuestCall {
    GuestCall::Handle {
        arena: contiguous(&message.head, &message.body),
        method_len: u32::from(message.method_len),
        target_len: u32::from(message.target_len),
        headers_len: u32::try_from(message.headers().0.len()).expect("a head is far smaller than 4 GiB"),
    }
}

fn contiguous(head: &Bytes, body: &Bytes) -> Bytes {
    if body.is_empty() {
        return head.clone();
    }
    let mut arena = BytesMut::with_capacity(head.len() + body.len());
    arena.extend_from_slice(head);
    arena.extend_from_slice(body);
    arena.freeze()
}

/// A table with generations: an id of a request that has ended finds nothing.
#[derive(Default)]
pub(super) struct Requests {
    entries: Vec<Entry>,
    free: Vec<u32>,
    /// The request that holds a custody slot, by the slot's index.
    by_slot: Vec<Option<RequestId>>,
}

#[derive(Default)]
struct Entry {
    generation: u32,
    /// Boxed: it is handed on when it ends, and many places are free.
    request: Option<Box<Request>>,
}

impl Requests {
    pub(super) fn len(&self) -> usize {
        self.entries.len() - self.free.len()
    }

    pub(super) fn insert(&mut self, request: Request) -> RequestId {
        let slot = request.slot.index as usize;
        let index = self.free.pop().unwrap_or_else(|| {
            self.entries.push(Entry::default());
            u32::try_from(self.entries.len() - 1).expect("the DPA bounds the requests in flight")
        });
        let entry = &mut self.entries[index as usize];
        entry.request = Some(Box::new(request));
        let id = RequestId { index, generation: entry.generation };
        if self.by_slot.len() <= slot {
            self.by_slot.resize(slot + 1, None);
        }
        self.by_slot[slot] = Some(id);
        id
    }

    pub(super) fn get(&self, id: RequestId) -> Option<&Request> {
        let entry = self.entries.get(id.index as usize)?;
        entry.request.as_deref().filter(|_| entry.generation == id.generation)
    }

    pub(super) fn get_mut(&mut self, id: RequestId) -> Option<&mut Request> {
        let entry = self.entries.get_mut(id.index as usize)?;
        entry.request.as_deref_mut().filter(|_| entry.generation == id.generation)
    }

    pub(super) fn remove(&mut self, id: RequestId) -> Option<Box<Request>> {
        let entry =
            self.entries.get_mut(id.index as usize).filter(|entry| entry.generation == id.generation)?;
        let request = entry.request.take()?;
        entry.generation = entry.generation.wrapping_add(1);
        self.free.push(id.index);
        self.by_slot[request.slot.index as usize] = None;
        Some(request)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Request> {
        self.entries.iter().filter_map(|entry| entry.request.as_deref())
    }

    /// Removes the request that holds `slot`, if it still does.
    pub(super) fn remove_slot(&mut self, slot: SlotId) -> Option<(RequestId, Box<Request>)> {
        let id = (*self.by_slot.get(slot.index as usize)?)?;
        self.get(id).filter(|request| request.slot == slot)?;
        Some((id, self.remove(id)?))
    }
}

#[cfg(test)]
mod tests {
    use cellmesh_shm::ids::ServiceId;

    use super::*;

    fn request(slot: u32) -> Request {
        let message = RequestMessage {
            service: ServiceId(0),
            deadline: Nanos::MAX,
            hops: 0,
            method_len: 3,
            target_len: 1,
            head: Bytes::from_static(b"GET/host: a\n"),
            body: Bytes::from_static(b"body"),
        };
        Request::new(SlotId { index: slot, generation: 5 }, message, Nanos(0), Trace::default())
    }

    /// An id finds its request until it has ended, and never the next one in its place.
    #[test]
    fn ended_requests_are_not_found() {
        let mut requests = Requests::default();
        let first = requests.insert(request(0));
        assert!(requests.get(first).is_some());
        assert!(requests.remove(first).is_some());
        let second = requests.insert(request(0));
        assert!(requests.get(first).is_none() && requests.remove(first).is_none());
        assert!(requests.get(second).is_some());
        assert_eq!(requests.len(), 1);
    }

    /// A cancel that names an earlier use of a custody slot ends nothing.
    #[test]
    fn only_the_holder_of_a_slot_is_cancelled() {
        let mut requests = Requests::default();
        requests.insert(request(3));
        assert!(requests.remove_slot(SlotId { index: 3, generation: 4 }).is_none());
        assert!(requests.remove_slot(SlotId { index: 9, generation: 5 }).is_none());
        assert!(requests.remove_slot(SlotId { index: 3, generation: 5 }).is_some());
        assert_eq!(requests.len(), 0);
    }

    /// The arena of a handler is the head and the body, one behind the other.
    #[test]
    fn handler_sees_one_arena() {
        let GuestCall::Handle { arena, method_len, target_len, headers_len } =
            handle_call(&request(0).message)
        else {
            panic!("a handler's call");
        };
        assert_eq!(&arena[..], b"GET/host: a\nbody");
        assert_eq!((method_len, target_len, headers_len), (3, 1, 8));
    }
}
