//! A case: what a client sends on a fresh connection, and what has to come of it.

use cellmesh_tests::Node;

use crate::client::{Client, Seen};
use crate::frame::{Code, END_BOTH, END_HEADERS, headers};
use crate::hpack;

/// What has to come. Streams are stream 1. "Goes on": a good request behind it, on [`LAST`], is answered.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Expect {
    /// A connection error: GOAWAY with one of these codes, and the end. The request behind is not answered.
    Ends(&'static [Code]),
    /// A stream error: RST_STREAM with one of these codes. The connection goes on.
    Resets(&'static [Code]),
    /// A malformed request: RST_STREAM with `Protocol`, or status 400, as 8.1.1 allows. The connection goes on.
    Malformed,
    /// An answer with this status. The connection goes on.
    Status(u16),
    /// Nothing on the stream. The connection goes on.
    Nothing,
}

/// What most errors of the connection are.
pub(crate) const ENDS_PROTOCOL: Expect = Expect::Ends(&[Code::Protocol]);
/// A stream error of which the node makes one of the connection, as 5.4.1 allows.
pub(crate) const ENDS_INSTEAD: Expect = ENDS_PROTOCOL;

/// The stream of the good request behind each case.
pub(crate) const LAST: u32 = 101;

#[derive(Debug)]
pub(crate) struct Case {
    /// The section that asks for it, RFC 9113 unless it says otherwise, and what is sent.
    pub(crate) name: &'static str,
    /// After the handshake.
    pub(crate) sends: Vec<u8>,
    pub(crate) expect: Expect,
}

pub(crate) fn case(name: &'static str, sends: Vec<u8>, expect: Expect) -> Case {
    Case { name, sends, expect }
}

/// The case of a request that has these fields.
pub(crate) fn request(name: &'static str, fields: &[(&str, &str)], expect: Expect) -> Case {
    case(name, headers(1, END_BOTH, hpack::fields(fields)), expect)
}

/// `POST /echo` on stream 1, whose body is to come.
pub(crate) fn open() -> Vec<u8> {
    headers(1, END_HEADERS, hpack::post("/echo"))
}

/// Runs all cases, each on a connection of its own; the failure names all that went wrong.
#[track_caller]
pub(crate) fn check(node: &Node, cases: &[Case]) {
    let wrong: Vec<String> = cases.iter().filter_map(|case| case.run(node).err()).collect();
    assert!(wrong.is_empty(), "{} of {} went wrong:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
}

impl Case {
    fn run(&self, node: &Node) -> Result<(), String> {
        let seen = play(node, &self.sends, self.expect);
        if self.expect.is_met(&seen) {
            return Ok(());
        }
        Err(format!("{}\n    expected: {:?}\n    seen: {seen:?}", self.name, self.expect))
    }
}

/// Sends the bytes with a good request behind them, and reads until it is clear what has come of them.
pub(crate) fn play(node: &Node, bytes: &[u8], expect: Expect) -> Seen {
    let mut client = Client::open(node.address());
    client.send([bytes, &headers(LAST, END_BOTH, hpack::get("/"))].concat());
    client.until_or_end(|seen| seen.is_answered(LAST));
    if matches!(expect, Expect::Status(_)) {
        client.until_or_end(|seen| seen.is_answered(1) || seen.reset(1).is_some());
    }
    if !client.seen.has_ended {
        client.fence();
    }
    client.seen
}

impl Expect {
    pub(crate) fn is_met(self, seen: &Seen) -> bool {
        let goes_on = seen.goaway.is_none() && !seen.has_ended && seen.status(LAST) == Some(200);
        let others_are_untouched = seen.resets.iter().all(|(stream, _)| *stream == 1);
        let goes_on = goes_on && others_are_untouched;
        let (status, reset) = (seen.status(1), seen.reset(1));
        match self {
            Self::Ends(codes) => {
                let is_told = seen.goaway.is_some_and(|code| codes.contains(&code));
                is_told && seen.has_ended && seen.answer(LAST).is_none()
            }
            Self::Resets(codes) => goes_on && reset.is_some_and(|code| codes.contains(&code)),
            Self::Malformed => goes_on && (reset == Some(Code::Protocol) || status == Some(400)),
            Self::Status(expected) => goes_on && status == Some(expected) && reset.is_none(),
            Self::Nothing => goes_on && seen.answer(1).is_none() && reset.is_none(),
        }
    }
}
