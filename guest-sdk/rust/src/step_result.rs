//! Results of steps: what a step gives back, and what a later step sees of it.

use std::fmt::Display;

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::arena::share;
use crate::bindings::cellmesh::cell::types as wit;
use crate::body::{Body, Source};
use crate::headers::{HeaderLines, Headers};
use crate::response::{BINARY, JSON, Response, TEXT, encode_parts};

/// The result of an earlier step without its body, which then never enters the cell.
#[derive(Debug, Clone)]
pub struct Head {
    id: Bytes,
    status: u16,
    /// Why the step failed, if it did.
    error: Option<Bytes>,
    headers: Headers,
}

impl Head {
    fn new(status: u16, headers: Headers) -> Self {
        Self { id: Bytes::new(), status, error: None, headers }
    }

    pub(crate) fn received(input: &wit::StepInput, arena: &Bytes) -> Self {
        Self {
            id: share(arena, input.id),
            status: input.status,
            error: input.failed.then(|| share(arena, input.error)),
            headers: Headers::received(share(arena, input.headers)),
        }
    }

    /// The step's id in its graph; empty in a result that this cell is making.
    pub fn id(&self) -> &str {
        std::str::from_utf8(&self.id).unwrap_or_default()
    }

    /// The status: of a callee's answer, or what an internal step gave.
    pub fn status(&self) -> u16 {
        self.status
    }

    /// Whether the step was an error, which only reaches another step where it was
    /// [tolerant](crate::Step::tolerant).
    pub fn is_failed(&self) -> bool {
        self.error.is_some()
    }

    /// Why the step failed; empty where it did not.
    pub fn error(&self) -> &str {
        std::str::from_utf8(self.error.as_deref().unwrap_or_default())
            .unwrap_or("the error text is not UTF-8")
    }

    /// No error and a status from 200 to 399.
    pub fn is_ok(&self) -> bool {
        !self.is_failed() && (200..400).contains(&self.status)
    }

    /// All headers.
    pub fn headers(&self) -> HeaderLines<'_> {
        self.headers.as_lines()
    }

    /// The first value of a header, in any case; none also where the value is not UTF-8.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers().text(name)
    }
}

/// The result of a step.
///
/// A step that takes it as an input sees the earlier step's; a step that returns it gives it as its own,
/// whatever its status: only [`fail`](Self::fail) makes the step an error.
#[derive(Debug, Clone)]
pub struct StepResult {
    head: Head,
    body: Body,
}

impl StepResult {
    /// An empty result with a status from 200 to 599.
    pub fn new(status: u16) -> Self {
        Self { head: Head::new(status, Headers::default()), body: Body::default() }
    }

    /// 200 with text.
    pub fn text(text: impl Into<Body>) -> Self {
        Self { head: Head::new(200, Headers::fixed(TEXT)), body: text.into() }
    }

    /// 200 with bytes.
    pub fn bytes(bytes: impl Into<Body>) -> Self {
        Self { head: Head::new(200, Headers::fixed(BINARY)), body: bytes.into() }
    }

    /// 200 with `value` as JSON. A value that JSON cannot hold makes the step an error that says so.
    pub fn json<T: Serialize + ?Sized>(value: &T) -> Self {
        match serde_json::to_vec(value) {
            Ok(json) => Self { head: Head::new(200, Headers::fixed(JSON)), body: json.into() },
            Err(error) => Self::fail(500, format!("the result cannot be written as JSON: {error}")),
        }
    }

    /// A result that is an error: it ends an `order`, and becomes the response unless a step that comes
    /// later is there to see it.
    pub fn fail(status: u16, text: impl Into<String>) -> Self {
        let mut head = Head::new(status, Headers::default());
        head.error = Some(text.into().into());
        Self { head, body: Body::default() }
    }

    /// With this status.
    #[must_use]
    pub fn with_status(mut self, status: u16) -> Self {
        self.head.status = status;
        self
    }

    /// With this one value for a header.
    #[must_use]
    pub fn with_header(mut self, name: &str, value: impl AsRef<[u8]>) -> Self {
        self.head.headers.set(name, value.as_ref());
        self
    }

