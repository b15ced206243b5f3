//! What of a client's head goes on to the cell, and what of a cell's head goes back.
//!
//! - Hop-by-hop headers stay on their hop, those that `connection` names too (RFC 9110, 7.6.1).
//! - `content-length` stays too: the length is the message's, and written anew on the next hop.
//! - `x-cellmesh-*` is the mesh's own: from a client none of it goes on; from the worker only
//!   `x-cellmesh-error` does.
//! - `x-client-cert-sha256` is ours too: it says which certificate the client has shown, and was found good.
//! - `forwarded` and `x-forwarded-*` are what [`ForwardedRule`] makes of them.
//! - Each request has an `x-request-id`: the client's, or one made here.
//! - `tracestate` goes on only behind a `traceparent` that can be read: what it says is of that. Source: W3C Trace Context, 4.3.
//! - Limits of heads are for what the client has sent; what is added here and by policies has room of its own
//!   ([`cellmesh_shm::head::HeadLimits::with_added`]).

use std::net::IpAddr;
use std::rc::Rc;

use bytes::Bytes;
use cellmesh_shm::head::{HeaderLines, is_hop_by_hop};
use http::HeaderMap;
use http::header::CONNECTION;
use serde::Deserialize;

use crate::dpu::Received;
use crate::faults::Refusal;
use crate::origin::{REQUEST_ID, TRACEPARENT, TRACESTATE};
use crate::policy::HeadView;
use crate::request_id::ID_BYTES;
use crate::spans::{Begun, Spans};
use crate::trace_context::Parent;

pub(crate) const MESH_PREFIX: &str = "x-cellmesh-";
/// Header that carries the code of an error made by the mesh.
pub(crate) const ERROR_HEADER: &str = "x-cellmesh-error";
/// Header by which one node tells another how many nodes a request came through.
pub(crate) const HOPS_HEADER: &str = "x-cellmesh-hops";
/// Header by which a client names the service that it wants.
pub(crate) const SERVICE_HEADER: &str = "x-cellmesh-service";

/// Header that tells a cell the SHA-256 of the client's certificate, in hexadecimal digits.
const CLIENT_CERTIFICATE_HEADER: &str = "x-client-cert-sha256";

const FORWARDED_FOR: &str = "x-forwarded-for";
const FORWARDED_PROTO: &str = "x-forwarded-proto";

/// What becomes of the headers in which proxies say for whom they ask: `forwarded` and `x-forwarded-*`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ForwardedRule {
    /// They go on as the client wrote them. Right behind a proxy that sets them and is the only client.
    #[default]
    Pass,
    /// The client's address is added to `x-forwarded-for`, and `x-forwarded-proto` is ours where there is none. Right where each
    /// hop is to be seen.
    Append,
    /// None of them goes on; `x-forwarded-for` and `x-forwarded-proto` are ours. Right at the edge, where clients write what they
    /// like.
    Replace,
}

/// Who a client is, as far as its connection tells.
#[derive(Debug, Clone, Default)]
pub(crate) struct Peer {
    /// SHA-256, in hexadecimal digits, of the certificate that it has shown and that was found good.
    pub(crate) certificate: Option<String>,
    /// Where it came from. None before it is known, when there are no requests yet.
    pub(crate) address: Option<IpAddr>,
    /// Whether its bytes come through TLS.
    pub(crate) speaks_tls: bool,
}

/// Most requests fit without growing: a browser's head is about 700 bytes.
const USUAL_HEAD_BYTES: usize = 768;

/// A request head under construction: `method | target | name: value\n ...`.
pub(crate) struct HeadWriter {
    bytes: Vec<u8>,
    method_len: u16,
    target_len: u16,
    /// Of what the client has sent. None: it may send more of it.
    client_bytes: Option<usize>,
    has_request_id: bool,
    /// Who says what the head goes on with in the place of its `traceparent`.
    spans: Option<Rc<dyn Spans>>,
    caused: CausedBy,
    has_tracestate: bool,
    forwarded: ForwardedRule,
    /// Values of `x-forwarded-for` so far, joined.
    hops: Vec<u8>,
    has_proto: bool,
}

