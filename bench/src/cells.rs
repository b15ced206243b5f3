//! Cells that call each other on one lane, asked from within the process: all modules and Wasm, no network.
//!
//! ```text
//!   direct     DPU -> DPA -> callee -> DPA -> DPU
//!   hop        DPU -> DPA -> caller -> DPA -> callee -> DPA -> caller -> DPA -> DPU      hop - direct: one service more
//! ```
//!
//! - The lane is the product's own ([`Cohosted`]); what a client's request goes through before it is a message (sockets,
//!   HTTP) is left out, for both alike.
//! - Cells do nothing (`bench/guests/hop`): a caller's handler returns a graph of calls that pass the body on, a callee's the
//!   body as its answer.

use std::fmt::Write as _;
use std::future::Future as _;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as Task, Poll, Waker};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use cellmesh::cohost::{Cohosted, LaneParts};
use cellmesh::config::{self, App, Overrides};
use cellmesh::host::{ArtifactCache, Cell, CompileLimits, Compiler, EngineLimits, HostEngine, Ticker};
use cellmesh::lane::Modules as _;
use cellmesh::mesh;
use cellmesh::pool::Pool;
use cellmesh::trace::{RecorderParts, TraceSettings};
use cellmesh::worker::{ServiceCell, StepNames};
use cellmesh_shm::clock::Nanos;
use cellmesh_shm::ids::ServiceId;
use cellmesh_shm::message::{Fault, RequestMessage};
use clap::Args;

use crate::transport::Loopback;
use crate::turns::{Rounds, Series, median_ratio, quantile, spread, take_turns};
use crate::{machine, plots};

/// How often, and where cells and the program are.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Rounds; in each of them every case has one turn.
    #[arg(long, default_value_t = 15)]
    rounds: usize,
    /// Only this case, again and again, for a profiler.
    #[arg(long)]
    only: Option<String>,
    /// Requests in flight at once of `--only`.
    #[arg(long, default_value_t = 1)]
    at_once: usize,
    /// Also draws what bodies cost into this folder.
    #[arg(long)]
    plots: Option<PathBuf>,
    /// Folder of the benchmarks' guests.
    #[arg(long, env = "CELLMESH_BENCH_GUESTS")]
    guests: PathBuf,
    /// The program, which compiles cells.
    #[arg(long, env = "CELLMESH_BIN")]
    program: PathBuf,
}

const REQUESTS_PER_TURN: u32 = 2000;
/// Requests in flight at once where there are several.
const BATCH: usize = 32;
/// TCP takes longer than what it is compared with.
const TRIPS_PER_TURN: u32 = 1000;

/// Services, and whom each calls.
const SERVICES: [(&str, &str); 14] = [
    ("direct", ""),
    ("hop", "direct"),
    ("fan-out", "left right"),
    ("left", ""),
    ("right", ""),
    ("series-10", "series-9"),
    ("series-9", "series-8"),
    ("series-8", "series-7"),
    ("series-7", "series-6"),
    ("series-6", "series-5"),
    ("series-5", "series-4"),
    ("series-4", "series-3"),
    ("series-3", "series-2"),
    ("series-2", "direct"),
];

/// Those that are asked.
const ASKED: [&str; 4] = ["direct", "hop", "fan-out", "series-10"];

/// Runs everything; returns the report, in Markdown.
pub(crate) fn run(options: &Options) -> Result<String> {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build_local(Default::default())?;
    let mut lane = runtime.block_on(async { Lane::new(options) })?;
    let _guard = runtime.enter();
    if let Some(service) = &options.only {
        return lane.ask_for_ever(service, options);
    }
    let mut report = String::new();
    writeln!(report, "# Cells\n\n{}\n", machine::describe())?;
    writeln!(report, "{} rounds; medians, and in brackets the least and the most.\n", options.rounds)?;
    one_at_a_time(&mut report, options, &mut lane)?;
    several(&mut report, options, &mut lane)?;
    bodies(&mut report, options, &mut lane)?;
    Ok(report)
}

