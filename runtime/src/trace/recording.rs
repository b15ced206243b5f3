//! Recording: the bytes of one request and of all that came of its steps, to run it again.
//!
//! - Only where config asks for it, and only so many bytes: a request with more is kept without them.
//! - Bytes are shared with the request while it runs; as a file they are text where they are text, else base64.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use cellmesh_graph::{BodySource, BuiltRequests, Plan, StepIndex, StepResult};
use cellmesh_shm::head::HeaderLines;
use cellmesh_shm::message::{RequestMessage, ResponseMessage};
use serde::{Deserialize, Serialize};

use super::record::{PlanShape, id_of, text_of};

/// What a request did so far, in the order in which it was done.
#[derive(Debug)]
pub(super) struct Tape {
    deeds: Vec<(StepIndex, Deed)>,
    bytes_left: usize,
    is_full: bool,
}

#[derive(Debug)]
enum Deed {
    Sent(Sent),
    Answered(StepResult),
    Returned(StepResult),
    Built(Result<Vec<Sent>, Box<str>>),
}

/// A request to another service, as the cell wants it sent.
#[derive(Debug, Clone)]
pub(crate) struct Sent {
    pub(crate) method: Bytes,
    pub(crate) url: Bytes,
    pub(crate) headers: Bytes,
    pub(crate) body: Bytes,
}

/// A request that can be run again. As a file: JSON.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Recording {
    /// The form of the file.
    pub cellmesh_recording: u32,
    /// Whose request it was.
    pub service: String,
    /// The request.
    pub request: Message,
    /// What was done for it.
    pub course: Course,
}

/// The form that this program reads and writes.
pub const FORM: u32 = 1;

/// What a cell did with a request.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Course {
    /// Its graph; none if the handler answered by itself.
    pub plan: Option<PlanShape>,
    /// What came of its steps, in the order in which it came.
    pub steps: Vec<StepCourse>,
    /// The response.
    pub response: Message,
}

/// What came of a step, or of one of its requests.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StepCourse {
    /// The id of the step.
    pub step: String,
    /// What it was.
    #[serde(flatten)]
    pub deed: StepDeed,
}

/// What a step did.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StepDeed {
    /// A request went to another service.
    Sent(Message),
    /// Its answer came.
    Answered(Message),
    /// An internal step returned.
    Returned(Message),
    /// A builder made these requests.
    Built(Vec<Message>),
    /// A builder failed.
    Refused(String),
}

/// A request, a response or a step result. What a kind does not have is not there.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Message {
    /// Of a request: its method.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub method: Option<String>,
    /// Of a request: its target or URL.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// Of an answer: its status.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// Of a step result: why it is an error.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Names and values.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub headers: Vec<(String, String)>,
    /// The body, if it is text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body: Option<String>,
    /// The body, if it is not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body_base64: Option<String>,
}

impl Tape {
    /// With room for so many bytes of `message` and what comes of it. None: the message alone has more.
    pub(super) fn of(message: &RequestMessage, bytes_max: usize) -> Option<Self> {
        let bytes_left = bytes_max.checked_sub(message.head.len() + message.body.len())?;
        Some(Self { deeds: Vec::new(), bytes_left, is_full: false })
    }

    pub(super) fn sent(&mut self, step: StepIndex, sent: &Sent) {
        self.put(step, sent.len(), || Deed::Sent(sent.clone()));
    }

    pub(super) fn answered(&mut self, step: StepIndex, result: &StepResult) {
        self.put(step, len_of(result), || Deed::Answered(result.clone()));
    }

    pub(super) fn returned(&mut self, step: StepIndex, result: &StepResult) {
        self.put(step, len_of(result), || Deed::Returned(result.clone()));
    }

    pub(super) fn built(&mut self, step: StepIndex, built: &Result<BuiltRequests, Box<str>>) {
        let len = built.as_ref().map_or(0, len_of_built);
        self.put(step, len, || Deed::Built(built.as_ref().map(requests_of).map_err(Clone::clone)));
    }

    fn put(&mut self, step: StepIndex, len: usize, deed: impl FnOnce() -> Deed) {
        // Each counts, also one without bytes.
        let cost = len + size_of::<Deed>();
        match self.bytes_left.checked_sub(cost) {
            Some(left) if !self.is_full => {
                self.bytes_left = left;
                self.deeds.push((step, deed()));
            }
            _ => self.is_full = true,
        }
    }

    /// All of it. None: it had no room for all.
    pub(super) fn finish(
        self,
        service: &str,
        message: &RequestMessage,
        plan: Option<&Plan>,
        response: &ResponseMessage,
    ) -> Option<Recording> {
        let plan_len = plan.map_or(0, PlanShape::len_of_whole);
        if self.is_full || plan_len + response.head.len() + response.body.len() > self.bytes_left {
            return None;
        }
        let id = |step: StepIndex| plan.map_or_else(String::new, |plan| id_of(plan, step.0).into());
        let steps =
            self.deeds.into_iter().map(|(step, deed)| StepCourse { step: id(step), deed: deed.into() });
        Some(Recording {
            cellmesh_recording: FORM,
            service: service.to_owned(),
            request: Message::of_request(message),
            course: Course {
                steps: steps.collect(),
                plan: plan.map(PlanShape::whole),
                response: Message::of_response(response),
            },
        })
    }
}

