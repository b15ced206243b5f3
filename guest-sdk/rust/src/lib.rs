//! Write cellmesh service cells in Rust.

extern crate self as cellmesh_guest;

mod arena;
#[doc(hidden)]
pub mod bindings;
mod body;
mod call;
mod cell;
pub mod config;
mod context;
mod function;
mod graph;
mod headers;
mod outcome;
mod parameter;
mod plan;
mod request;
mod response;
mod step_result;
#[cfg(not(target_arch = "wasm32"))]
pub mod testing;

pub use body::Body;
pub use bytes::Bytes;
pub use call::Call;
pub use cell::Cell;
pub use cellmesh_guest_macros::{builder, cell, handler, step};
pub use context::{Context, StepRef};
pub use function::IntoCalls;
pub use graph::{Graph, Step, StepName, order, pipe};
pub use headers::HeaderLines;
pub use outcome::{IntoOutcome, Outcome};
pub use parameter::{Args, FromInput, Given, Inputs, IntoArgs, Parameter, Takes};
pub use request::{BadRequest, Request};
pub use response::{IntoErrorResponse, IntoResponse, Response};
pub use step_result::{Head, IntoStepResult, Json, StepResult};

/// All that a cell usually needs.
pub mod prelude {
    pub use crate::config;
    pub use crate::{
        Args, BadRequest, Body, Bytes, Call, Context, Graph, Head, Inputs, IntoResponse, Json, Request,
        Response, Step, StepRef, StepResult, builder, handler, order, pipe, step,
    };
}

/// What the macros' expansions need.
#[doc(hidden)]
pub mod __private {
    pub use crate::bindings;
    pub use crate::function::{Function, Run};
}
