//! A graph under test: what it starts, and results for it by id.

use crate::testing::{Sketch, bytes};
use crate::validate::id_of;
use crate::{Action, Engine, EngineError, Response, StepIndex, StepResult};

use super::super::Held;

pub(super) struct Run {
    pub(super) engine: Engine,
}

impl Run {
    pub(super) fn of(graph: &Sketch) -> Self {
        Self { engine: Engine::start(graph.valid()) }
    }

    pub(super) fn index(&self, id: &str) -> StepIndex {
        let plan = &self.engine.valid.plan;
        StepIndex((0..).find(|index| id_of(plan, *index) == id.as_bytes()).unwrap())
    }

    /// The ids of all steps that something is to be done for now. The graph must not end.
    pub(super) fn started(&mut self) -> Vec<String> {
        let mut ids = Vec::new();
        while let Some(action) = self.engine.next_action() {
            ids.push(self.engine.step_id(step_of(&action).unwrap()).to_owned());
        }
        ids
    }

    /// The URL of the one request that is to be sent now.
    pub(super) fn sent(&mut self) -> String {
        match self.engine.next_action() {
            Some(Action::Send { request, .. }) => String::from_utf8(request.url.to_vec()).unwrap(),
            other => panic!("must send: {other:?}"),
        }
    }

    /// The response, which must come now.
    pub(super) fn response(&mut self) -> Response {
        match self.engine.next_action() {
            Some(Action::Done(response)) => response,
            other => panic!("must be done: {other:?}"),
        }
    }

    /// Ends an internal step, or answers a request, with the id as the body.
    pub(super) fn ok(&mut self, id: &str) {
        let step = self.index(id);
        let result = StepResult::ok(bytes(""), bytes(id));
        let taken =
            self.engine.on_result(step, result.clone()).or_else(|_| self.engine.on_answer(step, result));
        taken.unwrap();
    }

    pub(super) fn fails(&mut self, id: &str) {
        self.engine.on_result(self.index(id), StepResult::failure(500, format!("{id} failed"))).unwrap();
    }

    pub(super) fn answers(&mut self, id: &str, status: u16) {
        self.engine.on_answer(self.index(id), StepResult::answer(status, bytes(""), bytes(id))).unwrap();
    }

    /// Gives a step every kind of result, none of which it may take.
    pub(super) fn late(&mut self, id: &str) -> EngineError {
        let step = self.index(id);
        self.engine.on_answer(step, StepResult::skipped()).unwrap_err();
        self.engine.on_built(step, Err("late".into())).unwrap_err();
        self.engine.on_failure(step, 504, "late").unwrap_err();
        self.engine.on_result(step, StepResult::skipped()).unwrap_err()
    }

    /// The ids of the steps whose results are kept.
    pub(super) fn held(&self) -> Vec<String> {
        let held = |slot: &&(u32, &super::super::Slot)| matches!(slot.1.held, Held::Result(_));
        let slots: Vec<_> = (0..).zip(&self.engine.slots).collect();
        slots.iter().filter(held).map(|(step, _)| self.engine.step_id(StepIndex(*step)).to_owned()).collect()
    }
}

/// The step that an action is for.
pub(super) fn step_of(action: &Action) -> Option<StepIndex> {
    match action {
        Action::RunStep { step, .. }
        | Action::Prepared { step, .. }
        | Action::BuildRequests { step, .. }
        | Action::Send { step, .. } => Some(*step),
        Action::Done(_) => None,
    }
}
