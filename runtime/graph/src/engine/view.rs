//! What an engine's owner sees of it: actions, inputs, the response, errors.

use std::borrow::Cow;

use bytes::Bytes;

use super::{Engine, Held, Phase};
use crate::plan::{BodySource, EgressRequest, Input, Plan, StepIndex, Work};
use crate::result::{EMPTY, StepResult};
use crate::validate::{NONE, id_of};

/// What is to be done next. Everything in it shares memory with the plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Run an internal step; its inputs are [`Engine::inputs`]. Ends with [`Engine::on_result`].
    RunStep {
        /// Which step.
        step: StepIndex,
        /// The cell's function.
        function: u32,
        /// Its arguments.
        args: Bytes,
    },
    /// Nothing needs to be run: all inputs of a prepared step are plain. Its result, for [`Engine::on_result`].
    Prepared {
        /// Which step.
        step: StepIndex,
        /// What it comes to.
        result: StepResult,
    },
    /// Run a request builder; its inputs are [`Engine::inputs`]. Ends with [`Engine::on_built`].
    BuildRequests {
        /// Which step.
        step: StepIndex,
        /// The cell's function.
        function: u32,
        /// Its arguments.
        args: Bytes,
    },
    /// Send a request. Ends with [`Engine::on_answer`].
    Send {
        /// Which step.
        step: StepIndex,
        /// The request.
        request: OutgoingRequest,
    },
    /// The graph has ended. There will be no further action.
    Done(Response),
}

/// A request to another service, its spans resolved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutgoingRequest {
    /// HTTP method, within the limits, otherwise as the cell gave it.
    pub method: Bytes,
    /// URL, within the limits, otherwise as the cell gave it.
    pub url: Bytes,
    /// Header lines as the cell gave them.
    pub headers: Bytes,
    /// The body.
    pub body: OutgoingBody,
}

/// The body of an [`OutgoingRequest`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OutgoingBody {
    /// These bytes.
    Bytes(Bytes),
    /// The body of the request that the handler was given, which the engine does not have.
    OfRequest,
}

/// How a graph ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Response {
    /// The root's error, or the result to respond with.
    pub result: StepResult,
    /// The egress or internal step that it is the result of; none where an empty group had nothing to do.
    pub step: Option<StepIndex>,
    /// Whether the root is in error. The result of a `tolerant` step can be one with an error text all the same.
    pub in_error: bool,
}

impl Response {
    /// The step whose error the response is.
    pub fn failed_step(&self) -> Option<StepIndex> {
        self.step.filter(|_| self.in_error)
    }
}

/// What kind of step it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StepKind {
    /// Runs its children one after the other.
    Order,
    /// Runs its children at the same time.
    Pipe,
    /// Calls other services.
    Egress,
    /// Runs a function of the cell.
    Internal,
}

/// An input of a step that has been started.
#[derive(Debug, Clone, Copy)]
pub struct InputView<'e> {
    /// Id of the step that the input names.
    pub id: &'e str,
    /// That step's value.
    pub result: &'e StepResult,
    /// Whether the value is an error that a `tolerant` step kept.
    pub failed: bool,
    /// Whether the step wants the body too.
    pub with_body: bool,
}

impl<'e> InputView<'e> {
    /// Whether it is an answer 200 that is no error.
    pub fn is_plain(&self) -> bool {
        !self.failed && self.result.status == 200
    }

    /// Why it failed, if it did: an answer with a bad status has no text of its own and gets one.
    pub fn error(&self) -> Option<Cow<'e, str>> {
        let text = self.result.error.as_deref().map(Cow::Borrowed);
        text.filter(|_| self.failed).or_else(|| {
            self.failed.then(|| Cow::Owned(format!("answered with status {}", self.result.status)))
        })
    }
}

/// A result that no step waits for: it came twice, too late, or for the wrong step.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EngineError {
    /// There is no such step.
    #[error("result for step #{}: the graph has {steps} steps", step.0)]
    NoSuchStep {
        /// What was found.
        step: StepIndex,
        /// Number of steps.
        steps: usize,
    },
    /// The step waits for something else, or for nothing.
    #[error("step {id:?}: got {got}, but it {state}")]
    NotAwaited {
        /// The step's id.
        id: Box<str>,
        /// What came.
        got: &'static str,
        /// What the step does.
        state: &'static str,
    },
}

