//! The functions of a cell that graphs can name: found by their type, called by their number.
//!
//! - A function's number is its place in the source of the module that `#[cell]` stands on, so it is the
//!   same in every instance of the component.
//! - Every `fn` has a type of its own, and with it a `TypeId`: that is how a graph names a function without
//!   a string and without registration. The id is used inside one instance alone, it never travels.

use std::any::{Any, TypeId};

use crate::bindings::cellmesh::cell::types as wit;
use crate::call::Call;
use crate::parameter::{Given, Takes};
use crate::step_result::StepResult;

/// A function marked `#[step]` or `#[builder]`.
#[derive(Debug)]
pub struct Function {
    /// The type of the function itself.
    id: TypeId,
    name: &'static str,
    parameters: &'static [Takes],
    run: Run,
}

/// How a function is called: the macro writes it.
#[derive(Debug, Clone, Copy)]
pub enum Run {
    /// A `#[step]`.
    Step(fn(Given) -> Result<StepResult, String>),
    /// A `#[builder]`.
    Builder(fn(Given) -> Result<Vec<Call>, String>),
}

impl Function {
    /// The entry of a function. Refuses, while the cell is compiled, parameters that could never be filled.
    ///
    /// ```compile_fail
    /// # use cellmesh_guest::__private::{Function, Run};
    /// # use cellmesh_guest::Takes;
    /// # fn step() {}
    /// const TWO_ARGS: Function =
    ///     Function::new(&step, "step", &[Takes::Args, Takes::Args], Run::Builder(|_| Ok(vec![])));
    /// # fn main() { let _ = TWO_ARGS; }
    /// ```
    ///
    /// ```compile_fail
    /// # use cellmesh_guest::__private::{Function, Run};
    /// # use cellmesh_guest::Takes;
    /// # fn step() {}
    /// const REST_IN_FRONT: Function =
    ///     Function::new(&step, "step", &[Takes::Rest { with_body: true }, Takes::Args], Run::Builder(|_| Ok(vec![])));
    /// # fn main() { let _ = REST_IN_FRONT; }
    /// ```
    pub const fn new<F: Any>(_: &F, name: &'static str, parameters: &'static [Takes], run: Run) -> Self {
        let mut args = 0;
        let mut index = 0;
        while index < parameters.len() {
            match parameters[index] {
                Takes::Args => args += 1,
                Takes::Input { .. } => {}
                Takes::Rest { .. } => {
                    assert!(index + 1 == parameters.len(), "`Inputs` must be the last parameter")
                }
            }
            index += 1;
        }
        assert!(args <= 1, "a step has one parameter `Args`; put several values into a tuple or a struct");
        Self { id: TypeId::of::<F>(), name, parameters, run }
    }

    /// Its name in the source.
    pub fn name(&self) -> &'static str {
        self.name
    }

    fn kind(&self) -> &'static str {
        match self.run {
            Run::Step(_) => "step",
            Run::Builder(_) => "builder",
        }
    }

    /// The number of parameters that take one input each.
    fn single_inputs(&self) -> usize {
        self.parameters.iter().filter(|takes| matches!(takes, Takes::Input { .. })).count()
    }

    /// For a function that takes any number of further inputs: whether it wants their bodies.
    fn rest(&self) -> Option<bool> {
        self.parameters.iter().find_map(|takes| match takes {
            Takes::Rest { with_body } => Some(*with_body),
            Takes::Args | Takes::Input { .. } => None,
        })
    }

    /// Whether the body of the `index`th input has to come into the cell.
    pub(crate) fn wants_body(&self, index: usize) -> bool {
        let mut single = self.parameters.iter().filter_map(|takes| match takes {
            Takes::Input { with_body } => Some(*with_body),
            Takes::Args | Takes::Rest { .. } => None,
        });
        single.nth(index).or(self.rest()).unwrap_or_default()
    }

    /// Whether it takes as many inputs as it is given.
    pub(crate) fn check_inputs(&self, given: usize) -> Result<(), String> {
        let single = self.single_inputs();
        let (fits, at_least) = match self.rest() {
            Some(_) => (given >= single, "at least "),
            None => (given == single, ""),
        };
        if fits {
            return Ok(());
        }
        Err(format!("{} `{}` takes {at_least}{single} inputs and was given {given}", self.kind(), self.name))
    }

    /// Whether it takes arguments where it is given some.
    pub(crate) fn check_args(&self, given: bool) -> Result<(), String> {
        let wanted = self.parameters.contains(&Takes::Args);
        match (wanted, given) {
            (true, false) => {
                Err(format!("{} `{}` takes arguments and was given none", self.kind(), self.name))
            }
            (false, true) => {
                Err(format!("{} `{}` takes no arguments and was given some", self.kind(), self.name))
            }
            (true, true) | (false, false) => Ok(()),
        }
    }
}

