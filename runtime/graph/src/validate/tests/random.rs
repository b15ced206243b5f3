//! The validator against the reference checker, on plans that are drawn at random, and on valid ones with a fault.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::reference::{Rule, broken, may_name, rule_of};
use crate::testing::{Choices, draw_graph};
use crate::{BodySource, EgressRequest, FunctionCall, Input, Limits, Node, Plan, Prepared, Span, Work};

/// Small enough for random plans to touch them.
const TIGHT: Limits = Limits {
    nodes_max: 12,
    depth_max: 4,
    requests_max: 4,
    requests_per_step_max: 2,
    inputs_max: 4,
    id_bytes_max: 3,
    method_bytes_max: 2,
    url_bytes_max: 3,
    arena_bytes_max: 40,
};

/// How often which rule was the one that a plan broke; `valid` for none.
type Seen = BTreeMap<Rule, u32>;

/// The validator finds a broken rule where there is one, one that is broken, and none where there is none.
fn check(plan: Plan, limits: &Limits, seen: &mut Seen) {
    let expected = broken(&plan, limits);
    let rule = match plan.clone().validate(limits) {
        Ok(_) => {
            assert!(expected.is_empty(), "accepted, but {expected:?}: {plan:#?}");
            "valid"
        }
        Err(error) => {
            let rule = rule_of(&error);
            assert!(expected.contains(rule), "{error} ({rule}), but {expected:?}: {plan:#?}");
            rule
        }
    };
    *seen.entry(rule).or_default() += 1;
}

/// Numbers that matter to arithmetic of 32 and 64 bits, and small ones.
fn edge(choices: &mut Choices<'_>) -> u32 {
    const EDGES: [u32; 8] = [0, 1, 2, u32::MAX, u32::MAX - 1, 1 << 31, (1 << 31) - 1, 1 << 16];
    match choices.below(3) {
        0 => EDGES[choices.below(EDGES.len())],
        _ => u32::try_from(choices.below(12)).unwrap(),
    }
}

/// A number that is likely to be an index in a list of `len`.
fn index(choices: &mut Choices<'_>, len: usize) -> u32 {
    match choices.below(64) {
        0 => edge(choices),
        _ => u32::try_from(choices.below(len)).unwrap(),
    }
}

/// A span that is likely to lie inside a list of `len`.
fn draw_span(choices: &mut Choices<'_>, len: usize, len_max: usize) -> Span {
    if choices.below(64) == 1 {
        return Span { start: edge(choices), len: edge(choices) };
    }
    let start = choices.below(len + 1);
    let len = choices.below((len - start).min(len_max) + 1);
    crate::testing::span(start, len)
}

/// Children are likely to form a tree: each step in turn takes the next ones.
struct Draw {
    nodes: usize,
    children: Vec<u32>,
    inputs: usize,
    requests: usize,
    arena: usize,
}

impl Draw {
    fn node(&mut self, choices: &mut Choices<'_>, number: usize) -> Node {
        let id = match choices.below(32) {
            0 => draw_span(choices, self.arena, 4),
            _ => crate::testing::span(number.min(self.arena.saturating_sub(1)), 1),
        };
        let work = match choices.below(if number == 0 { 3 } else { 7 }) {
            0 | 1 => Work::Order(self.take_children(choices)),
            2 => Work::Pipe(self.take_children(choices)),
            3 => Work::Requests(draw_span(choices, self.requests, 3)),
            4 => Work::Builder(FunctionCall {
                function: edge(choices),
                args: draw_span(choices, self.arena, 9),
            }),
            5 => Work::Prepared(Prepared {
                status: 200,
                headers: draw_span(choices, self.arena, 9),
                body: draw_span(choices, self.arena, 9),
                otherwise: FunctionCall { function: edge(choices), args: draw_span(choices, self.arena, 9) },
            }),
            _ => Work::Internal(FunctionCall {
                function: edge(choices),
                args: draw_span(choices, self.arena, 9),
            }),
        };
        let has_inputs = !matches!(work, Work::Order(_) | Work::Pipe(_)) || choices.below(64) == 1;
        let inputs = if has_inputs { draw_span(choices, self.inputs, 2) } else { Span::default() };
        Node { id, work, inputs, tolerant: choices.percent(30) }
    }

