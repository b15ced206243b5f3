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
//! - Answers, errors and timeouts are counted apart; only answers are in the latencies. Every request has the same time,
//!   whenever in the schedule it is due, and the load ends when the last has ended.

mod client;
mod interrupt;
mod options;
mod pacer;
mod report;
mod search;
mod step;
mod tally;
mod target;

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, anyhow, bail};

pub use options::{Options, Protocol};

use crate::inspect::say;
use interrupt::Interrupt;
use search::{Search, Verdict};
use step::Step;
use target::Target;

/// Asks, and prints the figures. After SIGINT or SIGTERM the process ends here, with 128 and the signal's number as its
/// status: those of what there was until then.
///
/// # Errors
/// When the options make no sense, the server cannot be reached at all, nothing is answered, or a file cannot be written.
pub fn run(options: &Options) -> Result<()> {
    let interrupt = Interrupt::heard().context("cannot wait for signals")?;
    let ended = asked(options, &interrupt);
    let Some(signal) = interrupt.signal() else { return ended };
    if let Err(error) = ended {
        eprintln!("cellmesh: {error:#}");
    }
    std::process::exit(signal.exit_status());
}

fn asked(options: &Options, interrupt: &Interrupt) -> Result<()> {
    options.check()?;
    let target = Arc::new(Target::of(options)?);
    let files = Files::create(options)?;
    let step = if options.search {
        search(options, &target, interrupt)?
    } else {
        step::run(options, &target, options.rate, interrupt)?
    };
    say(&report::text(options, &step.tally))?;
    files.write(options, &step)?;
    if step.tally.answered == 0 {
        bail!("nothing was answered: {} due, {}", step.tally.offered, report::failures(&step.tally));
    }
    Ok(())
}

/// Where the figures go. Made before anything is sent: nobody waits for a run whose figures are lost.
struct Files {
    json: Option<File>,
    hdr_log: Option<File>,
}

impl Files {
    fn create(options: &Options) -> Result<Self> {
        let create = |path: &Option<std::path::PathBuf>| path.as_deref().map(create).transpose();
        Ok(Self { json: create(&options.json)?, hdr_log: create(&options.hdr_log)? })
    }

    fn write(self, options: &Options, step: &Step) -> Result<()> {
        if let Some(mut file) = self.json {
            file.write_all(report::json(options, &step.tally).as_bytes()).context("cannot write --json")?;
        }
        self.hdr_log.map_or(Ok(()), |file| report::hdr_log(file, step))
    }
}

fn create(path: &Path) -> Result<File> {
    File::create(path).with_context(|| format!("cannot write {}", path.display()))
}

/// Runs step after step until the highest clean rate is known, or a signal comes; the best step's figures.
fn search(options: &Options, target: &Arc<Target>, interrupt: &Interrupt) -> Result<Step> {
    let mut search = Search::from(options.rate);
    let (mut best, mut last) = (None, None);
    while let Some(rate) = search.next_rate(options.duration.0) {
        let step = step::run(options, target, rate, interrupt);
        if interrupt.signal().is_some() {
            break;
        }
        let step = match step {
            Ok(step) => step,
            // A server that was there, and takes no connections now, is not clean at this rate.
            Err(error) if best.is_some() => {
                eprintln!("{}/s: cannot begin: {error:#}", report::per_s(rate));
                search.tell(false);
                continue;
            }
            Err(error) => return Err(error),
        };
        let verdict = step.tally.verdict(options.p99_max.0);
        let said = format!(
            "{}/s: {verdict}, {} answers/s, p99 {} ms",
            report::per_s(rate),
            report::per_s(step.tally.achieved_per_s()),
            report::ms(step.tally.quantile_ms(0.99)),
        );
        eprintln!("{said}");
        search.tell(verdict == Verdict::Clean);
        if verdict == Verdict::Clean {
            best = Some(step);
        } else {
            last = Some(format!("{said}, {}", report::failures(&step.tally)));
        }
    }
    let mut best: Step = match (best, interrupt.signal()) {
        (Some(best), _) => best,
        (None, Some(signal)) => bail!("{signal} before any step was clean"),
        (None, None) => return Err(anyhow!("no rate was clean; the last: {}", last.unwrap_or_default())),
    };
    best.tally.cut_short = interrupt.signal();
    Ok(best)
}
