//! Transport: what a message costs between two cells, without cells, next to what the machine offers instead.
//!
//! ```text
//!   inline     caller --ring--> DPA --ring--> callee --ring--> DPA --ring--> caller      all pumped by one thread
//!   engine     the caller in one process, DPA and callee on one thread of another
//!   TCP        client --loopback--> server --loopback--> client                          two threads, blocking
//! ```
//!
//! - Both ends of every link are the product's own: frames are validated, routed, kept in custody, counted.
//! - A figure that depends on a second core is worth little without the round trip of one cache line beside it, which the
//!   report begins with.

mod engine;
mod handover;
mod inline;
mod rings;
mod tcp;

use std::fmt::Write as _;

use anyhow::Result;
use clap::{Args, ValueEnum};

use crate::machine;
use crate::turns::{Rounds, Series, median_ratio, quantile, spread, take_turns};
pub(crate) use engine::EnginePeer;
use inline::{Mixed, Node};
pub(crate) use rings::RingPeer;
pub(crate) use tcp::Loopback;

/// How often.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Rounds; in each of them every alternative has one turn.
    #[arg(long, default_value_t = 15)]
    rounds: usize,
    /// Only these parts.
    #[arg(long)]
    only: Vec<Part>,
    /// Sleeps of the part `sleeps`: some 400,000 take a second.
    #[arg(long, default_value_t = 10_000_000)]
    sleeps: u64,
}

/// A part of the report.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Part {
    /// Round trips inline, one at a time, and what a message costs.
    RoundTrips,
    /// Throughput inline, on one core and on two.
    Throughput,
    /// Small messages beside large ones.
    BesideLarge,
    /// Through an engine thread in another process.
    Engine,
    /// One ring, without a DPA.
    Rings,
    /// Sleeps until so many have ended: only where it is asked for.
    Sleeps,
}

/// Bytes of a message, head and body.
const SIZES: [usize; 4] = [64, 1024, 8 * 1024, 64 * 1024];

/// Round trips of one turn: TCP takes a hundred times as long as the rings do.
const TRIPS: u32 = 2000;

/// Small messages of one turn while large ones stream.
const SMALL_BESIDE_LARGE: usize = 20_000;

/// Runs everything; returns the report, in Markdown.
pub(crate) fn run(options: &Options) -> Result<String> {
    let mut report = String::new();
    writeln!(report, "# Transport\n\n{}\n", machine::describe())?;
    writeln!(report, "{} rounds; medians, and in brackets the least and the most.\n", options.rounds)?;
    for part in Part::value_variants() {
        let asked = options.only.contains(part);
        if !asked && (!options.only.is_empty() || *part == Part::Sleeps) {
            continue;
        }
        match part {
            Part::RoundTrips => round_trips(&mut report, options)?,
            Part::Throughput => throughput(&mut report, options)?,
            Part::BesideLarge => beside_large(&mut report, options)?,
            Part::Engine => engine::report(&mut report, options.rounds)?,
            Part::Rings => rings::report(&mut report, options.rounds)?,
            Part::Sleeps => engine::sleeps(&mut report, options.sleeps)?,
        }
    }
    Ok(report)
}

/// One at a time, there and back.
fn round_trips(report: &mut String, options: &Options) -> Result<()> {
    writeln!(report, "## Round trip, one at a time\n")?;
    writeln!(report, "| bytes | inline, ns | TCP loopback, ns | ratio |\n|---|---|---|---|")?;
    for size in SIZES {
        let rounds = Rounds { rounds: options.rounds, calls_per_turn: TRIPS };
        let (mut node, mut tcp) = (Node::new(size)?, Loopback::new(size)?);
        let mut inline = || (0..INLINE_TRIPS).try_for_each(|_| node.round_trips(1));
        let mut loopback = || tcp.round_trip();
        let series = take_turns(rounds, &mut [&mut inline, &mut loopback])?;
        let inline: Series = series[0].iter().map(|ns| ns / f64::from(INLINE_TRIPS)).collect();
        let ratio = median_ratio(&series[1], &inline);
        writeln!(report, "| {size} | {} | {} | 1/{ratio:.0} |", spread(&inline), spread(&series[1]))?;
    }
    writeln!(report)?;
    costs(report, options)
}

/// What a message costs the machine, all modules counted: half of a round trip of a batch.
fn costs(report: &mut String, options: &Options) -> Result<()> {
    const BATCH: u32 = 8;
    const TURNS: u32 = 1000;
    writeln!(report, "## A message one way, {BATCH} at once, inline\n")?;
    writeln!(report, "| bytes | ns of processor time | goal |\n|---|---|---|")?;
    for (size, goal) in [(64, 65), (1024, 200), (8 * 1024, 600)] {
        let rounds = Rounds { rounds: options.rounds, calls_per_turn: TURNS };
        let mut node = Node::new(size)?;
        let mut inline = || node.round_trips(BATCH as usize);
        let series = take_turns(rounds, &mut [&mut inline])?;
        let each: Series = series[0].iter().map(|ns| ns / f64::from(2 * BATCH)).collect();
        writeln!(report, "| {size} | {} | <= {goal} |", spread(&each))?;
    }
    writeln!(report)?;
    Ok(())
}

/// Inline trips for each one over TCP, so that a turn is long enough to be timed.
const INLINE_TRIPS: u32 = 20;

/// As many as one core does, with one or several messages in each batch; and two cores that share nothing.
fn throughput(report: &mut String, options: &Options) -> Result<()> {
    const BATCHES: [usize; 4] = [1, 8, 32, 64];
    const TRIPS_PER_TURN: usize = 64_000;
    writeln!(report, "## Throughput, inline, 64 B, there and back\n")?;
    writeln!(report, "| batch | one core, M/s | two cores, M/s | ratio |\n|---|---|---|---|")?;
    for batch in BATCHES {
        let rounds = Rounds { rounds: options.rounds, calls_per_turn: 1 };
        let mut node = Node::new(64)?;
        let mut one = || (0..TRIPS_PER_TURN / batch).try_for_each(|_| node.round_trips(batch));
        let mut two = || inline::on_two_cores(TRIPS_PER_TURN / batch, batch);
        let series = take_turns(rounds, &mut [&mut one, &mut two])?;
        let rate = |series: &Series, cores: f64| -> Series {
            series.iter().map(|ns| cores * TRIPS_PER_TURN as f64 * 1e3 / ns).collect()
        };
        let (one, two) = (rate(&series[0], 1.0), rate(&series[1], 2.0));
        writeln!(
            report,
            "| {batch} | {} | {} | {:.2} x |",
            spread(&one),
            spread(&two),
            median_ratio(&two, &one)
        )?;
    }
    writeln!(report)?;
    Ok(())
}

/// Small messages while bodies of 1 MiB stream through the same DPA.
fn beside_large(report: &mut String, options: &Options) -> Result<()> {
    let mut mixed = Mixed::new()?;
    let (mut medians, mut tails) = (Series::new(), Series::new());
    for round in 0..=options.rounds {
        let times = mixed.small_beside_large(SMALL_BESIDE_LARGE)?;
        if round > 0 {
            medians.push(quantile(&times, 0.5));
            tails.push(quantile(&times, 0.99));
        }
    }
    writeln!(report, "## 64 B while bodies of 1 MiB stream, inline\n")?;
    writeln!(
        report,
        "- p50 {} ns, p99 {} ns; {:.2} GB/s of bodies meanwhile\n",
        spread(&medians),
        spread(&tails),
        mixed.large_gb_per_s()
    )?;
    Ok(())
}