    /// With this body, for example [that of an input](Body::of_input).
    #[must_use]
    pub fn with_body(mut self, body: impl Into<Body>) -> Self {
        self.body = body.into();
        self
    }

    /// The `index`th input of the step that is running.
    pub(crate) fn received(index: u32, input: &wit::StepInput, arena: &Bytes) -> Self {
        let body = match input.body {
            Some(span) => Source::SeenInput(index, share(arena, span)),
            None => Source::OfInput(index),
        };
        Self { head: Head::received(input, arena), body: Body(body) }
    }

    /// All but the body.
    pub fn head(&self) -> &Head {
        &self.head
    }

    /// See [`Head::id`].
    pub fn id(&self) -> &str {
        self.head.id()
    }

    /// See [`Head::status`].
    pub fn status(&self) -> u16 {
        self.head.status
    }

    /// See [`Head::is_failed`].
    pub fn is_failed(&self) -> bool {
        self.head.is_failed()
    }

    /// See [`Head::error`].
    pub fn error(&self) -> &str {
        self.head.error()
    }

    /// See [`Head::is_ok`].
    pub fn is_ok(&self) -> bool {
        self.head.is_ok()
    }

    /// See [`Head::header`].
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.header(name)
    }

    /// The body.
    pub fn body(&self) -> &[u8] {
        self.body.bytes()
    }

    /// The body read as JSON.
    ///
    /// # Errors
    /// What is wrong with it, with the step's id.
    pub fn read_json<T: DeserializeOwned>(&self) -> Result<T, String> {
        serde_json::from_slice(self.body())
            .map_err(|error| format!("result of `{}`: not the JSON expected: {error}", self.id()))
    }

    /// The body as text.
    ///
    /// # Errors
    /// That it is not UTF-8, with the step's id.
    pub fn read_text(&self) -> Result<&str, String> {
        std::str::from_utf8(self.body()).map_err(|error| format!("result of `{}`: {error}", self.id()))
    }

    /// The body's bytes, shared with the buffer that they came in.
    pub(crate) fn into_bytes(self) -> Bytes {
        match self.body.0 {
            Source::Owned(bytes) => bytes.into(),
            Source::Bytes(bytes) | Source::SeenInput(_, bytes) => bytes,
            Source::OfRequest | Source::OfInput(_) | Source::OfStep(_) => Bytes::new(),
        }
    }

    /// What was sent with [`encode`](Self::encode).
    #[cfg(not(target_arch = "wasm32"))]
    pub(crate) fn sent(output: wit::StepOutput) -> Self {
        let wit::StepOutput { arena, result } = output;
        let arena = Bytes::from(arena);
        let body = match result.body {
            wit::Body::Bytes(span) => Source::Bytes(share(&arena, span)),
            wit::Body::OfRequest => Source::OfRequest,
            wit::Body::OfInput(input) => Source::OfInput(input),
        };
        let mut head = Head::new(result.status, Headers::received(share(&arena, result.headers)));
        head.error = result.failed.then(|| share(&arena, result.error));
        Self { head, body: Body(body) }
    }

    /// What `run-step` returns.
    pub(crate) fn encode(self) -> wit::StepOutput {
        let Head { status, error, headers, .. } = self.head;
        match encode_parts(&headers, self.body) {
            Ok((mut arena, headers, body)) => {
                let failed = error.is_some();
                let error = arena.push(&error.unwrap_or_default());
                let result = wit::StepResult { status, failed, error, headers, body };
                wit::StepOutput { arena: arena.into_bytes(), result }
            }
            Err(problem) => Self::fail(500, problem).encode(),
        }
    }
}

/// A value that travels as a JSON body.
///
/// - As a step's input: the body of an earlier result, read as JSON; what is not the JSON expected fails
///   the step.
/// - As a step's or handler's return value: a body with `content-type: application/json`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Json<T>(pub T);

impl<T: Serialize> crate::response::IntoResponse for Json<T> {
    fn into_response(self) -> Response {
        Response::json(&self.0)
    }
}

