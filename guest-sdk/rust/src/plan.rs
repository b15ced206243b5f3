//! Writes a graph in the flat form of the contract: records that point into one arena.
//!
//! Steps are written in the order in which they are put in, children before the group that holds them. The
//! groups that are still open share one list of children: a group is closed by taking off what was put on
//! since it was opened.
//!
//! The first mistake is kept and becomes the answer; what comes after it is written but never sent.

use std::borrow::Cow;

use crate::arena::Arena;
use crate::bindings::cellmesh::cell::types as wit;
use crate::body::Earlier;
use crate::call::Call;
use crate::context::StepRef;
use crate::function::{Found, Function, Functions, Named, Wanted, find};
use crate::response::Response;

/// A graph that is being written.
///
/// cost: about ten allocations for a graph of some steps.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    arena: Arena,
    nodes: Vec<wit::Node>,
    children: Vec<u32>,
    inputs: Vec<wit::Input>,
    requests: Vec<wit::EgressRequest>,
    /// Steps whose group is not closed yet.
    open: Vec<u32>,
    problem: Option<String>,
}

/// How a group runs its children.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Group {
    Order,
    Pipe,
}

/// What any step can be given by its author.
#[derive(Debug, Clone, Default)]
pub(crate) struct Label {
    pub(crate) id: Option<Cow<'static, str>>,
    pub(crate) tolerant: bool,
}

/// A function to run, as its author names it.
#[derive(Debug, Clone)]
pub(crate) struct Invocation {
    pub(crate) wanted: Wanted,
    pub(crate) function: Named,
    pub(crate) args: Result<Option<Vec<u8>>, String>,
}

/// Room that a graph begins with: enough for a few calls, so that the lists of most graphs are allocated
/// once.
const ARENA_BYTES: usize = 512;
const NODES: usize = 8;

impl Plan {
    /// Nothing has been put in, not even a mistake.
    pub(crate) fn is_empty(&self) -> bool {
        self.nodes.is_empty() && self.problem.is_none()
    }

    pub(crate) fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Keeps the first mistake.
    pub(crate) fn refuse(&mut self, problem: String) {
        self.problem.get_or_insert(problem);
    }

    /// A step that sends requests.
    pub(crate) fn calls(&mut self, label: &Label, calls: impl IntoIterator<Item = Call>) -> StepRef {
        self.arena.reserve_first(ARENA_BYTES);
        let first_input = self.inputs.len();
        let first_request = self.requests.len();
        for call in calls {
            if let Err(problem) = self.request(&call, first_input) {
                self.refuse(problem);
            }
        }
        let inputs = wit::Span { start: count(first_input), len: count(self.inputs.len() - first_input) };
        let len = count(self.requests.len() - first_request);
        self.leaf("call", label, wit::Work::Requests(wit::Span { start: count(first_request), len }), inputs)
    }

    fn request(&mut self, call: &Call, first_input: usize) -> Result<(), String> {
        let input = match call.body_step() {
            Some(step) => {
                let step = self.resolve(step)?;
                self.inputs.push(wit::Input { step: step.0, with_body: true });
                Some(count(self.inputs.len() - 1 - first_input))
            }
            None => None,
        };
        let request = call.encode(&mut self.arena, input)?;
        self.requests.push(request);
        Ok(())
    }

    /// A step that runs a function of this cell, unless `prepared` stands.
    pub(crate) fn invoke(
        &mut self,
        functions: Functions,
        label: &Label,
        invocation: Invocation,
        prepared: Option<Response>,
        inputs: impl Iterator<Item = Earlier>,
    ) -> StepRef {
        self.try_invoke(functions, label, invocation, prepared, inputs).unwrap_or_else(|problem| {
            self.refuse(problem);
            self.leaf("step", label, wit::Work::Order(NOTHING), NOTHING)
        })
    }

    fn try_invoke(
        &mut self,
        functions: Functions,
        label: &Label,
        invocation: Invocation,
        prepared: Option<Response>,
        inputs: impl Iterator<Item = Earlier>,
    ) -> Result<StepRef, String> {
        let args = invocation.args?;
        let Found { number, function } = find(functions, invocation.function, invocation.wanted)?;
        function.check_args(args.is_some())?;
        let inputs = self.inputs_of(function, inputs)?;
        let args = self.arena.push(&args.unwrap_or_default());
        let call = wit::FunctionCall { function: number, args };
        let work = match (invocation.wanted, prepared) {
            (Wanted::Step, None) => wit::Work::Internal(call),
            (Wanted::Step, Some(response)) => {
                let prepared = self.prepared(response, call);
                wit::Work::Prepared(prepared.map_err(|why| format!("step `{}`: {why}", function.name()))?)
            }
            (Wanted::Builder, None) => wit::Work::Builder(call),
            (Wanted::Builder, Some(_)) => {
                return Err(format!(
                    "`{}` is a builder: only a step can have a prepared response",
                    function.name()
                ));
            }
        };
        Ok(self.leaf(function.name(), label, work, inputs))
    }

