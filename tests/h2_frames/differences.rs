//! Where the node does otherwise than RFC 9113 says, and why. Asserted as it is today: what gets better shows.

use crate::cases::{ENDS_PROTOCOL, Expect, case, check, open, request};
use crate::client::{Client, PREFACE};
use crate::frame::{Code, END_BOTH, HEADER_TABLE_SIZE, WITH_PRIORITY, data, headers, ping, settings};
use crate::hpack::{NEWEST, field_indexed, fields, get, indexed};
use crate::node;

// h2 says PROTOCOL_ERROR of whatever cannot be read as a frame or a header block (its `codec/framed_read.rs`), and of
// frames that come when a stream's request has ended (its `proto/streams`). The connection ends as it should; only
// the code is less telling than the one that is named here.

/// FRAME_SIZE_ERROR (4.2), unless the frame is longer than any may be.
pub(crate) const ENDS_FRAME_SIZE: Expect = ENDS_PROTOCOL;
/// COMPRESSION_ERROR (4.3).
pub(crate) const ENDS_COMPRESSION: Expect = ENDS_PROTOCOL;
/// FLOW_CONTROL_ERROR (6.5.2).
pub(crate) const ENDS_FLOW_CONTROL: Expect = ENDS_PROTOCOL;
/// STREAM_CLOSED (5.1).
pub(crate) const ENDS_STREAM_CLOSED: Expect = ENDS_PROTOCOL;

/// 3.4: the first frame must be SETTINGS, or the connection ends. h2 does not look for it: anything else is taken, and
/// answered.
#[test]
fn preface_without_settings_is_taken() {
    let node = node();
    let mut client = Client::connect(node.address());
    client.send([PREFACE, &ping(1)].concat());
    client.until("a ping's answer", |seen| seen.pongs.len() == 1);
    client.send(settings(&[(HEADER_TABLE_SIZE, 0)]));
    assert_eq!(client.get(1, "/").0, 200);
    assert_eq!(client.seen.goaway, None);
}

/// What h2 takes for a request though it is none, and we do not refuse either. None of it changes where a request ends
/// or goes: trailers and fragments are dropped, the authority counts and not the host, the scheme is not looked at,
/// and cells see other values and targets as they came.
#[test]
fn malformed_requests_that_are_answered() {
    let trailed = |name, field| {
        let trailers = headers(1, END_BOTH, fields(&[field]));
        let request = [open(), data(1, 0, "body"), trailers];
        case(name, request.concat(), Expect::Status(200))
    };
    let get = [(":method", "GET"), (":scheme", "http"), (":authority", "s1"), (":path", "/")];
    let with = |name, field| request(name, &[&get[..], &[field]].concat(), Expect::Status(200));
    check(
        &node(),
        &[
            trailed("8.1 pseudo-header in trailers", (":path", "/")),
            trailed("8.1 pseudo-header of a response in trailers", (":status", "200")),
            with("8.2.1 space before a value", ("x-a", " 1")),
            with("8.2.1 tab after a value", ("x-a", "1\t")),
            with("8.3.1 (SHOULD) host that differs from :authority", ("host", "other")),
            request(
                "8.3.1 fragment in :path",
                &[get[0], get[1], get[2], (":path", "/#x")],
                Expect::Status(200),
            ),
            request("8.3.1 empty :scheme", &[get[0], (":scheme", ""), get[2], get[3]], Expect::Status(200)),
        ],
    );
}

/// 4.3: a block that is not used must be decoded all the same, as it changes the table. That of a stream which
/// depends on itself (an error in RFC 7540, 5.3.1) h2 leaves unread: a later request that counts on it fails.
#[test]
fn table_misses_the_block_of_a_stream_that_depends_on_itself() {
    let node = node();
    let mut client = Client::open(node.address());
    let itself = [&[0, 0, 0, 1, 15], &get("/")[..], &field_indexed("x-kept", "1")].concat();
    client.send(headers(1, END_BOTH | WITH_PRIORITY, itself));
    client.send(headers(3, END_BOTH, [get("/"), indexed(NEWEST)].concat()));
    client.until("the end", |seen| seen.has_ended);
    assert_eq!(client.seen.goaway, Some(Code::Protocol));
}
