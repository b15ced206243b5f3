//! `cellmesh load`: requests at a constant rate, and how long each took from when it *should* have been sent.
//!
//! ```text
//! pacer (thread): slot 0, 1, 2, ... at its time --> due --> clients: send, wait, count --> tally --> report
//! ```
//!
//! - Open loop: a request is due when its time has come, whether or not earlier ones are answered. What waits for a
//!   free connection waits on the clock: a server that stands still is seen by everybody who would have asked meanwhile
//!   (no coordinated omission).
//! - Each thread has its share of rate and connections and shares nothing with the others but the start.
//! - Answers, errors and timeouts are counted apart; only answers are in the latencies.

mod client;
mod pacer;
mod report;
mod search;
mod tally;

use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use cellmesh_dpu::units::TimeSpan;
use clap::{Args, ValueEnum};
use tokio::task::LocalSet;

use client::{Client, Target};
use pacer::{Due, Pacer};
use search::{Search, Verdict};
use tally::Tally;

/// Most requests per second that one can ask for.
const RATE_MAX: f64 = 10_000_000.0;

/// What is sent, how fast, and where the figures go.
#[derive(Debug, Clone, Args)]
pub struct Options {
    /// What to ask: http://host:port/path.
    pub url: String,
    /// Requests per second; of a search, the rate that it starts at.
    #[arg(long, short, default_value_t = 1000.0)]
    pub rate: f64,
    /// For how long; of a search, each of its steps.
    #[arg(long, short, default_value = "10s")]
    pub duration: TimeSpan,
    /// Requests in flight at once, each on a connection of its own (HTTP/2: a stream).
    #[arg(long, short, default_value_t = 64)]
    pub connections: usize,
    /// How to ask.
    #[arg(long, value_enum, default_value_t = Protocol::Http1)]
    pub protocol: Protocol,
    /// Longest wait for an answer.
    #[arg(long, default_value = "5s")]
    pub timeout: TimeSpan,
    /// Threads that ask; each takes its share of the rate and of the connections.
    #[arg(long, default_value_t = 1)]
    pub threads: usize,
    /// Method.
    #[arg(long, default_value = "GET")]
    pub method: String,
    /// A header line, `name: value`; may be given several times.
    #[arg(long = "header", short = 'H', value_name = "LINE")]
    pub headers: Vec<String>,
    /// Body.
    #[arg(long, default_value = "")]
    pub body: String,
    /// Finds the highest rate at which nothing fails, 98 of 100 requests are sent in time, and p99 is within --p99-max.
    #[arg(long)]
    pub search: bool,
    /// What a search takes for too slow.
    #[arg(long, default_value = "100ms")]
    pub p99_max: TimeSpan,
    /// Writes the figures to this file as JSON.
    #[arg(long)]
    pub json: Option<PathBuf>,
    /// Writes the latencies to this file as an HdrHistogram log.
    #[arg(long)]
    pub hdr_log: Option<PathBuf>,
}

/// How a request is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Protocol {
    /// HTTP/1.1, keep-alive.
    Http1,
    /// HTTP/2 without TLS, up to 100 streams on a connection.
    Http2,
    /// The JSON bridge: one object on a connection of its own.
    Bridge,
}

/// Asks, and prints the figures.
///
/// # Errors
/// When the options make no sense, the server cannot be reached at all, or a file cannot be written.
pub fn run(options: &Options) -> Result<()> {
    check(options)?;
    let target = Arc::new(Target::of(options)?);
    let tally =
        if options.search { search(options, &target)? } else { step(options, &target, options.rate)? };
    print!("{}", report::text(options, &tally));
    if let Some(path) = &options.json {
        std::fs::write(path, report::json(options, &tally))
            .with_context(|| format!("cannot write {}", path.display()))?;
    }
    if let Some(path) = &options.hdr_log {
        let file = std::fs::File::create(path).with_context(|| format!("cannot write {}", path.display()))?;
        report::hdr_log(file, &tally)?;
    }
    Ok(())
}

