//! Random schedules of everything that endpoints can do, against what every caller may expect.
//!
//! `CELLMESH_SCHEDULES=100000 cargo test -p cellmesh-dpa schedule` for a long run; the default takes seconds.
//!
//! - Rings, tables and budgets are tiny, so that every queue is full all the time.
//! - The model is slow and obvious: each call has a serial number, which is the seed of its request's and its answer's
//!   bytes. So an answer that is wrong, mixed up, cut, late or given twice is seen.
//! - One endpoint is hostile: it writes frames with random fields, and gets requests of its own service.

use std::collections::HashMap;
use std::time::Duration;

use bytes::Bytes;
use cellmesh_shm::clock::Nanos;
use cellmesh_shm::frame::{FrameHeader, FrameKind};
use cellmesh_shm::ids::{CallId, EndpointId, ServiceId, SlotId};
use cellmesh_shm::link::Link;
use cellmesh_shm::message::{Fault, RequestMessage, ResponseMessage};
use cellmesh_shm::port::{Arrived, Port, PortConfig};
use cellmesh_shm::profile::RingProfile;
use cellmesh_shm::ring::Payload;
use proptest::prelude::*;
use proptest::strategy::ValueTree;

use crate::testing::pattern;
use crate::{Dpa, DpaConfig};

const PROFILE: RingProfile =
    RingProfile { small_bytes: 1024, chunk_bytes: 256, bulk_chunks: 4, inline_bytes_max: 448 };

const CONFIG: DpaConfig = DpaConfig {
    slots_max: 12,
    calls_max: 6,
    message_bytes_max: 8192,
    profile: PROFILE,
    chunks_per_turn: 2,
    budget_per_turn: 3,
    request_timeout_max: Duration::from_millis(100),
    hops_max: 3,
    stall_timeout: Duration::from_secs(3600),
    reattach_delay: Duration::ZERO,
    segment_bytes_max: 1 << 20,
    seed: 5,
};

/// Services 0 and 1 have honest workers, 2 has the hostile one, 3 has nobody.
const SERVICES: u16 = 4;
const HOSTILE_SERVICE: ServiceId = ServiceId(2);

#[derive(Debug, Clone)]
enum Op {
    Call { port: usize, service: u16, len: usize, timeout_ms: u64, hops: u8 },
    Answer { port: usize, nth: usize },
    Cancel { port: usize, nth: usize },
    Poll { port: usize, count: usize },
    Flush { port: usize },
    Pump,
    Pass { ms: u64 },
    Flow { service: u16, nth: usize, install: bool },
    Lose { worker: usize },
    Forge { header: FrameHeader },
}

fn op() -> impl Strategy<Value = Op> {
    let port = 0..4usize;
    let len = prop_oneof![2 => 0..100usize, 3 => 380..440usize, 1 => 440..600usize, 2 => 600..8000usize];
    let hops = prop_oneof![9 => Just(0u8), 1 => 1..5u8];
    let timeout = prop_oneof![4 => Just(1000u64), 1 => 0..50u64];
    prop_oneof![
        6 => (port.clone(), 0..SERVICES, len, timeout, hops)
            .prop_map(|(port, service, len, timeout_ms, hops)| Op::Call { port, service, len, timeout_ms, hops }),
        6 => (port.clone(), 0..6usize).prop_map(|(port, nth)| Op::Answer { port, nth }),
        1 => (port.clone(), 0..6usize).prop_map(|(port, nth)| Op::Cancel { port, nth }),
        8 => (port.clone(), 1..8usize).prop_map(|(port, count)| Op::Poll { port, count }),
        8 => port.prop_map(|port| Op::Flush { port }),
        12 => Just(Op::Pump),
        1 => prop_oneof![0..10u64, Just(100)].prop_map(|ms| Op::Pass { ms }),
        2 => (0..SERVICES, 0..6usize, prop_oneof![4 => Just(true), 1 => Just(false)])
            .prop_map(|(service, nth, install)| Op::Flow { service, nth, install }),
        1 => (1..4usize).prop_map(|worker| Op::Lose { worker }),
        3 => forged().prop_map(|header| Op::Forge { header }),
    ]
}

