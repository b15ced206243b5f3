//! What is done to the processes, and what must be true of the requests meanwhile.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use cellmesh_shm::attach::{Channel, Hello, Received, Role, ToDpa};
use cellmesh_shm::frame::{FrameHeader, FrameKind};
use cellmesh_shm::ids::ServiceId;
use cellmesh_shm::link::Link;
use cellmesh_shm::ring::Payload;
use cellmesh_tests::{Log, Usage, until};
use rustix::process::Signal;

use crate::books::Books;
use crate::load::{Load, Outcome, Request};
use crate::mesh::{Mesh, Process, REPLICAS};

/// Right answers in a row that mean that the service is back.
const BACK: usize = 10;

/// Anonymous memory that a process may have more than after its first round. The DPU and the cells behind it hold 16 MiB
/// bodies, several at once, and their allocators keep what was freed.
const GROWTH_BYTES_MAX: u64 = 96 << 20;
/// The same of a DPA, which holds no bodies: a page here and there, and 1 %.
const DPA_GROWTH_BYTES_MAX: u64 = 1 << 20;

/// More than a ring holds.
const GARBAGE_FRAMES: u64 = 200;

/// For tests in which somebody stands still: a stalled worker is let go soon, so that rounds are short.
const SHORT_STALL_TIMEOUT: Duration = Duration::from_millis(400);
/// For the others: what no scheduler makes of a worker that only waits for its turn.
const STALL_TIMEOUT: Duration = Duration::from_secs(5);
/// Than `SHORT_STALL_TIMEOUT`.
const LONGER_THAN_A_STALL: Duration = Duration::from_millis(600);
/// Than `request_timeout`.
const LONGER_THAN_A_REQUEST: Duration = Duration::from_secs(6);

/// One mesh at a time: their load is open, and that of two is more than two cores answer.
static MACHINE: Mutex<()> = Mutex::new(());

/// More than are begun before the first of them is answered.
const ENOUGH_REQUESTS: usize = 1000;

/// How long a worker is stopped in the long version.
const LONG_STOP: Duration = Duration::from_secs(5);

/// What is done in each round of a test.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Deed {
    KillWorker,
    /// All workers of a service.
    KillService,
    ReplaceWorker,
    KillDpa,
    KillDpu,
    StopWorker,
    StopDpa,
    Garbage,
}

/// What is known of a deed, beside what clients saw of it.
#[derive(Debug, Default)]
struct Deeds {
    /// When nothing kept the processes from recovering any more, where that is not the beginning: SIGCONT.
    over: Option<Instant>,
    /// When the DPA wrote that it had lost the worker.
    noticed: Option<SystemTime>,
    /// When the first of those that were started again attached.
    attached: Option<SystemTime>,
}

/// From a deed until the service was back.
struct Window {
    from: Instant,
    to: Instant,
    deed: Deeds,
}

/// Does `deed` so many times under load; `long` times with `CELLMESH_CHAOS=long`.
pub(crate) fn chaos(deed: Deed, short: usize, long: usize) {
    let is_long = std::env::var("CELLMESH_CHAOS").is_ok_and(|value| value == "long");
    let rounds = if is_long { long } else { short };
    let stop_for = if is_long { LONG_STOP } else { Duration::ZERO };
    let _alone = MACHINE.lock().unwrap_or_else(PoisonError::into_inner);
    let mut mesh = Mesh::start(deed.stall_timeout());
    let load = Load::start(mesh.address);
    let books = Books::watch(mesh.admins);
    until_back(&load);
    let mut windows = Vec::with_capacity(rounds);
    let mut baseline = None;
    for round in 0..rounds {
        let from = Instant::now();
        let deed = deed.round(&mut mesh, round, stop_for);
        until_back(&load);
        windows.push(Window { from, to: Instant::now(), deed });
        baseline.get_or_insert_with(|| {
            // Of processes that have seen both kinds of requests: one that has just started has touched little of its memory.
            until("a large answer", || load.probe_large() == Outcome::Right);
            until_back(&load);
            mesh.usage()
        });
    }
    let mut requests = load.stop();
    requests.sort_unstable_by_key(|request| request.started);
    let balanced = books.stop();
    assert!(balanced > 0, "the books were never read");
    // One that is stopped between publishing and ringing rings when it goes on.
    if !matches!(deed, Deed::StopWorker | Deed::StopDpa) {
        mesh.assert_no_bell_missed();
    }
    // After a look at them: that of a DPA which stood still comes once it goes on.
    if deed == Deed::StopDpa {
        assert_eq!(closed_endpoints(&mesh), 0, "somebody was taken for dead");
    }
    check_requests(deed, &requests, &windows);
    let growth = check_usage(&mesh, &baseline.expect("at least one round"));
    report(deed, &requests, &windows);
    report_times(deed, &requests, &windows);
    println!("{deed:?}: the books balanced in {balanced} readings; {growth}");
    mesh.end();
}