fn one_at_a_time(report: &mut String, options: &Options, lane: &mut Lane) -> Result<()> {
    let rounds = Rounds { rounds: options.rounds, calls_per_turn: 1 };
    let lane = std::cell::RefCell::new(lane);
    let ask = |service: &'static str| {
        let lane = &lane;
        move || (0..REQUESTS_PER_TURN).try_for_each(|_| lane.borrow_mut().ask(service, 1))
    };
    let (mut direct, mut hop, mut fan_out, mut series) =
        (ask(ASKED[0]), ask(ASKED[1]), ask(ASKED[2]), ask(ASKED[3]));
    let mut loopback = Loopback::new(64)?;
    let mut tcp = || (0..TRIPS_PER_TURN).try_for_each(|_| loopback.round_trip());
    let took = take_turns(rounds, &mut [&mut direct, &mut hop, &mut fan_out, &mut series, &mut tcp])?;
    let each =
        |series: &Series, calls: u32| -> Series { series.iter().map(|ns| ns / f64::from(calls)).collect() };
    let tcp = each(&took[4], TRIPS_PER_TURN);
    let asked: Vec<Series> = took[..4].iter().map(|series| each(series, REQUESTS_PER_TURN)).collect();
    writeln!(report, "## One request at a time\n\n| request to | ns |\n|---|---|")?;
    for (service, series) in ASKED.iter().zip(&asked) {
        writeln!(report, "| {service} | {} |", spread(series))?;
    }
    writeln!(report, "| TCP loopback, 64 B, there and back | {} |\n", spread(&tcp))?;
    let more: Series = asked[1].iter().zip(&asked[0]).map(|(hop, direct)| hop - direct).collect();
    let further: Series = asked[3].iter().zip(&asked[1]).map(|(ten, two)| (ten - two) / 8.0).collect();
    for (what, series) in [("cell to cell and back", &more), ("each further one of ten in series", &further)]
    {
        let ratio = median_ratio(&tcp, series);
        writeln!(report, "- {what}: {} ns, 1/{ratio:.1} of TCP loopback there and back", spread(series))?;
    }
    writeln!(report)?;
    Ok(())
}

fn several(report: &mut String, options: &Options, lane: &mut Lane) -> Result<()> {
    let rounds = Rounds { rounds: options.rounds, calls_per_turn: 1 };
    writeln!(report, "## {BATCH} requests at once\n\n| requests to | ns for each |\n|---|---|")?;
    let turns = REQUESTS_PER_TURN / 20;
    for service in ASKED {
        let mut ask = || (0..turns).try_for_each(|_| lane.ask(service, BATCH));
        let took = take_turns(rounds, &mut [&mut ask])?.remove(0);
        let each: Series = took.iter().map(|ns| ns / f64::from(turns) / BATCH as f64).collect();
        writeln!(report, "| {service} | {} |", spread(&each))?;
    }
    writeln!(report)?;
    Ok(())
}

/// Bytes of the bodies that are passed on.
const SIZES: [usize; 9] = [100, 1 << 10, 4 << 10, 8 << 10, 16 << 10, 64 << 10, 128 << 10, 256 << 10, 1 << 20];
/// Bytes of one turn, and the most requests of one.
const BYTES_PER_TURN: usize = 64 << 20;
const BODIES_PER_TURN: usize = 500;

/// What a hop costs with a body that is passed on and comes back.
fn bodies(report: &mut String, options: &Options, lane: &mut Lane) -> Result<()> {
    let rounds = Rounds { rounds: options.rounds, calls_per_turn: 1 };
    writeln!(report, "## Bodies, one request at a time, there and back\n")?;
    writeln!(report, "| bytes | direct, us | hop, us | hop - direct, us |\n|---|---|---|---|")?;
    let mut points = Vec::new();
    for size in SIZES {
        let turns = (BYTES_PER_TURN / size).min(BODIES_PER_TURN);
        lane.body = vec![7; size].into();
        let lane = std::cell::RefCell::new(&mut *lane);
        let ask = |service: &'static str| {
            let lane = &lane;
            move || (0..turns).try_for_each(|_| lane.borrow_mut().ask(service, 1))
        };
        let (mut direct, mut hop) = (ask(ASKED[0]), ask(ASKED[1]));
        let took = take_turns(rounds, &mut [&mut direct, &mut hop])?;
        let us = |series: &Series| -> Series { series.iter().map(|ns| ns / turns as f64 / 1e3).collect() };
        let (direct, hop) = (us(&took[0]), us(&took[1]));
        let more: Series = hop.iter().zip(&direct).map(|(hop, direct)| hop - direct).collect();
        writeln!(report, "| {size} | {} | {} | {} |", spread(&direct), spread(&hop), spread(&more))?;
        points.push((size as f64 / 1024.0, quantile(&more, 0.5)));
    }
    lane.body = Bytes::new();
    writeln!(report)?;
    let Some(folder) = &options.plots else { return Ok(()) };
    let lines = [("one service more".to_owned(), points)];
    plots::draw(&folder.join("bodies.svg"), "A body that is passed on and comes back", "KiB", "us", &lines)
}

