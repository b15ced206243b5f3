//! The two measured answers as fixed-size records over an arena.

wit_bindgen::generate!({ world: "cell", path: "wit" });

use contract::flat::types::{Body, EgressRequest, Graph, Node, Outcome, Response, Span, Work};

struct Cell;

export!(Cell);

impl Guest for Cell {
    fn nothing() {}

    fn handle(request: Request, arena: Vec<u8>) -> Answer {
        let id = header(bytes(&arena, request.headers), b"x-request-id");
        if bytes(&arena, request.target).starts_with(b"/hello") {
            hello(id)
        } else {
            chain(id, bytes(&arena, request.body))
        }
    }
}

fn bytes(arena: &[u8], span: Span) -> &[u8] {
    &arena[span.start as usize..][..span.len as usize]
}

/// The value of the line `name: value`; empty if there is none.
fn header<'a>(mut lines: &'a [u8], name: &[u8]) -> &'a [u8] {
    while let Some(end) = memchr::memchr(b'\n', lines) {
        let value = lines[..end].strip_prefix(name).and_then(|rest| rest.strip_prefix(b": "));
        if let Some(value) = value {
            return value;
        }
        lines = &lines[end + 1..];
    }
    &[]
}

fn hello(id: &[u8]) -> Answer {
    let mut arena = Arena(Vec::with_capacity(1024));
    let headers = arena.headers(&[(b"content-type", b"text/plain"), (b"x-request-id", id)]);
    let body = Body::Bytes(arena.push(b"hello from the cell\n"));
    let response = Response { status: 200, headers, body };
    Answer { arena: arena.0, outcome: Outcome::Response(response) }
}

fn chain(id: &[u8], body: &[u8]) -> Answer {
    let mut arena = Arena(Vec::with_capacity(1024));
    let nothing = Span { start: 0, len: 0 };
    let node = |id, work| Node { id, work, inputs: nothing, tolerant: false };
    let nodes = vec![
        node(arena.push(b"root"), Work::Order(Span { start: 0, len: 2 })),
        node(arena.push(b"call-s1"), Work::Requests(Span { start: 0, len: 1 })),
        node(arena.push(b"call-s2"), Work::Requests(Span { start: 1, len: 1 })),
    ];
    let requests = vec![arena.call(b"http://s1/api/v1", id, body), arena.call(b"http://s2/api/v1", id, body)];
    let graph = Graph { nodes, children: vec![1, 2], inputs: vec![], requests, root: 0, respond_with: None };
    Answer { arena: arena.0, outcome: Outcome::Graph(graph) }
}

struct Arena(Vec<u8>);

impl Arena {
    fn push(&mut self, bytes: &[u8]) -> Span {
        let start = self.0.len() as u32;
        self.0.extend_from_slice(bytes);
        Span { start, len: bytes.len() as u32 }
    }

    fn headers(&mut self, headers: &[(&[u8], &[u8])]) -> Span {
        let start = self.0.len() as u32;
        for (name, value) in headers {
            for part in [*name, b": ", *value, b"\n"] {
                self.0.extend_from_slice(part);
            }
        }
        Span { start, len: self.0.len() as u32 - start }
    }

    fn call(&mut self, url: &[u8], id: &[u8], body: &[u8]) -> EgressRequest {
        EgressRequest {
            method: self.push(b"POST"),
            url: self.push(url),
            headers: self.headers(&[
                (b"content-type", b"application/json"),
                (b"accept", b"application/json"),
                (b"x-caller", b"s0"),
                (b"x-request-id", id),
            ]),
            body: Body::Bytes(self.push(body)),
        }
    }
}
