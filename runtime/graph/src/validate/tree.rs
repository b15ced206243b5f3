//! The tree of a plan: parents, an order in which every subtree is contiguous, and where an `order` may stop.
//!
//! ```text
//!         r           first  end        `contains(p, x)`: p.first <= x.first < p.end
//!       /   \      r    0     5
//!      p     c     p    1     4         subtree of p: by_first[p.first .. p.end]
//!     / \          a    2     3
//!    a   b         b    3     4         what an order skips when its child x is the last to run:
//!                  c    4     5         by_first[x.end .. order.end]
//! ```

use std::ops::Range;

use super::{count_u32, numbered, part};
use crate::plan::{Plan, Work};
use crate::problem::PlanError;

/// No step; no child.
pub(crate) const NONE: u32 = u32::MAX;

/// Where a step is in its tree.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place {
    /// Its parent; `NONE` for the root.
    pub(crate) parent: u32,
    /// Its index in the plan's `children`.
    pub(crate) slot: u32,
    /// Its number when steps are counted parents first, in list order.
    pub(crate) first: u32,
    /// One more than the number of the last step inside it.
    pub(crate) end: u32,
    /// Index in `children` of its first child that may be in error; `NONE` where no child may.
    may_fail: u32,
    /// The step with the number that is this entry's index.
    by_first: u32,
    /// The innermost tolerant step that is this one or around it; `NONE` where no such step is tolerant.
    tolerant: u32,
    /// The innermost tolerant step around it that can end well although this one never ran; `NONE` where none can.
    hidden_by: u32,
}

const NEW: Place = Place {
    parent: NONE,
    slot: NONE,
    first: NONE,
    end: NONE,
    may_fail: NONE,
    by_first: NONE,
    tolerant: NONE,
    hidden_by: NONE,
};

/// The places of all steps.
#[derive(Debug)]
pub(crate) struct Tree(Vec<Place>);

impl Tree {
    /// Grows the tree of a plan whose counts have been checked.
    ///
    /// # Errors
    /// A child that does not exist, anything that is no tree, and what is too deep.
    pub(super) fn grow(plan: &Plan, depth_max: u32) -> Result<Self, PlanError> {
        if plan.root as usize >= plan.nodes.len() {
            return Err(PlanError::RootMissing { root: plan.root, nodes: plan.nodes.len() });
        }
        let mut tree = Self(vec![NEW; plan.nodes.len()]);
        tree.link(plan)?;
        let reached = tree.number(plan, depth_max)?;
        if reached as usize != plan.nodes.len() {
            return Err(tree.unreached(plan));
        }
        tree.find_failing(plan);
        tree.find_hidden(plan);
        Ok(tree)
    }

    pub(crate) fn at(&self, step: u32) -> &Place {
        &self.0[step as usize]
    }

    /// Whether `step` is `ancestor` or inside it.
    pub(super) fn contains(&self, ancestor: u32, step: u32) -> bool {
        let place = self.at(ancestor);
        (place.first..place.end).contains(&self.at(step).first)
    }

    /// The innermost tolerant step that can end well although `step`, inside it, never ran.
    ///
    /// A child of an `order` is certain to run up to the first sibling that may fail, and that one too. One behind it runs
    /// only if the `order` gets there: which is known as long as an error of the `order` would count all the way up,
    /// that is, if no step in between is tolerant.
    pub(super) fn hider(&self, step: u32) -> Option<u32> {
        Some(self.at(step).hidden_by).filter(|hider| *hider != NONE)
    }

    /// As [`Tree::hider`], when it is known that the child of `group` around `step` ended well.
    pub(super) fn hider_inside(&self, group: u32, step: u32) -> Option<u32> {
        self.hider(step).filter(|hider| *hider != group && self.contains(group, *hider))
    }

    /// The innermost `order` around `step` that may end before it gets there, for a step that something hides.
    pub(super) fn order_that_may_stop(&self, plan: &Plan, mut step: u32) -> u32 {
        while !self.may_not_reach(plan, step) {
            step = self.at(step).parent;
        }
        self.at(step).parent
    }

    /// Whether an error of an earlier sibling may keep the parent of `step` from starting it.
    fn may_not_reach(&self, plan: &Plan, step: u32) -> bool {
        let place = self.at(step);
        let in_order = matches!(plan.nodes[place.parent as usize].work, Work::Order(_));
        in_order && self.at(place.parent).may_fail < place.slot
    }

    /// What `order` does not start when it ends with `child`: the numbers of all steps behind `child`.
    pub(crate) fn behind(&self, order: u32, child: u32) -> Range<u32> {
        self.at(child).end..self.at(order).end
    }

