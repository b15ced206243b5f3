#[cfg(not(miri))]
use proptest::prelude::*;

use super::*;

fn built(lines: &[(&str, &str)]) -> Bytes {
    let mut head = HeadBuilder::response();
    for (name, value) in lines {
        head.push(name, value.as_bytes()).expect("a good line");
    }
    head.finish()
}

/// Lines come back in order, with lower-case names and values untouched.
#[test]
fn lines_round_trip() {
    let head = built(&[("Content-Type", "text/plain"), ("x-empty", ""), ("x-odd", " a: b: c ")]);
    let lines = HeaderLines(&head);
    assert_eq!(lines.check(HeadLimits::default()), Ok(()));
    let all: Vec<_> = lines.iter().collect();
    assert_eq!(all, [("content-type", &b"text/plain"[..]), ("x-empty", b""), ("x-odd", b" a: b: c ")]);
    assert_eq!(lines.get("x-odd"), Some(&b" a: b: c "[..]));
    assert_eq!(lines.get("missing"), None);
}

/// A request's head starts with method and target, whose lengths are given beside it.
#[test]
fn request_head_has_its_parts() {
    let mut head = HeadBuilder::request("GET", "/a?b").expect("a good request line");
    head.push("Host", b"s1").expect("a good line");
    let head = head.finish_request();
    assert_eq!((head.method_len, head.target_len), (3, 4));
    assert_eq!(&head.bytes[..], b"GET/a?bhost: s1\n");
}

/// Whatever would become another line or another request never gets into a head.
#[test]
fn injection_is_refused() {
    let mut head = HeadBuilder::response();
    for value in ["a\nb: c", "a\rb", "a\0b"] {
        assert_eq!(head.push("x", value.as_bytes()), Err(HeadError::Value { line: 1 }));
    }
    for name in ["", "a b", "a:b", "a\n", "\u{e4}"] {
        assert_eq!(head.push(name, b""), Err(HeadError::Name { line: 1 }));
    }
    for (method, target) in [("", "/"), ("G T", "/"), ("GET", ""), ("GET", "/ x"), ("GET", "/\n")] {
        assert!(HeadBuilder::request(method, target).is_err(), "{method:?} {target:?} was accepted");
    }
    assert!(HeadBuilder::request("GET", &"/".repeat(1 << 16)).is_err());
}

/// Each rule of a head has its own error, which names the line.
#[test]
fn check_names_the_rule() {
    let check = |bytes: &[u8], expected: &str| {
        let error = HeaderLines(bytes).check(HeadLimits { lines_max: 2, bytes_max: 20 }).unwrap_err();
        assert_eq!(error.to_string(), expected);
    };
    check(b"a: b", "header line 1: must be `name: value` and a line end");
    check(b"a: b\nc\n", "header line 2: must be `name: value` and a line end");
    check(b"\n", "header line 1: must be `name: value` and a line end");
    check(b"A: b\n", "header line 1: the name must be a lower-case token");
    check(b": b\n", "header line 1: the name must be a lower-case token");
    check(b"a: \r\n", "header line 1: the value must not have CR, LF or NUL");
    check(b"a: b\na: b\na: b\n", "more than 2 header lines");
    check(&[b'a'; 21], "header lines of 21 bytes: must be at most 20");
}

/// Lines are given out until one breaks a rule, which is told once.
#[test]
fn checked_lines_end_with_the_first_mistake() {
    let lines = HeaderLines(b"a: 1\nb: \nC: 3\nd: 4\n");
    let checked = lines.checked(HeadLimits::default()).expect("short");
    let all: Vec<_> = checked.collect();
    let (a, b): (&[u8], &[u8]) = (b"a", b"b");
    assert_eq!(all, [Ok((a, &b"1"[..])), Ok((b, &b""[..])), Err(HeadError::Name { line: 3 })]);
    let limits = HeadLimits { lines_max: 1, ..HeadLimits::default() };
    let last = lines.checked(limits).expect("short").last();
    assert_eq!(last, Some(Err(HeadError::TooMany { max: 1 })));
    assert!(lines.checked(HeadLimits { bytes_max: 3, ..limits }).is_err());
}

/// Of lines that anybody wrote those with tracing headers are found, as by asking each.
#[test]
fn tracing_headers_are_found() {
    let lines =
        HeaderLines(b"x-request-id: 7\nxyz\nhost: a\ntraceparent: 00: 1\ngrpc-trace-bin: b\nx-own: 1\n");
    let asked: Vec<_> = lines.bytes().filter(|(name, _)| is_tracing(name)).collect();
    assert_eq!((lines.tracing().collect::<Vec<_>>(), asked.len()), (asked, 3));
}

/// The tracing headers and those of RFC 9110, with a neighbour that is not in them.
#[test]
fn header_sets() {
    for name in ["connection", "transfer-encoding", "te", "proxy-authorization", "upgrade"] {
        assert!(is_hop_by_hop(name), "{name}");
    }
    assert!(!is_hop_by_hop("content-length") && !is_hop_by_hop("host"));
    assert!(is_tracing("traceparent") && is_tracing("x-b3-flags") && !is_tracing("x-b3"));
}

#[cfg(not(miri))] // Its random numbers take Miri minutes.
proptest! {
    /// Any bytes can be read as header lines: no panic, and what `check` accepts is read back line for line.
    #[test]
    fn any_bytes_are_safe(bytes in proptest::collection::vec(prop_oneof![Just(b'\n'), Just(b':'), Just(b' '), any::<u8>()], 0..200)) {
        let lines = HeaderLines(&bytes);
        let read = lines.iter().count();
        if lines.check(HeadLimits::default()).is_ok() {
            let line_ends = bytes.iter().filter(|&&byte| byte == b'\n').count();
            prop_assert_eq!(read, line_ends);
        }
    }
}