/// All functions of a cell; the place of each is its number.
pub(crate) type Functions = &'static [Function];

/// What a function is wanted as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wanted {
    Step,
    Builder,
}

/// A function as a graph's author names it, before it is looked up.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Named {
    id: TypeId,
    type_name: &'static str,
}

impl Named {
    pub(crate) fn of<F: Any>(_: &F) -> Self {
        Self { id: TypeId::of::<F>(), type_name: std::any::type_name::<F>() }
    }
}

/// A function and its number.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Found {
    pub(crate) number: u32,
    pub(crate) function: &'static Function,
}

/// Looks a function up and checks that it is what is wanted.
pub(crate) fn find(functions: Functions, named: Named, wanted: Wanted) -> Result<Found, String> {
    let place = functions.iter().position(|function| function.id == named.id);
    let Some((number, function)) = place.map(|place| (place, &functions[place])) else {
        return Err(format!(
            "`{}` is no function that a graph can name: mark it with #[step] or #[builder] in the module marked \
             #[cellmesh_guest::cell]",
            named.type_name
        ));
    };
    match (wanted, function.run) {
        (Wanted::Step, Run::Step(_)) | (Wanted::Builder, Run::Builder(_)) => {}
        (Wanted::Step, Run::Builder(_)) => {
            return Err(format!("`{}` is a builder, not a step", function.name));
        }
        (Wanted::Builder, Run::Step(_)) => {
            return Err(format!("`{}` is a step, not a builder", function.name));
        }
    }
    Ok(Found { number: u32::try_from(number).unwrap_or(u32::MAX), function })
}

/// `run-step`.
pub(crate) fn run_step(functions: Functions, number: u32, given: Given) -> wit::StepOutput {
    let result = match functions.get(number as usize).map(|function| function.run) {
        Some(Run::Step(step)) => step(given).unwrap_or_else(|problem| StepResult::fail(500, problem)),
        Some(Run::Builder(_)) => {
            StepResult::fail(500, format!("function {number} of this cell is a builder, not a step"))
        }
        None => StepResult::fail(500, format!("this cell has no function {number}")),
    };
    result.encode()
}

/// `build-requests`.
pub(crate) fn build_requests(functions: Functions, number: u32, given: Given) -> wit::BuiltRequests {
    let calls = match functions.get(number as usize).map(|function| function.run) {
        Some(Run::Builder(builder)) => builder(given),
        Some(Run::Step(_)) => Err(format!("function {number} of this cell is a step, not a builder")),
        None => Err(format!("this cell has no function {number}")),
    };
    crate::plan::encode_built(calls)
}

/// What a builder can return.
pub trait IntoCalls {
    /// The requests to send, one after the other. None: the step is skipped.
    ///
    /// # Errors
    /// Why the step fails.
    fn into_calls(self) -> Result<Vec<Call>, String>;
}

impl IntoCalls for Vec<Call> {
    fn into_calls(self) -> Result<Vec<Call>, String> {
        Ok(self)
    }
}

impl IntoCalls for Call {
    fn into_calls(self) -> Result<Vec<Call>, String> {
        Ok(vec![self])
    }
}

impl IntoCalls for Option<Call> {
    fn into_calls(self) -> Result<Vec<Call>, String> {
        Ok(self.into_iter().collect())
    }
}

impl<T: IntoCalls, E: std::fmt::Display> IntoCalls for Result<T, E> {
    fn into_calls(self) -> Result<Vec<Call>, String> {
        self.map_err(|error| error.to_string())?.into_calls()
    }
}
