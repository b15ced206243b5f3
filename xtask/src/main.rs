//! What the commands of the README and CI call: `cargo xtask <command>`.
//!
//! ```text
//! check --> tidy                     what a reviewer should not have to look for
//! test --+
//! demo --+--> cells --> wasip2       a compiler for cells, found or installed
//! bench -+
//! image --> dist --> cells          the same bytes in every checkout
//! ```
//!
//! The logic of building and testing is here, not in shell scripts, so that it is the same on every
//! machine and has tests of its own.

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

use crate::workspace::Workspace;

mod apt;
mod bench;
mod cells;
mod check;
mod command;
mod demo;
mod dist;
mod fuzz;
mod image;
mod place;
mod remap;
mod suites;
mod summary;
mod tidy;
mod toolchain;
mod tools;
mod wasip2;
mod workspace;

/// Builds, runs, tests and checks cellmesh.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Builds every cell into `target/cells/<name>.wasm`; installs what compiling to wasm needs.
    Cells,
    /// Builds everything and serves the bundled example until Ctrl-C.
    Demo {
        /// Passed on to `cellmesh run`; a first argument that is no option replaces the example.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<String>,
    },
    /// Runs all tests and ends in a line `N passed, M failed, K skipped`.
    Test {
        /// Goes on after a suite that failed.
        #[arg(long)]
        no_fail_fast: bool,
    },
    /// Kills, stops and corrupts the processes of a node a thousand times under load; takes some minutes.
    Chaos,
    /// Formatting, lints, documentation, the rules of `tidy`, and cargo-deny where it is installed.
    Check,
    /// Our own rules: where unsafe code may be, file lengths, links, who depends on whom.
    Tidy,
    /// Builds the container image from a program without shared libraries; `target/image` is its context.
    Image(image::Options),
    /// Builds what is shipped, in the place where that gives the same bytes on every machine.
    #[command(hide = true)]
    Dist { parts: dist::Parts },
    /// Builds everything and runs a benchmark; `cargo xtask bench -- --help` lists them.
    Bench {
        /// Measures what is shipped, with link-time optimisation: it is some ten minutes more in the making.
        #[arg(long)]
        dist: bool,
        /// Passed on to the benchmark program.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<String>,
    },
}

fn main() -> ExitCode {
    match run(Cli::parse().task) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(task: Task) -> Result<ExitCode> {
    // Started inside: the checkout is not where this program was built from.
    if let Task::Dist { parts } = task {
        return dist::build_here(&place::workspace(), parts).map(|()| ExitCode::SUCCESS);
    }
    let workspace = Workspace::find()?;
    match task {
        Task::Cells => cells::build(&workspace).map(|_| ExitCode::SUCCESS),
        Task::Demo { args } => demo::run(&workspace, &args),
        Task::Test { no_fail_fast } => suites::run(&workspace, no_fail_fast),
        Task::Chaos => suites::chaos(&workspace),
        Task::Check => check::run(&workspace),
        Task::Tidy => tidy::run(&workspace),
        Task::Dist { .. } => unreachable!("done above"),
        Task::Image(options) => image::run(&workspace, &options),
        Task::Bench { dist, args } => bench::run(&workspace, if dist { "dist" } else { "release" }, &args),
    }
}
