//! Beside a flood of connections: what clients of another address lose (H-6 of the threat model).
//!
//! ```text
//! for each round:   alone   beside a busy process   beside each flood   ...   medians, and ratios round by round
//! ```
//!
//! - A flood comes from another address of loopback, out of a process of its own, and makes so many connections a second. One
//!   kind leaves them idle, up to the server's bound for an address and beyond it; the other closes each at once.
//! - Whoever floods takes processor time, of the kernel too. What the server loses beyond that is the ratio to a process that is
//!   busy all the time and connects to nothing.
//! - The others ask over connections that they keep, one request behind the other; and one of them over a new connection each
//!   time. Then they ask for half as much as they got alone, in an open loop: what they would do on a machine with time to spare.
//! - The server is `cellmesh run` with its usual bounds.

use std::cell::Cell;
use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Read, Write as _};
use std::net::{Ipv4Addr, SocketAddr};
use std::process::{Child, Command, Stdio};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::{Args, ValueEnum};
use tokio::io::AsyncReadExt;
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::{Instant, sleep_until};

use crate::load::Load;
use crate::machine;
use crate::open_load::OpenLoad;
use crate::process::{Server, cellmesh, cells};
use crate::turns::{Series, median_ratio, quantile, spread};

/// How many, how fast, how long and how often.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Rounds; in each of them every flood has one turn.
    #[arg(long, default_value_t = 7)]
    rounds: usize,
    /// Seconds of a turn.
    #[arg(long, default_value_t = 3)]
    seconds: u64,
    /// Connections of the others, which they keep.
    #[arg(long, default_value_t = 16)]
    connections: usize,
    /// Idle connections at once: more than one address may have.
    #[arg(long, default_value_t = 5000)]
    idle: usize,
    /// New connections per second.
    #[arg(long, default_value_t = 2000)]
    per_second: u32,
}

/// A flood.
#[derive(Debug, Args)]
pub(crate) struct FloodClients {
    address: SocketAddr,
    kind: Kind,
    idle: usize,
    per_second: u32,
}

/// What runs beside the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Kind {
    /// Connected to nothing.
    Busy,
    /// Connections that say nothing, made again when they are closed or refused.
    Idle,
    /// Connections that are reset as soon as they are there.
    Churn,
}

const KINDS: [Kind; 3] = [Kind::Busy, Kind::Idle, Kind::Churn];

/// Where floods come from.
const ADDRESS: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);
/// Connections of [`Kind::Churn`] on their way at once.
const CHURNERS: usize = 64;
/// Between two requests over new connections.
const PROBE_PAUSE: Duration = Duration::from_millis(20);

/// One neighbour's figures, one of each per round.
#[derive(Debug, Default)]
struct Figures {
    requests_per_s: Series,
    p99_ms: Series,
    /// Of the open loop, which is answered in whole.
    open_p99_ms: Series,
    /// Of requests over new connections.
    new_p99_ms: Series,
}

/// Runs everything; returns the report, in Markdown.
pub(crate) fn run(options: &Options) -> Result<String> {
    let component = cells()?.join("hello.wasm");
    let app = format!("[[cell]]\ncomponent = {component:?}\nservices = [\"hello\"]\n");
    let server = Server::cellmesh(&cellmesh()?, "app.toml", &app)?;
    server.until_ready("/hello")?;
    let rate = (closed(&server, options)?.0 / 2.0).round();
    let mut figures: Vec<Figures> = (0..=KINDS.len()).map(|_| Figures::default()).collect();
    for round in 0..=options.rounds {
        for turn in 0..figures.len() {
            let index = (round + turn) % figures.len();
            let kind = index.checked_sub(1).map(|index| KINDS[index]);
            // The first round warms up.
            measure(&server, kind, rate, options, (round > 0).then_some(&mut figures[index]))?;
        }
    }
    report(options, rate, &figures)
}

/// Requests per second over connections that are kept, and their p99 in ms.
fn closed(server: &Server, options: &Options) -> Result<(f64, f64)> {
    let time = Duration::from_secs(options.seconds);
    let load = Load { address: server.address(), path: "/hello", connections: options.connections, time };
    let done = load.run()?;
    let per_s = done.latencies_us.len() as f64 / done.time.as_secs_f64();
    Ok((per_s, quantile(&done.latencies_us, 0.99) / 1e3))
}

/// One turn. A request that is not answered 200 ends the benchmark.
fn measure(
    server: &Server,
    kind: Option<Kind>,
    rate: f64,
    options: &Options,
    figures: Option<&mut Figures>,
) -> Result<()> {
    let _flood = kind.map(|kind| Flood::start(server.address(), kind, options)).transpose()?;
    let probe = Probe::start(server.address());
    let (requests_per_s, p99_ms) = closed(server, options).with_context(|| format!("beside {kind:?}"))?;
    let new_ms = probe.end().with_context(|| format!("over a new connection beside {kind:?}"))?;
    let (address, seconds) = (server.address(), options.seconds);
    let open = OpenLoad { address, path: "/hello", rate, seconds, protocol: "http1" };
    let open = open.run().with_context(|| format!("in an open loop beside {kind:?}"))?;
    if let Some(figures) = figures {
        figures.requests_per_s.push(requests_per_s);
        figures.p99_ms.push(p99_ms);
        figures.open_p99_ms.push(open.p99);
        figures.new_p99_ms.push(quantile(&new_ms, 0.99));
    }
    Ok(())
}

