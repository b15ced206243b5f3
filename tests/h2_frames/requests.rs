//! Requests: which fields make one, and what the answers to good ones look like.

use crate::cases::{Case, ENDS_INSTEAD, Expect, case, check, request};
use crate::client::Client;
use crate::frame::{END_BOTH, END_HEADERS, END_STREAM, PADDED, continuation, data, headers, window_update};
use crate::hpack::{fields, get, post};
use crate::node;

const MALFORMED: Expect = Expect::Malformed;
const OK: Expect = Expect::Status(200);

const METHOD: (&str, &str) = (":method", "GET");
const SCHEME: (&str, &str) = (":scheme", "http");
const AUTHORITY: (&str, &str) = (":authority", "s1");
const PATH: (&str, &str) = (":path", "/");
const GET: [(&str, &str); 4] = [METHOD, SCHEME, AUTHORITY, PATH];

/// A case of a good request with a field more.
fn with(name: &'static str, field: (&str, &str), expect: Expect) -> Case {
    request(name, &[&GET[..], &[field]].concat(), expect)
}

/// What an HTTP/1 parser behind could take for something else never gets there.
#[test]
fn names_and_values_that_are_no_header_are_malformed() {
    check(
        &node(),
        &[
            with("8.2.1 upper case", ("X-Upper", "1"), ENDS_INSTEAD),
            with("8.2.1 space in a name", ("x a", "1"), ENDS_INSTEAD),
            with("8.2.1 colon in a name", ("x:a", "1"), ENDS_INSTEAD),
            with("8.2.1 control character in a name", ("x\x01", "1"), ENDS_INSTEAD),
            with("8.2.1 DEL in a name", ("x\x7f", "1"), ENDS_INSTEAD),
            with("8.2.1 letter beyond ASCII in a name", ("x-\u{e4}", "1"), ENDS_INSTEAD),
            with("8.2.1 empty name", ("", "1"), ENDS_INSTEAD),
            with("8.2.1 CR in a value", ("x-a", "1\r2"), ENDS_INSTEAD),
            with("8.2.1 LF in a value", ("x-a", "1\n2"), ENDS_INSTEAD),
            with("8.2.1 NUL in a value", ("x-a", "1\x002"), ENDS_INSTEAD),
            with("8.2.1 a second request in a value", ("x-a", "1\r\n\r\nGET / HTTP/1.1"), ENDS_INSTEAD),
            with("8.2.1 letters beyond ASCII in a value", ("x-a", "\u{e4}\u{20ac}"), OK),
            with("8.2.1 tab in a value", ("x-a", "1\t2"), OK),
        ],
    );
}

/// HTTP/2 has its own words for these.
#[test]
fn headers_of_connections_are_malformed() {
    check(
        &node(),
        &[
            with("8.2.2 connection", ("connection", "keep-alive"), MALFORMED),
            with("8.2.2 keep-alive", ("keep-alive", "5"), MALFORMED),
            with("8.2.2 proxy-connection", ("proxy-connection", "keep-alive"), MALFORMED),
            with("8.2.2 transfer-encoding", ("transfer-encoding", "chunked"), MALFORMED),
            with("8.2.2 upgrade", ("upgrade", "h2c"), MALFORMED),
            with("8.2.2 te with another value", ("te", "gzip"), MALFORMED),
            with("8.2.2 te with more values", ("te", "trailers, deflate"), MALFORMED),
            with("8.2.2 te: trailers", ("te", "trailers"), OK),
        ],
    );
}

