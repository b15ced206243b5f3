//! The connection itself: preface, SETTINGS, PING, GOAWAY, frame sizes, and what must be ignored.

use crate::cases::{Case, ENDS_PROTOCOL, Expect, case, check, open};
use crate::client::{Client, PREFACE};
use crate::differences::{ENDS_FLOW_CONTROL, ENDS_FRAME_SIZE};
use crate::frame::{
    ACK, Code, DATA, ENABLE_PUSH, END_BOTH, END_HEADERS, END_STREAM, FRAME_BYTES, GOAWAY, HEADER_TABLE_SIZE,
    INITIAL_WINDOW_SIZE, MAX_CONCURRENT_STREAMS, MAX_FRAME_SIZE, MAX_HEADER_LIST_SIZE, PING, PRIORITY,
    PUSH_PROMISE, RST_STREAM, SETTINGS, WINDOW_MAX, WINDOW_UPDATE, WITH_PRIORITY, continuation, data, frame,
    goaway, headers, ping, settings, settings_ack,
};
use crate::{hpack, node};

const ENDS_TOO_LONG: Expect = Expect::Ends(&[Code::FrameSize]);

/// What does not begin like HTTP/2 is refused in HTTP/1, and the connection ends. 3.4 lets a server leave GOAWAY out.
#[test]
fn wrong_preface_ends_the_connection() {
    let node = node();
    let wrong = [
        &b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n\0\0\0\x04\0\0\0\0\0"[..],
        b"PRI * HTTP/2.1\r\n\r\nSM\r\n\r\n",
        b"pri * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        &[PREFACE[1..].as_ref(), &settings(&[])].concat(),
    ];
    for bytes in wrong {
        let wire = &mut node.connect();
        wire.send(bytes);
        assert_eq!(wire.reply().status, 400, "{bytes:?}");
        wire.expect_close();
    }
    let mut partial = node.connect();
    partial.send(&PREFACE[..20]);
    partial.end_sending();
    assert_eq!(partial.reply().status, 400);
    partial.expect_close();
}

/// The preface may come in pieces, and requests right behind it, before the node's SETTINGS were read (3.4).
#[test]
fn preface_may_come_in_pieces_and_with_requests() {
    let node = node();
    let mut client = Client::connect(node.address());
    for byte in [PREFACE, &settings(&[(HEADER_TABLE_SIZE, 0)])].concat() {
        client.send([byte]);
    }
    client.send(settings_ack());
    assert_eq!(client.get(1, "/"), (200, "ok\n".to_owned()));
    let mut client = Client::connect(node.address());
    let hello = [PREFACE, &settings(&[(HEADER_TABLE_SIZE, 0)])].concat();
    client.send([hello, headers(1, END_BOTH, hpack::get("/"))].concat());
    assert_eq!(client.answer(1), (200, "ok\n".to_owned()));
}

/// The node's own preface is SETTINGS with values that are allowed, and each SETTINGS is acknowledged once (6.5.3).
#[test]
fn settings_are_sent_and_acknowledged() {
    let node = node();
    let mut client = Client::open(node.address());
    assert_eq!(client.seen.setting(MAX_CONCURRENT_STREAMS), Some(crate::STREAMS_MAX));
    assert!(client.seen.setting(INITIAL_WINDOW_SIZE).is_none_or(|size| size <= WINDOW_MAX));
    assert_eq!(client.seen.setting(MAX_FRAME_SIZE).unwrap_or(16_384), 16_384);
    assert!(matches!(client.seen.setting(ENABLE_PUSH), None | Some(0)));
    client.send([settings(&[]), settings(&[(0xfff, 1)]), settings(&[(MAX_FRAME_SIZE, 20_000)])].concat());
    client.fence();
    assert_eq!(client.seen.settings_acks, 4);
}

/// A ping comes back with what was in it (6.7).
#[test]
fn ping_is_echoed() {
    let node = node();
    let mut client = Client::open(node.address());
    client.send([ping(0x0123_4567_89ab_cdef), frame(PING, 0xfe, 0, [7; 8])].concat());
    client.until("two answers", |seen| seen.pongs.len() == 2);
    assert_eq!(client.seen.pongs, [vec![1, 0x23, 0x45, 0x67, 0x89, 0xab, 0xcd, 0xef], vec![7; 8]]);
}

