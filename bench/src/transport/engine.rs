//! The egress hop of a worker whose DPA and sidecar are one thread of another process.
//!
//! ```text
//!   this process                    the engine
//!   worker ------ring, bell-------> DPA --ring--> sidecar
//!          <-----ring, bell-------- DPA <--ring--    |        64 B there, the same back
//! ```
//!
//! - Beside it TCP loopback between two threads that are placed and wait the same way.
//! - A sleeper waits for its bell as every module does, and for a backstop that no correct bell leaves to do anything:
//!   what only the backstop has ended is a wake-up that was lost.

use std::fmt::Write as _;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use cellmesh_dpa::{Dpa, DpaConfig};
use cellmesh_shm::attach::{AttachListener, Channel};
use cellmesh_shm::clock::Nanos;
use cellmesh_shm::frame::{Frame, FrameHeader, FrameKind};
use cellmesh_shm::ids::{CallId, EndpointId, ServiceId};
use cellmesh_shm::link::Link;
use cellmesh_shm::profile::RingProfile;
use cellmesh_shm::ring::Payload;
use clap::{Args, ValueEnum};
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::process::{Signal, set_parent_process_death_signal};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use super::handover;
use super::inline::answer_frames;
use super::tcp::Loopback;
use crate::turns::{Series, median_ratio, quantile, spread};

const SERVICE: ServiceId = ServiceId(0);
const BODY_BYTES: u32 = 64;
const BODY: [u8; BODY_BYTES as usize] = [7; BODY_BYTES as usize];

/// Messages there and back in one turn of either side.
const TRIPS: u32 = 5000;
/// Messages of a turn under load, and how many of them are on the way at once.
const LOADED: usize = 200_000;
const WINDOWS: [usize; 4] = [1, 16, 64, 112];

/// Longer than any wait for a bell, and than any pause of a busy machine. The engine's is longer: whichever side's bell is lost,
/// it is the worker's wait that ends by it, and is counted.
const BACKSTOP: Duration = Duration::from_secs(2);
const ENGINE_BACKSTOP: Duration = Duration::from_secs(10);

/// What a side does that has nothing to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Wait {
    /// Looks again.
    Polling,
    /// Sleeps until its bell rings.
    Asleep,
}

/// Where the two sides run, and how they wait.
#[derive(Debug, Clone, Copy)]
struct Placement {
    name: &'static str,
    goal: &'static str,
    wait: Wait,
    /// Processor of this side, and of the far side.
    cpus: [usize; 2],
}

const PLACEMENTS: [Placement; 3] = [
    Placement { name: "polling, two processors", goal: "1/10", wait: Wait::Polling, cpus: [0, 1] },
    Placement { name: "asleep, one processor", goal: "1/2", wait: Wait::Asleep, cpus: [0, 0] },
    Placement { name: "asleep, two processors", goal: "0.9", wait: Wait::Asleep, cpus: [0, 1] },
];

/// The engine, in a process of its own.
#[derive(Debug, Args)]
pub(crate) struct EnginePeer {
    /// Where its worker attaches.
    socket: PathBuf,
    wait: Wait,
    cpu: usize,
}

/// Round trips, throughput and wake-ups, in Markdown.
pub(super) fn report(report: &mut String, rounds: usize) -> Result<()> {
    writeln!(report, "## Through an engine thread in another process, 64 B there and back\n")?;
    on_two_processors(report, |report| trips(report, rounds).and_then(|()| loads(report, rounds)))
}

/// Runs what pins its threads to processors 0 and 1, and gives this one back where it may run.
pub(super) fn on_two_processors(
    report: &mut String,
    measure: impl FnOnce(&mut String) -> Result<()>,
) -> Result<()> {
    let allowed = sched_getaffinity(None)?;
    if (0..2).any(|cpu| !allowed.is_set(cpu)) {
        writeln!(report, "Not measured: it takes processors 0 and 1, and this program may not use both.\n")?;
        return Ok(());
    }
    let measured = measure(report);
    sched_setaffinity(None, &allowed)?;
    measured
}

fn trips(report: &mut String, rounds: usize) -> Result<()> {
    writeln!(
        report,
        "| placement | rings, ns | TCP loopback, ns | ratio of medians, round by round | goal |\n|---|---|---|---|---|"
    )?;
    let mut slept = Slept::default();
    for placement in PLACEMENTS {
        pin(placement.cpus[0])?;
        let mut series = [Series::new(), Series::new()];
        for round in 0..=rounds {
            // The far side of either lives for its own turn only: a poller takes all that its processor has.
            let figures = [ring_trips(placement, &mut slept)?, tcp_trips(placement)?];
            if round > 0 {
                series.iter_mut().zip(figures).for_each(|(series, figure)| series.push(figure));
            }
        }
        let ratio = median_ratio(&series[0], &series[1]);
        let Placement { name, goal, .. } = placement;
        let (rings, loopback) = (spread(&series[0]), spread(&series[1]));
        writeln!(report, "| {name} | {rings} | {loopback} | {ratio:.2} | <= {goal} |")?;
    }
    writeln!(report, "\n{} sleeps of the worker; {} ended by the backstop.\n", slept.times, slept.lost)?;
    Ok(())
}

