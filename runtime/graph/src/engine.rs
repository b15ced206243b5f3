//! Engine: what comes next in a graph.
//!
//! ```text
//!  leaf:   Waiting -> Ready -> Running | Building | Sending -> Ended      (one more request: back to Ready)
//!  group:  Waiting -> Ready -> Open ------------------------> Ended
//!  behind the error of an order: Waiting -> Never
//! ```
//!
//! - Ready steps form a queue through their slots; a group that comes to its head is replaced by its children, and what
//!   has nothing to do by what comes next, so that actions come in list order. What a result makes ready goes to the tail.
//! - A group's value is the result of a leaf, known by the leaf's index; results are never copied or moved until the response.
//! - A result is kept while somebody may want it: inputs of steps that have not ended, `respond-with`, and the group that may
//!   take it as its value. `holders` counts them; at 0 the result is freed.
//! - Results come from outside: one that no step waits for is an error and changes nothing.
//! - Not here: what settles a group ([`settle`]), what a caller sees ([`view`]).

mod settle;
mod view;

use bytes::Bytes;

use crate::plan::{BuiltRequests, FunctionCall, Prepared, Span, StepIndex, Work};
use crate::result::StepResult;
use crate::validate::{NONE, ValidPlan, check_built};

pub use view::{Action, EngineError, InputView, OutgoingBody, OutgoingRequest, Response, StepKind};

/// Runs one graph: says what is to be done, takes the results, and ends with the response.
///
/// - cost: one allocation when it starts; then no allocation, no hashing, and for each step time that does not depend
///   on the size of the graph.
#[derive(Debug)]
pub struct Engine {
    valid: ValidPlan,
    slots: Vec<Slot>,
    /// First and last of the steps that are ready.
    head: u32,
    tail: u32,
    /// Requests of all steps so far, those that builders made included.
    requests: u32,
    /// The response, between the end of the root and the action that gives it.
    response: Option<Response>,
}

/// The state of one step.
#[derive(Debug, Clone)]
struct Slot {
    phase: Phase,
    /// The step itself came to an error, `tolerant` or not.
    in_error: bool,
    /// The next ready step.
    next: u32,
    /// `pipe`: children that have not ended. Egress: requests that have been sent.
    count: u32,
    /// Ended: the leaf whose result is the value, `NONE` for the empty result. Open `pipe`: the child whose value or error
    /// it will have, as far as is known.
    value: u32,
    /// Inputs (and `respond-with`) that name this step and may still be wanted.
    readers: u32,
    /// Leaf: who may still want its result.
    holders: u32,
    held: Held,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Waiting,
    Ready,
    Open,
    Running,
    Building,
    Sending,
    Ended,
    Never,
}

#[derive(Debug, Clone)]
enum Held {
    Nothing,
    Built(BuiltRequests),
    Result(StepResult),
}

const NEW: Slot = Slot {
    phase: Phase::Waiting,
    in_error: false,
    next: NONE,
    count: 0,
    value: NONE,
    readers: 0,
    holders: 0,
    held: Held::Nothing,
};

impl Engine {
    /// An engine whose root is ready.
    pub fn start(valid: ValidPlan) -> Self {
        let slots = vec![NEW; valid.plan.nodes.len()];
        let (root, requests) = (valid.plan.root, valid.requests);
        let mut engine = Self { valid, slots, head: NONE, tail: NONE, requests, response: None };
        engine.count_readers();
        engine.push_back(root);
        engine
    }

    /// What is to be done next; call it until it returns nothing, at the start and after each result.
    ///
    /// Nothing: results are awaited, or the response has been given. [`Action::Done`] comes once.
    pub fn next_action(&mut self) -> Option<Action> {
        while let Some(step) = self.pop() {
            match self.valid.plan.nodes[step as usize].work {
                Work::Order(_) => self.open_order(step),
                Work::Pipe(_) => self.open_pipe(step),
                Work::Requests(requests) if requests.len == 0 => self.skip(step),
                Work::Requests(_) => return Some(self.send(step)),
                Work::Builder(_) if matches!(self.slot(step).held, Held::Built(_)) => {
                    return Some(self.send(step));
                }
                Work::Builder(call) => return Some(self.build(step, call)),
                Work::Internal(call) => return Some(self.run(step, call)),
                Work::Prepared(prepared) => return Some(self.run_prepared(step, prepared)),
            }
        }
        self.response.take().map(Action::Done)
    }

