use super::*;
use crate::profile::RingProfile;

fn limits(ring: RingName) -> FrameLimits {
    FrameLimits::new(ring, 9, &RingProfile::default(), 1 << 24)
}

fn request() -> FrameHeader {
    FrameHeader {
        hops: 2,
        service: ServiceId(0x1234),
        deadline: Nanos(u64::MAX - 1),
        payload_len: 126,
        frame_len: 126,
        method_len: 3,
        target_len: 10,
        headers_len: 100,
        generation: 9,
        ..FrameHeader::new(FrameKind::Request, 0x0123_4567_89ab_cdef)
    }
}

fn admit(header: FrameHeader) -> Result<FrameHeader, FrameError> {
    let ring = if header.kind.is_chunk() { RingName::Bulk } else { RingName::Small };
    Frame::of(&header.encode(), &limits(ring)).map(|frame| frame.header())
}

/// Every field of every kind comes back from its words.
#[test]
fn headers_round_trip() {
    let response = FrameHeader { status: 404, fault: Fault::None, ..request() };
    let all = [
        request(),
        FrameHeader { kind: FrameKind::Response, ..response },
        FrameHeader { kind: FrameKind::RequestAnnounce, frame_len: 0, payload_len: 1 << 24, ..request() },
        FrameHeader { kind: FrameKind::ResponseAnnounce, frame_len: 0, payload_len: 5000, ..response },
        FrameHeader { kind: FrameKind::RequestCredit, frame_len: 0, credit: 16, ..request() },
        FrameHeader {
            kind: FrameKind::ResponseChunk,
            frame_len: (16 << 10) - 64,
            seq: u32::MAX,
            ..request()
        },
        FrameHeader { generation: 9, ..FrameHeader::new(FrameKind::Cancel, u64::MAX) },
        FrameHeader { generation: 9, credit: 1024, ..FrameHeader::new(FrameKind::ResponseCredit, 5) },
        FrameHeader {
            generation: 9,
            service: ServiceId(u16::MAX),
            ..FrameHeader::new(FrameKind::FlowInstall, 0)
        },
        FrameHeader { generation: 9, ..FrameHeader::faulted(5, Fault::Deadline) },
    ];
    for header in all {
        assert_eq!(admit(header), Ok(header));
    }
}

/// The lengths of head and body follow from the admitted header.
#[test]
fn head_and_body_lengths() {
    let header = request();
    assert_eq!((header.head_len(), header.body_len()), (113, 6));
    assert_eq!(padded(113), 120);
}

/// Each rule has its own error, which says what was found and what would be right.
#[test]
fn broken_rules_are_named() {
    let check = |change: fn(&mut FrameHeader), expected: &str| {
        let mut header = FrameHeader { payload_len: 120, frame_len: 120, ..request() };
        change(&mut header);
        assert_eq!(admit(header).unwrap_err().to_string(), expected);
    };
    check(|h| h.generation = 8, "frame of generation 8: must be 9");
    check(|h| h.frame_len = 4097, "Request with 4097 bytes behind its header: must be 0 to 4096");
    check(
        |h| (h.frame_len, h.payload_len) = (4104, 4104),
        "Request with 4104 bytes behind its header: must be 0 to 4096",
    );
    check(|h| h.payload_len = 121, "Request of 121 bytes: must be 120 to 120");
    check(|h| h.headers_len = 108, "head of 128 bytes in a message of 120");
    check(|h| h.headers_len = u32::MAX, "head of 4294967312 bytes in a message of 120");
    check(|h| h.kind = FrameKind::Response, "status 0: must be 100 to 999");
    check(|h| h.kind = FrameKind::Cancel, "Cancel with 120 bytes behind its header: must be 0 to 0");
    check(
        |h| (h.kind, h.frame_len) = (FrameKind::RequestChunk, 0),
        "RequestChunk with 0 bytes behind its header: must be 1 to 16320",
    );
    check(
        |h| (h.kind, h.frame_len) = (FrameKind::ResponseCredit, 0),
        "credit of 0 chunks: must be 1 to 1024",
    );
    check(
        |h| (h.kind, h.frame_len, h.credit) = (FrameKind::RequestCredit, 0, 1025),
        "credit of 1025 chunks: must be 1 to 1024",
    );
    check(
        |h| (h.kind, h.frame_len, h.payload_len) = (FrameKind::RequestAnnounce, 0, (1 << 24) + 1),
        "RequestAnnounce of 16777217 bytes: must be 1 to 16777216",
    );
    let on_bulk = Frame::of(&request().encode(), &limits(RingName::Bulk));
    assert_eq!(on_bulk.unwrap_err().to_string(), "frame kind Request on the bulk ring");
}

