//! Beside a hostile worker: what the requests of an honest one lose (R-6, R-10 of the threat model).
//!
//! ```text
//! for each round:   alone   beside a busy process   beside each hostile worker   ...   medians, and ratios round by round
//! ```
//!
//! - A node, an honest worker, and a process that attaches as a worker of another service and attacks. It comes back as
//!   often as it is let go.
//! - An attacker takes a processor like any busy process as long as it is attached; what it harms beyond that is the ratio to a
//!   process that is as busy and attached to nothing. One that was let go waits for the DPA, and takes nothing meanwhile.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};
use cellmesh_shm::attach::{Channel, Hello, Role};
use cellmesh_shm::frame::RingName;
use cellmesh_shm::peer::{AttachError, Hostile, attach, has_ended};
use clap::{Args, ValueEnum};

use crate::load::Load;
use crate::machine;
use crate::process::{Server, cellmesh, cells};
use crate::turns::{Series, median_ratio, quantile, spread};

/// How long and how often.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Rounds; in each of them every neighbour has one turn.
    #[arg(long, default_value_t = 7)]
    rounds: usize,
    /// Seconds of a turn.
    #[arg(long, default_value_t = 2)]
    seconds: u64,
    /// Keep-alive connections.
    #[arg(long, default_value_t = 16)]
    connections: usize,
}

/// A hostile worker.
#[derive(Debug, Args)]
pub(crate) struct HostilePeer {
    socket: PathBuf,
    attack: Attack,
}

/// What runs beside the honest worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Attack {
    /// Attached to nothing.
    Busy,
    /// Writes random words all over its segment.
    Scribble,
    /// Writes random frames behind a tail that can be.
    Forge,
    /// Rings its bell as fast as it can.
    Flood,
    /// Publishes again and again, so that there is always something to look at.
    Publish,
}

const ATTACKS: [Attack; 5] = [Attack::Busy, Attack::Scribble, Attack::Forge, Attack::Flood, Attack::Publish];

/// Served by the attacker; nobody asks for it.
const SPARE: &str = "spare";

/// Between two tries to attach of one that was let go: a worker that does not wait is refused by the kernel's queue.
const PAUSE: Duration = Duration::from_millis(1);

/// One neighbour's figures, one of each per round.
#[derive(Debug, Default)]
struct Figures {
    requests_per_s: Series,
    p99_ms: Series,
}

/// Runs everything; returns the report, in Markdown.
pub(crate) fn run(options: &Options) -> Result<String> {
    let server = serving()?;
    let socket = server.socket().context("a split node")?;
    let mut figures: Vec<Figures> = (0..=ATTACKS.len()).map(|_| Figures::default()).collect();
    for round in 0..=options.rounds {
        for turn in 0..figures.len() {
            let index = (round + turn) % figures.len();
            let attack = index.checked_sub(1).map(|index| ATTACKS[index]);
            let (rate, p99) = measure(&server, socket, attack, options)?;
            // The first round warms up.
            if round > 0 {
                figures[index].requests_per_s.push(rate);
                figures[index].p99_ms.push(p99);
            }
        }
    }
    report(options, &figures)
}

fn serving() -> Result<Server> {
    let component = cells()?.join("hello.wasm");
    let app = format!("[[cell]]\ncomponent = {component:?}\nservices = [\"hello\", {SPARE:?}]\n");
    let server = Server::cellmesh_split(&cellmesh()?, "app.toml", &app, &["hello"])?;
    server.until_ready("/hello")?;
    Ok(server)
}

/// Requests per second and p99 in ms of one turn. A request that is not answered 200 ends the benchmark.
fn measure(server: &Server, socket: &Path, attack: Option<Attack>, options: &Options) -> Result<(f64, f64)> {
    let _neighbour = attack.map(|attack| Neighbour::start(socket, attack)).transpose()?;
    let time = Duration::from_secs(options.seconds);
    let load = Load { address: server.address(), path: "/hello", connections: options.connections, time };
    let done = load.run()?;
    let rate = done.latencies_us.len() as f64 / done.time.as_secs_f64();
    Ok((rate, quantile(&done.latencies_us, 0.99) / 1e3))
}

