//! Benchmarks that compare alternatives side by side, in one run on one machine, taking turns: a figure
//! that stands alone says more about the weather than about the code.
//!
//! Started by `cargo xtask bench <name>`, which builds what they need.

use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};

mod contract;
mod guest;
mod machine;
mod serve;
mod turns;

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
    /// Requests per second and processor time per request, next to native servers.
    Serve(serve::Options),
    /// A native server, started by `serve`.
    #[command(hide = true)]
    NativeService(serve::NativeService),
}

fn main() -> Result<()> {
    let cli = Cli::parse();
    let report = match cli.benchmark {
        Benchmark::Contract(options) => contract::run(&options)?,
        Benchmark::Serve(options) => serve::run(&options)?,
        Benchmark::NativeService(service) => return service.serve(),
    };
    print!("{report}");
    if let Some(path) = &cli.out {
        std::fs::write(path, report).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}
