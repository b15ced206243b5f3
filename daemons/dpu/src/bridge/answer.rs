//! Answers of the JSON bridge.
//!
//! `{"req_id": uuid, "status": int, "headers": {name: text}, "body": text}`. Several lines of one header are
//! joined with `, `. What is not UTF-8 is replaced by U+FFFD.

use std::borrow::Cow;
use std::collections::BTreeMap;

use cellmesh_shm::head::{HeadLimits, HeaderLines};
use cellmesh_shm::message::ResponseMessage;
use serde::Serialize;

use crate::dpu::{Dpu, Received};
use crate::faults::Refusal;
use crate::forward::{ERROR_HEADER, goes_back};
use crate::origin::{Origin, REQUEST_ID};
use crate::request_id::ID_BYTES;

/// Room for what most answers have around their bodies, so that a long one is not moved while it is written.
const AROUND_BODY_BYTES: usize = 512;

#[derive(Serialize)]
struct Answer<'a> {
    req_id: &'a str,
    status: u16,
    headers: BTreeMap<&'a str, Cow<'a, str>>,
    body: Cow<'a, str>,
}

/// What a cell answered. The text, or why it cannot be sent.
pub(super) fn of_cell(dpu: &Dpu, message: &ResponseMessage) -> Result<Vec<u8>, String> {
    if !(200..=599).contains(&message.status) {
        return Err(format!("status {}: must be from 200 to 599", message.status));
    }
    let lines = HeaderLines(&message.head);
    lines.check(HeadLimits::with_added()).map_err(|error| error.to_string())?;
    let mut headers = BTreeMap::new();
    for (name, value) in lines.iter().filter(|(name, _)| goes_back(name)) {
        join(headers.entry(name).or_default(), value);
    }
    Ok(written(dpu, message.status, headers, String::from_utf8_lossy(&message.body)))
}

fn join<'a>(known: &mut Cow<'a, str>, value: &'a [u8]) {
    let value = String::from_utf8_lossy(value);
    if known.is_empty() {
        *known = value;
    } else {
        let joined = known.to_mut();
        joined.push_str(", ");
        joined.push_str(&value);
    }
}

/// What the mesh answers instead: status, and text. With the request's tracing headers, if it was routed; with an id in any case.
pub(super) fn of_refusal(dpu: &Dpu, received: &Received, refusal: &Refusal) -> (u16, Vec<u8>) {
    if let Refusal::BadResponse { service, why } = refusal {
        dpu.count_bad_response();
        let Origin { request_id, trace_id } = received.origin();
        tracing::warn!(%service, request_id, trace_id, %why, "a cell's answer cannot be sent as JSON");
    }
    let refused = refusal.describe();
    let mut headers = BTreeMap::from([
        ("content-type", Cow::Borrowed("application/json")),
        (ERROR_HEADER, Cow::Borrowed(refused.reason.word())),
    ]);
    headers.extend(refused.advice().map(|(name, value)| (name, Cow::Owned(value))));
    for (name, value) in received.lines().tracing() {
        if let Ok(name) = str::from_utf8(name) {
            join(headers.entry(name).or_default(), value);
        }
    }
    let mut id = [0; ID_BYTES];
    headers.entry(REQUEST_ID).or_insert_with(|| Cow::Borrowed(received.ids().next(&mut id)));
    let body = refused.body();
    (refused.status, written(dpu, refused.status, headers, String::from_utf8_lossy(&body)))
}

fn written(dpu: &Dpu, status: u16, headers: BTreeMap<&str, Cow<'_, str>>, body: Cow<'_, str>) -> Vec<u8> {
    let mut text = [0; ID_BYTES];
    let mut written = Vec::with_capacity(body.len() + AROUND_BODY_BYTES);
    let answer = Answer { req_id: dpu.ids().next(&mut text), status, headers, body };
    serde_json::to_writer(&mut written, &answer).expect("texts and numbers are always JSON");
    written
}
