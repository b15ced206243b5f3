//! Two worker lanes and a DPA on one thread, as in one process: frames in, validated, routed, counted, frames out.

use std::sync::Barrier;
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use cellmesh_dpa::{Dpa, DpaConfig};
use cellmesh_shm::clock::Nanos;
use cellmesh_shm::frame::{Frame, FrameHeader, FrameKind};
use cellmesh_shm::ids::{CallId, ServiceId};
use cellmesh_shm::link::Link;
use cellmesh_shm::message::{Fault, RequestMessage, ResponseMessage};
use cellmesh_shm::port::{Arrived, Port, PortConfig};
use cellmesh_shm::profile::RingProfile;
use cellmesh_shm::ring::Payload;

const CALLED: ServiceId = ServiceId(0);
const STREAMED: ServiceId = ServiceId(1);

/// Longest message that is sent as frames: of a longer one not as many fit the ring at once as are asked for.
const FRAMES_BYTES_MAX: usize = 1024;

/// Bytes of a large body.
const LARGE_BYTES: usize = 1 << 20;
/// Large bodies in flight at once.
const LARGE_CALLS: usize = 4;

/// A caller and a callee that speak in frames, and the DPA between them. Messages that do not fit one frame go as whole
/// messages, through ports.
pub(super) struct Node {
    wired: Wired,
    ends: Ends,
    body: Bytes,
    generation: u32,
}

enum Ends {
    Frames(Box<(Link, Link)>),
    Messages(Box<(Port, Port)>),
}

impl Node {
    /// Messages of `size` bytes.
    pub(super) fn new(size: usize) -> Result<Self> {
        let mut wired = Wired::new()?;
        let (caller, callee) = wired.pair(CALLED)?;
        let ends = if size <= FRAMES_BYTES_MAX {
            Ends::Frames(Box::new((caller, callee)))
        } else {
            Ends::Messages(Box::new((port(caller), port(callee))))
        };
        Ok(Self { wired, ends, body: Bytes::from(vec![7; size]), generation: 0 })
    }

    /// `batch` messages there and back, each answered with as many bytes.
    pub(super) fn round_trips(&mut self, batch: usize) -> Result<()> {
        let now = Nanos::now();
        let Self { wired: Wired { dpa, .. }, ends, body, generation } = self;
        match ends {
            Ends::Frames(ends) => {
                *generation = generation.wrapping_add(1);
                frames_there_and_back(dpa, &mut ends.0, &mut ends.1, body, batch, *generation, now)
            }
            Ends::Messages(ends) => {
                for _ in 0..batch {
                    ends.0.call(request(body.clone())).ok().context("a free call")?;
                }
                until_answered(dpa, &mut ends.0, &mut ends.1, batch)
            }
        }
    }
}

/// Without a message on the way: what a lane's modules do with each frame, and nothing else.
fn frames_there_and_back(
    dpa: &mut Dpa,
    caller: &mut Link,
    callee: &mut Link,
    body: &[u8],
    batch: usize,
    generation: u32,
    now: Nanos,
) -> Result<()> {
    let len = u32::try_from(body.len())?;
    for index in 0..u32::try_from(batch)? {
        let header = FrameHeader {
            service: CALLED,
            deadline: Nanos::MAX,
            frame_len: len,
            payload_len: len,
            ..FrameHeader::new(FrameKind::Request, CallId { index, generation }.raw())
        };
        ensure!(caller.tx.small.push(&header, Payload::Parts(&[], body))?, "the ring is full");
    }
    caller.publish();
    dpa.pump(now);
    let mut answered = answer_frames(callee)?;
    dpa.pump(now);
    caller.rx.refresh()?;
    let mut frame = Frame::EMPTY;
    while caller.rx.small.peek(&mut frame)? {
        ensure!(frame.payload_len() == len && frame.status() == 200, "not the answer");
        caller.rx.small.release(&frame);
        answered += 1;
    }
    caller.publish();
    ensure!(answered == 2 * batch, "{answered} frames where {batch} went and came back");
    Ok(())
}

/// Answers each request that is there with its own body, which is read where it lies. How many there were.
pub(super) fn answer_frames(callee: &mut Link) -> Result<usize> {
    let mut answered = 0;
    callee.rx.refresh()?;
    let mut frame = Frame::EMPTY;
    while callee.rx.small.peek(&mut frame)? {
        let header = FrameHeader {
            status: 200,
            frame_len: frame.frame_len(),
            payload_len: frame.payload_len(),
            ..FrameHeader::new(FrameKind::Response, frame.token())
        };
        let payload = callee.rx.small.payload(&frame);
        ensure!(callee.tx.small.push(&header, Payload::Words(payload))?, "the ring is full");
        callee.rx.small.release(&frame);
        answered += 1;
    }
    callee.publish();
    Ok(answered)
}

/// `turns` times `batch` messages on each of two threads that share nothing.
pub(super) fn on_two_cores(turns: usize, batch: usize) -> Result<()> {
    let start = Barrier::new(2);
    let one = || {
        let mut node = Node::new(64)?;
        start.wait();
        (0..turns).try_for_each(|_| node.round_trips(batch))
    };
    std::thread::scope(|threads| {
        let other = threads.spawn(one);
        one().and(other.join().expect("it does not panic"))
    })
}