/// One lane with the cells of [`SERVICES`].
struct Lane {
    modules: Cohosted,
    services: Vec<String>,
    head: Bytes,
    /// Of each request.
    body: Bytes,
    _ticker: Ticker,
    _folder: tempfile::TempDir,
}

impl Lane {
    fn new(options: &Options) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let app = app(&options.guests, folder.path())?;
        let compiler = Compiler::new(options.program.clone(), CompileLimits::default());
        let cache = ArtifactCache::open(&folder.path().join("artifacts"), compiler)?;
        let limits = EngineLimits { instances_max: 1024, memory_bytes_max: 16 << 20 };
        let pulse = Arc::default();
        let engines = [HostEngine::serving(limits, Some(cache.for_engine()?), &pulse)?];
        let ticker = Ticker::start(&engines, &pulse, Duration::from_millis(2))?;
        let load = |spec: &config::ServiceSpec| -> Result<ServiceCell> {
            let cell = Cell::load(&engines, &cache, spec.setup.clone())?.pop().context("one engine")?;
            let instances_max = spec.instances_max as usize;
            Ok(ServiceCell { cell, instances_max, step_names: StepNames::default() })
        };
        let modules = Cohosted::new(LaneParts {
            routes: Arc::new(mesh::routes(&app)?),
            dpu: app.dpu.clone(),
            services: app.services.iter().map(load).collect::<Result<_>>()?,
            pool: Pool::start(1)?,
            idle_instances_max: limits.instances_max as usize,
            recorder: RecorderParts::new(0, TraceSettings::default()),
        })?;
        let services = app.services.iter().map(|spec| spec.setup.service.to_string()).collect();
        let head = Bytes::from_static(b"GET/host: hop\naccept: */*\nx-request-id: 1234567890abcdef\n");
        let body = Bytes::new();
        Ok(Self { modules, services, head, body, _ticker: ticker, _folder: folder })
    }

    /// `count` requests at once, to their answers.
    fn ask(&mut self, service: &str, count: usize) -> Result<()> {
        let place = self.services.iter().position(|name| name == service).context("a service")?;
        let service = ServiceId(u16::try_from(place)?);
        let mut requests = Vec::with_capacity(count);
        for _ in 0..count {
            let message = RequestMessage {
                service,
                deadline: Nanos::now().saturating_add(Duration::from_secs(10)),
                hops: 0,
                method_len: 3,
                target_len: 1,
                head: self.head.clone(),
                body: self.body.clone(),
            };
            let request = self.modules.dpu().request(message);
            requests.push(request.map_err(|fault| anyhow::anyhow!("not sent: {fault:?}"))?);
        }
        while let Some(request) = requests.last_mut() {
            match Pin::new(request).poll(&mut Task::from_waker(Waker::noop())) {
                Poll::Pending => _ = self.modules.pump(Nanos::now())?,
                Poll::Ready(answer) => {
                    let is_whole = answer.body.len() == self.body.len();
                    ensure!(answer.fault == Fault::None && answer.status == 200 && is_whole, "{answer:?}");
                    requests.pop();
                }
            }
        }
        Ok(())
    }

    fn ask_for_ever(&mut self, service: &str, options: &Options) -> Result<String> {
        let Some(service) = ASKED.iter().find(|asked| **asked == service) else {
            bail!("--only {service}: must be one of {}", ASKED.join(", "));
        };
        (0..options.rounds).try_for_each(|_| self.ask(service, options.at_once))?;
        Ok(format!("{} times {} requests to {service}\n", options.rounds, options.at_once))
    }
}

/// The application, with all of its cells from one component.
fn app(guests: &Path, folder: &Path) -> Result<App> {
    let component = guests.join("hop.wasm");
    ensure!(component.is_file(), "{} is not there: run `cargo xtask bench -- cells`", component.display());
    let mut text = String::new();
    for (service, callees) in SERVICES {
        let config = if callees.is_empty() { String::new() } else { format!("callees = {callees:?}") };
        writeln!(
            text,
            "[[cell]]\ncomponent = {component:?}\nservices = [{service:?}]\nmemory_max = \"16MiB\"\nconfig = {{ {config} }}"
        )?;
    }
    Ok(config::parse(&folder.join("app.toml"), text, &Overrides::default())?)
}
