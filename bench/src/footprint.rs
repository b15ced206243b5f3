//! Footprint: what services cost that nobody asks, and what the first request to one costs.

use std::fmt::Write as _;
use std::io::{Read, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::Args;

use crate::machine;
use crate::process::{Server, cellmesh, cells};
use crate::turns::{Series, quantile};

/// How long, and how many.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Seconds without a request.
    #[arg(long, default_value_t = 30)]
    idle_seconds: u64,
    /// Services, each of which is asked once.
    #[arg(long, default_values_t = [1000, 10_000])]
    services: Vec<usize>,
}

/// Services of the idle process.
const IDLE_SERVICES: usize = 10;

/// Longest head and body of an answer.
const ANSWER_BYTES_MAX: usize = 4096;

/// Runs everything; returns the report, in Markdown.
pub(crate) fn run(options: &Options) -> Result<String> {
    let mut report = String::new();
    writeln!(report, "# Footprint\n\n{}\n", machine::describe())?;
    let idle = idle(options)?;
    writeln!(
        report,
        "- {IDLE_SERVICES} services, {} s without a request: {idle:.2} % of a core",
        options.idle_seconds
    )?;
    let one = Asked::of(1)?;
    for services in &options.services {
        let asked = Asked::of(*services)?;
        let per_service =
            asked.resident_bytes.saturating_sub(one.resident_bytes) / (*services as u64 - 1).max(1);
        writeln!(
            report,
            "- {services} services, each asked once: {} KiB resident for each beyond the first; first request, ms: \
             median {:.2}, p99 {:.2}, most {:.2}; ready after {:.2} s",
            per_service / 1024,
            quantile(&asked.first_ms, 0.5),
            quantile(&asked.first_ms, 0.99),
            quantile(&asked.first_ms, 1.0),
            asked.start.as_secs_f64(),
        )?;
    }
    Ok(report)
}

/// Per cent of a core.
fn idle(options: &Options) -> Result<f64> {
    let server = Server::cellmesh(&cellmesh()?, "app.toml", &app(IDLE_SERVICES)?)?;
    ask_all(&server, IDLE_SERVICES)?;
    // What the requests have begun ends.
    std::thread::sleep(Duration::from_secs(1));
    let before = server.cpu_time()?;
    std::thread::sleep(Duration::from_secs(options.idle_seconds));
    Ok((server.cpu_time()? - before).as_secs_f64() * 100.0 / options.idle_seconds as f64)
}

/// A process whose services have each answered one request.
struct Asked {
    start: Duration,
    first_ms: Series,
    resident_bytes: u64,
}

impl Asked {
    fn of(services: usize) -> Result<Self> {
        let begin = Instant::now();
        let server = Server::cellmesh(&cellmesh()?, "app.toml", &app(services)?)?;
        let start = begin.elapsed();
        let first_ms = ask_all(&server, services)?;
        Ok(Self { start, first_ms, resident_bytes: server.resident_bytes()? })
    }
}

fn app(services: usize) -> Result<String> {
    let names: Vec<String> = (0..services).map(|number| format!("\"c{number}\"")).collect();
    Ok(format!(
        "[[cell]]\ncomponent = {:?}\nservices = [{}]\ninstances_max = 2\n",
        cells()?.join("hello.wasm"),
        names.join(", ")
    ))
}

/// Asks each service once, over one connection; how long each took.
fn ask_all(server: &Server, services: usize) -> Result<Series> {
    let mut stream = TcpStream::connect(server.address())?;
    stream.set_nodelay(true)?;
    let mut answer = [0; ANSWER_BYTES_MAX];
    let mut ask = |number| {
        let begin = Instant::now();
        write!(stream, "GET / HTTP/1.1\r\nhost: c{number}\r\n\r\n")?;
        let length = stream.read(&mut answer)?;
        let took = begin.elapsed().as_secs_f64() * 1e3;
        let head = answer.get(..length).context("an answer")?;
        ensure!(head.starts_with(b"HTTP/1.1 200"), "service c{number}: {}", String::from_utf8_lossy(head));
        Ok(took)
    };
    (0..services).map(&mut ask).collect()
}
