//! Method, version, and what is between them. Source: RFC 9112, 2.2 to 3.1.

use crate::case::{Case, Then};

/// Lines that are answered: name, line, the method that the cell sees. Methods are tokens, and case counts.
const ANSWERED: [(&str, &str, &str); 12] = [
    ("method GET", "GET /reflect HTTP/1.1", "GET"),
    ("method POST without a body", "POST /reflect HTTP/1.1", "POST"),
    ("method PUT without a body", "PUT /reflect HTTP/1.1", "PUT"),
    ("method DELETE", "DELETE /reflect HTTP/1.1", "DELETE"),
    ("method PATCH without a body", "PATCH /reflect HTTP/1.1", "PATCH"),
    ("method TRACE", "TRACE /reflect HTTP/1.1", "TRACE"),
    ("method OPTIONS", "OPTIONS /reflect HTTP/1.1", "OPTIONS"),
    ("method in lower case is another", "get /reflect HTTP/1.1", "get"),
    ("method in mixed case is another", "Get /reflect HTTP/1.1", "Get"),
    ("method with a hyphen", "M-SEARCH /reflect HTTP/1.1", "M-SEARCH"),
    ("method of odd characters", "!#$%&'*+-.^_`|~09az /reflect HTTP/1.1", "!#$%&'*+-.^_`|~09az"),
    ("method of one letter", "X /reflect HTTP/1.1", "X"),
];

/// Lines that are none. A version of another major number may be answered 505, too.
const REFUSED: [(&str, &[u8]); 40] = [
    ("method with an at sign", b"G@T / HTTP/1.1"),
    ("method with a parenthesis", b"G(T / HTTP/1.1"),
    ("method with a colon", b"GET: / HTTP/1.1"),
    ("method with a quote", b"G\"T / HTTP/1.1"),
    ("method with a slash", b"G/T / HTTP/1.1"),
    ("method with brackets", b"[GET] / HTTP/1.1"),
    ("method with an 8-bit byte", b"G\xcbT / HTTP/1.1"),
    ("method with NUL", b"G\0T / HTTP/1.1"),
    ("method with DEL", b"G\x7fT / HTTP/1.1"),
    ("no method", b" / HTTP/1.1"),
    ("no method, no space", b"/ HTTP/1.1"),
    ("no target", b"GET HTTP/1.1"),
    ("no target, two spaces", b"GET  HTTP/1.1"),
    ("method alone", b"GET"),
    ("no version", b"GET /"),
    ("no version, but a space", b"GET / "),
    ("version 0.9", b"GET / HTTP/0.9"),
    ("version 2.0", b"GET / HTTP/2.0"),
    ("version 3", b"GET / HTTP/3"),
    ("version 1", b"GET / HTTP/1"),
    ("version 1.", b"GET / HTTP/1."),
    ("version 11", b"GET / HTTP/11"),
    ("version 1.11", b"GET / HTTP/1.11"),
    ("version 01.1", b"GET / HTTP/01.1"),
    ("version 1,1", b"GET / HTTP/1,1"),
    ("version with a letter behind", b"GET / HTTP/1.1x"),
    ("version in lower case", b"GET / http/1.1"),
    ("version of another protocol", b"GET / HTTPS/1.1"),
    ("version with a space in it", b"GET / HTTP /1.1"),
    ("space before the method", b" GET / HTTP/1.1"),
    ("tab before the method", b"\tGET / HTTP/1.1"),
    ("two spaces behind the method", b"GET  / HTTP/1.1"),
    ("two spaces before the version", b"GET /  HTTP/1.1"),
    ("space behind the version", b"GET / HTTP/1.1 "),
    ("tab behind the method", b"GET\t/ HTTP/1.1"),
    ("tab before the version", b"GET /\tHTTP/1.1"),
    ("CR behind the method", b"GET\r/ HTTP/1.1"),
    ("CR behind the version", b"GET / HTTP/1.1\r"),
    ("vertical tab before the version", b"GET /\x0bHTTP/1.1"),
    ("four words", b"GET / x HTTP/1.1"),
];

/// How lines end, and what is before the first: name, whole request. A server may take a bare LF, and should skip
/// empty lines.
const LINE_ENDS: [(&str, &str); 6] = [
    ("lines that end with LF", "GET / HTTP/1.1\nhost: s1\n\n"),
    ("request line that ends with LF", "GET / HTTP/1.1\nhost: s1\r\n\r\n"),
    ("empty line that ends with LF", "GET / HTTP/1.1\r\nhost: s1\r\n\n"),
    ("empty line before the request", "\r\nGET / HTTP/1.1\r\nhost: s1\r\n\r\n"),
    ("empty lines before the request", "\r\n\r\n\r\nGET / HTTP/1.1\r\nhost: s1\r\n\r\n"),
    ("empty line of LF before the request", "\nGET / HTTP/1.1\r\nhost: s1\r\n\r\n"),
];

/// What is no HTTP at all.
const NO_HTTP: [(&str, &[u8]); 5] = [
    ("preface of HTTP/2 that goes wrong", b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n"),
    ("first bytes of TLS", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n"),
    ("a response", b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"),
    ("CR before the request", b"\rGET / HTTP/1.1\r\nhost: s1\r\n\r\n"),
    ("NUL before the request", b"\0GET / HTTP/1.1\r\nhost: s1\r\n\r\n"),
];

pub(super) fn cases() -> Vec<Case> {
    let answered = ANSWERED.map(|(name, line, method)| {
        Case::answered(name, format!("{line}\r\nhost: s1\r\n\r\n")).seen("method", method)
    });
    let refused = REFUSED.map(|(name, line)| Case::refused(name, [line, b"\r\nhost: s1\r\n\r\n"].concat()));
    let mut cases = Vec::from(answered);
    cases.extend(refused);
    cases.extend(LINE_ENDS.map(|(name, request)| Case::answered(name, request).body_is("ok\n")));
    cases.extend(NO_HTTP.map(|(name, bytes)| Case::refused(name, bytes)));
    cases.extend(older());
    cases.push(long_method());
    cases
}

/// HTTP/1.0: the connection closes unless the client asks to keep it. The answer says 1.0 too, as hyper has it, where
/// RFC 9110, 6.2 would rather have 1.1; a client of 1.0 takes both.
fn older() -> [Case; 6] {
    let closes = |name, bytes| Case::new(name, bytes, 200, Then::Closes).body_is("ok\n");
    let goes_on = |name, bytes| Case::answered(name, bytes).body_is("ok\n");
    [
        closes("1.0 without a host", "GET / HTTP/1.0\r\n\r\n"),
        closes("1.0 with a host", "GET / HTTP/1.0\r\nhost: s1\r\n\r\n"),
        closes("1.0 with close", "GET / HTTP/1.0\r\nconnection: close\r\n\r\n"),
        goes_on("1.0 with keep-alive", "GET / HTTP/1.0\r\nconnection: keep-alive\r\n\r\n"),
        goes_on("1.0 with Keep-Alive among others", "GET / HTTP/1.0\r\nconnection: x, Keep-Alive\r\n\r\n"),
        closes("1.0 with close and keep-alive", "GET / HTTP/1.0\r\nconnection: close, keep-alive\r\n\r\n"),
    ]
}

/// Longer than any that exists: the cell decides whether it knows it.
fn long_method() -> Case {
    let method = "M".repeat(200);
    Case::answered("method of 200 letters", format!("{method} /reflect HTTP/1.1\r\nhost: s1\r\n\r\n"))
        .seen("method", &method)
}