    fn take_children(&mut self, choices: &mut Choices<'_>) -> Span {
        let start = self.children.len();
        // The steps that are nobody's child yet come next; the root takes what would be left over.
        let next = 1 + start;
        let count = if choices.below(4) == 0 { self.nodes - next.min(self.nodes) } else { choices.below(4) };
        for child in next..(next + count).min(self.nodes) {
            let child = if choices.below(64) == 1 {
                index(choices, self.nodes)
            } else {
                u32::try_from(child).unwrap()
            };
            self.children.push(child);
        }
        if choices.below(64) == 1 {
            return draw_span(choices, self.children.len(), 4);
        }
        crate::testing::span(start, self.children.len() - start)
    }
}

fn draw_request(choices: &mut Choices<'_>, arena: usize) -> EgressRequest {
    let text = |choices: &mut Choices<'_>, max: usize| match choices.below(32) {
        0 => draw_span(choices, arena, max + 1),
        _ => crate::testing::span(choices.below(arena.saturating_sub(max)), 1.min(arena)),
    };
    EgressRequest {
        method: text(choices, 2),
        url: text(choices, 3),
        headers: draw_span(choices, arena, 5),
        body: match choices.below(4) {
            0 => BodySource::OfRequest,
            1 => BodySource::OfInput(index(choices, 2)),
            _ => BodySource::Bytes(draw_span(choices, arena, 40)),
        },
    }
}

/// A plan of random records, some of them valid.
fn draw_plan(choices: &mut Choices<'_>) -> Plan {
    let nodes = choices.below(10) + choices.below(3);
    let arena: Vec<u8> = match choices.below(16) {
        0 => (0..choices.below(45)).map(|_| u8::try_from(choices.below(256)).unwrap()).collect(),
        _ => (0..14).map(|letter| b'a' + letter).collect(),
    };
    let inputs: Vec<Input> = (0..choices.below(4) * choices.below(3))
        .map(|_| Input { step: index(choices, nodes), with_body: choices.percent(70) })
        .collect();
    let requests: Vec<EgressRequest> =
        (0..choices.below(4) * choices.below(3)).map(|_| draw_request(choices, arena.len())).collect();
    let mut draw = Draw {
        nodes,
        children: Vec::new(),
        inputs: inputs.len(),
        requests: requests.len(),
        arena: arena.len(),
    };
    let drawn: Vec<Node> = (0..nodes).map(|number| draw.node(choices, number)).collect();
    let root = if choices.below(32) == 1 { index(choices, nodes) } else { 0 };
    let respond_with = choices.percent(20).then(|| index(choices, nodes));
    Plan { nodes: drawn, children: draw.children, inputs, requests, root, respond_with, arena: arena.into() }
}

/// Puts one fault into a plan; it may be none.
fn spoil(choices: &mut Choices<'_>, plan: &mut Plan) {
    let node = choices.below(plan.nodes.len());
    match choices.below(14) {
        0 => plan.root = index(choices, plan.nodes.len()),
        1 => plan.respond_with = Some(index(choices, plan.nodes.len())),
        2 => plan.nodes[node].id = plan.nodes[choices.below(plan.nodes.len())].id,
        3 => plan.nodes[node].id = Span { start: edge(choices), len: edge(choices) },
        4 => plan.nodes[node].inputs = draw_span(choices, plan.inputs.len(), 8),
        5 => plan.nodes[node].tolerant ^= true,
        6 => plan.nodes[node].work = plan.nodes[choices.below(plan.nodes.len())].work,
        7 => plan.nodes[node].work = Work::Pipe(draw_span(choices, plan.children.len(), 8)),
        8 => plan.nodes.truncate(node.max(1)),
        9 => plan.nodes.push(plan.nodes[node]),
        10 => plan.arena = plan.arena.slice(..choices.below(plan.arena.len())),
        11 => spoil_child(choices, plan),
        12 => spoil_input(choices, plan),
        _ => spoil_request(choices, plan),
    }
}

