//! Validation: from what a cell gave to a plan that the engine can trust.
//!
//! - Cheap first: counts, then ids, then the tree, then what steps refer to. The first broken rule is the error.
//! - A step that is named, by an input or by `respond-with`, is certain to have a result when that is read. So the steps of a
//!   tolerant `order` behind the first one that may fail cannot be named from outside it: they may never run.
//! - cost: `O(n log n)` for ids, a walk of at most the depth for each input, `O(n)` for the rest; no recursion.

mod requests;
mod tree;

use std::ops::Range;

use crate::limits::Limits;
use crate::plan::{Input, Node, Plan, Span, StepIndex, StepName, Work};
use crate::problem::{InputRule, PlanError};

pub(crate) use requests::check_built;
pub(crate) use tree::{NONE, Tree};

/// Up to so many ids are compared in pairs: cheaper than sorting them, and no allocation.
const PAIRS_MAX: usize = 24;

/// A plan that keeps all rules, and its tree.
#[derive(Debug)]
pub struct ValidPlan {
    pub(crate) plan: Plan,
    pub(crate) tree: Tree,
    pub(crate) limits: Limits,
    /// Requests of all steps; one that several steps name counts for each.
    pub(crate) requests: u32,
}

impl ValidPlan {
    /// The plan.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }
}

impl Plan {
    /// Checks every rule of a graph.
    ///
    /// # Errors
    /// The first rule that is broken, and the step that breaks it.
    pub fn validate(self, limits: &Limits) -> Result<ValidPlan, PlanError> {
        check_counts(&self, limits)?;
        check_ids(&self, limits)?;
        let tree = Tree::grow(&self, limits.depth_max)?;
        check_calls(&self)?;
        check_inputs(&self, limits, &tree)?;
        let requests = requests::check_planned(&self, limits)?;
        check_respond_with(&self, &tree)?;
        Ok(ValidPlan { plan: self, tree, limits: *limits, requests })
    }
}

fn check_counts(plan: &Plan, limits: &Limits) -> Result<(), PlanError> {
    at_most("steps", plan.nodes.len(), limits.nodes_max)?;
    at_most("children", plan.children.len(), limits.nodes_max)?;
    at_most("inputs", plan.inputs.len(), limits.inputs_max)?;
    at_most("requests", plan.requests.len(), limits.requests_max)?;
    at_most("bytes in the arena", plan.arena.len(), limits.arena_bytes_max)
}

/// Nothing, if `found` of `what` is not over the limit.
fn at_most(what: &'static str, found: usize, max: u32) -> Result<(), PlanError> {
    if found > max as usize {
        return Err(PlanError::TooMany { what, found: found as u64, max });
    }
    Ok(())
}

fn check_ids(plan: &Plan, limits: &Limits) -> Result<(), PlanError> {
    for (index, node) in numbered(&plan.nodes) {
        let id = part(plan, index, "id", node.id, "the arena", plan.arena.len())?;
        if id.is_empty() || id.len() > usize::from(limits.id_bytes_max) {
            let step = StepName::Index(index);
            return Err(PlanError::IdLength { step, found: node.id.len, max: limits.id_bytes_max });
        }
        if std::str::from_utf8(&plan.arena[id]).is_err() {
            return Err(PlanError::IdNotUtf8 { step: StepName::Index(index) });
        }
    }
    check_unique(plan)
}

fn check_unique(plan: &Plan) -> Result<(), PlanError> {
    let duplicate = if plan.nodes.len() <= PAIRS_MAX { equal_pair(plan) } else { equal_neighbours(plan) };
    duplicate.map_or(Ok(()), |(first, second)| {
        let id = String::from_utf8_lossy(id_of(plan, first)).into();
        Err(PlanError::DuplicateId { id, first: StepIndex(first), second: StepIndex(second) })
    })
}

fn equal_pair(plan: &Plan) -> Option<(u32, u32)> {
    let mut tails = [0; PAIRS_MAX];
    for (second, id) in ids(plan) {
        let tail = tail_of(id);
        let mut earlier = (0..second).zip(&tails);
        if let Some((first, _)) = earlier.find(|(first, other)| **other == tail && id_of(plan, *first) == id)
        {
            return Some((first, second));
        }
        tails[second as usize] = tail;
    }
    None
}

fn equal_neighbours(plan: &Plan) -> Option<(u32, u32)> {
    let mut sorted: Vec<(u64, u32)> = ids(plan).map(|(index, id)| (tail_of(id), index)).collect();
    sorted.sort_unstable_by(|one, other| {
        let by_id = || id_of(plan, one.1).cmp(id_of(plan, other.1)).then(one.1.cmp(&other.1));
        one.0.cmp(&other.0).then_with(by_id)
    });
    let same = |pair: &&[(u64, u32)]| id_of(plan, pair[0].1) == id_of(plan, pair[1].1);
    sorted.windows(2).find(same).map(|pair| (pair[0].1, pair[1].1))
}

/// The last bytes of an id as a number: ids that end differently, as most do, need no other comparison.
fn tail_of(id: &[u8]) -> u64 {
    let tail = id.last_chunk().copied().unwrap_or_else(|| {
        let mut short = [0; size_of::<u64>()];
        short[..id.len()].copy_from_slice(id);
        short
    });
    u64::from_le_bytes(tail)
}