/// What the lines `traceparent` of a head say together.
#[derive(Clone, Copy)]
enum CausedBy {
    Nobody,
    Parent(Parent),
    /// It breaks a rule, or there are several: as good as none.
    Broken,
}

impl CausedBy {
    fn and(self, value: &[u8]) -> Self {
        match (self, Parent::parse(value)) {
            (Self::Nobody, Some(parent)) => Self::Parent(parent),
            _ => Self::Broken,
        }
    }

    fn parent(self) -> Option<Parent> {
        match self {
            Self::Parent(parent) => Some(parent),
            Self::Nobody | Self::Broken => None,
        }
    }
}

/// A finished request head.
#[derive(Clone, Default)]
pub(crate) struct Head {
    pub(crate) bytes: Bytes,
    pub(crate) method_len: u16,
    pub(crate) target_len: u16,
    /// The part of a trace that it goes on below, if somebody wants to hear of it.
    pub(crate) begun: Option<Begun>,
}

impl Head {
    /// The header lines.
    pub(crate) fn lines(&self) -> HeaderLines<'_> {
        self.view().headers
    }

    /// What policies look at.
    pub(crate) fn view(&self) -> HeadView<'_> {
        let rest = &self.bytes[usize::from(self.method_len)..];
        let (target, lines) = rest.split_at(usize::from(self.target_len));
        HeadView { target, headers: HeaderLines(lines) }
    }
}

impl HeadWriter {
    /// # Errors
    /// 431 if one of the two is longer than any limit allows (64 KiB).
    pub(crate) fn new(method: &str, target: &str, forwarded: ForwardedRule) -> Result<Self, Refusal> {
        let length = |text: &str| u16::try_from(text.len()).map_err(|_| Refusal::HeadTooLarge);
        let (method_len, target_len) = (length(method)?, length(target)?);
        let mut bytes = Vec::with_capacity(USUAL_HEAD_BYTES);
        bytes.extend_from_slice(method.as_bytes());
        bytes.extend_from_slice(target.as_bytes());
        Ok(Self {
            bytes,
            method_len,
            target_len,
            client_bytes: None,
            has_request_id: false,
            spans: None,
            caused: CausedBy::Nobody,
            has_tracestate: false,
            forwarded,
            hops: Vec::new(),
            has_proto: false,
        })
    }

    /// From now on the client's `traceparent` does not go on by itself: `spans` are asked in the end.
    pub(crate) fn told_to(self, spans: Option<Rc<dyn Spans>>) -> Self {
        Self { spans, ..self }
    }

    /// Passes a header of the client on, unless it stays on this hop. `name` is in lower case, `value`
    /// has no CR, LF or NUL.
    pub(crate) fn pass(&mut self, name: &str, value: &[u8]) {
        if stays(name) || name.starts_with(MESH_PREFIX) || name == CLIENT_CERTIFICATE_HEADER {
            return;
        }
        if self.forwarded != ForwardedRule::Pass && self.takes_over(name, value) {
            return;
        }
        if name == TRACEPARENT {
            self.caused = self.caused.and(value);
            if self.spans.is_some() {
                return;
            }
        }
        self.has_tracestate |= name == TRACESTATE;
        self.has_request_id |= name == REQUEST_ID;
        self.line(name, value);
    }

    /// Whether a header does not go on because what it says is said here, or not at all.
    fn takes_over(&mut self, name: &str, value: &[u8]) -> bool {
        if self.forwarded == ForwardedRule::Replace {
            return name == "forwarded" || name.starts_with("x-forwarded-");
        }
        self.has_proto |= name == FORWARDED_PROTO;
        if name == FORWARDED_FOR {
            self.add_hop(value);
        }
        name == FORWARDED_FOR
    }