    fn prepared(
        &mut self,
        response: Response,
        otherwise: wit::FunctionCall,
    ) -> Result<wit::Prepared, String> {
        let (status, headers, body) = response.into_parts();
        if body.elsewhere()?.is_some() {
            return Err(
                "a prepared response has its body itself: it cannot be that of the request or of an input"
                    .into(),
            );
        }
        let headers = self.arena.push(headers.checked()?);
        Ok(wit::Prepared { status, headers, body: self.arena.push(body.bytes()), otherwise })
    }

    fn inputs_of(
        &mut self,
        function: &Function,
        steps: impl Iterator<Item = Earlier>,
    ) -> Result<wit::Span, String> {
        let start = self.inputs.len();
        for (index, step) in steps.enumerate() {
            let step = self.resolve(&step)?.0;
            self.inputs.push(wit::Input { step, with_body: function.wants_body(index) });
        }
        let given = self.inputs.len() - start;
        function.check_inputs(given)?;
        Ok(wit::Span { start: count(start), len: count(given) })
    }

    /// The steps that can be inputs are those that come before, and they are written before.
    fn resolve(&self, step: &Earlier) -> Result<StepRef, String> {
        match step {
            Earlier::Ref(step) if (step.0 as usize) < self.nodes.len() => Ok(*step),
            Earlier::Ref(_) => Err("a step is named that belongs to another graph".to_owned()),
            Earlier::Id(id) => self
                .by_id(id)
                .ok_or_else(|| format!("no step with the id `{id}` comes before the one that names it")),
        }
    }

    /// The step with this id.
    pub(crate) fn by_id(&self, id: &str) -> Option<StepRef> {
        let found = self.nodes.iter().position(|node| self.arena.get(node.id) == id.as_bytes())?;
        Some(StepRef(count(found)))
    }

    fn leaf(&mut self, kind: &'static str, label: &Label, work: wit::Work, inputs: wit::Span) -> StepRef {
        if self.nodes.is_empty() {
            self.nodes.reserve(NODES);
        }
        let index = count(self.nodes.len());
        let id = self.id(kind, label, index);
        self.nodes.push(wit::Node { id, work, inputs, tolerant: label.tolerant });
        self.open.push(index);
        StepRef(index)
    }

    /// The author's id, or one that no author's can be: `#` is kept for these.
    fn id(&mut self, kind: &'static str, label: &Label, index: u32) -> wit::Span {
        match &label.id {
            Some(id) => {
                if id.contains('#') {
                    self.refuse(format!("step id `{id}`: `#` is kept for the ids of steps that have none"));
                }
                self.arena.push(id.as_bytes())
            }
            None => self.arena.push_numbered(kind, index),
        }
    }

    /// Opens a group. What is put in from here on is in it until it is closed.
    pub(crate) fn open(&self) -> usize {
        self.open.len()
    }

    /// Closes a group that was opened at `start`, unless it would change nothing: without children or with
    /// one there is no group.
    pub(crate) fn close_if_needed(&mut self, group: Group, start: usize) {
        if self.open.len() > start + 1 {
            self.close(group, &Label::default(), start);
        }
    }

    /// Closes a group that was opened at `start`.
    pub(crate) fn close(&mut self, group: Group, label: &Label, start: usize) -> StepRef {
        let children = wit::Span { start: count(self.children.len()), len: count(self.open.len() - start) };
        self.children.extend(self.open.drain(start..));
        let (kind, work) = match group {
            Group::Order => ("order", wit::Work::Order(children)),
            Group::Pipe => ("pipe", wit::Work::Pipe(children)),
        };
        self.leaf(kind, label, work, NOTHING)
    }

    /// The answer: all that is open, one after the other.
    ///
    /// # Errors
    /// The first mistake.
    pub(crate) fn finish(mut self, respond_with: Option<StepRef>) -> Result<wit::Answer, String> {
        self.close_if_needed(Group::Order, 0);
        if let Some(problem) = self.problem {
            return Err(problem);
        }
        let graph = wit::Graph {
            root: self.open.first().copied().unwrap_or_default(),
            nodes: self.nodes,
            children: self.children,
            inputs: self.inputs,
            requests: self.requests,
            respond_with: respond_with.map(|step| step.0),
        };
        Ok(wit::Answer { arena: self.arena.into_bytes(), outcome: wit::Outcome::Graph(graph) })
    }
}

const NOTHING: wit::Span = wit::Span { start: 0, len: 0 };

/// A number of records. The host refuses a graph long before one has 2^32 of them.
fn count(records: usize) -> u32 {
    u32::try_from(records).unwrap_or(u32::MAX)
}

/// What `build-requests` returns.
pub(crate) fn encode_built(calls: Result<Vec<Call>, String>) -> wit::BuiltRequests {
    let mut arena = Arena::default();
    let requests = calls
        .and_then(|calls| calls.iter().map(|call| call.encode(&mut arena, None)).collect::<Result<_, _>>());
    let built = match requests {
        Ok(requests) => wit::Built::Requests(requests),
        Err(problem) => wit::Built::Error(arena.push(problem.as_bytes())),
    };
    wit::BuiltRequests { arena: arena.into_bytes(), built }
}
