//! Where we do not do what the RFC asks for.

use crate::case::Then::{self, Closes, GoesOn};
use crate::case::{Case, post};

/// What we do today, what would be right, and why we do not.
struct Difference {
    name: &'static str,
    bytes: fn() -> Vec<u8>,
    /// Today's.
    status: u16,
    then: Then,
    /// Section, and what it asks for.
    rfc: &'static str,
    reason: &'static str,
}

const KNOWN_DIFFERENCES: [Difference; 15] = [
    Difference {
        name: "version 1.2",
        bytes: || line("GET / HTTP/1.2"),
        status: 400,
        then: Closes,
        rfc: "RFC 9110, 2.5: read as 1.1",
        reason: "httparse knows 1.0 and 1.1, and nobody sends another",
    },
    Difference {
        name: "target with a fragment",
        bytes: || line("GET /reflect#a HTTP/1.1"),
        status: 200,
        then: GoesOn,
        rfc: "RFC 9112, 3.2: is no target, 400",
        reason: "the crate http cuts it off before we see it; the cell does not see it either",
    },
    Difference {
        name: "target with 8-bit text",
        bytes: || line("GET /reflect/\u{e4} HTTP/1.1"),
        status: 200,
        then: GoesOn,
        rfc: "RFC 9112, 3.2: is no target, 400",
        reason: "the crate http takes UTF-8; it goes to the cell unchanged",
    },
    Difference {
        name: "target with characters that should be escaped",
        bytes: || line("GET /reflect?a={b}|^`\\[c] HTTP/1.1"),
        status: 200,
        then: GoesOn,
        rfc: "RFC 9112, 3.2: is no target, 400",
        reason: "the crate http takes them, for there are clients that send them; they go to the cell unchanged",
    },
    Difference {
        name: "target with escapes that are broken",
        bytes: || line("GET /reflect/%zz%4?% HTTP/1.1"),
        status: 200,
        then: GoesOn,
        rfc: "RFC 9112, 3.2: is no target, 400",
        reason: "nobody on the way to the cell reads escapes",
    },
    Difference {
        name: "absolute target of https",
        bytes: || line("GET https://s1/reflect HTTP/1.1"),
        status: 200,
        then: GoesOn,
        rfc: "RFC 9110, 7.4: refused without TLS, unless a trusted gateway ends it",
        reason: "we have no TLS, and cannot tell a gateway that has from another client",
    },
    Difference {
        name: "target over all limits",
        bytes: || line(&format!("GET /{} HTTP/1.1", "p".repeat(20_000))),
        status: 431,
        then: Closes,
        rfc: "RFC 9112, 3: 414",
        reason: "hyper has one limit for the whole head",
    },
    Difference {
        name: "length of 64 bits, all set",
        bytes: || post("content-length: 18446744073709551615\r\n", ""),
        status: 431,
        then: Closes,
        rfc: "RFC 9110, 15.5.14: 413",
        reason: "hyper needs the two largest numbers for itself",
    },
    Difference {
        name: "length with 80 zeros before it",
        bytes: || post(format!("content-length: {}4\r\n", "0".repeat(80)), "abcd"),
        status: 400,
        then: Closes,
        rfc: "RFC 9110, 8.6: any count of digits",
        reason: "the second look at the framing is bounded, and refuses what it cannot read",
    },
    Difference {
        name: "chunk size with 80 zeros before it",
        bytes: || chunked(&format!("{}4\r\nabcd\r\n0\r\n\r\n", "0".repeat(80))),
        status: 400,
        then: Closes,
        rfc: "RFC 9112, 7.1: any count of digits",
        reason: "the same",
    },
    Difference {
        name: "coding with a comma behind it",
        bytes: || post("transfer-encoding: chunked,\r\n", "4\r\nabcd\r\n0\r\n\r\n"),
        status: 400,
        then: Closes,
        rfc: "RFC 9110, 5.6.1.2: empty elements are ignored",
        reason: "hyper looks at what is behind the last comma",
    },
    Difference {
        name: "chunk size with a space behind it",
        bytes: || chunked("4 \r\nabcd\r\n0\r\n\r\n"),
        status: 200,
        then: GoesOn,
        rfc: "RFC 9112, 7.1: white space only before a semicolon",
        reason: "hyper skips it; there is no second way to read it",
    },
    Difference {
        name: "extension without a name",
        bytes: || chunked("4;\r\nabcd\r\n0\r\n\r\n"),
        status: 200,
        then: GoesOn,
        rfc: "RFC 9112, 7.1.1: has a name",
        reason: "hyper skips extensions unread",
    },
    Difference {
        name: "extension with a quote that does not end",
        bytes: || chunked("4;a=\"\r\nabcd\r\n0\r\n\r\n"),
        status: 200,
        then: GoesOn,
        rfc: "RFC 9112, 7.1.1: quotes end",
        reason: "the same; it ends with its line, as a quote cannot go on behind that",
    },
    Difference {
        name: "extension with NUL",
        bytes: || chunked("4;a\0\r\nabcd\r\n0\r\n\r\n"),
        status: 200,
        then: GoesOn,
        rfc: "RFC 9112, 7.1.1: is a token or a quoted text",
        reason: "the same",
    },
];

pub(super) fn cases() -> Vec<Case> {
    let case = |Difference { name, bytes, status, then, rfc, reason }| {
        Case::new(format!("{name} ({rfc}; but {reason})"), bytes(), status, then)
    };
    KNOWN_DIFFERENCES.into_iter().map(case).collect()
}

fn line(line: &str) -> Vec<u8> {
    format!("{line}\r\nhost: s1\r\n\r\n").into_bytes()
}

fn chunked(body: &str) -> Vec<u8> {
    post("transfer-encoding: chunked\r\n", body)
}
