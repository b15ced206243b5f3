//! The slow, obvious engine: from the tree and the results so far, it works out everything anew.

use std::collections::BTreeMap;

use crate::StepResult;
use crate::testing::{Does, Sketch};

/// What a step came to by itself: its result, and whether that is an error.
pub(crate) type Ends = BTreeMap<String, (StepResult, bool)>;

/// What is true of a step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum State {
    /// Not started, or not ended yet.
    Open,
    /// Ended, with the leaf whose result is its value, and whether it is in error.
    Ended(Option<String>, bool),
}

/// What is true of a graph.
#[derive(Debug, Default)]
pub(crate) struct Picture {
    /// Of all steps that have started.
    pub(crate) states: BTreeMap<String, State>,
    /// Steps that are to be running now and have not ended, in list order.
    pub(crate) running: Vec<String>,
    /// For each open pipe, the child whose value it would have if nothing else came.
    pub(crate) candidates: BTreeMap<String, String>,
}

/// Works out what is true of `graph` when the steps in `ends` have ended.
pub(crate) fn picture(graph: &Sketch, ends: &Ends) -> Picture {
    let mut picture = Picture::default();
    picture.step(graph, ends);
    picture
}

impl Picture {
    pub(crate) fn ended(&self, id: &str) -> Option<(Option<String>, bool)> {
        match self.states.get(id)? {
            State::Open => None,
            State::Ended(value, in_error) => Some((value.clone(), *in_error)),
        }
    }

    fn step(&mut self, step: &Sketch, ends: &Ends) -> State {
        let state = match &step.does {
            Does::Order(children) => self.order(children, ends),
            Does::Pipe(children) => self.pipe(step, children, ends),
            Does::Requests(0) => State::Ended(Some(step.id.clone()), false),
            Does::Requests(_) | Does::Builder | Does::Internal | Does::Prepared => self.leaf(step, ends),
        };
        self.states.insert(step.id.clone(), state.clone());
        state
    }

    fn leaf(&mut self, step: &Sketch, ends: &Ends) -> State {
        match ends.get(&step.id) {
            Some((_, in_error)) => State::Ended(Some(step.id.clone()), *in_error),
            None => {
                self.running.push(step.id.clone());
                State::Open
            }
        }
    }

    fn order(&mut self, children: &[Sketch], ends: &Ends) -> State {
        let mut last = State::Ended(None, false);
        for child in children {
            last = self.step(child, ends);
            match &last {
                State::Open => return State::Open,
                State::Ended(value, true) if !child.tolerant => return State::Ended(value.clone(), true),
                State::Ended(..) => {}
            }
        }
        as_value(last)
    }

    fn pipe(&mut self, pipe: &Sketch, children: &[Sketch], ends: &Ends) -> State {
        let states: Vec<State> = children.iter().map(|child| self.step(child, ends)).collect();
        let failed =
            |&index: &usize| matches!(states[index], State::Ended(_, true)) && !children[index].tolerant;
        let first_failed = (0..children.len()).find(failed);
        let last = children.len().checked_sub(1).filter(|&last| states[last] != State::Open);
        if states.contains(&State::Open) {
            if let Some(candidate) = first_failed.or(last) {
                self.candidates.insert(pipe.id.clone(), children[candidate].id.clone());
            }
            return State::Open;
        }
        match (first_failed, last) {
            (Some(failed), _) => states[failed].clone(),
            (None, Some(last)) => as_value(states[last].clone()),
            (None, None) => State::Ended(None, false),
        }
    }
}

/// The state of a group without an error whose last child has this one: a tolerated error is a value.
fn as_value(last: State) -> State {
    match last {
        State::Ended(value, _) => State::Ended(value, false),
        State::Open => State::Open,
    }
}

/// The leaves whose results somebody may still want.
pub(crate) fn wanted(graph: &Sketch, respond_with: Option<&str>, picture: &Picture) -> Vec<String> {
    if picture.ended(&graph.id).is_some() {
        return Vec::new();
    }
    let value_of = |id: &str| picture.ended(id).and_then(|(value, _)| value);
    let mut wanted: Vec<String> = respond_with.and_then(value_of).into_iter().collect();
    wanted.extend(picture.candidates.values().filter_map(|child| value_of(child)));
    for step in graph.all().into_iter().filter(|step| !step.inputs.is_empty()) {
        if may_still_run(graph, &step.id, picture) {
            wanted.extend(step.inputs.iter().filter_map(|(named, _)| value_of(named)));
        }
    }
    wanted.sort();
    wanted.dedup();
    wanted
}

/// Whether `id` is in `graph`, and neither it nor any group around it has ended.
fn may_still_run(graph: &Sketch, id: &str, picture: &Picture) -> bool {
    let inside = graph.id == id || graph.children().iter().any(|child| may_still_run(child, id, picture));
    inside && picture.ended(&graph.id).is_none()
}
