//! A port: one side of a link, speaking in whole messages. What a worker lane or a sidecar lane holds.
//!
//! ```text
//!   caller's port            DPA               callee's port
//!   call(request)   ---Request(call)--->  ---Request(slot)--->    poll() = Request
//!   poll() = Response <--Response(call)---  <--Response(slot)---  respond(slot, response)
//!   cancel(call)    ---Cancel(call)---->  ---Cancel(slot)---->    poll() = Cancelled
//!                   <--Response(call)---  (a fault: `Cancelled`; dropped here)
//! ```
//!
//! - Each call has exactly one outcome: one [`Arrived::Response`], unless it was given up first. Every call that was
//!   sent, given up or not, keeps its place until the DPA's last word on it.
//! - A message up to `inline_bytes_max` is one frame on the small ring. A larger one is announced there and goes in
//!   chunks on the bulk ring, as its receiver grants credit (`inbox.rs`), round robin between messages (`outbox.rs`).
//! - A full ring is backpressure: frames wait here, in order. Nothing is ever lost.
//! - Neither side of the port blocks or allocates per frame, but for the buffers of a message that is handed on.
//! - The DPA is trusted more than a worker, but not to be free of errors: what it says is checked like anybody's
//!   frames, and a rule that is broken closes the port.
//! - Not here: deadlines and custody (the DPA), what a head means.

use std::os::fd::{AsFd, BorrowedFd};

use crate::frame::{Frame, FrameHeader, FrameKind};
use crate::ids::{CallId, ServiceId, SlotId};
use crate::link::{Link, MESSAGE_BYTES_MOST};
use crate::message::{Fault, RequestMessage, ResponseMessage};
pub use crate::progress::Progress;
use crate::ring::RingError;

mod arrive;
mod calls;
mod held;
mod inbox;
mod outbox;

use calls::Calls;
use held::{Held, HeldRequests};
use inbox::Inbox;
use outbox::{Outbox, Outgoing, Sent, payload_len};

/// Bounds of one port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PortConfig {
    /// Own calls in flight at once, those given up and not yet settled included. At most the DPA's bound per endpoint.
    pub calls_max: u32,
    /// Longest message that is sent, padded head and body, in bytes; the link's own bound counts too.
    pub message_bytes_max: u32,
    /// Bytes of large messages that are put together at once; further ones wait for their turn.
    pub assembly_bytes_max: u64,
}

impl Default for PortConfig {
    /// 1,024 calls, messages as long as the link carries, 64 MiB of them at once: four of the longest.
    fn default() -> Self {
        Self { calls_max: 1024, message_bytes_max: MESSAGE_BYTES_MOST, assembly_bytes_max: 64 << 20 }
    }
}

/// What came in.
#[derive(Debug, PartialEq, Eq)]
pub enum Arrived {
    /// A request, to be answered with [`Port::respond`].
    Request {
        /// Names it in the answer.
        slot: SlotId,
        /// The whole request.
        message: RequestMessage,
    },
    /// The outcome of a call.
    Response {
        /// The call, as [`Port::call`] named it.
        call: CallId,
        /// The whole response, or a fault.
        message: ResponseMessage,
    },
    /// Nobody waits for the answer to this request any more. It need not be answered; an answer is dropped.
    Cancelled {
        /// The request.
        slot: SlotId,
    },
}

/// A call that was not made. The message comes back.
#[derive(Debug, PartialEq, Eq)]
pub struct CallRefused {
    /// The message, as it was.
    pub message: RequestMessage,
    /// Why.
    pub why: Refusal,
}

/// Why a call was not made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// `calls_max` calls are in flight; one of them must end first.
    #[error("too many calls in flight")]
    Busy,
    /// Longer than the link carries.
    #[error("message too large")]
    TooLarge,
    /// Its method and target are longer than its head.
    #[error("method_len and target_len exceed the head")]
    Head,
}

/// The other side broke a rule. The port is closed for ever: what is in flight has no outcome any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PortError {
    /// A counter or a header that cannot be.
    #[error(transparent)]
    Ring(#[from] RingError),
    /// A frame that cannot be sent now.
    #[error("{kind:?} for {token:#x}: {rule}")]
    Protocol {
        /// The frame.
        kind: FrameKind,
        /// What it names.
        token: u64,
        /// Which rule it breaks.
        rule: &'static str,
    },
}