/// Fields that are likely to hit something, of every kind.
fn forged() -> impl Strategy<Value = FrameHeader> {
    let kind = proptest::sample::select(FrameKind::ALL.to_vec());
    let token = (0..13u32, 0..6u32).prop_map(|(index, generation)| SlotId { index, generation }.raw());
    (kind, token, 0..4u16, 0..5u32, 0..3u32, 0..600u32, 0..200u32).prop_map(
        |(kind, token, service, credit, seq, payload_len, headers_len)| FrameHeader {
            status: 200,
            service: ServiceId(service),
            deadline: Nanos::MAX,
            credit,
            seq,
            payload_len,
            frame_len: if kind.is_chunk() { 1 + payload_len % 192 } else { 0 },
            headers_len,
            ..FrameHeader::new(kind, token)
        },
    )
}

/// What a caller knows of its call.
#[derive(Debug)]
struct Call {
    serial: u64,
    service: ServiceId,
    deadline: Nanos,
}

/// One honest endpoint and what it has open.
struct Endpoint {
    id: EndpointId,
    port: Port,
    calls: HashMap<CallId, Call>,
    /// In the order of the calls, so that a schedule means the same each time.
    order: Vec<CallId>,
    held: Vec<(SlotId, u64)>,
}

struct World {
    dpa: Dpa,
    /// The sidecar and three workers.
    endpoints: Vec<Endpoint>,
    hostile: Option<(EndpointId, Link)>,
    now: Nanos,
    serials: u64,
    delivered: HashMap<u64, u32>,
    losses: u64,
}

fn request_of(serial: u64, len: usize, service: ServiceId, deadline: Nanos, hops: u8) -> RequestMessage {
    let head = Bytes::from(serial.to_string());
    let target_len = u16::try_from(head.len()).expect("a short number");
    RequestMessage { service, deadline, hops, method_len: 0, target_len, head, body: pattern(len, serial) }
}

/// Small, at the edge of a frame, or large, as the serial number has it.
fn answer_to(serial: u64) -> ResponseMessage {
    let len = [0, 9, 430, 449, 2000, 7000][usize::try_from(serial % 6).expect("less than 6")];
    ResponseMessage {
        status: 200,
        fault: Fault::None,
        head: Bytes::from("a: b\n"),
        body: pattern(len, !serial),
    }
}

impl World {
    fn new() -> Self {
        let mut world = Self {
            dpa: Dpa::new(CONFIG),
            endpoints: Vec::new(),
            hostile: None,
            now: Nanos(1_000_000_000),
            serials: 0,
            delivered: HashMap::new(),
            losses: 0,
        };
        for index in 0..4 {
            let endpoint = world.attach(index);
            world.endpoints.push(endpoint);
        }
        world.attach_hostile();
        world.install_flows().expect("nothing hinders anybody yet");
        world
    }

    /// Each worker's first call to each honest service, which the sidecar decides about.
    fn install_flows(&mut self) -> Result<(), TestCaseError> {
        for port in 1..4 {
            for service in [ServiceId(0), ServiceId(1)] {
                self.call(port, service, 0, Nanos::MAX, 0);
                self.exchange(port, 0)?;
                self.install_flow(0);
                self.answer(0, 0);
                self.exchange(0, port)?;
            }
        }
        Ok(())
    }

    /// What one endpoint has said reaches another.
    fn exchange(&mut self, from: usize, to: usize) -> Result<(), TestCaseError> {
        self.endpoints[from].port.flush();
        self.pump()?;
        while self.poll(to)? {}
        self.endpoints[to].port.flush();
        Ok(())
    }

    /// Two workers of service 0, one of service 1.
    fn attach(&mut self, index: usize) -> Endpoint {
        let fds = match index {
            0 => self.dpa.attach_sidecar(PROFILE),
            1 | 2 => self.dpa.attach_worker(&[ServiceId(0)], PROFILE),
            _ => self.dpa.attach_worker(&[ServiceId(1)], PROFILE),
        };
        let fds = fds.expect("memory and descriptors");
        let config =
            PortConfig { calls_max: CONFIG.calls_max, assembly_bytes_max: 9000, ..PortConfig::default() };
        Endpoint {
            id: fds.spec.endpoint,
            port: Port::new(Link::open(fds).expect("its own link"), config),
            calls: HashMap::new(),
            order: Vec::new(),
            held: Vec::new(),
        }
    }