/// Each that is needed once, first, and with a value that can be one.
#[test]
fn pseudo_headers_that_are_wrong_are_malformed() {
    let get = |name, fields: &[(&str, &str)], expect| request(name, fields, expect);
    let connect = (":method", "CONNECT");
    check(
        &node(),
        &[
            with("8.3 unknown", (":wrong", "1"), ENDS_INSTEAD),
            with("8.3 of a response", (":status", "200"), MALFORMED),
            with("8.3 :method twice", METHOD, MALFORMED),
            with("8.3 :scheme twice", SCHEME, MALFORMED),
            with("8.3 :path twice", PATH, MALFORMED),
            with("8.3 :authority twice", AUTHORITY, MALFORMED),
            with("RFC 8441, 4 :protocol, unasked", (":protocol", "websocket"), MALFORMED),
            get("8.3.1 no :method", &[SCHEME, AUTHORITY, PATH], MALFORMED),
            get("8.3.1 no :scheme", &[METHOD, AUTHORITY, PATH], MALFORMED),
            get("8.3.1 no :path", &[METHOD, SCHEME, AUTHORITY], MALFORMED),
            get("8.3.1 none", &[("x-a", "1")], MALFORMED),
            get("8.3.1 empty :path", &[METHOD, SCHEME, AUTHORITY, (":path", "")], MALFORMED),
            get("8.3.1 * for GET", &[METHOD, SCHEME, AUTHORITY, (":path", "*")], MALFORMED),
            get("8.3.1 :path without /", &[METHOD, SCHEME, AUTHORITY, (":path", "x")], MALFORMED),
            get("8.3.1 empty :method", &[(":method", ""), SCHEME, AUTHORITY, PATH], ENDS_INSTEAD),
            get("8.3.1 space in :method", &[(":method", "G T"), SCHEME, AUTHORITY, PATH], ENDS_INSTEAD),
            get("8.3.1 space in :path", &[METHOD, SCHEME, AUTHORITY, (":path", "/ x")], MALFORMED),
            get("8.3.1 user in :authority", &[METHOD, SCHEME, (":authority", "me@s1"), PATH], MALFORMED),
            get("8.3 behind a header", &[METHOD, SCHEME, AUTHORITY, ("x-a", "1"), PATH], MALFORMED),
            get("8.5 CONNECT with :path", &[connect, SCHEME, AUTHORITY, PATH], MALFORMED),
            get("8.5 CONNECT without :authority", &[connect], Expect::Status(501)),
            get("8.5 CONNECT, which nobody offers", &[connect, AUTHORITY], Expect::Status(501)),
            get("8.3.1 host instead of :authority", &[METHOD, SCHEME, PATH, ("host", "s1")], OK),
            get("8.3.1 any order", &[PATH, AUTHORITY, SCHEME, METHOD], OK),
            get("8.3.1 empty :authority", &[METHOD, SCHEME, (":authority", ""), PATH], MALFORMED),
            get("8.3.1 wrong :scheme", &[METHOD, (":scheme", "h t"), AUTHORITY, PATH], MALFORMED),
            get("8.3.1 space in :authority", &[METHOD, SCHEME, (":authority", "s1 x"), PATH], MALFORMED),
            get("8.3.1 neither :authority nor host", &[METHOD, SCHEME, PATH], OK),
            get("8.3.1 OPTIONS *", &[(":method", "OPTIONS"), SCHEME, AUTHORITY, (":path", "*")], OK),
        ],
    );
}

/// `POST /echo` on stream 1 with these fields more, and frames behind it.
fn posted(name: &'static str, more: &[(&str, &str)], behind: &[Vec<u8>], expect: Expect) -> Case {
    let block = [post("/echo"), fields(more)].concat();
    case(name, [headers(1, END_HEADERS, block), behind.concat()].concat(), expect)
}

/// A body is as long as was said, and trailers end it.
#[test]
fn lengths_and_trailers() {
    let trailers = |lines: &[(&str, &str)]| headers(1, END_BOTH, fields(lines));
    let end = |body: &str| data(1, END_STREAM, body);
    check(
        &node(),
        &[
            posted("8.1.1 length as said", &[("content-length", "4")], &[end("body")], OK),
            posted("8.1.1 shorter than said", &[("content-length", "5")], &[end("body")], MALFORMED),
            posted("8.1.1 longer than said", &[("content-length", "3")], &[end("body")], MALFORMED),
            posted(
                "8.1.1 longer in a second frame",
                &[("content-length", "4")],
                &[data(1, 0, "body"), end("more")],
                MALFORMED,
            ),
            posted(
                "8.1.1 shorter, ended by trailers",
                &[("content-length", "5")],
                &[data(1, 0, "body"), trailers(&[("x-sum", "1")])],
                MALFORMED,
            ),
            posted("8.1.1 nothing of what was said", &[("content-length", "4")], &[end("")], MALFORMED),
            with("8.1.1 no body of what was said", ("content-length", "4"), MALFORMED),
            with("8.1.1 length 0 and no body", ("content-length", "0"), OK),
            posted("8.1.1 length no number", &[("content-length", "x")], &[end("body")], MALFORMED),
            posted("8.1.1 length +4", &[("content-length", "+4")], &[end("body")], MALFORMED),
            posted("8.1.1 length empty", &[("content-length", "")], &[end("body")], MALFORMED),
            posted(
                "8.1.1 length overflow",
                &[("content-length", "18446744073709551620")],
                &[end("body")],
                MALFORMED,
            ),
            posted("8.1.1 length below 0", &[("content-length", "-1")], &[end("body")], MALFORMED),
            posted(
                "8.1.1 two lengths",
                &[("content-length", "4"), ("content-length", "5")],
                &[end("body")],
                MALFORMED,
            ),
            posted("8.1 trailers", &[], &[data(1, 0, "body"), trailers(&[("x-sum", "1")])], OK),
            posted("8.1 trailers, no body", &[], &[trailers(&[("x-sum", "1")])], OK),
            posted(
                "8.1 trailers that end nothing",
                &[],
                &[data(1, 0, "body"), headers(1, END_HEADERS, fields(&[("x-sum", "1")]))],
                MALFORMED,
            ),
            posted("8.2.1 upper case in trailers", &[], &[trailers(&[("X-Sum", "1")])], ENDS_INSTEAD),
            posted("8.2.2 connection in trailers", &[], &[trailers(&[("connection", "x")])], MALFORMED),
        ],
    );
}

