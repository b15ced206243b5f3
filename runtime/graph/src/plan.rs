//! Plans: a graph as a cell gave it. Shapes and field names are those of `wit/cell.wit`, which says what they mean.

use std::fmt;
use std::ops::Range;

use bytes::Bytes;

/// A part of a list: `start .. start + len`. Of the plan's arena where nothing else is said.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Span {
    /// First entry.
    pub start: u32,
    /// Number of entries.
    pub len: u32,
}

impl Span {
    /// The span as a range, if it lies inside a list of `len` entries.
    pub fn range_in(self, len: usize) -> Option<Range<usize>> {
        let start = self.start as usize;
        let end = start.checked_add(self.len as usize)?;
        (end <= len).then_some(start..end)
    }

    /// As [`Span::range_in`], for a span that validation has passed.
    pub(crate) fn range(self) -> Range<usize> {
        self.start as usize..self.start as usize + self.len as usize
    }

    /// Index behind the last entry, for a span that validation has passed.
    pub(crate) fn end(self) -> u32 {
        self.start + self.len
    }
}

/// Names a step: its index in [`Plan::nodes`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StepIndex(pub u32);

/// What a step of a graph does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Work {
    /// Runs its children one after the other; span of [`Plan::children`].
    Order(Span),
    /// Runs its children at the same time; span of [`Plan::children`].
    Pipe(Span),
    /// Sends these requests one after the other; span of [`Plan::requests`].
    Requests(Span),
    /// As `Requests`, but a function of the cell makes them when the step starts.
    Builder(FunctionCall),
    /// Runs a function of the cell.
    Internal(FunctionCall),
    /// Has its result already if all inputs are plain; else as `Internal`.
    Prepared(Prepared),
}

impl Work {
    /// The children of an `order` or a `pipe`; none for a step that does something itself.
    pub fn children(&self) -> Option<Span> {
        match *self {
            Self::Order(children) | Self::Pipe(children) => Some(children),
            Self::Requests(_) | Self::Builder(_) | Self::Internal(_) | Self::Prepared(_) => None,
        }
    }

    /// The function of the cell that it runs, or may run.
    pub fn function(&self) -> Option<FunctionCall> {
        match *self {
            Self::Builder(call) | Self::Internal(call) => Some(call),
            Self::Prepared(prepared) => Some(prepared.otherwise),
            Self::Order(_) | Self::Pipe(_) | Self::Requests(_) => None,
        }
    }
}

/// A function of a cell and its arguments.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FunctionCall {
    /// The cell's own number for it.
    pub function: u32,
    /// Bytes that the function is given as they are.
    pub args: Span,
}

/// A result that stands if each input of its step is an answer 200 that is no error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Prepared {
    /// HTTP status; not checked here.
    pub status: u16,
    /// Lines of `name: value\n`; not checked here.
    pub headers: Span,
    /// The body.
    pub body: Span,
    /// What is run if any input is anything else.
    pub otherwise: FunctionCall,
}

/// A request to another service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EgressRequest {
    /// HTTP method.
    pub method: Span,
    /// `http://service/path?query`; checked for its length only.
    pub url: Span,
    /// Lines of `name: value\n`; not checked here.
    pub headers: Span,
    /// Where the body is.
    pub body: BodySource,
}

/// Where the bytes of a body are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BodySource {
    /// In the arena.
    Bytes(Span),
    /// The body of the request that the handler was given.
    OfRequest,
    /// The body of an input: its index among the inputs of the step.
    OfInput(u32),
}

/// A step result that a step wants to see.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Input {
    /// Index in [`Plan::nodes`].
    pub step: u32,
    /// Whether the body is wanted too.
    pub with_body: bool,
}

/// One step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Node {
    /// Its name: UTF-8, unique in its graph.
    pub id: Span,
    /// What it does.
    pub work: Work,
    /// The results that it wants to see; span of [`Plan::inputs`].
    pub inputs: Span,
    /// An error of this step stays its result and neither ends an `order` nor makes a `pipe` an error.
    pub tolerant: bool,
}

/// A graph as a cell gave it: nothing in it has been checked.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Plan {
    /// The steps, in any order.
    pub nodes: Vec<Node>,
    /// Indices in `nodes`.
    pub children: Vec<u32>,
    /// What steps want to see.
    pub inputs: Vec<Input>,
    /// What steps send.
    pub requests: Vec<EgressRequest>,
    /// Index in `nodes`.
    pub root: u32,
    /// Index in `nodes` of the step whose result is the response.
    pub respond_with: Option<u32>,
    /// The bytes that all spans of bytes point into.
    pub arena: Bytes,
}

/// What a request builder made. Spans are those of this arena, not of the plan's.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct BuiltRequests {
    /// The requests to send, in this order.
    pub requests: Vec<EgressRequest>,
    /// The bytes that they point into.
    pub arena: Bytes,
}

/// A step in a message: its id, or its index where it has no valid id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StepName {
    /// Shown as `step "id"`.
    Id(Box<str>),
    /// Shown as `step #index`.
    Index(u32),
}

/// Ids longer than this do not help a reader of a message: the step is named by its index.
const NAME_BYTES_MAX: usize = 128;

impl Plan {
    /// The name of step `index` for a message, valid plan or not.
    pub fn step_name(&self, index: u32) -> StepName {
        let id = self.nodes.get(index as usize).and_then(|node| self.name_of(node));
        id.map_or(StepName::Index(index), |id| StepName::Id(id.into()))
    }

    fn name_of(&self, node: &Node) -> Option<&str> {
        let range = node.id.range_in(self.arena.len())?;
        let name = (1..=NAME_BYTES_MAX).contains(&range.len()).then(|| &self.arena[range])?;
        std::str::from_utf8(name).ok()
    }
}

impl fmt::Display for StepName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Id(id) => write!(f, "step {id:?}"),
            Self::Index(index) => write!(f, "step #{index}"),
        }
    }
}
