//! Streams: which frames fit which state, their ids, and the frames of one header block.

use crate::cases::{ENDS_PROTOCOL, Expect, case, check, open};
use crate::client::Client;
use crate::differences::ENDS_STREAM_CLOSED;
use crate::frame::{
    Code, END_BOTH, END_HEADERS, END_STREAM, PADDED, WITH_PRIORITY, continuation, data, frame, headers, ping,
    priority, reset, settings, window_update,
};
use crate::{STREAMS_MAX, hpack, node};

/// A whole request on stream 1.
fn whole() -> Vec<u8> {
    headers(1, END_BOTH, hpack::get("/"))
}

fn after(first: Vec<u8>, second: Vec<u8>) -> Vec<u8> {
    [first, second].concat()
}

/// Nothing but a request and its priority can come first.
#[test]
fn frames_on_idle_streams_end_the_connection() {
    check(
        &node(),
        &[
            case("5.1 DATA", data(1, 0, "x"), ENDS_PROTOCOL),
            case("5.1 RST_STREAM", reset(1, Code::Cancel), ENDS_PROTOCOL),
            case("5.1 WINDOW_UPDATE", window_update(1, 1), ENDS_PROTOCOL),
            case("6.10 CONTINUATION", continuation(1, END_HEADERS, hpack::get("/")), ENDS_PROTOCOL),
            case("5.1 PRIORITY is allowed", priority(1, 3), Expect::Nothing),
        ],
    );
}

/// A request that has ended gets no more of itself; about its answer much can still be said.
#[test]
fn frames_on_half_closed_streams() {
    let after_whole = |frame| after(whole(), frame);
    check(
        &node(),
        &[
            case("5.1 DATA", after_whole(data(1, 0, "x")), ENDS_STREAM_CLOSED),
            case("5.1 HEADERS", after_whole(whole()), ENDS_STREAM_CLOSED),
            case("6.10 CONTINUATION", after_whole(continuation(1, END_HEADERS, [])), ENDS_PROTOCOL),
            case("5.1 WINDOW_UPDATE", after_whole(window_update(1, 1)), Expect::Status(200)),
            case("5.1 PRIORITY", after_whole(priority(1, 0)), Expect::Status(200)),
            case("5.1 RST_STREAM", after_whole(reset(1, Code::Cancel)), Expect::Nothing),
        ],
    );
}

/// A stream that the client itself has reset.
#[test]
fn frames_on_streams_that_were_reset() {
    let closed = |frame| [open(), reset(1, Code::Cancel), frame].concat();
    check(
        &node(),
        &[
            case("5.1 DATA", closed(data(1, 0, "x")), Expect::Resets(&[Code::StreamClosed])),
            // STREAM_CLOSED by 5.1, PROTOCOL_ERROR by 5.1.1: an id that is not new.
            case("5.1 HEADERS", closed(whole()), Expect::Ends(&[Code::StreamClosed, Code::Protocol])),
            case("5.1 PRIORITY", closed(priority(1, 0)), Expect::Nothing),
            case("6.10 CONTINUATION", closed(continuation(1, END_HEADERS, [])), ENDS_PROTOCOL),
        ],
    );
}

/// A stream that has been answered: late frames of some kinds are normal, others are errors (5.1).
#[test]
fn frames_on_streams_that_were_answered() {
    let node = node();
    for (frame, errors) in [
        (window_update(1, 1), &[None][..]),
        (priority(1, 0), &[None]),
        (reset(1, Code::Cancel), &[None]),
        (data(1, 0, "x"), &[Some(Code::StreamClosed)]),
        (whole(), &[Some(Code::StreamClosed), Some(Code::Protocol)]), // as above
    ] {
        let mut client = Client::open(node.address());
        assert_eq!(client.get(1, "/").0, 200);
        client.send(&frame);
        client.fence();
        let error = client.seen.goaway.or(client.seen.reset(1));
        assert!(errors.contains(&error), "{frame:?}: {:?}", client.seen);
        assert!(client.seen.has_ended || client.get(3, "/").0 == 200);
    }
}

/// Clients count upwards in odd numbers, and 0 is the connection.
#[test]
fn ids_of_streams() {
    let get = || hpack::get("/");
    check(
        &node(),
        &[
            case("5.1.1 even id", headers(2, END_BOTH, get()), ENDS_PROTOCOL),
            case("5.1.1 lower id", [headers(3, END_BOTH, get()), whole()].concat(), ENDS_PROTOCOL),
            case("5.1.1 ids may be left out", headers(99, END_BOTH, get()), Expect::Nothing),
            case("6.1 DATA without a stream", data(0, 0, "x"), ENDS_PROTOCOL),
            case("6.2 HEADERS without a stream", headers(0, END_BOTH, get()), ENDS_PROTOCOL),
            case("6.3 PRIORITY without a stream", priority(0, 1), ENDS_PROTOCOL),
            case("6.4 RST_STREAM without a stream", reset(0, Code::Cancel), ENDS_PROTOCOL),
            case("6.10 CONTINUATION without a stream", continuation(0, END_HEADERS, []), ENDS_PROTOCOL),
            case("5.1 even id is idle", data(2, 0, "x"), ENDS_PROTOCOL),
        ],
    );
}

/// RFC 7540, 5.3.1 makes it an error that RFC 9113 no longer knows: the node may still say so.
#[test]
fn stream_that_depends_on_itself() {
    let node = node();
    for frame in [
        priority(1, 1),
        headers(1, END_BOTH | WITH_PRIORITY, [&[0, 0, 0, 1, 15], &hpack::get("/")[..]].concat()),
    ] {
        let mut client = Client::open(node.address());
        client.send(after(frame, headers(3, END_BOTH, hpack::get("/"))));
        assert_eq!(client.answer(3).0, 200);
        client.fence();
        assert!(matches!(client.seen.reset(1), None | Some(Code::Protocol)), "{:?}", client.seen);
    }
}