/// A whole message is plain if and only if it breaks no rule: each field with values on both sides of its edges, in all combinations.
#[test]
fn plain_is_what_breaks_no_rule() {
    let lengths = [0, 64, 120, 4096, 4104];
    let mut fields = Vec::new();
    for payload_len in lengths {
        for frame_len in lengths {
            for headers_len in [0, 107, 108, u32::MAX] {
                for status in [0, 99, 100, 999, 1000] {
                    fields.push((payload_len, frame_len, headers_len, status));
                }
            }
        }
    }
    let flips =
        [(0, 0), (0, 0x01), (0, 9 << 16), (0, 10 << 16), (0, 0xff << 16), (5, 1 << 32), (6, 1 << 32), (7, 1)];
    let (mut plain, mut refused) = (0, 0);
    for (payload_len, frame_len, headers_len, status) in fields {
        for kind in [FrameKind::Request, FrameKind::Response, FrameKind::RequestAnnounce, FrameKind::Cancel] {
            for (word, bits) in flips {
                for ring in [RingName::Small, RingName::Bulk] {
                    let header =
                        FrameHeader { kind, payload_len, frame_len, headers_len, status, ..request() };
                    let mut words = header.encode();
                    words[word] ^= bits;
                    let mut frame = Frame { words, ..Frame::EMPTY };
                    let whole = matches!(kind, FrameKind::Request | FrameKind::Response);
                    let expected = frame.admit_other(&limits(ring)).is_ok() && whole;
                    let mut again = Frame { words, ..Frame::EMPTY };
                    assert_eq!(
                        again.is_plain(&limits(ring)),
                        expected,
                        "{header:?} on {ring}, {word}: {bits:#x}"
                    );
                    assert!(!expected || again == frame, "{again:?}: {frame:?}");
                    *if expected { &mut plain } else { &mut refused } += 1;
                }
            }
        }
    }
    assert!(plain > 50 && refused > 1000, "{plain} plain, {refused} not");
}

/// Bytes that no encoder writes are refused, each for its own reason.
#[test]
fn foreign_bytes_are_refused() {
    let check = |word: usize, bits: u64, expected: &str| {
        let mut words = FrameHeader { payload_len: 120, frame_len: 120, ..request() }.encode();
        words[word] ^= bits;
        let error = Frame::of(&words, &limits(RingName::Small)).unwrap_err();
        assert_eq!(error.to_string(), expected);
    };
    check(0, 0xc1, "frame version 0x0: must be 0xc1");
    check(0, 0xff00 & !0x0100, "frame kind 255: must be 1 to 12");
    check(0, 0x0100, "frame kind 0: must be 1 to 12");
    check(0, 0x00ff_0000, "fault 255: must be 0 to 9");
    check(6, 1 << 63, "frame word 6: reserved bits must be zero");
    check(7, 1, "frame word 7: reserved bits must be zero");
    let zeros = Frame::of(&[0; HEADER_WORDS], &limits(RingName::Small));
    assert_eq!(zeros, Err(FrameError::Version { found: 0 }));
}