impl Deed {
    fn stall_timeout(self) -> Duration {
        if matches!(self, Self::StopWorker | Self::StopDpa) { SHORT_STALL_TIMEOUT } else { STALL_TIMEOUT }
    }

    fn round(self, mesh: &mut Mesh, round: usize, stop_for: Duration) -> Deeds {
        // Not random: every worker has its turn, and a failure can be repeated.
        let victim = round % mesh.workers.len();
        match self {
            Self::KillWorker => return kill_worker(mesh, victim),
            Self::KillService => return kill_service(mesh, round),
            Self::StopWorker => return stop_worker(mesh, victim, stop_for),
            Self::StopDpa => return stop_dpa(mesh, round),
            Self::ReplaceWorker => mesh.workers[victim].replace(),
            Self::KillDpa => {
                let before: Vec<usize> = mesh.workers.iter().map(Process::attached).collect();
                let of_dpu = mesh.dpu.attached();
                mesh.dpa.kill();
                mesh.dpa.restart();
                mesh.workers.iter().zip(before).for_each(|(worker, before)| worker.until_attached(before));
                mesh.dpu.until_attached(of_dpu);
            }
            Self::KillDpu => {
                mesh.dpu.kill();
                mesh.dpu.restart();
                mesh.dpu.until_attached(0);
            }
            Self::Garbage => write_garbage(mesh, round),
        }
        Deeds::default()
    }

    /// What a request may end with while this was being done.
    fn explains(self, outcome: &Outcome) -> bool {
        match outcome {
            Outcome::Right => true,
            Outcome::Wrong(_) | Outcome::Hung => false,
            Outcome::Cut => self == Self::KillDpu,
            Outcome::Error(502, _) => {
                use Deed::{KillDpa, KillDpu, KillService, KillWorker, StopWorker};
                matches!(self, KillWorker | KillService | KillDpa | StopWorker | KillDpu)
            }
            // No DPA, nobody attached yet, or no sidecar to ask.
            Outcome::Error(503, _) => matches!(self, Self::KillService | Self::KillDpa | Self::KillDpu),
            // Held by who stands still, with nothing more to take that would tell.
            Outcome::Error(504, _) => matches!(self, Self::StopDpa | Self::StopWorker),
            Outcome::Error(..) => false,
        }
    }
}

/// Its twins are there for those who ask.
fn kill_worker(mesh: &mut Mesh, victim: usize) -> Deeds {
    let pid = mesh.workers[victim].pid();
    mesh.workers[victim].kill();
    mesh.workers[victim].restart();
    mesh.workers[victim].until_attached(0);
    until("the DPA lets a killed worker go", || !let_go(mesh, pid).is_empty());
    let attached = mesh.workers[victim].attached_at();
    Deeds { noticed: let_go(mesh, pid).pop(), attached: attached.first().copied(), ..Deeds::default() }
}

/// Nobody is there for those who ask, until one of those started again attaches.
fn kill_service(mesh: &mut Mesh, round: usize) -> Deeds {
    let first = round * REPLICAS % mesh.workers.len();
    let victims = &mut mesh.workers[first..first + REPLICAS];
    victims.iter_mut().for_each(Process::kill);
    victims.iter_mut().for_each(Process::restart);
    victims.iter().for_each(|victim| victim.until_attached(0));
    Deeds { attached: victims.iter().flat_map(Process::attached_at).min(), ..Deeds::default() }
}

/// When the DPA has let this process go. Of this one: on a machine with too much to do another may be let go meanwhile.
fn let_go(mesh: &Mesh, pid: u32) -> Vec<SystemTime> {
    let lines = mesh.dpa.log().lines();
    lines.iter().filter(|line| line["lost"].is_u64() && line["pid"] == pid).map(Log::time_of).collect()
}

/// Longer than the stall timeout, and than `at_least`: it is let go. Then it goes on, and comes back.
fn stop_worker(mesh: &Mesh, victim: usize, at_least: Duration) -> Deeds {
    let worker = &mesh.workers[victim];
    let (attached, before) = (worker.attached(), let_go(mesh, worker.pid()).len());
    let stopped = Instant::now();
    worker.signal(Signal::STOP);
    until("the DPA lets a stopped worker go", || let_go(mesh, worker.pid()).len() > before);
    std::thread::sleep(at_least.saturating_sub(stopped.elapsed()));
    worker.signal(Signal::CONT);
    let over = Instant::now();
    worker.until_attached(attached);
    Deeds { over: Some(over), attached: worker.attached_at().pop(), ..Deeds::default() }
}

