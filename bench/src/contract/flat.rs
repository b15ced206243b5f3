//! Shape D: fixed-size records over one arena.

use anyhow::{Context, Result, bail};
use memchr::memchr;
use wasmtime::Engine;

use self::bindings::contract::flat::types::{
    Answer, Body, EgressRequest, Graph, Outcome, Response, Span, Work,
};
use super::rules::Tree;
use super::{Request, Seen, Shape};
use crate::guest::{self, Guest, State};

#[allow(unsafe_code, missing_docs, reason = "generated")]
mod bindings {
    wasmtime::component::bindgen!({ path: "guests/flat/wit", world: "cell" });
}

pub(super) struct Flat {
    store: wasmtime::Store<State>,
    cell: bindings::Cell,
    /// The arena of the request; kept, so that a call allocates nothing for it.
    arena: Vec<u8>,
}

impl Flat {
    pub(super) fn load(engine: &Engine) -> Result<Self> {
        let Guest { mut store, component, linker } = Guest::load(engine, "flat")?;
        let cell = bindings::Cell::instantiate(&mut store, &component, &linker)?;
        Ok(Self { store, cell, arena: Vec::new() })
    }
}

impl Shape for Flat {
    fn nothing(&mut self) -> Result<()> {
        guest::arm(&mut self.store);
        Ok(self.cell.call_nothing(&mut self.store)?)
    }

    fn handle(&mut self, request: &Request<'_>) -> Result<Seen> {
        guest::arm(&mut self.store);
        let request = write_request(&mut self.arena, request)?;
        let Answer { arena, outcome } = self.cell.call_handle(&mut self.store, request, &self.arena)?;
        match outcome {
            Outcome::Response(response) => see_response(&arena, &response),
            Outcome::Graph(graph) => see_graph(&arena, &graph),
        }
    }
}

fn write_request(arena: &mut Vec<u8>, request: &Request<'_>) -> Result<bindings::Request> {
    arena.clear();
    Ok(bindings::Request {
        method: push(arena, &[request.method.as_bytes()])?,
        target: push(arena, &[request.target.as_bytes()])?,
        headers: push_headers(arena, request.headers)?,
        body: push(arena, &[request.body])?,
    })
}

fn push(arena: &mut Vec<u8>, parts: &[&[u8]]) -> Result<Span> {
    let start = arena.len();
    for part in parts {
        arena.extend_from_slice(part);
    }
    Ok(Span { start: u32::try_from(start)?, len: u32::try_from(arena.len() - start)? })
}

fn push_headers(arena: &mut Vec<u8>, headers: &[(&str, &[u8])]) -> Result<Span> {
    let start = u32::try_from(arena.len())?;
    for (name, value) in headers {
        push(arena, &[name.as_bytes(), b": ", value, b"\n"])?;
    }
    Ok(Span { start, len: u32::try_from(arena.len())? - start })
}

fn see_response(arena: &[u8], response: &Response) -> Result<Seen> {
    let mut seen = Seen::default();
    seen.status(response.status.into())?;
    see_headers(&mut seen, part(arena, response.headers)?)?;
    seen.body(body(arena, &response.body)?);
    Ok(seen)
}

fn see_graph(arena: &[u8], graph: &Graph) -> Result<Seen> {
    let mut seen = Seen { nodes: graph.nodes.len(), ..Seen::default() };
    let mut tree = Tree::new(graph.nodes.len(), graph.root)?;
    for node in &graph.nodes {
        seen.text(part(arena, node.id)?)?;
        match node.work {
            Work::Order(children) | Work::Pipe(children) => {
                part(&graph.children, children)?.iter().try_for_each(|&child| tree.child(child))?;
            }
            Work::Requests(requests) => part(&graph.requests, requests)?
                .iter()
                .try_for_each(|request| see_request(&mut seen, arena, request))?,
            Work::Builder(_) | Work::Internal(_) => bail!("not measured"),
        }
    }
    tree.finish()?;
    Ok(seen)
}

fn see_request(seen: &mut Seen, arena: &[u8], request: &EgressRequest) -> Result<()> {
    seen.text(part(arena, request.method)?)?;
    seen.text(part(arena, request.url)?)?;
    see_headers(seen, part(arena, request.headers)?)?;
    seen.body(body(arena, &request.body)?);
    Ok(())
}

fn see_headers(seen: &mut Seen, mut lines: &[u8]) -> Result<()> {
    while !lines.is_empty() {
        let end = memchr(b'\n', lines).context("a line without an end")?;
        let line = &lines[..end];
        let colon = memchr(b':', line).context("a line without a colon")?;
        let value = line[colon + 1..].strip_prefix(b" ").context("a colon without a space")?;
        seen.header(&line[..colon], value)?;
        lines = &lines[end + 1..];
    }
    Ok(())
}

fn body<'a>(arena: &'a [u8], body: &Body) -> Result<&'a [u8]> {
    match body {
        Body::Bytes(span) => part(arena, *span),
        Body::OfRequest | Body::OfInput(_) => bail!("not measured"),
    }
}

fn part<T>(list: &[T], span: Span) -> Result<&[T]> {
    let rest = list.get(span.start as usize..).context("a span outside its list")?;
    rest.get(..span.len as usize).context("a span outside its list")
}
