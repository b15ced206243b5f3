//! A soak (S-1 of the threat model): minutes at a share of what the machine can do, of mixed requests of which one in a hundred
//! fails; what grows, and what becomes slower.
//!
//! ```text
//! capacity (less and less, until it is kept up with) --> minute 1, 2, ... n, each: mixed open loops, then a look
//! ```
//!
//! - The mix: a cell that answers at once, one that calls two others side by side, one that answers 20 KB, and one that traps.
//! - The last minute is compared with the second: the first warms up.
//! - The search overloads the server that is looked at afterwards. So what a peak takes and is kept (instances, and the mappings of
//!   their memories) is there from the start, and a pause of the machine in some minute does not look like a leak.

use std::fmt::Write as _;
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail, ensure};
use clap::Args;

use crate::machine;
use crate::open_load::{Latency, OpenLoad};
use crate::process::{Server, cellmesh, cells};

/// How long and how hard.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Minutes, at least three.
    #[arg(long, default_value_t = 10)]
    minutes: usize,
    /// Share of the capacity that is offered.
    #[arg(long, default_value_t = 0.7)]
    share: f64,
    /// Seconds of a minute, for a try.
    #[arg(long, default_value_t = 60)]
    seconds: u64,
}

/// Path and share of all requests.
const MIX: [(&str, f64); 3] =
    [("/hello", 0.70), ("/pipe?url=http://hello/&url=http://hello/", 0.20), ("/do/big:20000", 0.09)];
/// These fail: each is answered 500, and costs its instance.
const FAULT: (&str, f64) = ("/do/trap", 0.01);

/// Seconds of each step of the search for the capacity, what is offered first, and how much less each time.
const PROBE_SECONDS: u64 = 5;
const PROBE_RATE: f64 = 40_000.0;
const LESS: f64 = 0.85;
/// Slower than this at the 99th percentile: the rate is beyond the capacity.
const KEPT_UP_MS: f64 = 50.0;

/// How often and how far apart it is asked whether all clients have left.
const LEFT_TRIES: usize = 50;
const LEFT_PAUSE: Duration = Duration::from_millis(200);

/// What a look at the server finds.
struct Minute {
    latency: Latency,
    resident_bytes: u64,
    descriptors: usize,
    threads: usize,
    mappings: usize,
}

/// Runs everything; returns the report, in Markdown.
pub(crate) fn run(options: &Options) -> Result<String> {
    ensure!(options.minutes >= 3, "--minutes: at least three");
    let server = serving()?;
    let capacity = capacity(&server)?;
    let failed_before = failed(&server)?;
    let rate = capacity * options.share;
    let minutes: Vec<Minute> =
        (0..options.minutes).map(|_| minute(&server, rate, options.seconds)).collect::<Result<_>>()?;
    let [failed, trapped] = failed(&server)?;
    let [failed, trapped] = [failed - failed_before[0], trapped - failed_before[1]];
    ensure!(failed == trapped, "{failed} answers of 5xx, but {trapped} traps");
    report(options, capacity, rate, trapped, &minutes)
}

/// Answers of 5xx so far, and traps.
fn failed(server: &Server) -> Result<[u64; 2]> {
    let failed = server.metric("cellmesh_cell_responses_total{service=\"unruly\",code=\"5xx\"}")?;
    let trapped = server.metric("cellmesh_cell_faults_total{service=\"unruly\",kind=\"trap\"}")?;
    Ok([failed, trapped])
}

/// The highest rate of the mix, of those tried, that the server keeps up with, in requests per second.
fn capacity(server: &Server) -> Result<f64> {
    let mut rate = PROBE_RATE;
    while rate > PROBE_RATE / 1000.0 {
        // Too many are asked where some are not answered in time, too.
        match minute(server, rate, PROBE_SECONDS) {
            Ok(minute) if minute.latency.p99 <= KEPT_UP_MS => return Ok(rate),
            Ok(_) | Err(_) => rate *= LESS,
        }
    }
    bail!("the server keeps up with no rate")
}

fn serving() -> Result<Server> {
    let folder = cells()?;
    let admin = crate::process::free_address()?;
    let app = format!(
        "entry = \"unruly\"\n[admin]\nlisten = \"{admin}\"\n[[cell]]\ncomponent = {:?}\nservices = [\"hello\"]\n\
         [[cell]]\ncomponent = {:?}\nservices = [\"unruly\"]\n",
        folder.join("hello.wasm"),
        folder.join("unruly.wasm")
    );
    let server = Server::cellmesh(&cellmesh()?, "app.toml", &app)?.with_admin(admin);
    server.until_ready("/hello")?;
    Ok(server)
}

/// All loads of the mix at once. Those that must not fail end the benchmark when they do.
fn minute(server: &Server, rate: f64, seconds: u64) -> Result<Minute> {
    let address = server.address();
    let start = |(path, share): (&'static str, f64)| -> JoinHandle<Result<Latency>> {
        let (rate, protocol) = (rate * share, "http1");
        std::thread::spawn(move || OpenLoad { address, path, rate, seconds, protocol }.run())
    };
    let loads = MIX.map(start);
    let fault = OpenLoad { address, path: FAULT.0, rate: rate * FAULT.1, seconds, protocol: "http1" };
    let failing = std::thread::spawn(move || fault.run_failing());
    // All of them end before the next begin.
    let ended: Vec<_> = loads.into_iter().map(JoinHandle::join).collect();
    failing.join().map_err(|_| anyhow!("a load panicked"))??;
    let mut latencies = Vec::new();
    for load in ended {
        latencies.push(load.map_err(|_| anyhow!("a load panicked"))??);
    }
    until_left(server)?;
    Ok(Minute {
        latency: *latencies.first().context("the mix is not empty")?,
        resident_bytes: server.resident_bytes()?,
        descriptors: server.count_of("fd")?,
        threads: server.count_of("task")?,
        mappings: server.mappings()?,
    })
}