    /// Takes what a function returned for an [`Action::RunStep`], or the result of an [`Action::Prepared`]. It is an error of the step if it has an error text.
    ///
    /// # Errors
    /// No step waits for it; nothing has changed.
    pub fn on_result(&mut self, step: StepIndex, result: StepResult) -> Result<(), EngineError> {
        let step = self.awaited(step, &[Phase::Running], "a step result")?;
        let in_error = result.error.is_some();
        self.end(step, result, in_error);
        Ok(())
    }

    /// Takes what a request builder returned for an [`Action::BuildRequests`]: requests, or why it failed.
    ///
    /// Requests that break a rule are an error of the step, status 500, that says which.
    ///
    /// # Errors
    /// No step waits for it; nothing has changed.
    pub fn on_built(
        &mut self,
        step: StepIndex,
        built: Result<BuiltRequests, Box<str>>,
    ) -> Result<(), EngineError> {
        let step = self.awaited(step, &[Phase::Building], "built requests")?;
        match built.and_then(|built| self.admit(step, built)) {
            Err(why) => self.end(step, StepResult::failure(500, why), true),
            Ok(built) if built.requests.is_empty() => self.end(step, StepResult::skipped(), false),
            Ok(built) => {
                self.slot_mut(step).held = Held::Built(built);
                self.push_back(step);
            }
        }
        Ok(())
    }

    /// Takes the answer to an [`Action::Send`], or why there is none.
    ///
    /// # Errors
    /// No step waits for it; nothing has changed.
    pub fn on_answer(&mut self, step: StepIndex, answer: StepResult) -> Result<(), EngineError> {
        let step = self.awaited(step, &[Phase::Sending], "an answer")?;
        let ok = answer.is_ok_answer();
        if ok && (self.slot(step).count as usize) < self.requests_of(step).0.len() {
            self.push_back(step);
        } else {
            self.end(step, answer, !ok);
        }
        Ok(())
    }

    /// Takes the failure of whatever the step waits for: a trap, a limit, a deadline. It is an error of the step.
    ///
    /// # Errors
    /// The step waits for nothing; nothing has changed.
    pub fn on_failure(
        &mut self,
        step: StepIndex,
        status: u16,
        text: impl Into<Box<str>>,
    ) -> Result<(), EngineError> {
        let step = self.awaited(step, &[Phase::Running, Phase::Building, Phase::Sending], "a failure")?;
        self.end(step, StepResult::failure(status, text), true);
        Ok(())
    }

    /// Whether the response has been given.
    pub fn is_done(&self) -> bool {
        self.slot(self.valid.plan.root).phase == Phase::Ended && self.response.is_none()
    }

    fn count_readers(&mut self) {
        for node in &self.valid.plan.nodes {
            for input in &self.valid.plan.inputs[node.inputs.range()] {
                self.slots[input.step as usize].readers += 1;
            }
        }
        if let Some(step) = self.valid.plan.respond_with {
            self.slots[step as usize].readers += 1;
        }
    }

    /// Ends a step with a result from outside: what can start now, starts after what could start before.
    fn end(&mut self, step: u32, result: StepResult, in_error: bool) {
        if let Some(next) = self.end_leaf(step, result, in_error) {
            self.push_back(next);
        }
    }

    /// Replaces an `order` at the head of the queue by its first child, or ends it.
    fn open_order(&mut self, step: u32) {
        self.slot_mut(step).phase = Phase::Open;
        let next = match *self.children(step) {
            [] => self.settle(step, NONE, false),
            [first, ..] => Some(first),
        };
        if let Some(next) = next {
            self.push_front(next);
        }
    }