/// The ids of all steps, which have been checked.
fn ids(plan: &Plan) -> impl Iterator<Item = (u32, &[u8])> {
    numbered(&plan.nodes).map(|(index, node)| (index, &plan.arena[node.id.range()]))
}

/// The id of a step whose id span has been checked.
pub(crate) fn id_of(plan: &Plan, index: u32) -> &[u8] {
    &plan.arena[plan.nodes[index as usize].id.range()]
}

fn check_calls(plan: &Plan) -> Result<(), PlanError> {
    for (index, node) in numbered(&plan.nodes) {
        if let Some(call) = node.work.function() {
            part(plan, index, "args", call.args, "the arena", plan.arena.len())?;
        }
        if let Work::Prepared(prepared) = node.work {
            part(plan, index, "prepared headers", prepared.headers, "the arena", plan.arena.len())?;
            part(plan, index, "prepared body", prepared.body, "the arena", plan.arena.len())?;
        }
    }
    Ok(())
}

fn check_inputs(plan: &Plan, limits: &Limits, tree: &Tree) -> Result<(), PlanError> {
    let mut total: u64 = 0;
    for (index, node) in numbered(&plan.nodes) {
        let inputs = part(plan, index, "inputs", node.inputs, "the graph's inputs", plan.inputs.len())?;
        total += u64::from(node.inputs.len);
        if total > u64::from(limits.inputs_max) {
            return Err(PlanError::TooMany { what: "inputs", found: total, max: limits.inputs_max });
        }
        if node.work.children().is_some() && !inputs.is_empty() {
            return Err(PlanError::GroupInputs { step: plan.step_name(index), found: node.inputs.len });
        }
        for input in &plan.inputs[inputs] {
            check_input(plan, tree, index, *input)?;
        }
    }
    Ok(())
}

fn check_input(plan: &Plan, tree: &Tree, step: u32, input: Input) -> Result<(), PlanError> {
    let named = input.step;
    if named as usize >= plan.nodes.len() {
        return Err(PlanError::InputMissing { step: plan.step_name(step), named, nodes: plan.nodes.len() });
    }
    certain_before(plan, tree, named, step).map_err(|rule| PlanError::InputUncertain {
        step: plan.step_name(step),
        named: plan.step_name(named),
        rule,
    })
}

/// Whether `named` is certain to have ended, with a result, when `step` starts.
///
/// It is if the innermost step around both is an `order` that has `named` first, and nothing in between can hide that
/// `named` never ran.
fn certain_before(plan: &Plan, tree: &Tree, named: u32, step: u32) -> Result<(), InputRule> {
    if named == step {
        return Err(InputRule::Itself);
    }
    if tree.contains(named, step) {
        return Err(InputRule::Encloses);
    }
    let around = innermost(tree, named, step);
    match plan.nodes[around as usize].work {
        Work::Order(_) if tree.at(named).first > tree.at(step).first => Err(InputRule::Later),
        Work::Order(_) => may_not_run(plan, tree, named, tree.hider_inside(around, named)),
        Work::Pipe(_) => Err(InputRule::SameTime),
        Work::Requests(_) | Work::Builder(_) | Work::Internal(_) | Work::Prepared(_) => {
            unreachable!("only groups have steps inside")
        }
    }
}

/// The innermost step around `named` that `step` is inside, too.
fn innermost(tree: &Tree, named: u32, step: u32) -> u32 {
    let mut around = tree.at(named).parent;
    while !tree.contains(around, step) {
        around = tree.at(around).parent;
    }
    around
}

/// The error of naming `named`, if there is a step that can hide that it never ran.
fn may_not_run(plan: &Plan, tree: &Tree, named: u32, hider: Option<u32>) -> Result<(), InputRule> {
    hider.map_or(Ok(()), |tolerant| {
        let order = plan.step_name(tree.order_that_may_stop(plan, named));
        Err(InputRule::MayNotRun { order, tolerant: plan.step_name(tolerant) })
    })
}

/// The response is read when the root has ended, and not with an error that counts.
fn check_respond_with(plan: &Plan, tree: &Tree) -> Result<(), PlanError> {
    let Some(named) = plan.respond_with else {
        return Ok(());
    };
    if named as usize >= plan.nodes.len() {
        return Err(PlanError::RespondMissing { named, nodes: plan.nodes.len() });
    }
    may_not_run(plan, tree, named, tree.hider(named))
        .map_err(|rule| PlanError::RespondUncertain { named: plan.step_name(named), rule })
}

/// The range of `span`, a field of step `index`, in a list of `len` entries.
fn part(
    plan: &Plan,
    index: u32,
    field: &'static str,
    span: Span,
    list: &'static str,
    len: usize,
) -> Result<Range<usize>, PlanError> {
    span.range_in(len).ok_or_else(|| PlanError::SpanOutside {
        step: plan.step_name(index),
        field,
        span,
        list,
        len,
    })
}

fn numbered(nodes: &[Node]) -> impl Iterator<Item = (u32, &Node)> {
    (0..).zip(nodes)
}

/// A count that has been checked against a limit.
pub(crate) fn count_u32(count: usize) -> u32 {
    u32::try_from(count).expect("counts are checked against limits of 32 bits")
}

#[cfg(test)]
pub(crate) mod tests;