/// About the bytes of requests that a builder made; spans of these may overlap, too.
pub(crate) fn len_of_built(built: &BuiltRequests) -> usize {
    let span = |span: cellmesh_graph::Span| span.range_in(built.arena.len()).map_or(0, |range| range.len());
    let of_request = |request: &cellmesh_graph::EgressRequest| {
        let body = if let BodySource::Bytes(body) = request.body { span(body) } else { 0 };
        size_of::<Sent>() + span(request.method) + span(request.url) + span(request.headers) + body
    };
    built.requests.iter().map(of_request).sum()
}

/// Bytes of a step result.
pub(crate) fn len_of(result: &StepResult) -> usize {
    result.headers.len() + result.body.len() + result.error.as_ref().map_or(0, |error| error.len())
}

fn requests_of(built: &BuiltRequests) -> Vec<Sent> {
    let bytes = |span: cellmesh_graph::Span| {
        span.range_in(built.arena.len()).map_or_else(Bytes::new, |range| built.arena.slice(range))
    };
    let sent = |request: &cellmesh_graph::EgressRequest| Sent {
        method: bytes(request.method),
        url: bytes(request.url),
        headers: bytes(request.headers),
        body: match request.body {
            BodySource::Bytes(span) => bytes(span),
            BodySource::OfRequest => Bytes::from_static(b"(the body of the request)"),
            BodySource::OfInput(index) => format!("(the body of input {index})").into(),
        },
    };
    built.requests.iter().map(sent).collect()
}

impl Sent {
    pub(crate) fn len(&self) -> usize {
        self.method.len() + self.url.len() + self.headers.len() + self.body.len()
    }
}

impl From<Deed> for StepDeed {
    fn from(deed: Deed) -> Self {
        match deed {
            Deed::Sent(sent) => Self::Sent(Message::of_sent(&sent)),
            Deed::Answered(result) => Self::Answered(Message::of_result(&result)),
            Deed::Returned(result) => Self::Returned(Message::of_result(&result)),
            Deed::Built(Ok(requests)) => Self::Built(requests.iter().map(Message::of_sent).collect()),
            Deed::Built(Err(why)) => Self::Refused(why.into()),
        }
    }
}

impl Message {
    fn of_request(message: &RequestMessage) -> Self {
        let (method, url) = (Some(text_of(message.method())), Some(text_of(message.target())));
        Self { method, url, headers: lines(message.headers()), ..Self::of_body(&message.body) }
    }

    /// A request as a cell wants it sent.
    pub(crate) fn of_sent(sent: &Sent) -> Self {
        let (method, url) = (Some(text_of(&sent.method)), Some(text_of(&sent.url)));
        Self { method, url, headers: lines(HeaderLines(&sent.headers)), ..Self::of_body(&sent.body) }
    }

    /// A response as it leaves.
    pub(crate) fn of_response(response: &ResponseMessage) -> Self {
        let headers = lines(HeaderLines(&response.head));
        Self { status: Some(response.status), headers, ..Self::of_body(&response.body) }
    }

    /// What a step came to.
    pub(crate) fn of_result(result: &StepResult) -> Self {
        Self {
            status: Some(result.status),
            error: result.error.as_deref().map(Into::into),
            headers: lines(HeaderLines(&result.headers)),
            ..Self::of_body(&result.body)
        }
    }

    /// The requests that a builder made.
    pub(crate) fn of_built(built: &BuiltRequests) -> Vec<Self> {
        requests_of(built).iter().map(Self::of_sent).collect()
    }

    fn of_body(body: &Bytes) -> Self {
        match std::str::from_utf8(body) {
            Ok("") => Self::default(),
            Ok(text) => Self { body: Some(text.to_owned()), ..Self::default() },
            Err(_) => Self { body_base64: Some(BASE64_STANDARD.encode(body)), ..Self::default() },
        }
    }

    /// The bytes of the body.
    ///
    /// # Errors
    /// It is no base64.
    pub fn body_bytes(&self) -> Result<Bytes, String> {
        match (&self.body, &self.body_base64) {
            (Some(text), _) => Ok(text.clone().into()),
            (None, Some(base64)) => {
                let bytes = BASE64_STANDARD.decode(base64);
                bytes.map(Bytes::from).map_err(|error| format!("body_base64: {error}"))
            }
            (None, None) => Ok(Bytes::new()),
        }
    }

    /// Header lines as the mesh has them.
    #[must_use]
    pub fn header_lines(&self) -> Bytes {
        self.headers.iter().map(|(name, value)| format!("{name}: {value}\n")).collect::<String>().into()
    }

    /// The step result that it is.
    ///
    /// # Errors
    /// As [`Message::body_bytes`].
    pub fn result(&self) -> Result<StepResult, String> {
        Ok(StepResult {
            status: self.status.unwrap_or(200),
            error: self.error.as_deref().map(Into::into),
            headers: self.header_lines(),
            body: self.body_bytes()?,
        })
    }
}

fn lines(headers: HeaderLines<'_>) -> Vec<(String, String)> {
    headers.iter().map(|(name, value)| (name.to_owned(), text_of(value))).collect()
}

#[cfg(test)]
mod tests {
    use cellmesh_graph::{EgressRequest, Span};

    use super::*;

    /// Spans of built requests are those that the cell gave, not validated: what lies outside is nothing.
    #[test]
    fn spans_outside_count_nothing() {
        let [inside, outside] = [Span { start: 0, len: 4 }, Span { start: 1, len: u32::MAX }];
        let request =
            |url| EgressRequest { method: inside, url, headers: inside, body: BodySource::OfRequest };
        let built = |url| BuiltRequests { requests: vec![request(url)], arena: "http".into() };
        assert_eq!(len_of_built(&built(outside)) + 4, len_of_built(&built(inside)));
        assert_eq!(requests_of(&built(outside))[0].url, "");
    }
}