/// Small messages between two lanes while large bodies stream between two others, all of one DPA.
pub(super) struct Mixed {
    wired: Wired,
    small: (Port, Port),
    large: (Port, Port),
    large_body: Bytes,
    large_done: usize,
    time: f64,
}

impl Mixed {
    pub(super) fn new() -> Result<Self> {
        let mut wired = Wired::new()?;
        let (small, large) = (wired.pair(CALLED)?, wired.pair(STREAMED)?);
        Ok(Self {
            small: (port(small.0), port(small.1)),
            large: (port(large.0), port(large.1)),
            wired,
            large_body: Bytes::from(vec![7; LARGE_BYTES]),
            large_done: 0,
            time: 0.0,
        })
    }

    /// The times of `count` small messages, there and back, in ns.
    pub(super) fn small_beside_large(&mut self, count: usize) -> Result<Vec<f64>> {
        let body = Bytes::from(vec![7; 64]);
        let mut times = Vec::with_capacity(count);
        let begin = Instant::now();
        while times.len() < count {
            let start = Instant::now();
            self.small.0.call(request(body.clone())).ok().context("a free call")?;
            self.small.0.flush();
            while !self.turn()? {}
            times.push(start.elapsed().as_secs_f64() * 1e9);
        }
        self.time += begin.elapsed().as_secs_f64();
        Ok(times)
    }

    /// Bytes of large bodies that arrived, requests and answers.
    pub(super) fn large_gb_per_s(&self) -> f64 {
        (2 * self.large_done * LARGE_BYTES) as f64 / self.time / 1e9
    }

    /// One circle through all modules. Whether the small message is back.
    fn turn(&mut self) -> Result<bool> {
        let now = Nanos::now();
        self.wired.dpa.pump(now);
        answer_all(&mut self.small.1)?;
        answer_all(&mut self.large.1)?;
        self.wired.dpa.pump(now);
        self.large_done += outcomes(&mut self.large.0)?;
        while (self.large.0.in_flight() as usize) < LARGE_CALLS {
            let message = RequestMessage { service: STREAMED, ..request(self.large_body.clone()) };
            self.large.0.call(message).ok().context("a free call")?;
        }
        self.large.0.flush();
        Ok(outcomes(&mut self.small.0)? > 0)
    }
}

fn until_answered(dpa: &mut Dpa, caller: &mut Port, callee: &mut Port, count: usize) -> Result<()> {
    let mut answered = 0;
    while answered < count {
        let now = Nanos::now();
        caller.flush();
        dpa.pump(now);
        answer_all(callee)?;
        dpa.pump(now);
        answered += outcomes(caller)?;
    }
    Ok(())
}

fn answer_all(port: &mut Port) -> Result<()> {
    while let Some(arrived) = port.poll()? {
        if let Arrived::Request { slot, message } = arrived {
            port.respond(slot, answer(message.body));
        }
    }
    port.flush();
    Ok(())
}

fn outcomes(port: &mut Port) -> Result<usize> {
    let mut count = 0;
    while let Some(arrived) = port.poll()? {
        let Arrived::Response { message, .. } = arrived else { continue };
        ensure!(message.fault == Fault::None, "{:?}", message.fault);
        count += 1;
    }
    port.flush();
    Ok(count)
}

fn answer(body: Bytes) -> ResponseMessage {
    ResponseMessage { status: 200, fault: Fault::None, head: Bytes::new(), body }
}

fn request(body: Bytes) -> RequestMessage {
    RequestMessage {
        service: CALLED,
        deadline: Nanos::MAX,
        hops: 0,
        method_len: 0,
        target_len: 0,
        head: Bytes::new(),
        body,
    }
}

/// A DPA with a sidecar, which decides about the first call of each worker, and workers.
struct Wired {
    dpa: Dpa,
    sidecar: Port,
}

impl Wired {
    fn new() -> Result<Self> {
        let mut dpa = Dpa::new(DpaConfig { profile: RingProfile::within_lane(), ..DpaConfig::default() });
        let sidecar = dpa.attach_sidecar_here(RingProfile::within_lane())?;
        Ok(Self { dpa, sidecar: port(sidecar) })
    }

    /// A worker that may call `service` without the sidecar, and the worker that serves it.
    fn pair(&mut self, service: ServiceId) -> Result<(Link, Link)> {
        let profile = RingProfile::within_lane();
        let mut caller = self.dpa.attach_worker_here(&[], profile)?;
        let callee = self.dpa.attach_worker_here(&[service], profile)?;
        let call = FrameHeader { service, deadline: Nanos::MAX, ..FrameHeader::new(FrameKind::Request, 0) };
        ensure!(caller.tx.small.push(&call, Payload::Empty)?, "the ring is full");
        caller.publish();
        self.dpa.pump(Nanos::now());
        let Some(Arrived::Request { slot, .. }) = self.sidecar.poll()? else {
            bail!("the sidecar was not asked")
        };
        self.sidecar.install_flow(slot);
        self.sidecar.respond(slot, answer(Bytes::new()));
        self.sidecar.flush();
        self.dpa.pump(Nanos::now());
        caller.rx.refresh()?;
        let answer = caller.rx.small.peek_frame()?.context("the sidecar's answer")?;
        caller.rx.small.release(&answer);
        caller.publish();
        Ok((caller, callee))
    }
}

fn port(link: Link) -> Port {
    Port::new(link, PortConfig::default())
}
