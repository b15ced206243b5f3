//! Random schedules of a DPA, a sidecar and two workers as threads, one of which is evicted and attached anew.
//!
//! `RUSTFLAGS="--cfg shuttle" cargo test --profile model -p cellmesh-dpa --test shuttle`; with `CELLMESH_SCHEDULES=100000` for
//! so many random schedules.
//!
//! - Shuttle goes on with another thread before and after everything that the other side of a link can notice
//!   (`sync.rs` of the shared-memory crate): counters, sleep words, doorbells. The links are real ones.
//! - A thread that has nothing to do announces its sleep, looks once more and waits for its bell. A bell that never comes
//!   leaves everybody waiting, which ends the schedule as one without an end.
//! - Each call has exactly one outcome: its own answer, or a fault if the worker was evicted.
//! - Orders that memory alone makes possible are loom's.
#![cfg(shuttle)]

use std::collections::HashMap;
use std::os::fd::BorrowedFd;
use std::time::Duration;

use bytes::Bytes;
use cellmesh_dpa::{Dpa, DpaConfig};
use cellmesh_shm::clock::Nanos;
use cellmesh_shm::frame::{FrameHeader, FrameKind};
use cellmesh_shm::ids::{CallId, EndpointId, ServiceId};
use cellmesh_shm::link::{Link, LinkFds};
use cellmesh_shm::message::{Fault, RequestMessage, ResponseMessage};
use cellmesh_shm::port::{Arrived, Port, PortConfig};
use cellmesh_shm::profile::RingProfile;
use cellmesh_shm::ring::Payload;
use shuttle::rand::{Rng, thread_rng};
use shuttle::scheduler::{PctScheduler, RandomScheduler, Scheduler};
use shuttle::sync::Arc;
use shuttle::sync::atomic::{AtomicBool, Ordering};
use shuttle::sync::mpsc::{Receiver, channel};
use shuttle::{Config, MaxSteps, Runner, thread};

const RANDOM_SCHEDULES: usize = 10_000;
const PCT_SCHEDULES: usize = 10_000;

/// Changes of priority in a schedule of the PCT scheduler: the depth of the errors that it finds for certain.
const PCT_DEPTH: usize = 3;

/// A schedule in which nobody waits for what never comes has some hundred steps.
const STEPS_MAX: usize = 100_000;

/// The service of both workers.
const BOTH: ServiceId = ServiceId(0);
/// The service of the worker that is evicted.
const EVICTED: ServiceId = ServiceId(1);

const CALLS: usize = 6;
const CALLS_MAX: u32 = 8;

/// Room for a frame or two, so that rings are full and messages of some hundred bytes go in chunks.
const PROFILE: RingProfile =
    RingProfile { small_bytes: 512, chunk_bytes: 128, bulk_chunks: 2, inline_bytes_max: 64 };

fn config() -> DpaConfig {
    DpaConfig {
        slots_max: 16,
        calls_max: CALLS_MAX,
        message_bytes_max: 4096,
        profile: PROFILE,
        budget_per_turn: 2,
        stall_timeout: Duration::from_secs(3600),
        ..DpaConfig::default()
    }
}

/// Time does not pass.
const NOW: Nanos = Nanos(1_000_000_000);

/// How the second worker ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// The DPA is told that it is gone, at any time.
    Lost,
    /// It sends a frame that no worker may send.
    BreaksRule,
}

/// Whether threads look for work between saying that they sleep and sleeping. Those that do not must be found out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum LooksAgain {
    Yes,
    No,
}

#[test]
fn random_schedules_settle_every_call_once() {
    run(RandomScheduler::new(random_schedules()), LooksAgain::Yes);
}

#[test]
fn pct_schedules_settle_every_call_once() {
    run(PctScheduler::new(PCT_DEPTH, PCT_SCHEDULES), LooksAgain::Yes);
}

#[test]
#[should_panic(expected = "exceeded max_steps")]
fn planted_sleep_without_another_look_is_caught() {
    run(RandomScheduler::new(random_schedules()), LooksAgain::No);
}

fn random_schedules() -> usize {
    std::env::var("CELLMESH_SCHEDULES")
        .map_or(RANDOM_SCHEDULES, |count| count.parse().expect("CELLMESH_SCHEDULES is a number"))
}

