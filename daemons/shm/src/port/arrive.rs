//! What a port does with each frame that comes in.
//!
//! - A response frame is the last word on its call, in whatever state the call is; a cancel frame is the last word on a
//!   held request.
//! - A frame about something that has ended is dropped and counted: the two sides end things at the same time, and
//!   what they say crosses. A frame that no order of events explains closes the port.

use super::calls::Call;
use super::held::Held;
use super::inbox::{BadChunk, Buffers};
use super::{Arrived, Port, PortError};
use crate::frame::{Frame, FrameHeader, FrameKind};
use crate::ids::{CallId, SlotId};
use crate::message::{RequestMessage, ResponseMessage};

impl Port {
    #[inline]
    pub(super) fn on_small(&mut self, frame: &Frame) -> Result<Option<Arrived>, PortError> {
        match frame.kind() {
            FrameKind::Request => self.on_request(frame).map(Some),
            FrameKind::Response => Ok(self.on_response(frame)),
            FrameKind::RequestAnnounce => self.on_request_announce(frame).map(|()| None),
            FrameKind::ResponseAnnounce => self.on_response_announce(frame).map(|()| None),
            FrameKind::RequestCredit | FrameKind::ResponseCredit => {
                self.on_credit(frame);
                Ok(None)
            }
            FrameKind::Cancel => Ok(self.on_cancel(frame)),
            FrameKind::RequestChunk
            | FrameKind::ResponseChunk
            | FrameKind::FlowInstall
            | FrameKind::FlowRemove
            | FrameKind::Pad => Err(broken(frame, "never sent to a port")),
        }
    }

    #[inline]
    fn on_request(&mut self, frame: &Frame) -> Result<Arrived, PortError> {
        let slot = SlotId::from_raw(frame.token());
        if !self.held.insert(slot, Held::Delivered) {
            return Err(broken(frame, "the slot is still held"));
        }
        let header = frame.header();
        let buffers = self.inline_payload(&header, frame);
        Ok(self.deliver_request(&header, buffers))
    }

    fn on_request_announce(&mut self, frame: &Frame) -> Result<(), PortError> {
        let assembly = self.inbox.announce(frame.header());
        if self.held.insert(SlotId::from_raw(frame.token()), Held::Receiving(assembly)) {
            return Ok(());
        }
        Err(broken(frame, "the slot is still held"))
    }

    /// The last word on a call, whatever state it is in.
    #[inline]
    fn on_response(&mut self, frame: &Frame) -> Option<Arrived> {
        let call = CallId::from_raw(frame.token());
        let Some(ended) = self.calls.close(call) else {
            self.stats.late_outcomes += 1;
            return None;
        };
        if let Some(assembly) = ended.receiving {
            self.inbox.remove(assembly);
            self.stats.cut_short += 1;
        }
        if !self.is_wanted(&ended) {
            return None;
        }
        let header = frame.header();
        let buffers = self.inline_payload(&header, frame);
        Some(self.deliver_response(&header, call, buffers))
    }

    /// Whether the outcome of this call is handed on. What is left of its request need not be sent any more.
    #[inline]
    fn is_wanted(&mut self, ended: &Call) -> bool {
        if let Some(stream) = ended.sending {
            self.outbox.drop_stream(stream);
        }
        self.stats.late_outcomes += u64::from(ended.cancelled);
        !ended.cancelled
    }

    fn on_response_announce(&mut self, frame: &Frame) -> Result<(), PortError> {
        let Some(call) = self.calls.get_mut(CallId::from_raw(frame.token())) else {
            self.stats.late_outcomes += 1;
            return Ok(());
        };
        if call.receiving.is_some() {
            return Err(broken(frame, "announced twice"));
        }
        // A call that was given up takes nothing: the DPA's last word is on its way.
        if !call.cancelled {
            call.receiving = Some(self.inbox.announce(frame.header()));
        }
        Ok(())
    }

