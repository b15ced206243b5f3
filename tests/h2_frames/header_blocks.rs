//! HPACK: what cannot be decoded ends the connection, as both ends' tables would differ from then on (RFC 9113, 4.3).

use crate::cases::{Case, Expect, case, check};
use crate::client::Client;
use crate::differences::ENDS_COMPRESSION;
use crate::frame::{Code, END_BOTH, headers};
use crate::hpack::{
    NEWEST, field, field_huffman, field_indexed, field_named, field_never_indexed, get, indexed, integer,
    table_size,
};
use crate::node;

const OK: Expect = Expect::Status(200);

/// A case of a good request with a field behind it.
fn with(name: &'static str, field: Vec<u8>, expect: Expect) -> Case {
    case(name, headers(1, END_BOTH, [get("/"), field].concat()), expect)
}

/// A case of a good request with something before it.
fn behind(name: &'static str, first: Vec<u8>, expect: Expect) -> Case {
    case(name, headers(1, END_BOTH, [first, get("/")].concat()), expect)
}

/// Each way to write a field is understood.
#[test]
fn representations_that_are_right() {
    // RFC 7541, C.4.1: a host name of 15 letters in 12 bytes.
    let coded = [0xf1, 0xe3, 0xc2, 0xe5, 0xf2, 0x3a, 0x6b, 0xa0, 0xab, 0x90, 0xf4, 0xff];
    check(
        &node(),
        &[
            with("RFC 7541, 6.1 static entry", indexed(16), OK),
            with("RFC 7541, 6.2.1 literal with indexing", field_indexed("x-a", "1"), OK),
            with("RFC 7541, 6.2.2 literal, static name", field_named(19, "*/*"), OK),
            with("RFC 7541, 6.2.3 literal never indexed", field_never_indexed("x-a", "1"), OK),
            with(
                "RFC 7541, 6.1 entry of this block",
                [field_indexed("x-a", "1"), indexed(NEWEST)].concat(),
                OK,
            ),
            with("RFC 7541, 5.2 Huffman", field_huffman("x-a", &coded), OK),
            with("RFC 7541, 5.2 Huffman, empty", field_huffman("x-a", &[]), OK),
            with("RFC 7541, 5.2 empty value", field("x-a", ""), OK),
            with("RFC 7541, 5.1 integer of many bytes", field("x-a", &"v".repeat(5000)), OK),
            behind("RFC 7541, 6.3 table size 0", table_size(0), OK),
            behind("RFC 7541, 6.3 table size, the largest", table_size(4096), OK),
            behind("RFC 7541, 4.2 two table sizes", [table_size(0), table_size(4096)].concat(), OK),
        ],
    );
}

/// An index that no entry has, not yet or no longer.
#[test]
fn indices_that_lead_nowhere_end_the_connection() {
    let gone = [field_indexed("x-a", "1"), field_indexed("x-b", &"v".repeat(4096)), indexed(NEWEST)].concat();
    check(
        &node(),
        &[
            with("RFC 7541, 6.1 index 0", indexed(0), ENDS_COMPRESSION),
            with("RFC 7541, 2.3.3 empty dynamic table", indexed(NEWEST), ENDS_COMPRESSION),
            with("RFC 7541, 2.3.3 far away", indexed(100_000), ENDS_COMPRESSION),
            with(
                "RFC 7541, 2.3.3 one past the newest",
                [field_indexed("x-a", "1"), indexed(NEWEST + 1)].concat(),
                ENDS_COMPRESSION,
            ),
            with("RFC 7541, 2.3.3 name of no entry", field_named(NEWEST, "v"), ENDS_COMPRESSION),
            with("RFC 7541, 4.4 entry larger than the table", gone, ENDS_COMPRESSION),
            behind(
                "RFC 7541, 4.3 evicted by a smaller table",
                [table_size(0), table_size(4096), indexed(NEWEST)].concat(),
                ENDS_COMPRESSION,
            ),
            case(
                "RFC 7541, 4.3 evicted between blocks",
                [
                    headers(1, END_BOTH, [get("/"), field_indexed("x-a", "1")].concat()),
                    headers(3, END_BOTH, [table_size(0), get("/"), indexed(NEWEST)].concat()),
                ]
                .concat(),
                ENDS_COMPRESSION,
            ),
        ],
    );
}

/// The node allows 4096 bytes, and changes only where a block begins.
#[test]
fn table_sizes_that_are_wrong_end_the_connection() {
    check(
        &node(),
        &[
            behind("RFC 7541, 6.3 larger than allowed", table_size(4097), ENDS_COMPRESSION),
            behind("RFC 7541, 6.3 far too large", table_size(u64::from(u32::MAX)), ENDS_COMPRESSION),
            with("RFC 7541, 4.2 at the end", table_size(0), ENDS_COMPRESSION),
            with(
                "RFC 7541, 4.2 in the middle",
                [table_size(0), field("x-a", "1")].concat(),
                ENDS_COMPRESSION,
            ),
        ],
    );
}

