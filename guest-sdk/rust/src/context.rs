//! The builder: what a handler puts into its context is run when it has returned.

use crate::bindings::cellmesh::cell::types as wit;
use crate::body::Earlier;
use crate::call::Call;
use crate::function::{Functions, Named, Wanted};
use crate::graph::Step;
use crate::parameter::IntoArgs;
use crate::plan::{Group, Invocation, Label, Plan};

/// A step that was put into a [`Context`]: the name under which a later one can have its result as an input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StepRef(pub(crate) u32);

/// Collects the steps of a request, one after the other; [`parallel`](Self::parallel) at the same time.
///
/// Nothing runs while the handler does. A mistake (a function that is not marked, a wrong number of inputs)
/// is kept, and the request is answered 500 with what is wrong.
///
/// ```
/// # use cellmesh_guest::prelude::*;
/// fn both(ctx: &mut Context) {
///     let (user, cart) = ctx.parallel(|ctx| {
///         let user = ctx.call(Call::get("http://users/7"));
///         let cart = ctx.sequence(|ctx| {
///             ctx.call(Call::post("http://carts/7/refresh"));
///             ctx.call(Call::get("http://carts/7"))
///         });
///         (user, cart)
///     });
///     ctx.call(Call::post("http://audit/").body(Body::of(cart)));
///     ctx.respond_with(user);
/// }
/// ```
#[derive(Debug)]
pub struct Context {
    plan: Plan,
    functions: Functions,
    respond_with: Option<StepRef>,
}

impl Context {
    pub(crate) fn new(functions: Functions) -> Self {
        Self { plan: Plan::default(), functions, respond_with: None }
    }

    /// Then calls another service. An answer outside 200 to 399 is an error: it ends what comes after and
    /// is the response.
    pub fn call(&mut self, call: Call) -> StepRef {
        self.plan.calls(&Label::default(), [call])
    }

    /// Then makes these calls one after the other, as one step: its result is the last answer, or the first
    /// that is an error. No calls: an empty result 200.
    pub fn call_each(&mut self, calls: impl IntoIterator<Item = Call>) -> StepRef {
        self.plan.calls(&Label::default(), calls)
    }

    /// Then makes the calls that a function marked `#[builder]` returns; see
    /// [`run_internal`](Self::run_internal).
    pub fn call_built<F: 'static>(
        &mut self,
        builder: F,
        args: impl IntoArgs,
        inputs: impl IntoIterator<Item = StepRef>,
    ) -> StepRef {
        self.invoke(Wanted::Builder, Named::of(&builder), args, inputs)
    }

    /// Then runs a function marked `#[step]`.
    ///
    /// - `args`: `Args(&value)`, or `()` for a step without arguments.
    /// - `inputs`: earlier steps, in the order of the function's parameters; `[]` for none.
    pub fn run_internal<F: 'static>(
        &mut self,
        step: F,
        args: impl IntoArgs,
        inputs: impl IntoIterator<Item = StepRef>,
    ) -> StepRef {
        self.invoke(Wanted::Step, Named::of(&step), args, inputs)
    }

    fn invoke(
        &mut self,
        wanted: Wanted,
        function: Named,
        args: impl IntoArgs,
        inputs: impl IntoIterator<Item = StepRef>,
    ) -> StepRef {
        let invocation = Invocation { wanted, function, args: args.into_args() };
        let inputs = inputs.into_iter().map(Earlier::Ref);
        self.plan.invoke(self.functions, &Label::default(), invocation, None, inputs)
    }

    /// Then runs a step that has an id, or is tolerant, or is a whole part of a graph.
    ///
    /// ```
    /// # use cellmesh_guest::prelude::*;
    /// # fn example(ctx: &mut Context) {
    /// let cart = ctx.step(Step::call(Call::get("http://carts/7")).id("cart").tolerant());
    /// # }
    /// ```
    pub fn step(&mut self, step: Step) -> StepRef {
        step.write(&mut self.plan, self.functions, 1)
    }

    /// Then runs what the closure puts in at the same time, and goes on when all of it has ended.
    pub fn parallel<R>(&mut self, steps: impl FnOnce(&mut Self) -> R) -> R {
        self.group(Group::Pipe, steps)
    }

    /// Inside [`parallel`](Self::parallel): runs what the closure puts in one after the other.
    pub fn sequence<R>(&mut self, steps: impl FnOnce(&mut Self) -> R) -> R {
        self.group(Group::Order, steps)
    }

    fn group<R>(&mut self, group: Group, steps: impl FnOnce(&mut Self) -> R) -> R {
        let start = self.plan.open();
        let returned = steps(self);
        self.plan.close_if_needed(group, start);
        returned
    }

    /// The result of this step is the response, instead of the last one's, if nothing fails.
    pub fn respond_with(&mut self, step: StepRef) {
        self.respond_with = Some(step);
    }

    /// The number of steps so far.
    pub(crate) fn len(&self) -> usize {
        self.plan.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.plan.is_empty()
    }

    pub(crate) fn plan(&mut self) -> (&mut Plan, Functions) {
        (&mut self.plan, self.functions)
    }

    pub(crate) fn finish(self) -> Result<wit::Answer, String> {
        self.plan.finish(self.respond_with)
    }
}