fn report(options: &Options, rate: f64, figures: &[Figures]) -> Result<String> {
    let mut report = String::new();
    writeln!(report, "# Beside a flood of connections\n\n{}\n", machine::describe())?;
    writeln!(
        report,
        "`cellmesh run`; floods of {} new connections per second from another address, idle ones {} at once (its bound: 4096); the others have {} \
         connections, and make a new one every {} ms. In the open loop they ask {rate} times a second, half as often as they got an answer in a turn before the rounds. \
         {} rounds of {} s for each loop; medians, and in brackets the smallest and the largest round. All requests of the others were answered 200.\n",
        options.per_second,
        options.idle,
        options.connections,
        PROBE_PAUSE.as_millis(),
        options.rounds,
        options.seconds
    )?;
    writeln!(
        report,
        "| flood | requests/s | of none | of busy | p99, ms | over a new connection: p99, ms | open loop: answered | p99, ms |\n\
         |---|---|---|---|---|---|---|---|"
    )?;
    let (none, busy) = (&figures[0], &figures[1]);
    let names =
        std::iter::once("none".to_owned()).chain(KINDS.map(|kind| format!("{kind:?}").to_lowercase()));
    for (name, of) in names.zip(figures) {
        writeln!(
            report,
            "| {name} | {} | {:.2} | {:.2} | {} | {} | all | {} |",
            spread(&of.requests_per_s),
            median_ratio(&of.requests_per_s, &none.requests_per_s),
            median_ratio(&of.requests_per_s, &busy.requests_per_s),
            spread(&of.p99_ms),
            spread(&of.new_p99_ms),
            spread(&of.open_p99_ms)
        )?;
    }
    Ok(report)
}

/// A client that makes a connection for each request.
struct Probe {
    stop: Arc<AtomicBool>,
    asking: JoinHandle<Result<Series>>,
}

impl Probe {
    fn start(address: SocketAddr) -> Self {
        let stop = Arc::<AtomicBool>::default();
        let told = Arc::clone(&stop);
        let asking = std::thread::spawn(move || {
            let mut ms = Series::new();
            while !told.load(Ordering::Relaxed) {
                let begun = std::time::Instant::now();
                ask(address)?;
                ms.push(begun.elapsed().as_secs_f64() * 1e3);
                std::thread::sleep(PROBE_PAUSE);
            }
            Ok(ms)
        });
        Self { stop, asking }
    }

    /// What each request took, in ms.
    fn end(self) -> Result<Series> {
        self.stop.store(true, Ordering::Relaxed);
        self.asking.join().map_err(|_| anyhow::anyhow!("the client panicked"))?
    }
}

fn ask(address: SocketAddr) -> Result<()> {
    let mut stream = std::net::TcpStream::connect(address)?;
    stream.write_all(b"GET /hello HTTP/1.1\r\nhost: bench\r\nconnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    ensure!(answer.starts_with("HTTP/1.1 200"), "answered {:?}", answer.lines().next());
    Ok(())
}

/// A process that floods; killed when this is dropped.
struct Flood(Child);

impl Flood {
    /// Returns when it is under way.
    fn start(address: SocketAddr, kind: Kind, options: &Options) -> Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("flood-clients").arg(address.to_string()).arg(format!("{kind:?}").to_lowercase());
        command.arg(options.idle.to_string()).arg(options.per_second.to_string()).stdout(Stdio::piped());
        let mut child = command.spawn().context("cannot start a flood")?;
        let stdout = child.stdout.take().context("its standard output")?;
        let flood = Self(child);
        BufReader::new(stdout).lines().next().context("a flood ended before it was under way")??;
        Ok(flood)
    }
}

impl Drop for Flood {
    fn drop(&mut self) {
        // One that has ended already is what we want.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl FloodClients {
    /// Floods until it is killed; says so when each client has tried once.
    pub(crate) fn run(&self) -> Result<()> {
        let count = match self.kind {
            Kind::Busy => {
                println!("under way");
                loop {
                    std::hint::black_box(fastrand::u64(..));
                }
            }
            Kind::Idle => self.idle,
            Kind::Churn => CHURNERS,
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        tokio::task::LocalSet::new().block_on(&runtime, async {
            let step = Duration::from_secs(1) / self.per_second.max(1);
            let pace = Rc::new(Pace { next: Cell::new(Instant::now()), step, turns: Cell::new(0) });
            for _ in 0..count {
                tokio::task::spawn_local(
                    Client { address: self.address, kind: self.kind }.run(Rc::clone(&pace)),
                );
            }
            while pace.turns.get() < count {
                tokio::time::sleep(PROBE_PAUSE).await;
            }
            println!("under way");
            std::future::pending().await
        })
    }
}

/// When the next connection is made.
struct Pace {
    next: Cell<Instant>,
    step: Duration,
    turns: Cell<usize>,
}

impl Pace {
    async fn turn(&self) {
        let at = self.next.get().max(Instant::now());
        self.next.set(at + self.step);
        sleep_until(at).await;
        self.turns.set(self.turns.get() + 1);
    }
}

struct Client {
    address: SocketAddr,
    kind: Kind,
}

impl Client {
    /// Whatever ends a connection, the next one is made.
    async fn run(self, pace: Rc<Pace>) {
        loop {
            pace.turn().await;
            let Ok(mut stream) = connect(self.address).await else { continue };
            if self.kind == Kind::Idle {
                // A refusal, and the end; or the end alone.
                while stream.read(&mut [0; 256]).await.is_ok_and(|read| read > 0) {}
            }
            // Reset: the kernel of this machine would keep each for a minute, and run out of ports.
            let _ = stream.set_zero_linger();
        }
    }
}

async fn connect(address: SocketAddr) -> Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.bind((ADDRESS, 0).into())?;
    Ok(socket.connect(address).await?)
}
