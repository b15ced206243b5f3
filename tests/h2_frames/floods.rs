//! Floods: frames that cost a client little, thousands of them. The connection is ended, or they are just answered;
//! nobody else notices, and nothing is kept.

use std::io::Write;

use cellmesh_tests::{H2, Node};

use crate::client::{Client, Seen};
use crate::frame::{
    Code, END_BOTH, END_HEADERS, END_STREAM, WINDOW_MAX, continuation, data, frame, headers, ping, priority,
    reset, settings, window_update,
};
use crate::hpack::{NEWEST, field, field_indexed, get, indexed, post};
use crate::node;

/// Frames, or pairs of them.
const MANY: u32 = 20_000;
/// A good request behind the flood, on a stream above all others.
const LAST: u32 = 1_000_001;
/// What a flood may leave behind, of all processes together.
const KEPT_BYTES_MAX: u64 = 50_000_000;
/// Requests of an honest client, at least.
const HONEST_LEAST: usize = 10;

/// What becomes of the connection that floods.
#[derive(Debug, Clone, Copy)]
enum Outcome {
    /// GOAWAY with this code, and the end.
    Ends(Code),
    /// All frames are taken, and the good request behind them is answered.
    GoesOn,
    /// Either, as it depends on who is faster.
    EndsOrGoesOn(Code),
}

/// Sends `flood` with a good request behind it, while an honest client is served on another connection.
#[track_caller]
fn check(flood: &[u8], outcome: Outcome) -> Seen {
    let node = node();
    let honest = H2::connect(node.address());
    assert_eq!(honest.get("s1", "/").status, 200);
    let before = node.usage().anonymous_bytes;
    let client = std::thread::scope(|scope| {
        let played = scope.spawn(|| play(&node, flood));
        let mut served = 0;
        while served < HONEST_LEAST || !played.is_finished() {
            assert_eq!(honest.get("s1", "/").ok().text(), "ok\n");
            served += 1;
        }
        played.join().expect("the node ends the connection, or goes on")
    });
    let kept = node.usage().anonymous_bytes.saturating_sub(before);
    assert!(kept < KEPT_BYTES_MAX, "{kept} bytes are kept");
    let seen = client.seen;
    match outcome {
        Outcome::EndsOrGoesOn(code) if seen.has_ended => assert_eq!(seen.goaway, Some(code)),
        Outcome::Ends(code) => assert_eq!((seen.goaway, seen.has_ended), (Some(code), true)),
        Outcome::GoesOn | Outcome::EndsOrGoesOn(_) => {
            assert_eq!((seen.status(LAST), seen.goaway), (Some(200), None));
        }
    }
    seen
}

/// Sends and reads at the same time, as each end may wait for the other to read.
fn play(node: &Node, flood: &[u8]) -> Client {
    let mut client = Client::open(node.address());
    let mut sender = client.sender();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            // The node may close in the middle.
            let sent = sender.write_all(flood);
            sent.and_then(|()| sender.write_all(&headers(LAST, END_BOTH, get("/"))))
        });
        client.until_or_end(|seen| seen.is_answered(LAST));
    });
    client
}

/// `frames` of so many streams.
fn of_streams(count: u32, frames: impl Fn(u32) -> Vec<u8>) -> Vec<u8> {
    (0..count).flat_map(|index| frames(2 * index + 1)).collect()
}

/// CVE-2023-44487: streams that are opened and given up at once.
#[test]
fn rapid_resets() {
    let flood = of_streams(MANY, |id| [headers(id, END_BOTH, get("/")), reset(id, Code::Cancel)].concat());
    check(&flood, Outcome::Ends(Code::EnhanceYourCalm));
}

/// CVE-2025-8671: errors that make the node itself reset streams.
#[test]
fn resets_that_the_node_is_made_to_send() {
    let flood = |error: &dyn Fn(u32) -> Vec<u8>| {
        of_streams(MANY, |id| [headers(id, END_HEADERS, post("/echo")), error(id)].concat())
    };
    check(&flood(&|id| window_update(id, WINDOW_MAX)), Outcome::Ends(Code::EnhanceYourCalm));
    check(&flood(&|id| headers(id, END_HEADERS, field("x-a", "1"))), Outcome::Ends(Code::EnhanceYourCalm));
    // The first of these ends the connection.
    check(&flood(&|id| window_update(id, 0)), Outcome::Ends(Code::Protocol));
    check(&flood(&|id| priority(id, id)), Outcome::Ends(Code::EnhanceYourCalm));
}

/// CVE-2024-27316 and its kin: a header block without end, of fields or of nothing.
#[test]
fn endless_header_blocks() {
    let flood = |piece: Vec<u8>| [headers(1, 0, get("/")), continuation(1, 0, piece).repeat(10_000)].concat();
    check(&flood(field_indexed("x-a", &"v".repeat(1000))), Outcome::Ends(Code::EnhanceYourCalm));
    check(&flood(Vec::new()), Outcome::Ends(Code::EnhanceYourCalm));
}

/// An entry of the table, named again and again: each byte becomes four thousand.
#[test]
fn header_bombs() {
    let entry = field_indexed("x-a", &"v".repeat(4000));
    let bomb = |id| {
        let entry = if id == 1 { &entry[..] } else { &[] };
        headers(id, END_BOTH, [&get("/")[..], entry, &indexed(NEWEST).repeat(12_000)].concat())
    };
    check(&of_streams(200, bomb), Outcome::Ends(Code::EnhanceYourCalm));
}

/// CVE-2019-9518: frames that carry nothing and end nothing.
#[test]
fn empty_data() {
    let flood = [headers(1, END_HEADERS, post("/echo")), data(1, 0, []).repeat(MANY as usize)].concat();
    check(&flood, Outcome::Ends(Code::EnhanceYourCalm));
}

/// CVE-2019-9515: each is acknowledged, none is kept.
#[test]
fn settings_floods() {
    let seen = check(&settings(&[]).repeat(MANY as usize), Outcome::GoesOn);
    assert_eq!(seen.settings_acks, 1 + MANY as usize);
}

/// CVE-2019-9512: each is answered, none is kept.
#[test]
fn ping_floods() {
    let seen = check(&ping(7).repeat(MANY as usize), Outcome::GoesOn);
    assert_eq!(seen.pongs.len(), MANY as usize);
}

/// CVE-2019-9513 and others: frames that are taken and forgotten.
#[test]
fn floods_of_frames_without_an_answer() {
    check(&of_streams(MANY, |id| priority(id, 0)), Outcome::GoesOn);
    check(&window_update(0, 1).repeat(MANY as usize), Outcome::GoesOn);
    check(&frame(0xbb, 0, 0, []).repeat(MANY as usize), Outcome::GoesOn);
}

/// One byte in a frame, many times: taken as fast as it comes, or else the connection ends.
#[test]
fn tiny_data() {
    let flood = [headers(1, END_HEADERS, post("/echo")), data(1, 0, "x").repeat(MANY as usize)].concat();
    let seen =
        check(&[flood, data(1, END_STREAM, [])].concat(), Outcome::EndsOrGoesOn(Code::EnhanceYourCalm));
    assert!(seen.has_ended || seen.body_bytes(1) == MANY as usize);
}

/// Streams over the limit, all at once: each costs a refusal.
#[test]
fn streams_over_the_limit() {
    let flood = of_streams(MANY, |id| headers(id, END_HEADERS, post("/echo")));
    check(&flood, Outcome::Ends(Code::EnhanceYourCalm));
}
