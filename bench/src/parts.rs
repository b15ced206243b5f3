//! Parts of the runtime, each by itself: the graph engine, one call of a cell, a fresh instance, a load from the cache.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use cellmesh::host::{
    ArtifactCache, CallFlags, Cell, CellLimits, CellSetup, CompileLimits, Compiler, Decision, EngineLimits,
    Grants, GuestCall, GuestReturn, HostEngine, Instance, Ticker,
};
use cellmesh_graph::{Action, Engine, FunctionCall, Limits, Node, Plan, Span, StepResult, Work};
use cellmesh_shm::clock::Nanos;
use clap::Args;

use crate::machine;
use crate::turns::{Rounds, Series, spread, take_turns};

/// How often, and where cells and the program are.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Rounds.
    #[arg(long, default_value_t = 15)]
    rounds: usize,
    /// Folder of the compiled cells.
    #[arg(long, env = "CELLMESH_CELLS")]
    cells: PathBuf,
    /// The program, which compiles cells.
    #[arg(long, env = "CELLMESH_BIN")]
    program: PathBuf,
}

/// Steps of a graph.
const STEPS: [u32; 5] = [10, 100, 1000, 10_000, 100_000];

/// Steps of one turn, whatever the size of the graphs.
const STEPS_PER_TURN: u32 = 200_000;

const CALLS_PER_TURN: u32 = 5000;
const STARTS_PER_TURN: u32 = 1000;

/// Runs everything; returns the report, in Markdown.
pub(crate) fn run(options: &Options) -> Result<String> {
    let mut report = String::new();
    writeln!(report, "# Parts\n\n{}\n", machine::describe())?;
    writeln!(report, "{} rounds; medians, and in brackets the least and the most.\n", options.rounds)?;
    graph_engine(&mut report, options)?;
    cells(&mut report, options)?;
    Ok(report)
}

/// Graphs of internal steps, one after the other and all at the same time: from the plan to the response.
fn graph_engine(report: &mut String, options: &Options) -> Result<()> {
    writeln!(report, "## Graph engine, validation included, ns per step\n")?;
    writeln!(report, "| steps | order | pipe |\n|---|---|---|")?;
    for steps in STEPS {
        let limits = Limits { nodes_max: 1 << 20, ..Limits::default() };
        let rounds = Rounds { rounds: options.rounds, calls_per_turn: (STEPS_PER_TURN / steps).max(1) };
        let (order, pipe) = (plan(steps, Work::Order), plan(steps, Work::Pipe));
        let mut in_order = || run_graph(&order, &limits, steps);
        let mut at_once = || run_graph(&pipe, &limits, steps);
        let series = take_turns(rounds, &mut [&mut in_order, &mut at_once])?;
        let per_step =
            |series: &Series| spread(&series.iter().map(|ns| ns / f64::from(steps)).collect::<Series>());
        writeln!(report, "| {steps} | {} | {} |", per_step(&series[0]), per_step(&series[1]))?;
    }
    writeln!(report)?;
    Ok(())
}

fn plan(steps: u32, parent: fn(Span) -> Work) -> Plan {
    const ID_BYTES: u32 = 8;
    let mut arena = Vec::new();
    let mut nodes = Vec::new();
    for step in 0..steps {
        arena.extend_from_slice(format!("{step:08}").as_bytes());
        let work = Work::Internal(FunctionCall { function: 1, args: Span::default() });
        let id = Span { start: step * ID_BYTES, len: ID_BYTES };
        nodes.push(Node { id, work, inputs: Span::default(), tolerant: false });
    }
    let id = Span { start: steps * ID_BYTES, len: 4 };
    arena.extend_from_slice(b"root");
    let work = parent(Span { start: 0, len: steps });
    nodes.push(Node { id, work, inputs: Span::default(), tolerant: false });
    Plan { nodes, children: (0..steps).collect(), root: steps, arena: arena.into(), ..Plan::default() }
}

fn run_graph(plan: &Plan, limits: &Limits, steps: u32) -> Result<()> {
    let mut engine = Engine::start(plan.clone().validate(limits)?);
    let mut started = Vec::new();
    let mut ran = 0;
    loop {
        match engine.next_action() {
            Some(Action::RunStep { step, .. } | Action::Prepared { step, .. }) => started.push(step),
            Some(Action::Done(response)) => {
                ensure!(ran == steps && response.result.status == 200, "{ran} steps of {steps}");
                return Ok(());
            }
            Some(other) => bail!("{other:?} in a graph of internal steps"),
            None => {
                for step in started.drain(..) {
                    engine.on_result(step, StepResult::ok(Bytes::new(), Bytes::new()))?;
                    ran += 1;
                }
            }
        }
    }
}

