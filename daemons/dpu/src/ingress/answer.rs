//! Answers in HTTP: a cell's, and the mesh's own.

use bytes::Bytes;
use cellmesh_shm::head::{HeadLimits, HeaderLines, is_tracing};
use cellmesh_shm::message::{Fault, ResponseMessage};
use http::header::{CONNECTION, CONTENT_LENGTH, CONTENT_TYPE};
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode, Uri, Version};

use super::reply_body::ReplyBody;
use crate::dpu::{Dpu, Received};
use crate::faults::{Refusal, Refused};
use crate::forward::{ERROR_HEADER, goes_back};
use crate::origin::{Origin, REQUEST_ID};
use crate::request_id::ID_BYTES;

/// A response with all of its body.
pub(super) type Answer = Response<ReplyBody>;

/// What the cell of `service` answered.
///
/// - cost: names of well-known headers and all values are not copied.
/// # Errors
/// [`Refusal::Mesh`] if it is a fault; [`Refusal::BadResponse`] if HTTP cannot say it; [`Refusal::Overloaded`] if clients
/// have not taken too many bytes of answers already.
pub(super) fn of_cell(
    received: &Received,
    mut message: ResponseMessage,
    service: &str,
) -> Result<Answer, Refusal> {
    if message.fault != Fault::None {
        return Err(Refusal::Mesh { fault: message.fault, service: service.to_owned() });
    }
    let bad = |why| Refusal::BadResponse { service: service.to_owned(), why };
    let status = final_status(message.status).map_err(bad)?;
    let body = if has_body(status) { std::mem::take(&mut message.body) } else { Bytes::new() };
    let held = received.hold_answer(body.len())?;
    written(&message, status, ReplyBody::counted(body, held)).map_err(bad)
}

fn written(message: &ResponseMessage, status: StatusCode, body: ReplyBody) -> Result<Answer, String> {
    let mut answer = Response::new(body);
    *answer.status_mut() = status;
    let lines = HeaderLines(&message.head).checked(HeadLimits::with_added());
    for line in lines.map_err(|error| error.to_string())? {
        let (name, value) = line.map_err(|error| error.to_string())?;
        if !goes_back(name) {
            continue;
        }
        let bad = |what: &str| format!("the {what} of header \"{}\" is not allowed", name.escape_ascii());
        let shared = HeaderValue::from_maybe_shared(message.head.slice_ref(value));
        let value = shared.map_err(|_| bad("value"))?;
        answer.headers_mut().append(header_name(name).ok_or_else(|| bad("name"))?, value);
    }
    Ok(answer)
}

/// - cost: those that nearly every answer has are known.
fn header_name(name: &[u8]) -> Option<HeaderName> {
    const REQUEST_ID_NAME: HeaderName = HeaderName::from_static(REQUEST_ID);
    match name {
        b"content-type" => Some(CONTENT_TYPE),
        _ if name == REQUEST_ID.as_bytes() => Some(REQUEST_ID_NAME),
        _ => HeaderName::from_bytes(name).ok(),
    }
}

/// Forgets what of a request's head goes on in a copy: it shares the buffer that it was read into, which the parser reads what
/// comes next into once nobody else has it.
pub(super) fn forget_copied(request: &mut Parts) {
    request.headers = HeaderMap::new();
    request.uri = Uri::default();
}

/// The answer as its request allows it: over HTTP/2 hyper sends whatever body there is, over HTTP/1 it knows HEAD itself.
pub(super) fn fit(answer: Answer, request: &Parts) -> Answer {
    if request.method != Method::HEAD || request.version != Version::HTTP_2 {
        return answer;
    }
    let (mut head, body) = answer.into_parts();
    if body.len() > 0 {
        head.headers.insert(CONTENT_LENGTH, HeaderValue::from(body.len()));
    }
    Response::from_parts(head, ReplyBody::short(Bytes::new()))
}

/// The answer as the last one of its connection. HTTP/2 has no such header; its connections end by themselves.
pub(super) fn the_last(mut answer: Answer, request: &Parts) -> Answer {
    if request.version != Version::HTTP_2 {
        answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    answer
}

/// Source: RFC 9110, 15.3.5, 15.3.6 and 15.4.5.
fn has_body(status: StatusCode) -> bool {
    !matches!(status, StatusCode::NO_CONTENT | StatusCode::RESET_CONTENT | StatusCode::NOT_MODIFIED)
}

/// Interim and made-up statuses cannot end a request.
fn final_status(status: u16) -> Result<StatusCode, String> {
    let known = StatusCode::from_u16(status).ok().filter(|_| (200..=599).contains(&status));
    known.ok_or_else(|| format!("status {status}: must be from 200 to 599"))
}

/// What the mesh answers instead, with the request's tracing headers: as they came, or went on if it was routed. One that came
/// without an id and was not routed gets one here.
pub(super) fn of_refusal(dpu: &Dpu, received: &Received, refusal: &Refusal, request: &Parts) -> Answer {
    if let Refusal::BadResponse { service, why } = refusal {
        dpu.count_bad_response();
        let Origin { request_id, trace_id } = received.origin();
        tracing::warn!(%service, request_id, trace_id, %why, "a cell's answer cannot be sent as HTTP");
    }
    let refused = refusal.describe();
    let mut answer = written_refusal(&refused);
    if refused.close {
        answer = the_last(answer, request);
    }
    for (name, value) in request.headers.iter().filter(|(name, _)| is_tracing(name.as_str())) {
        answer.headers_mut().append(name, value.clone());
    }
    for (name, value) in received.lines().tracing() {
        if let (Some(name), Ok(value)) = (header_name(name), HeaderValue::from_bytes(value)) {
            answer.headers_mut().append(name, value);
        }
    }
    if !answer.headers().contains_key(REQUEST_ID) {
        let mut text = [0; ID_BYTES];
        let id = HeaderValue::from_str(received.ids().next(&mut text)).expect("digits and hyphens");
        answer.headers_mut().insert(REQUEST_ID, id);
    }
    answer
}

fn written_refusal(refused: &Refused) -> Answer {
    let mut answer = Response::new(ReplyBody::short(refused.body()));
    *answer.status_mut() = StatusCode::from_u16(refused.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(ERROR_HEADER, HeaderValue::from_static(refused.reason.word()));
    for (name, value) in refused.advice() {
        // Whatever is said there is of our own words; what is not goes without.
        if let Ok(value) = HeaderValue::from_maybe_shared(Bytes::from(value)) {
            headers.insert(name, value);
        }
    }
    answer
}
