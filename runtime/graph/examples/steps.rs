//! What a step of a graph costs: `cargo run --release -p cellmesh-graph --example steps`.
//!
//! Prints nanoseconds per step, the best of several rounds, for graphs of one `order` and of one `pipe`: to
//! validate the plan, to run it with results that are ready at once, and both.

use std::hint::black_box;
use std::time::{Duration, Instant};

use bytes::Bytes;
use cellmesh_graph::{
    Action, Engine, FunctionCall, Input, Limits, Node, Plan, PlanError, Response, Span, StepResult, Work,
};

/// Long enough for a timer of microseconds, short enough to wait for.
const ROUND: Duration = Duration::from_millis(20);
const ROUNDS: usize = 9;
/// About 200 bytes each, in all far less than a second-level cache.
const BATCH_NODES: usize = 500;
const ID_LEN: u32 = 8;

fn main() -> Result<(), PlanError> {
    println!("{:>8}  {:<6}{:>12}{:>12}{:>12}", "steps", "kind", "validate ns", "run ns", "graph us");
    for steps in [3, 10, 32, 100, 1_000, 10_000, 100_000] {
        for (name, kind) in [("order", Work::Order as fn(Span) -> Work), ("pipe", Work::Pipe)] {
            report(steps, name, &plan(steps, kind))?;
        }
    }
    let monster = monster();
    let mut refused = Duration::MAX;
    for _ in 0..ROUNDS {
        let plan = monster.clone();
        let start = Instant::now();
        let error = plan.validate(&Limits::default()).expect_err("the last input is of a later step");
        refused = refused.min(start.elapsed());
        black_box(error);
    }
    println!(
        "largest plan that the default limits let in, its last input wrong: refused after {} us",
        refused.as_micros()
    );
    Ok(())
}

/// As much work to validate as the default limits allow: ids that differ in their first bytes only, all inputs
/// of the deepest steps.
fn monster() -> Plan {
    let limits = Limits::default();
    let (steps, groups, id_len) = (limits.nodes_max, limits.depth_max - 2, u32::from(limits.id_bytes_max));
    let group = |number: u32| match number {
        0 => Work::Order(Span { start: 0, len: steps - groups }),
        _ => Work::Order(Span { start: steps - groups + number - 1, len: 1 }),
    };
    let leaf = Work::Internal(FunctionCall { function: 0, args: Span::default() });
    let node = |number: u32| Node {
        // An odd factor: every id once, in no order that a sort could use.
        id: Span { start: number * 2_477 % steps * id_len, len: id_len },
        work: if number < groups { group(number) } else { leaf },
        inputs: Span { start: 0, len: if number == steps - 1 { limits.inputs_max } else { 0 } },
        tolerant: false,
    };
    let deepest = groups;
    let inputs = |number: u32| if number == limits.inputs_max - 1 { steps - 1 } else { deepest };
    let children = std::iter::once(1).chain(groups + 1..steps).chain(2..=groups);
    Plan {
        nodes: (0..steps).map(node).collect(),
        children: children.collect(),
        inputs: (0..limits.inputs_max)
            .map(|number| Input { step: inputs(number), with_body: true })
            .collect(),
        arena: (0..steps)
            .flat_map(|number| format!("{number:08}{:x>120}", "").into_bytes())
            .collect::<Vec<u8>>()
            .into(),
        ..Plan::default()
    }
}

/// A group with `steps` internal steps; in an `order` each has the one before as its input.
fn plan(steps: u32, kind: fn(Span) -> Work) -> Plan {
    let work = kind(Span { start: 0, len: steps });
    let chained = matches!(work, Work::Order(_));
    let root = Node { id: id(0), work, inputs: Span::default(), tolerant: false };
    let call = FunctionCall { function: 1, args: id(0) };
    let step = |number: u32| Node {
        id: id(number),
        work: Work::Internal(call),
        inputs: Span { start: number.saturating_sub(2), len: u32::from(chained && number > 1) },
        tolerant: false,
    };
    let arena: Vec<u8> = (0..=steps).flat_map(|number| format!("{number:08}").into_bytes()).collect();
    Plan {
        nodes: std::iter::once(root).chain((1..=steps).map(step)).collect(),
        children: (1..=steps).collect(),
        inputs: (1..steps).map(|step| Input { step, with_body: true }).collect(),
        arena: arena.into(),
        ..Plan::default()
    }
}

fn id(number: u32) -> Span {
    Span { start: number * ID_LEN, len: ID_LEN }
}

fn report(steps: u32, name: &str, plan: &Plan) -> Result<(), PlanError> {
    let limits = Limits { nodes_max: u32::MAX, inputs_max: u32::MAX, ..Limits::default() };
    let (mut validate, mut run) = (Duration::MAX, Duration::MAX);
    for _ in 0..ROUNDS {
        let (of_validate, of_run) = round(plan, &limits)?;
        (validate, run) = (validate.min(of_validate), run.min(of_run));
    }
    let each = |time: Duration| time.as_secs_f64() * 1e9 / f64::from(steps);
    let graph_us = (validate + run).as_secs_f64() * 1e6;
    println!("{steps:>8}  {name:<6}{:>12.1}{:>12.1}{graph_us:>12.3}", each(validate), each(run));
    Ok(())
}

/// Mean times to validate and to run the plan, its end included. Copying the plan, which a cell's answer is made into
/// anyway, is left out.
fn round(plan: &Plan, limits: &Limits) -> Result<(Duration, Duration), PlanError> {
    let (mut validate, mut run) = (Duration::ZERO, Duration::ZERO);
    let mut graphs = 0;
    while validate + run < ROUND {
        // In batches: reading the clock costs as much as a small graph. Small ones: a request's plan is in the near caches.
        let batch: Vec<Plan> = (0..(BATCH_NODES / plan.nodes.len()).max(1)).map(|_| plan.clone()).collect();
        let start = Instant::now();
        let valid = batch.into_iter().map(|plan| plan.validate(limits)).collect::<Result<Vec<_>, _>>()?;
        validate += start.elapsed();
        let start = Instant::now();
        for valid in valid {
            black_box(finish(Engine::start(valid)));
            graphs += 1;
        }
        run += start.elapsed();
    }
    Ok((validate / graphs, run / graphs))
}

fn finish(mut engine: Engine) -> Option<Response> {
    let result = StepResult::ok(Bytes::new(), Bytes::from_static(b"body"));
    let mut started = Vec::with_capacity(16);
    loop {
        match engine.next_action() {
            Some(Action::RunStep { step, .. } | Action::Prepared { step, .. }) => started.push(step),
            Some(Action::Done(response)) => return Some(response),
            Some(Action::BuildRequests { .. } | Action::Send { .. }) => return None,
            None => {
                for step in started.drain(..) {
                    engine.on_result(step, result.clone()).ok()?;
                }
            }
        }
    }
}
