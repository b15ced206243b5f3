//! Where a body ends: `content-length` and `transfer-encoding`. Source: RFC 9110, 8.6; RFC 9112, 6.

use crate::case::{Case, Then, get, post};

/// The body "abcd" as one chunk.
const CHUNKED: &str = "4\r\nabcd\r\n0\r\n\r\n";
const BODY_BYTES_MAX: usize = 1024;

/// Lengths of the body "abcd".
const LENGTHS: [(&str, &str); 6] = [
    ("length", "content-length: 4\r\n"),
    ("length in any case", "CONTENT-Length:4\r\n"),
    ("length between white space", "content-length: \t4\t \r\n"),
    ("length with zeros before it", "content-length: 0004\r\n"),
    ("length twice the same", "content-length: 4\r\ncontent-length: 4\r\n"),
    ("length twice the same number", "content-length: 4\r\ncontent-length: 04\r\n"),
];

/// Lengths that are none, before the body "abcd". A list of equal ones may be taken, or refused as here.
const NO_LENGTHS: [(&str, &[u8]); 27] = [
    ("length that is negative", b"content-length: -4\r\n"),
    ("length that is minus nothing", b"content-length: -0\r\n"),
    ("length with a plus sign", b"content-length: +4\r\n"),
    ("length in hex", b"content-length: 0x4\r\n"),
    ("length in hex digits", b"content-length: a\r\n"),
    ("length with a fraction", b"content-length: 4.0\r\n"),
    ("length with an exponent", b"content-length: 4e0\r\n"),
    ("length with an underscore", b"content-length: 0_4\r\n"),
    ("length with a space in it", b"content-length: 4 4\r\n"),
    ("length with a parameter", b"content-length: 4;x=y\r\n"),
    ("length in quotes", b"content-length: \"4\"\r\n"),
    ("length that is empty", b"content-length:\r\n"),
    ("length that is white space", b"content-length:  \t\r\n"),
    ("length that is no number", b"content-length: four\r\n"),
    ("length in other digits", "content-length: \u{ff14}\r\n".as_bytes()),
    ("length with NUL", b"content-length: 4\0\r\n"),
    ("length with a vertical tab", b"content-length: \x0b4\r\n"),
    ("length behind a space", b" content-length: 4\r\n"),
    ("length with a space before the colon", b"content-length : 4\r\n"),
    ("length that is folded", b"content-length:\r\n 4\r\n"),
    ("length over 64 bits", b"content-length: 18446744073709551616\r\n"),
    ("length over 64 bits that wraps to 4", b"content-length: 18446744073709551620\r\n"),
    ("length as a list of equals", b"content-length: 4, 4\r\n"),
    ("length as a list of others", b"content-length: 4, 5\r\n"),
    ("length as a list with nothing", b"content-length: 4,\r\n"),
    ("length twice, different", b"content-length: 4\r\ncontent-length: 5\r\n"),
    ("length twice, different, none first", b"content-length: 0\r\nx: y\r\ncontent-length: 4\r\n"),
];

/// Codings of the body "abcd" that is sent as a chunk.
const CODINGS: [(&str, &str); 5] = [
    ("coding", "transfer-encoding: chunked\r\n"),
    ("coding in any case", "Transfer-ENCODING:CHUNKed\r\n"),
    ("coding between white space", "transfer-encoding: \t chunked \t\r\n"),
    ("coding behind an empty element", "transfer-encoding: , chunked\r\n"),
    ("coding with te", "te: trailers\r\ntransfer-encoding: chunked\r\n"),
];

/// Codings that do not say where the body ends, or are no codings.
const NO_CODINGS: [(&str, &[u8]); 26] = [
    ("coding that is empty", b"transfer-encoding:\r\n"),
    ("coding identity", b"transfer-encoding: identity\r\n"),
    ("coding gzip", b"transfer-encoding: gzip\r\n"),
    ("coding that only ends alike", b"transfer-encoding: xchunked\r\n"),
    ("coding that only begins alike", b"transfer-encoding: chunkedx\r\n"),
    ("coding with a parameter", b"transfer-encoding: chunked;x=y\r\n"),
    ("coding in quotes", b"transfer-encoding: \"chunked\"\r\n"),
    ("coding in brackets", b"transfer-encoding: [chunked]\r\n"),
    ("coding with a word before it", b"transfer-encoding: x chunked\r\n"),
    ("coding with NUL", b"transfer-encoding: chunked\0\r\n"),
    ("coding with a vertical tab before it", b"transfer-encoding: \x0bchunked\r\n"),
    ("coding with a vertical tab behind it", b"transfer-encoding: chunked\x0b\r\n"),
    ("coding with an 8-bit byte", b"transfer-encoding: \xffchunked\r\n"),
    ("coding that is folded", b"transfer-encoding:\r\n chunked\r\n"),
    ("coding with a space before the colon", b"transfer-encoding : chunked\r\n"),
    ("coding behind a space", b" transfer-encoding: chunked\r\n"),
    ("coding with gzip last", b"transfer-encoding: chunked, gzip\r\n"),
    ("coding with identity last", b"transfer-encoding: chunked\r\ntransfer-encoding: identity\r\n"),
    ("coding twice", b"transfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n"),
    ("coding twice in one line", b"transfer-encoding: chunked, chunked\r\n"),
    ("coding twice and one between", b"transfer-encoding: chunked, gzip, chunked\r\n"),
    ("length and coding", b"content-length: 4\r\ntransfer-encoding: chunked\r\n"),
    ("coding and length", b"transfer-encoding: chunked\r\ncontent-length: 4\r\n"),
    ("coding and length 0", b"transfer-encoding: chunked\r\nx: y\r\ncontent-LENGTH:0\r\n"),
    ("coding and length that is none", b"transfer-encoding: chunked\r\ncontent-length: x\r\n"),
    ("coding identity and length", b"transfer-encoding: identity\r\ncontent-length: 4\r\n"),
];