/// What a step can return.
pub trait IntoStepResult {
    /// The step's result.
    fn into_step_result(self) -> StepResult;
}

/// As it is.
impl IntoStepResult for StepResult {
    fn into_step_result(self) -> StepResult {
        self
    }
}

/// 200 with an empty body.
impl IntoStepResult for () {
    fn into_step_result(self) -> StepResult {
        StepResult::new(200)
    }
}

impl IntoStepResult for String {
    fn into_step_result(self) -> StepResult {
        StepResult::text(self)
    }
}

impl IntoStepResult for &'static str {
    fn into_step_result(self) -> StepResult {
        StepResult::text(self)
    }
}

impl IntoStepResult for Vec<u8> {
    fn into_step_result(self) -> StepResult {
        StepResult::bytes(self)
    }
}

impl IntoStepResult for Bytes {
    fn into_step_result(self) -> StepResult {
        StepResult::bytes(self)
    }
}

impl<T: Serialize> IntoStepResult for Json<T> {
    fn into_step_result(self) -> StepResult {
        StepResult::json(&self.0)
    }
}

/// Status, headers and body of a response.
impl IntoStepResult for Response {
    fn into_step_result(self) -> StepResult {
        let (status, headers, body) = self.into_parts();
        StepResult { head: Head::new(status, headers), body }
    }
}

/// `Err(e)` makes the step an error with status 500 and the text of `e`.
impl<T: IntoStepResult, E: Display> IntoStepResult for Result<T, E> {
    fn into_step_result(self) -> StepResult {
        match self {
            Ok(value) => value.into_step_result(),
            Err(error) => StepResult::fail(500, error.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(result: impl IntoStepResult) -> (u16, bool, String, Option<String>, String) {
        let result = result.into_step_result();
        let body = String::from_utf8(result.body().to_vec()).unwrap();
        let content_type = result.header("content-type").map(str::to_owned);
        (result.status(), result.is_failed(), result.error().to_owned(), content_type, body)
    }

    /// Each kind of return value becomes the result that the contract's users were promised.
    #[test]
    fn return_values_become_results() {
        let text = Some("text/plain; charset=utf-8".to_owned());
        let json = Some("application/json".to_owned());
        let binary = Some("application/octet-stream".to_owned());
        assert_eq!(parts(()), (200, false, String::new(), None, String::new()));
        assert_eq!(parts("a"), (200, false, String::new(), text.clone(), "a".to_owned()));
        assert_eq!(parts("a".to_owned()), (200, false, String::new(), text, "a".to_owned()));
        assert_eq!(parts(b"a".to_vec()), (200, false, String::new(), binary, "a".to_owned()));
        assert_eq!(parts(Json([1])), (200, false, String::new(), json.clone(), "[1]".to_owned()));
        assert_eq!(parts(Ok::<_, String>(Json([1]))), (200, false, String::new(), json, "[1]".to_owned()));
        assert_eq!(parts(Err::<(), _>("no")), (500, true, "no".to_owned(), None, String::new()));
        assert_eq!(parts(StepResult::new(500)), (500, false, String::new(), None, String::new()));
        assert_eq!(parts(StepResult::fail(404, "gone")), (404, true, "gone".to_owned(), None, String::new()));
    }

    /// An error's text travels beside status and body.
    #[test]
    fn failure_is_encoded_with_its_text() {
        let output = StepResult::fail(409, "taken").with_body("details").encode();
        let text = |span| crate::arena::part(&output.arena, span);
        let wit::Body::Bytes(body) = output.result.body else { panic!("bytes were expected") };
        assert_eq!((output.result.status, output.result.failed), (409, true));
        assert_eq!((text(output.result.error), text(body)), (&b"taken"[..], &b"details"[..]));
    }

    /// JSON that cannot be written is an error of the step, not a trap.
    #[test]
    fn impossible_json_is_an_error() {
        let map = std::collections::HashMap::from([(vec![1], 1)]);
        assert!(Json(map).into_step_result().error().contains("key must be a string"));
    }
}