/// ns for one message there and back.
fn ring_trips(placement: Placement, slept: &mut Slept) -> Result<f64> {
    let mut worker = Worker::beside(placement)?;
    let figure = per_trip(|| worker.round_trip())?;
    slept.add(worker.slept);
    Ok(figure)
}

/// The same over TCP loopback.
fn tcp_trips(placement: Placement) -> Result<f64> {
    let mut tcp = Loopback::placed(BODY.len(), placement.cpus[1], placement.wait == Wait::Polling)?;
    per_trip(|| tcp.round_trip())
}

fn per_trip(mut trip: impl FnMut() -> Result<()>) -> Result<f64> {
    // The first ones wait for the far side to start.
    (0..TRIPS / 10).try_for_each(|_| trip())?;
    let start = Instant::now();
    (0..TRIPS).try_for_each(|_| trip())?;
    Ok(start.elapsed().as_secs_f64() * 1e9 / f64::from(TRIPS))
}

/// As many as go, with some on the way at once.
fn loads(report: &mut String, rounds: usize) -> Result<()> {
    writeln!(
        report,
        "| under load, asleep when idle | on the way | M/s | wake-ups of either side per 100 messages |\n|---|---|---|---|"
    )?;
    let mut slept = Slept::default();
    for placement in PLACEMENTS.into_iter().filter(|placement| placement.wait == Wait::Asleep) {
        for window in WINDOWS {
            pin(placement.cpus[0])?;
            let (mut rates, mut wakeups) = (Series::new(), Series::new());
            for round in 0..=rounds {
                let mut worker = Worker::beside(placement)?;
                let start = Instant::now();
                let rung = worker.load(LOADED, window)?;
                if round > 0 {
                    rates.push(LOADED as f64 / start.elapsed().as_secs_f64() / 1e6);
                    // A request and its answer are two messages.
                    wakeups.push(rung as f64 / (2 * LOADED) as f64 * 100.0);
                }
                slept.add(worker.slept);
            }
            let wakeups = format!("{:.2}", quantile(&wakeups, 0.5));
            writeln!(report, "| {} | {window} | {} | {wakeups} |", placement.name, spread(&rates))?;
        }
    }
    writeln!(report, "\n{} sleeps of the worker; {} ended by the backstop.\n", slept.times, slept.lost)?;
    Ok(())
}

/// Single messages there and back until both sides together have slept so often: whether one sleep did not end by its bell.
pub(super) fn sleeps(report: &mut String, count: u64) -> Result<()> {
    writeln!(report, "## Sleeps that nothing but a backstop has ended\n")?;
    writeln!(report, "| placement | sleeps of either side | of the worker | lost |\n|---|---|---|---|")?;
    on_two_processors(report, |report| {
        // Across processors a sleep takes many times as long.
        for (placement, count) in PLACEMENTS.into_iter().skip(1).zip([count, count / 200]) {
            pin(placement.cpus[0])?;
            let mut worker = Worker::beside(placement)?;
            let mut sleeps = 0;
            while sleeps < count {
                sleeps = worker.load(LOADED, 1)?;
            }
            let Slept { times, lost } = worker.slept;
            writeln!(report, "| {} | {sleeps} | {times} | {lost} |", placement.name)?;
        }
        Ok(())
    })?;
    writeln!(report)?;
    Ok(())
}

/// How often a side slept, and how often nothing but the backstop woke it.
#[derive(Debug, Clone, Copy, Default)]
struct Slept {
    times: u64,
    lost: u64,
}

impl Slept {
    fn add(&mut self, other: Self) {
        self.times += other.times;
        self.lost += other.lost;
    }
}

/// Waits for one bell, for the edges of it.
struct Bell(OwnedFd);

impl Bell {
    fn of(bell: impl AsFd) -> Result<Self> {
        let set = epoll::create(CreateFlags::CLOEXEC)?;
        epoll::add(&set, bell, EventData::new_u64(0), EventFlags::IN | EventFlags::ET)?;
        Ok(Self(set))
    }

    /// Whether it rang; if not, the backstop has ended the wait.
    fn wait(&self, backstop: Duration) -> Result<bool> {
        let mut events = [Event { flags: EventFlags::empty(), data: EventData::new_u64(0) }];
        let backstop = backstop.try_into()?;
        Ok(epoll::wait(&self.0, &mut events[..], Some(&backstop))? > 0)
    }
}

/// The worker's side, with the process of the other.
struct Worker {
    link: Link,
    bell: Bell,
    wait: Wait,
    slept: Slept,
    generation: u32,
    engine: Child,
    _folder: tempfile::TempDir,
}