fn check(options: &Options) -> Result<()> {
    if !(options.rate > 0.0 && options.rate <= RATE_MAX) {
        bail!("--rate {}: must be more than 0 and at most {RATE_MAX}", options.rate);
    }
    if options.threads == 0 || options.connections < options.threads {
        bail!("--connections {}: must be at least --threads ({})", options.connections, options.threads);
    }
    if options.duration.0.is_zero() || options.timeout.0.is_zero() {
        bail!("--duration and --timeout must be more than 0");
    }
    Ok(())
}

/// Runs step after step until the highest clean rate is known; that step's figures.
fn search(options: &Options, target: &Arc<Target>) -> Result<Tally> {
    let mut search = Search::from(options.rate);
    let mut best = None;
    while let Some(rate) = search.next_rate() {
        let tally = step(options, target, rate)?;
        let verdict = tally.verdict(options.p99_max.0);
        eprintln!("{rate:.0}/s: {verdict}, p99 {:.3} ms", tally.quantile_ms(0.99));
        search.tell(verdict == Verdict::Clean);
        if verdict == Verdict::Clean {
            best = Some(tally);
        }
    }
    best.with_context(|| format!("not even {:.0} requests per second were clean", search.least()))
}

/// One constant rate.
fn step(options: &Options, target: &Arc<Target>, rate: f64) -> Result<Tally> {
    let start = Instant::now() + START_DELAY;
    let threads: Vec<_> = (0..options.threads)
        .map(|index| {
            let (target, share) = (Arc::clone(target), Share::of(options, rate, index));
            std::thread::spawn(move || share.run(&target, start))
        })
        .collect();
    let mut sum = Tally::new(rate, options.duration.0);
    for thread in threads {
        sum += thread.join().expect("a load thread does not panic")?;
    }
    Ok(sum)
}

/// From the order to the first request: connections are made meanwhile.
const START_DELAY: Duration = Duration::from_millis(200);

/// One thread's part.
#[derive(Debug, Clone, Copy)]
struct Share {
    rate: f64,
    connections: usize,
    duration: Duration,
    timeout: Duration,
    shows_progress: bool,
}

impl Share {
    fn of(options: &Options, rate: f64, index: usize) -> Self {
        let more = usize::from(index < options.connections % options.threads);
        Self {
            #[expect(clippy::cast_precision_loss, reason = "a number of threads")]
            rate: rate / options.threads as f64,
            connections: options.connections / options.threads + more,
            duration: options.duration.0,
            timeout: options.timeout.0,
            shows_progress: index == 0 && !options.search,
        }
    }

    fn run(self, target: &Arc<Target>, start: Instant) -> Result<Tally> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        LocalSet::new().block_on(&runtime, self.ask(target, start))
    }

    async fn ask(self, target: &Arc<Target>, start: Instant) -> Result<Tally> {
        let due = Arc::new(Due::default());
        let tally = Rc::new(std::cell::RefCell::new(Tally::new(self.rate, self.duration)));
        let mut clients = tokio::task::JoinSet::new();
        for client in Client::connect(target, self.connections).await? {
            clients.spawn_local(client.run(Arc::clone(&due), Rc::clone(&tally), self.timeout));
        }
        let pacer = Pacer::start(Arc::clone(&due), start, self.rate, self.duration)?;
        let ended = tokio::time::timeout_at((start + self.duration + self.timeout).into(), async {
            while clients.join_next().await.is_some() {}
        });
        tokio::select! {
            // What is not answered by now has waited longer than anybody would.
            _ = ended => {}
            () = report::progress(&tally, start), if self.shows_progress => {}
        }
        clients.abort_all();
        while clients.join_next().await.is_some() {}
        let scheduled = pacer.end();
        let mut tally = Rc::into_inner(tally).expect("all clients have ended").into_inner();
        tally.scheduled(scheduled);
        Ok(tally)
    }
}
