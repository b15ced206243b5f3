//! The two measured answers as typed records.

wit_bindgen::generate!({ world: "cell", path: "wit" });

use contract::typed::types::{EgressRequest, Graph, Node, Response, Work};

struct Cell;

export!(Cell);

impl Guest for Cell {
    fn nothing() {}

    fn handle(request: Request) -> Answer {
        let id = request_id(&request);
        if request.target.starts_with("/hello") { hello(id) } else { chain(id, &request.body) }
    }
}

fn request_id(request: &Request) -> &[u8] {
    let found = request.headers.iter().find(|(name, _)| name == "x-request-id");
    found.map_or(b"", |(_, value)| value.as_slice())
}

fn hello(id: &[u8]) -> Answer {
    Answer::Response(Response {
        status: 200,
        headers: vec![
            ("content-type".to_owned(), b"text/plain".to_vec()),
            ("x-request-id".to_owned(), id.to_vec()),
        ],
        body: b"hello from the cell\n".to_vec(),
    })
}

fn chain(id: &[u8], body: &[u8]) -> Answer {
    let node = |name: &str| Node {
        id: format!("call-{name}"),
        work: Work::Requests(vec![EgressRequest {
            method: "POST".to_owned(),
            url: format!("http://{name}/api/v1"),
            headers: vec![
                ("content-type".to_owned(), b"application/json".to_vec()),
                ("accept".to_owned(), b"application/json".to_vec()),
                ("x-caller".to_owned(), b"s0".to_vec()),
                ("x-request-id".to_owned(), id.to_vec()),
            ],
            body: body.to_vec(),
        }]),
    };
    let order = Node { id: "root".to_owned(), work: Work::Order(vec![1, 2]) };
    Answer::Graph(Graph { nodes: vec![order, node("s1"), node("s2")], root: 0 })
}
