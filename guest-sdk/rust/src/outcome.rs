//! What a handler returns, and how that and its context become one answer.

use bytes::Bytes;

use crate::bindings::cellmesh::cell::types as wit;
use crate::context::Context;
use crate::graph::{Graph, Step};
use crate::response::{IntoErrorResponse, IntoResponse, Response};
use crate::step_result::Json;

/// What a handler decided.
#[derive(Debug)]
pub enum Outcome {
    /// This is the response. The context must be empty.
    Response(Response),
    /// This is the response, whatever has been put into the context.
    Refused(Response),
    /// This graph is to be run. The context must be empty.
    Graph(Box<Graph>),
    /// What was put into the context is to be run; nothing: an empty 200.
    Context,
}

/// What a handler can return.
pub trait IntoOutcome {
    /// The decision.
    fn into_outcome(self) -> Outcome;
}

/// Runs what was put into the context.
impl IntoOutcome for () {
    fn into_outcome(self) -> Outcome {
        Outcome::Context
    }
}

impl IntoOutcome for Graph {
    fn into_outcome(self) -> Outcome {
        Outcome::Graph(Box::new(self))
    }
}

impl IntoOutcome for Step {
    fn into_outcome(self) -> Outcome {
        Graph::new(self).into_outcome()
    }
}

/// `None` runs what was put into the context.
impl<T: IntoOutcome> IntoOutcome for Option<T> {
    fn into_outcome(self) -> Outcome {
        self.map_or(Outcome::Context, T::into_outcome)
    }
}

/// `Err` is the response, whatever has been put into the context.
impl<T: IntoOutcome, E: IntoErrorResponse> IntoOutcome for Result<T, E> {
    fn into_outcome(self) -> Outcome {
        self.map_or_else(|error| Outcome::Refused(error.into_error_response()), T::into_outcome)
    }
}

macro_rules! response_is_outcome {
    ($([$($generics:tt)*] $type:ty),*) => {$(
        impl $($generics)* IntoOutcome for $type {
            fn into_outcome(self) -> Outcome {
                Outcome::Response(self.into_response())
            }
        }
    )*};
}

response_is_outcome!([] Response, [] String, [] &'static str, [] Vec<u8>, [] Bytes, [<T: serde::Serialize>] Json<T>);

/// The answer of a handler. Mistakes of its author are answered with 500 and said in the body.
pub(crate) fn answer(outcome: Outcome, mut ctx: Context) -> wit::Answer {
    let put_in = ctx.len();
    match outcome {
        Outcome::Refused(response) => response.encode(),
        Outcome::Response(response) if ctx.is_empty() => response.encode(),
        Outcome::Response(_) => mistake(format!(
            "the handler returned a response, but also put {put_in} steps into its context, which would never run"
        )),
        Outcome::Context if ctx.is_empty() => Response::new(200).encode(),
        Outcome::Context => ctx.finish().unwrap_or_else(mistake),
        Outcome::Graph(graph) if ctx.is_empty() => {
            let (plan, functions) = ctx.plan();
            if let Some(step) = graph.write(plan, functions) {
                ctx.respond_with(step);
            }
            ctx.finish().unwrap_or_else(mistake)
        }
        Outcome::Graph(_) => mistake(format!(
            "the handler returned a graph, but also put {put_in} steps into its context: use one of the two"
        )),
    }
}

fn mistake(text: String) -> wit::Answer {
    Response::error(500, text).encode()
}