    fn add_hop(&mut self, hop: &[u8]) {
        if !self.hops.is_empty() {
            self.hops.extend_from_slice(b", ");
        }
        self.hops.extend_from_slice(hop);
    }

    /// Says who the client is: after all that it says itself.
    pub(crate) fn introduce(&mut self, peer: &Peer) {
        self.client_bytes = Some(self.bytes.len() + self.hops.len());
        if let Some(digest) = &peer.certificate {
            self.line(CLIENT_CERTIFICATE_HEADER, digest.as_bytes());
        }
        if self.forwarded == ForwardedRule::Pass {
            return;
        }
        if let Some(address) = peer.address {
            self.add_hop(address.to_canonical().to_string().as_bytes());
        }
        let hops = std::mem::take(&mut self.hops);
        if !hops.is_empty() {
            self.line(FORWARDED_FOR, &hops);
        }
        if !self.has_proto {
            self.line(FORWARDED_PROTO, if peer.speaks_tls { b"https" } else { b"http" });
        }
    }

    /// The head, with a request id if it had none.
    /// # Errors
    /// 431 if what the client has sent is over the limit.
    pub(crate) fn finish(mut self, received: &Received) -> Result<Head, Refusal> {
        let client_bytes = self.client_bytes.unwrap_or(self.bytes.len());
        if client_bytes > received.settings().config.head_bytes_max.as_len() {
            return Err(Refusal::HeadTooLarge);
        }
        if self.has_tracestate && self.caused.parent().is_none() {
            self.leave_out(TRACESTATE);
        }
        if !self.has_request_id {
            let mut text = [0; ID_BYTES];
            let id = received.ids().next(&mut text);
            self.line(REQUEST_ID, id.as_bytes());
        }
        let begun = self.spans.take().map(|spans| self.begin(&*spans));
        let (method_len, target_len) = (self.method_len, self.target_len);
        Ok(Head { bytes: Bytes::from(self.bytes), method_len, target_len, begun })
    }

    /// The request becomes a part of what we note of it.
    fn begin(&mut self, spans: &dyn Spans) -> Begun {
        let parent = self.caused.parent();
        let (own, sampling) = spans.begin(parent);
        self.line(TRACEPARENT, own.to_string().as_bytes());
        Begun { own, sampling, parent: parent.map(|parent| parent.span_id) }
    }

    /// Takes out lines that were passed on.
    fn leave_out(&mut self, left_out: &str) {
        let lines_at = usize::from(self.method_len) + usize::from(self.target_len);
        let before = std::mem::take(&mut self.bytes);
        self.bytes.extend_from_slice(&before[..lines_at]);
        let lines = HeaderLines(&before[lines_at..]);
        lines.iter().filter(|(name, _)| *name != left_out).for_each(|(name, value)| self.line(name, value));
    }

    fn line(&mut self, name: &str, value: &[u8]) {
        self.bytes.extend_from_slice(name.as_bytes());
        self.bytes.extend_from_slice(b": ");
        self.bytes.extend_from_slice(value);
        self.bytes.push(b'\n');
    }
}

/// Whether a header of a cell's answer goes back to the client.
pub(crate) fn goes_back(name: impl AsRef<[u8]>) -> bool {
    let name = name.as_ref();
    !stays(name) && (!name.starts_with(MESH_PREFIX.as_bytes()) || name == ERROR_HEADER.as_bytes())
}

fn stays(name: impl AsRef<[u8]>) -> bool {
    let name = name.as_ref();
    name == b"content-length" || is_hop_by_hop(name)
}

/// Headers that one message may name in `connection`: who names more says nothing that anybody needs.
const NAMED_MAX: usize = 32;

/// The headers that `connection` says are for this hop only. Source: RFC 9110, 7.6.1.
#[derive(Default)]
pub(crate) struct NamedByConnection<'a>(Vec<&'a str>);

