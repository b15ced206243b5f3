//! Shape A: records with strings.

use anyhow::Result;
use wasmtime::Engine;

use self::bindings::contract::typed::types::{Answer, EgressRequest, Graph, Response, Work};
use super::rules::Tree;
use super::{Request, Seen, Shape};
use crate::guest::{self, Guest, State};

#[allow(unsafe_code, missing_docs, reason = "generated")]
mod bindings {
    wasmtime::component::bindgen!({
        path: "guests/typed/wit",
        world: "cell",
        ownership: Borrowing { duplicate_if_necessary: true },
    });
}

pub(super) struct Typed {
    store: wasmtime::Store<State>,
    cell: bindings::Cell,
}

impl Typed {
    pub(super) fn load(engine: &Engine) -> Result<Self> {
        let Guest { mut store, component, linker } = Guest::load(engine, "typed")?;
        let cell = bindings::Cell::instantiate(&mut store, &component, &linker)?;
        Ok(Self { store, cell })
    }
}

impl Shape for Typed {
    fn nothing(&mut self) -> Result<()> {
        guest::arm(&mut self.store);
        Ok(self.cell.call_nothing(&mut self.store)?)
    }

    fn handle(&mut self, request: &Request<'_>) -> Result<Seen> {
        guest::arm(&mut self.store);
        let request = bindings::Request {
            method: request.method,
            target: request.target,
            headers: request.headers,
            body: request.body,
        };
        match self.cell.call_handle(&mut self.store, request)? {
            Answer::Response(response) => see_response(&response),
            Answer::Graph(graph) => see_graph(&graph),
        }
    }
}

fn see_response(response: &Response) -> Result<Seen> {
    let mut seen = Seen::default();
    seen.status(response.status.into())?;
    see_headers(&mut seen, &response.headers)?;
    seen.body(&response.body);
    Ok(seen)
}

fn see_graph(graph: &Graph) -> Result<Seen> {
    let mut seen = Seen { nodes: graph.nodes.len(), ..Seen::default() };
    let mut tree = Tree::new(graph.nodes.len(), graph.root)?;
    for node in &graph.nodes {
        seen.text(node.id.as_bytes())?;
        match &node.work {
            Work::Order(children) => children.iter().try_for_each(|&child| tree.child(child))?,
            Work::Requests(requests) => {
                requests.iter().try_for_each(|request| see_request(&mut seen, request))?;
            }
        }
    }
    tree.finish()?;
    Ok(seen)
}

fn see_request(seen: &mut Seen, request: &EgressRequest) -> Result<()> {
    seen.text(request.method.as_bytes())?;
    seen.text(request.url.as_bytes())?;
    see_headers(seen, &request.headers)?;
    seen.body(&request.body);
    Ok(())
}

fn see_headers(seen: &mut Seen, headers: &[(String, Vec<u8>)]) -> Result<()> {
    headers.iter().try_for_each(|(name, value)| seen.header(name.as_bytes(), value))
}