    fn attach_hostile(&mut self) {
        let fds = self.dpa.attach_worker(&[HOSTILE_SERVICE], PROFILE).expect("memory and descriptors");
        self.hostile = Some((fds.spec.endpoint, Link::open(fds).expect("its own link")));
    }

    fn run(&mut self, op: &Op) -> Result<(), TestCaseError> {
        match *op {
            Op::Call { port, service, len, timeout_ms, hops } => {
                let deadline = self.now.saturating_add(Duration::from_millis(timeout_ms));
                self.call(port, ServiceId(service), len, deadline, hops);
            }
            Op::Answer { port, nth } => self.answer(port, nth),
            Op::Cancel { port, nth } => self.cancel(port, nth),
            Op::Poll { port, count } => {
                for _ in 0..count {
                    self.poll(port)?;
                }
            }
            Op::Flush { port } => _ = self.endpoints[port].port.flush(),
            Op::Pump => self.pump()?,
            Op::Pass { ms } => self.now = self.now.saturating_add(Duration::from_millis(ms)),
            Op::Flow { nth, install: true, .. } => self.install_flow(nth),
            Op::Flow { service, install: false, .. } => {
                self.endpoints[0].port.remove_flow(ServiceId(service))
            }
            Op::Lose { worker } => self.lose(worker),
            Op::Forge { ref header } => self.forge(header),
        }
        Ok(())
    }

    fn call(&mut self, port: usize, service: ServiceId, len: usize, deadline: Nanos, hops: u8) {
        let serial = self.serials;
        self.serials += 1;
        let endpoint = &mut self.endpoints[port];
        if let Ok(call) = endpoint.port.call(request_of(serial, len, service, deadline, hops)) {
            endpoint.calls.insert(call, Call { serial, service, deadline });
            endpoint.order.push(call);
        }
    }

    /// The sidecar decides about one of the requests that it holds.
    fn install_flow(&mut self, nth: usize) {
        let sidecar = &mut self.endpoints[0];
        if let Some((slot, _)) = sidecar.held.get(nth) {
            sidecar.port.install_flow(*slot);
        }
    }

    fn answer(&mut self, port: usize, nth: usize) {
        let endpoint = &mut self.endpoints[port];
        if nth < endpoint.held.len() {
            let (slot, serial) = endpoint.held.remove(nth);
            endpoint.port.respond(slot, answer_to(serial));
        }
    }

    fn cancel(&mut self, port: usize, nth: usize) {
        let endpoint = &mut self.endpoints[port];
        if nth < endpoint.order.len() {
            let call = endpoint.order.remove(nth);
            endpoint.calls.remove(&call);
            endpoint.port.cancel(call);
        }
    }

    fn poll(&mut self, port: usize) -> Result<bool, TestCaseError> {
        let endpoint = &mut self.endpoints[port];
        let Some(arrived) = endpoint.port.poll().map_err(|error| TestCaseError::fail(error.to_string()))?
        else {
            return Ok(false);
        };
        match arrived {
            Arrived::Request { slot, message } => self.on_request(port, slot, message)?,
            Arrived::Response { call, message } => self.on_response(port, call, message)?,
            Arrived::Cancelled { slot } => {
                let known = endpoint.held.iter().position(|(held, _)| *held == slot);
                prop_assert!(known.is_some(), "a request was cancelled that is not held");
                endpoint.held.remove(known.unwrap_or_default());
            }
        }
        Ok(true)
    }

