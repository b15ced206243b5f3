//! Flow control: no byte too many, and none too few.

use std::io::Write;

use cellmesh_tests::Run;

use crate::cases::{ENDS_INSTEAD, ENDS_PROTOCOL, Expect, case, check, open};
use crate::client::Client;
use crate::frame::{
    Code, END_BOTH, END_HEADERS, END_STREAM, FRAME_BYTES, INITIAL_WINDOW_SIZE, MAX_FRAME_SIZE, WINDOW,
    WINDOW_MAX, WINDOW_UPDATE, data, frame, headers, settings, window_update,
};
use crate::{hpack, node};

/// A window is opened by at least 1, and up to 2^31-1.
#[test]
fn window_updates_that_are_wrong() {
    let on_open = |frames: Vec<u8>| [open(), frames].concat();
    let most = WINDOW_MAX - WINDOW;
    check(
        &node(),
        &[
            case("6.9 0 for the connection", window_update(0, 0), ENDS_PROTOCOL),
            case("6.9 0 for a stream", on_open(window_update(1, 0)), ENDS_INSTEAD),
            case(
                "6.9.1 the connection's over the limit",
                window_update(0, most + 1),
                Expect::Ends(&[Code::FlowControl]),
            ),
            case(
                "6.9.1 a stream's over the limit",
                on_open(window_update(1, most + 1)),
                Expect::Resets(&[Code::FlowControl]),
            ),
            case(
                "6.9.1 over the limit step by step",
                on_open([window_update(1, most), window_update(1, 1)].concat()),
                Expect::Resets(&[Code::FlowControl]),
            ),
            case(
                "6.9.2 over the limit by SETTINGS",
                on_open([window_update(1, most), settings(&[(INITIAL_WINDOW_SIZE, WINDOW + 1)])].concat()),
                Expect::Ends(&[Code::FlowControl]),
            ),
            case("6.9.1 the connection's up to the limit", window_update(0, most), Expect::Nothing),
            case("6.9.1 a stream's up to the limit", on_open(window_update(1, most)), Expect::Nothing),
            case(
                "6.9 reserved bit",
                frame(WINDOW_UPDATE, 0, 0, (1_u32 << 31 | 1).to_be_bytes()),
                Expect::Nothing,
            ),
            case(
                "6.9 reserved bit and 0",
                frame(WINDOW_UPDATE, 0, 0, (1_u32 << 31).to_be_bytes()),
                ENDS_PROTOCOL,
            ),
        ],
    );
}

/// Asks for `bytes` on stream 1.
fn ask_for(client: &mut Client, bytes: usize) {
    client.send(headers(1, END_BOTH, hpack::get(&format!("/do/big:{bytes}"))));
}

/// Exactly so much of the answer on stream 1 comes, and no more until something is done about it.
#[track_caller]
fn expect_bytes(client: &mut Client, bytes: usize) {
    client.until("the bytes of a window", |seen| seen.answer(1).is_some() && seen.body_bytes(1) >= bytes);
    client.fence();
    assert_eq!(client.seen.body_bytes(1), bytes);
}

/// An answer stops where the stream's window ends, and goes on as far as it is opened (6.9).
#[test]
fn answer_keeps_to_the_window_of_its_stream() {
    let node = node();
    let mut client = Client::open_with(node.address(), &[(INITIAL_WINDOW_SIZE, 10)]);
    ask_for(&mut client, 100);
    expect_bytes(&mut client, 10);
    client.send(window_update(0, 1000));
    expect_bytes(&mut client, 10);
    client.send(window_update(1, 5));
    expect_bytes(&mut client, 15);
    client.send([window_update(1, 1), window_update(1, 2)].concat());
    expect_bytes(&mut client, 18);
    client.send(window_update(1, 1000));
    assert_eq!(client.answer(1), (200, "x".repeat(100)));
}

/// The connection's window holds for all streams together (6.9.1).
#[test]
fn answers_keep_to_the_window_of_the_connection() {
    let node = node();
    let mut client = Client::open_with(node.address(), &[(INITIAL_WINDOW_SIZE, WINDOW_MAX)]);
    ask_for(&mut client, 70_000);
    expect_bytes(&mut client, WINDOW as usize);
    client.send(headers(3, END_BOTH, hpack::get("/")));
    client.until("the head of another", |seen| seen.answer(3).is_some());
    client.fence();
    assert_eq!((client.seen.body_bytes(1), client.seen.body_bytes(3)), (WINDOW as usize, 0));
    assert_eq!(client.get(5, "/answer?status=204"), (204, String::new()), "a head needs no window");
    client.send(window_update(0, 70_000));
    assert_eq!(client.answer(1).1.len(), 70_000);
    assert_eq!(client.answer(3), (200, "ok\n".to_owned()));
}