/// The hello cell: called on an instance that is there, on a new one each time, and loaded from the cache.
fn cells(report: &mut String, options: &Options) -> Result<()> {
    let dir = tempfile::tempdir()?;
    let compiler = Compiler::new(options.program.clone(), CompileLimits::default());
    // A folder of its own: the cache makes it as private as it has to be.
    let cache = ArtifactCache::open(&dir.path().join("artifacts"), compiler)?;
    let limits = EngineLimits { instances_max: 8, memory_bytes_max: CellLimits::default().memory_bytes_max };
    let pulse = Arc::default();
    let engines = [HostEngine::serving(limits, Some(cache.for_engine()?), &pulse)?];
    let _ticker = Ticker::start(&engines, &pulse, Duration::from_millis(2))?;
    let component = options.cells.join("hello.wasm");
    let load = |fresh| Cell::load(&engines, &cache, setup(&component, fresh))?.pop().context("one engine");
    let (reused, fresh) = (load(false)?, load(true)?);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let _guard = runtime.enter();
    let mut caller = Caller { instance: None };
    let rounds = |calls_per_turn| Rounds { rounds: options.rounds, calls_per_turn };
    let mut call = || caller.call(&runtime, &reused);
    let warm = take_turns(rounds(CALLS_PER_TURN), &mut [&mut call])?.remove(0);
    let mut starter = Caller { instance: None };
    let mut start = || starter.call(&runtime, &fresh);
    let cold = take_turns(rounds(STARTS_PER_TURN), &mut [&mut start])?.remove(0);
    let loads: Series = (0..options.rounds)
        .map(|_| {
            // An engine that has loaded nothing yet.
            let engine = [HostEngine::serving(limits, Some(cache.for_engine()?), &pulse)?];
            let begin = Instant::now();
            let cells = Cell::load(&engine, &cache, setup(&component, false))?;
            let took = begin.elapsed().as_secs_f64() * 1e6;
            ensure!(!cells.iter().any(Cell::was_compiled), "it was in the cache");
            Ok(took)
        })
        .collect::<Result<_>>()?;
    writeln!(report, "## The hello cell\n\n| what | time |\n|---|---|")?;
    writeln!(report, "| a request, instance reused | {} ns |", spread(&warm))?;
    writeln!(report, "| a request, fresh instance | {} ns |", spread(&cold))?;
    writeln!(
        report,
        "| load from the cache, its file read and its hash checked | {} us |\n",
        spread(&loads)
    )?;
    Ok(())
}

fn setup(component: &Path, fresh_instances: bool) -> CellSetup {
    CellSetup {
        service: "hello".into(),
        component: component.into(),
        config: BTreeMap::new(),
        grants: Grants::default(),
        egress_allow: Vec::new(),
        limits: CellLimits::default(),
        fresh_instances,
    }
}

struct Caller {
    instance: Option<Instance>,
}

impl Caller {
    fn call(&mut self, runtime: &tokio::runtime::Runtime, cell: &Cell) -> Result<()> {
        const HEAD: &[u8] = b"GET/host: hello\naccept: */*\nx-request-id: 1234567890abcdef\n";
        let call = GuestCall::Handle {
            arena: Bytes::from_static(HEAD),
            method_len: 3,
            target_len: 1,
            headers_len: u32::try_from(HEAD.len()).context("a short head")? - 4,
        };
        let flags = self
            .instance
            .as_ref()
            .map_or_else(Arc::<CallFlags>::default, |instance| Arc::clone(instance.flags()));
        cell.pulse().beat();
        let called = cell.call(self.instance.take(), &flags, call, Bytes::new(), Nanos::MAX);
        let (instance, result) = runtime.block_on(called);
        self.instance = instance;
        match result? {
            GuestReturn::Handled(Decision::Response(response)) if response.status == 200 => Ok(()),
            other @ (GuestReturn::Handled(_) | GuestReturn::Stepped(_) | GuestReturn::Built(_)) => {
                bail!("{other:?} is no answer with 200")
            }
        }
    }
}