    /// A request arrives whole, at most once, and where it was sent to. The hostile worker's own calls are its own affair.
    fn on_request(
        &mut self,
        port: usize,
        slot: SlotId,
        message: RequestMessage,
    ) -> Result<(), TestCaseError> {
        prop_assert!(message.deadline <= self.now.saturating_add(CONFIG.request_timeout_max));
        let serial = str::from_utf8(message.target()).ok().and_then(|target| target.parse().ok());
        if let Some(serial) = serial {
            let expected =
                request_of(serial, message.body.len(), message.service, message.deadline, message.hops);
            prop_assert_eq!(&message, &expected);
            let times = self.delivered.entry(serial).or_default();
            *times += 1;
            prop_assert_eq!(*times, 1, "request {} was delivered twice", serial);
        }
        if port != 0 {
            prop_assert_eq!(message.service, ServiceId(u16::from(port == 3)), "at the wrong worker");
        }
        self.endpoints[port].held.push((slot, serial.unwrap_or(u64::MAX)));
        Ok(())
    }

    /// A call has one outcome: its own answer, byte for byte, or a fault that has its reason.
    fn on_response(
        &mut self,
        port: usize,
        id: CallId,
        message: ResponseMessage,
    ) -> Result<(), TestCaseError> {
        let endpoint = &mut self.endpoints[port];
        let Some(call) = endpoint.calls.remove(&id) else {
            return Err(TestCaseError::fail(format!("an outcome for {id:?}, which has none to come")));
        };
        endpoint.order.retain(|open| *open != id);
        if message.fault != Fault::None {
            prop_assert_eq!(&message, &ResponseMessage::faulted(message.fault));
        }
        match message.fault {
            Fault::None if call.service == HOSTILE_SERVICE => {}
            Fault::None => {
                prop_assert!(message == answer_to(call.serial), "the wrong answer to {}", call.serial)
            }
            Fault::Deadline => prop_assert!(call.deadline <= self.now || self.now >= Nanos(1_100_000_000)),
            Fault::WorkerLost => prop_assert!(self.losses > 0 || call.service == HOSTILE_SERVICE),
            Fault::NoWorker => prop_assert!(call.service.0 >= 2 || self.losses > 0),
            Fault::Overloaded | Fault::HopLimit => {}
            Fault::Unroutable | Fault::TooLarge | Fault::Cancelled | Fault::Internal => {
                return Err(TestCaseError::fail(format!("nothing here can end in {:?}", message.fault)));
            }
        }
        Ok(())
    }

    fn pump(&mut self) -> Result<(), TestCaseError> {
        self.dpa.pump(self.now);
        let stats = self.dpa.stats();
        prop_assert!(stats.is_balanced(), "{:?}", stats);
        prop_assert!(stats.live <= CONFIG.slots_max);
        while let Some(closed) = self.dpa.take_closed() {
            let hostile = self.hostile.take().map(|(id, _)| id);
            prop_assert_eq!(Some(closed.endpoint), hostile, "closed: {}", closed.rule);
            self.attach_hostile();
        }
        Ok(())
    }

    /// A worker dies and another takes its place.
    fn lose(&mut self, worker: usize) {
        self.losses += 1;
        self.dpa.detach(self.endpoints[worker].id);
        self.endpoints[worker] = self.attach(worker);
    }

    /// The hostile worker says something, and takes what it was sent without looking.
    fn forge(&mut self, header: &FrameHeader) {
        let Some((_, link)) = &mut self.hostile else { return };
        let ring = if header.kind.is_chunk() { &mut link.tx.bulk } else { &mut link.tx.small };
        let payload = vec![0; header.frame_len as usize];
        ring.push(header, Payload::Parts(&[], &payload)).expect("an honest DPA");
        let _ = link.rx.refresh();
        while let Ok(Some(frame)) = link.rx.small.peek_frame() {
            link.rx.small.release(&frame);
        }
        if header.seq > 0 {
            while let Ok(Some(frame)) = link.rx.bulk.peek_frame() {
                link.rx.bulk.release(&frame);
            }
        }
        link.publish();
    }

    /// Everybody answers what it has and takes what comes, until the last deadline has passed: then nothing is left.
    fn finish(&mut self) -> Result<(), TestCaseError> {
        // Half as long again as a request may take: one that the DPA takes only now has all of its time before it.
        for _ in 0..300 {
            self.pump()?;
            for port in 0..self.endpoints.len() {
                while self.poll(port)? {}
                (0..self.endpoints[port].held.len()).for_each(|_| self.answer(port, 0));
                self.endpoints[port].port.flush();
            }
            self.now = self.now.saturating_add(Duration::from_micros(500));
        }
        self.assert_settled()
    }

