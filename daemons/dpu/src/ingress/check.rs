//! A request's head: is it one that we take, where does it go, and what of it goes on.
//!
//! What the parser lets through and we do not: two lengths on one request, codings that we would have to undo,
//! no `Host` or several, a `Host` that is none, a target in the wrong form, heads over our limits, protocols that
//! we would have to switch to. All of it is refused, nothing is repaired.

use std::borrow::Cow;

use cellmesh_shm::ids::ServiceId;
use http::header::{CONNECTION, CONTENT_LENGTH, COOKIE, HOST, TRANSFER_ENCODING, UPGRADE};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, Version};

use super::io::Standing;
use crate::dpu::Received;
use crate::faults::Refusal;
use crate::forward::{HOPS_HEADER, Head, HeadWriter, MESH_PREFIX, NamedByConnection, SERVICE_HEADER};
use crate::routes::{Route, RouteQuery};

/// A head that was checked: where it goes, and what the cell will see of it.
pub(super) struct Checked {
    pub(super) service: ServiceId,
    /// What it was routed by.
    pub(super) route: Route,
    /// Nodes that the request came through.
    pub(super) hops: u8,
    pub(super) head: Head,
}

/// Checks, routes and rewrites a head.
///
/// - cost: two passes over the headers, one allocation.
pub(super) fn check(received: &Received, parts: &Parts, standing: &Standing) -> Result<Checked, Refusal> {
    refuse_ambiguity(standing)?;
    let known = Known::of(&parts.headers);
    refuse_codings(parts, &known)?;
    refuse_other_protocols(parts, &known)?;
    refuse_other_forms(parts)?;
    refuse_excess(received, parts, &known)?;
    let host = host(parts, &known)?;
    let (service, route) = route(received, parts, &known, host)?;
    let hops = hops(&known)?;
    Ok(Checked { service, route, hops, head: rewrite(received, parts, &known, host, standing)? })
}

/// What one pass over a head has found of the headers that are looked at here. Of those that are values, the first line.
#[derive(Default)]
struct Known<'h> {
    host: Option<&'h HeaderValue>,
    upgrade: Option<&'h HeaderValue>,
    service: Option<&'h HeaderValue>,
    hops: Option<&'h HeaderValue>,
    hosts: usize,
    cookies: usize,
    has_codings: bool,
    has_length: bool,
    names_others: bool,
}

impl<'h> Known<'h> {
    fn of(headers: &'h HeaderMap) -> Self {
        let mut known = Self::default();
        for (name, value) in headers {
            if *name == HOST {
                known.hosts += 1;
                known.host.get_or_insert(value);
            } else if *name == COOKIE {
                known.cookies += 1;
            } else if *name == UPGRADE {
                known.upgrade.get_or_insert(value);
            } else if name.as_str().starts_with(MESH_PREFIX) {
                known.note_own(name.as_str(), value);
            }
            known.has_codings |= *name == TRANSFER_ENCODING;
            known.has_length |= *name == CONTENT_LENGTH;
            known.names_others |= *name == CONNECTION;
        }
        known
    }

    fn note_own(&mut self, name: &str, value: &'h HeaderValue) {
        match name {
            SERVICE_HEADER => self.service.get_or_insert(value),
            HOPS_HEADER => self.hops.get_or_insert(value),
            _ => return,
        };
    }
}

/// Also of use behind a body: what is wrong with trailers shows at their end.
pub(super) fn refuse_ambiguity(standing: &Standing) -> Result<(), Refusal> {
    if standing.is_ambiguous() {
        return Err(bad(TWO_LENGTHS));
    }
    Ok(())
}

const TWO_LENGTHS: &str =
    "a request has both content-length and transfer-encoding, or ends where others would not see its end";

