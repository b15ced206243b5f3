//! Execution graphs: plans, validation and the engine; pure, no I/O.
//!
//! ```text
//!  cell                    host                                   lane
//!  ----                    ----                                   ----
//!  graph + arena --> Plan --validate--> ValidPlan --start--> Engine -- next_action --> RunStep
//!                               |                              ^                       BuildRequests
//!                               v                              |                       Send
//!                           PlanError                          +-- on_result, on_built, on_answer
//!                    (the step and the rule)                   |
//!                                                              +-- next_action --> Done(Response)
//! ```
//!
//! - A plan is what a cell said, as it said it: hostile until [`Plan::validate`] has passed it. Nothing runs before.
//! - The engine decides, its owner acts: no I/O, no clock, no threads, no wasm here. Dropping an engine cancels its graph.
//! - Same plan and same results, same response, whatever the order in which results arrive.
//! - Every graph ends: when nothing is pending and nothing that was started is still out, the response has been given.
//! - Nothing recurses over what a cell made, and every count has a limit ([`Limits`]).
//! - A result that nobody waits for changes nothing ([`EngineError`]); a result that nobody needs any more is freed.
//! - Not here: running a function, reaching a service, resolving URLs, deadlines, JSON for failed responses (the worker).

mod engine;
mod limits;
mod plan;
mod problem;
mod result;
mod validate;

pub use engine::{Action, Engine, EngineError, InputView, OutgoingBody, OutgoingRequest, Response, StepKind};
pub use limits::Limits;
pub use plan::{
    BodySource, BuiltRequests, EgressRequest, FunctionCall, Input, Node, Plan, Prepared, Span, StepIndex,
    StepName, Work,
};
pub use problem::{InputRule, PlanError, RequestRule};
pub use result::StepResult;
pub use validate::ValidPlan;

#[cfg(test)]
mod testing;