    /// Replaces a `pipe` at the head of the queue by its children, or ends it.
    fn open_pipe(&mut self, step: u32) {
        let span = self.valid.plan.nodes[step as usize].work.children().expect("a pipe has children");
        let slot = self.slot_mut(step);
        (slot.phase, slot.count) = (Phase::Open, span.len);
        if span.len == 0
            && let Some(next) = self.settle(step, NONE, false)
        {
            self.push_front(next);
        }
        for index in span.range().rev() {
            self.push_front(self.valid.plan.children[index]);
        }
    }

    fn skip(&mut self, step: u32) {
        if let Some(next) = self.end_leaf(step, StepResult::skipped(), false) {
            self.push_front(next);
        }
    }

    fn run(&mut self, step: u32, call: FunctionCall) -> Action {
        self.slot_mut(step).phase = Phase::Running;
        Action::RunStep { step: StepIndex(step), function: call.function, args: self.args(call) }
    }

    /// As an input, a result can be seen while its step is busy: the step is, from here on.
    fn run_prepared(&mut self, step: u32, prepared: Prepared) -> Action {
        let run = self.run(step, prepared.otherwise);
        if !self.inputs(StepIndex(step)).all(|input| input.is_plain()) {
            return run;
        }
        let part = |span: Span| self.valid.plan.arena.slice(span.range());
        let result = StepResult::answer(prepared.status, part(prepared.headers), part(prepared.body));
        Action::Prepared { step: StepIndex(step), result }
    }

    fn build(&mut self, step: u32, call: FunctionCall) -> Action {
        self.slot_mut(step).phase = Phase::Building;
        Action::BuildRequests { step: StepIndex(step), function: call.function, args: self.args(call) }
    }

    fn send(&mut self, step: u32) -> Action {
        let slot = self.slot_mut(step);
        slot.phase = Phase::Sending;
        let index = slot.count;
        slot.count += 1;
        let (requests, arena) = self.requests_of(step);
        let request = self.outgoing(step, &requests[index as usize], arena);
        Action::Send { step: StepIndex(step), request }
    }

    fn args(&self, call: FunctionCall) -> Bytes {
        self.valid.plan.arena.slice(call.args.range())
    }

    fn admit(&mut self, step: u32, built: BuiltRequests) -> Result<BuiltRequests, Box<str>> {
        self.requests =
            check_built(&self.valid, self.requests, step, &built).map_err(|why| why.to_string())?;
        Ok(built)
    }

    /// The step, if it exists and is in one of the phases in which `got` is awaited.
    fn awaited(&self, step: StepIndex, phases: &[Phase], got: &'static str) -> Result<u32, EngineError> {
        match self.slots.get(step.0 as usize) {
            None => Err(EngineError::NoSuchStep { step, steps: self.slots.len() }),
            Some(slot) if phases.contains(&slot.phase) => Ok(step.0),
            Some(slot) => {
                Err(EngineError::NotAwaited { id: self.step_id(step).into(), got, state: slot.phase.state() })
            }
        }
    }

    fn children(&self, step: u32) -> &[u32] {
        let span = self.valid.plan.nodes[step as usize].work.children();
        span.map_or(&[], |span| &self.valid.plan.children[span.range()])
    }

    fn slot(&self, step: u32) -> &Slot {
        &self.slots[step as usize]
    }

    fn slot_mut(&mut self, step: u32) -> &mut Slot {
        &mut self.slots[step as usize]
    }

    fn pop(&mut self) -> Option<u32> {
        let step = self.head;
        if step == NONE {
            return None;
        }
        self.head = self.slot(step).next;
        if self.head == NONE {
            self.tail = NONE;
        }
        Some(step)
    }

    fn push_front(&mut self, step: u32) {
        let head = self.head;
        let slot = self.slot_mut(step);
        (slot.phase, slot.next) = (Phase::Ready, head);
        self.head = step;
        if head == NONE {
            self.tail = step;
        }
    }

    fn push_back(&mut self, step: u32) {
        let slot = self.slot_mut(step);
        (slot.phase, slot.next) = (Phase::Ready, NONE);
        match self.tail {
            NONE => self.head = step,
            tail => self.slot_mut(tail).next = step,
        }
        self.tail = step;
    }
}

#[cfg(test)]
pub(crate) mod tests;
