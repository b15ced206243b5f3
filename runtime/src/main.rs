//! The `cellmesh` command.

use std::path::Path;
use std::process::ExitCode;

use cellmesh::cli::{Cli, Command};
use cellmesh::config::{self, App, Overrides, Part, Problems};
use cellmesh::hangups::Hangups;
use cellmesh::{check, commands, host, inspect, k8s, lanes, load, logs, replay};
use clap::Parser;

/// Messages are allocated by one module and freed by another, millions a second.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Exit status for config that cannot be used; also clap's for a wrong command line.
const BAD_CONFIG: u8 = 2;

fn main() -> ExitCode {
    match Cli::parse().command {
        Command::Run(run) => serve(&run.file, &run.overrides(Part::Whole), commands::run::run),
        Command::Node(run) => serve(&run.file, &run.overrides(Part::Daemon), commands::node::run),
        Command::Dpa(run) => serve(&run.file, &run.overrides(Part::Dpa), commands::dpa::run),
        Command::Dpu(run) => serve(&run.file, &run.overrides(Part::Daemon), commands::dpu::run),
        Command::Worker(worker) => serve(&worker.run.file, &worker.overrides(), commands::worker::run),
        Command::Load(options) => ended(load::run(&options)),
        Command::Top(options) => ended(inspect::top::run(&options)),
        Command::Graph(options) => ended(inspect::graph::run(&options)),
        Command::Replay(options) => replayed(&options),
        Command::Check(options) => load(&options.run.file, &options.overrides())
            .map_or_else(|code| code, |app| check::run(&app, &options).into()),
        Command::K8s(options) => rendered(&options),
        Command::CompileCell { dir, cpu_seconds_max, memory_bytes_max } => {
            host::compile_child_main(&dir, cpu_seconds_max, memory_bytes_max).into()
        }
    }
}

/// A command that serves until it is told to end.
type Serve = fn(&App, Hangups) -> anyhow::Result<()>;

fn serve(file: &Path, overrides: &Overrides, command: Serve) -> ExitCode {
    logs::start();
    leave_huge_pages();
    let hangups = Hangups::heard();
    lanes::end_when_told_early();
    let app = match load(file, overrides) {
        Ok(app) => app,
        Err(code) => return code,
    };
    ended(command(&app, hangups))
}

/// Memory comes by the page and not by 2 MiB at a time, where the system would give that: most of what is there for a connection is never
/// touched, and what was freed goes back (docs/decisions/0010-small-pages.md).
fn leave_huge_pages() {
    // The flag is the process's, whichever thread sets it. Source: prctl(2), PR_SET_THP_DISABLE.
    if let Err(why) = rustix::thread::disable_transparent_huge_pages(true) {
        tracing::debug!("memory may come in huge pages: {why}");
    }
}

fn ended(result: anyhow::Result<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("cellmesh: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn load(file: &Path, overrides: &Overrides) -> Result<App, ExitCode> {
    config::load(file, overrides).map_err(|problems| refused(&problems))
}

fn refused(problems: &Problems) -> ExitCode {
    eprintln!("{problems}");
    ExitCode::from(BAD_CONFIG)
}

fn rendered(options: &k8s::Options) -> ExitCode {
    let app = config::load(&options.file, &options.overrides());
    match app.and_then(|app| k8s::render(&app, options)) {
        Ok(rendered) => ended(rendered.print()),
        Err(problems) => refused(&problems),
    }
}

/// 0 if all is as it was recorded, 1 if it is not or cannot be run, 2 if config cannot be used.
fn replayed(options: &replay::Options) -> ExitCode {
    let app = match replay::load(options) {
        Ok(app) => app,
        Err(problems) => {
            eprintln!("{problems}");
            return ExitCode::from(BAD_CONFIG);
        }
    };
    match replay::run(options, &app) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => ended(Err(error)),
    }
}