fn spoil_child(choices: &mut Choices<'_>, plan: &mut Plan) {
    let (one, other) = (choices.below(plan.children.len()), choices.below(plan.children.len()));
    match choices.below(3) {
        _ if plan.children.is_empty() => plan.children.push(edge(choices)),
        0 => plan.children.swap(one, other),
        1 => plan.children[one] = plan.children[other],
        _ => plan.children[one] = index(choices, plan.nodes.len()),
    }
}

fn spoil_input(choices: &mut Choices<'_>, plan: &mut Plan) {
    let one = choices.below(plan.inputs.len());
    match choices.below(2) {
        _ if plan.inputs.is_empty() => {}
        0 => plan.inputs[one].step = index(choices, plan.nodes.len()),
        _ => plan.inputs[one].with_body ^= true,
    }
}

fn spoil_request(choices: &mut Choices<'_>, plan: &mut Plan) {
    let one = choices.below(plan.requests.len());
    let span = draw_span(choices, plan.arena.len(), 20);
    match choices.below(5) {
        _ if plan.requests.is_empty() => {}
        0 => plan.requests[one].method = span,
        1 => plan.requests[one].url = span,
        2 => plan.requests[one].headers = span,
        3 => plan.requests[one].body = BodySource::Bytes(span),
        _ => plan.requests[one].body = BodySource::OfInput(edge(choices)),
    }
}

fn check_spoiled(choices: &mut Choices<'_>, seen: &mut Seen) {
    let graph = draw_graph(choices, 16, may_name);
    let limits = Limits::default();
    let mut plan = graph.plan();
    assert!(plan.clone().validate(&limits).is_ok(), "drawn to be valid: {graph:#?}");
    spoil(choices, &mut plan);
    check(plan, &limits, seen);
}

/// Every rule that can be broken has been, and plans that are fine were among them.
fn assert_seen(seen: &Seen, rules: &[Rule], least: u32) {
    for rule in rules {
        let count = seen.get(rule).copied().unwrap_or_default();
        assert!(count >= least, "{rule}: only {count} of {seen:?}");
    }
}

/// A million random plans: the same verdict as the reference checker on all.
#[test]
fn validator_agrees_on_random_plans() {
    let mut seen = Seen::new();
    for seed in 0..1_000_000 {
        check(draw_plan(&mut Choices::Seed(seed)), &TIGHT, &mut seen);
    }
    let structure =
        ["valid", "span", "root", "child", "root is child", "shared child", "no parent", "cycle", "deep"];
    let ids = ["id length", "id text", "duplicate id"];
    let inputs = ["input", "input itself", "input same time", "input later", "group inputs"];
    let may_not_run = ["input may not run", "respond", "respond may not run"];
    let counts = ["bytes in the arena", "inputs", "requests", "step requests", "request"];
    for rules in [&structure[..], &ids, &inputs, &may_not_run, &counts] {
        assert_seen(&seen, rules, 20);
    }
}

/// A hundred thousand valid plans with one fault: the same verdict as the reference checker on all.
#[test]
fn validator_agrees_on_spoiled_plans() {
    let mut seen = Seen::new();
    for seed in 0..100_000 {
        check_spoiled(&mut Choices::Seed(seed), &mut seen);
    }
    assert_seen(&seen, &["valid", "span", "shared child", "no parent", "duplicate id", "request"], 1000);
    assert_seen(&seen, &["root", "child", "root is child", "cycle", "input later", "input same time"], 20);
    assert_seen(&seen, &["input may not run", "respond may not run", "group inputs"], 20);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, failure_persistence: None, ..ProptestConfig::default() })]

    /// The same on fewer plans, which shrink when they fail.
    #[test]
    fn validator_agrees_shrinking(drawn in prop::collection::vec(any::<u8>(), 0..300)) {
        check(draw_plan(&mut Choices::Bytes(&drawn)), &TIGHT, &mut Seen::new());
        check_spoiled(&mut Choices::Bytes(&drawn), &mut Seen::new());
    }
}
