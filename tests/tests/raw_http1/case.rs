//! One request as bytes, and what has to come of it.

use cellmesh_tests::{Node, Reply, Wire};

/// The request behind each case, which a cell answers with its own target.
const BEHIND: &str = "/reflect?smuggled";
/// The last request of a connection that goes on.
const LAST: &str = "/reflect?last";
/// Packets of a request that is cut everywhere: one for each byte, unless it is long.
const PIECES_MAX: usize = 400;

/// Where the bytes of a case are cut into packets.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Cut {
    Nowhere,
    InTheMiddle,
    Everywhere,
}

/// What becomes of the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Then {
    /// The request behind is answered.
    GoesOn,
    /// The request behind is nobody's.
    Closes,
    /// The client sends no more, in the middle of its request: at most a 400, and the connection closes.
    CutShort,
}

/// What else is right about the answer.
#[derive(Debug)]
enum Shows {
    Nothing,
    /// The body is this.
    Body(Vec<u8>),
    /// The cell has seen this method, target or body.
    Seen(&'static str, String),
    /// The cell has seen these values of a header.
    Header(&'static str, Vec<String>),
}

/// One request as bytes, and what has to come of it.
#[derive(Debug)]
pub(crate) struct Case {
    name: String,
    bytes: Vec<u8>,
    /// Sent when the node says 100.
    body: Option<Vec<u8>>,
    status: u16,
    then: Then,
    shows: Shows,
    /// A 100 may come before the answer.
    may_continue: bool,
}

impl Case {
    pub(crate) fn new(name: impl Into<String>, bytes: impl AsRef<[u8]>, status: u16, then: Then) -> Self {
        let (name, bytes) = (name.into(), bytes.as_ref().to_vec());
        Self { name, bytes, body: None, status, then, shows: Shows::Nothing, may_continue: false }
    }

    /// Answered by the cell; the connection goes on.
    pub(crate) fn answered(name: impl Into<String>, bytes: impl AsRef<[u8]>) -> Self {
        Self::new(name, bytes, 200, Then::GoesOn)
    }

    /// A 400, and the connection closes.
    pub(crate) fn refused(name: impl Into<String>, bytes: impl AsRef<[u8]>) -> Self {
        Self::new(name, bytes, 400, Then::Closes)
    }

    pub(crate) fn body_is(self, body: impl AsRef<[u8]>) -> Self {
        Self { shows: Shows::Body(body.as_ref().to_vec()), ..self }
    }

    pub(crate) fn seen(self, what: &'static str, value: &str) -> Self {
        Self { shows: Shows::Seen(what, value.to_owned()), ..self }
    }

    pub(crate) fn header(self, name: &'static str, values: &[&str]) -> Self {
        let values = values.iter().map(|value| (*value).to_owned()).collect();
        Self { shows: Shows::Header(name, values), ..self }
    }

    pub(crate) fn may_continue(self) -> Self {
        Self { may_continue: true, ..self }
    }

    /// The body is sent when the node says 100.
    pub(crate) fn then_body(self, body: &[u8]) -> Self {
        Self { body: Some(body.to_vec()), ..self }
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Sends it, and compares all that comes back, and what the cell has seen. The panic says which case it is.
    pub(crate) fn check(&self, node: &Node, cut: Cut) {
        eprintln!("case: {}", self.name);
        let before = count(node);
        let mut wire = node.connect();
        self.send(&mut wire, cut);
        self.expect(&mut wire);
        // The first of the two who count is counted too.
        let seen = count(node) - before - 1;
        assert_eq!(seen, self.requests_for_the_cell(), "requests that the cell has seen");
    }

    /// Sends it and the request behind it, and what would be sent after a 100, whoever answers what.
    pub(crate) fn send_behind(&self, wire: &mut Wire) {
        let body = self.body.as_deref().unwrap_or_default();
        let behind = ask(BEHIND, "connection: close\r\n");
        wire.send_some([&self.bytes[..], body, behind.as_bytes()].concat());
    }

    fn send(&self, wire: &mut Wire, cut: Cut) {
        let behind = ask(BEHIND, "");
        match &self.body {
            _ if self.then == Then::CutShort => {
                cut.send(wire, &self.bytes);
                wire.end_sending();
            }
            None => cut.send(wire, &[&self.bytes[..], behind.as_bytes()].concat()),
            Some(body) => {
                cut.send(wire, &self.bytes);
                assert_eq!(wire.reply_head().status, 100);
                cut.send(wire, &[&body[..], behind.as_bytes()].concat());
            }
        }
    }

    fn expect(&self, wire: &mut Wire) {
        if self.then == Then::CutShort {
            let rest = wire.rest();
            let text = String::from_utf8_lossy(&rest);
            assert!(text.is_empty() || text.starts_with("HTTP/1.1 400 "), "{text:?}");
            return;
        }
        self.expect_answer(wire);
        if self.then == Then::GoesOn {
            assert_eq!(wire.reply().ok().json()["target"], BEHIND);
            wire.send(ask(LAST, "connection: close\r\n"));
            assert_eq!(wire.reply().ok().json()["target"], LAST);
        }
        wire.expect_close();
    }

    fn expect_answer(&self, wire: &mut Wire) {
        let is_head = self.bytes.starts_with(b"HEAD ");
        let read = |wire: &mut Wire| if is_head { wire.reply_head() } else { wire.reply() };
        let mut reply = read(wire);
        if reply.status == 100 && self.may_continue {
            reply = read(wire);
        }
        assert_eq!(reply.status, self.status, "{:?}", String::from_utf8_lossy(&reply.body));
        // A client of 1.0 knows without being told.
        let is_told = !self.bytes.windows(8).any(|bytes| bytes == b"HTTP/1.0");
        if is_told {
            let closes = reply.header("connection") == Some("close");
            assert_eq!(closes, self.then == Then::Closes, "what the client is told of the connection");
        }
        self.shows.check(&reply);
    }

    /// Errors here are the node's; what the cell answers is none.
    fn requests_for_the_cell(&self) -> u64 {
        let own = u64::from(self.then != Then::CutShort && self.status < 400);
        let behind_and_last = if self.then == Then::GoesOn { 2 } else { 0 };
        own + behind_and_last
    }
}

impl Shows {
    fn check(&self, reply: &Reply) {
        match self {
            Self::Nothing => {}
            Self::Body(body) => assert_eq!(&reply.body, body, "{:?}", String::from_utf8_lossy(&reply.body)),
            Self::Seen(what, value) => assert_eq!(reply.json()[what], **value),
            Self::Header(name, values) => {
                let headers = reply.json()["headers"].clone();
                let headers: Vec<(String, String)> = serde_json::from_value(headers).expect("pairs of texts");
                let found = headers.into_iter().filter(|(found, _)| found == name).map(|(_, value)| value);
                assert_eq!(found.collect::<Vec<_>>(), *values, "{name}");
            }
        }
    }
}

impl Cut {
    /// The node may close in the middle.
    fn send(self, wire: &mut Wire, bytes: &[u8]) {
        let piece = match self {
            Self::Nowhere => bytes.len(),
            Self::InTheMiddle => bytes.len().div_ceil(2),
            Self::Everywhere => bytes.len().div_ceil(PIECES_MAX),
        };
        bytes.chunks(piece.max(1)).for_each(|piece| wire.send_some(piece));
    }
}

fn ask(target: &str, lines: &str) -> String {
    format!("GET {target} HTTP/1.1\r\nhost: s1\r\n{lines}\r\n")
}

/// How many requests the cell was given before.
fn count(node: &Node) -> u64 {
    node.get("s1", "/count").ok().text().parse().expect("a number")
}

/// A request that the cell reflects, with these header lines.
pub(crate) fn get(lines: impl AsRef<[u8]>) -> Vec<u8> {
    [b"GET /reflect HTTP/1.1\r\nhost: s1\r\n", lines.as_ref(), b"\r\n"].concat()
}

/// A request whose body comes back, with these header lines.
pub(crate) fn post(lines: impl AsRef<[u8]>, body: impl AsRef<[u8]>) -> Vec<u8> {
    [b"POST /echo HTTP/1.1\r\nhost: s1\r\n", lines.as_ref(), b"\r\n", body.as_ref()].concat()
}
