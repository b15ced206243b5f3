//! Finished responses, and what can be turned into one.

use std::fmt::Display;

use bytes::Bytes;
use serde::Serialize;

use crate::arena::Arena;
use crate::bindings::cellmesh::cell::types as wit;
use crate::body::{Body, Source};
use crate::headers::{HeaderLines, Headers};
use crate::request::BadRequest;

pub(crate) const TEXT: &[u8] = b"content-type: text/plain; charset=utf-8\n";
pub(crate) const JSON: &[u8] = b"content-type: application/json\n";
pub(crate) const BINARY: &[u8] = b"content-type: application/octet-stream\n";

/// A longer body of the cell's own becomes the answer's arena; a shorter one is copied, which is cheaper
/// than growing its allocation for the headers.
const COPIED_BODY_BYTES_MAX: usize = 2048;

/// A finished response.
///
/// ```
/// use cellmesh_guest::Response;
///
/// let page = Response::new(404).header("cache-control", "no-store").body("no such user\n");
/// assert_eq!(page.status(), 404);
/// ```
#[derive(Debug, Clone)]
pub struct Response {
    status: u16,
    headers: Headers,
    body: Body,
}

impl Response {
    /// An empty response with a status from 200 to 599.
    pub fn new(status: u16) -> Self {
        Self { status, headers: Headers::default(), body: Body::default() }
    }

    /// 200 with text.
    pub fn text(text: impl Into<Body>) -> Self {
        Self { status: 200, headers: Headers::fixed(TEXT), body: text.into() }
    }

    /// 200 with bytes of no particular type; give them one with `.header("content-type", ..)`.
    pub fn bytes(bytes: impl Into<Body>) -> Self {
        Self { status: 200, headers: Headers::fixed(BINARY), body: bytes.into() }
    }

    /// 200 with `value` as JSON. A value that JSON cannot hold (a map whose keys are no text) becomes a 500
    /// that says so.
    pub fn json<T: Serialize + ?Sized>(value: &T) -> Self {
        match serde_json::to_vec(value) {
            Ok(json) => Self { status: 200, headers: Headers::fixed(JSON), body: json.into() },
            Err(error) => Self::error(500, format!("the response cannot be written as JSON: {error}")),
        }
    }

    /// `{"error": text}` with a status.
    pub fn error(status: u16, text: impl Display) -> Self {
        let json = serde_json::json!({ "error": text.to_string() }).to_string();
        Self { status, headers: Headers::fixed(JSON), body: json.into() }
    }

    /// With this status.
    #[must_use]
    pub fn with_status(mut self, status: u16) -> Self {
        self.status = status;
        self
    }

    /// With this one value for a header. A name or value that HTTP does not allow makes it a 500 that says
    /// so.
    #[must_use]
    pub fn header(mut self, name: &str, value: impl AsRef<[u8]>) -> Self {
        self.headers.set(name, value.as_ref());
        self
    }

    /// With one more value for a header, for example `set-cookie`.
    #[must_use]
    pub fn add_header(mut self, name: &str, value: impl AsRef<[u8]>) -> Self {
        self.headers.append(name, value.as_ref());
        self
    }

    /// With this body.
    #[must_use]
    pub fn body(mut self, body: impl Into<Body>) -> Self {
        self.body = body.into();
        self
    }

    /// The status.
    pub fn status(&self) -> u16 {
        self.status
    }

    /// The headers.
    pub fn headers(&self) -> HeaderLines<'_> {
        self.headers.as_lines()
    }

    /// The body's bytes; none where it names a body that is not in the cell.
    pub fn body_bytes(&self) -> &[u8] {
        self.body.bytes()
    }

    pub(crate) fn into_parts(self) -> (u16, Headers, Body) {
        (self.status, self.headers, self.body)
    }

    /// The answer of a handler. cost: one allocation, none for a large body of its own.
    pub(crate) fn encode(self) -> wit::Answer {
        match encode_parts(&self.headers, self.body) {
            Ok((arena, headers, body)) => {
                let outcome = wit::Outcome::Response(wit::Response { status: self.status, headers, body });
                wit::Answer { arena: arena.into_bytes(), outcome }
            }
            Err(problem) => Self::error(500, problem).encode(),
        }
    }
}