    fn on_credit(&mut self, frame: &Frame) {
        let stream = if frame.kind() == FrameKind::RequestCredit {
            self.calls.get_mut(CallId::from_raw(frame.token())).and_then(|call| call.sending)
        } else {
            match self.held.get_mut(SlotId::from_raw(frame.token())) {
                Some(Held::Sending(stream)) => Some(*stream),
                _ => None,
            }
        };
        match stream {
            Some(stream) => self.outbox.credit(stream, frame.credit()),
            None => self.stats.late_credits += 1,
        }
    }

    fn on_cancel(&mut self, frame: &Frame) -> Option<Arrived> {
        let slot = SlotId::from_raw(frame.token());
        match self.held.remove(slot)? {
            Held::Delivered => return Some(Arrived::Cancelled { slot }),
            Held::Sending(stream) => self.outbox.drop_stream(stream),
            Held::Receiving(assembly) => {
                self.inbox.remove(assembly);
                self.stats.cut_short += 1;
            }
        }
        None
    }

    #[inline]
    pub(super) fn on_chunk(&mut self, frame: &Frame) -> Result<Option<Arrived>, PortError> {
        let Some(assembly) = self.assembly_of(frame) else {
            self.stats.late_chunks += 1;
            return Ok(None);
        };
        let words = self.link.rx.bulk.payload(frame);
        match self.inbox.take(assembly, frame, words) {
            Ok(true) => Ok(self.deliver_assembled(assembly)),
            Ok(false) => Ok(None),
            Err(BadChunk) => Err(broken(frame, "does not continue its message, or was not granted")),
        }
    }

    fn assembly_of(&mut self, frame: &Frame) -> Option<u32> {
        if frame.kind() == FrameKind::ResponseChunk {
            return self.calls.get_mut(CallId::from_raw(frame.token()))?.receiving;
        }
        match self.held.get_mut(SlotId::from_raw(frame.token())) {
            Some(Held::Receiving(assembly)) => Some(*assembly),
            _ => None,
        }
    }

    fn deliver_assembled(&mut self, assembly: u32) -> Option<Arrived> {
        let (header, buffers) = self.inbox.remove(assembly);
        if header.kind == FrameKind::RequestAnnounce {
            let held = self.held.get_mut(SlotId::from_raw(header.token));
            *held.expect("it named this assembly") = Held::Delivered;
            return Some(self.deliver_request(&header, buffers));
        }
        let call = CallId::from_raw(header.token);
        let ended = self.calls.close(call).expect("it named this assembly");
        self.is_wanted(&ended).then(|| self.deliver_response(&header, call, buffers))
    }

    #[inline]
    fn inline_payload(&self, header: &FrameHeader, frame: &Frame) -> Buffers {
        let mut buffers = Buffers::for_message(header);
        buffers.append(header, 0, header.frame_len as usize, self.link.rx.small.payload(frame));
        buffers
    }

    #[inline]
    fn deliver_request(&mut self, header: &FrameHeader, buffers: Buffers) -> Arrived {
        self.stats.requests += 1;
        let message = RequestMessage {
            service: header.service,
            deadline: header.deadline,
            hops: header.hops,
            method_len: header.method_len,
            target_len: header.target_len,
            head: buffers.head.into(),
            body: buffers.body.into(),
        };
        Arrived::Request { slot: SlotId::from_raw(header.token), message }
    }

    #[inline]
    fn deliver_response(&mut self, header: &FrameHeader, call: CallId, buffers: Buffers) -> Arrived {
        self.stats.outcomes += 1;
        let message = ResponseMessage {
            status: header.status,
            fault: header.fault,
            head: buffers.head.into(),
            body: buffers.body.into(),
        };
        Arrived::Response { call, message }
    }
}

#[cold]
fn broken(frame: &Frame, rule: &'static str) -> PortError {
    PortError::Protocol { kind: frame.kind(), token: frame.token(), rule }
}
