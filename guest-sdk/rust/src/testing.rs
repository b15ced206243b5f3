//! For a cell's own tests, which run natively: no component, no runtime.

use crate::arena::{Arena, part};
use crate::bindings::cellmesh::cell::types as wit;
use crate::bindings::exports::cellmesh::cell::handler::Guest;
use crate::cell::Cell;
use crate::function::Functions;
use crate::request::Request;
use crate::step_result::StepResult;

pub(crate) mod config {
    //! Stands in for the import of the same name. Each test has a thread, so each test has its own.

    use std::cell::RefCell;
    use std::collections::HashMap;

    thread_local! {
        static VALUES: RefCell<HashMap<String, String>> = RefCell::default();
        static SERVICE: RefCell<String> = RefCell::new("test".to_owned());
    }

    pub(crate) fn service() -> String {
        SERVICE.with_borrow(String::clone)
    }

    pub(crate) fn get(key: &str) -> Option<String> {
        VALUES.with_borrow(|values| values.get(key).cloned())
    }

    pub(super) fn set(key: &str, value: &str) {
        VALUES.with_borrow_mut(|values| values.insert(key.to_owned(), value.to_owned()));
    }

    pub(super) fn set_service(name: &str) {
        SERVICE.set(name.to_owned());
    }
}

/// Gives a config value to the cell, in this thread.
pub fn set_config(key: &str, value: &str) {
    config::set(key, value);
}

/// Gives the service a name, in this thread; it is `test` before.
pub fn set_service(name: &str) {
    config::set_service(name);
}

/// What the cell's handler decides, as text: a response's status and body, or a line for each step of the
/// graph, indented below the group that it is in.
///
/// ```text
/// order#4: order
///   pipe#2: pipe
///     call#0: GET http://users/7
///     call#1, tolerant: GET http://carts/7
///   render#3: step render(call#0, call#1 without body) {"vat":19} unless prepared 200 nothing new
/// responds with call#0
/// ```
pub fn outline<C: Cell>(request: Request) -> String {
    let (parts, arena) = request.into_parts();
    let wit::Answer { arena, outcome } = <C as Guest>::handle(parts, arena);
    match outcome {
        wit::Outcome::Response(response) => {
            let body = body_text(&response.body, &arena);
            format!("{} {body}", response.status)
        }
        wit::Outcome::Graph(graph) => {
            let outline = Outline { arena: &arena, functions: C::FUNCTIONS, graph: &graph };
            outline.step(graph.root, 0) + &outline.respond_with()
        }
    }
}

/// The result of an earlier step, as an input of [`run`] and [`build`].
#[derive(Debug, Clone, Copy)]
pub struct Input<'a> {
    status: u16,
    error: Option<&'a str>,
    body: Option<&'a [u8]>,
}

impl<'a> Input<'a> {
    /// A result 200 with this body.
    pub const fn ok(body: &'a [u8]) -> Self {
        Self { status: 200, error: None, body: Some(body) }
    }

    /// A result that was an error, with an empty body.
    pub const fn failed(status: u16, error: &'a str) -> Self {
        Self { status, error: Some(error), body: Some(b"") }
    }

    /// With this status.
    #[must_use]
    pub const fn with_status(mut self, status: u16) -> Self {
        self.status = status;
        self
    }

    /// As the runtime gives it to a parameter that wants no body.
    #[must_use]
    pub const fn without_body(mut self) -> Self {
        self.body = None;
        self
    }

    fn record(&self, index: usize, arena: &mut Arena) -> wit::StepInput {
        wit::StepInput {
            id: arena.push(format!("input{index}").as_bytes()),
            status: self.status,
            failed: self.error.is_some(),
            error: arena.push(self.error.unwrap_or_default().as_bytes()),
            headers: arena.push(b""),
            body: self.body.map(|body| arena.push(body)),
        }
    }
}