/// One block in many frames is one block; nothing else may come between them.
#[test]
fn header_block_in_pieces() {
    let block = hpack::get("/");
    let (head, tail) = block.split_at(5); // inside the authority
    let begun = |frame| after(headers(1, END_STREAM, head), frame);
    let with_rest = |frame| [begun(frame), continuation(1, END_HEADERS, tail)].concat();
    let pieces: Vec<u8> = block.iter().flat_map(|byte| continuation(1, 0, [*byte])).collect();
    let byte_by_byte = [headers(1, END_STREAM, []), pieces, continuation(1, END_HEADERS, [])].concat();
    check(
        &node(),
        &[
            case("6.10 two pieces", begun(continuation(1, END_HEADERS, tail)), Expect::Status(200)),
            case("6.10 empty pieces", with_rest(continuation(1, 0, [])), Expect::Status(200)),
            case(
                "6.10 all in CONTINUATION",
                after(headers(1, END_STREAM, []), continuation(1, END_HEADERS, &block)),
                Expect::Status(200),
            ),
            case("6.10 PING between", with_rest(ping(1)), ENDS_PROTOCOL),
            case("6.10 SETTINGS between", with_rest(settings(&[])), ENDS_PROTOCOL),
            case("6.10 WINDOW_UPDATE between", with_rest(window_update(0, 1)), ENDS_PROTOCOL),
            case("6.10 PRIORITY between", with_rest(priority(1, 0)), ENDS_PROTOCOL),
            case("6.10 RST_STREAM between", with_rest(reset(1, Code::Cancel)), ENDS_PROTOCOL),
            case("6.10 DATA between", with_rest(data(1, 0, "x")), ENDS_PROTOCOL),
            case("6.10 HEADERS between", with_rest(headers(3, END_BOTH, &block)), ENDS_PROTOCOL),
            case("6.10 unknown type between", with_rest(frame(0xbb, 0, 1, [])), ENDS_PROTOCOL),
            case("6.10 another stream", begun(continuation(3, END_HEADERS, tail)), ENDS_PROTOCOL),
            case("6.10 stream 0", begun(continuation(0, END_HEADERS, tail)), ENDS_PROTOCOL),
            case("6.10 after the last", after(whole(), continuation(1, END_HEADERS, [])), ENDS_PROTOCOL),
            case("6.10 on an open stream", after(open(), continuation(1, END_HEADERS, [])), ENDS_PROTOCOL),
            case("10.5 a piece for each byte", byte_by_byte, Expect::Ends(&[Code::EnhanceYourCalm])),
        ],
    );
}

/// Padding is taken off; more of it than there is payload is an error.
#[test]
fn padding_is_taken_off() {
    let padded = |length: u8, block: &[u8], zeros: usize| [&[length], block, &vec![0; zeros]].concat();
    let get = hpack::get("/");
    let padded_headers = |payload: Vec<u8>| headers(1, END_BOTH | PADDED, payload);
    let padded_data = |payload: Vec<u8>| after(open(), data(1, END_STREAM | PADDED, payload));
    let both = [&[4, 0, 0, 0, 0, 15], &get[..], &[0; 4]].concat();
    check(
        &node(),
        &[
            case("6.2 HEADERS", padded_headers(padded(200, &get, 200)), Expect::Status(200)),
            case("6.2 HEADERS, none", padded_headers(padded(0, &get, 0)), Expect::Status(200)),
            case(
                "6.2 HEADERS, with priority",
                headers(1, END_BOTH | PADDED | WITH_PRIORITY, both),
                Expect::Status(200),
            ),
            case("6.1 DATA", padded_data(padded(9, b"body", 9)), Expect::Status(200)),
            case("6.1 DATA, only padding", padded_data(padded(3, b"", 3)), Expect::Status(200)),
            case("6.2 HEADERS, too much", padded_headers(padded(255, &get, 0)), ENDS_PROTOCOL),
            case("6.2 HEADERS, as much as all", padded_headers(padded(1, b"", 0)), ENDS_PROTOCOL),
            case("6.1 DATA, too much", padded_data(padded(5, b"body", 0)), ENDS_PROTOCOL),
            case("6.1 DATA, as much as all", padded_data(padded(1, b"", 0)), ENDS_PROTOCOL),
            // 4.2 and 6.1 both apply.
            case(
                "6.1 DATA, no length",
                padded_data(vec![]),
                Expect::Ends(&[Code::Protocol, Code::FrameSize]),
            ),
        ],
    );
}

/// One stream more than the node allows is refused (5.1.2), those before it are not, and another fits when one has
/// ended.
#[test]
fn stream_over_the_limit_is_refused() {
    let node = node();
    let mut client = Client::open(node.address());
    let ids: Vec<u32> = (0..=STREAMS_MAX).map(|index| 2 * index + 1).collect();
    let (over, open) = ids.split_last().expect("some");
    for stream in &ids {
        client.send(headers(*stream, END_HEADERS, hpack::post("/echo")));
    }
    client.until("a refusal", |seen| seen.reset(*over).is_some());
    assert_eq!(client.seen.resets, [(*over, Code::RefusedStream)]);
    client.send(data(1, END_STREAM, "one"));
    assert_eq!(client.answer(1), (200, "one".to_owned()));
    assert_eq!(client.get(over + 2, "/").0, 200);
    for stream in &open[1..] {
        client.send(data(*stream, END_STREAM, stream.to_string()));
    }
    for stream in &open[1..] {
        assert_eq!(client.answer(*stream), (200, stream.to_string()));
    }
}
