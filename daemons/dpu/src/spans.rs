//! What this side's part of a client's request was, for who collects traces.
//!
//! - Only where somebody wants to hear of it ([`Dpu::tell_spans`](crate::Dpu::tell_spans)): heads go on as they came else.
//! - The request goes on as a child of its part here, so that what its cell notes of it lies below; what its client said of
//!   it is this part's parent.
//! - Not here: calls of workers that take the slow path. They are parts of the requests that make them.

use std::time::Duration;

use bytes::Bytes;
use cellmesh_shm::head::HeaderLines;

use crate::routes::ServiceName;
use crate::trace_context::{Parent, Traceparent};

/// Who wants to hear of requests.
pub trait Spans {
    /// A request has come, caused by `parent`. What it goes on with, and who has sampled it.
    fn begin(&self, parent: Option<Parent>) -> (Traceparent, Sampling);

    /// It has ended.
    fn end(&self, span: &Span<'_>);
}

/// Who has decided that a request is sampled.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Sampling {
    /// It is not.
    #[default]
    No,
    /// Its caller, in `traceparent`.
    Caller,
    /// The share of all requests that is.
    Share,
    /// The number that is sampled each second however small the share.
    Guaranteed,
}

/// A client's request at its end.
#[derive(Debug)]
pub struct Span<'a> {
    /// Its place in the trace, as [`Spans::begin`] has said it.
    pub own: Traceparent,
    /// Who has sampled it: as [`Spans::begin`] has said it.
    pub sampling: Sampling,
    /// The span that has caused it.
    pub parent: Option<u64>,
    /// The service that it was routed to.
    pub service: &'a ServiceName,
    /// Its method.
    pub method: &'a [u8],
    /// Path and query.
    pub target: &'a [u8],
    /// Its header lines, as they went on.
    pub headers: HeaderLines<'a>,
    /// What it was answered with; none if its client went away first.
    pub status: Option<u16>,
    /// Whether it was shed: refused before a cell or a host had it.
    pub is_shed: bool,
    /// From when it was routed until its answer was there.
    pub took: Duration,
}

/// A head that was sent on with a part of our own as its parent.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Begun {
    pub(crate) own: Traceparent,
    pub(crate) sampling: Sampling,
    pub(crate) parent: Option<u64>,
}

/// How such a request has ended.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ended {
    pub(crate) status: Option<u16>,
    pub(crate) is_shed: bool,
    pub(crate) took: Duration,
}

impl Begun {
    /// `head`: method, target and header lines, as they went on.
    pub(crate) fn ended<'a>(
        self,
        head: &'a Bytes,
        (method_len, target_len): (u16, u16),
        service: &'a ServiceName,
        Ended { status, is_shed, took }: Ended,
    ) -> Span<'a> {
        let (method, rest) = head.split_at(usize::from(method_len));
        let (target, lines) = rest.split_at(usize::from(target_len));
        let Self { own, sampling, parent } = self;
        let headers = HeaderLines(lines);
        Span { own, sampling, parent, service, method, target, headers, status, is_shed, took }
    }
}
