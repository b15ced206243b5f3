//! What a client asks for beside the request itself: expectations, other protocols, the end of the connection, parts.
//!
//! Source: RFC 9110, 7.6.1, 7.8, 9.3.2, 10.1 and 14.2; RFC 9112, 9.

use crate::case::{Case, Then, get, post};

pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    cases.extend(expectations());
    cases.extend(without_a_body());
    cases.extend(other_protocols());
    cases.extend(connections());
    cases.extend(parts());
    cases
}

/// A 100 may be left out when the body is there already. What else is expected may be ignored, as here, or
/// answered 417.
fn expectations() -> [Case; 10] {
    const ASKS: &str = "content-length: 4\r\nexpect: 100-continue\r\n";
    let asks = |name, lines: &str| Case::answered(name, post(lines, "")).then_body(b"abcd").body_is("abcd");
    let sends = |name, lines: &str| Case::answered(name, post(lines, "abcd")).body_is("abcd");
    let chunked = post("transfer-encoding: chunked\r\nexpect: 100-continue\r\n", "");
    let chunked = Case::answered("expectation with chunks", chunked);
    let older = "POST /echo HTTP/1.0\r\nhost: s1\r\ncontent-length: 4\r\nexpect: 100-continue\r\n\r\nabcd";
    let too_large = post("content-length: 1025\r\nexpect: 100-continue\r\n", "");
    [
        asks("expectation", ASKS),
        asks("expectation in any case", "content-length: 4\r\nExpect: 100-CONTINUE\r\n"),
        chunked.then_body(b"4\r\nabcd\r\n0\r\n\r\n").body_is("abcd"),
        sends("expectation with the body", ASKS).may_continue(),
        Case::answered("expectation without a body", get("expect: 100-continue\r\n")),
        Case::new("expectation in 1.0 is ignored", older, 200, Then::Closes).body_is("abcd"),
        Case::new("expectation with a body over the limit", too_large, 413, Then::Closes),
        sends("expectation that nobody knows", "content-length: 4\r\nexpect: tea\r\n"),
        sends("expectation that is empty", "content-length: 4\r\nexpect:\r\n"),
        Case::refused(
            "expectation in a bad request",
            "POST / HTTP/1.1\r\ncontent-length: 4\r\nexpect: 100-continue\r\n\r\n",
        ),
    ]
}

/// Answers that end with their head, whatever `content-length` says in it.
fn without_a_body() -> [Case; 7] {
    let ask = |line: &str| format!("{line} HTTP/1.1\r\nhost: s1\r\n\r\n");
    let status = |name, line, status| Case::new(name, ask(line), status, Then::GoesOn).body_is("");
    [
        status("HEAD", "HEAD /do/big:1000", 200),
        status("HEAD of nothing", "HEAD /echo", 200),
        status("HEAD of an answer without a body", "HEAD /answer?status=204", 204),
        status("HEAD of a target that is too long", &format!("HEAD /{}", "p".repeat(8192)), 414),
        status("status 204", "GET /answer?status=204", 204),
        status("status 304", "GET /answer?status=304", 304),
        Case::new("HEAD of a bad request", "HEAD / HTTP/1.1\r\n\r\n", 400, Then::Closes).body_is(""),
    ]
}

/// Never 101. An offer may be ignored; that of a WebSocket is refused, for its client cannot go on without.
fn other_protocols() -> [Case; 11] {
    const KEY: &str = "sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    let ignored = |name, lines: &str| Case::answered(name, get(lines)).seen("target", "/reflect");
    let refused = |name, lines: &str| Case::new(name, get(lines), 501, Then::Closes);
    let older = "GET / HTTP/1.0\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n";
    let websocket = format!("connection: upgrade\r\nupgrade: websocket\r\n{KEY}");
    let settings =
        "connection: upgrade, http2-settings\r\nupgrade: h2c\r\nhttp2-settings: AAMAAABkAAQAAP__\r\n";
    [
        refused("upgrade to WebSocket", &websocket),
        Case::new("upgrade to WebSocket in 1.0 is ignored", older, 200, Then::Closes),
        refused("upgrade to WebSocket in any case", "connection: Upgrade\r\nupgrade: WebSocket\r\n"),
        refused("upgrade to WebSocket that connection does not name", "upgrade: websocket\r\n"),
        ignored("upgrade to h2c", settings),
        ignored("upgrade to h2c is for this hop", settings).header("http2-settings", &[]),
        ignored("upgrade to h2c and others", "connection: upgrade\r\nupgrade: h2c, irc/6.9\r\n"),
        ignored("upgrade to what nobody knows", "connection: upgrade\r\nupgrade: x/1\r\n"),
        ignored("upgrade to TLS", "connection: upgrade\r\nupgrade: TLS/1.2\r\n"),
        ignored("upgrade to nothing", "connection: upgrade\r\nupgrade:\r\n"),
        Case::answered(
            "upgrade with a body",
            post("connection: upgrade\r\nupgrade: h2c\r\ncontent-length: 4\r\n", "abcd"),
        )
        .body_is("abcd"),
    ]
}

/// Who says close is not answered again, whatever else is said.
fn connections() -> [Case; 13] {
    let closes = |name, lines: &str| Case::new(name, get(lines), 200, Then::Closes);
    let goes_on = |name, lines: &str| Case::answered(name, get(lines));
    let body = post("connection: close\r\ncontent-length: 4\r\n", "abcd");
    let chunked = post("connection: close\r\ntransfer-encoding: chunked\r\n", "4\r\nabcd\r\n0\r\n\r\n");
    [
        closes("close", "connection: close\r\n"),
        closes("close in any case", "CONNECTION: Close\r\n"),
        closes("close among others", "connection: x , close,y\r\n"),
        closes("close and keep-alive", "connection: close, keep-alive\r\n"),
        closes("keep-alive and close", "connection: keep-alive, close\r\n"),
        closes("close in a second line", "connection: keep-alive\r\nconnection: close\r\n"),
        closes("close in a first line", "connection: close\r\nconnection: keep-alive\r\n"),
        Case::new("close with a body", body, 200, Then::Closes).body_is("abcd"),
        Case::new("close with chunks", chunked, 200, Then::Closes).body_is("abcd"),
        goes_on("keep-alive", "connection: keep-alive\r\nkeep-alive: timeout=5\r\n")
            .header("keep-alive", &[]),
        goes_on("connection that is empty", "connection:\r\n"),
        goes_on("connection that only begins with close", "connection: closed\r\n"),
        goes_on("header for this hop", "connection: x-a\r\nx-a: 1\r\n").header("x-a", &[]),
    ]
}

/// The cell sees what it may use; what is for this hop it does not.
fn parts() -> [Case; 5] {
    let goes_on = |name, lines: &str| Case::answered(name, get(lines));
    [
        goes_on("te", "te: trailers\r\n").header("te", &[]),
        goes_on("te with codings", "te: gzip;q=1.0, trailers\r\nconnection: te\r\n").header("te", &[]),
        goes_on("range is the cell's to use", "range: bytes=0-1\r\n").header("range", &["bytes=0-1"]),
        goes_on("range that is none", "range: bytes=9-1\r\n").header("range", &["bytes=9-1"]),
        goes_on("trailer that is announced only", "trailer: x-a\r\n").header("trailer", &[]),
    ]
}
