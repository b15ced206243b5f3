//! The two measured answers in one byte encoding.
//!
//! All numbers are `u32`, little-endian; a text is its length and its bytes; a list is its length and its
//! elements. In: method, target, headers (list of name and value), body. Out: 0, status, headers, body for
//! a response; 1, nodes, root for a graph, where a node is its id and 0 and a list of children, or 1 and a
//! list of requests (method, url, headers, body).

wit_bindgen::generate!({ world: "cell", path: "wit" });

struct Cell;

export!(Cell);

impl Guest for Cell {
    fn nothing() {}

    fn handle(request: Vec<u8>) -> Vec<u8> {
        let request = Request::read(&request);
        if request.target.starts_with(b"/hello") {
            hello(request.id)
        } else {
            chain(request.id, request.body)
        }
    }
}

/// What the answers need of a request.
struct Request<'a> {
    target: &'a [u8],
    id: &'a [u8],
    body: &'a [u8],
}

impl<'a> Request<'a> {
    fn read(bytes: &'a [u8]) -> Self {
        let mut reader = Reader(bytes);
        let _method = reader.text();
        let target = reader.text();
        let mut id: &[u8] = b"";
        for _ in 0..reader.number() {
            let (name, value) = (reader.text(), reader.text());
            if name == b"x-request-id" {
                id = value;
            }
        }
        Self { target, id, body: reader.text() }
    }
}

fn hello(id: &[u8]) -> Vec<u8> {
    let mut out = Writer(Vec::with_capacity(1024));
    out.number(0);
    out.number(200);
    out.headers(&[(b"content-type", b"text/plain"), (b"x-request-id", id)]);
    out.text(b"hello from the cell\n");
    out.0
}

fn chain(id: &[u8], body: &[u8]) -> Vec<u8> {
    let mut out = Writer(Vec::with_capacity(1024));
    out.number(1);
    out.number(3);
    out.text(b"root");
    out.number(0);
    out.number(2);
    out.number(1);
    out.number(2);
    out.call(b"call-s1", b"http://s1/api/v1", id, body);
    out.call(b"call-s2", b"http://s2/api/v1", id, body);
    out.number(0);
    out.0
}

/// The host is trusted to send what the encoding says; a slice out of range traps.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn number(&mut self) -> usize {
        let (number, rest) = self.0.split_first_chunk::<4>().expect("the host sends whole numbers");
        self.0 = rest;
        u32::from_le_bytes(*number) as usize
    }

    fn text(&mut self) -> &'a [u8] {
        let len = self.number();
        let (text, rest) = self.0.split_at(len);
        self.0 = rest;
        text
    }
}

struct Writer(Vec<u8>);

impl Writer {
    fn number(&mut self, number: u32) {
        self.0.extend_from_slice(&number.to_le_bytes());
    }

    fn text(&mut self, text: &[u8]) {
        self.number(text.len() as u32);
        self.0.extend_from_slice(text);
    }

    fn headers(&mut self, headers: &[(&[u8], &[u8])]) {
        self.number(headers.len() as u32);
        for (name, value) in headers {
            self.text(name);
            self.text(value);
        }
    }

    fn call(&mut self, id: &[u8], url: &[u8], request_id: &[u8], body: &[u8]) {
        self.text(id);
        self.number(1);
        self.number(1);
        self.text(b"POST");
        self.text(url);
        self.headers(&[
            (b"content-type", b"application/json"),
            (b"accept", b"application/json"),
            (b"x-caller", b"s0"),
            (b"x-request-id", request_id),
        ]);
        self.text(body);
    }
}
