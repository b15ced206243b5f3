//! Egress: from a request that a graph wants sent to a message for the DPA.

use bytes::{Bytes, BytesMut};
use cellmesh_dpu::egress::ELSEWHERE;
use cellmesh_dpu::egress::hosts::{Authority, HostPattern, Scheme};
use cellmesh_dpu::{Routes, ServiceName};
use cellmesh_graph::{StepIndex, StepResult};
use cellmesh_shm::clock::Nanos;
use cellmesh_shm::head::HeaderLines;
use cellmesh_shm::ids::{CallId, ServiceId};
use cellmesh_shm::message::{Fault, RequestMessage, ResponseMessage};
use cellmesh_shm::port::Refusal;

use super::reply::finish_head;
use super::requests::RequestId;
use crate::trace::Sent;

/// Who waits for which call to another service, by the call's index.
#[derive(Debug, Default)]
pub(super) struct Waiting(Vec<Option<(CallId, Waiter)>>);

/// A step that waits for the outcome of its call.
#[derive(Debug)]
pub(super) struct Waiter {
    pub(super) request: RequestId,
    pub(super) step: StepIndex,
    pub(super) service: ServiceId,
    pub(super) sent: Nanos,
    /// Its part of what is noted of the request.
    pub(super) span: Option<usize>,
    /// What to send once more if the callee's worker is lost with it.
    pub(super) again: Option<Box<RequestMessage>>,
}

impl Waiting {
    pub(super) fn wait(&mut self, call: CallId, waiter: Waiter) {
        let index = call.index as usize;
        if self.0.len() <= index {
            self.0.resize_with(index + 1, || None);
        }
        self.0[index] = Some((call, waiter));
    }

    /// Who waited for `call`; nobody any more afterwards.
    pub(super) fn take(&mut self, call: CallId) -> Option<Waiter> {
        let entry = self.0.get_mut(call.index as usize)?;
        entry.take_if(|(waited, _)| *waited == call).map(|(_, waiter)| waiter)
    }
}

/// A request to another service, taken out of a plan: spans resolved, body found.
pub(super) struct Outgoing {
    pub(super) method: Bytes,
    pub(super) url: Bytes,
    pub(super) headers: Bytes,
    pub(super) body: Bytes,
}

impl Outgoing {
    /// As a recording has it.
    pub(super) fn to_sent(&self) -> Sent {
        let Self { method, url, headers, body } = self;
        Sent { method: method.clone(), url: url.clone(), headers: headers.clone(), body: body.clone() }
    }
}

/// What a URL names.
#[derive(Debug, PartialEq, Eq)]
struct Target<'u> {
    scheme: Scheme,
    host: &'u str,
    /// Path and query; `/` where the URL has none.
    path: &'u str,
}

/// The message for `outgoing`, caused by `cause`: its deadline, hops and tracing headers go with it.
///
/// - `allow`: hosts beyond the services of the application that the cell may call.
/// - `traceparent`: the header line that takes the place of `cause`'s, if its request is traced. A cell that says itself what its
///   call belongs to is believed.
/// # Errors
/// A step result that says what is wrong: 500 for a request that is none, 503 for a service that nobody serves.
pub(super) fn message(
    outgoing: Outgoing,
    cause: &RequestMessage,
    routes: &Routes,
    allow: &[HostPattern],
    traceparent: Option<Bytes>,
) -> Result<RequestMessage, Box<StepResult>> {
    let bad = |text: String| Box::new(StepResult::failure(500, text));
    let target = target(&outgoing.url).map_err(bad)?;
    let service = destination(&target, routes, allow).ok_or_else(|| Box::new(no_service(target.host)))?;
    if service != ELSEWHERE && target.scheme == Scheme::Https {
        let host = target.host;
        return Err(bad(format!("{host} is a service of this application: it is called at http://{host}")));
    }
    if !is_token(&outgoing.method) {
        return Err(bad(format!(
            "method {:?}: must be an HTTP method",
            String::from_utf8_lossy(&outgoing.method)
        )));
    }
    let own = HeaderLines(traceparent.as_deref().unwrap_or_default());
    let headers = finish_head(outgoing.headers, own, cause.headers());
    let headers = headers.map_err(|why| bad(format!("bad header: {why}")))?;
    Ok(compose(service, &target, outgoing.method, &headers, outgoing.body, cause))
}

/// A host that config names is what it names, whatever our services are called.
fn destination(target: &Target<'_>, routes: &Routes, allow: &[HostPattern]) -> Option<ServiceId> {
    let is_allowed = || {
        let is_it = |authority| allow.iter().any(|pattern| pattern.matches(target.scheme, authority));
        Authority::parse(target.host).is_some_and(is_it)
    };
    if !allow.is_empty() && is_allowed() { Some(ELSEWHERE) } else { routes.id_of_host(target.host) }
}

