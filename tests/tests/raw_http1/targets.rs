//! The request target in its four forms, and how long it may be. Source: RFC 9112, 3.2.

use crate::case::{Case, Then};

/// Method and target as sent, and the target that the cell sees. Escapes are the cell's to read.
const ANSWERED: [(&str, &str, &str); 18] = [
    ("target with a query", "GET /reflect?a=b&c", "/reflect?a=b&c"),
    ("target with an empty query", "GET /reflect?", "/reflect?"),
    ("target with two question marks", "GET /reflect?a?b", "/reflect?a?b"),
    ("target with an escape", "GET /reflect/a%20b", "/reflect/a%20b"),
    ("target with an escaped slash", "GET /reflect/a%2fb", "/reflect/a%2fb"),
    ("target with an escaped NUL", "GET /reflect/a%00b", "/reflect/a%00b"),
    ("target with an escaped line end", "GET /reflect/a%0d%0ab", "/reflect/a%0d%0ab"),
    ("target with dots", "GET /reflect/../a/./b", "/reflect/../a/./b"),
    ("target with empty segments", "GET /reflect//a//", "/reflect//a//"),
    ("target with all that a path may have", "GET /reflect/-._~!$&'()*+,;=:@", "/reflect/-._~!$&'()*+,;=:@"),
    ("absolute target", "GET http://s1/reflect?a", "/reflect?a"),
    ("absolute target with a scheme in upper case", "GET HTTP://s1/reflect", "/reflect"),
    ("absolute target with a port", "GET http://s1:5005/reflect", "/reflect"),
    ("absolute target with an address", "GET http://[::1]:5005/reflect", "/reflect"),
    // It wins over `host`, which is s1 here.
    ("absolute target of another host", "GET http://example.org/reflect", "/reflect"),
    ("absolute target of OPTIONS", "OPTIONS http://s1/reflect", "/reflect"),
    ("target of one long segment", "GET /reflect/aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", LONG_SEGMENT),
    ("target with a colon", "GET /reflect/a:80", "/reflect/a:80"),
];

const LONG_SEGMENT: &str = "/reflect/aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";

/// Targets that are none, or not with this method.
const REFUSED: [(&str, &[u8]); 24] = [
    ("target without a slash", b"GET reflect"),
    ("target that is a name and a path", b"GET s1/reflect"),
    ("target that is a question mark", b"GET ?a"),
    ("target that is a host and a port", b"GET s1:80"),
    ("target that is an address", b"GET [::1]:80"),
    ("asterisk with GET", b"GET *"),
    ("asterisk with POST", b"POST *"),
    ("asterisk and a path", b"OPTIONS */reflect"),
    ("absolute target without a host", b"GET http:///reflect"),
    ("absolute target with an empty host", b"GET http://:80/reflect"),
    ("absolute target without slashes", b"GET http:reflect"),
    ("absolute target with a user name", b"GET http://a@s1/reflect"),
    ("absolute target with a password", b"GET http://a:b@s1/reflect"),
    ("absolute target with a port that is none", b"GET http://s1:x/reflect"),
    ("absolute target with two ports", b"GET http://s1:1:2/reflect"),
    ("absolute target with half an address", b"GET http://[::1/reflect"),
    ("target with NUL", b"GET /a\0b"),
    ("target with DEL", b"GET /a\x7fb"),
    ("target with CR", b"GET /a\rb"),
    ("target with a control byte", b"GET /a\x01b"),
    ("target with a space", b"GET /a b"),
    ("target with angle brackets", b"GET /<a>"),
    ("target with a quote in its query", b"GET /?\"a\""),
    ("target with a byte that is no UTF-8", b"GET /a\xe4b"),
];

pub(super) fn cases() -> Vec<Case> {
    let answered = ANSWERED.map(|(name, line, target)| {
        Case::answered(name, format!("{line} HTTP/1.1\r\nhost: s1\r\n\r\n")).seen("target", target)
    });
    let refused =
        REFUSED.map(|(name, line)| Case::refused(name, [line, b" HTTP/1.1\r\nhost: s1\r\n\r\n"].concat()));
    answered.into_iter().chain(refused).chain(special()).chain(long()).collect()
}

/// `/reflect` is in none of these.
fn special() -> [Case; 7] {
    let ok = |name, bytes| Case::answered(name, bytes).body_is("ok\n");
    let refused_as = |name, bytes, status| Case::new(name, bytes, status, Then::Closes);
    [
        ok("asterisk with OPTIONS", "OPTIONS * HTTP/1.1\r\nhost: s1\r\n\r\n"),
        ok("absolute target without a path", "GET http://s1 HTTP/1.1\r\nhost: s1\r\n\r\n"),
        ok("absolute target of OPTIONS without a path", "OPTIONS http://s1 HTTP/1.1\r\nhost: s1\r\n\r\n"),
        ok(
            "absolute target of 1.0 without a host line",
            "GET http://s1/ HTTP/1.0\r\nconnection: keep-alive\r\n\r\n",
        ),
        refused_as("CONNECT", "CONNECT s1:80 HTTP/1.1\r\nhost: s1:80\r\n\r\n", 501),
        refused_as("CONNECT to a path", "CONNECT /reflect HTTP/1.1\r\nhost: s1\r\n\r\n", 501),
        Case::refused("absolute target without a host line", "GET http://s1/ HTTP/1.1\r\n\r\n"),
    ]
}

/// At most 8 KiB of target, 16 KiB of head, 100 lines, of which one is added by the node.
fn long() -> [Case; 8] {
    let target = |bytes: usize| format!("GET /{} HTTP/1.1\r\nhost: s1\r\n\r\n", "p".repeat(bytes - 1));
    let line = |bytes: usize| format!("x: {}\r\n", "v".repeat(bytes - 5));
    let head = |lines: String| format!("GET / HTTP/1.1\r\nhost: s1\r\n{lines}\r\n");
    let fits = |name, bytes| Case::answered(name, bytes).body_is("ok\n");
    let closes = |name, bytes| Case::new(name, bytes, 431, Then::Closes);
    [
        fits("target of 8 KiB", target(8192)),
        Case::new("target over 8 KiB", target(8193), 414, Then::GoesOn),
        fits("line of 10 KiB", head(line(10_240))),
        closes("line of 17 KiB", head(line(17_408))),
        closes("many lines of 17 KiB together", head(line(1024).repeat(17))),
        fits("99 lines", head(line(6).repeat(98))),
        fits("100 lines and one that is added", head(line(6).repeat(99))),
        closes("101 lines", head(line(6).repeat(100))),
    ]
}