/// Frames of many requests, mixed: each stream gets its own answer (5).
#[test]
fn interleaved_requests_keep_apart() {
    let node = node();
    let mut client = Client::open(node.address());
    let streams: Vec<u32> = (0..20).map(|index| 2 * index + 1).collect();
    let each = |frame: &dyn Fn(u32) -> Vec<u8>| streams.iter().flat_map(|id| frame(*id)).collect::<Vec<_>>();
    client.send(each(&|id| headers(id, END_HEADERS, post("/echo"))));
    client.send(each(&|id| data(id, 0, format!("{id} begins, "))));
    client.send(each(&|id| data(id, PADDED, [&[3], format!("{id} goes on, ").as_bytes(), &[0; 3]].concat())));
    client.send(each(&|id| data(id, END_STREAM, format!("{id} ends"))));
    for id in &streams {
        assert_eq!(client.answer(*id), (200, format!("{id} begins, {id} goes on, {id} ends")));
    }
    assert_eq!(client.seen.resets, []);
}

/// An answer may be there before the request has ended: the rest of that is then not needed, and the connection goes
/// on (8.1).
#[test]
fn body_that_is_too_long_is_answered_early() {
    let node = node();
    let mut client = Client::open(node.address());
    let said = fields(&[("content-length", "999999999")]);
    client.send(headers(1, END_HEADERS, [post("/echo"), said].concat()));
    assert_eq!(client.answer(1).0, 413);
    client.send([data(1, 0, "late"), window_update(1, 1)].concat());
    assert_eq!(client.get(3, "/"), (200, "ok\n".to_owned()));
}

/// Heads over the limits are answered with the status that says so; the connection goes on (10.5.1).
#[test]
fn heads_over_the_limits_are_answered() {
    let lines: Vec<(String, String)> = (0..101).map(|line| (format!("x-{line}"), "v".to_owned())).collect();
    let lines: Vec<(&str, &str)> = lines.iter().map(|(name, value)| (&name[..], &value[..])).collect();
    let long_lines = fields(&[("x-a", &"v".repeat(9000)), ("x-b", &"v".repeat(9000))]);
    let (head, tail) = long_lines.split_at(10_000);
    let in_two = [headers(1, END_STREAM, [&get("/")[..], head].concat()), continuation(1, END_HEADERS, tail)];
    check(
        &node(),
        &[
            request("10.5.1 101 lines", &[&GET[..], &lines].concat(), Expect::Status(431)),
            case("10.5.1 18 KiB", in_two.concat(), Expect::Status(431)),
            case(
                "10.5.1 a target of 9 KiB",
                headers(1, END_BOTH, get(&format!("/{}", "p".repeat(9000)))),
                Expect::Status(414),
            ),
        ],
    );
}

/// RFC 9110, 9.3.2: the head that GET would have, and no content; of cells' answers and of the mesh's own.
#[test]
fn head_has_no_content() {
    let node = node();
    let mut client = Client::open(node.address());
    for (stream, target, status) in [(1, "/do/big:12", 200), (3, "/do/trap", 500)] {
        let head = [(":method", "HEAD"), (":scheme", "http"), (":authority", "s1"), (":path", target)];
        client.send(headers(stream, END_BOTH, fields(&head)));
        assert_eq!(client.answer(stream), (status, String::new()));
    }
    assert_eq!(client.get(5, "/"), (200, "ok\n".to_owned()));
}