/// A new initial window changes those of open streams, also to less than nothing (6.9.2).
#[test]
fn initial_window_changes_open_streams() {
    let node = node();
    let mut client = Client::open_with(node.address(), &[(INITIAL_WINDOW_SIZE, 0)]);
    let initial = |size| settings(&[(INITIAL_WINDOW_SIZE, size)]);
    ask_for(&mut client, 300);
    expect_bytes(&mut client, 0);
    client.send(initial(100));
    expect_bytes(&mut client, 100);
    client.send(initial(40)); // 60 below nothing
    expect_bytes(&mut client, 100);
    client.send(window_update(1, 60)); // nothing
    expect_bytes(&mut client, 100);
    client.send(window_update(1, 1));
    expect_bytes(&mut client, 101);
    client.send(initial(50));
    expect_bytes(&mut client, 111);
    client.send(settings(&[(INITIAL_WINDOW_SIZE, 70), (INITIAL_WINDOW_SIZE, 60)])); // the last one counts
    expect_bytes(&mut client, 121);
    client.send(initial(WINDOW));
    assert_eq!(client.answer(1).1.len(), 300);
}

/// The connection's window is not for SETTINGS to change (6.9.2).
#[test]
fn initial_window_leaves_the_connection_alone() {
    let node = node();
    let mut client = Client::open_with(node.address(), &[(INITIAL_WINDOW_SIZE, WINDOW_MAX)]);
    ask_for(&mut client, 70_000);
    expect_bytes(&mut client, WINDOW as usize);
    client.send(settings(&[(INITIAL_WINDOW_SIZE, 1)]));
    client.send(settings(&[(INITIAL_WINDOW_SIZE, WINDOW_MAX)]));
    expect_bytes(&mut client, WINDOW as usize);
    client.send(window_update(0, 70_000));
    assert_eq!(client.answer(1).1.len(), 70_000);
}

/// No DATA frame is longer than the client takes (4.2).
#[test]
fn answers_keep_to_the_frame_size() {
    let node = node();
    for most in [None, Some(20_000)] {
        let settings = most.map(|most: usize| (MAX_FRAME_SIZE, u32::try_from(most).unwrap()));
        let mut client = Client::open_with(node.address(), &settings.into_iter().collect::<Vec<_>>());
        ask_for(&mut client, 60_000);
        assert_eq!(client.answer(1).1.len(), 60_000);
        let longest = client.seen.data_bytes_longest;
        assert!(longest <= most.unwrap_or(FRAME_BYTES), "{longest} bytes in a frame");
    }
}

/// A client that does not care for windows is told so, or was lucky as its bytes were already taken: 6.9.1 leaves
/// that to the node. Nothing else may come of it.
#[test]
fn body_that_ignores_the_windows_is_refused_or_taken() {
    let node = node();
    let mut client = Client::open_with(node.address(), &[(INITIAL_WINDOW_SIZE, WINDOW_MAX)]);
    let mut sender = client.sender();
    client.send([window_update(0, WINDOW_MAX - WINDOW), open()].concat());
    std::thread::scope(|scope| {
        scope.spawn(move || {
            let piece = data(1, 0, vec![b'x'; FRAME_BYTES]);
            // The node may close in the middle.
            sender.write_all(&[piece.repeat(256), data(1, END_STREAM, [])].concat())
        });
        client.until_or_end(|seen| seen.is_answered(1) || seen.reset(1).is_some());
    });
    let seen = &client.seen;
    match (seen.goaway.or(seen.reset(1)), seen.status(1)) {
        (Some(code), _) => assert_eq!(code, Code::FlowControl),
        (None, status) => assert_eq!((status, seen.body_bytes(1)), (Some(200), 256 * FRAME_BYTES)),
    }
}

/// A body many windows long passes both ways unchanged.
#[test]
fn body_of_many_windows_passes_both_ways() {
    let node = node();
    let mut client = Client::open(node.address());
    let body: Vec<u8> = (0_u32..1 << 20).flat_map(u32::to_le_bytes).collect();
    client.send(headers(1, END_HEADERS, hpack::post("/echo-bytes")));
    client.send_body(1, &body);
    let answer = client.seen.answer(1).expect("an answer");
    assert_eq!((answer.status, answer.body.len(), answer.is_whole), (200, body.len(), true));
    assert!(answer.body == body, "the body has changed");
    assert_eq!(client.get(3, "/").0, 200);
}

/// What clients do not take is bounded, and costs others no more than an error that says so; taken, it makes room again.
#[test]
fn answers_that_are_not_taken_are_bounded() {
    const BYTES: usize = 400 * 1024;
    let node = Run::app(
        r#"
        [dpu]
        body_bytes_max = "1MiB"
        answer_bytes_max = "1MiB"
        [[cell]]
        component = "{cells}/unruly.wasm"
        services = ["s1"]
        "#,
    )
    .lanes(1)
    .start();
    let mut client = Client::open_with(node.address(), &[(INITIAL_WINDOW_SIZE, 0)]);
    let ask = |stream| headers(stream, END_BOTH, hpack::get(&format!("/do/big:{BYTES}")));
    for (stream, status) in [(1, 200), (3, 200), (5, 503)] {
        client.send(ask(stream));
        client.until("a head", |seen| seen.answer(stream).is_some_and(|answer| answer.status == status));
    }
    assert_eq!(node.get("s1", "/").text(), "ok\n", "small answers still find room");
    client.send(
        [settings(&[(INITIAL_WINDOW_SIZE, WINDOW_MAX)]), window_update(0, WINDOW_MAX - WINDOW)].concat(),
    );
    assert_eq!((client.answer(1).1.len(), client.answer(3).1.len()), (BYTES, BYTES));
    client.send(ask(7));
    assert_eq!(client.answer(7), (200, "x".repeat(BYTES)));
}