impl Engine {
    /// The id of a step.
    ///
    /// # Panics
    /// If there is no such step: indices come from actions.
    pub fn step_id(&self, step: StepIndex) -> &str {
        std::str::from_utf8(id_of(&self.valid.plan, step.0)).expect("validation has read the id as UTF-8")
    }

    /// The plan that it runs.
    pub fn plan(&self) -> &Plan {
        &self.valid.plan
    }

    /// What kind of step it is.
    ///
    /// # Panics
    /// If there is no such step: indices come from actions.
    pub fn kind(&self, step: StepIndex) -> StepKind {
        match self.valid.plan.nodes[step.0 as usize].work {
            Work::Order(_) => StepKind::Order,
            Work::Pipe(_) => StepKind::Pipe,
            Work::Requests(_) | Work::Builder(_) => StepKind::Egress,
            Work::Internal(_) | Work::Prepared(_) => StepKind::Internal,
        }
    }

    /// The inputs of a step between its first action and its end, in the order in which it named them; none at other times.
    pub fn inputs(&self, step: StepIndex) -> impl ExactSizeIterator<Item = InputView<'_>> + use<'_> {
        self.named_inputs(step).iter().map(|input| self.view(*input))
    }

    /// Input `index` of a step, as in [`Engine::inputs`].
    pub fn input(&self, step: StepIndex, index: u32) -> Option<InputView<'_>> {
        self.named_inputs(step).get(index as usize).map(|input| self.view(*input))
    }

    fn named_inputs(&self, step: StepIndex) -> &[Input] {
        let busy = |phase| matches!(phase, Phase::Running | Phase::Building | Phase::Sending);
        match self.slots.get(step.0 as usize) {
            Some(slot) if busy(slot.phase) => {
                &self.valid.plan.inputs[self.valid.plan.nodes[step.0 as usize].inputs.range()]
            }
            _ => &[],
        }
    }

    fn view(&self, input: Input) -> InputView<'_> {
        let value = self.slot(input.step).value;
        let id = self.step_id(StepIndex(input.step));
        let failed = value != NONE && self.slot(value).in_error;
        InputView { id, result: self.result_of(value), failed, with_body: input.with_body }
    }

    fn result_of(&self, value: u32) -> &StepResult {
        match value {
            NONE => &EMPTY,
            leaf => match &self.slot(leaf).held {
                Held::Result(result) => result,
                Held::Nothing | Held::Built(_) => {
                    unreachable!("an input has ended, and is held for its readers")
                }
            },
        }
    }

    /// The requests of an egress step, as far as they are known, and the arena that they point into.
    pub(super) fn requests_of(&self, step: u32) -> (&[EgressRequest], &Bytes) {
        let plan = &self.valid.plan;
        match (&self.slot(step).held, plan.nodes[step as usize].work) {
            (Held::Built(built), _) => (&built.requests, &built.arena),
            (_, Work::Requests(span)) => (&plan.requests[span.range()], &plan.arena),
            _ => (&[], &plan.arena),
        }
    }

    pub(super) fn outgoing(&self, step: u32, request: &EgressRequest, arena: &Bytes) -> OutgoingRequest {
        OutgoingRequest {
            method: arena.slice(request.method.range()),
            url: arena.slice(request.url.range()),
            headers: arena.slice(request.headers.range()),
            body: self.body(step, request.body, arena),
        }
    }

    fn body(&self, step: u32, source: BodySource, arena: &Bytes) -> OutgoingBody {
        match source {
            BodySource::Bytes(span) => OutgoingBody::Bytes(arena.slice(span.range())),
            BodySource::OfRequest => OutgoingBody::OfRequest,
            BodySource::OfInput(index) => {
                let input = self.input(StepIndex(step), index).expect("validation has counted the inputs");
                OutgoingBody::Bytes(input.result.body.clone())
            }
        }
    }
}

impl Phase {
    /// What a step in this phase does, for a message.
    pub(super) fn state(self) -> &'static str {
        match self {
            Self::Waiting | Self::Ready => "has not started",
            Self::Open => "waits for its children",
            Self::Running => "waits for a step result",
            Self::Building => "waits for built requests",
            Self::Sending => "waits for an answer",
            Self::Ended => "has ended",
            Self::Never => "never runs",
        }
    }
}
