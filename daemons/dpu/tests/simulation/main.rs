//! A whole node, simulated: random troubles on a virtual clock, from a seed, against every promise.
//!
//! ```text
//!   clients -> Lane (a real Dpu) -> a real Dpa -> Seat (a real Port, scripted cells) -> Dpa -> ...
//!                   Ledger: what each of them sees, and whether the History explains it
//! ```
//!
//! - One thread for each seed, no sockets, no clock: a run is a function of its seed, so a failure happens again.
//! - `CELLMESH_SIM_SEED=<seed> cargo test -p cellmesh-dpu --test simulation` runs one seed;
//!   `CELLMESH_SIM_REQUESTS=<count>` makes so many requests instead of a million.
//! - Not here: the network side of the DPU (`tests/network`), processes and sockets of workers (end to end).

mod cell;
mod history;
mod hostile;
mod lane;
mod ledger;
mod node;
mod plan;
mod planted;
mod random;
mod seat;
mod trouble;

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::thread::{self, available_parallelism};
use std::time::Duration;

use node::Node;
use planted::Planted;
use random::mix;
use trouble::Trouble;

/// Requests of all seeds together. Source: pass criterion K-8.
const REQUESTS: u64 = 1_000_000;
/// Requests of one seed: a few times from trouble to rest.
const REQUESTS_PER_SEED: u64 = 10_000;

/// So many seeds meet every trouble and every end.
const SEEDS_FOR_ALL: usize = 20;
/// Ways in which calls and workers end, and ways in which the DPA is kept from harm: all must happen.
const ENDS: [&str; 20] = [
    "answered",
    "deadline",
    "given up",
    "hop-limit",
    "internal",
    "no-worker",
    "overloaded",
    "too-large",
    "unroutable",
    "worker-lost",
    "expelled",
    "left",
    "relayed",
    "dpa: late or stolen responses",
    "dpa: overloaded",
    "dpa: parked (ring full)",
    "dpa: redispatched",
    "dpa: rejected",
    "dpa: stalled",
    "dpa: violations",
];

/// What came of one seed.
#[derive(Debug, PartialEq, Eq)]
struct Report {
    digest: u64,
    requests: u64,
    counts: BTreeMap<&'static str, u64>,
    slowest: Duration,
}

fn run(seed: u64, requests: u64, planted: Option<Planted>) -> Report {
    let mut node = Node::new(seed, planted);
    node.run(requests);
    let ledger = node.ledger;
    Report {
        digest: ledger.digest(),
        requests: ledger.requests(),
        slowest: ledger.slowest,
        counts: ledger.counts,
    }
}

/// Runs a seed; a broken promise says which seed it was.
fn run_named(seed: u64, requests: u64) -> Report {
    catch_unwind(AssertUnwindSafe(|| run(seed, requests, None))).unwrap_or_else(|_| {
        panic!(
            "seed {seed} broke a promise, see above; again with:\n  \
             CELLMESH_SIM_SEED={seed} cargo test -p cellmesh-dpu --test simulation every_promise"
        )
    })
}

/// A processor each runs its share of the seeds: they know nothing of each other.
fn run_all(seeds: &[u64]) -> Vec<Report> {
    let threads = available_parallelism().map_or(1, NonZeroUsize::get);
    let share = |first| {
        seeds.iter().skip(first).step_by(threads).map(|seed| run_named(*seed, REQUESTS_PER_SEED)).collect()
    };
    thread::scope(|scope| {
        let shares: Vec<_> = (0..threads).map(|first| scope.spawn(move || share(first))).collect();
        let reports = |share: thread::ScopedJoinHandle<'_, Vec<Report>>| {
            share.join().unwrap_or_else(|broken| resume_unwind(broken))
        };
        shares.into_iter().flat_map(reports).collect()
    })
}

fn number(variable: &str) -> Option<u64> {
    let value = std::env::var(variable).ok()?;
    Some(value.parse().unwrap_or_else(|_| panic!("{variable} = {value}: must be a number")))
}

fn seeds() -> Vec<u64> {
    match number("CELLMESH_SIM_SEED") {
        Some(seed) => vec![seed],
        None => {
            let requests = number("CELLMESH_SIM_REQUESTS").unwrap_or(REQUESTS);
            (0..requests.div_ceil(REQUESTS_PER_SEED)).map(|index| mix(2026, index)).collect()
        }
    }
}

/// Whatever happens to a node, every promise is kept; and over all seeds everything happens that can.
#[test]
fn every_promise_is_kept() {
    let (mut sums, mut requests, mut slowest) = (BTreeMap::<&str, u64>::new(), 0, Duration::ZERO);
    let seeds = seeds();
    for report in run_all(&seeds) {
        requests += report.requests;
        slowest = slowest.max(report.slowest);
        for (what, count) in report.counts {
            *sums.entry(what).or_default() += count;
        }
    }
    println!("{requests} requests of {} seeds; longest way back {slowest:?}; {sums:#?}", seeds.len());
    if seeds.len() >= SEEDS_FOR_ALL {
        let troubles = Trouble::DRAWN.into_iter().map(Trouble::name);
        let missing: Vec<&str> =
            troubles.chain(ENDS).filter(|what| sums.get(what).is_none_or(|count| *count == 0)).collect();
        assert!(missing.is_empty(), "never happened: {missing:?}");
    }
}

/// A seed makes the same run each time, and another seed another one.
#[test]
fn seed_decides_everything() {
    let first = run(11, 3000, None);
    assert_eq!(first, run(11, 3000, None));
    assert_ne!(first.digest, run(12, 3000, None).digest);
}

/// What the simulation says to an error that was planted.
fn finding(planted: Planted) -> String {
    let broken = (0..8).find_map(|seed| catch_unwind(|| run(seed, 3000, Some(planted))).err());
    let said = broken.unwrap_or_else(|| panic!("{planted:?} is not noticed"));
    let figures = said.downcast_ref::<String>().cloned();
    figures.or(said.downcast_ref::<&str>().map(ToString::to_string)).expect("a panic has a text")
}

fn check_planted(planted: Planted, expected: &str) {
    let said = finding(planted);
    assert!(said.contains(expected), "{planted:?} is taken for something else: {said}");
}

/// An answer that was given in time and does not come is noticed at the deadline, which would explain it else.
#[test]
fn lost_answer_is_noticed() {
    check_planted(Planted::LoseAnswer, "nothing explains Deadline");
}

/// Neither another's answer nor a part of one passes for the answer.
#[test]
fn wrong_answers_are_noticed() {
    check_planted(Planted::SwapAnswer, "the wrong answer");
    check_planted(Planted::CutAnswer, "the wrong answer");
}

/// A request that is delivered again is noticed at the second cell.
#[test]
fn second_delivery_is_noticed() {
    check_planted(Planted::Redeliver, "was delivered twice");
}

/// A fault is noticed that nothing explains.
#[test]
fn invented_fault_is_noticed() {
    check_planted(Planted::InventFault, "nothing explains WorkerLost");
}

/// A request that is never let go is noticed when all has come to rest.
#[test]
fn leaked_request_is_noticed() {
    check_planted(Planted::LeakRequest, "is not let go");
}