/// Headers and body in a new arena. An error is text for whoever wrote the cell; [`Response::error`] is
/// never one.
pub(crate) fn encode_parts(headers: &Headers, body: Body) -> Result<(Arena, wit::Span, wit::Body), String> {
    let lines = headers.checked()?;
    let elsewhere = body.elsewhere()?;
    let (mut arena, body) = match body.0 {
        Source::Owned(bytes) if bytes.len() > COPIED_BODY_BYTES_MAX => {
            Arena::starting_with(bytes, lines.len())
        }
        Source::Owned(_)
        | Source::Bytes(_)
        | Source::OfRequest
        | Source::OfInput(_)
        | Source::SeenInput(..)
        | Source::OfStep(_) => {
            let bytes = if elsewhere.is_none() { body.bytes() } else { &[] };
            let mut arena = Arena::with_capacity(lines.len() + bytes.len());
            let body = arena.push(bytes);
            (arena, body)
        }
    };
    let headers = arena.push(lines);
    Ok((arena, headers, elsewhere.unwrap_or(wit::Body::Bytes(body))))
}

/// What a handler can return as its response.
pub trait IntoResponse {
    /// The response.
    fn into_response(self) -> Response;
}

impl IntoResponse for Response {
    fn into_response(self) -> Response {
        self
    }
}

impl IntoResponse for String {
    fn into_response(self) -> Response {
        Response::text(self)
    }
}

impl IntoResponse for &'static str {
    fn into_response(self) -> Response {
        Response::text(self)
    }
}

impl IntoResponse for Vec<u8> {
    fn into_response(self) -> Response {
        Response::bytes(self)
    }
}

impl IntoResponse for Bytes {
    fn into_response(self) -> Response {
        Response::bytes(self)
    }
}

/// What a handler can return as its error: it becomes the response, and nothing that was put into the
/// context is run.
pub trait IntoErrorResponse {
    /// The response.
    fn into_error_response(self) -> Response;
}

impl IntoErrorResponse for Response {
    fn into_error_response(self) -> Response {
        self
    }
}

impl IntoErrorResponse for BadRequest {
    fn into_error_response(self) -> Response {
        Response::error(400, self)
    }
}

impl IntoErrorResponse for String {
    fn into_error_response(self) -> Response {
        Response::error(500, self)
    }
}

impl IntoErrorResponse for &str {
    fn into_error_response(self) -> Response {
        Response::error(500, self)
    }
}

impl IntoErrorResponse for Box<dyn std::error::Error> {
    fn into_error_response(self) -> Response {
        Response::error(500, self)
    }
}

/// So that `?` on [`Request::json`](crate::Request::json) works in a handler that returns `Result<_,
/// Response>`.
impl From<BadRequest> for Response {
    fn from(bad: BadRequest) -> Self {
        Self::error(400, bad)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encoded(response: Response) -> (u16, String, String) {
        let wit::Answer { arena, outcome } = response.encode();
        let wit::Outcome::Response(wit::Response { status, headers, body: wit::Body::Bytes(body) }) = outcome
        else {
            panic!("a response with bytes was expected");
        };
        let text = |span| String::from_utf8(crate::arena::part(&arena, span).to_vec()).unwrap();
        (status, text(headers), text(body))
    }

    /// Short and long bodies go different ways and arrive the same.
    #[test]
    fn bodies_of_any_length_arrive() {
        for len in [0, 1, COPIED_BODY_BYTES_MAX, COPIED_BODY_BYTES_MAX + 1, 100_000] {
            let (status, headers, body) = encoded(Response::text("x".repeat(len)));
            assert_eq!((status, headers.as_bytes(), body), (200, TEXT, "x".repeat(len)));
        }
    }

    /// A header that is none gives a 500 that names it: nothing is sent by halves.
    #[test]
    fn bad_header_is_a_500() {
        let (status, headers, body) =
            encoded(Response::text("x").header("x-name", "a\r\nb: c").header("y", "1"));
        assert_eq!((status, headers.as_bytes()), (500, JSON));
        assert!(body.contains("x-name"), "{body}");
    }

    /// Only calls can have another step's body, and the author is told.
    #[test]
    fn body_of_a_step_is_a_500() {
        let (status, _, body) = encoded(Response::new(200).body(Body::of_step("user")));
        assert_eq!((status, body.contains("only a call")), (500, true));
    }

    /// A body that is passed on does not enter the arena.
    #[test]
    fn request_body_is_named() {
        let answer = Response::new(200).body(Body::of_request()).encode();
        let wit::Outcome::Response(response) = answer.outcome else { panic!("a response was expected") };
        assert!(matches!(response.body, wit::Body::OfRequest) && answer.arena.is_empty());
    }
}
