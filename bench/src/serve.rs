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

mod curve;
mod haproxy;
mod native;
mod wasmtime;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Args;

use self::wasmtime::Instances;
use crate::load::{Done, Load};
use crate::process::{Server, cellmesh, cells, free_address};
use crate::turns::{Series, median_ratio, quantile, spread};
use crate::{machine, plots};
use haproxy::Hop;
pub(crate) use native::NativeService;

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
    /// Only these of the cases `hello`, `hosts`, `chain`, `lanes`, `series`, `pi` and `proxy`; all of them by default.
    #[arg(long = "case", value_parser = ["hello", "hosts", "chain", "lanes", "series", "pi", "proxy"])]
    cases: Vec<String>,
    /// Also draws throughput against latency, and cost against the number of services, into this folder.
    #[arg(long)]
    plots: Option<PathBuf>,
    /// Another build of cellmesh, to be measured beside the first.
    #[arg(long)]
    other: Option<PathBuf>,
}

/// One server's figures, one of each per round.
#[derive(Debug, Default)]
struct Figures {
    requests_per_s: Series,
    cpu_us_per_request: Series,
    p50_ms: Series,
    p99_ms: Series,
}

/// A case: the same requests to servers that give the same answers.
struct Case {
    name: String,
    path: &'static str,
    /// Of a series: how many services.
    length: Option<usize>,
    /// If not as many as the options say.
    connections: Option<usize>,
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
    let mut costs = BTreeMap::new();
    for case in cases(options) {
        let mut case = case()?;
        for (_, server) in &case.servers {
            server.until_ready(case.path)?;
        }
        let figures = measure(&mut case, options)?;
        write_case(&mut report, &case, &figures)?;
        write_added(&mut report, &case, &figures)?;
        note_costs(&mut costs, &case, &figures);
        if let Some(folder) = &options.plots
            && matches!(&*case.name, "hello" | CHAIN)
        {
            draw_curves(folder, &case, &figures, options)?;
        }
        if let Some(folder) = options.plots.as_ref().filter(|_| case.name == LANES) {
            draw_lanes(folder, &figures)?;
        }
    }
    write_hops(&mut report, &costs)?;
    if let Some(folder) = &options.plots {
        draw_costs(folder, costs)?;
    }
    Ok(report)
}

/// Processor time per request by the number of services in series, for each server.
type Costs = BTreeMap<&'static str, Vec<(f64, f64)>>;

fn note_costs(costs: &mut Costs, case: &Case, figures: &[Figures]) {
    let Some(length) = case.length else { return };
    for ((name, _), of) in case.servers.iter().zip(figures) {
        costs.entry(name).or_default().push((length as f64, quantile(&of.cpu_us_per_request, 0.5)));
    }
}

/// What each service more costs, from the shortest series to the longest.
fn write_hops(report: &mut String, costs: &Costs) -> Result<()> {
    let hop = |points: &[(f64, f64)]| match points {
        [(first, least), .., (last, most)] => Some((most - least) / (last - first)),
        _ => None,
    };
    for (name, us) in costs.iter().filter_map(|(name, points)| Some((name, hop(points)?))) {
        writeln!(report, "- one service more in series, {name}: {us:.2} us CPU per request")?;
    }
    Ok(())
}

fn draw_costs(folder: &Path, costs: Costs) -> Result<()> {
    let lines: Vec<_> = costs.into_iter().map(|(name, points)| (name.to_owned(), points)).collect();
    if lines.is_empty() {
        return Ok(());
    }
    let file = folder.join("series.svg");
    plots::draw(&file, "Services in series, no work", "services", "CPU per request, us", &lines)
}

fn draw_curves(folder: &Path, case: &Case, figures: &[Figures], options: &Options) -> Result<()> {
    let mut lines = Vec::new();
    for ((name, server), of) in case.servers.iter().zip(figures) {
        let most = quantile(&of.requests_per_s, 0.5);
        lines.extend(curve::measure(name, server, case.path, most, options.seconds)?);
    }
    let file = folder.join(if case.name == CHAIN { "chain-latency.svg" } else { "hello-latency.svg" });
    plots::draw(&file, &case.name, "requests/s, open loop", "ms from when a request was due", &lines)
}

const CHAIN: &str = "chain s0 -> {s1, s2}, no work";

type MakeCase<'o> = Box<dyn Fn() -> Result<Case> + 'o>;