/// What a port counts, since it was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PortStats {
    /// Calls made.
    pub calls: u64,
    /// Outcomes handed on.
    pub outcomes: u64,
    /// Calls given up.
    pub cancelled: u64,
    /// Outcomes of calls that were given up; dropped.
    pub late_outcomes: u64,
    /// Requests handed on.
    pub requests: u64,
    /// Answers sent.
    pub answers: u64,
    /// Answers that nobody waited for any more; dropped.
    pub late_answers: u64,
    /// Requests and responses that ended before all of their payload was here.
    pub cut_short: u64,
    /// Credits for payloads that had ended; dropped.
    pub late_credits: u64,
    /// Chunks of payloads that had ended; dropped.
    pub late_chunks: u64,
}

/// One side of a link, speaking in messages.
#[derive(Debug)]
pub struct Port {
    link: Link,
    calls: Calls,
    held: HeldRequests,
    outbox: Outbox,
    inbox: Inbox,
    message_bytes_max: u32,
    /// Chunks that may be taken before the next [`Port::flush`].
    chunks_left: u32,
    stats: PortStats,
    closed: Option<PortError>,
}

/// Chunks taken, and chunks sent, between two flushes: whoever shares the thread waits for one copy, not for a ring's worth.
const CHUNKS_PER_TURN: u32 = 1;

impl Port {
    /// A port over this side of a link.
    #[must_use]
    pub fn new(link: Link, config: PortConfig) -> Self {
        let profile = link.spec.profile;
        let chunk_bytes = profile.chunk_payload_bytes();
        Self {
            message_bytes_max: config.message_bytes_max.min(link.spec.message_bytes_max),
            link,
            calls: Calls::new(config.calls_max),
            held: HeldRequests::default(),
            outbox: Outbox::new(chunk_bytes),
            inbox: Inbox::new(config.assembly_bytes_max, profile.bulk_chunks, chunk_bytes),
            chunks_left: CHUNKS_PER_TURN,
            stats: PortStats::default(),
            closed: None,
        }
    }

    /// Makes a call. The peer sees it after [`Port::flush`]. Head and body are not copied until there is room for them.
    ///
    /// - cost: one copy into the ring; no allocation.
    /// # Errors
    /// [`CallRefused`] with the message, when `calls_max` calls are in flight or the message cannot be sent at all.
    #[inline]
    pub fn call(&mut self, message: RequestMessage) -> Result<CallId, CallRefused> {
        let (header, call) = match self.admit_call(&message) {
            Ok(admitted) => admitted,
            Err(why) => return Err(CallRefused { message, why }),
        };
        let outgoing = Outgoing { header, head: message.head, body: message.body };
        if header.payload_len <= self.link.spec.profile.inline_bytes_max {
            self.send(Outgoing {
                header: FrameHeader { frame_len: header.payload_len, ..header },
                ..outgoing
            });
        } else {
            self.send_announced(outgoing, FrameKind::RequestAnnounce);
        }
        self.stats.calls += 1;
        Ok(call)
    }

    #[inline]
    fn admit_call(&mut self, message: &RequestMessage) -> Result<(FrameHeader, CallId), Refusal> {
        let before_lines = usize::from(message.method_len) + usize::from(message.target_len);
        let headers_len = message.head.len().checked_sub(before_lines).ok_or(Refusal::Head)?;
        let payload_len = payload_len(&message.head, &message.body, self.message_bytes_max);
        let payload_len = payload_len.ok_or(Refusal::TooLarge)?;
        let call = self.calls.open().ok_or(Refusal::Busy)?;
        let header = FrameHeader {
            service: message.service,
            deadline: message.deadline,
            hops: message.hops,
            method_len: message.method_len,
            target_len: message.target_len,
            headers_len: u32::try_from(headers_len).expect("shorter than payload_len"),
            payload_len,
            ..FrameHeader::new(FrameKind::Request, call.raw())
        };
        Ok((header, call))
    }

    /// Gives a call up: no [`Arrived::Response`] will come for it. Nothing if it has its outcome already.
    pub fn cancel(&mut self, call: CallId) {
        let Some(sending) = self.calls.cancel(call) else { return };
        self.stats.cancelled += 1;
        if let Some(stream) = sending {
            self.outbox.drop_stream(stream);
        }
        if let Some(assembly) = self.calls.get_mut(call).and_then(|call| call.receiving) {
            self.inbox.unwant(assembly);
        }
        self.send_bare(FrameHeader::new(FrameKind::Cancel, call.raw()));
    }

