//! Chunks, their extensions, and trailers. Source: RFC 9112, 7.1.

use crate::case::{Case, post};

/// Chunked bodies that mean "abcd".
const ANSWERED: [(&str, &str); 26] = [
    ("chunk", "4\r\nabcd\r\n0\r\n\r\n"),
    ("chunks", "1\r\na\r\n2\r\nbc\r\n1\r\nd\r\n0\r\n\r\n"),
    ("chunk size with zeros before it", "0004\r\nabcd\r\n0\r\n\r\n"),
    ("chunk size of more digits than 64 bits have", "00000000000000000004\r\nabcd\r\n0\r\n\r\n"),
    ("last chunk of many zeros", "4\r\nabcd\r\n0000000000\r\n\r\n"),
    ("extension", "4;a\r\nabcd\r\n0\r\n\r\n"),
    ("extension with a value", "4;a=b\r\nabcd\r\n0\r\n\r\n"),
    ("extensions", "4;a=b;c;d=e\r\nabcd\r\n0\r\n\r\n"),
    ("extension in quotes", "4;a=\"b\"\r\nabcd\r\n0\r\n\r\n"),
    ("extension with a semicolon in quotes", "4;a=\"b;c\"\r\nabcd\r\n0\r\n\r\n"),
    ("extension with an escaped quote", "4;a=\"b\\\"c\"\r\nabcd\r\n0\r\n\r\n"),
    ("extension between white space", "4 ; a = b\r\nabcd\r\n0\r\n\r\n"),
    ("extension that is a number", "4;5\r\nabcd\r\n0\r\n\r\n"),
    ("extension that looks like a size", "4;ffff=ffff\r\nabcd\r\n0\r\n\r\n"),
    ("extension of the last chunk", "4\r\nabcd\r\n0;a=b\r\n\r\n"),
    ("trailer", "4\r\nabcd\r\n0\r\nx-a: 1\r\n\r\n"),
    ("trailers", "4\r\nabcd\r\n0\r\nx-a: 1\r\nx-b: 2\r\nx-a: 3\r\n\r\n"),
    ("trailer that is empty", "4\r\nabcd\r\n0\r\nx-a:\r\n\r\n"),
    // What must not be in trailers is dropped with them.
    ("trailer content-length", "4\r\nabcd\r\n0\r\ncontent-length: 9\r\n\r\n"),
    ("trailer transfer-encoding", "4\r\nabcd\r\n0\r\ntransfer-encoding: chunked\r\n\r\n"),
    ("trailer host", "4\r\nabcd\r\n0\r\nhost: s2\r\n\r\n"),
    ("trailer connection", "4\r\nabcd\r\n0\r\nconnection: close\r\n\r\n"),
    ("trailer expect", "4\r\nabcd\r\n0\r\nexpect: 100-continue\r\n\r\n"),
    ("trailer upgrade", "4\r\nabcd\r\n0\r\nupgrade: websocket\r\n\r\n"),
    ("trailer trailer", "4\r\nabcd\r\n0\r\ntrailer: x-a\r\n\r\n"),
    ("trailer that looks like a chunk", "4\r\nabcd\r\n0\r\n4: abcd\r\n\r\n"),
];

