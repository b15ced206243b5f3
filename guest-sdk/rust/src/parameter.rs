//! What the parameters of a step can be.

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::arena::share;
use crate::bindings::cellmesh::cell::types as wit;
use crate::step_result::{Head, Json, StepResult};

/// The arguments that were fixed when the graph was made, and what travels as them: JSON.
///
/// A step that has a parameter `Args(order): Args<Order>` is put into a graph with `Args(&order)`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Args<T>(pub T);

/// The results of all further inputs, in the order in which the graph names them; a last parameter.
///
/// `Inputs` sees whole results, `Inputs<Head>` leaves the bodies outside the cell, `Inputs<Json<T>>` reads
/// them.
#[derive(Debug, Clone)]
pub struct Inputs<T = StepResult>(pub Vec<T>);

impl<T> IntoIterator for Inputs<T> {
    type Item = T;
    type IntoIter = std::vec::IntoIter<T>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

/// What a parameter takes of what a step is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Takes {
    /// The arguments.
    Args,
    /// The next input.
    Input {
        /// Whether its body has to come into the cell.
        with_body: bool,
    },
    /// All further inputs.
    Rest {
        /// Whether their bodies have to come into the cell.
        with_body: bool,
    },
}

/// A type that a parameter of a step or of a builder can have.
pub trait Parameter: Sized {
    /// What of it the parameter takes.
    const TAKES: Takes;

    /// Takes it.
    ///
    /// # Errors
    /// Why it is not what the parameter wants; the step then fails with this text.
    fn take(given: &mut Given) -> Result<Self, String>;
}

/// A type that one input can be seen as.
pub trait FromInput: Sized {
    /// Whether the body has to come into the cell.
    const WITH_BODY: bool;

    /// Looks at the input.
    ///
    /// # Errors
    /// Why it is not what is wanted; the step then fails with this text.
    fn from_input(result: StepResult) -> Result<Self, String>;
}

/// What a step is given: its arguments and the inputs that no parameter has taken yet.
#[derive(Debug)]
pub struct Given {
    arena: Bytes,
    args: wit::Span,
    inputs: std::iter::Enumerate<std::vec::IntoIter<wit::StepInput>>,
}

impl Given {
    pub(crate) fn new(args: wit::Span, inputs: Vec<wit::StepInput>, arena: Vec<u8>) -> Self {
        Self { arena: arena.into(), args, inputs: inputs.into_iter().enumerate() }
    }

    fn next_input(&mut self) -> Option<StepResult> {
        let (index, input) = self.inputs.next()?;
        Some(StepResult::received(u32::try_from(index).unwrap_or(u32::MAX), &input, &self.arena))
    }
}

impl<T: DeserializeOwned> Parameter for Args<T> {
    const TAKES: Takes = Takes::Args;

    fn take(given: &mut Given) -> Result<Self, String> {
        let bytes = share(&given.arena, given.args);
        serde_json::from_slice(&bytes)
            .map(Self)
            .map_err(|error| format!("the arguments are not what the step takes: {error}"))
    }
}

impl<T: FromInput> Parameter for Inputs<T> {
    const TAKES: Takes = Takes::Rest { with_body: T::WITH_BODY };

    fn take(given: &mut Given) -> Result<Self, String> {
        std::iter::from_fn(|| given.next_input()).map(T::from_input).collect::<Result<_, _>>().map(Self)
    }
}

impl<T: FromInput> Parameter for T {
    const TAKES: Takes = Takes::Input { with_body: T::WITH_BODY };

    fn take(given: &mut Given) -> Result<Self, String> {
        given.next_input().ok_or_else(|| "an input is missing".to_owned()).and_then(T::from_input)
    }
}

/// As it is, an error too.
impl FromInput for StepResult {
    const WITH_BODY: bool = true;

    fn from_input(result: StepResult) -> Result<Self, String> {
        Ok(result)
    }
}

/// As it is, an error too, without its body.
impl FromInput for Head {
    const WITH_BODY: bool = false;

    fn from_input(result: StepResult) -> Result<Self, String> {
        Ok(result.head().clone())
    }
}

impl<T: DeserializeOwned> FromInput for Json<T> {
    const WITH_BODY: bool = true;

    fn from_input(result: StepResult) -> Result<Self, String> {
        unless_failed(result)?.read_json().map(Self)
    }
}

impl FromInput for String {
    const WITH_BODY: bool = true;

    fn from_input(result: StepResult) -> Result<Self, String> {
        unless_failed(result)?.read_text().map(str::to_owned)
    }
}

impl FromInput for Vec<u8> {
    const WITH_BODY: bool = true;

    fn from_input(result: StepResult) -> Result<Self, String> {
        unless_failed(result).map(|result| result.body().to_vec())
    }
}

/// Shares the memory that the input came in.
impl FromInput for Bytes {
    const WITH_BODY: bool = true;

    fn from_input(result: StepResult) -> Result<Self, String> {
        unless_failed(result).map(StepResult::into_bytes)
    }
}

/// None where the step failed.
impl<T: FromInput> FromInput for Option<T> {
    const WITH_BODY: bool = T::WITH_BODY;

    fn from_input(result: StepResult) -> Result<Self, String> {
        if result.is_failed() { Ok(None) } else { T::from_input(result).map(Some) }
    }
}

/// A body of an error is not what a typed parameter is for.
fn unless_failed(result: StepResult) -> Result<StepResult, String> {
    if result.is_failed() {
        return Err(format!(
            "step `{}` failed with status {}: {}",
            result.id(),
            result.status(),
            result.error()
        ));
    }
    Ok(result)
}

/// The arguments of a step that is put into a graph: [`Args`], or `()` for a step that has none.
pub trait IntoArgs {
    /// The bytes, or none for a step without arguments.
    ///
    /// # Errors
    /// Why they cannot be written.
    fn into_args(self) -> Result<Option<Vec<u8>>, String>;
}

impl IntoArgs for () {
    fn into_args(self) -> Result<Option<Vec<u8>>, String> {
        Ok(None)
    }
}

impl<T: Serialize> IntoArgs for Args<T> {
    fn into_args(self) -> Result<Option<Vec<u8>>, String> {
        serde_json::to_vec(&self.0)
            .map(Some)
            .map_err(|error| format!("the arguments cannot be written as JSON: {error}"))
    }
}