impl<'a> NamedByConnection<'a> {
    /// `None` if these are too many.
    ///
    /// - cost: each line is looked at once; no allocation where only `close` and `keep-alive` are named.
    pub(crate) fn of(headers: &'a HeaderMap) -> Option<Self> {
        let lines = headers.get_all(CONNECTION).iter().filter_map(|value| value.to_str().ok());
        let options = lines.flat_map(|line| line.split(',')).map(str::trim);
        // These name no header that would be passed on.
        let is_header =
            |option: &&str| !["", "close", "keep-alive"].iter().any(|own| option.eq_ignore_ascii_case(own));
        let named: Vec<&str> = options.filter(is_header).take(NAMED_MAX + 1).collect();
        (named.len() <= NAMED_MAX).then_some(Self(named))
    }

    pub(crate) fn names(&self, name: &str) -> bool {
        self.0.iter().any(|option| option.eq_ignore_ascii_case(name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The lines that a client's become, as `name=value`.
    fn lines(rule: ForwardedRule, peer: &Peer) -> Vec<String> {
        let mut head = HeadWriter::new("GET", "/", rule).expect("short");
        for (name, value) in [
            ("x-forwarded-for", "203.0.113.9"),
            ("x-own", "1"),
            ("x-forwarded-for", "198.51.100.1, 10.0.0.2"),
            ("forwarded", "for=203.0.113.9"),
            ("x-forwarded-host", "shop.example"),
        ] {
            head.pass(name, value.as_bytes());
        }
        head.introduce(peer);
        let lines = HeaderLines(&head.bytes[4..]);
        lines.iter().map(|(name, value)| format!("{name}={}", String::from_utf8_lossy(value))).collect()
    }

    /// What `connection` names stays here, in whatever lines and letters; who names too many is not heard.
    #[test]
    fn few_headers_are_named_by_connection() {
        let headers = |options: &str| {
            let mut headers = HeaderMap::new();
            headers.append(CONNECTION, "Close, X-Own ,,".parse().expect("a value"));
            headers.append(CONNECTION, options.parse().expect("a value"));
            headers
        };
        let few = headers("keep-alive, x-more");
        let named = NamedByConnection::of(&few).expect("few");
        assert_eq!(
            ["x-own", "x-more", "x-other", "close", ""].map(|name| named.names(name)),
            [true, true, false, false, false]
        );
        let names = |count: usize| vec!["a"; count].join(",");
        assert!(NamedByConnection::of(&headers(&names(NAMED_MAX - 1))).is_some());
        assert!(NamedByConnection::of(&headers(&names(NAMED_MAX))).is_none());
    }

    /// What clients say goes on, is added to, or is replaced.
    #[test]
    fn forwarded_headers_follow_their_rule() {
        let address = Some("::ffff:192.0.2.7".parse().expect("an address"));
        let peer = Peer { address, ..Peer::default() };
        assert_eq!(
            lines(ForwardedRule::Pass, &peer),
            [
                "x-forwarded-for=203.0.113.9",
                "x-own=1",
                "x-forwarded-for=198.51.100.1, 10.0.0.2",
                "forwarded=for=203.0.113.9",
                "x-forwarded-host=shop.example",
            ]
        );
        assert_eq!(
            lines(ForwardedRule::Append, &peer),
            [
                "x-own=1",
                "forwarded=for=203.0.113.9",
                "x-forwarded-host=shop.example",
                "x-forwarded-for=203.0.113.9, 198.51.100.1, 10.0.0.2, 192.0.2.7",
                "x-forwarded-proto=http",
            ]
        );
        let secure = Peer { speaks_tls: true, ..peer };
        assert_eq!(
            lines(ForwardedRule::Replace, &secure),
            ["x-own=1", "x-forwarded-for=192.0.2.7", "x-forwarded-proto=https"]
        );
    }
}