/// The parser has seen to it that the last coding is chunked. Source: RFC 9112, 6.1.
fn refuse_codings(parts: &Parts, known: &Known<'_>) -> Result<(), Refusal> {
    if !known.has_codings {
        return Ok(());
    }
    if known.has_length {
        return Err(bad(TWO_LENGTHS));
    }
    let lines = parts.headers.get_all(TRANSFER_ENCODING).iter();
    let elements = lines.flat_map(|line| line.as_bytes().split(|b| *b == b',')).map(<[u8]>::trim_ascii);
    let (chunked, others): (Vec<&[u8]>, Vec<&[u8]>) = elements
        .filter(|coding| !coding.is_empty())
        .partition(|coding| coding.eq_ignore_ascii_case(b"chunked"));
    match (chunked.len(), others.len()) {
        (2.., _) => Err(bad("a request is chunked more than once")),
        (_, 1..) => Err(Refusal::NotImplemented("a transfer coding other than chunked")),
        _ => Ok(()),
    }
}

fn refuse_other_protocols(parts: &Parts, known: &Known<'_>) -> Result<(), Refusal> {
    if parts.method == Method::CONNECT {
        return Err(Refusal::NotImplemented("CONNECT"));
    }
    // Other values are offers, such as h2c, that a server may ignore; those of 1.0 it must (RFC 9110, 7.8).
    let websocket = |value: &HeaderValue| value.as_bytes().eq_ignore_ascii_case(b"websocket");
    if parts.version == Version::HTTP_11 && known.upgrade.is_some_and(websocket) {
        return Err(Refusal::NotImplemented("WebSocket"));
    }
    Ok(())
}

/// A target is a path, a URL, or `*` with OPTIONS; CONNECT, which has another, is refused before.
/// Source: RFC 9112, 3.2.
fn refuse_other_forms(parts: &Parts) -> Result<(), Refusal> {
    let is_http1 = parts.version <= Version::HTTP_11;
    if is_http1 && parts.uri.authority().is_some() && parts.uri.scheme().is_none() {
        return Err(bad("the target is neither a path nor a URL"));
    }
    if parts.uri.path() == "*" && parts.method != Method::OPTIONS {
        return Err(bad("only OPTIONS may have the target *"));
    }
    Ok(())
}

fn refuse_excess(received: &Received, parts: &Parts, known: &Known<'_>) -> Result<(), Refusal> {
    let limit = received.settings().config.target_bytes_max;
    if target(parts).len() > limit.as_len() {
        return Err(Refusal::TargetTooLong { limit });
    }
    // The cookies of HTTP/2 go on as one line.
    let lines_max = usize::from(received.settings().config.header_lines_max);
    let lines = parts.headers.len();
    if lines > lines_max && lines - known.cookies.saturating_sub(1) > lines_max {
        return Err(Refusal::HeadTooLarge);
    }
    Ok(())
}

fn bad(why: &str) -> Refusal {
    Refusal::BadRequest(why.to_owned())
}

/// Path and query; what an absolute target says before them is the host's business.
fn target(parts: &Parts) -> Cow<'_, str> {
    match parts.uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str) {
        query if query.starts_with('?') => Cow::Owned(format!("/{query}")), // of `http://host?query`
        target => Cow::Borrowed(target),
    }
}

/// The host that the request is for: of its target if that is absolute, else the one `Host` header.
fn host<'h>(parts: &'h Parts, known: &Known<'h>) -> Result<Option<&'h str>, Refusal> {
    if known.hosts > 1 {
        return Err(bad("a request has more than one host header"));
    }
    let named = known.host.map(host_text).transpose()?;
    match (parts.uri.authority(), named) {
        (_, None) if parts.version == Version::HTTP_11 => Err(bad("a request has no host header")),
        (Some(authority), _) if authority.as_str().contains('@') => {
            Err(bad("a user name in the target is not allowed"))
        }
        (Some(authority), _) if authority.host().is_empty() || !is_host(authority.as_str()) => {
            Err(bad("the target has no host"))
        }
        (Some(authority), _) => Ok(Some(authority.as_str())),
        (None, named) => Ok(named),
    }
}

/// Source: RFC 9110, 7.2: what is in the header must be able to stand in a URL.
fn host_text(value: &HeaderValue) -> Result<&str, Refusal> {
    let text = value.to_str().ok().filter(|text| is_host(text));
    text.ok_or_else(|| bad("the host header is not a host"))
}