    /// Answers a request. An answer that nobody waits for any more is dropped and counted; one that the link cannot
    /// carry becomes [`Fault::TooLarge`], one without a status [`Fault::Internal`].
    ///
    /// - cost: one copy into the ring; no allocation.
    #[inline]
    pub fn respond(&mut self, slot: SlotId, message: ResponseMessage) {
        let Some(Held::Delivered) = self.held.get_mut(slot) else {
            self.stats.late_answers += 1;
            return;
        };
        self.stats.answers += 1;
        let outgoing = self.admit_response(slot, message);
        if outgoing.header.payload_len <= self.link.spec.profile.inline_bytes_max {
            self.held.remove(slot);
            let header = FrameHeader { frame_len: outgoing.header.payload_len, ..outgoing.header };
            self.send(Outgoing { header, ..outgoing });
        } else {
            self.send_announced(outgoing, FrameKind::ResponseAnnounce);
        }
    }

    #[inline]
    fn admit_response(&self, slot: SlotId, message: ResponseMessage) -> Outgoing {
        let payload_len = payload_len(&message.head, &message.body, self.message_bytes_max);
        let (Some(payload_len), 100..=999) = (payload_len, message.status) else {
            let fault = if payload_len.is_none() { Fault::TooLarge } else { Fault::Internal };
            return Outgoing::bare(FrameHeader::faulted(slot.raw(), fault));
        };
        let header = FrameHeader {
            status: message.status,
            fault: message.fault,
            headers_len: u32::try_from(message.head.len()).expect("shorter than payload_len"),
            payload_len,
            ..FrameHeader::new(FrameKind::Response, slot.raw())
        };
        Outgoing { header, head: message.head, body: message.body }
    }

    /// Whether [`Port::respond`] can send this as it is, or has to say [`Fault::TooLarge`] instead.
    #[must_use]
    #[inline]
    pub fn can_carry(&self, message: &ResponseMessage) -> bool {
        payload_len(&message.head, &message.body, self.message_bytes_max).is_some()
    }

    /// Sidecar only: from now on calls of the worker that made this request, to the service that it is for, go from
    /// worker to worker. Nothing if the request has ended.
    pub fn install_flow(&mut self, slot: SlotId) {
        self.send_bare(FrameHeader::new(FrameKind::FlowInstall, slot.raw()));
    }

    /// Sidecar only: from now on everybody's calls to `service` come to the sidecar again.
    pub fn remove_flow(&mut self, service: ServiceId) {
        self.send_bare(FrameHeader { service, ..FrameHeader::new(FrameKind::FlowRemove, 0) });
    }

    /// The next thing that came in; `None` when there is no more now, or what is there is for the next turn: chunks of large
    /// messages are taken a few at a time. Call [`Port::flush`] after a batch: it gives the room back, and says whether to
    /// come again.
    ///
    /// - cost: one copy out of the ring, into the buffers of the message; no other allocation. When there is nothing,
    ///   two loads of the peer's lines.
    /// # Errors
    /// [`PortError`] when the other side broke a rule; then and from then on.
    #[inline]
    pub fn poll(&mut self) -> Result<Option<Arrived>, PortError> {
        if let Some(error) = self.closed {
            return Err(error);
        }
        let polled = self.poll_rings();
        if let Err(error) = polled {
            self.closed = Some(error);
        }
        polled
    }

    /// Chunks first: what was sent before a small frame must be here before the frame is.
    #[inline]
    fn poll_rings(&mut self) -> Result<Option<Arrived>, PortError> {
        let mut frame = Frame::EMPTY;
        loop {
            while self.link.rx.bulk.has_seen() {
                let Some(left) = self.chunks_left.checked_sub(1) else { return Ok(None) };
                if !self.link.rx.bulk.peek(&mut frame)? {
                    break;
                }
                self.chunks_left = left;
                let arrived = self.on_chunk(&frame)?;
                self.link.rx.bulk.release(&frame);
                if arrived.is_some() {
                    // What is done with a large message may take its time, and the room is there already: a peer that sees
                    // nothing of it for too long takes us for dead.
                    self.link.publish();
                    return Ok(arrived);
                }
            }
            if self.link.rx.small.peek(&mut frame)? {
                let arrived = self.on_small(&frame)?;
                self.link.rx.small.release(&frame);
                if arrived.is_some() {
                    return Ok(arrived);
                }
            } else if !self.link.rx.refresh()? {
                return Ok(None);
            }
        }
    }

    /// Pushes what waits, gives room and credit back, tells the peer of all of it once, and rings if it sleeps.
    ///
    /// - cost: nothing when nothing happened since the last time; one fence else.
    #[inline]
    pub fn flush(&mut self) -> Progress {
        if self.closed.is_some() {
            return Progress::Idle;
        }
        self.chunks_left = CHUNKS_PER_TURN;
        self.grant();
        let pushed = self.push_all().unwrap_or_else(|error| {
            self.closed = Some(error.into());
            false
        });
        let published = self.link.publish();
        Progress::from(pushed || published || self.link.rx.has_seen())
    }