    fn assert_settled(&mut self) -> Result<(), TestCaseError> {
        if let Some((id, _)) = self.hostile.take() {
            self.dpa.detach(id);
        }
        for endpoint in &self.endpoints {
            prop_assert!(endpoint.calls.is_empty(), "calls without an outcome: {:?}", endpoint.calls);
            prop_assert!(endpoint.port.is_idle(), "{:?}", endpoint.port.stats());
        }
        let stats = self.dpa.stats();
        prop_assert_eq!((stats.live, stats.parked_now), (0, 0));
        prop_assert!(stats.is_balanced(), "{:?}", stats);
        for outlet in self.dpa.exchange.outlets.iter().flatten() {
            prop_assert_eq!((outlet.in_flight, outlet.reserved), (0, 0));
        }
        Ok(())
    }
}

fn schedules() -> u32 {
    std::env::var("CELLMESH_SCHEDULES")
        .map_or(300, |count| count.parse().expect("CELLMESH_SCHEDULES is a number"))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: schedules(), failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever happens in whatever order: every call has exactly one outcome, the right one; only the hostile endpoint is
    /// ever closed; and in the end every slot, place, credit and parked frame is back.
    #[test]
    fn any_schedule_settles_every_call_once(ops in proptest::collection::vec(op(), 1..400)) {
        let mut world = World::new();
        for op in &ops {
            world.run(op)?;
        }
        world.finish()?;
    }
}

/// More than a worker's ring holds, and then its end, which chance seldom brings together.
fn crowd_and_loss() -> Vec<Op> {
    let moves = || vec![Op::Flush { port: 0 }, Op::Pump, Op::Poll { port: 0, count: 8 }];
    let call = Op::Call { port: 0, service: 0, len: 420, timeout_ms: 1000, hops: 0 };
    let mut ops: Vec<Op> = (0..4).flat_map(|_| moves()).collect();
    ops.extend(std::iter::repeat_n(call, CONFIG.calls_max as usize));
    ops.extend((0..4).flat_map(|_| moves()));
    ops.push(Op::Lose { worker: 1 });
    ops
}

/// The schedules reach what they are for: each way to end, to wait and to be refused happens in some of them.
#[test]
fn schedules_reach_every_end() {
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let strategy = proptest::collection::vec(op(), 200..400);
    let mut sums = std::collections::BTreeMap::<&str, u64>::new();
    for _ in 0..100 {
        let mut ops = strategy.new_tree(&mut runner).expect("no filters").current();
        ops.extend(crowd_and_loss());
        let mut world = World::new();
        ops.iter().for_each(|op| world.run(op).expect("the property above"));
        world.finish().expect("the property above");
        let stats = world.dpa.stats();
        for (what, count) in [
            ("answered", stats.answered),
            ("abandoned", stats.abandoned),
            ("slow_path", stats.slow_path),
            ("redispatched", stats.redispatched),
            ("chunks", stats.chunks),
            ("parked", stats.parked),
            ("late_responses", stats.late_responses),
            ("late_credits", stats.late_credits),
            ("late_chunks", stats.late_chunks),
            ("late_cancels", stats.late_cancels),
            ("violations", stats.violations),
            ("rejected", stats.rejected.iter().sum()),
            ("deadline", stats.faulted_for(Fault::Deadline)),
            ("no_worker", stats.faulted_for(Fault::NoWorker)),
            ("worker_lost", stats.faulted_for(Fault::WorkerLost)),
            ("overloaded", stats.faulted_for(Fault::Overloaded)),
            ("hop_limit", stats.faulted_for(Fault::HopLimit)),
            ("cancelled", stats.faulted_for(Fault::Cancelled)),
        ] {
            *sums.entry(what).or_default() += count;
        }
    }
    assert!(sums.values().all(|count| *count > 0), "{sums:?}");
    println!("{sums:?}");
}
