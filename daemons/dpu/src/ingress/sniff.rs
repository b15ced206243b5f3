//! Which protocol a client speaks, from its first bytes.
//!
//! A client of HTTP/1 is waited for here until its first head is whole, or is none: a slow one costs the bytes that it has
//! sent, and not yet a parser with its buffers.

use bytes::BytesMut;
use tokio::io::AsyncReadExt;
use tokio::time::{Instant, timeout_at};

use super::HeadProblem;
use super::io::ClientIo;
use crate::config::DpuConfig;
use crate::dpu::{Connection, Dpu};

/// What every HTTP/2 client with prior knowledge sends first. Source: RFC 9113, 3.4.
const H2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// More white space than this before a request is no request.
const BLANK_BYTES_MAX: usize = 1024;
/// A first read: most request heads fit. The parser takes over when there are more.
const FIRST_READ_BYTES: usize = 2048;
/// Lines of a head that are looked at here. The parser takes over when there are more.
const LINES_MAX: usize = 64;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Protocol {
    Http1,
    Http2,
    Json,
}

/// Reads until the protocol is clear and puts the bytes back. `None`: the client left, or said nothing
/// `until` then.
pub(super) async fn protocol(
    dpu: &Dpu,
    io: &mut ClientIo,
    connection: &Connection,
    until: Instant,
) -> Option<Protocol> {
    let settings = dpu.settings();
    let mut early = BytesMut::with_capacity(FIRST_READ_BYTES);
    let reading = read_until_clear(io, &mut early, connection, &settings.config);
    let Ok(protocol) = timeout_at(until, reading).await else {
        // Who has said nothing has not begun.
        if !early.is_empty() {
            dpu.count_head(HeadProblem::TooSlow);
        }
        return None;
    };
    io.put_back(early);
    protocol
}

async fn read_until_clear(
    io: &mut ClientIo,
    early: &mut BytesMut,
    connection: &Connection,
    config: &DpuConfig,
) -> Option<Protocol> {
    let (json, lines_max) = (config.json_bridge, LINES_MAX.min(config.header_lines_max.into()));
    loop {
        if !matches!(connection.unless_drained(io.read_buf(early)).await, Some(Ok(1..))) {
            return known_at_end(early, json);
        }
        match classify(early, json) {
            None => {}
            Some(Protocol::Http1) if is_begun(early, lines_max) => {}
            known => return known,
        }
    }
}

/// Whether this is the beginning of a head of at most so many lines, and no more than that.
fn is_begun(bytes: &[u8], lines_max: usize) -> bool {
    let mut lines = [httparse::EMPTY_HEADER; LINES_MAX];
    let parsed = httparse::Request::new(&mut lines[..lines_max]).parse(bytes);
    bytes.len() < FIRST_READ_BYTES && parsed == Ok(httparse::Status::Partial)
}

/// Nothing more comes: half a preface is for the HTTP/1 parser to refuse.
fn known_at_end(early: &[u8], json: bool) -> Option<Protocol> {
    let blank = early.iter().all(u8::is_ascii_whitespace);
    (!blank).then(|| classify(early, json).unwrap_or(Protocol::Http1))
}

/// The protocol, once the bytes say which.
fn classify(bytes: &[u8], json: bool) -> Option<Protocol> {
    if bytes.starts_with(H2_PREFACE) {
        return Some(Protocol::Http2);
    }
    if H2_PREFACE.starts_with(bytes) {
        return None;
    }
    match bytes.iter().find(|b| !is_blank(**b)) {
        Some(b'{') if json => Some(Protocol::Json),
        Some(_) => Some(Protocol::Http1),
        None => (bytes.len() > BLANK_BYTES_MAX).then_some(Protocol::Http1),
    }
}

/// White space of JSON.
fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\r' | b'\n')
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The first byte that means something decides; part of a preface decides nothing yet.
    #[test]
    fn first_bytes_tell_the_protocol() {
        for (bytes, protocol) in [
            (&b"GET / HTTP/1.1\r\n"[..], Some(Protocol::Http1)),
            (b"\r\nGET / HTTP/1.1\r\n", Some(Protocol::Http1)),
            (b"{", Some(Protocol::Json)),
            (b" \r\n\t{\"a\"", Some(Protocol::Json)),
            (b"[", Some(Protocol::Http1)),
            (b"\x16\x03\x01", Some(Protocol::Http1)),
            (H2_PREFACE, Some(Protocol::Http2)),
            (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04", Some(Protocol::Http2)),
            (b"PRI * HTTP/2.0\r\n\r\nXX", Some(Protocol::Http1)),
            (b"P", None),
            (b"PUT", Some(Protocol::Http1)),
            (b"", None),
            (b"\r\n", None),
        ] {
            assert_eq!(classify(bytes, true), protocol, "{bytes:?}");
        }
        assert_eq!(classify(&[b' '; BLANK_BYTES_MAX + 1], true), Some(Protocol::Http1));
    }

    /// A head that is neither whole nor wrong, nor long.
    #[test]
    fn heads_are_waited_for() {
        for begun in
            ["G", "GET / HTTP/1.1", "GET / HTTP/1.1\r\nhost: a\r\n", "\r\nGET / HTTP/1.1\r\na: b\r\n\r"]
        {
            assert!(is_begun(begun.as_bytes(), LINES_MAX), "{begun:?}");
        }
        let (long, lines) = ("a".repeat(FIRST_READ_BYTES), "a: b\r\n".repeat(LINES_MAX + 1));
        let (long, lines) = (format!("GET /{long}"), format!("GET / HTTP/1.1\r\n{lines}"));
        let whole = "GET / HTTP/1.1\r\nhost: a\r\n\r\n";
        for ended in
            [whole, "GET / HTTP/1.1\n\n", "GET  /", "\x16\x03\x01", "GET / HTTP/1.1\r\na b", &long, &lines]
        {
            assert!(!is_begun(ended.as_bytes(), LINES_MAX), "{ended:?}");
        }
    }

    /// More lines than config allows are for the parser to refuse, at once.
    #[test]
    fn long_heads_are_not_waited_for() {
        let head = "GET / HTTP/1.1\r\na: b\r\na: b\r\n";
        assert!(is_begun(head.as_bytes(), 2) && !is_begun(head.as_bytes(), 1));
    }

    /// With the bridge off its clients are told so in HTTP.
    #[test]
    fn bridge_can_be_off() {
        assert_eq!(classify(b"{}", false), Some(Protocol::Http1));
    }
}
