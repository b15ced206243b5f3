//! A JSON object as a request.
//!
//! Keys, all optional: `method` (GET), `path` (`/`), `query_string`, `headers`, `body` (text), `url`,
//! `target_service`. Others are ignored: old clients send some. `null` is the same as leaving a key out.
//!
//! - Target service: `url`'s host; else `target_service`; else `path`'s first segment; else the entry.
//!   A `url` or `target_service` that names no service is refused by name.
//! - Without `path`, the path of `url` counts.
//! - Header values are texts, numbers or booleans.

use std::borrow::Cow;
use std::fmt;

use bytes::Bytes;
use cellmesh_shm::ids::ServiceId;
use http::header::HOST;
use http::uri::{PathAndQuery, Uri};
use http::{HeaderName, HeaderValue, Method};
use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};

use crate::dpu::Received;
use crate::faults::Refusal;
use crate::forward::{Head, HeadWriter, Peer};
use crate::routes::{Route, RouteQuery, Routes, UnknownService};

/// What a bridge client asks for, ready to be sent.
pub(super) struct Asked {
    pub(super) service: ServiceId,
    /// What it was routed by.
    pub(super) route: Route,
    pub(super) head: Head,
    pub(super) body: Bytes,
}

#[derive(Deserialize)]
#[serde(expecting = "a JSON object with method, path, headers and body")]
struct Object<'a> {
    #[serde(borrow, default)]
    method: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    path: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    query_string: Option<Cow<'a, str>>,
    #[serde(default)]
    headers: Option<Headers>,
    #[serde(borrow, default)]
    body: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    url: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    target_service: Option<Cow<'a, str>>,
}

/// Reads one object of this client.
/// # Errors
/// 400 saying what is wrong, 413, 414, 431, 503 for a service that does not exist.
pub(super) fn read(received: &Received, object: &[u8], peer: &Peer) -> Result<Asked, Refusal> {
    let object: Object<'_> = serde_json::from_slice(object).map_err(|error| bad(&error))?;
    let limit = received.settings().config.body_bytes_max;
    let body = object.body.as_deref().unwrap_or_default();
    if body.len() as u64 > limit.0 {
        return Err(Refusal::BodyTooLarge { limit });
    }
    let url = object.url.as_deref().map(read_url).transpose()?;
    let target = target(&object, url.as_ref())?;
    let (service, route) = route(&received.settings().routes, &object, url.as_ref(), target.as_str())?;
    let head = head(received, &object, service, target.as_str(), peer)?;
    Ok(Asked { service, route, head, body: Bytes::copy_from_slice(body.as_bytes()) })
}

fn bad(why: &dyn fmt::Display) -> Refusal {
    Refusal::BadRequest(format!("the JSON object cannot be read: {why}"))
}

/// `http://s1/x`, and without a scheme `s1/x`.
fn read_url(url: &str) -> Result<Uri, Refusal> {
    let full = if url.contains("://") { Cow::Borrowed(url) } else { Cow::Owned(format!("http://{url}")) };
    full.parse().map_err(|_| bad(&format_args!("url \"{url}\" is no URL")))
}

fn target(object: &Object<'_>, url: Option<&Uri>) -> Result<PathAndQuery, Refusal> {
    let of_url = url.and_then(Uri::path_and_query).map(PathAndQuery::as_str);
    let path = object.path.as_deref().or(of_url).filter(|path| !path.is_empty()).unwrap_or("/");
    if !path.starts_with('/') {
        return Err(bad(&format_args!("path \"{path}\": must start with /")));
    }
    let query = object.query_string.as_deref().map(|query| query.trim_start_matches('?')).unwrap_or_default();
    let target = match (query.is_empty(), path.contains('?')) {
        (true, _) => path.to_owned(),
        (false, false) => format!("{path}?{query}"),
        (false, true) => format!("{path}&{query}"),
    };
    target
        .parse()
        .map_err(|_| bad(&format_args!("path \"{target}\" has characters that must be percent-encoded")))
}

fn route(
    routes: &Routes,
    object: &Object<'_>,
    url: Option<&Uri>,
    target: &str,
) -> Result<(ServiceId, Route), Refusal> {
    if let Some(host) = url.and_then(Uri::host) {
        let found = routes.id_of_host(host).map(|id| (id, Route::Host));
        return found.ok_or_else(|| Refusal::UnknownService(UnknownService::named(host)));
    }
    let query = RouteQuery { host: None, service: object.target_service.as_deref(), path: target };
    routes.route(query).map_err(Refusal::UnknownService)
}

fn head(
    received: &Received,
    object: &Object<'_>,
    service: ServiceId,
    target: &str,
    peer: &Peer,
) -> Result<Head, Refusal> {
    let limit = received.settings().config.target_bytes_max;
    if target.len() > limit.as_len() {
        return Err(Refusal::TargetTooLong { limit });
    }
    let method = Method::from_bytes(object.method.as_deref().unwrap_or("GET").as_bytes());
    let method = method.map_err(|_| bad(&"method: must be an HTTP method, such as GET"))?;
    let lines = object.headers.as_ref().map_or(&[][..], |headers| &headers.0);
    if lines.len() > usize::from(received.settings().config.header_lines_max) {
        return Err(Refusal::HeadTooLarge);
    }
    let head = HeadWriter::new(method.as_str(), target, received.settings().config.forwarded)?;
    let mut head = head.told_to(received.spans());
    if !lines.iter().any(|(name, _)| name == HOST) {
        let name = received.settings().routes.name(service).expect("the route came from this table");
        head.pass(HOST.as_str(), name.as_str().as_bytes());
    }
    for (name, value) in lines {
        head.pass(name.as_str(), value.as_bytes());
    }
    head.introduce(peer);
    head.finish(received)
}

/// The `headers` object, in its order, checked.
struct Headers(Vec<(HeaderName, HeaderValue)>);

/// A value of `headers`.
#[derive(Deserialize)]
#[serde(untagged, expecting = "header values must be texts, numbers or booleans")]
enum Value {
    Text(String),
    Number(serde_json::Number),
    Flag(bool),
}

impl Value {
    fn into_text(self) -> String {
        match self {
            Self::Text(text) => text,
            Self::Number(number) => number.to_string(),
            Self::Flag(flag) => flag.to_string(),
        }
    }
}

impl<'de> Deserialize<'de> for Headers {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_map(HeadersVisitor)
    }
}

struct HeadersVisitor;

impl<'de> Visitor<'de> for HeadersVisitor {
    type Value = Headers;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("headers as an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Headers, A::Error> {
        let mut lines = Vec::new();
        while let Some((name, value)) = map.next_entry::<String, Value>()? {
            lines.push(header(&name, &value.into_text()).map_err(serde::de::Error::custom)?);
        }
        Ok(Headers(lines))
    }
}

fn header(name: &str, value: &str) -> Result<(HeaderName, HeaderValue), String> {
    let known =
        HeaderName::from_bytes(name.as_bytes()).map_err(|_| format!("\"{name}\" is no header name"))?;
    let value = HeaderValue::from_str(value.trim())
        .or_else(|_| HeaderValue::from_bytes(value.trim().as_bytes()))
        .map_err(|_| format!("the value of header \"{name}\" is not allowed"))?;
    Ok((known, value))
}