/// For a moment, which delays requests, or for longer than a request may take, which ends those that wait. Nobody is taken
/// for dead afterwards: what everybody missed meanwhile was the DPA's doing.
fn stop_dpa(mesh: &Mesh, round: usize) -> Deeds {
    mesh.dpa.signal(Signal::STOP);
    std::thread::sleep(if round % 4 == 3 { LONGER_THAN_A_REQUEST } else { LONGER_THAN_A_STALL });
    mesh.dpa.signal(Signal::CONT);
    Deeds { over: Some(Instant::now()), ..Deeds::default() }
}

fn closed_endpoints(mesh: &Mesh) -> usize {
    mesh.dpa.log().lines().iter().filter(|line| line["message"] == "endpoint closed").count()
}

/// Attaches as a worker, fills its ring with frames that are late, forged or impossible, and ends with one that is
/// certain to be a worker's last.
fn write_garbage(mesh: &Mesh, round: usize) {
    let closed = closed_endpoints(mesh);
    let channel = Channel::connect(&mesh.socket()).expect("the DPA listens");
    // Not a service that clients ask for: a worker that answers nothing costs those whom it should answer.
    let hello = Hello {
        name: "vandal".into(),
        role: Role::Worker,
        services: vec!["spare".into()],
        lanes: 1,
        profile: None,
    };
    channel.send_to_dpa(&ToDpa::Hello(hello)).expect("the DPA listens");
    let mut attached = None;
    until("a vandal attaches", || match channel.receive_from_dpa() {
        Ok(Received::Attached(welcome)) => {
            attached = Some(welcome);
            true
        }
        Ok(Received::Said(said)) => panic!("{said:?}"),
        Err(error) => {
            assert!(error.would_block(), "{error}");
            false
        }
    });
    let fds = attached.expect("attached").links.remove(0);
    let mut link = Link::open(fds).expect("its own link");
    let kind = FrameKind::ALL[round % FrameKind::ALL.len()];
    let seed = u64::try_from(round).expect("few rounds").wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let bytes = vec![u8::try_from(round % 251).expect("small"); 512];
    for turn in 0..GARBAGE_FRAMES {
        let token = seed.wrapping_mul(turn + 1);
        let header = FrameHeader {
            service: ServiceId(u16::try_from(turn % 5).expect("small")),
            frame_len: 512,
            payload_len: u32::try_from(token % 100_000).expect("small"),
            credit: u32::MAX,
            seq: u32::MAX,
            ..FrameHeader::new(kind, token)
        };
        if !link.tx.small.push(&header, Payload::Parts(&[], &bytes)).expect("the DPA is honest") {
            break;
        }
    }
    link.publish();
    let last = FrameHeader::new(FrameKind::FlowInstall, 0);
    until("the DPA lets a vandal go", || {
        link.tx.small.push(&last, Payload::Empty).expect("the DPA is honest");
        link.publish();
        closed_endpoints(mesh) > closed
    });
}

/// Waits until requests are answered again and again.
fn until_back(load: &Load) {
    let mut in_a_row = 0;
    until("the service is back", || {
        in_a_row = if load.probe() == Outcome::Right { in_a_row + 1 } else { 0 };
        in_a_row == BACK
    });
}

/// Every request ended, and errors are explained by what was being done at that time.
fn check_requests(deed: Deed, requests: &[Request], windows: &[Window]) {
    assert!(requests.iter().filter(|request| request.outcome == Outcome::Right).count() > windows.len());
    for request in requests.iter().filter(|request| request.outcome != Outcome::Right) {
        let meanwhile =
            windows.iter().any(|window| request.started <= window.to && request.ended >= window.from);
        assert!(deed.explains(&request.outcome) && meanwhile, "{deed:?} does not explain {request:?}");
    }
}

