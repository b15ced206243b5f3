use super::*;

fn slot(caller: u16) -> Slot {
    Slot {
        caller: EndpointId(caller),
        call: CallId { index: 0, generation: 0 },
        callee: EndpointId(9),
        service: ServiceId(0),
        delivered: true,
        request: Stream::default(),
        response: Stream::default(),
    }
}

/// A slot ends once; its name finds nothing afterwards, also when the place is used again.
#[test]
fn a_name_is_good_once() {
    let mut custody = Custody::new(4);
    let first = custody.take(slot(1), Nanos(5)).expect("a free slot");
    assert_eq!(custody.end(first).map(|slot| slot.caller), Some(EndpointId(1)));
    assert!(custody.end(first).is_none() && custody.get_mut(first).is_none());
    let second = custody.take(slot(2), Nanos(5)).expect("a free slot");
    assert_eq!((second.index, second.generation), (first.index, first.generation + 1));
    assert!(custody.get_mut(first).is_none() && custody.get_mut(second).is_some());
    assert!(custody.get_mut(SlotId { index: u32::MAX, generation: 0 }).is_none());
}

/// The table is bounded, and an ended slot can be taken again.
#[test]
fn slots_are_bounded() {
    let mut custody = Custody::new(2);
    let ids = [0, 1].map(|caller| custody.take(slot(caller), Nanos(5)).expect("two slots"));
    assert!(custody.take(slot(2), Nanos(5)).is_none());
    custody.end(ids[0]);
    assert!(custody.take(slot(2), Nanos(5)).is_some());
    assert_eq!(custody.live(), 2);
}

/// Only what is overdue expires, and the table knows when to look next.
#[test]
fn deadlines_expire_in_time() {
    let mut custody = Custody::new(8);
    assert_eq!((custody.next_expiry(), custody.is_due(Nanos(u64::MAX - 1))), (None, false));
    let ids = [30, 10, 20].map(|at| custody.take(slot(1), Nanos(at)).expect("a free slot"));
    assert_eq!(custody.next_expiry(), Some(Nanos(10)));
    assert!(!custody.is_due(Nanos(9)) && custody.is_due(Nanos(10)));
    assert_eq!(custody.expired(Nanos(20)), [ids[1], ids[2]]);
    ids.into_iter().skip(1).for_each(|id| _ = custody.end(id));
    assert_eq!(custody.next_expiry(), Some(Nanos(30)));
    assert_eq!(custody.expired(Nanos(29)), []);
    custody.end(ids[0]);
    assert_eq!(custody.next_expiry(), None);
}

/// A stream takes no credit beyond its end, and no chunk beyond its credit, out of order, or of a wrong length.
#[test]
fn streams_keep_their_rules() {
    let mut stream = Stream::announced(250);
    assert_eq!(stream.relay(0, 100, 100), Err(StreamError::NoCredit));
    assert_eq!(stream.grant(4, 100), Err(StreamError::Credit));
    assert_eq!(stream.grant(u32::MAX, 100), Err(StreamError::Credit));
    assert_eq!(stream.grant(3, 100), Ok(()));
    assert_eq!(stream.grant(1, 100), Err(StreamError::Credit));
    assert_eq!(stream.relay(1, 100, 100), Err(StreamError::Order));
    assert_eq!(stream.relay(0, 99, 100), Err(StreamError::Order));
    assert_eq!((stream.relay(0, 100, 100), stream.relay(1, 100, 100)), (Ok(()), Ok(())));
    assert_eq!((stream.reserved(), stream.is_complete(100)), (1, false));
    assert_eq!(stream.relay(2, 100, 100), Err(StreamError::Order));
    assert_eq!(stream.relay(2, 50, 100), Ok(()));
    assert_eq!((stream.reserved(), stream.is_complete(100)), (0, true));
    assert_eq!(stream.relay(3, 100, 100), Err(StreamError::NoCredit));
}
