//! Beside slow clients: what the others lose (H-4 of the threat model).
//!
//! ```text
//! for each round:   alone   beside clients with slow heads   with slow bodies   that read slowly   ...   medians
//! ```
//!
//! - Slow clients are a process of its own. Each sends, or takes, a few bytes a second, and comes back as often as it is
//!   closed.
//! - The others ask in an open loop, over HTTP/1.1 and over HTTP/2; latencies are from when each request was due.
//! - The server is `cellmesh run` with its usual timeouts; only the number of connections that one address may have is
//!   raised, since all of them come from this machine.

use std::cell::Cell;
use std::fmt::Write as _;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::{Args, ValueEnum};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::{sleep, timeout};

use crate::machine;
use crate::open_load::OpenLoad;
use crate::process::{Server, cellmesh, cells};
use crate::turns::{Series, median_ratio, spread};

/// How many, how fast, how long and how often.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Rounds; in each of them every kind of slow client has one turn.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Seconds of a turn, for each protocol.
    #[arg(long, default_value_t = 5)]
    seconds: u64,
    /// Requests per second of the others.
    #[arg(long, default_value_t = 2000.0)]
    rate: f64,
    /// Slow clients at once; of those that read slowly at most 25.
    #[arg(long, default_value_t = 5000)]
    clients: usize,
}

/// Slow clients of one kind.
#[derive(Debug, Args)]
pub(crate) struct SlowClients {
    address: SocketAddr,
    kind: Kind,
    count: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Kind {
    /// A header now and then, and no end of them.
    Head,
    /// A body of which a byte comes now and then.
    Body,
    /// A large answer of which a byte is taken now and then.
    Answer,
}

const KINDS: [Kind; 3] = [Kind::Head, Kind::Body, Kind::Answer];

/// Between two signs of life of a slow client.
const PAUSE: Duration = Duration::from_secs(1);
/// Connections that are made at the same time, less than the kernel's queue of a listener.
const BURST: usize = 200;
const BURST_PAUSE: Duration = Duration::from_millis(50);
/// What a slow reader's kernel keeps for it: the least that Linux gives.
const RECEIVE_BYTES: u32 = 2048;
/// What it asks for: more than the kernels keep (2.3 MB measured on loopback), so that most of it waits in the server.
const ANSWER_BYTES: usize = 8_000_000;
/// Those who ask for so much: their answers are within what a server keeps (`dpu.answer_bytes_max`).
const READERS_MOST: usize = 25;
/// Longest time for all to be connected.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);

const PROTOCOLS: [&str; 2] = ["http1", "http2"];

/// One neighbour's figures, one of each per round.
#[derive(Debug, Default)]
struct Figures {
    /// In the order of [`PROTOCOLS`].
    p99_ms: [Series; 2],
    resident_mib: Series,
}

/// Runs everything; returns the report, in Markdown.
pub(crate) fn run(options: &Options) -> Result<String> {
    let server = serving(options)?;
    let before = resident_mib(&server)?;
    let mut figures: Vec<Figures> = (0..=KINDS.len()).map(|_| Figures::default()).collect();
    for round in 0..=options.rounds {
        for turn in 0..figures.len() {
            let index = (round + turn) % figures.len();
            let kind = index.checked_sub(1).map(|index| KINDS[index]);
            let (p99, resident) = measure(&server, kind, options)?;
            // The first round warms up.
            if round > 0 {
                figures[index].p99_ms[0].push(p99[0]);
                figures[index].p99_ms[1].push(p99[1]);
                figures[index].resident_mib.push(resident);
            }
        }
    }
    report(options, &figures, [before, resident_mib(&server)?])
}

fn serving(options: &Options) -> Result<Server> {
    let folder = cells()?;
    let connections = options.clients + 1000;
    let app = format!(
        "[dpu]\nconnections_max = {connections}\nconnections_per_address_max = {connections}\n\
         [[cell]]\ncomponent = {:?}\nservices = [\"hello\"]\n[[cell]]\ncomponent = {:?}\nservices = [\"unruly\"]\n",
        folder.join("hello.wasm"),
        folder.join("unruly.wasm")
    );
    let server = Server::cellmesh(&cellmesh()?, "app.toml", &app)?;
    server.until_ready("/hello")?;
    Ok(server)
}

fn resident_mib(server: &Server) -> Result<f64> {
    Ok(server.resident_bytes()? as f64 / f64::from(1 << 20))
}

/// p99 in ms of each protocol, and the server's memory. A request that is not answered 200 ends the benchmark.
fn measure(server: &Server, kind: Option<Kind>, options: &Options) -> Result<([f64; 2], f64)> {
    if kind.is_none() {
        std::thread::sleep(2 * PAUSE); // the connections of those before are being closed
    }
    let _neighbours = kind.map(|kind| Neighbours::start(server.address(), kind, options)).transpose()?;
    let (rate, seconds) = (options.rate, options.seconds);
    let mut p99 = [0.0; 2];
    for (p99, protocol) in p99.iter_mut().zip(PROTOCOLS) {
        let load = OpenLoad { address: server.address(), path: "/hello", rate, seconds, protocol };
        *p99 = load.run().with_context(|| format!("beside {kind:?}"))?.p99;
    }
    Ok((p99, resident_mib(server)?))
}

fn report(options: &Options, figures: &[Figures], resident_mib: [f64; 2]) -> Result<String> {
    let mut report = String::new();
    writeln!(report, "# Beside slow clients\n\n{}\n", machine::describe())?;
    writeln!(
        report,
        "`cellmesh run`, {} slow clients (that read: {}), the others {} requests/s, {} rounds of {} s for each protocol; medians, and in brackets \
         the smallest and the largest round. All requests were answered 200. Memory of the server before and after: {:.0} and {:.0} MiB.\n",
        options.clients,
        Kind::Answer.count(options),
        options.rate,
        options.rounds,
        options.seconds,
        resident_mib[0],
        resident_mib[1]
    )?;
    writeln!(
        report,
        "| slow clients | HTTP/1.1: p99, ms | of none | HTTP/2: p99, ms | of none | server's memory, MiB |\n|---|---|---|---|---|---|"
    )?;
    let none = &figures[0];
    let names =
        std::iter::once("none".to_owned()).chain(KINDS.map(|kind| format!("{kind:?}").to_lowercase()));
    for (name, of) in names.zip(figures) {
        writeln!(
            report,
            "| {name} | {} | {:.2} | {} | {:.2} | {} |",
            spread(&of.p99_ms[0]),
            median_ratio(&of.p99_ms[0], &none.p99_ms[0]),
            spread(&of.p99_ms[1]),
            median_ratio(&of.p99_ms[1], &none.p99_ms[1]),
            spread(&of.resident_mib)
        )?;
    }
    Ok(report)
}

/// A process with slow clients; killed when this is dropped.
struct Neighbours(Child);

impl Neighbours {
    /// Returns when all of them are connected.
    fn start(address: SocketAddr, kind: Kind, options: &Options) -> Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("slow-clients").arg(address.to_string()).arg(format!("{kind:?}").to_lowercase());
        command.arg(kind.count(options).to_string()).stdout(Stdio::piped());
        let mut child = command.spawn().context("cannot start slow clients")?;
        let stdout = child.stdout.take().context("its standard output")?;
        let neighbours = Self(child);
        BufReader::new(stdout).lines().next().context("slow clients ended before they were connected")??;
        Ok(neighbours)
    }
}