/// Bodies that are refused.
const REFUSED: [(&str, &[u8]); 45] = [
    ("chunk size that is missing", b"\r\nabcd\r\n0\r\n\r\n"),
    ("chunk size that is an extension alone", b";a=b\r\nabcd\r\n0\r\n\r\n"),
    ("chunk size that is negative", b"-4\r\nabcd\r\n0\r\n\r\n"),
    ("chunk size with a plus sign", b"+4\r\nabcd\r\n0\r\n\r\n"),
    ("chunk size with 0x", b"0x4\r\nabcd\r\n0\r\n\r\n"),
    ("chunk size with an h", b"4h\r\nabcd\r\n0\r\n\r\n"),
    ("chunk size with an underscore", b"0_4\r\nabcd\r\n0\r\n\r\n"),
    ("chunk size with a fraction", b"4.0\r\nabcd\r\n0\r\n\r\n"),
    ("chunk size that is no number", b"xyz\r\nabcd\r\n0\r\n\r\n"),
    ("chunk size with a letter behind hex", b"4g\r\nabcd\r\n0\r\n\r\n"),
    ("chunk size behind a space", b" 4\r\nabcd\r\n0\r\n\r\n"),
    ("chunk size behind a tab", b"\t4\r\nabcd\r\n0\r\n\r\n"),
    ("chunk size with a space in it", b"0 4\r\nabcd\r\n0\r\n\r\n"),
    ("chunk size with a comma", b"4,4\r\nabcd\r\n0\r\n\r\n"),
    ("chunk size in quotes", b"\"4\"\r\nabcd\r\n0\r\n\r\n"),
    ("chunk size with NUL", b"4\0\r\nabcd\r\n0\r\n\r\n"),
    ("chunk size with an 8-bit byte", b"4\xff\r\nabcd\r\n0\r\n\r\n"),
    ("chunk size with a vertical tab", b"4\x0b\r\nabcd\r\n0\r\n\r\n"),
    ("chunk size over 64 bits", b"10000000000000000\r\nabcd\r\n0\r\n\r\n"),
    ("chunk size over 64 bits that wraps to 4", b"10000000000000004\r\nabcd\r\n0\r\n\r\n"),
    ("chunk size of 17 f", b"fffffffffffffffff\r\nabcd\r\n0\r\n\r\n"),
    ("chunk size that ends with LF", b"4\nabcd\r\n0\r\n\r\n"),
    ("chunk size that ends with CR", b"4\rabcd\r\n0\r\n\r\n"),
    ("chunk size that ends with two CR", b"4\r\r\nabcd\r\n0\r\n\r\n"),
    ("extension that ends with LF", b"4;a\nabcd\r\n0\r\n\r\n"),
    ("extension with CR", b"4;a\rb\r\nabcd\r\n0\r\n\r\n"),
    ("extension with a line end in quotes", b"4;a=\"\n\"\r\nabcd\r\n0\r\n\r\n"),
    ("chunk that is longer than its size", b"3\r\nabcd\r\n0\r\n\r\n"),
    ("chunk that is shorter than its size", b"5\r\nabcd\r\n0\r\n\r\n"),
    ("chunk without a line end", b"4\r\nabcd0\r\n\r\n"),
    ("chunk that ends with LF", b"4\r\nabcd\n0\r\n\r\n"),
    ("chunk that ends with CR", b"4\r\nabcd\r0\r\n\r\n"),
    ("chunk that ends with LF CR", b"4\r\nabcd\n\r0\r\n\r\n"),
    ("chunk with an empty line behind it", b"4\r\nabcd\r\n\r\n0\r\n\r\n"),
    ("last chunk that ends with LF", b"4\r\nabcd\r\n0\n\r\n"),
    ("lines that all end with LF", b"4\nabcd\n0\n\n"),
    ("trailer without a colon", b"4\r\nabcd\r\n0\r\nx-a\r\n\r\n"),
    ("trailer with a space before the colon", b"4\r\nabcd\r\n0\r\nx-a : 1\r\n\r\n"),
    ("trailer without a name", b"4\r\nabcd\r\n0\r\n: 1\r\n\r\n"),
    ("trailer that is folded", b"4\r\nabcd\r\n0\r\nx-a: 1\r\n 2\r\n\r\n"),
    ("trailer with NUL", b"4\r\nabcd\r\n0\r\nx-a: \0\r\n\r\n"),
    ("trailer that ends with LF", b"4\r\nabcd\r\n0\r\nx-a: 1\n\r\n"),
    ("trailer and an empty line that ends with LF", b"4\r\nabcd\r\n0\r\nx-a: 1\n\n"),
    ("empty line of LF behind the last chunk", b"4\r\nabcd\r\n0\r\n\n"),
    ("trailer with CR", b"4\r\nabcd\r\n0\r\nx-a: 1\r2\r\n\r\n"),
];

pub(super) fn cases() -> Vec<Case> {
    let post = |body: &[u8]| post("transfer-encoding: chunked\r\n", body);
    let answered = ANSWERED.map(|(name, body)| Case::answered(name, post(body.as_bytes())).body_is("abcd"));
    let refused = REFUSED.map(|(name, body)| Case::refused(name, post(body)));
    answered.into_iter().chain(refused).chain(sizes()).chain(two_requests()).collect()
}

/// Empty bodies, hex digits in both cases, and all that has a bound.
fn sizes() -> [Case; 8] {
    let post = |body: &str| post("transfer-encoding: chunked\r\n", body);
    let twelve = "abcdefghijkl";
    let extension = |bytes: usize| post(&format!("4;{}\r\nabcd\r\n0\r\n\r\n", "x".repeat(bytes)));
    let trailers = |line: &str, count: usize| post(&format!("4\r\nabcd\r\n0\r\n{}\r\n", line.repeat(count)));
    [
        Case::answered("no chunk but the last", post("0\r\n\r\n")).body_is(""),
        Case::answered("chunk size in lower case", post(&format!("c\r\n{twelve}\r\n0\r\n\r\n")))
            .body_is(twelve),
        Case::answered("chunk size in upper case", post(&format!("C\r\n{twelve}\r\n0\r\n\r\n")))
            .body_is(twelve),
        Case::answered("extension of 2 KiB", extension(2048)).body_is("abcd"),
        Case::refused("extension of 17 KiB", extension(17_408)),
        Case::answered("trailers that are many", trailers("x: y\r\n", 50)).body_is("abcd"),
        Case::refused("trailers that are too many", trailers("x: y\r\n", 101)),
        Case::refused("trailers that are too long", trailers(&format!("x: {}\r\n", "v".repeat(1019)), 17)),
    ]
}

/// Where a request ends must not be read in two ways: a body that looks like requests is one.
fn two_requests() -> [Case; 3] {
    let inner = "GET /count HTTP/1.1\r\nhost: s1\r\n\r\n";
    let chunked = format!("{:x}\r\n{inner}\r\n0\r\n\r\n", inner.len());
    let sized = format!("content-length: {}\r\n", inner.len());
    [
        Case::answered("chunk that is a request", post("transfer-encoding: chunked\r\n", chunked))
            .body_is(inner),
        Case::answered("body that is a request", crate::case::post(sized, inner)).body_is(inner),
        Case::refused(
            "trailer that hides a request",
            post("transfer-encoding: chunked\r\n", format!("0\r\nx: y\n\n{inner}")),
        ),
    ]
}
