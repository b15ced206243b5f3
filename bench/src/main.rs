//! Benchmarks that compare alternatives side by side, in one run on one machine, taking turns: a figure
//! that stands alone says more about the weather than about the code.
//!
//! Started by `cargo xtask bench <name>`, which builds what they need.

use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};

mod cacheline;
mod cells;
mod contract;
mod flood;
mod footprint;
mod guest;
mod hostile;
mod load;
mod machine;
mod open_load;
mod parts;
mod plots;
mod process;
mod serve;
mod slow;
mod soak;
mod transport;
mod turns;

/// As the product has.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Compares alternatives side by side.
#[derive(Parser)]
#[command(name = "cellmesh-bench", bin_name = "cargo xtask bench")]
struct Cli {
    #[command(subcommand)]
    benchmark: Benchmark,
    /// Also writes the report to this file.
    #[arg(long, global = true)]
    out: Option<PathBuf>,
}

#[derive(Subcommand)]
enum Benchmark {
    /// Three shapes of the contract with cells: what a call costs (decision 0001).
    Contract(contract::Options),
    /// What idle services cost, and the first request to each of thousands.
    Footprint(footprint::Options),
    /// Requests per second and processor time per request, next to native servers.
    Serve(serve::Options),
    /// What honest workers lose beside a hostile one.
    Hostile(hostile::Options),
    /// What honest clients lose beside thousands of slow ones.
    Slow(slow::Options),
    /// What honest clients lose beside a flood of connections from another address.
    Flood(flood::Options),
    /// Minutes under mixed load: what grows, and what becomes slower.
    Soak(soak::Options),
    /// Cells that call each other on one lane, without a network.
    Cells(cells::Options),
    /// The graph engine, a call of a cell, a fresh instance, a load from the cache.
    Parts(parts::Options),
    /// What a message costs between two cells, without cells, next to TCP.
    Transport(transport::Options),
    /// The other side of a ring, started by `transport`.
    #[command(hide = true)]
    RingPeer(transport::RingPeer),
    /// A DPA and a sidecar, started by `transport`.
    #[command(hide = true)]
    EnginePeer(transport::EnginePeer),
    /// A hostile worker, started by `hostile`.
    #[command(hide = true)]
    HostilePeer(hostile::HostilePeer),
    /// Slow clients, started by `slow`.
    #[command(hide = true)]
    SlowClients(slow::SlowClients),
    /// A flood, started by `flood`.
    #[command(hide = true)]
    FloodClients(flood::FloodClients),
    /// A native server, started by `serve`.
    #[command(hide = true)]
    NativeService(serve::NativeService),
}

fn main() -> Result<()> {
    let cli = Cli::parse();
    let report = match cli.benchmark {
        Benchmark::Contract(options) => contract::run(&options)?,
        Benchmark::Serve(options) => serve::run(&options)?,
        Benchmark::Footprint(options) => footprint::run(&options)?,
        Benchmark::Hostile(options) => hostile::run(&options)?,
        Benchmark::Slow(options) => slow::run(&options)?,
        Benchmark::Flood(options) => flood::run(&options)?,
        Benchmark::Soak(options) => soak::run(&options)?,
        Benchmark::Cells(options) => cells::run(&options)?,
        Benchmark::Parts(options) => parts::run(&options)?,
        Benchmark::Transport(options) => transport::run(&options)?,
        Benchmark::RingPeer(peer) => return peer.serve(),
        Benchmark::EnginePeer(peer) => return peer.serve(),
        Benchmark::HostilePeer(peer) => return peer.attack(),
        Benchmark::SlowClients(clients) => return clients.run(),
        Benchmark::FloodClients(clients) => return clients.run(),
        Benchmark::NativeService(service) => return service.serve(),
    };
    print!("{report}");
    if let Some(path) = &cli.out {
        std::fs::write(path, report).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}