/// Those that were asked for. Each starts its own servers when its turn has come.
fn cases(options: &Options) -> Vec<MakeCase<'_>> {
    let wanted = |name: &str| options.cases.is_empty() || options.cases.iter().any(|case| case == name);
    let mut cases: Vec<MakeCase<'_>> = Vec::new();
    if wanted("hello") {
        cases.push(Box::new(|| hello(options)));
    }
    if wanted("hosts") {
        cases.push(Box::new(|| hosts(options, Reuse::Reused)));
        cases.push(Box::new(|| hosts(options, Reuse::Fresh)));
    }
    if wanted("chain") {
        cases.push(Box::new(|| chain(options)));
    }
    if wanted("lanes") {
        cases.push(Box::new(lanes));
    }
    if wanted("series") {
        for length in SERIES_LENGTHS {
            cases.push(Box::new(move || series(options, length)));
        }
    }
    if wanted("pi") {
        cases.push(Box::new(|| pi(options)));
    }
    if wanted("proxy") {
        cases.push(Box::new(|| proxy(options.connections)));
        cases.push(Box::new(|| proxy(1)));
    }
    cases
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
    Ok(Case { name: "hello".into(), path: "/", length: None, connections: None, servers })
}

/// What becomes of an instance after a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reuse {
    Reused,
    Fresh,
}

/// The hello cell, and the same answer from `wasmtime serve`.
fn hosts(options: &Options, reuse: Reuse) -> Result<Case> {
    let instances = if reuse == Reuse::Reused { "reuse" } else { "fresh" };
    let app = format!(
        "[[cell]]\ncomponent = {:?}\nservices = [\"hello\"]\ninstances = \"{instances}\"\n",
        cells()?.join("hello.wasm")
    );
    let mut servers = vec![("cellmesh", Server::cellmesh(&cellmesh()?, "app.toml", &app)?)];
    if let Some(program) = wasmtime::program() {
        let component = guests()?.join("wasi-http.wasm");
        let peers: &[(&str, Instances)] = match reuse {
            Reuse::Reused => &[("peer: wasmtime serve, instances reused", Instances::Reused)],
            Reuse::Fresh => &[
                ("peer: wasmtime serve, its default", Instances::Fresh),
                ("peer: wasmtime serve, memory kept resident", Instances::FreshKeptResident),
            ],
        };
        for (name, instances) in peers {
            servers.push((name, wasmtime::start(&program, &component, *instances)?));
        }
    } else {
        eprintln!("hosts: there is no wasmtime (`cargo install wasmtime-cli`), nothing to compare with");
    }
    if let Some(other) = &options.other {
        servers.push(("cellmesh, other build", Server::cellmesh(other, "app.toml", &app)?));
    }
    Ok(Case {
        name: format!("hello, instances: {instances}"),
        path: "/",
        length: None,
        connections: None,
        servers,
    })
}

fn chain_model() -> String {
    format!(
        "{{\"s0\": {NO_WORK}, \"external_services\": [{{\"services\": [\"s1\"]}}, {{\"services\": [\"s2\"]}}]}}, \
         \"s1\": {NO_WORK}}}, \"s2\": {NO_WORK}}}}}"
    )
}

/// The chain on one lane to four; more lanes than processors take turns on them.
fn lanes() -> Result<Case> {
    const NAMES: [&str; 4] = ["one lane", "two lanes", "three lanes", "four lanes"];
    let server = |(lanes, name): (usize, &'static str)| {
        let lanes = format!("{}", lanes + 1);
        let server =
            Server::cellmesh_with(&cellmesh()?, "workmodel.json", &chain_model(), &["--lanes", &lanes])?;
        Ok((name, server))
    };
    let servers = NAMES.into_iter().enumerate().map(server).collect::<Result<_>>()?;
    Ok(Case { name: LANES.into(), path: "/api/v1", length: None, connections: None, servers })
}

const LANES: &str = "the chain, by the number of lanes";

fn draw_lanes(folder: &Path, figures: &[Figures]) -> Result<()> {
    let points = |of: fn(&Figures) -> &Series, scale: f64| -> Vec<(f64, f64)> {
        (1..)
            .zip(figures)
            .map(|(lanes, figures)| (f64::from(lanes), quantile(of(figures), 0.5) / scale))
            .collect()
    };
    let lines = [
        ("thousand requests/s".to_owned(), points(|figures| &figures.requests_per_s, 1e3)),
        ("us CPU per request".to_owned(), points(|figures| &figures.cpu_us_per_request, 1.0)),
    ];
    plots::draw(&folder.join("lanes.svg"), LANES, "lanes", "", &lines)
}

