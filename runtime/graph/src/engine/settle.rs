//! Settling: what the end of a step means to the groups around it, and which results may go.

use super::{Engine, Held, Phase, Response};
use crate::plan::{StepIndex, Work};
use crate::result::{EMPTY, StepResult};
use crate::validate::NONE;

/// How a step ended: the leaf with its result, and whether that counts as an error for its parent.
#[derive(Clone, Copy)]
struct End {
    value: u32,
    in_error: bool,
}

/// What a group does when a child of it has ended.
enum After {
    Ends(End),
    Starts(u32),
    Waits,
}

impl Engine {
    /// Ends a step that did something itself, and all groups that end with it; returns the step that can start now.
    pub(super) fn end_leaf(&mut self, step: u32, result: StepResult, in_error: bool) -> Option<u32> {
        let slot = self.slot_mut(step);
        slot.held = Held::Result(result);
        // The value on its way up: given back by whoever does not take it as its own.
        slot.holders = 1;
        self.settle(step, step, in_error)
    }

    /// Ends `step`, then its parent if that ends with it, and so on up to the root or to an `order` with more to do:
    /// returns the child that comes next there.
    pub(super) fn settle(&mut self, mut step: u32, value: u32, in_error: bool) -> Option<u32> {
        let mut end = End { value, in_error };
        loop {
            self.mark_ended(step, end);
            let node = &self.valid.plan.nodes[step as usize];
            end.in_error &= !node.tolerant;
            let parent = self.valid.tree.at(step).parent;
            if parent == NONE {
                self.finish(end);
                return None;
            }
            let parent_end = match self.valid.plan.nodes[parent as usize].work {
                Work::Order(_) => self.child_of_order(parent, step, end),
                Work::Pipe(_) => self.child_of_pipe(parent, step, end),
                Work::Requests(_) | Work::Builder(_) | Work::Internal(_) | Work::Prepared(_) => {
                    unreachable!("only groups have children")
                }
            };
            match parent_end {
                After::Ends(parent_end) => (step, end) = (parent, parent_end),
                After::Starts(next) => return Some(next),
                After::Waits => return None,
            }
        }
    }

    fn mark_ended(&mut self, step: u32, end: End) {
        let slot = self.slot_mut(step);
        (slot.phase, slot.value, slot.in_error) = (Phase::Ended, end.value, end.in_error);
        let readers = slot.readers;
        if end.value != NONE {
            self.slot_mut(end.value).holders += readers;
        }
        self.give_back_inputs(step);
    }

    /// A child of an `order` has ended: the order ends with it, or starts the next one.
    fn child_of_order(&mut self, order: u32, child: u32, end: End) -> After {
        if end.in_error {
            self.skip_behind(order, child);
            return After::Ends(end);
        }
        let siblings = self.valid.plan.nodes[order as usize].work.children().expect("an order has children");
        let next = self.valid.tree.at(child).slot + 1;
        if next == siblings.end() {
            return After::Ends(end);
        }
        self.give_back(end.value);
        After::Starts(self.valid.plan.children[next as usize])
    }

    fn skip_behind(&mut self, order: u32, child: u32) {
        for number in self.valid.tree.behind(order, child) {
            let step = self.valid.tree.numbered(number);
            self.slot_mut(step).phase = Phase::Never;
            self.give_back_inputs(step);
        }
    }

    /// A child of a `pipe` has ended: the pipe ends with the last one to do so.
    fn child_of_pipe(&mut self, pipe: u32, child: u32, end: End) -> After {
        let best = self.slot(pipe).value;
        if self.is_better(pipe, child, end.in_error, best) {
            if best != NONE {
                self.give_back(self.slot(best).value);
            }
            self.slot_mut(pipe).value = child;
        } else {
            self.give_back(end.value);
        }
        let slot = self.slot_mut(pipe);
        slot.count -= 1;
        if slot.count > 0 {
            return After::Waits;
        }
        let best = slot.value;
        After::Ends(End { value: self.slot(best).value, in_error: self.counts_as_error(best) })
    }

    /// Whether the pipe's value is `child`'s rather than `best`'s: the first error in the graph, else the last child.
    fn is_better(&self, pipe: u32, child: u32, in_error: bool, best: u32) -> bool {
        let slot_of = |step| self.valid.tree.at(step).slot;
        match (in_error, best != NONE && self.counts_as_error(best)) {
            (true, true) => slot_of(child) < slot_of(best),
            (true, false) => true,
            (false, true) => false,
            (false, false) => self.children(pipe).last() == Some(&child),
        }
    }

    fn counts_as_error(&self, ended: u32) -> bool {
        self.slot(ended).in_error && !self.valid.plan.nodes[ended as usize].tolerant
    }

    /// The root has ended: its error or value is the response, or the value that `respond-with` names.
    fn finish(&mut self, end: End) {
        let named = self.valid.plan.respond_with.filter(|_| !end.in_error);
        let value = named.map_or(end.value, |step| self.slot(step).value);
        let result = match value {
            NONE => EMPTY.clone(),
            leaf => self.take_result(leaf),
        };
        let step = (value != NONE).then_some(StepIndex(value));
        self.response = Some(Response { result, step, in_error: end.in_error });
        self.free_rest(end.value);
    }

    fn take_result(&mut self, leaf: u32) -> StepResult {
        match std::mem::replace(&mut self.slot_mut(leaf).held, Held::Nothing) {
            Held::Result(result) => result,
            Held::Nothing | Held::Built(_) => unreachable!("a value is held until it is taken"),
        }
    }

    /// Frees what was kept for the other kind of end: the root's value, or what `respond-with` names.
    fn free_rest(&mut self, root_value: u32) {
        let named = self.valid.plan.respond_with.map_or(NONE, |step| self.slot(step).value);
        for leaf in [root_value, named] {
            if leaf != NONE {
                self.slot_mut(leaf).held = Held::Nothing;
            }
        }
    }

    /// The inputs of a step that has ended, or never runs, are wanted no more.
    fn give_back_inputs(&mut self, step: u32) {
        for index in self.valid.plan.nodes[step as usize].inputs.range() {
            let named = self.valid.plan.inputs[index].step;
            if self.slot(named).phase == Phase::Ended {
                self.give_back(self.slot(named).value);
            }
        }
    }

    fn give_back(&mut self, leaf: u32) {
        if leaf == NONE {
            return;
        }
        let slot = self.slot_mut(leaf);
        slot.holders -= 1;
        if slot.holders == 0 {
            slot.held = Held::Nothing;
        }
    }
}
