//! The reference checker: every rule of a graph, each by itself, as slowly and as obviously as possible. Says
//! which rules are broken, where the validator says only the first.

use std::collections::BTreeSet;

use crate::{BodySource, EgressRequest, Input, InputRule, Limits, Plan, PlanError, Prepared, Span, Work};

/// The name of a rule.
pub(crate) type Rule = &'static str;

/// The rule that an error is about.
pub(crate) fn rule_of(error: &PlanError) -> Rule {
    match error {
        PlanError::TooMany { what, .. } => what,
        PlanError::SpanOutside { .. } => "span",
        PlanError::IdLength { .. } => "id length",
        PlanError::IdNotUtf8 { .. } => "id text",
        PlanError::DuplicateId { .. } => "duplicate id",
        PlanError::RootMissing { .. } => "root",
        PlanError::ChildMissing { .. } => "child",
        PlanError::RootIsChild { .. } => "root is child",
        PlanError::SharedChild { .. } => "shared child",
        PlanError::NoParent { .. } => "no parent",
        PlanError::Cycle { .. } => "cycle",
        PlanError::TooDeep { .. } => "deep",
        PlanError::GroupInputs { .. } => "group inputs",
        PlanError::InputMissing { .. } => "input",
        PlanError::InputUncertain { rule: InputRule::Itself, .. } => "input itself",
        PlanError::InputUncertain { rule: InputRule::Encloses, .. } => "input encloses",
        PlanError::InputUncertain { rule: InputRule::SameTime, .. } => "input same time",
        PlanError::InputUncertain { rule: InputRule::Later, .. } => "input later",
        PlanError::InputUncertain { rule: InputRule::MayNotRun { .. }, .. } => "input may not run",
        PlanError::RespondMissing { .. } => "respond",
        PlanError::RespondUncertain { .. } => "respond may not run",
        PlanError::StepRequests { .. } => "step requests",
        PlanError::Request { .. } => "request",
    }
}

/// All rules that `plan` breaks. Rules about where steps are need a tree: they are left out where there is none.
pub(crate) fn broken(plan: &Plan, limits: &Limits) -> BTreeSet<Rule> {
    let mut broken = BTreeSet::new();
    check_counts(plan, limits, &mut broken);
    check_ids(plan, limits, &mut broken);
    check_spans(plan, &mut broken);
    check_tree(plan, limits, &mut broken);
    check_requests(plan, limits, &mut broken);
    let no_tree = ["root", "child", "root is child", "shared child", "no parent", "cycle"];
    if no_tree.iter().all(|rule| !broken.contains(rule)) {
        check_inputs(plan, &mut broken);
    }
    broken
}

fn fits(span: Span, len: usize) -> bool {
    u64::from(span.start) + u64::from(span.len) <= len as u64
}

/// The part of `list` that `span` names; nothing where it lies outside, which is a broken rule of its own.
fn cut<T>(list: &[T], span: Span) -> &[T] {
    if fits(span, list.len()) { &list[span.start as usize..][..span.len as usize] } else { &[] }
}

fn check_counts(plan: &Plan, limits: &Limits, broken: &mut BTreeSet<Rule>) {
    let sum = |spans: &mut dyn Iterator<Item = Span>| spans.map(|span| u64::from(span.len)).sum::<u64>();
    let inputs = sum(&mut plan.nodes.iter().map(|node| node.inputs));
    let requests = sum(&mut plan.nodes.iter().filter_map(|node| match node.work {
        Work::Requests(span) => Some(span),
        Work::Order(_) | Work::Pipe(_) | Work::Builder(_) | Work::Internal(_) | Work::Prepared(_) => None,
    }));
    for (rule, found, max) in [
        ("steps", plan.nodes.len() as u64, limits.nodes_max),
        ("children", plan.children.len() as u64, limits.nodes_max),
        ("inputs", inputs.max(plan.inputs.len() as u64), limits.inputs_max),
        ("requests", requests.max(plan.requests.len() as u64), limits.requests_max),
        ("bytes in the arena", plan.arena.len() as u64, limits.arena_bytes_max),
    ] {
        if found > u64::from(max) {
            broken.insert(rule);
        }
    }
}

