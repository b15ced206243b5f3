//! The request that a handler is given.

use std::borrow::Cow;
use std::fmt;

use serde::de::DeserializeOwned;

use crate::arena::{Arena, part};
use crate::bindings::cellmesh::cell::types as wit;
use crate::headers::HeaderLines;

/// A request: views of one buffer, nothing is copied to look at it.
#[derive(Debug, Clone)]
pub struct Request {
    arena: Vec<u8>,
    parts: wit::Request,
}

impl Request {
    pub(crate) fn received(parts: wit::Request, arena: Vec<u8>) -> Self {
        Self { arena, parts }
    }

    #[cfg(not(target_arch = "wasm32"))]
    pub(crate) fn into_parts(self) -> (wit::Request, Vec<u8>) {
        (self.parts, self.arena)
    }

    /// A `GET` of `target` (path and query), for tests.
    pub fn get(target: &str) -> Self {
        Self::new("GET", target, &[], b"")
    }

    /// A `POST` of `body` to `target` (path and query), for tests.
    pub fn post(target: &str, body: impl AsRef<[u8]>) -> Self {
        Self::new("POST", target, &[], body.as_ref())
    }

    /// A request as the host would give it, for tests.
    pub fn new(method: &str, target: &str, headers: &[(&str, &str)], body: &[u8]) -> Self {
        let mut arena = Arena::default();
        let lines: String =
            headers.iter().map(|(name, value)| format!("{}: {value}\n", name.to_lowercase())).collect();
        let parts = wit::Request {
            method: arena.push(method.as_bytes()),
            target: arena.push(target.as_bytes()),
            headers: arena.push(lines.as_bytes()),
            body: arena.push(body),
        };
        Self { arena: arena.into_bytes(), parts }
    }

    /// For example `GET`.
    pub fn method(&self) -> &str {
        self.text(self.parts.method)
    }

    /// Path and query as the client sent them, for example `/api/v1?id=7`.
    pub fn target(&self) -> &str {
        self.text(self.parts.target)
    }

    /// The target up to the `?`, as the client sent it (not percent-decoded).
    pub fn path(&self) -> &str {
        self.target().split_once('?').map_or(self.target(), |(path, _)| path)
    }

    /// The target behind the `?`, as the client sent it; empty where there is none.
    ///
    /// cost: where there is none, one look for the `?`.
    pub fn query(&self) -> &str {
        let target = part(&self.arena, self.parts.target);
        let query = target.iter().position(|byte| *byte == b'?').map_or(&[][..], |at| &target[at + 1..]);
        std::str::from_utf8(query).unwrap_or_default()
    }

    /// The first value of `name` in the query, decoded.
    pub fn query_param(&self, name: &str) -> Option<Cow<'_, str>> {
        form_urlencoded::parse(self.query().as_bytes()).find(|(key, _)| key == name).map(|(_, value)| value)
    }

    /// All headers, without hop-by-hop headers.
    pub fn headers(&self) -> HeaderLines<'_> {
        HeaderLines::new(part(&self.arena, self.parts.headers))
    }

    /// The first value of a header, in any case; none also where the value is not UTF-8.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers().text(name)
    }

    /// The body. To send it on unread, use [`Body::of_request`](crate::Body::of_request) instead.
    pub fn body(&self) -> &[u8] {
        part(&self.arena, self.parts.body)
    }

    /// The body read as JSON.
    ///
    /// # Errors
    /// [`BadRequest`], which `?` turns into a response 400 that says what is wrong.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T, BadRequest> {
        serde_json::from_slice(self.body())
            .map_err(|error| BadRequest(format!("the body is not the JSON expected: {error}")))
    }

    fn text(&self, span: wit::Span) -> &str {
        std::str::from_utf8(part(&self.arena, span)).unwrap_or_default()
    }
}

/// The request is not what the handler can work with; becomes a response 400 with this text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadRequest(pub String);

impl fmt::Display for BadRequest {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl std::error::Error for BadRequest {}

#[cfg(test)]
mod tests {
    use super::*;

    /// The parts of a target are told apart at the first `?`, and only parameters are decoded.
    #[test]
    fn target_is_path_and_query() {
        let request = Request::get("/a%20b?x=1&name=J%C3%B6rg+B&x=2?");
        assert_eq!((request.path(), request.query()), ("/a%20b", "x=1&name=J%C3%B6rg+B&x=2?"));
        assert_eq!(request.query_param("x").as_deref(), Some("1"));
        assert_eq!(request.query_param("name").as_deref(), Some("Jörg B"));
        assert_eq!((request.query_param("y"), Request::get("/").query()), (None, ""));
    }

    /// Headers are found in any case.
    #[test]
    fn headers_are_views() {
        let request = Request::new("PUT", "/", &[("Content-Type", "text/x"), ("a", "1")], b"body");
        assert_eq!(
            (request.method(), request.header("content-TYPE"), request.body()),
            ("PUT", Some("text/x"), &b"body"[..])
        );
    }

    /// A body that is no JSON says why, as a 400 would.
    #[test]
    fn bad_json_says_why() {
        let error = Request::post("/", "{").json::<serde_json::Value>().unwrap_err();
        assert!(error.to_string().contains("EOF while parsing"), "{error}");
    }
}