impl Drop for Neighbours {
    fn drop(&mut self) {
        // One that has ended already is what we want.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Kind {
    fn count(self, options: &Options) -> usize {
        match self {
            Self::Head | Self::Body => options.clients,
            Self::Answer => options.clients.min(READERS_MOST),
        }
    }
}

impl SlowClients {
    /// Is slow until it is killed; says so when all are connected.
    pub(crate) fn run(&self) -> Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        tokio::task::LocalSet::new().block_on(&runtime, async {
            let connected = Rc::new(Cell::new(0));
            for index in 0..self.count {
                if index % BURST == BURST - 1 {
                    sleep(BURST_PAUSE).await;
                }
                let client =
                    Client { address: self.address, kind: self.kind, connected: Rc::clone(&connected) };
                tokio::task::spawn_local(client.run());
            }
            let since = Instant::now();
            while connected.get() < self.count {
                ensure!(
                    since.elapsed() < CONNECT_TIMEOUT,
                    "{} of {} slow clients could connect (see ulimit -n)",
                    connected.get(),
                    self.count
                );
                sleep(BURST_PAUSE).await;
            }
            println!("connected");
            std::future::pending().await
        })
    }
}

struct Client {
    address: SocketAddr,
    kind: Kind,
    /// Those that were, each once.
    connected: Rc<Cell<usize>>,
}

impl Client {
    /// Whatever ends a connection, the next one is made.
    async fn run(self) {
        let mut is_first = true;
        loop {
            if let Ok(stream) = self.connect().await {
                self.connected.set(self.connected.get() + usize::from(is_first));
                is_first = false;
                // That it is closed is what a slow client has to expect.
                let _ = self.be_slow(stream).await;
            }
            sleep(PAUSE).await;
        }
    }

    async fn connect(&self) -> Result<TcpStream> {
        let socket = TcpSocket::new_v4()?;
        if self.kind == Kind::Answer {
            socket.set_recv_buffer_size(RECEIVE_BYTES)?;
        }
        Ok(socket.connect(self.address).await?)
    }

    async fn be_slow(&self, mut stream: TcpStream) -> Result<()> {
        stream.write_all(self.kind.beginning().as_bytes()).await?;
        let mut byte = [0];
        loop {
            if self.kind == Kind::Answer {
                sleep(PAUSE).await;
                ensure!(stream.read(&mut byte).await? == 1, "closed");
                continue;
            }
            // Nothing is to be read from it before its request is whole, unless it is refused.
            match timeout(PAUSE, stream.read(&mut byte)).await {
                Ok(_) => return Ok(()),
                Err(_) => stream.write_all(self.kind.more().as_bytes()).await?,
            }
        }
    }
}

impl Kind {
    fn beginning(self) -> String {
        match self {
            Self::Head => "GET /hello HTTP/1.1\r\nhost: slow\r\n".to_owned(),
            Self::Body => "POST /hello HTTP/1.1\r\nhost: slow\r\ncontent-length: 10000\r\n\r\n".to_owned(),
            Self::Answer => {
                format!("GET /do/big:{ANSWER_BYTES} HTTP/1.1\r\nhost: unruly\r\n\r\n")
            }
        }
    }

    fn more(self) -> &'static str {
        match self {
            Self::Head => "x-slow: 1\r\n",
            Self::Body | Self::Answer => "x",
        }
    }
}