fn compose(
    service: ServiceId,
    target: &Target<'_>,
    method: Bytes,
    headers: &[u8],
    body: Bytes,
    cause: &RequestMessage,
) -> RequestMessage {
    let mut head = BytesMut::with_capacity(
        method.len() + target.path.len() + headers.len() + 2 * target.host.len() + 16,
    );
    head.extend_from_slice(&method);
    if service == ELSEWHERE {
        // As to a proxy: the whole URL.
        head.extend_from_slice(target.scheme.as_str().as_bytes());
        head.extend_from_slice(b"://");
        head.extend_from_slice(target.host.as_bytes());
    }
    head.extend_from_slice(target.path.as_bytes());
    let (method_len, target_len) = (short(method.len()), short(head.len() - method.len()));
    if HeaderLines(headers).get("host").is_none() {
        head.extend_from_slice(b"host: ");
        head.extend_from_slice(target.host.as_bytes());
        head.extend_from_slice(b"\n");
    }
    head.extend_from_slice(headers);
    RequestMessage {
        service,
        deadline: cause.deadline,
        hops: cause.hops,
        method_len,
        target_len,
        head: head.freeze(),
        body,
    }
}

/// What an outcome means to the step that waited for it.
pub(super) fn answer(message: ResponseMessage, service: Option<&ServiceName>) -> StepResult {
    if message.fault == Fault::None {
        return StepResult::answer(message.status, message.head, message.body);
    }
    let fault = message.fault;
    let callee = service.map_or("a host off this node".into(), |name| format!("service {name}"));
    StepResult::failure(fault.status(), format!("call to {callee}: {}", describe(fault)))
}

/// What it means that the port did not take a call.
pub(super) fn refused(why: Refusal, service: Option<&ServiceName>) -> StepResult {
    let fault = match why {
        Refusal::Busy => Fault::Overloaded,
        Refusal::TooLarge => Fault::TooLarge,
        Refusal::Head => Fault::Internal,
    };
    answer(ResponseMessage::faulted(fault), service)
}

fn describe(fault: Fault) -> &'static str {
    match fault {
        Fault::None => "answered",
        Fault::NoWorker => "no worker serves it",
        Fault::Deadline => "no answer before the deadline",
        Fault::Overloaded => "too many requests in flight",
        Fault::WorkerLost => "its worker was lost",
        Fault::Unroutable => "no route to it",
        Fault::HopLimit => "too many hops: is there a loop?",
        Fault::TooLarge => "the message is larger than the limit",
        Fault::Cancelled => "cancelled",
        Fault::Internal => "failed inside the mesh",
    }
}

fn no_service(host: &str) -> StepResult {
    StepResult::failure(
        503,
        format!(
            "no worker for service {host:?}: it is no service of this application, and not in the cell's egress.allow"
        ),
    )
}

/// Takes a URL apart: `http://service/path?query`, with or without the scheme, or `https://host/path?query`.
fn target(url: &[u8]) -> Result<Target<'_>, String> {
    let bad = |why: &str| format!("url {:?}: {why}", String::from_utf8_lossy(url));
    let text = std::str::from_utf8(url).map_err(|_| bad("must be ASCII"))?;
    if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(bad("must be ASCII without spaces and control characters"));
    }
    let scheme = text.find(':').filter(|colon| text[*colon..].starts_with("://"));
    let (scheme, rest) = match scheme.map(|colon| text.split_at(colon)) {
        Some((scheme, rest)) => match Scheme::parse(scheme) {
            Some(scheme) => (scheme, &rest["://".len()..]),
            None => return Err(bad("must begin with http:// or https://")),
        },
        None => (Scheme::Http, text),
    };
    let rest = rest.find('#').map_or(rest, |fragment| &rest[..fragment]);
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    let (host, path) = rest.split_at(end);
    if host.is_empty() || host.contains('@') {
        return Err(bad("must name a service: http://service/path"));
    }
    match path.as_bytes().first() {
        None => Ok(Target { scheme, host, path: "/" }),
        Some(b'?') => Err(bad("must have a path before the query: http://service/?query")),
        Some(_) => Ok(Target { scheme, host, path }),
    }
}

/// RFC 9110, section 5.6.2.
fn is_token(text: &[u8]) -> bool {
    const MARKS: &[u8] = b"!#$%&'*+-.^_`|~";
    !text.is_empty() && text.iter().all(|byte| byte.is_ascii_alphanumeric() || MARKS.contains(byte))
}

/// Methods and URLs are bounded by the plan's limits, far below 64 KiB.
fn short(len: usize) -> u16 {
    u16::try_from(len).expect("the plan's limits bound methods and URLs")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(url: &str) -> Result<(&str, &str), String> {
        target(url.as_bytes()).map(|target| (target.host, target.path))
    }

    /// Scheme, path and query are optional where they can be.
    #[test]
    fn urls_are_taken_apart() {
        assert_eq!(parts("http://s1/api/v1?x=1"), Ok(("s1", "/api/v1?x=1")));
        assert_eq!(parts("s1.ns.svc.cluster.local:80"), Ok(("s1.ns.svc.cluster.local:80", "/")));
        assert_eq!(parts("HTTP://s1/a#fragment"), Ok(("s1", "/a")));
        assert_eq!(target(b"HTTPS://s1/").map(|target| target.scheme), Ok(Scheme::Https));
    }

    /// What could end a request line early, or means something else to another reader, is refused.
    #[test]
    fn odd_urls_are_refused() {
        for url in [
            "",
            "http://",
            "ftp://s1/",
            "http://u@s1/",
            "http://s1/a b",
            "http://s1/\r\nx: y",
            "s1?x",
            "/only/path",
        ] {
            assert!(parts(url).is_err(), "{url:?}");
        }
    }
}