/// Nobody holds more descriptors and segments than after the first round, nor much more memory. How much more, as text.
fn check_usage(mesh: &Mesh, baseline: &[Usage]) -> String {
    let sum = |usage: &[Usage], of: fn(&Usage) -> usize| usage.iter().map(of).sum::<usize>();
    for (what, of) in [
        ("descriptors", (|usage| usage.descriptors) as fn(&Usage) -> usize),
        ("segments", |usage| usage.segments),
    ] {
        let most = sum(baseline, of);
        until(&format!("as many {what} as after the first round"), || sum(&mesh.usage(), of) <= most);
    }
    let now = mesh.usage();
    for (now, then) in now.iter().zip(baseline) {
        let most = then.anonymous_bytes + GROWTH_BYTES_MAX;
        assert!(now.anonymous_bytes <= most, "{now:?} after {then:?}");
    }
    let of_dpa = |usage: &[Usage]| usage.last().expect("a mesh has a DPA").anonymous_bytes;
    let most = of_dpa(baseline) / 100 * 101 + DPA_GROWTH_BYTES_MAX;
    assert!(of_dpa(&now) <= most, "the DPA: {now:?} after {baseline:?}");
    let mib = |usage: &[Usage]| usage.iter().map(|usage| usage.anonymous_bytes >> 20).collect::<Vec<_>>();
    format!("MiB of workers, DPU, DPA: {:?} after the first round, {:?} at the end", mib(baseline), mib(&now))
}

/// Median, 99th percentile and most of some times.
struct Spread(Vec<u128>);

impl Spread {
    fn of(times: impl Iterator<Item = Duration>) -> Self {
        let mut millis: Vec<u128> = times.map(|time| time.as_millis()).collect();
        millis.sort_unstable();
        Self(millis)
    }
}

impl fmt::Display for Spread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(most) = self.0.last() else { return f.write_str("none") };
        let (median, p99) = (self.0[self.0.len() / 2], self.0[self.0.len() * 99 / 100]);
        write!(f, "median {median} ms, p99 {p99} ms, most {most} ms")
    }
}

fn report(deed: Deed, requests: &[Request], windows: &[Window]) {
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for request in requests {
        let name = match &request.outcome {
            Outcome::Error(status, code) => format!("{status} {code}"),
            other @ (Outcome::Right | Outcome::Wrong(_) | Outcome::Cut | Outcome::Hung) => {
                format!("{other:?}")
            }
        };
        *counts.entry(name).or_default() += 1;
    }
    let back = Spread::of(windows.iter().map(|window| window.to - window.from));
    let failed = requests.iter().filter(|request| request.outcome != Outcome::Right);
    let told = Spread::of(failed.filter_map(|request| {
        let deed = windows.iter().rev().find(|window| window.from <= request.ended)?;
        Some(request.ended - deed.from)
    }));
    println!(
        "{deed:?}: {} rounds, {} requests: {counts:?}; from the deed to {BACK} right answers in a row: {back}; \
         from the deed to an error: {told}",
        windows.len(),
        requests.len()
    );
}

/// The times that `docs/reliability.md` has criteria for, from where these count.
fn report_times(deed: Deed, requests: &[Request], windows: &[Window]) {
    // The clocks of logs and of requests, read together.
    let (logs_now, now) = (SystemTime::now(), Instant::now());
    let instant = |time: SystemTime| now - logs_now.duration_since(time).unwrap_or_default();
    let noticed = windows
        .iter()
        .filter_map(|window| Some(instant(window.deed.noticed?).saturating_duration_since(window.from)));
    let back = windows.iter().filter_map(|window| {
        let over = window.deed.over.unwrap_or(window.from);
        let right = first_right(requests, over, window.to)?;
        // One that stood still is back only when it has attached again.
        let attached = window.deed.attached.filter(|_| deed == Deed::StopWorker).map_or(right, instant);
        Some(right.max(attached) - over)
    });
    let served = windows.iter().filter(|_| deed == Deed::KillService).filter_map(|window| {
        let attached = instant(window.deed.attached?);
        Some(first_right(requests, window.from, window.to)?.saturating_duration_since(attached))
    });
    println!("{deed:?}: until the DPA noticed: {}", Spread::of(noticed));
    println!("{deed:?}: from the deed, or its end, to the service: {}", Spread::of(back));
    println!("{deed:?}: from attaching to the service: {}", Spread::of(served));
}

/// When the service was there again for those who asked between `from` and `to`: the first right answer to a request that
/// came after the last one that failed by then; one that failed later met the next deed. `requests` are in the order of
/// their beginnings.
fn first_right(requests: &[Request], from: Instant, to: Instant) -> Option<Instant> {
    let is_right = |request: &&Request| request.outcome == Outcome::Right;
    let first = requests.partition_point(|request| request.started < from);
    let last = requests.partition_point(|request| request.started <= to);
    let failed = requests[first..last].iter().rposition(|request| !is_right(&request) && request.ended <= to);
    let after = &requests[first + failed.map_or(0, |failed| failed + 1)..];
    after.iter().take(ENOUGH_REQUESTS).filter(is_right).map(|request| request.ended).min()
}