fn report(options: &Options, figures: &[Figures]) -> Result<String> {
    let mut report = String::new();
    writeln!(report, "# Beside a hostile worker\n\n{}\n", machine::describe())?;
    writeln!(
        report,
        "`cellmesh node` and an honest worker, {} connections, {} rounds of {} s; medians, and in brackets the smallest and \
         the largest round. All requests were answered.\n",
        options.connections, options.rounds, options.seconds
    )?;
    writeln!(
        report,
        "| neighbour | requests/s | p99, ms | requests/s of none | p99 of none | requests/s of busy | p99 of busy |"
    )?;
    writeln!(report, "|---|---|---|---|---|---|---|")?;
    let (none, busy) = (&figures[0], &figures[1]);
    let names =
        std::iter::once("none".to_owned()).chain(ATTACKS.map(|attack| format!("{attack:?}").to_lowercase()));
    for (name, of) in names.zip(figures) {
        writeln!(
            report,
            "| {name} | {} | {} | {:.2} | {:.2} | {:.2} | {:.2} |",
            spread(&of.requests_per_s),
            spread(&of.p99_ms),
            median_ratio(&of.requests_per_s, &none.requests_per_s),
            median_ratio(&of.p99_ms, &none.p99_ms),
            median_ratio(&of.requests_per_s, &busy.requests_per_s),
            median_ratio(&of.p99_ms, &busy.p99_ms)
        )?;
    }
    Ok(report)
}

/// A process that attacks; killed when this is dropped.
struct Neighbour(Child);

impl Neighbour {
    fn start(socket: &Path, attack: Attack) -> Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        let name = format!("{attack:?}").to_lowercase();
        command.arg("hostile-peer").arg(socket).arg(name).stdout(Stdio::null());
        Ok(Self(command.spawn().context("cannot start a neighbour")?))
    }
}

impl Drop for Neighbour {
    fn drop(&mut self) {
        // One that has ended already is what we want.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl HostilePeer {
    /// Attacks until it is killed.
    pub(crate) fn attack(&self) -> Result<()> {
        let mut random = fastrand::Rng::with_seed(6);
        if self.attack == Attack::Busy {
            loop {
                std::hint::black_box(random.u64(..));
            }
        }
        loop {
            match self.attach() {
                Ok((channel, mut hostile)) => {
                    while !has_ended(&channel) {
                        self.attack.once(&mut hostile, &mut random);
                    }
                    std::thread::sleep(PAUSE);
                }
                // It broke a rule and has to wait; it does not.
                Err(AttachError::Refused { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn attach(&self) -> Result<(Channel, Hostile), AttachError> {
        let hello = Hello {
            name: "hostile".into(),
            role: Role::Worker,
            services: vec![SPARE.into()],
            lanes: 1,
            profile: None,
        };
        let (channel, attached) = attach(&self.socket, &hello)?;
        let link = attached.links.into_iter().next().expect("one lane was asked for");
        Ok((channel, Hostile::open(link).expect("segments of the DPA")))
    }
}

impl Attack {
    /// A burst, between two looks at whether the DPA has let it go.
    fn once(self, hostile: &mut Hostile, random: &mut fastrand::Rng) {
        const BURST: usize = 1000;
        let scratch = hostile.scratch();
        match self {
            Self::Busy => {}
            Self::Scribble => {
                (0..BURST).for_each(|_| scratch.store(random.usize(..scratch.words()), random.u64(..)));
            }
            Self::Forge => {
                let frames = scratch.frame_word(RingName::Small, 0);
                for _ in 0..BURST {
                    scratch.store(frames + random.usize(..scratch.words() - frames), random.u64(..));
                }
                scratch.store(scratch.tail_word(RingName::Small), 64 * random.u64(1..=16));
                hostile.ring();
            }
            Self::Flood => (0..BURST).for_each(|_| hostile.ring()),
            Self::Publish => {
                let tail = scratch.tail_word(RingName::Small);
                (0..BURST).for_each(|_| scratch.store(tail, scratch.load(tail)));
                // As one that has made room: it rings who waits for that.
                hostile.link.tx.publish(true);
            }
        }
    }
}
