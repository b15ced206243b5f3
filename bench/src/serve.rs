//! Serving: requests per second and processor time per request, next to native servers that do the same.
//!
//! ```text
//! for each case:   round 1: cellmesh, native   round 2: native, cellmesh   ...   medians, and ratios round by round
//! ```
//!
//! - Each server is a process of its own, started before the first round and idle while another has its turn.
//! - The load comes from this process: keep-alive connections, each with one request at a time. It takes its part of
//!   the same processors, for all servers alike.
//! - Processor time is what the kernel has booked on the server's processes, load excluded.

mod load;
mod native;
mod process;

use std::fmt::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Args;

use crate::machine;
use crate::turns::{Series, median_ratio, quantile};
use load::Load;
pub(crate) use native::NativeService;
use process::Server;

/// How long and how often.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Rounds; in each of them every server has one turn.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Seconds of a turn.
    #[arg(long, default_value_t = 3)]
    seconds: u64,
    /// Keep-alive connections.
    #[arg(long, default_value_t = 64)]
    connections: usize,
    /// Another build of cellmesh, to be measured beside the first.
    #[arg(long)]
    other: Option<PathBuf>,
}

/// One server's figures, one of each per round.
#[derive(Debug, Default)]
struct Figures {
    requests_per_s: Series,
    cpu_us_per_request: Series,
    p99_ms: Series,
}

