//! `cellmesh check`: what serving a file needs of this machine, looked at without serving.
//!
//! ```text
//! config (already good) --> cells, cache --> ports, sockets, TLS --> kernel, limits --> a line each, and one for all
//! ```
//!
//! - Each finding is one line, with what would help. An error is what the start would fail for; a warning is what would hurt
//!   later. What is right is said with `--verbose` alone.
//! - In each file what is found out (I/O) and what is said of it (pure) are two functions.
//! - What the program does anyway is tried as the program does it: a link is made and sent, an address is bound, an
//!   engine is set up; and dropped again.
//! - Nothing is left behind, with two exceptions: cells of registries are pulled, and `--compile` compiles, both into the cache folder.

mod cache;
mod cells;
mod collector;
mod finding;
mod folders;
mod kernel;
mod limits;
mod ports;
mod sockets;
mod tls;

use self::finding::{Finding, Report};
use crate::cli::{Check, CheckPart};
use crate::config::{App, ServiceSpec};

/// Exit status when the start would fail, or when what was found cannot be written.
const ERRORS: u8 = 1;

/// Looks at everything, says it, and gives the exit status.
#[must_use]
pub fn run(app: &App, options: &Check) -> u8 {
    let mut report = Report::default();
    let part = options.part;
    report.extend(app.notes.iter().map(|note| Finding::warning(note, "")));
    if part.has_cells() {
        let services = part.services(app);
        report.extend(cache::look(&app.runtime.cache_dir));
        report.extend(cells::look(&services, &app.runtime, options.compile));
        report.extend(limits::of_cells(&services, part.lanes(app), &app.runtime));
    }
    report.extend(ports::look(&part.addresses(app)));
    if part.has_clients() {
        report.extend(app.dpu.tls.as_ref().map(tls::look).into_iter().flatten());
        report.extend(limits::of_clients(&app.dpu, part.lanes(app)));
    }
    if part.has_traces() {
        report.extend(app.trace.otlp.as_ref().map(collector::look).into_iter().flatten());
    }
    report.extend(sockets::look(app, part));
    report.extend(limits::of_lanes(part.lanes(app)));
    report.extend(kernel::look());
    let title = format!("{}: {} services", app.name, app.services.len());
    if let Err(error) = report.say(&title, options.verbose) {
        eprintln!("cellmesh: {error:#}");
        return ERRORS;
    }
    if report.has_errors() { ERRORS } else { 0 }
}

/// What each command needs.
impl CheckPart {
    fn has_cells(self) -> bool {
        matches!(self, Self::Run | Self::Worker)
    }

    fn has_clients(self) -> bool {
        matches!(self, Self::Run | Self::Node | Self::Dpu)
    }

    /// A DPA knows of no requests, only of frames.
    fn has_traces(self) -> bool {
        self.has_cells() || self.has_clients()
    }

    fn services(self, app: &App) -> Vec<&ServiceSpec> {
        match self {
            Self::Worker => app.worker_services().collect(),
            Self::Run | Self::Node | Self::Dpa | Self::Dpu => app.services.iter().collect(),
        }
    }

    /// As each command chooses them.
    fn lanes(self, app: &App) -> usize {
        match self {
            Self::Run => app.runtime.lanes_or_cores(),
            Self::Dpu | Self::Worker => app.runtime.lanes_or(1),
            Self::Node | Self::Dpa => 1,
        }
    }

    /// Addresses that it listens on, with the names of what says so.
    fn addresses(self, app: &App) -> Vec<ports::Wanted> {
        let mut wanted = Vec::new();
        if self.has_clients() {
            wanted.push(ports::Wanted::new("listen", "--listen or CELLMESH_LISTEN", app.listen));
            let tls = app.dpu.tls.as_ref();
            wanted.extend(tls.map(|tls| ports::Wanted::new("dpu.tls.listen", "dpu.tls.listen", tls.listen)));
        }
        let admin = match self {
            Self::Run | Self::Node => app.own_admin.or(app.admin),
            Self::Dpa | Self::Dpu | Self::Worker => app.own_admin,
        };
        let option = "--admin or CELLMESH_ADMIN";
        wanted.extend(admin.map(|address| ports::Wanted::new("admin.listen", option, address)));
        wanted
    }
}