    /// The step with this number.
    pub(crate) fn numbered(&self, number: u32) -> u32 {
        self.at(number).by_first
    }

    /// Gives each child its parent.
    fn link(&mut self, plan: &Plan) -> Result<(), PlanError> {
        for (parent, node) in numbered(&plan.nodes) {
            let Some(span) = node.work.children() else { continue };
            let slots = part(plan, parent, "children", span, "the graph's children", plan.children.len())?;
            for slot in slots {
                let child = plan.children[slot];
                self.link_child(plan, parent, child)?.slot = count_u32(slot);
            }
        }
        Ok(())
    }

    fn link_child(&mut self, plan: &Plan, parent: u32, child: u32) -> Result<&mut Place, PlanError> {
        let Some(place) = self.0.get_mut(child as usize) else {
            return Err(PlanError::ChildMissing {
                step: plan.step_name(parent),
                child,
                nodes: plan.nodes.len(),
            });
        };
        let name = |step| plan.step_name(step);
        if child == plan.root {
            return Err(PlanError::RootIsChild { root: name(child), parent: name(parent) });
        }
        if place.parent != NONE {
            return Err(PlanError::SharedChild {
                child: name(child),
                first: name(place.parent),
                second: name(parent),
            });
        }
        place.parent = parent;
        Ok(place)
    }

    /// Numbers what can be reached from the root, and says how many steps that are.
    ///
    /// Ends, because no step has two parents and the root has none: what is reached from there is a tree.
    fn number(&mut self, plan: &Plan, depth_max: u32) -> Result<u32, PlanError> {
        let (mut step, mut depth, mut count) = (plan.root, 1, 0);
        loop {
            if depth > depth_max {
                return Err(PlanError::TooDeep { step: plan.step_name(step), max: depth_max });
            }
            self.0[step as usize].first = count;
            self.0[count as usize].by_first = step;
            count += 1;
            match plan.nodes[step as usize].work.children() {
                Some(span) if span.len > 0 => {
                    step = plan.children[span.start as usize];
                    depth += 1;
                }
                _ => match self.leave(plan, step, &mut depth, count) {
                    Some(next) => step = next,
                    None => return Ok(count),
                },
            }
        }
    }

    /// Ends `step`, and all around it whose last child has ended; returns what comes next.
    fn leave(&mut self, plan: &Plan, mut step: u32, depth: &mut u32, count: u32) -> Option<u32> {
        loop {
            let place = &mut self.0[step as usize];
            place.end = count;
            let (parent, next) = (place.parent, place.slot.wrapping_add(1));
            if parent == NONE {
                return None;
            }
            let siblings = plan.nodes[parent as usize].work.children().expect("a parent has children");
            if next < siblings.end() {
                return Some(plan.children[next as usize]);
            }
            step = parent;
            *depth -= 1;
        }
    }

    /// Why some steps were not reached.
    fn unreached(&self, plan: &Plan) -> PlanError {
        let mut lost = (0..).zip(&self.0).filter(|(_, place)| place.first == NONE);
        let orphan = lost.clone().find(|(_, place)| place.parent == NONE);
        match orphan {
            Some((step, _)) => PlanError::NoParent { step: plan.step_name(step) },
            None => {
                let (step, _) = lost.next().expect("fewer steps were reached than there are");
                PlanError::Cycle { step: plan.step_name(step) }
            }
        }
    }

    /// Finds out which steps may be in error: children first, the last one first.
    fn find_failing(&mut self, plan: &Plan) {
        for number in (1..self.0.len()).rev() {
            let step = self.0[number].by_first as usize;
            let place = self.0[step];
            let node = &plan.nodes[step];
            let may_fail = match node.work {
                Work::Order(_) | Work::Pipe(_) => place.may_fail != NONE,
                Work::Requests(requests) => requests.len > 0,
                Work::Builder(_) | Work::Internal(_) | Work::Prepared(_) => true,
            };
            if may_fail && !node.tolerant {
                self.0[place.parent as usize].may_fail = place.slot;
            }
        }
    }

    /// Finds out which steps may never run without an error to show for it: parents first.
    fn find_hidden(&mut self, plan: &Plan) {
        for number in 0..self.0.len() {
            let step = self.0[number].by_first;
            let parent = self.at(step).parent;
            let (mut tolerant, mut hidden_by) = (NONE, NONE);
            if parent != NONE {
                let around = self.at(parent);
                tolerant = around.tolerant;
                hidden_by = if self.may_not_reach(plan, step) { around.tolerant } else { around.hidden_by };
            }
            let place = &mut self.0[step as usize];
            place.hidden_by = hidden_by;
            place.tolerant = if plan.nodes[step as usize].tolerant { step } else { tolerant };
        }
    }
}
