//! The `cellmesh` command.

use std::io::IsTerminal;
use std::process::ExitCode;

use cellmesh::cli::{Cli, Command, Run};
use cellmesh::config::{self, App};
use cellmesh::{host, server};
use clap::Parser;
use tracing_subscriber::EnvFilter;

/// Exit status for config that cannot be used; also clap's for a wrong command line.
const BAD_CONFIG: u8 = 2;

fn main() -> ExitCode {
    match Cli::parse().command {
        Command::Run(run) => serve(&run),
        Command::Check(run) => load(&run).map_or_else(|code| code, |app| checked(&app)),
        Command::CompileCell { dir, cpu_seconds_max, memory_bytes_max } => {
            host::compile_child_main(&dir, cpu_seconds_max, memory_bytes_max).into()
        }
    }
}

fn serve(run: &Run) -> ExitCode {
    start_log();
    let app = match load(run) {
        Ok(app) => app,
        Err(code) => return code,
    };
    match server::run(app) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("cellmesh: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn load(run: &Run) -> Result<App, ExitCode> {
    config::load(&run.file, &run.overrides()).map_err(|problems| {
        eprintln!("{problems}");
        ExitCode::from(BAD_CONFIG)
    })
}

fn checked(app: &App) -> ExitCode {
    println!("{}: {} services, nothing wrong", app.name, app.services.len());
    ExitCode::SUCCESS
}

/// The log goes to standard error: text for people, JSON lines for programs. `RUST_LOG` sets what is logged.
fn start_log() {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    if std::io::stderr().is_terminal() { log.init() } else { log.json().flatten_event(true).init() }
}
