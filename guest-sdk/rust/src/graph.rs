//! Graphs that are written down as a whole, with `order` and `pipe`.

use std::borrow::Cow;

use crate::body::Earlier;
use crate::call::Call;
use crate::context::StepRef;
use crate::function::{Functions, Named, Wanted};
use crate::parameter::IntoArgs;
use crate::plan::{Group, Invocation, Label, Plan};
use crate::response::{IntoResponse, Response};

/// Groups inside groups that are written; the runtime takes no more either.
const DEPTH_MAX: u32 = 64;

/// Steps that run one after the other. The first error ends them.
pub fn order(steps: impl IntoIterator<Item = Step>) -> Step {
    Step::new(Work::Group(Group::Order, steps.into_iter().collect()))
}

/// Steps that run at the same time. All of them end; the pipe is in error if any of them is.
pub fn pipe(steps: impl IntoIterator<Item = Step>) -> Step {
    Step::new(Work::Group(Group::Pipe, steps.into_iter().collect()))
}

/// A step of a hand-made graph, or one with an id or with tolerance for
/// [`Context::step`](crate::Context::step).
#[derive(Debug, Clone)]
pub struct Step {
    label: Label,
    work: Work,
    prepared: Option<Response>,
}

#[derive(Debug, Clone)]
enum Work {
    Group(Group, Vec<Step>),
    Call(Call),
    Calls(Vec<Call>),
    Invoke(Invocation, Vec<Earlier>),
}

impl Step {
    fn new(work: Work) -> Self {
        Self { label: Label::default(), work, prepared: None }
    }

    /// Calls another service.
    pub fn call(call: Call) -> Self {
        Self::new(Work::Call(call))
    }

    /// Makes these calls one after the other. The first answer outside 200 to 399 ends the step and is its
    /// error; else the last answer is its result. No calls: an empty result 200.
    pub fn call_each(calls: impl IntoIterator<Item = Call>) -> Self {
        Self::new(Work::Calls(calls.into_iter().collect()))
    }

    /// Runs a function marked `#[step]`.
    pub fn internal<F: 'static>(step: F) -> Self {
        Self::invoke(Wanted::Step, &step)
    }

    /// Makes the calls that a function marked `#[builder]` returns, as [`call_each`](Self::call_each) does.
    pub fn built<F: 'static>(builder: F) -> Self {
        Self::invoke(Wanted::Builder, &builder)
    }

    fn invoke<F: 'static>(wanted: Wanted, function: &F) -> Self {
        let function = Named::of(function);
        Self::new(Work::Invoke(Invocation { wanted, function, args: Ok(None) }, Vec::new()))
    }

    /// Of a function: its arguments.
    #[must_use]
    pub fn args(mut self, args: impl IntoArgs) -> Self {
        match &mut self.work {
            Work::Invoke(invocation, _) => invocation.args = args.into_args(),
            Work::Group(..) | Work::Call(_) | Work::Calls(_) => {}
        }
        self
    }

    /// Of a function: the earlier steps, by reference or by id, whose results it is given.
    #[must_use]
    pub fn inputs<I: IntoIterator>(mut self, steps: I) -> Self
    where
        I::Item: Into<StepName>,
    {
        match &mut self.work {
            Work::Invoke(_, inputs) => inputs.extend(steps.into_iter().map(|step| step.into().0)),
            Work::Group(..) | Work::Call(_) | Work::Calls(_) => {}
        }
        self
    }

    /// Of a function marked `#[step]`: its result if each input is an answer 200 that is no error, also if it has no
    /// inputs. The cell is not called for it then, which saves the time of a call; the function is run if any input is anything
    /// else, another success too, so it has to know the answer for all of them. Whatever its status, a prepared response is no error. It
    /// is kept until the step comes up: prepare small ones.
    ///
    /// ```
    /// # use cellmesh_guest::prelude::*;
    /// # #[cellmesh_guest::cell]
    /// # mod shop {
    /// #     use super::*;
    /// #[handler]
    /// fn buy(ctx: &mut Context) {
    ///     let sold = ctx.step(Step::call(Call::post("http://stock/7/sell")).tolerant());
    ///     ctx.step(Step::internal(tell).inputs([sold]).prepared(YOURS));
    /// }
    ///
    /// const YOURS: &str = "It is yours.";
    ///
    /// #[step]
    /// fn tell(sold: StepResult) -> Response {
    ///     match sold.is_failed() {
    ///         false => Response::text(YOURS),
    ///         true => Response::error(409, format!("sold out ({})", sold.status())),
    ///     }
    /// }
    /// # }
    /// # fn main() {
    /// # let answer = cellmesh_guest::testing::outline::<shop::ThisCell>(Request::get("/"));
    /// # assert!(answer.contains("tell#1: step tell(call#0) unless prepared 200 It is yours."), "{answer}");
    /// # }
    /// ```
    #[must_use]
    pub fn prepared(mut self, response: impl IntoResponse) -> Self {
        self.prepared = Some(response.into_response());
        self
    }

    /// With an id: 1 to 128 bytes, unique in the graph, without `#`. Errors and logs name it.
    #[must_use]
    pub fn id(mut self, id: impl Into<Cow<'static, str>>) -> Self {
        self.label.id = Some(id.into());
        self
    }

    /// An error of this step stays its result: what comes after it runs, and can have it as an input.
    #[must_use]
    pub fn tolerant(mut self) -> Self {
        self.label.tolerant = true;
        self
    }

    /// Writes the step and what is in it.
    pub(crate) fn write(self, plan: &mut Plan, functions: Functions, depth: u32) -> StepRef {
        if depth > DEPTH_MAX {
            plan.refuse(format!("the graph is deeper than {DEPTH_MAX} levels"));
            return StepRef(0);
        }
        match self.work {
            Work::Invoke(invocation, inputs) => {
                plan.invoke(functions, &self.label, invocation, self.prepared, inputs.into_iter())
            }
            Work::Group(..) | Work::Call(_) | Work::Calls(_) if self.prepared.is_some() => {
                plan.refuse("a call or a group has a prepared response: only a step that runs a function can have one".into());
                StepRef(0)
            }
            Work::Group(group, steps) => {
                let start = plan.open();
                for step in steps {
                    step.write(plan, functions, depth + 1);
                }
                plan.close(group, &self.label, start)
            }
            Work::Call(call) => plan.calls(&self.label, [call]),
            Work::Calls(calls) => plan.calls(&self.label, calls),
        }
    }
}