fn given(args: &[u8], inputs: &[Input<'_>]) -> (wit::Span, Vec<wit::StepInput>, Vec<u8>) {
    let mut arena = Arena::default();
    let args = arena.push(args);
    let inputs = inputs.iter().enumerate().map(|(index, input)| input.record(index, &mut arena)).collect();
    (args, inputs, arena.into_bytes())
}

/// What the step with this number returns to the runtime; inputs are named `input0`, `input1` and so on.
pub fn run<C: Cell>(number: u32, args: &[u8], inputs: &[Input<'_>]) -> StepResult {
    let (args, inputs, arena) = given(args, inputs);
    let output = <C as Guest>::run_step(number, args, inputs, arena);
    StepResult::sent(output)
}

/// What the builder with this number returns to the runtime: a line `METHOD url body` for each request.
///
/// # Errors
/// The text of the builder's error.
pub fn build<C: Cell>(number: u32, args: &[u8], inputs: &[Input<'_>]) -> Result<Vec<String>, String> {
    let (args, inputs, arena) = given(args, inputs);
    let wit::BuiltRequests { arena, built } = <C as Guest>::build_requests(number, args, inputs, arena);
    let text = |span| String::from_utf8_lossy(part(&arena, span));
    match built {
        wit::Built::Requests(requests) => {
            let line = |request: &wit::EgressRequest| {
                let body = body_text(&request.body, &arena);
                format!("{} {} {body}", text(request.method), text(request.url))
            };
            Ok(requests.iter().map(line).collect())
        }
        wit::Built::Error(error) => Err(text(error).into_owned()),
    }
}

fn body_text(body: &wit::Body, arena: &[u8]) -> String {
    match body {
        wit::Body::Bytes(span) => String::from_utf8_lossy(part(arena, *span)).into_owned(),
        wit::Body::OfRequest => "OfRequest".to_owned(),
        wit::Body::OfInput(input) => format!("OfInput({input})"),
    }
}

struct Outline<'a> {
    arena: &'a [u8],
    functions: Functions,
    graph: &'a wit::Graph,
}

impl Outline<'_> {
    fn respond_with(&self) -> String {
        self.graph.respond_with.map_or_else(String::new, |step| format!("responds with {}\n", self.id(step)))
    }

    fn step(&self, index: u32, depth: usize) -> String {
        let node = &self.graph.nodes[index as usize];
        let tolerant = if node.tolerant { ", tolerant" } else { "" };
        let head = format!("{:width$}{}{tolerant}", "", self.id(index), width = depth * 2);
        match &node.work {
            wit::Work::Order(children) => format!("{head}: order\n{}", self.children(*children, depth)),
            wit::Work::Pipe(children) => format!("{head}: pipe\n{}", self.children(*children, depth)),
            wit::Work::Requests(requests) => format!("{head}: {}\n", self.requests(*requests, node.inputs)),
            wit::Work::Builder(call) => format!("{head}: builder {}\n", self.function(call, node.inputs)),
            wit::Work::Internal(call) => format!("{head}: step {}\n", self.function(call, node.inputs)),
            wit::Work::Prepared(prepared) => {
                let otherwise = self.function(&prepared.otherwise, node.inputs);
                let result = format!("{} {}", prepared.status, self.text(prepared.body));
                format!("{head}: step {otherwise} unless prepared {}\n", result.trim_end())
            }
        }
    }

    fn children(&self, span: wit::Span, depth: usize) -> String {
        slice(&self.graph.children, span).iter().map(|child| self.step(*child, depth + 1)).collect()
    }

    fn requests(&self, span: wit::Span, inputs: wit::Span) -> String {
        let requests = slice(&self.graph.requests, span).iter().map(|request| {
            let line = format!("{} {}", self.text(request.method), self.text(request.url));
            match &request.body {
                wit::Body::Bytes(span) if span.len == 0 => line,
                wit::Body::Bytes(span) => format!("{line} {}", self.text(*span)),
                wit::Body::OfRequest => format!("{line} (body of the request)"),
                wit::Body::OfInput(input) => {
                    format!("{line} (body of {})", self.inputs(inputs)[*input as usize])
                }
            }
        });
        requests.collect::<Vec<_>>().join(", then ")
    }

    fn function(&self, call: &wit::FunctionCall, inputs: wit::Span) -> String {
        let name = self.functions[call.function as usize].name();
        let line = format!("{name}({})", self.inputs(inputs).join(", "));
        if call.args.len == 0 { line } else { format!("{line} {}", self.text(call.args)) }
    }

    fn inputs(&self, span: wit::Span) -> Vec<String> {
        let name = |input: &wit::Input| {
            let without = if input.with_body { "" } else { " without body" };
            format!("{}{without}", self.id(input.step))
        };
        slice(&self.graph.inputs, span).iter().map(name).collect()
    }

    fn id(&self, step: u32) -> String {
        self.text(self.graph.nodes[step as usize].id)
    }

    fn text(&self, span: wit::Span) -> String {
        String::from_utf8_lossy(part(self.arena, span)).into_owned()
    }
}

fn slice<T>(list: &[T], span: wit::Span) -> &[T] {
    &list[span.start as usize..(span.start + span.len) as usize]
}