/// Lengths that lie, and Huffman codes that no encoder makes.
#[test]
fn strings_and_integers_that_are_wrong_end_the_connection() {
    let endless = [&[0xff][..], &[0xff; 20], &[0x0f]].concat();
    let length_without_end = [&[0, 3, b'x', b'-', b'a', 0x7f][..], &[0xff; 12]].concat();
    let a = |bits: &[u8]| field_huffman("x-a", bits); // `a` is 00011
    check(
        &node(),
        &[
            with("RFC 7541, 5.1 index too large for any integer", endless, ENDS_COMPRESSION),
            with("RFC 7541, 5.1 length too large for any integer", length_without_end, ENDS_COMPRESSION),
            with("RFC 7541, 5.1 integer cut off", vec![0xff, 0x80], ENDS_COMPRESSION),
            with("RFC 7541, 5.2 name cut off", vec![0, 5, b'x'], ENDS_COMPRESSION),
            with("RFC 7541, 5.2 value cut off", vec![0, 1, b'x', 9, b'v'], ENDS_COMPRESSION),
            with("RFC 7541, 5.2 no value", vec![0, 1, b'x'], ENDS_COMPRESSION),
            with("RFC 7541, 5.2 length without a string", integer(0x40, 6, 4), ENDS_COMPRESSION),
            with("RFC 7541, 5.2 padding of zeros", a(&[0b0001_1000]), ENDS_COMPRESSION),
            with("RFC 7541, 5.2 padding of eight bits and more", a(&[0b0001_1111, 0xff]), ENDS_COMPRESSION),
            with("RFC 7541, 5.2 only padding", a(&[0xff]), ENDS_COMPRESSION),
            with("RFC 7541, 5.2 EOS", a(&[0xff, 0xff, 0xff, 0xff]), ENDS_COMPRESSION),
            with("RFC 7541, 5.2 EOS behind a letter", a(&[0x1f, 0xff, 0xff, 0xff, 0xff]), ENDS_COMPRESSION),
        ],
    );
}

/// What a cell sees of the header `x-kept` in the request on this stream.
#[track_caller]
fn kept(client: &mut Client, stream: u32, block: Vec<u8>) -> Vec<String> {
    client.send(headers(stream, END_BOTH, block));
    let (status, body) = client.answer(stream);
    assert_eq!(status, 200, "{body}");
    let seen: serde_json::Value = serde_json::from_str(&body).expect("JSON");
    let lines: Vec<(String, String)> = serde_json::from_value(seen["headers"].clone()).expect("pairs");
    lines.into_iter().filter(|(name, _)| name == "x-kept").map(|(_, value)| value).collect()
}

/// The dynamic table lives as long as the connection: newest first, oldest evicted (RFC 7541, 2.3.2 and 4.4).
#[test]
fn dynamic_table_lasts_over_requests() {
    let node = node();
    let mut client = Client::open(node.address());
    let reflect = || get("/reflect");
    assert_eq!(kept(&mut client, 1, [reflect(), field_indexed("x-kept", "1")].concat()), ["1"]);
    assert_eq!(kept(&mut client, 3, [reflect(), indexed(NEWEST)].concat()), ["1"]);
    assert_eq!(kept(&mut client, 5, [reflect(), field_indexed("x-kept", "2")].concat()), ["2"]);
    let both = [reflect(), indexed(NEWEST), indexed(NEWEST + 1)].concat();
    assert_eq!(kept(&mut client, 7, both), ["2", "1"]);
    assert_eq!(kept(&mut client, 9, [reflect(), field_named(NEWEST, "3")].concat()), ["3"]);
    // Each entry is 32 bytes and its letters: there is room for one of these.
    let large = "v".repeat(4096 - 32 - "x-kept".len());
    assert_eq!(kept(&mut client, 11, [reflect(), field_indexed("x-kept", &large)].concat()), [&large[..]]);
    assert_eq!(kept(&mut client, 13, [reflect(), indexed(NEWEST)].concat()), [&large[..]]);
    client.send(headers(15, END_BOTH, [reflect(), indexed(NEWEST + 1)].concat()));
    client.until_or_end(|seen| seen.is_answered(15));
    assert!(client.seen.has_ended && client.seen.goaway.is_some(), "{:?}", client.seen);
}

/// A request that is refused has changed the table all the same (RFC 9113, 4.3).
#[test]
fn dynamic_table_hears_of_refused_requests() {
    let node = node();
    let mut client = Client::open(node.address());
    let malformed = [get("/reflect"), field("te", "gzip"), field_indexed("x-kept", "1")].concat();
    client.send(headers(1, END_BOTH, malformed));
    assert_eq!(kept(&mut client, 3, [get("/reflect"), indexed(NEWEST)].concat()), ["1"]);
    assert!(client.seen.reset(1) == Some(Code::Protocol) || client.seen.status(1) == Some(400));
}