fn check_ids(plan: &Plan, limits: &Limits, broken: &mut BTreeSet<Rule>) {
    let mut seen = Vec::new();
    for node in plan.nodes.iter().filter(|node| fits(node.id, plan.arena.len())) {
        let id = cut(&plan.arena, node.id);
        if id.is_empty() || id.len() > limits.id_bytes_max.into() {
            broken.insert("id length");
        }
        if String::from_utf8(id.to_vec()).is_err() {
            broken.insert("id text");
        }
        if seen.contains(&id) {
            broken.insert("duplicate id");
        }
        seen.push(id);
    }
}

fn check_spans(plan: &Plan, broken: &mut BTreeSet<Rule>) {
    let arena = plan.arena.len();
    let fine = plan.nodes.iter().all(|node| {
        let work = match node.work {
            Work::Order(span) | Work::Pipe(span) => fits(span, plan.children.len()),
            Work::Requests(span) => fits(span, plan.requests.len()),
            Work::Builder(call) | Work::Internal(call) => fits(call.args, arena),
            Work::Prepared(Prepared { headers, body, otherwise, .. }) => {
                [headers, body, otherwise.args].iter().all(|span| fits(*span, arena))
            }
        };
        work && fits(node.id, arena) && fits(node.inputs, plan.inputs.len())
    });
    if !fine {
        broken.insert("span");
    }
}

fn children(plan: &Plan, step: u32) -> &[u32] {
    match plan.nodes[step as usize].work {
        Work::Order(span) | Work::Pipe(span) => cut(&plan.children, span),
        Work::Requests(_) | Work::Builder(_) | Work::Internal(_) | Work::Prepared(_) => &[],
    }
}

fn steps(plan: &Plan) -> impl Iterator<Item = u32> + Clone {
    0..u32::try_from(plan.nodes.len()).unwrap()
}

fn check_tree(plan: &Plan, limits: &Limits, broken: &mut BTreeSet<Rule>) {
    if !steps(plan).any(|step| step == plan.root) {
        broken.insert("root");
    }
    let mut parents = vec![0; plan.nodes.len()];
    for child in steps(plan).flat_map(|step| children(plan, step)) {
        match parents.get_mut(*child as usize) {
            Some(count) => *count += 1,
            None => drop(broken.insert("child")),
        }
        if *child == plan.root {
            broken.insert("root is child");
        }
    }
    if parents.iter().any(|count| *count > 1) {
        broken.insert("shared child");
    }
    if steps(plan).any(|step| step != plan.root && parents[step as usize] == 0) {
        broken.insert("no parent");
    }
    if broken.contains("root") || broken.contains("child") {
        return;
    }
    let depths = depths(plan);
    let one_parent = |step| step == plan.root || parents[step as usize] == 1;
    if steps(plan).all(one_parent) && depths.contains(&None) {
        broken.insert("cycle");
    }
    if depths.iter().flatten().any(|depth| *depth > limits.depth_max) {
        broken.insert("deep");
    }
}

/// How deep each step is under the root, level by level; no level for what is not under it.
fn depths(plan: &Plan) -> Vec<Option<u32>> {
    let mut depths = vec![None; plan.nodes.len()];
    let mut level = vec![plan.root];
    for depth in 1.. {
        level.retain(|step| depths[*step as usize].is_none());
        if level.is_empty() {
            break;
        }
        level.iter().for_each(|step| depths[*step as usize] = Some(depth));
        level = level.iter().flat_map(|step| children(plan, *step)).copied().collect();
    }
    depths
}

fn check_inputs(plan: &Plan, broken: &mut BTreeSet<Rule>) {
    for step in steps(plan) {
        let inputs = cut(&plan.inputs, plan.nodes[step as usize].inputs);
        let group = matches!(plan.nodes[step as usize].work, Work::Order(_) | Work::Pipe(_));
        if group && !inputs.is_empty() {
            broken.insert("group inputs");
        }
        broken.extend(inputs.iter().filter_map(|input| uncertain(plan, input.step, step)));
    }
    if let Some(named) = plan.respond_with {
        if named as usize >= plan.nodes.len() {
            broken.insert("respond");
        } else if !surely_runs(plan, &path(plan, named)) {
            broken.insert("respond may not run");
        }
    }
}