fn run(scheduler: impl Scheduler + 'static, looks_again: LooksAgain) {
    let mut config = Config::new();
    config.max_steps = MaxSteps::FailAfter(STEPS_MAX);
    config.stack_size = 256 << 10;
    Runner::new(scheduler, config).run(move || node(looks_again));
}

/// One schedule: the DPA is the main thread.
fn node(looks_again: LooksAgain) {
    let mut dpa = Dpa::new(config());
    let sidecar = dpa.attach_sidecar(PROFILE).expect("memory and descriptors");
    let steady = dpa.attach_worker(&[BOTH], PROFILE).expect("memory and descriptors");
    let doomed = dpa.attach_worker(&[BOTH, EVICTED], PROFILE).expect("memory and descriptors");
    let (doomed_id, mut ids) =
        (doomed.spec.endpoint, [&sidecar, &steady, &doomed].map(|fds| fds.spec.endpoint));
    let done = Arc::new(AtomicBool::new(false));
    let end = if thread_rng().r#gen() { End::Lost } else { End::BreaksRule };
    let (anew, attached_anew) = channel();
    let ended = Arc::clone(&done);
    let calling = thread::spawn(move || call_all(sidecar, looks_again, &ended));
    let ended = Arc::clone(&done);
    let (_keep, nobody) = channel();
    let serving = thread::spawn(move || serve(steady, &nobody, looks_again, &ended));
    let ended = Arc::clone(&done);
    let dying = thread::spawn(move || {
        let fds = match end {
            End::Lost => doomed,
            End::BreaksRule => {
                break_rule(doomed);
                attached_anew.recv().expect("the DPA lives longer")
            }
        };
        serve(fds, &attached_anew, looks_again, &ended);
    });

    let mut doomed_id = Some(doomed_id);
    while !done.load(Ordering::SeqCst) || doomed_id.is_some() {
        let moved = dpa.pump(NOW).moved();
        if let Some(gone) = doomed_id.take_if(|id| is_gone(&mut dpa, *id, end)) {
            let fds = dpa.attach_worker(&[BOTH, EVICTED], PROFILE).expect("memory and descriptors");
            ids = ids.map(|id| if id == gone { fds.spec.endpoint } else { id });
            assert!(anew.send(fds).is_ok() || done.load(Ordering::SeqCst), "its thread waits for it");
            continue;
        }
        if moved {
            continue;
        }
        dpa.announce_sleep();
        let moves = looks_again == LooksAgain::Yes && dpa.pump(NOW).moved();
        let stays = !moves && (doomed_id.is_none() || end == End::BreaksRule);
        while stays && !ids.iter().any(|id| heard(dpa.wait_fd(*id))) && !done.load(Ordering::SeqCst) {
            thread::yield_now();
        }
        dpa.wake();
    }
    let calls_left = calling.join().expect("every outcome is right");
    serving.join().expect("it ends when all is done");
    dying.join().expect("it ends when all is done");
    assert_eq!(calls_left, 0);
    while dpa.pump(NOW).moved() {}
    let stats = dpa.stats();
    assert!(stats.is_balanced() && stats.live == 0 && stats.parked_now == 0, "{stats:?}");
}

/// Evicts the worker, or says whether it has evicted itself.
fn is_gone(dpa: &mut Dpa, id: EndpointId, end: End) -> bool {
    match end {
        End::Lost if thread_rng().gen_bool(0.1) => dpa.detach(id),
        End::Lost => return false,
        End::BreaksRule => match dpa.take_closed() {
            Some(closed) => assert_eq!(closed.endpoint, id, "{}", closed.rule),
            None => return false,
        },
    }
    true
}

/// Takes nothing and sends an answer of a kind that only a sidecar sends.
fn break_rule(fds: LinkFds) {
    let mut link = Link::open(fds).expect("its own link");
    let header = FrameHeader::new(FrameKind::FlowInstall, 0);
    assert_eq!(link.tx.small.push(&header, Payload::Empty), Ok(true));
    link.publish();
}

