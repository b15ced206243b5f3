use proptest::prelude::*;

use super::*;

/// Feeds `text` whole and byte by byte; both must end in the same state.
fn watch(text: &str) -> Framing {
    let (mut whole, mut single) = (Framing::new(), Framing::new());
    whole.feed(text.as_bytes());
    for byte in text.as_bytes() {
        single.feed(std::slice::from_ref(byte));
    }
    assert_eq!(whole.state, single.state, "cut differently: {text:?}");
    whole
}

/// Both lengths, in either order, any case, and behind other requests.
#[test]
fn two_lengths_are_ambiguous() {
    for text in [
        "POST / HTTP/1.1\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n",
        "POST / HTTP/1.1\r\nTRANSFER-ENCODING: chunked\r\nHost: x\r\ncontent-length: 4\r\n\r\n",
        "GET / HTTP/1.1\r\n\r\nPOST / HTTP/1.1\nTransfer-Encoding:chunked\nContent-Length:0\n\n",
        "POST / HTTP/1.1\r\nContent-Length: 3\r\n\r\nabcPOST / HTTP/1.1\r\ncontent-length: 1\r\ntransfer-encoding: x\r\n\r\n",
        "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3;x=y\r\nabc\r\n0\r\nA: b\r\n\r\n\
         POST / HTTP/1.1\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\n",
    ] {
        assert!(watch(text).is_ambiguous(), "{text:?}");
    }
}

/// What looks like a second length but is part of a body, a name or a value.
#[test]
fn bodies_and_values_are_not_headers() {
    for text in [
        "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n13\r\nContent-Length: 1\r\n\r\n0\r\n\r\n",
        "POST / HTTP/1.1\r\nContent-Length: 28\r\n\r\nTransfer-Encoding: chunked\r\n",
        "GET / HTTP/1.1\r\nX: Content-Length: 1\r\nX-Content-Length: 1\r\nTransfer: x\r\n\r\n",
        "GET /content-length:1 HTTP/1.1\r\n\r\n",
    ] {
        let seen = watch(text);
        assert!(!seen.is_ambiguous() && seen.is_at_rest(), "{text:?} ended as {:?}", seen.state);
    }
}

/// What the parser reads in its own way: a length that it ignores, one that is longer than what is kept, a line of
/// trailers that goes on behind LF.
#[test]
fn what_can_be_read_in_two_ways_is_ambiguous() {
    let (zeros, spaces) = ("0".repeat(80), " ".repeat(80));
    let chunked = "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n";
    for text in [
        format!("{chunked}Content-Length: x\r\n"),
        format!("POST / HTTP/1.1\r\nContent-Length: {zeros}4\r\n"),
        format!("POST / HTTP/1.1\r\nContent-Length:{spaces}4\r\n"),
        format!("{chunked}\r\n{zeros}4\r\n"),
        format!("{chunked}\r\n4{spaces}\r\n"),
        format!("{chunked}\r\n0\r\nx: y\n"),
        format!("{chunked}\r\n0\r\n\n"),
    ] {
        assert!(watch(&text).is_ambiguous(), "{text:?}");
    }
    let extension = format!("{chunked}\r\n4;{spaces}\r\nabcd\r\n0\r\n\r\n");
    assert!(watch(&extension).is_at_rest());
}

/// The header timer runs from the first byte of a head to its last, and only then.
#[test]
fn inside_head_is_known() {
    for (text, inside) in [
        ("", false),
        ("\r\n", false),
        ("G", true),
        ("GET / HTTP/1.1\r\n", true),
        ("GET / HTTP/1.1\r\nA: b\r\n\r", true),
        ("GET / HTTP/1.1\r\nA: b\r\n\r\n", false),
        ("POST / HTTP/1.1\r\nContent-Length: 5\r\n\r\nab", false),
        ("GET / HTTP/1.1\r\n\r\nG", true),
    ] {
        assert_eq!(watch(text).is_inside_head(), inside, "{text:?}");
    }
}

/// Framing that the parser refuses anyway ends the watch instead of guessing.
#[test]
fn broken_framing_ends_the_watch() {
    for text in [
        "POST / HTTP/1.1\r\nContent-Length: +4\r\n\r\n",
        "POST / HTTP/1.1\r\nContent-Length: 99999999999999999999\r\n\r\n",
        "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n",
    ] {
        assert_eq!(watch(text).state, State::Lost, "{text:?}");
    }
}

proptest! {
    /// Whatever is fed, however it is cut: no panic, bounded memory, the same end.
    #[test]
    fn cuts_do_not_matter(
        pieces in proptest::collection::vec(
            prop_oneof![
                Just("POST / HTTP/1.1\r\n".to_owned()), Just("Content-Length: 5\r\n".to_owned()),
                Just("Transfer-Encoding: chunked\r\n".to_owned()), Just("\r\n".to_owned()), Just("5\r\nabcde\r\n0\r\n".to_owned()),
                "[ -~]{0,100}", Just("\n".to_owned()),
            ], 0..20),
    ) {
        let seen = watch(&pieces.concat());
        prop_assert!(seen.line.len() <= LINE_KEPT_BYTES);
    }
}
