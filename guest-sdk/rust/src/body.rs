//! Where the bytes of a body come from.

use std::borrow::Cow;

use bytes::Bytes;

use crate::bindings::cellmesh::cell::types as wit;
use crate::context::StepRef;

/// The body of a response, of a step result or of a call.
///
/// Made from text or bytes with `.into()`, or it names a body that the cell does not need to see: such a
/// body never enters the cell's memory.
#[derive(Debug, Clone, Default)]
pub struct Body(pub(crate) Source);

#[derive(Debug, Clone)]
pub(crate) enum Source {
    /// Can become the answer's arena as it is.
    Owned(Vec<u8>),
    Bytes(Bytes),
    OfRequest,
    OfInput(u32),
    /// An input that came in with its body: the bytes are here to be read, and are sent by its number.
    SeenInput(u32, Bytes),
    OfStep(Earlier),
}

/// A step that comes before, as the author calls it.
#[derive(Debug, Clone)]
pub(crate) enum Earlier {
    Ref(StepRef),
    Id(Cow<'static, str>),
}

impl Default for Source {
    fn default() -> Self {
        Self::Owned(Vec::new())
    }
}

impl Body {
    /// The body of the request that the handler was given.
    pub fn of_request() -> Self {
        Self(Source::OfRequest)
    }

    /// In a step or a builder: the body of the input with this index among its inputs.
    pub fn of_input(index: u32) -> Self {
        Self(Source::OfInput(index))
    }

    /// In a call: the body of an earlier step's result.
    pub fn of(step: StepRef) -> Self {
        Self(Source::OfStep(Earlier::Ref(step)))
    }

    /// In a call of a hand-made graph: the body of the result of the earlier step with this id.
    pub fn of_step(id: impl Into<Cow<'static, str>>) -> Self {
        Self(Source::OfStep(Earlier::Id(id.into())))
    }

    /// The bytes, where they are in the cell.
    pub(crate) fn bytes(&self) -> &[u8] {
        match &self.0 {
            Source::Owned(bytes) => bytes,
            Source::Bytes(bytes) | Source::SeenInput(_, bytes) => bytes,
            Source::OfRequest | Source::OfInput(_) | Source::OfStep(_) => &[],
        }
    }

    /// What the host is told, where the bytes are not in the cell.
    pub(crate) fn elsewhere(&self) -> Result<Option<wit::Body>, String> {
        match &self.0 {
            Source::Owned(_) | Source::Bytes(_) => Ok(None),
            Source::OfRequest => Ok(Some(wit::Body::OfRequest)),
            Source::OfInput(index) | Source::SeenInput(index, _) => Ok(Some(wit::Body::OfInput(*index))),
            Source::OfStep(_) => Err("only a call in a handler can have the body of another step".to_owned()),
        }
    }
}

impl From<Bytes> for Body {
    fn from(bytes: Bytes) -> Self {
        Self(Source::Bytes(bytes))
    }
}

impl From<Vec<u8>> for Body {
    fn from(bytes: Vec<u8>) -> Self {
        Self(Source::Owned(bytes))
    }
}

impl From<String> for Body {
    fn from(text: String) -> Self {
        text.into_bytes().into()
    }
}

impl From<&'static str> for Body {
    fn from(text: &'static str) -> Self {
        Bytes::from_static(text.as_bytes()).into()
    }
}

impl From<&'static [u8]> for Body {
    fn from(bytes: &'static [u8]) -> Self {
        Bytes::from_static(bytes).into()
    }
}