/// `s0` calls `s1` and `s2` at the same time, nobody does any work: what is measured is the way between them.
fn chain(options: &Options) -> Result<Case> {
    let model = chain_model();
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
    if haproxy::is_installed() {
        servers.push(("native hyper, HAProxy on both sides of every hop", chain_behind_haproxy()?));
    } else {
        eprintln!("chain: haproxy is not installed, native services behind it are not measured");
    }
    if let Some(other) = &options.other {
        servers
            .push(("cellmesh, co-hosted, other build", Server::cellmesh(other, "workmodel.json", &model)?));
    }
    Ok(Case { name: CHAIN.into(), path: "/api/v1", length: None, connections: None, servers })
}

/// The chain with a sidecar at each service.
fn chain_behind_haproxy() -> Result<Server> {
    let mut parts = Vec::new();
    let mut hops = vec![];
    for _ in 0..2 {
        let callee = Server::native(&NativeService::hello())?;
        let inbound = haproxy::start(&[Hop { listen: free_address()?, to: callee.address() }])?;
        hops.push(Hop { listen: free_address()?, to: inbound.address() });
        parts.extend([callee, inbound]);
    }
    let outbound: Vec<_> = hops.iter().map(|hop| hop.listen).collect();
    let s0 = Server::native(&NativeService::calling(&outbound))?;
    hops.insert(0, Hop { listen: free_address()?, to: s0.address() });
    parts.push(s0);
    Ok(haproxy::start(&hops)?.with(parts))
}

/// `s0` calls `s1`, which calls `s2`, and so on.
fn series(options: &Options, length: usize) -> Result<Case> {
    let service = |index: usize| {
        let calls = format!(", \"external_services\": [{{\"services\": [\"s{}\"]}}]", index + 1);
        let calls = if index + 1 < length { &calls } else { "" };
        format!("\"s{index}\": {NO_WORK}{calls}}}")
    };
    let model = format!("{{{}}}", (0..length).map(service).collect::<Vec<_>>().join(", "));
    let mut native = Server::native(&NativeService::hello())?;
    for _ in 1..length {
        native = Server::native(&NativeService::calling(&[native.address()]))?.with([native]);
    }
    let mut servers = vec![
        ("cellmesh, co-hosted", Server::cellmesh(&cellmesh()?, "workmodel.json", &model)?),
        ("native hyper over loopback TCP", native),
    ];
    if let Some(other) = &options.other {
        servers
            .push(("cellmesh, co-hosted, other build", Server::cellmesh(other, "workmodel.json", &model)?));
    }
    Ok(Case {
        name: format!("{length} services in series, no work"),
        path: "/api/v1",
        length: Some(length),
        connections: None,
        servers,
    })
}

/// One service that computes digits of pi.
fn pi(_: &Options) -> Result<Case> {
    const DIGITS: usize = 1000;
    // muBench's complexity is one less than the digits.
    let complexity = DIGITS - 1;
    let model = format!(
        r#"{{"s0": {{"internal_service": {{"loader": {{"cpu_stress": {{"run": true, "range_complexity": [{complexity}, {complexity}], "thread_pool_size": 1, "trials": 1}}, "mean_response_size": 0.01}}}}}}}}"#
    );
    let native = NativeService { pi_digits: DIGITS, ..NativeService::hello() };
    let servers = vec![
        ("cellmesh", Server::cellmesh(&cellmesh()?, "workmodel.json", &model)?),
        ("native hyper, the same code", Server::native(&native)?),
    ];
    Ok(Case {
        name: format!("pi, {DIGITS} digits"),
        path: "/api/v1",
        length: None,
        connections: None,
        servers,
    })
}

/// A service off the node: called directly, and through what stands in front of it. Processor time is that of both together.
fn proxy(connections: usize) -> Result<Case> {
    let far = || Server::native(&NativeService::hello());
    let behind = far()?;
    let app = format!(
        "[[cell]]\ncomponent = {:?}\nservices = [\"far\"]\n[dpu.egress.hosts]\nfar = \"{}\"\n",
        cells()?.join("hello.wasm"),
        behind.address()
    );
    let node = Server::cellmesh_split(&cellmesh()?, "app.toml", &app, &[])?.with([behind]);
    let mut servers = vec![(PROXY, node), (DIRECT, far()?)];
    if haproxy::is_installed() {
        let behind = far()?;
        let hop = Hop { listen: free_address()?, to: behind.address() };
        servers.push((PEER_PROXY, haproxy::start(&[hop])?.with([behind])));
    } else {
        eprintln!("proxy: haproxy is not installed, nothing to compare with");
    }
    let name = format!("a service off the node, {connections} connections");
    Ok(Case { name, path: "/", length: None, connections: Some(connections), servers })
}

