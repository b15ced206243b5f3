//! Messages as the two ends of a call see them: a whole request, a whole response.
//!
//! - A head is one run of bytes in the form of [`crate::head`]; a body is opaque.
//! - A [`Fault`] is the mesh's own answer: nothing else may set it, and it has no head and no body. Whoever faces
//!   the reader turns it into a status and a text.

use bytes::Bytes;

use crate::clock::Nanos;
use crate::head::HeaderLines;
use crate::ids::ServiceId;

/// A request on its way to a service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestMessage {
    /// The service that is called.
    pub service: ServiceId,
    /// When the caller stops waiting. The DPA shortens it to its own limit; the callee sees the shorter one.
    pub deadline: Nanos,
    /// Calls between workers that led here. The DPA counts on and refuses a request that went too far.
    pub hops: u8,
    /// Bytes of the method, at the start of `head`.
    pub method_len: u16,
    /// Bytes of the target (path and query), behind the method.
    pub target_len: u16,
    /// `method | target | header lines`, see [`crate::head`].
    pub head: Bytes,
    /// The body; may be empty.
    pub body: Bytes,
}

/// A response on its way back to the caller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResponseMessage {
    /// HTTP status, 100 to 999. For a faulted response, [`Fault::status`].
    pub status: u16,
    /// [`Fault::None`] for an answer of the service itself.
    pub fault: Fault,
    /// Header lines, see [`crate::head`].
    pub head: Bytes,
    /// The body; may be empty.
    pub body: Bytes,
}

impl RequestMessage {
    /// The method; empty if the lengths do not fit the head.
    #[must_use]
    pub fn method(&self) -> &[u8] {
        self.head.get(..usize::from(self.method_len)).unwrap_or_default()
    }

    /// Whether its method says that doing it twice is as good as once. Source: RFC 9110, section 9.2.2.
    #[must_use]
    pub fn is_idempotent(&self) -> bool {
        [&b"GET"[..], b"HEAD", b"PUT", b"DELETE", b"OPTIONS", b"TRACE"].contains(&self.method())
    }

    /// The target; empty if the lengths do not fit the head.
    #[must_use]
    pub fn target(&self) -> &[u8] {
        let start = usize::from(self.method_len);
        self.head.get(start..start + usize::from(self.target_len)).unwrap_or_default()
    }

    /// The header lines, unchecked: see [`HeaderLines::check`].
    #[must_use]
    pub fn headers(&self) -> HeaderLines<'_> {
        HeaderLines(self.head.get(self.headers_start()..).unwrap_or_default())
    }

    /// The bytes of the header lines, shared with the head.
    #[must_use]
    pub fn header_bytes(&self) -> Bytes {
        self.head.slice(self.headers_start().min(self.head.len())..)
    }

    fn headers_start(&self) -> usize {
        usize::from(self.method_len) + usize::from(self.target_len)
    }
}

impl ResponseMessage {
    /// The mesh's own answer: status of the fault, no head, no body.
    #[must_use]
    pub fn faulted(fault: Fault) -> Self {
        Self { status: fault.status(), fault, head: Bytes::new(), body: Bytes::new() }
    }

    /// The header lines, unchecked: see [`HeaderLines::check`].
    #[must_use]
    pub fn headers(&self) -> HeaderLines<'_> {
        HeaderLines(&self.head)
    }
}

/// Why the mesh answered in place of the service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Fault {
    /// No fault: the service's own answer.
    None = 0,
    /// No worker serves this service now.
    NoWorker = 1,
    /// The deadline passed.
    Deadline = 2,
    /// A limit on requests in flight was reached.
    Overloaded = 3,
    /// The worker went away with the request.
    WorkerLost = 4,
    /// Nobody here can decide where the request goes.
    Unroutable = 5,
    /// The request went through too many services.
    HopLimit = 6,
    /// The message is longer than the node lets through.
    TooLarge = 7,
    /// The caller gave up first.
    Cancelled = 8,
    /// The mesh itself failed.
    Internal = 9,
}

impl Fault {
    /// All faults, in the order of their numbers: `ALL[n] as u8 == n`.
    pub const ALL: [Self; 10] = [
        Self::None,
        Self::NoWorker,
        Self::Deadline,
        Self::Overloaded,
        Self::WorkerLost,
        Self::Unroutable,
        Self::HopLimit,
        Self::TooLarge,
        Self::Cancelled,
        Self::Internal,
    ];

    /// The fault with this number on the wire.
    #[must_use]
    #[inline]
    pub fn from_number(number: u8) -> Option<Self> {
        Self::ALL.get(usize::from(number)).copied()
    }

    /// Whether a request that ends with it was never given to a service.
    #[must_use]
    pub const fn is_shed(self) -> bool {
        matches!(self, Self::NoWorker | Self::Overloaded | Self::Unroutable | Self::HopLimit)
    }

    /// The value of the response header `x-cellmesh-error`; empty for [`Fault::None`].
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::None => "",
            Self::NoWorker => "no-worker",
            Self::Deadline => "deadline",
            Self::Overloaded => "overloaded",
            Self::WorkerLost => "worker-lost",
            Self::Unroutable => "unroutable",
            Self::HopLimit => "hop-limit",
            Self::TooLarge => "too-large",
            Self::Cancelled => "cancelled",
            Self::Internal => "internal",
        }
    }

    /// The HTTP status that says it; 200 for [`Fault::None`].
    #[must_use]
    pub const fn status(self) -> u16 {
        match self {
            Self::None => 200,
            Self::NoWorker | Self::Overloaded | Self::Unroutable => 503,
            Self::Deadline => 504,
            Self::WorkerLost | Self::TooLarge => 502,
            Self::HopLimit => 508,
            Self::Cancelled => 499,
            Self::Internal => 500,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A fault's number finds the fault again, and no number beyond the last finds one.
    #[test]
    fn fault_numbers_round_trip() {
        for (number, fault) in (0u8..).zip(Fault::ALL) {
            assert_eq!(fault as u8, number);
            assert_eq!(Fault::from_number(number), Some(fault));
        }
        assert_eq!(Fault::from_number(10), None);
        assert_eq!(Fault::from_number(255), None);
    }

    /// Parts of a head are found by their lengths; lengths that do not fit give empty parts and no panic.
    #[test]
    fn request_parts_are_found() {
        let mut message = RequestMessage {
            service: ServiceId(3),
            deadline: Nanos::MAX,
            hops: 0,
            method_len: 4,
            target_len: 5,
            head: Bytes::from_static(b"POST/a?b=host: x\n"),
            body: Bytes::new(),
        };
        assert_eq!(message.method(), b"POST");
        assert_eq!(message.target(), b"/a?b=");
        assert_eq!(message.headers().get("host"), Some(&b"x"[..]));
        (message.method_len, message.target_len) = (u16::MAX, u16::MAX);
        assert_eq!((message.method(), message.target()), (&b""[..], &b""[..]));
        assert_eq!(message.headers().iter().count(), 0);
    }
}