/// Codings that end with chunked, but that we do not know.
const UNKNOWN_CODINGS: [(&str, &str); 4] = [
    ("coding behind gzip", "transfer-encoding: gzip, chunked\r\n"),
    ("coding behind gzip in its own line", "transfer-encoding: gzip\r\ntransfer-encoding: chunked\r\n"),
    ("coding behind identity", "transfer-encoding: identity, chunked\r\n"),
    ("coding behind one that ends alike", "transfer-encoding: xchunked, chunked\r\n"),
];

pub(super) fn cases() -> Vec<Case> {
    let sized = |(name, lines)| Case::answered(name, post(lines, "abcd")).body_is("abcd");
    let chunked = |(name, lines)| Case::answered(name, post(lines, CHUNKED)).body_is("abcd");
    let mut cases = Vec::from(LENGTHS.map(sized));
    cases.extend(NO_LENGTHS.map(|(name, lines)| Case::refused(name, post(lines, "abcd"))));
    cases.extend(CODINGS.map(chunked));
    cases.extend(NO_CODINGS.map(|(name, lines)| Case::refused(name, post(lines, CHUNKED))));
    cases.extend(
        UNKNOWN_CODINGS.map(|(name, lines)| Case::new(name, post(lines, CHUNKED), 501, Then::Closes)),
    );
    cases.extend(other_requests());
    cases.extend(limits());
    cases.extend(cut_short());
    cases
}

/// Bodies where one does not expect them, or none where one does.
fn other_requests() -> [Case; 8] {
    let reflected = |name, lines, body: &[u8]| {
        Case::answered(name, [&get(lines)[..], body].concat()).seen("body", "abcd")
    };
    let older = "POST /echo HTTP/1.0\r\nhost: s1\r\ncontent-length: 4\r\nconnection: keep-alive\r\n\r\nabcd";
    let older_chunked =
        "POST /echo HTTP/1.0\r\nhost: s1\r\ntransfer-encoding: chunked\r\nconnection: keep-alive\r\n\r\n";
    [
        Case::answered("no length", post("", "")).body_is(""),
        Case::answered("length 0", post("content-length: 0\r\n", "")).body_is(""),
        reflected("length with GET", "content-length: 4\r\n", b"abcd"),
        reflected("coding with GET", "transfer-encoding: chunked\r\n", CHUNKED.as_bytes()),
        Case::answered("length in 1.0", older).body_is("abcd"),
        Case::refused("coding in 1.0", [older_chunked, CHUNKED].concat()),
        Case::answered("length of another name", get("content_length: 4\r\nx-content-length: 4\r\n")),
        Case::answered("coding of another name", get("transfer_encoding: chunked\r\n")),
    ]
}

fn limits() -> [Case; 8] {
    let body = |bytes: usize| "b".repeat(bytes);
    let sized = |bytes: usize| post(format!("content-length: {bytes}\r\n"), body(bytes));
    let chunked = |sizes: &[usize]| {
        let chunk = |size: &usize| format!("{size:x}\r\n{}\r\n", body(*size));
        let chunks: String = sizes.iter().map(chunk).collect();
        post("transfer-encoding: chunked\r\n", format!("{chunks}0\r\n\r\n"))
    };
    let told = |length: &str| post(format!("content-length: {length}\r\n"), "abcd");
    let whole = body(BODY_BYTES_MAX);
    let too_large = |name, bytes| Case::new(name, bytes, 413, Then::Closes);
    [
        Case::answered("body at the limit", sized(BODY_BYTES_MAX)).body_is(&whole),
        Case::answered("body at the limit in chunks", chunked(&[1000, 24])).body_is(&whole),
        too_large("body over the limit", sized(BODY_BYTES_MAX + 1)),
        too_large("body over the limit in one chunk", chunked(&[BODY_BYTES_MAX + 1])),
        too_large("body over the limit in chunks", chunked(&[1000, 25])),
        too_large("length over 32 bits", told("4294967300")),
        too_large("length over 63 bits", told("9223372036854775808")),
        too_large("length with zeros before it, over the limit", told("0001025")),
    ]
}

/// The client leaves in the middle.
fn cut_short() -> [Case; 6] {
    let cut = |name, bytes: Vec<u8>| Case::new(name, bytes, 400, Then::CutShort);
    let chunked = |body| post("transfer-encoding: chunked\r\n", body);
    [
        cut("end in a header line", b"GET / HTTP/1.1\r\nhost: s1".to_vec()),
        cut("end before the empty line", b"GET / HTTP/1.1\r\nhost: s1\r\n".to_vec()),
        cut("end in a body", post("content-length: 4\r\n", "abc")),
        cut("end in a chunk", chunked("4\r\nabc")),
        cut("end before the last chunk", chunked("4\r\nabcd\r\n")),
        cut("end behind the last chunk", chunked("4\r\nabcd\r\n0\r\n")),
    ]
}