/// A name or an address, maybe a port. Source: RFC 3986, 3.2.2 and 3.2.3.
fn is_host(text: &str) -> bool {
    let ends_with_port = !text.ends_with(']');
    let (host, port) = text.rsplit_once(':').filter(|_| ends_with_port).unwrap_or((text, ""));
    let in_brackets = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    let is_known = match in_brackets {
        Some(address) => !address.is_empty() && address.bytes().all(|b| b == b':' || is_of_name(b)),
        None => host.bytes().all(is_of_name),
    };
    is_known && has_whole_escapes(host) && port.bytes().all(|b| b.is_ascii_digit())
}

fn is_of_name(byte: u8) -> bool {
    /// Built once: every request's host is looked at byte by byte.
    const IS_OF_NAME: [bool; 256] = {
        let mut table = [false; 256];
        let mut byte = 0u8;
        while byte < 128 {
            table[byte as usize] = byte.is_ascii_alphanumeric()
                || matches!(byte, b'-' | b'.' | b'_' | b'~' | b'%' | b'!' | b'$' | b'&' | b'\'')
                || matches!(byte, b'(' | b')' | b'*' | b'+' | b',' | b';' | b'=');
            byte += 1;
        }
        table
    };
    IS_OF_NAME[usize::from(byte)]
}

fn has_whole_escapes(text: &str) -> bool {
    if !text.bytes().any(|b| b == b'%') {
        return true;
    }
    let mut digits = text.split('%').skip(1).map(|rest| rest.as_bytes().first_chunk::<2>());
    digits.all(|digits| digits.is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit)))
}

fn route(
    received: &Received,
    parts: &Parts,
    known: &Known<'_>,
    host: Option<&str>,
) -> Result<(ServiceId, Route), Refusal> {
    // A name that is no text is no service's name either.
    let service = known.service.map(|value| value.to_str().unwrap_or("?"));
    let query = RouteQuery { host, service, path: &target(parts) };
    received.settings().routes.route(query).map_err(Refusal::UnknownService)
}

/// What the node that called us says; a client that says so without being one is at its limit sooner, and may get a bounded number
/// of calls through a circuit that asks.
fn hops(known: &Known<'_>) -> Result<u8, Refusal> {
    let Some(said) = known.hops else { return Ok(0) };
    let hops = said.to_str().ok().and_then(|text| text.parse().ok());
    hops.ok_or_else(|| bad("x-cellmesh-hops must be a number from 0 to 255"))
}

fn rewrite(
    received: &Received,
    parts: &Parts,
    known: &Known<'_>,
    host: Option<&str>,
    standing: &Standing,
) -> Result<Head, Refusal> {
    let rule = received.settings().config.forwarded;
    let mut head = HeadWriter::new(parts.method.as_str(), &target(parts), rule)?.told_to(received.spans());
    if let Some(host) = host {
        head.pass("host", host.as_bytes());
    }
    let named = if known.names_others {
        NamedByConnection::of(&parts.headers).ok_or_else(|| bad("connection names too many headers"))?
    } else {
        NamedByConnection::default()
    };
    let cookies_in_parts = parts.version == Version::HTTP_2 && known.cookies > 0;
    for (name, value) in &parts.headers {
        if *name == HOST || (cookies_in_parts && *name == COOKIE) || named.names(name.as_str()) {
            continue;
        }
        head.pass(name.as_str(), value.as_bytes());
    }
    if cookies_in_parts {
        head.pass("cookie", &joined_cookies(&parts.headers));
    }
    head.introduce(standing.peer());
    head.finish(received)
}

/// HTTP/2 clients may send one cookie per line. Source: RFC 9113, 8.2.3.
fn joined_cookies(headers: &HeaderMap) -> Vec<u8> {
    let crumbs: Vec<&[u8]> = headers.get_all(COOKIE).iter().map(HeaderValue::as_bytes).collect();
    crumbs.join(&b"; "[..])
}
