//! Between the records of `wit/cell.wit` and our own types. Spans that a cell gave are checked here for what is read here;
//! those inside a graph are checked when the plan is validated.

use bytes::Bytes;
use cellmesh_graph as graph;

use super::bindings::cellmesh::cell::types as wit;
use super::instance::{CellFault, Decision, Returned, ReturnedBody, StepCall};

/// The request record for an arena that holds `method | target | headers | body`.
pub(super) fn request(arena: &Bytes, method_len: u32, target_len: u32, headers_len: u32) -> wit::Request {
    let target = method_len;
    let headers = target + target_len;
    let body = headers + headers_len;
    wit::Request {
        method: wit::Span { start: 0, len: method_len },
        target: wit::Span { start: target, len: target_len },
        headers: wit::Span { start: headers, len: headers_len },
        body: wit::Span { start: body, len: len_u32(arena.len()) - body },
    }
}

/// What a handler answered.
pub(super) fn decision(answer: wit::Answer) -> Result<Decision, CellFault> {
    let arena = Bytes::from(answer.arena);
    match answer.outcome {
        wit::Outcome::Response(response) => Ok(Decision::Response(Returned {
            status: response.status,
            error: None,
            headers: part(&arena, response.headers, "response.headers")?,
            body: returned_body(&arena, &response.body, "response.body")?,
        })),
        wit::Outcome::Graph(graph) => Ok(Decision::Graph(Box::new(plan(graph, arena)))),
    }
}

/// What an internal step answered.
pub(super) fn step_output(output: wit::StepOutput) -> Result<Returned, CellFault> {
    let arena = Bytes::from(output.arena);
    let result = output.result;
    let error = if result.failed { Some(text(&arena, result.error, "step-result.error")?) } else { None };
    Ok(Returned {
        status: result.status,
        error,
        headers: part(&arena, result.headers, "step-result.headers")?,
        body: returned_body(&arena, &result.body, "step-result.body")?,
    })
}

/// What a request builder answered.
pub(super) fn built(built: wit::BuiltRequests) -> Result<Result<graph::BuiltRequests, Box<str>>, CellFault> {
    let arena = Bytes::from(built.arena);
    match built.built {
        wit::Built::Requests(requests) => {
            let requests = requests.into_iter().map(egress_request).collect();
            Ok(Ok(graph::BuiltRequests { requests, arena }))
        }
        wit::Built::Error(error) => Ok(Err(text(&arena, error, "built.error")?)),
    }
}

/// The arena, the arguments' span and the input records of a step.
pub(super) fn step_inputs(step: &StepCall) -> (Vec<u8>, wit::Span, Vec<wit::StepInput>) {
    let mut arena = Vec::with_capacity(inputs_len(step));
    let args = push(&mut arena, &step.args);
    let inputs = step
        .inputs
        .iter()
        .map(|input| wit::StepInput {
            id: push(&mut arena, &input.id),
            status: input.status,
            failed: input.error.is_some(),
            error: push(&mut arena, input.error.as_deref().unwrap_or_default().as_bytes()),
            headers: push(&mut arena, &input.headers),
            body: input.body.as_ref().map(|body| push(&mut arena, body)),
        })
        .collect();
    (arena, args, inputs)
}

/// Bytes of the arena that [`step_inputs`] makes.
pub(super) fn inputs_len(step: &StepCall) -> usize {
    step.inputs.iter().map(input_len).fold(step.args.len(), usize::saturating_add)
}

fn input_len(input: &super::StepInput) -> usize {
    input.id.len()
        + input.error.as_ref().map_or(0, |error| error.len())
        + input.headers.len()
        + input.body.as_ref().map_or(0, Bytes::len)
}

fn push(arena: &mut Vec<u8>, bytes: &[u8]) -> wit::Span {
    let start = len_u32(arena.len());
    arena.extend_from_slice(bytes);
    wit::Span { start, len: len_u32(bytes.len()) }
}

fn plan(graph: wit::Graph, arena: Bytes) -> graph::Plan {
    graph::Plan {
        nodes: graph.nodes.into_iter().map(node).collect(),
        children: graph.children,
        inputs: graph
            .inputs
            .into_iter()
            .map(|i| graph::Input { step: i.step, with_body: i.with_body })
            .collect(),
        requests: graph.requests.into_iter().map(egress_request).collect(),
        root: graph.root,
        respond_with: graph.respond_with,
        arena,
    }
}

fn node(node: wit::Node) -> graph::Node {
    let work = match node.work {
        wit::Work::Order(children) => graph::Work::Order(span(children)),
        wit::Work::Pipe(children) => graph::Work::Pipe(span(children)),
        wit::Work::Requests(requests) => graph::Work::Requests(span(requests)),
        wit::Work::Builder(call) => graph::Work::Builder(function_call(call)),
        wit::Work::Internal(call) => graph::Work::Internal(function_call(call)),
        wit::Work::Prepared(prepared) => graph::Work::Prepared(graph::Prepared {
            status: prepared.status,
            headers: span(prepared.headers),
            body: span(prepared.body),
            otherwise: function_call(prepared.otherwise),
        }),
    };
    graph::Node { id: span(node.id), work, inputs: span(node.inputs), tolerant: node.tolerant }
}

fn function_call(call: wit::FunctionCall) -> graph::FunctionCall {
    graph::FunctionCall { function: call.function, args: span(call.args) }
}

fn egress_request(request: wit::EgressRequest) -> graph::EgressRequest {
    graph::EgressRequest {
        method: span(request.method),
        url: span(request.url),
        headers: span(request.headers),
        body: match request.body {
            wit::Body::Bytes(bytes) => graph::BodySource::Bytes(span(bytes)),
            wit::Body::OfRequest => graph::BodySource::OfRequest,
            wit::Body::OfInput(input) => graph::BodySource::OfInput(input),
        },
    }
}

fn span(span: wit::Span) -> graph::Span {
    graph::Span { start: span.start, len: span.len }
}

fn returned_body(arena: &Bytes, body: &wit::Body, field: &str) -> Result<ReturnedBody, CellFault> {
    Ok(match body {
        wit::Body::Bytes(bytes) => ReturnedBody::Bytes(part(arena, *bytes, field)?),
        wit::Body::OfRequest => ReturnedBody::OfRequest,
        wit::Body::OfInput(input) => ReturnedBody::OfInput(*input),
    })
}

fn text(arena: &Bytes, span: wit::Span, field: &str) -> Result<Box<str>, CellFault> {
    Ok(String::from_utf8_lossy(&part(arena, span, field)?).into())
}

fn part(arena: &Bytes, span: wit::Span, field: &str) -> Result<Bytes, CellFault> {
    let (start, len) = (span.start as usize, span.len as usize);
    let inside = start.checked_add(len).is_some_and(|end| end <= arena.len());
    if inside {
        return Ok(arena.slice(start..start + len));
    }
    Err(CellFault::Contract(format!(
        "{field} = {start} .. {start} + {len}: must lie inside the arena of {} bytes",
        arena.len()
    )))
}

/// Lengths of what goes to a guest: messages are bounded far below 4 GiB.
fn len_u32(len: usize) -> u32 {
    u32::try_from(len).expect("a message is far smaller than 4 GiB")
}
