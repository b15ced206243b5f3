//! Plans far beyond every limit: refused, or run with the limits raised, with no more stack than others.

use bytes::Bytes;

use crate::testing::span;
use crate::{Action, Engine, FunctionCall, Limits, Node, Plan, PlanError, Span, StepResult, Work};

const MILLION: usize = 1_000_000;

const RAISED: Limits = Limits {
    nodes_max: u32::MAX,
    depth_max: u32::MAX,
    requests_max: u32::MAX,
    requests_per_step_max: u32::MAX,
    inputs_max: u32::MAX,
    id_bytes_max: 128,
    method_bytes_max: 64,
    url_bytes_max: 8192,
    arena_bytes_max: u32::MAX,
};

const ID_LEN: usize = 8;

/// An id of eight digits for each of `count` steps.
fn ids(count: usize) -> Bytes {
    (0..count).flat_map(|number| format!("{number:08}").into_bytes()).collect::<Vec<u8>>().into()
}

fn node(number: usize, work: Work) -> Node {
    Node { id: span(number * ID_LEN, ID_LEN), work, inputs: Span::default(), tolerant: false }
}

fn leaf(number: usize) -> Node {
    node(number, Work::Internal(FunctionCall { function: 0, args: Span::default() }))
}

fn plan(nodes: Vec<Node>) -> Plan {
    let children = (1..u32::try_from(nodes.len()).unwrap()).collect();
    Plan { arena: ids(nodes.len()), nodes, children, ..Plan::default() }
}

/// Each step the only child of the one before.
fn deep(kind: fn(Span) -> Work) -> Plan {
    let group = |number| node(number, kind(span(number, 1)));
    plan((0..MILLION - 1).map(group).chain([leaf(MILLION - 1)]).collect())
}

/// One step with all others as its children.
fn wide(kind: fn(Span) -> Work) -> Plan {
    let root = node(0, kind(span(0, MILLION - 1)));
    plan(std::iter::once(root).chain((1..MILLION).map(leaf)).collect())
}

/// Runs a graph to its end; returns how many steps it took.
fn run(plan: Plan) -> usize {
    let mut engine = Engine::start(plan.validate(&RAISED).unwrap());
    let (mut steps, mut out) = (0, Vec::new());
    loop {
        match engine.next_action() {
            Some(Action::RunStep { step, .. }) => out.push(step),
            Some(Action::Done(response)) => {
                assert!(!response.in_error);
                return steps;
            }
            Some(other) => panic!("{other:?}"),
            None => {
                steps += 1;
                engine.on_result(out.pop().unwrap(), StepResult::skipped()).unwrap();
            }
        }
    }
}

/// A million steps are too many, whatever their shape.
#[test]
fn too_many_steps_are_refused() {
    for plan in [deep(Work::Order), deep(Work::Pipe), wide(Work::Order), wide(Work::Pipe)] {
        let error = plan.validate(&Limits::default()).unwrap_err();
        assert_eq!(error, PlanError::TooMany { what: "steps", found: MILLION as u64, max: 4096 });
    }
}

/// A million levels are too deep where a million steps are not.
#[test]
fn too_deep_is_refused() {
    let limits = Limits { nodes_max: u32::MAX, ..Limits::default() };
    let error = deep(Work::Order).validate(&limits).unwrap_err();
    assert_eq!(
        error.to_string(),
        r#"step "00000064": level 65: steps must be nested at most 64 levels deep"#
    );
}

/// With the limits raised, a million levels and a million children run on an ordinary stack.
#[test]
fn monsters_run_where_limits_allow_them() {
    for (plan, steps) in [
        (deep(Work::Order), 1),
        (deep(Work::Pipe), 1),
        (wide(Work::Order), MILLION - 1),
        (wide(Work::Pipe), MILLION - 1),
    ] {
        assert_eq!(run(plan), steps);
    }
}

/// A million steps in a circle beside the root are found out.
#[test]
fn giant_circle_is_refused() {
    let mut plan = deep(Work::Order);
    plan.children[0] = 2;
    plan.nodes[0].work = Work::Order(Span::default());
    plan.nodes[1].work = Work::Order(span(0, 1));
    plan.nodes[MILLION - 1].work = Work::Order(span(1, 1));
    plan.children[1] = 1;
    plan.nodes[2].work = Work::Order(span(2, 1));
    let error = plan.validate(&RAISED).unwrap_err();
    assert_eq!(
        error.to_string(),
        r#"step "00000001" is part of a cycle, or under one: steps must form a tree under the root"#
    );
}

/// Spans whose sums pass 32 bits, in every field of a large plan, are refused and not computed with.
#[test]
fn spans_past_32_bits_are_refused() {
    let edge = Span { start: u32::MAX, len: u32::MAX };
    for work in [Work::Order(edge), Work::Pipe(edge), Work::Requests(edge)] {
        let mut plan = wide(Work::Pipe);
        plan.nodes[MILLION - 1].work = work;
        assert!(matches!(plan.validate(&RAISED), Err(PlanError::SpanOutside { span, .. }) if span == edge));
    }
}

/// A million steps that are all the same child, or all name the same list, cost no more than a look.
#[test]
fn shared_lists_do_not_multiply() {
    let mut plan = wide(Work::Order);
    let all = plan.nodes[0].work;
    for node in &mut plan.nodes[1..] {
        node.work = all;
    }
    assert!(matches!(plan.validate(&RAISED), Err(PlanError::SharedChild { .. })));
}