/// How a step is named as an input: by what the context returned, or by its id.
#[derive(Debug, Clone)]
pub struct StepName(pub(crate) Earlier);

impl From<StepRef> for StepName {
    fn from(step: StepRef) -> Self {
        Self(Earlier::Ref(step))
    }
}

impl From<&'static str> for StepName {
    fn from(id: &'static str) -> Self {
        Self(Earlier::Id(id.into()))
    }
}

impl From<String> for StepName {
    fn from(id: String) -> Self {
        Self(Earlier::Id(id.into()))
    }
}

/// A whole graph, as a handler can return it.
///
/// ```
/// use cellmesh_guest::prelude::*;
///
/// let graph = Graph::new(order([
///     pipe([
///         Step::call(Call::get("http://users/7")).id("user"),
///         Step::call(Call::get("http://carts/7")).id("cart").tolerant(),
///     ]),
///     Step::call(Call::post("http://log/")),
/// ]))
/// .respond_with("user");
/// ```
#[derive(Debug, Clone)]
pub struct Graph {
    root: Step,
    respond_with: Option<Cow<'static, str>>,
}

impl Graph {
    /// The graph of this step.
    pub fn new(root: Step) -> Self {
        Self { root, respond_with: None }
    }

    /// The result of the step with this id is the response, instead of the last one's.
    #[must_use]
    pub fn respond_with(mut self, id: impl Into<Cow<'static, str>>) -> Self {
        self.respond_with = Some(id.into());
        self
    }

    /// Writes the graph; returns the step whose result is the response, where the graph names one.
    pub(crate) fn write(self, plan: &mut Plan, functions: Functions) -> Option<StepRef> {
        self.root.write(plan, functions, 1);
        let id = self.respond_with?;
        let found = plan.by_id(&id);
        if found.is_none() {
            plan.refuse(format!("respond_with names `{id}`, and no step has that id"));
        }
        found
    }
}

impl From<Step> for Graph {
    fn from(root: Step) -> Self {
        Self::new(root)
    }
}