/// Makes all calls, as many at once as it likes, and takes their outcomes. Returns how many have none.
fn call_all(fds: LinkFds, looks_again: LooksAgain, done: &AtomicBool) -> usize {
    let mut port = port(fds);
    let mut open = HashMap::<CallId, (ServiceId, usize)>::new();
    let mut to_make = CALLS;
    sleep_between(
        looks_again,
        &mut port,
        |port| {
            let mut moved = false;
            if to_make > 0 {
                let service = if to_make % 2 == 0 { BOTH } else { EVICTED };
                let call = port.call(request(service, to_make * 40)).expect("few calls");
                open.insert(call, (service, to_make * 40));
                to_make -= 1;
                moved = true;
            }
            while let Some(arrived) = port.poll().expect("the DPA breaks no rules") {
                let Arrived::Response { call, message } = arrived else { panic!("{arrived:?}") };
                let (service, len) = open.remove(&call).expect("one outcome each");
                check(service, len, &message);
                moved = true;
            }
            if to_make == 0 && open.is_empty() {
                done.store(true, Ordering::SeqCst);
            }
            moved
        },
        || done.load(Ordering::SeqCst),
    );
    open.len()
}

/// Its own answer, or a fault that eviction explains.
fn check(service: ServiceId, len: usize, message: &ResponseMessage) {
    match message.fault {
        Fault::None => assert_eq!(*message, answer(&request(service, len))),
        Fault::WorkerLost => {}
        Fault::NoWorker => assert_eq!(service, EVICTED, "the other worker was there all the time"),
        fault => panic!("nothing here can end in {fault:?}"),
    }
}

/// Answers what comes, until all is done. What arrives on `anew` takes the place of the link before it.
fn serve(fds: LinkFds, anew: &Receiver<LinkFds>, looks_again: LooksAgain, done: &AtomicBool) {
    let mut next = Some(fds);
    while let Some(fds) = next.take() {
        sleep_between(
            looks_again,
            &mut port(fds),
            |port| {
                let mut moved = false;
                while let Some(arrived) = port.poll().expect("the DPA breaks no rules") {
                    if let Arrived::Request { slot, message } = arrived {
                        port.respond(slot, answer(&message));
                    }
                    moved = true;
                }
                moved
            },
            || {
                next = next.take().or_else(|| anew.try_recv().ok());
                next.is_some() || done.load(Ordering::SeqCst)
            },
        );
    }
}

/// Works until `ended`, and sleeps as a lane does when there is nothing to do.
fn sleep_between(
    looks_again: LooksAgain,
    port: &mut Port,
    mut work: impl FnMut(&mut Port) -> bool,
    mut ended: impl FnMut() -> bool,
) {
    let mut turn = |port: &mut Port| {
        let moved = work(port);
        port.flush().moved() || moved
    };
    while !ended() {
        if turn(port) {
            continue;
        }
        port.announce_sleep();
        if looks_again == LooksAgain::No || !turn(port) {
            while !heard(Some(port.wait_fd())) && !ended() {
                thread::yield_now();
            }
        }
        port.wake();
    }
}

/// Whether this bell has rung since somebody asked. One whose other end is closed has not, and never will: a thread that took
/// that for a ring would look for work for ever, and a scheduler that lets the most urgent thread run let no other.
fn heard(bell: Option<BorrowedFd<'_>>) -> bool {
    bell.is_some_and(|bell| rustix::io::read(bell, &mut [0; 8]).is_ok_and(|bytes| bytes > 0))
}

fn port(fds: LinkFds) -> Port {
    let config = PortConfig { calls_max: CALLS_MAX, assembly_bytes_max: 8192, ..PortConfig::default() };
    Port::new(Link::open(fds).expect("its own link"), config)
}

fn request(service: ServiceId, len: usize) -> RequestMessage {
    let body = Bytes::from(vec![len as u8; len]);
    RequestMessage {
        service,
        deadline: Nanos::MAX,
        hops: 0,
        method_len: 0,
        target_len: 0,
        head: Bytes::new(),
        body,
    }
}

fn answer(request: &RequestMessage) -> ResponseMessage {
    let body = request.body.iter().map(|byte| !byte).collect();
    ResponseMessage { status: 200, fault: Fault::None, head: Bytes::new(), body }
}