const PROXY: &str = "cellmesh node in front of it, one lane";
const DIRECT: &str = "native hyper, called directly";
const PEER_PROXY: &str = "peer: HAProxy in front of it";

/// What standing in front of a service adds, ours to theirs.
fn write_added(report: &mut String, case: &Case, figures: &[Figures]) -> Result<()> {
    let of = |name: &str| {
        case.servers.iter().zip(figures).find(|((known, _), _)| *known == name).map(|(_, figures)| figures)
    };
    let (Some(ours), Some(direct), Some(theirs)) = (of(PROXY), of(DIRECT), of(PEER_PROXY)) else {
        return Ok(());
    };
    let added =
        |of: &[f64], direct: &[f64]| -> Series { of.iter().zip(direct).map(|(of, to)| of - to).collect() };
    let cpu =
        ("CPU per request", &ours.cpu_us_per_request, &direct.cpu_us_per_request, &theirs.cpu_us_per_request);
    let latency = ("median latency", &ours.p50_ms, &direct.p50_ms, &theirs.p50_ms);
    // With more connections a closed loop's latency says no more than its throughput.
    let measured = if case.connections == Some(1) { vec![cpu, latency] } else { vec![cpu] };
    for (what, ours, direct, theirs) in measured {
        let (ours, theirs) = (added(ours, direct), added(theirs, direct));
        if ours.iter().chain(&theirs).all(|added| *added > 0.0) {
            writeln!(report, "- added {what}, cellmesh node / HAProxy: {:.2}", median_ratio(&ours, &theirs))?;
        } else {
            writeln!(report, "- added {what}: less than this machine's noise")?;
        }
    }
    writeln!(report)?;
    Ok(())
}

/// A service of a work model that does nothing but answer; its closing bracket is missing.
const NO_WORK: &str =
    r#"{"internal_service": {"loader": {"sleep_stress": {"run": false}, "mean_response_size": 0.01}}"#;

/// How many services are called one after the other.
const SERIES_LENGTHS: [usize; 4] = [1, 2, 5, 10];

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
                connections: case.connections.unwrap_or(options.connections),
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
    fn push(&mut self, done: &Done, cpu: Duration) {
        let requests = done.latencies_us.len() as f64;
        self.requests_per_s.push(requests / done.time.as_secs_f64());
        self.cpu_us_per_request.push(cpu.as_secs_f64() * 1e6 / requests);
        self.p50_ms.push(quantile(&done.latencies_us, 0.5) / 1e3);
        self.p99_ms.push(quantile(&done.latencies_us, 0.99) / 1e3);
    }
}

fn write_case(report: &mut String, case: &Case, figures: &[Figures]) -> Result<()> {
    writeln!(report, "## {}\n", case.name)?;
    writeln!(
        report,
        "| server | requests/s | CPU per request, us | p50, ms | p99, ms |\n|---|---|---|---|---|"
    )?;
    for ((name, _), of) in case.servers.iter().zip(figures) {
        let (rate, cpu) = (spread(&of.requests_per_s), spread(&of.cpu_us_per_request));
        let (p50, p99) = (spread(&of.p50_ms), spread(&of.p99_ms));
        writeln!(report, "| {name} | {rate} | {cpu} | {p50} | {p99} |")?;
    }
    writeln!(report)?;
    let is_native = |name: &str| name.starts_with("native") || name.starts_with("peer");
    for ((name, _), ours) in case.servers.iter().zip(figures).filter(|((name, _), _)| !is_native(name)) {
        let peers = case.servers.iter().zip(figures).filter(|((name, _), _)| is_native(name));
        for ((peer, _), theirs) in peers {
            writeln!(
                report,
                "- {name} / {peer}: {:.2} x requests/s, {:.2} x CPU per request",
                median_ratio(&ours.requests_per_s, &theirs.requests_per_s),
                median_ratio(&ours.cpu_us_per_request, &theirs.cpu_us_per_request),
            )?;
        }
    }
    writeln!(report)?;
    Ok(())
}

fn guests() -> Result<PathBuf> {
    let dir = std::env::var_os("CELLMESH_BENCH_GUESTS")
        .context("CELLMESH_BENCH_GUESTS is not set: run cargo xtask bench serve")?;
    PathBuf::from(dir).canonicalize().context("the folder of the benchmarks' guests")
}
