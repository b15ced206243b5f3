//! Write cellmesh service cells in Rust.
//!
//! A **cell** is a WebAssembly component that serves one service. It does no I/O: its **handler** looks at
//! a request and answers it, or says what is to be done to answer it. The runtime does that, and sends the
//! response.
//!
//! # A cell in two minutes
//!
//! `Cargo.toml`: a `cdylib` with one dependency.
//!
//! ```toml
//! [lib]
//! crate-type = ["cdylib"]
//!
//! [dependencies]
//! cellmesh-guest = { path = "../guest-sdk/rust" }
//! ```
//!
//! `src/lib.rs`: a function.
//!
//! ```
//! use cellmesh_guest::prelude::*;
//!
//! #[handler]
//! fn hello(request: Request) -> Response {
//!     let name = request.query_param("name").unwrap_or("you".into());
//!     Response::text(format!("hello {name}\n"))
//! }
//! # fn main() {
//! # let answer = cellmesh_guest::testing::outline::<ThisCell>(Request::get("/?name=Ada"));
//! # assert_eq!(answer, "200 hello Ada\n");
//! # }
//! ```
//!
//! `cargo build --target wasm32-wasip2 --release` makes the component; `cargo test` runs its tests natively.
//!
//! # Calls and steps
//!
//! What a handler puts into its [`Context`] is run when it has returned: calls of other services, and
//! **steps**, which are functions of the cell. One attribute on a module collects them; they stay ordinary
//! functions, with typed parameters.
//!
//! ```
//! use cellmesh_guest::prelude::*;
//!
//! #[cellmesh_guest::cell]
//! mod shop {
//!     use super::*;
//!
//!     #[derive(serde::Deserialize)]
//!     struct User {
//!         name: String,
//!     }
//!
//!     #[handler]
//!     fn page(request: Request, ctx: &mut Context) -> Result<(), Response> {
//!         let id = request.query_param("user").ok_or(Response::error(400, "which user?"))?;
//!         let (user, cart) = ctx.parallel(|ctx| {
//!             let user = ctx.call(Call::get(format!("http://users/{id}")));
//!             let cart = ctx.step(Step::call(Call::get(format!("http://carts/{id}"))).tolerant());
//!             (user, cart)
//!         });
//!         let offers = ctx.call_built(ask_for_offers, (), [user]);
//!         ctx.run_internal(render, Args("Shop"), [user, cart, offers]);
//!         Ok(())
//!     }
//!
//!     /// Calls that are made of an earlier answer; none: the step is skipped.
//!     #[builder]
//!     fn ask_for_offers(Json(user): Json<User>) -> Vec<Call> {
//!         vec![Call::post("http://offers/").json(&user.name)]
//!     }
//!
//!     /// Its result is the response, because it is the last step.
//!     #[step]
//!     fn render(
//!         Args(title): Args<String>,
//!         Json(user): Json<User>,
//!         cart: Option<String>,
//!         offers: StepResult,
//!     ) -> String {
//!         let cart = cart.unwrap_or("your cart is not there, but you are".to_owned());
//!         format!("{title} for {}: {cart}; {} bytes of offers", user.name, offers.body().len())
//!     }
//! }
//! # fn main() {
//! # let answer = cellmesh_guest::testing::outline::<shop::ThisCell>(Request::get("/?user=7"));
//! # assert!(answer.contains("render#4: step render(call#0, call#1, ask_for_offers#3) \"Shop\""), "{answer}");
//! # }
//! ```
//!
//! | a step's parameter | is |
//! |---|---|
//! | `Args(x): Args<T>` | the arguments of [`run_internal`](Context::run_internal), as JSON |
//! | [`StepResult`], [`Head`] | the next input as it is, an error too; a `Head` leaves the body outside the cell |
//! | [`Json<T>`], `String`, `Vec<u8>`, [`Bytes`] | the body of the next input; an input that failed fails this step |
//! | `Option<..>` | the same, `None` for an input that failed |
//! | [`Inputs<..>`](Inputs) | all further inputs |
//!
//! | a step returns | its result is |
//! |---|---|
//! | [`StepResult`], [`Response`] | as it is; [`StepResult::fail`] makes the step an error |
//! | text, bytes, [`Json<T>`] | a body with status 200 |
//! | `()` | an empty body with status 200 |
//! | `Err(e)` | an error with status 500 and the text of `e` |
//!
//! Where the last step would only look whether a call failed, the handler can give it the response that it comes to if all of them
//! answered 200: [`Step::prepared`]. The cell is not called again for it then.
//!
//! | a handler returns | then |
//! |---|---|
//! | `()` | the context is run; an empty one is an empty 200 |
//! | [`Response`], text, bytes, [`Json<T>`] | that is the response; the context must be empty |
//! | `Option<..>` | the same, and `None` runs the context |
//! | `Result<.., E>` | `Err` is the response, whatever is in the context |
//! | [`Graph`], [`Step`] | a graph that was written down with [`order`] and [`pipe`] is run; the context must be empty |
//!
//! # Errors
//!
//! A call that is answered outside 200 to 399, and a step that fails, is an error: what comes after it does
//! not run, and its answer is the response. [`Step::tolerant`] keeps an error as a result, for a later step
//! to look at. A mistake in a graph (a function that is not marked, a wrong number of inputs) is a 500
//! whose body says what to change.
//!
//! # Tests
//!
//! Functions are tested as functions, and [`testing`] shows the graph that a handler makes.
//!
//! ```
//! # use cellmesh_guest::prelude::*;
//! # #[handler]
//! # fn both(_request: Request, ctx: &mut Context) {
//! #     ctx.parallel(|ctx| [ctx.call(Call::get("http://a/")), ctx.call(Call::get("http://b/"))]);
//! # }
//! # fn main() {
//! let graph = "\
//! pipe#2: pipe
//!   call#0: GET http://a/
//!   call#1: GET http://b/
//! ";
//! assert_eq!(cellmesh_guest::testing::outline::<ThisCell>(Request::get("/")), graph);
//! # }
//! ```

// The macros name this crate in what they write, in its own tests too.
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