impl Worker {
    fn beside(placement: Placement) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let socket = folder.path().join("engine.sock");
        let wait = placement.wait.to_possible_value().context("a wait has a name")?;
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("engine-peer").arg(&socket).arg(wait.get_name()).arg(placement.cpus[1].to_string());
        let engine = command.stdin(Stdio::null()).spawn()?;
        let link = Link::open(handover::take(&socket)?)?;
        let bell = Bell::of(&link.sleep)?;
        let slept = Slept::default();
        Ok(Self { link, bell, wait: placement.wait, slept, generation: 0, engine, _folder: folder })
    }

    fn round_trip(&mut self) -> Result<()> {
        self.send(1)?;
        while self.take()? == 0 {
            self.idle()?;
        }
        Ok(())
    }

    /// `count` messages there and back, `window` of them on the way at once. Returns how often a bell has rung so far, of either
    /// side.
    fn load(&mut self, count: usize, window: usize) -> Result<u64> {
        let (mut sent, mut taken) = (0, 0);
        while taken < count {
            let more = (window - (sent - taken)).min(count - sent);
            self.send(u32::try_from(more)?)?;
            sent += more;
            match self.take()? {
                0 => self.idle()?,
                some => taken += some,
            }
        }
        Ok(self.link.tx.rings() + self.slept.times)
    }

    /// Calls with new names each time: the indices go round, the generation with them.
    fn send(&mut self, count: u32) -> Result<()> {
        for _ in 0..count {
            self.generation = self.generation.wrapping_add(1);
            let index = self.generation % CALLS;
            let header = FrameHeader {
                service: SERVICE,
                deadline: Nanos::MAX,
                frame_len: BODY_BYTES,
                payload_len: BODY_BYTES,
                ..FrameHeader::new(FrameKind::Request, CallId { index, generation: self.generation }.raw())
            };
            ensure!(self.link.tx.small.push(&header, Payload::Parts(&[], &BODY))?, "the ring is full");
        }
        self.link.publish();
        Ok(())
    }

    fn take(&mut self) -> Result<usize> {
        self.link.rx.refresh()?;
        let (mut taken, mut frame) = (0, Frame::EMPTY);
        while self.link.rx.small.peek(&mut frame)? {
            ensure!(frame.status() == 200 && frame.payload_len() == BODY_BYTES, "not the answer");
            self.link.rx.small.release(&frame);
            taken += 1;
        }
        self.link.publish();
        Ok(taken)
    }

    fn idle(&mut self) -> Result<()> {
        if self.wait == Wait::Polling {
            std::hint::spin_loop();
            return Ok(());
        }
        self.link.sleep.announce(false)?;
        if !self.link.rx.refresh()? {
            self.slept.times += 1;
            self.slept.lost += u64::from(!self.bell.wait(BACKSTOP)?);
        }
        self.link.sleep.wake();
        Ok(())
    }
}

/// Names of calls: more than are on the way at once.
const CALLS: u32 = 128;

impl Drop for Worker {
    fn drop(&mut self) {
        let _ = self.engine.kill();
        let _ = self.engine.wait();
    }
}

/// A DPA and a sidecar that answers each request with its body.
struct Engine {
    dpa: Dpa,
    sidecar: Link,
    worker: EndpointId,
    /// Closed when this process ends, and not before: the worker may look.
    _channel: Channel,
}

impl EnginePeer {
    /// Serves until it is killed, as it is when its worker ends, or its worker has gone.
    pub(crate) fn serve(&self) -> Result<()> {
        set_parent_process_death_signal(Some(Signal::KILL))?;
        pin(self.cpu)?;
        let mut engine = Engine::attached(&self.socket)?;
        let bell = Bell::of(engine.dpa.wait_fd(engine.worker).context("a worker")?)?;
        while engine.dpa.take_hung_up().is_none() {
            if engine.pump()? {
                continue;
            }
            if self.wait == Wait::Polling {
                std::hint::spin_loop();
                continue;
            }
            engine.dpa.announce_sleep();
            if !engine.pump()? {
                bell.wait(ENGINE_BACKSTOP)?;
            }
            engine.dpa.wake();
        }
        Ok(())
    }
}

impl Engine {
    fn attached(socket: &std::path::Path) -> Result<Self> {
        let mut dpa = Dpa::new(DpaConfig::default());
        let sidecar = dpa.attach_sidecar_here(RingProfile::default())?;
        let worker = dpa.attach_worker(&[], RingProfile::default())?;
        let endpoint = worker.spec.endpoint;
        let channel = handover::offer(&AttachListener::bind(socket)?, worker)?;
        Ok(Self { dpa, sidecar, worker: endpoint, _channel: channel })
    }

    /// Whether anything moved.
    fn pump(&mut self) -> Result<bool> {
        let now = Nanos::now();
        let moved = self.dpa.pump(now).moved();
        let answered = answer_frames(&mut self.sidecar)?;
        Ok(answered > 0 && self.dpa.pump(now).moved() || moved)
    }
}

/// From now on this thread, and those that it starts, run on this processor only.
pub(super) fn pin(cpu: usize) -> Result<()> {
    let mut set = CpuSet::new();
    set.set(cpu);
    Ok(sched_setaffinity(None, &set)?)
}
