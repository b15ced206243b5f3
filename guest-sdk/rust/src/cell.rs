//! Between the contract and a cell: the macros implement [`Cell`], this implements the contract for every
//! [`Cell`].

use crate::bindings::cellmesh::cell::types as wit;
use crate::bindings::exports::cellmesh::cell::handler::Guest;
use crate::context::Context;
use crate::function::{self, Function};
use crate::outcome::{self, Outcome};
use crate::parameter::Given;
use crate::request::Request;

/// A service cell. `#[handler]` and `#[cell]` write this.
pub trait Cell {
    /// The functions that graphs can name; the place of each is its number.
    const FUNCTIONS: &'static [Function];

    /// Answers a request, or says what is to be done to answer it.
    fn handle(request: Request, ctx: &mut Context) -> Outcome;
}

impl<T: Cell> Guest for T {
    fn handle(request: wit::Request, arena: Vec<u8>) -> wit::Answer {
        let mut ctx = Context::new(T::FUNCTIONS);
        let outcome = <T as Cell>::handle(Request::received(request, arena), &mut ctx);
        outcome::answer(outcome, ctx)
    }

    fn run_step(
        number: u32,
        args: wit::Span,
        inputs: Vec<wit::StepInput>,
        arena: Vec<u8>,
    ) -> wit::StepOutput {
        function::run_step(T::FUNCTIONS, number, Given::new(args, inputs, arena))
    }

    fn build_requests(
        number: u32,
        args: wit::Span,
        inputs: Vec<wit::StepInput>,
        arena: Vec<u8>,
    ) -> wit::BuiltRequests {
        function::build_requests(T::FUNCTIONS, number, Given::new(args, inputs, arena))
    }
}