/// Waits until no connection of the load is left: the server sees their ends a little later than the load does.
fn until_left(server: &Server) -> Result<()> {
    for _ in 0..LEFT_TRIES {
        let open = server.metric("cellmesh_connections_open")?;
        // Also of the connection that asks.
        std::thread::sleep(LEFT_PAUSE);
        if open == 0 {
            return Ok(());
        }
    }
    bail!("the server keeps connections whose clients have left")
}

fn report(options: &Options, capacity: f64, rate: f64, faults: u64, minutes: &[Minute]) -> Result<String> {
    let mut report = String::new();
    writeln!(report, "# Soak\n\n{}\n", machine::describe())?;
    writeln!(
        report,
        "`cellmesh run`, {} minutes of {} s. Capacity {capacity:.0} requests/s of the mix (p99 within {KEPT_UP_MS} ms); offered {rate:.0}. All were answered 200 but \
         {faults} that trapped, as asked, and got 500. Latencies are those of the cheapest kind.\n",
        options.minutes, options.seconds
    )?;
    writeln!(
        report,
        "| minute | p50, ms | p99, ms | resident, MiB | descriptors | threads | mappings |\n|---|---|---|---|---|---|---|"
    )?;
    for (index, minute) in minutes.iter().enumerate() {
        let Minute { latency, resident_bytes, descriptors, threads, mappings } = minute;
        let mib = *resident_bytes as f64 / f64::from(1 << 20);
        let (p50, p99) = (latency.p50, latency.p99);
        writeln!(
            report,
            "| {} | {p50:.2} | {p99:.2} | {mib:.1} | {descriptors} | {threads} | {mappings} |",
            index + 1
        )?;
    }
    writeln!(report, "\n| from the second minute on | goal | found | reached |\n|---|---|---|---|")?;
    for Criterion { what, goal, found, is_reached } in criteria(minutes) {
        writeln!(report, "| {what} | {goal} | {found} | {} |", if is_reached { "yes" } else { "no" })?;
    }
    Ok(report)
}

/// Most that the last minute may have of what the second had. Source: S-1.
const MEMORY_MOST: f64 = 1.02;
const P99_MOST: f64 = 1.1;

/// One of those that a soak is held to; that all requests are answered as they should be ends it when it does not hold.
#[derive(Debug, PartialEq)]
struct Criterion {
    what: &'static str,
    goal: String,
    found: String,
    is_reached: bool,
}

/// Those of S-1, from the second minute on. `minutes`: at least two.
fn criteria(minutes: &[Minute]) -> Vec<Criterion> {
    let (second, last) = (&minutes[1], &minutes[minutes.len() - 1]);
    let at_most = |what, most: f64, now: f64, before: f64| {
        let goal = format!("last at most {most} of second");
        Criterion { what, goal, found: format!("{:.3}", now / before), is_reached: now <= before * most }
    };
    let constant = |what, count: fn(&Minute) -> usize| {
        let counts = || minutes[1..].iter().map(count);
        let (least, most) = (counts().min().unwrap_or_default(), counts().max().unwrap_or_default());
        let found = if least == most { least.to_string() } else { format!("{least} to {most}") };
        Criterion { what, goal: "constant".to_owned(), found, is_reached: least == most }
    };
    let (resident, resident_before) = (last.resident_bytes as f64, second.resident_bytes as f64);
    vec![
        at_most("resident memory", MEMORY_MOST, resident, resident_before),
        at_most("p99", P99_MOST, last.latency.p99, second.latency.p99),
        constant("descriptors", |minute| minute.descriptors),
        constant("threads", |minute| minute.threads),
        constant("mappings", |minute| minute.mappings),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A minute with this p99, so much memory, and so many of what is to be constant.
    fn minute(p99: f64, resident_bytes: u64, [descriptors, threads, mappings]: [usize; 3]) -> Minute {
        let latency = Latency { p50: 0.0, p99 };
        Minute { latency, resident_bytes, descriptors, threads, mappings }
    }

    /// What the first minute was like says nothing; what is constant is so in every one behind it.
    #[test]
    fn criteria_are_of_the_second_minute_and_later() {
        let first = minute(99.0, 1, [1, 1, 1]);
        let reached = |minutes: Vec<Minute>| -> Vec<bool> {
            let minutes: Vec<Minute> = std::iter::once(minute(99.0, 1, [1, 1, 1])).chain(minutes).collect();
            criteria(&minutes).iter().map(|criterion| criterion.is_reached).collect()
        };
        let second = || minute(1.0, 1000, [53, 11, 436]);
        assert_eq!(reached(vec![second(), second()]), [true; 5]);
        assert_eq!(reached(vec![second(), minute(1.1, 1020, [53, 11, 436])]), [true; 5]);
        assert_eq!(
            reached(vec![second(), minute(1.2, 1021, [53, 11, 436])]),
            [false, false, true, true, true]
        );
        let between = minute(9.0, 9000, [54, 12, 437]);
        assert_eq!(reached(vec![second(), between, second()]), [true, true, false, false, false]);
        let found = criteria(&[first, second(), minute(2.0, 1032, [56, 11, 436])]);
        assert_eq!(found[0].found, "1.032");
        assert_eq!((&*found[2].found, &*found[3].found), ("53 to 56", "11"));
    }
}
