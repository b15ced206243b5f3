//! Problems: why a plan is refused. Each message names the step, what was found and what would be right.

use crate::plan::{Span, StepIndex, StepName};

/// Why a plan, or what a request builder made, is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// A count of the whole graph is over its limit.
    #[error("graph: {found} {what}: must be at most {max}")]
    TooMany {
        /// What was counted.
        what: &'static str,
        /// How many there are, or at least how many.
        found: u64,
        /// The limit.
        max: u32,
    },
    /// A span of a step does not lie inside its list.
    #[error("{step}: {field} = {} .. {} + {}: must lie inside {list} ({len} entries)", span.start, span.start, span.len)]
    SpanOutside {
        /// Whose span.
        step: StepName,
        /// Which field.
        field: &'static str,
        /// What was found.
        span: Span,
        /// Which list.
        list: &'static str,
        /// How long the list is.
        len: usize,
    },
    /// An id is empty or too long.
    #[error("{step}: id of {found} bytes: must have 1 to {max}")]
    IdLength {
        /// Whose id.
        step: StepName,
        /// Its length.
        found: u32,
        /// The limit.
        max: u16,
    },
    /// An id is no text.
    #[error("{step}: id must be UTF-8")]
    IdNotUtf8 {
        /// Whose id.
        step: StepName,
    },
    /// Two steps have the same id.
    #[error("step {id:?}: steps #{} and #{} have this id: ids must be unique in a graph", first.0, second.0)]
    DuplicateId {
        /// The id.
        id: Box<str>,
        /// The step that has it first.
        first: StepIndex,
        /// Another one.
        second: StepIndex,
    },
    /// There is no such root.
    #[error("graph: root = {root}: must be one of its {nodes} steps, counted from 0")]
    RootMissing {
        /// What was found.
        root: u32,
        /// Number of steps.
        nodes: usize,
    },
    /// There is no such child.
    #[error("{step}: child {child}: must be one of the graph's {nodes} steps, counted from 0")]
    ChildMissing {
        /// Whose child.
        step: StepName,
        /// What was found.
        child: u32,
        /// Number of steps.
        nodes: usize,
    },
    /// The root is a child.
    #[error("{root} is the root, but also a child of {parent}: the root must not be a child")]
    RootIsChild {
        /// The root.
        root: StepName,
        /// Whose child it is.
        parent: StepName,
    },
    /// A step is a child twice.
    #[error("{child} is a child of {first} and of {second}: a step must be the child of exactly one")]
    SharedChild {
        /// The step.
        child: StepName,
        /// One parent.
        first: StepName,
        /// The other parent, or the same one again.
        second: StepName,
    },
    /// A step is neither root nor child.
    #[error("{step} is no step's child: every step but the root must be a child")]
    NoParent {
        /// The step.
        step: StepName,
    },
    /// A step's parents lead back to the step, or to one that does.
    #[error("{step} is part of a cycle, or under one: steps must form a tree under the root")]
    Cycle {
        /// The step.
        step: StepName,
    },
    /// A step is nested too deep.
    #[error("{step}: level {}: steps must be nested at most {max} levels deep", u64::from(*max) + 1)]
    TooDeep {
        /// The step.
        step: StepName,
        /// The limit.
        max: u32,
    },
    /// An `order` or a `pipe` has inputs.
    #[error("{step} has {found} inputs: an order or a pipe must have none, only the steps inside it")]
    GroupInputs {
        /// The step.
        step: StepName,
        /// How many.
        found: u32,
    },
    /// There is no step that an input could be of.
    #[error("{step}: input of step {named}: must be one of the graph's {nodes} steps, counted from 0")]
    InputMissing {
        /// Whose input.
        step: StepName,
        /// What was found.
        named: u32,
        /// Number of steps.
        nodes: usize,
    },
    /// An input is of a step that may not have ended.
    #[error(
        "{step}: input of {named}, which {rule}: an input must be of a step that is certain to have ended before"
    )]
    InputUncertain {
        /// Whose input.
        step: StepName,
        /// The step that it names.
        named: StepName,
        /// Why that one may not have ended.
        rule: InputRule,
    },
    /// There is no such step to respond with.
    #[error("graph: respond-with = {named}: must be one of its {nodes} steps, counted from 0")]
    RespondMissing {
        /// What was found.
        named: u32,
        /// Number of steps.
        nodes: usize,
    },
    /// The step to respond with may have no result although the root is not in error.
    #[error("graph: respond-with names {named}, which {rule}: it must be certain to have a result")]
    RespondUncertain {
        /// The step.
        named: StepName,
        /// Why it may have none.
        rule: InputRule,
    },
    /// A step has too many requests.
    #[error("{step}: {found} requests: one step must have at most {max}")]
    StepRequests {
        /// The step.
        step: StepName,
        /// How many.
        found: u64,
        /// The limit.
        max: u32,
    },
    /// A request breaks a rule.
    #[error("{step}: request {index}: {rule}")]
    Request {
        /// Whose request.
        step: StepName,
        /// Which of its requests, counted from 0.
        index: u32,
        /// What is wrong.
        rule: RequestRule,
    },
}

/// Why a step is not certain to have ended.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InputRule {
    /// It is the very step that asks.
    #[error("is the step itself")]
    Itself,
    /// It cannot end before the step that asks has.
    #[error("encloses it")]
    Encloses,
    /// A `pipe` has them in different children.
    #[error("runs at the same time")]
    SameTime,
    /// An `order` has it behind the step that asks.
    #[error("starts later")]
    Later,
    /// An enclosing tolerant step hides that an `order` ended early.
    #[error(
        "may never run: {order} may end before it, and {tolerant} is tolerant, so that what comes next runs all the same"
    )]
    MayNotRun {
        /// The `order` that may end early.
        order: StepName,
        /// The tolerant step that hides it, often the `order` itself.
        tolerant: StepName,
    },
}

/// What is wrong with a request.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RequestRule {
    /// A span does not lie inside the arena.
    #[error("{field} = {} .. {} + {}: must lie inside the arena ({len} bytes)", span.start, span.start, span.len)]
    SpanOutside {
        /// Which field.
        field: &'static str,
        /// What was found.
        span: Span,
        /// How long the arena is.
        len: usize,
    },
    /// A text has a length that it must not have.
    #[error("{field} of {found} bytes: must have 1 to {max}")]
    Length {
        /// Which field.
        field: &'static str,
        /// Its length.
        found: u32,
        /// The limit.
        max: u16,
    },
    /// The body is of an input that the step has not.
    #[error("body of input {input}: must be one of the step's {inputs} inputs, counted from 0")]
    InputMissing {
        /// What was found.
        input: u32,
        /// Number of inputs.
        inputs: u32,
    },
    /// The body is of an input that comes without one.
    #[error("body of input {input}, which comes without its body: that input must be with-body")]
    InputWithoutBody {
        /// Which input.
        input: u32,
    },
}