    #[inline]
    fn grant(&mut self) {
        while let Some((announce, credit)) = self.inbox.next_credit() {
            let request = announce.kind == FrameKind::RequestAnnounce;
            let kind = if request { FrameKind::RequestCredit } else { FrameKind::ResponseCredit };
            self.send_bare(FrameHeader { credit, ..FrameHeader::new(kind, announce.token) });
        }
    }

    #[inline]
    fn push_all(&mut self) -> Result<bool, RingError> {
        let mut moved = self.outbox.push_queued(&mut self.link)?;
        for _ in 0..CHUNKS_PER_TURN {
            if !self.outbox.has_turns() {
                break;
            }
            let Some(sent) = self.outbox.push_chunk(&mut self.link)? else { break };
            moved = true;
            if let Some(sent) = sent {
                self.on_sent(sent);
            }
        }
        Ok(moved)
    }

    /// All of a large payload is in the ring: a call waits for its answer, a held request is answered.
    fn on_sent(&mut self, sent: Sent) {
        if sent.kind == FrameKind::RequestAnnounce {
            if let Some(call) = self.calls.get_mut(CallId::from_raw(sent.token)) {
                call.sending = None;
            }
        } else {
            self.held.remove(SlotId::from_raw(sent.token));
        }
    }

    /// The announcement now, the payload as there is credit for it.
    fn send_announced(&mut self, outgoing: Outgoing, kind: FrameKind) {
        let header = FrameHeader { kind, ..outgoing.header };
        if kind == FrameKind::RequestAnnounce {
            let stream = self.outbox.hold(Outgoing { header, ..outgoing }, FrameKind::RequestChunk);
            let call = self.calls.get_mut(CallId::from_raw(header.token));
            call.expect("opened for this message").sending = Some(stream);
        } else {
            let stream = self.outbox.hold(Outgoing { header, ..outgoing }, FrameKind::ResponseChunk);
            let held = self.held.get_mut(SlotId::from_raw(header.token));
            *held.expect("looked up for this message") = Held::Sending(stream);
        }
        self.send_bare(header);
    }

    fn send_bare(&mut self, header: FrameHeader) {
        self.send(Outgoing::bare(header));
    }

    #[inline]
    fn send(&mut self, outgoing: Outgoing) {
        if let Err(error) = self.outbox.send(&mut self.link, outgoing) {
            self.closed = Some(error.into());
        }
    }

    /// Calls whose outcome somebody waits for.
    #[must_use]
    pub fn in_flight(&self) -> u32 {
        self.calls.waiting()
    }

    /// Whether [`Port::call`] would refuse a call for being one too many.
    #[must_use]
    pub fn is_busy(&self) -> bool {
        self.calls.is_full()
    }

    /// Requests that came in and are not answered yet.
    #[must_use]
    pub fn held(&self) -> u32 {
        self.held.count()
    }

    /// Small frames that wait for room in the ring.
    #[must_use]
    pub fn queued(&self) -> usize {
        self.outbox.queued()
    }

    /// Whether nothing is in flight: no call open, no request held, nothing waiting to go out or coming in.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.calls.open_count() == 0
            && self.held.count() == 0
            && self.outbox.is_empty()
            && self.inbox.is_empty()
    }

    /// What was counted so far.
    #[must_use]
    pub fn stats(&self) -> PortStats {
        self.stats
    }

    /// The link, for its spec and its counters.
    #[must_use]
    pub fn link(&self) -> &Link {
        &self.link
    }

    /// See [`crate::link::LinkSleep::announce`]: poll and flush once more after this, and wait only if nothing moved.
    pub fn announce_sleep(&mut self) {
        // A DPA that rings too often costs its workers time, and could cost them more in simpler ways.
        let _ = self.link.sleep.announce(self.outbox.wants_room());
    }

    /// See [`crate::link::LinkSleep::wake`].
    pub fn wake(&mut self) {
        self.link.sleep.wake();
    }

    /// What becomes readable when the peer rings.
    #[must_use]
    pub fn wait_fd(&self) -> BorrowedFd<'_> {
        self.link.sleep.as_fd()
    }
}

impl Outgoing {
    fn bare(header: FrameHeader) -> Self {
        Self { header, head: bytes::Bytes::new(), body: bytes::Bytes::new() }
    }
}

#[cfg(test)]
mod tests;