/// A case: the same requests to servers that give the same answers.
struct Case {
    name: &'static str,
    path: &'static str,
    servers: Vec<(&'static str, Server)>,
}

/// Runs all cases; returns the report, in Markdown.
pub(crate) fn run(options: &Options) -> Result<String> {
    let mut report = String::new();
    writeln!(report, "# Serving\n\n{}\n", machine::describe())?;
    writeln!(
        report,
        "{} connections, {} rounds of {} s; medians, and in brackets the smallest and the largest round.\n",
        options.connections, options.rounds, options.seconds
    )?;
    for case in [hello, chain] {
        let mut case = case(options)?;
        for (_, server) in &case.servers {
            server.until_ready(case.path)?;
        }
        let figures = measure(&mut case, options)?;
        write_case(&mut report, &case, &figures)?;
    }
    Ok(report)
}

/// A cell that answers by itself, and a native server that does.
fn hello(options: &Options) -> Result<Case> {
    let app = format!("[[cell]]\ncomponent = {:?}\nservices = [\"hello\"]\n", cells()?.join("hello.wasm"));
    let mut servers = vec![
        ("cellmesh", Server::cellmesh(&cellmesh()?, "app.toml", &app)?),
        ("native hyper", Server::native(&NativeService::hello())?),
    ];
    if let Some(other) = &options.other {
        servers.push(("cellmesh, other build", Server::cellmesh(other, "app.toml", &app)?));
    }
    Ok(Case { name: "hello", path: "/", servers })
}

/// `s0` calls `s1` and `s2` at the same time, nobody does any work: what is measured is the way between them.
fn chain(options: &Options) -> Result<Case> {
    const SERVICE: &str =
        r#"{"internal_service": {"loader": {"sleep_stress": {"run": false}, "mean_response_size": 0.01}}"#;
    let model = format!(
        "{{\"s0\": {SERVICE}, \"external_services\": [{{\"services\": [\"s1\"]}}, {{\"services\": [\"s2\"]}}]}}, \
         \"s1\": {SERVICE}}}, \"s2\": {SERVICE}}}}}"
    );
    let s1 = Server::native(&NativeService::hello())?;
    let s2 = Server::native(&NativeService::hello())?;
    let s0 = Server::native(&NativeService::calling(&[s1.address(), s2.address()]))?;
    let mut servers = vec![
        ("cellmesh, co-hosted", Server::cellmesh(&cellmesh()?, "workmodel.json", &model)?),
        ("native hyper over loopback TCP", s0.with([s1, s2])),
        (
            "cellmesh, split: a node and three workers",
            Server::cellmesh_split(&cellmesh()?, "workmodel.json", &model, &["s0", "s1", "s2"])?,
        ),
    ];
    if let Some(other) = &options.other {
        servers
            .push(("cellmesh, co-hosted, other build", Server::cellmesh(other, "workmodel.json", &model)?));
    }
    Ok(Case { name: "chain s0 -> {s1, s2}, no work", path: "/api/v1", servers })
}

fn measure(case: &mut Case, options: &Options) -> Result<Vec<Figures>> {
    let count = case.servers.len();
    let mut figures: Vec<Figures> = (0..count).map(|_| Figures::default()).collect();
    for round in 0..=options.rounds {
        for turn in 0..count {
            let index = (round + turn) % count;
            let (name, server) = &case.servers[index];
            eprintln!("{}: {name}, round {round} of {}", case.name, options.rounds);
            let load = Load {
                address: server.address(),
                path: case.path,
                connections: options.connections,
                time: Duration::from_secs(options.seconds),
            };
            let cpu_before = server.cpu_time()?;
            let done = load.run().with_context(|| format!("{}: {name}", case.name))?;
            let cpu = server.cpu_time()? - cpu_before;
            // The first round warms up.
            if round > 0 {
                figures[index].push(&done, cpu);
            }
        }
    }
    Ok(figures)
}

impl Figures {
    fn push(&mut self, done: &load::Done, cpu: Duration) {
        let requests = done.latencies_us.len() as f64;
        self.requests_per_s.push(requests / done.time.as_secs_f64());
        self.cpu_us_per_request.push(cpu.as_secs_f64() * 1e6 / requests);
        self.p99_ms.push(quantile(&done.latencies_us, 0.99) / 1e3);
    }
}

fn write_case(report: &mut String, case: &Case, figures: &[Figures]) -> Result<()> {
    writeln!(report, "## {}\n", case.name)?;
    writeln!(report, "| server | requests/s | CPU per request, us | p99, ms |\n|---|---|---|---|")?;
    for ((name, _), of) in case.servers.iter().zip(figures) {
        let (rate, cpu, p99) =
            (spread(&of.requests_per_s), spread(&of.cpu_us_per_request), spread(&of.p99_ms));
        writeln!(report, "| {name} | {rate} | {cpu} | {p99} |")?;
    }
    writeln!(report)?;
    let is_native = |name: &str| name.starts_with("native");
    let native =
        case.servers.iter().position(|(name, _)| is_native(name)).context("a case without a peer")?;
    for ((name, _), ours) in case.servers.iter().zip(figures).filter(|((name, _), _)| !is_native(name)) {
        writeln!(
            report,
            "- {name} / native: {:.2} x requests/s, {:.2} x CPU per request",
            median_ratio(&ours.requests_per_s, &figures[native].requests_per_s),
            median_ratio(&ours.cpu_us_per_request, &figures[native].cpu_us_per_request),
        )?;
    }
    writeln!(report)?;
    Ok(())
}

fn spread(series: &[f64]) -> String {
    let digits = if quantile(series, 0.5) < 100.0 { 2 } else { 0 };
    let [least, middle, most] = [0.0, 0.5, 1.0].map(|q| quantile(series, q));
    format!("{middle:.digits$} ({least:.digits$} to {most:.digits$})")
}

fn cells() -> Result<PathBuf> {
    let dir = std::env::var_os("CELLMESH_CELLS")
        .context("CELLMESH_CELLS is not set: run cargo xtask bench serve")?;
    PathBuf::from(dir).canonicalize().context("the folder of the cells")
}

fn cellmesh() -> Result<PathBuf> {
    let program =
        std::env::var_os("CELLMESH_BIN").context("CELLMESH_BIN is not set: run cargo xtask bench serve")?;
    Ok(PathBuf::from(program))
}
