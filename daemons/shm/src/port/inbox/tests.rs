use super::*;
use crate::frame::{FrameKind, FrameLimits, RingName};

const CHUNK: u32 = 64;
const RING: u32 = 16;

fn inbox(bytes_max: u64) -> Inbox {
    Inbox::new(bytes_max, RING, CHUNK)
}

fn announce(inbox: &mut Inbox, token: u64, chunks: u32) -> u32 {
    let payload_len = chunks * CHUNK;
    inbox.announce(FrameHeader { payload_len, ..FrameHeader::new(FrameKind::RequestAnnounce, token) })
}

/// All credit that is to be given now: token and chunks.
fn credits(inbox: &mut Inbox) -> Vec<(u64, u32)> {
    std::iter::from_fn(|| inbox.next_credit()).map(|(header, chunks)| (header.token, chunks)).collect()
}

fn take(inbox: &mut Inbox, index: u32, seq: u32) -> Result<bool, BadChunk> {
    let (_ours, words) = crate::segment::pair(CHUNK as usize).expect("memory");
    let chunk = FrameHeader { frame_len: CHUNK, seq, ..FrameHeader::new(FrameKind::RequestChunk, 0) };
    let limits = FrameLimits {
        ring: RingName::Bulk,
        generation: 0,
        frame_bytes_max: CHUNK,
        message_bytes_max: u32::MAX,
    };
    let chunk = Frame::of(&chunk.encode(), &limits).expect("a chunk");
    inbox.take(index, &chunk, words.words())
}

/// A message gets half of the ring, the next a third of it, and so on: there is room for one more for long. All of them
/// together never get more than the ring.
#[test]
fn credit_is_shared() {
    let mut inbox = inbox(u64::MAX);
    let first = announce(&mut inbox, 1, 100);
    assert_eq!(credits(&mut inbox), [(1, 8)]);
    announce(&mut inbox, 2, 100);
    assert_eq!(credits(&mut inbox), [(2, 5)]);
    announce(&mut inbox, 3, 100);
    announce(&mut inbox, 4, 100);
    assert_eq!(credits(&mut inbox), [(3, 3)], "the ring's worth is out");
    (0..3).for_each(|seq| assert_eq!(take(&mut inbox, first, seq), Ok(false)));
    assert_eq!(credits(&mut inbox), [(4, 3)]);
    inbox.remove(first);
    assert_eq!(credits(&mut inbox), [], "nobody wants more, and 5 chunks are left for who comes");
    announce(&mut inbox, 5, 2);
    assert_eq!(credits(&mut inbox), [(5, 2)], "no more than it has");
}

/// A message asks again when half of its credit is used, for as much as was used.
#[test]
fn credit_is_renewed() {
    let mut inbox = inbox(u64::MAX);
    let only = announce(&mut inbox, 1, 100);
    assert_eq!(credits(&mut inbox), [(1, 8)]);
    for seq in 0..4 {
        assert_eq!(credits(&mut inbox), []);
        assert_eq!(take(&mut inbox, only, seq), Ok(false));
    }
    assert_eq!(credits(&mut inbox), [(1, 4)]);
}

/// What is over the budget of bytes waits its turn, in order; the first is taken even if it is alone over it.
#[test]
fn budget_is_kept_in_order() {
    let mut inbox = inbox(u64::from(4 * CHUNK));
    let large = announce(&mut inbox, 1, 5);
    let medium = announce(&mut inbox, 2, 4);
    announce(&mut inbox, 3, 1);
    assert_eq!(credits(&mut inbox), [(1, 5)]);
    inbox.remove(large);
    assert_eq!(credits(&mut inbox), [(2, 4)], "the third would fit, and waits behind the second");
    inbox.unwant(medium);
    assert_eq!(credits(&mut inbox), [], "its sender does not know yet");
    inbox.remove(medium);
    assert_eq!(credits(&mut inbox), [(3, 1)]);
}

/// Only the next chunk is taken, and only if it was granted.
#[test]
fn chunks_come_in_order_and_within_credit() {
    let mut inbox = inbox(u64::MAX);
    let index = announce(&mut inbox, 1, 2);
    assert_eq!(take(&mut inbox, index, 0), Err(BadChunk), "not granted");
    assert_eq!(credits(&mut inbox), [(1, 2)]);
    assert_eq!(take(&mut inbox, index, 1), Err(BadChunk), "out of order");
    assert_eq!(take(&mut inbox, index, 0), Ok(false));
    assert_eq!(take(&mut inbox, index, 1), Ok(true));
    assert_eq!(inbox.remove(index).1.body.len(), 2 * CHUNK as usize);
    assert!(inbox.is_empty());
}

/// A message that ends early, in whatever state, gives everything back.
#[test]
fn ended_messages_give_everything_back() {
    for (granted, taken, unwanted) in
        [(false, 0, false), (true, 0, false), (true, 3, false), (true, 3, true), (false, 0, true)]
    {
        let mut inbox = inbox(u64::MAX);
        let index = announce(&mut inbox, 1, 100);
        if granted {
            assert_eq!(credits(&mut inbox).len(), 1);
        }
        (0..taken).for_each(|seq| assert_eq!(take(&mut inbox, index, seq), Ok(false)));
        if unwanted {
            inbox.unwant(index);
            assert_eq!(credits(&mut inbox), []);
        }
        inbox.remove(index);
        assert!(inbox.is_empty() && inbox.waiting.is_empty() && inbox.hungry.is_empty() && inbox.bytes == 0);
        assert_eq!(credits(&mut inbox), []);
    }
}