/// The steps from the root to `step`.
fn path(plan: &Plan, step: u32) -> Vec<u32> {
    let mut path = vec![step];
    while path[0] != plan.root {
        let parent = steps(plan).find(|parent| children(plan, *parent).contains(&path[0])).unwrap();
        path.insert(0, parent);
    }
    path
}

/// Why `named` is not certain to have ended with a result when `step` starts.
fn uncertain(plan: &Plan, named: u32, step: u32) -> Option<Rule> {
    if named as usize >= plan.nodes.len() {
        return Some("input");
    }
    if named == step {
        return Some("input itself");
    }
    let (to_named, to_step) = (path(plan, named), path(plan, step));
    if to_step.contains(&named) {
        return Some("input encloses");
    }
    let shared = to_named.iter().zip(&to_step).take_while(|(a, b)| a == b).count();
    if shared == to_step.len() {
        // Only a group has steps inside, and a group has no inputs.
        return Some("group inputs");
    }
    let around = to_named[shared - 1];
    if matches!(plan.nodes[around as usize].work, Work::Pipe(_)) {
        return Some("input same time");
    }
    let place = |step| children(plan, around).iter().position(|child| *child == step);
    if place(to_named[shared]) > place(to_step[shared]) {
        return Some("input later");
    }
    (!surely_runs(plan, &to_named[shared..])).then_some("input may not run")
}

/// Whether the last step of `path` has run for certain when its first one has ended without an error that counts.
fn surely_runs(plan: &Plan, path: &[u32]) -> bool {
    let mut no_error_that_counts = true;
    for pair in path.windows(2) {
        let (step, next) = (pair[0], pair[1]);
        let node = &plan.nodes[step as usize];
        let no_error = (no_error_that_counts && !node.tolerant)
            || children(plan, step).iter().all(|c| !may_fail(plan, *c));
        if matches!(node.work, Work::Order(_)) && !no_error {
            let mut before = children(plan, step).iter().take_while(|child| **child != next);
            if before.any(|child| may_fail(plan, *child)) {
                return false;
            }
        }
        no_error_that_counts = no_error;
    }
    true
}

/// Whether a step can be in error for its parent.
fn may_fail(plan: &Plan, step: u32) -> bool {
    let node = &plan.nodes[step as usize];
    !node.tolerant
        && match node.work {
            Work::Order(_) | Work::Pipe(_) => children(plan, step).iter().any(|child| may_fail(plan, *child)),
            Work::Requests(span) => span.len > 0,
            Work::Builder(_) | Work::Internal(_) | Work::Prepared(_) => true,
        }
}

fn check_requests(plan: &Plan, limits: &Limits, broken: &mut BTreeSet<Rule>) {
    for node in &plan.nodes {
        let Work::Requests(span) = node.work else { continue };
        if span.len > limits.requests_per_step_max {
            broken.insert("step requests");
        }
        let inputs = cut(&plan.inputs, node.inputs);
        if cut(&plan.requests, span).iter().any(|request| !is_fine(request, inputs, plan, limits)) {
            broken.insert("request");
        }
    }
}

fn is_fine(request: &EgressRequest, inputs: &[Input], plan: &Plan, limits: &Limits) -> bool {
    let arena = plan.arena.len();
    let body = match request.body {
        BodySource::Bytes(span) => fits(span, arena),
        BodySource::OfRequest => true,
        BodySource::OfInput(index) => inputs.get(index as usize).is_some_and(|input| input.with_body),
    };
    let text = |span: Span, max: u16| fits(span, arena) && (1..=max.into()).contains(&span.len);
    body && fits(request.headers, arena)
        && text(request.method, limits.method_bytes_max)
        && text(request.url, limits.url_bytes_max)
}

/// Whether an input of the step `step` may name `named`, by their ids: what test graphs are drawn with.
pub(crate) fn may_name(plan: &Plan, named: u32, step: u32) -> bool {
    uncertain(plan, named, step).is_none()
}

/// Whether a graph may respond with `named`.
pub(crate) fn may_respond_with(plan: &Plan, named: u32) -> bool {
    surely_runs(plan, &path(plan, named))
}