/// A client that says it will leave gets the answer to what it had asked before; then the connection ends (6.8).
#[test]
fn goaway_lets_open_streams_finish() {
    let node = node();
    let mut client = Client::open(node.address());
    client.send([open(), goaway(Code::NoError)].concat());
    client.fence();
    assert!(!client.seen.is_answered(1), "{:?}", client.seen);
    client.send(data(1, END_STREAM, "last words"));
    assert_eq!(client.answer(1), (200, "last words".to_owned()));
    client.until("the end", |seen| seen.has_ended);
}

/// SETTINGS that both ends would understand differently.
#[test]
fn settings_that_are_wrong_end_the_connection() {
    check(
        &node(),
        &[
            case("6.5 on a stream", frame(SETTINGS, 0, 1, []), ENDS_PROTOCOL),
            case("6.5 ack on a stream", frame(SETTINGS, ACK, 1, []), ENDS_PROTOCOL),
            case("6.5 ack with a payload", frame(SETTINGS, ACK, 0, [0; 6]), ENDS_FRAME_SIZE),
            case("6.5 length 5", frame(SETTINGS, 0, 0, [0; 5]), ENDS_FRAME_SIZE),
            case("6.5 length 7", frame(SETTINGS, 0, 0, [0; 7]), ENDS_FRAME_SIZE),
            case("6.5.2 ENABLE_PUSH 2", settings(&[(ENABLE_PUSH, 2)]), ENDS_PROTOCOL),
            case(
                "6.5.2 INITIAL_WINDOW_SIZE 2^31",
                settings(&[(INITIAL_WINDOW_SIZE, 1 << 31)]),
                ENDS_FLOW_CONTROL,
            ),
            case("6.5.2 MAX_FRAME_SIZE 16383", settings(&[(MAX_FRAME_SIZE, 16_383)]), ENDS_PROTOCOL),
            case("6.5.2 MAX_FRAME_SIZE 2^24", settings(&[(MAX_FRAME_SIZE, 1 << 24)]), ENDS_PROTOCOL),
            case("6.5.3 wrong after right", settings(&[(ENABLE_PUSH, 0), (ENABLE_PUSH, 2)]), ENDS_PROTOCOL),
        ],
    );
}

/// SETTINGS at their limits, and those of other times.
#[test]
fn settings_that_are_right_or_unknown_are_taken() {
    let all = [
        (HEADER_TABLE_SIZE, 8192),
        (ENABLE_PUSH, 1),
        (MAX_CONCURRENT_STREAMS, 0),
        (INITIAL_WINDOW_SIZE, WINDOW_MAX),
        (MAX_FRAME_SIZE, (1 << 24) - 1),
        (MAX_HEADER_LIST_SIZE, u32::MAX),
    ];
    check(
        &node(),
        &[
            case("6.5.2 all known", settings(&all), Expect::Nothing),
            case("6.5.2 unknown", settings(&[(0, 1), (0xfff, u32::MAX)]), Expect::Nothing),
            case("6.5 unknown flags", frame(SETTINGS, 0xfe, 0, []), Expect::Nothing),
            case("6.5.2 MAX_FRAME_SIZE 16384", settings(&[(MAX_FRAME_SIZE, 16_384)]), Expect::Nothing),
            case("6.5.3 the same twice", settings(&[(ENABLE_PUSH, 0), (ENABLE_PUSH, 0)]), Expect::Nothing),
        ],
    );
}

/// Frames of the connection that are on a stream, or of a length they cannot have.
#[test]
fn pings_and_goaways_that_are_wrong_end_the_connection() {
    check(
        &node(),
        &[
            case("6.7 PING on a stream", frame(PING, 0, 1, [0; 8]), ENDS_PROTOCOL),
            case("6.7 PING of 7 bytes", frame(PING, 0, 0, [0; 7]), ENDS_FRAME_SIZE),
            case("6.7 PING of 9 bytes", frame(PING, 0, 0, [0; 9]), ENDS_FRAME_SIZE),
            case("6.7 PING without payload", frame(PING, 0, 0, []), ENDS_FRAME_SIZE),
            case("6.7 ack nobody waits for", frame(PING, ACK, 0, [9; 8]), Expect::Nothing),
            case("6.8 GOAWAY on a stream", frame(GOAWAY, 0, 1, [0; 8]), ENDS_PROTOCOL),
            case("4.2 GOAWAY of 7 bytes", frame(GOAWAY, 0, 0, [0; 7]), ENDS_FRAME_SIZE),
        ],
    );
}

/// Frames longer than the node allows, and fixed ones of another length.
#[test]
fn frames_of_a_wrong_size_are_refused() {
    let long = |kind, stream, bytes| frame(kind, 0, stream, vec![0; bytes]);
    let on_open = |frame: Vec<u8>| [open(), frame].concat();
    check(
        &node(),
        &[
            case("4.2 DATA, one too long", on_open(long(DATA, 1, FRAME_BYTES + 1)), ENDS_TOO_LONG),
            case("4.2 HEADERS, one too long", headers(1, END_BOTH, vec![0; FRAME_BYTES + 1]), ENDS_TOO_LONG),
            case("4.2 SETTINGS too long", long(SETTINGS, 0, FRAME_BYTES + 2), ENDS_TOO_LONG),
            case("4.2 unknown type, too long", long(0xbb, 0, FRAME_BYTES + 1), ENDS_TOO_LONG),
            case(
                "4.2 CONTINUATION too long",
                [headers(1, 0, []), continuation(1, 0, vec![0; FRAME_BYTES + 1])].concat(),
                ENDS_TOO_LONG,
            ),
            case(
                "4.2 DATA, as long as allowed",
                on_open(data(1, END_STREAM, vec![b'x'; FRAME_BYTES])),
                Expect::Status(200),
            ),
            case("6.4 RST_STREAM of 3 bytes", on_open(frame(RST_STREAM, 0, 1, [0; 3])), ENDS_FRAME_SIZE),
            case("6.4 RST_STREAM of 5 bytes", on_open(frame(RST_STREAM, 0, 1, [0; 5])), ENDS_FRAME_SIZE),
            case("6.9 WINDOW_UPDATE of 3 bytes", frame(WINDOW_UPDATE, 0, 0, [0, 0, 1]), ENDS_FRAME_SIZE),
            case(
                "6.9 WINDOW_UPDATE of 5 bytes",
                on_open(frame(WINDOW_UPDATE, 0, 1, [1; 5])),
                ENDS_FRAME_SIZE,
            ),
            case("6.3 PRIORITY of 4 bytes", on_open(frame(PRIORITY, 0, 1, [0; 4])), ENDS_FRAME_SIZE),
            case(
                "6.2 HEADERS without the priority it claims",
                headers(1, END_BOTH | WITH_PRIORITY, [0; 4]),
                ENDS_FRAME_SIZE,
            ),
        ],
    );
}

/// What a server does not know it must not mind (4.1, 5.5); what a client may not send at all ends the connection.
#[test]
fn unknown_frames_and_flags_are_ignored() {
    check(&node(), &ignored());
    let promise = [&2_u32.to_be_bytes()[..], &hpack::get("/")].concat();
    check(
        &node(),
        &[
            case(
                "8.4 PUSH_PROMISE from a client",
                frame(PUSH_PROMISE, END_HEADERS, 1, &promise),
                ENDS_PROTOCOL,
            ),
            case(
                "8.4 PUSH_PROMISE on an open stream",
                [open(), frame(PUSH_PROMISE, END_HEADERS, 1, &promise)].concat(),
                ENDS_PROTOCOL,
            ),
        ],
    );
}

fn ignored() -> [Case; 8] {
    let request = headers(1, END_BOTH, hpack::get("/"));
    let reserved = 1 << 31;
    [
        case("5.5 unknown type", frame(0xbb, 0, 0, "what?"), Expect::Nothing),
        case("5.5 unknown type, flags, idle stream", frame(0xff, 0xff, 1, []), Expect::Nothing),
        case("5.5 PRIORITY_UPDATE", frame(0x10, 0, 0, [0, 0, 0, 1, b'u']), Expect::Nothing),
        case("4.1 reserved bit", headers(1 | reserved, END_BOTH, hpack::get("/")), Expect::Status(200)),
        case("4.1 unknown flags, HEADERS", headers(1, END_BOTH | 0xd2, hpack::get("/")), Expect::Status(200)),
        case(
            "4.1 unknown flags, DATA",
            [open(), data(1, END_STREAM | 0xf6, "x")].concat(),
            Expect::Status(200),
        ),
        case(
            "4.1 unknown flags, RST_STREAM",
            [open(), frame(RST_STREAM, 0xff, 1, [0, 0, 0, 8])].concat(),
            Expect::Nothing,
        ),
        case("7 unknown code", [request, frame(RST_STREAM, 0, 1, [1, 2, 3, 4])].concat(), Expect::Nothing),
    ]
}
