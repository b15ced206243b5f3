//! Responses: what a cell or a graph came to, as a message that goes back. The one place where a failure
//! inside a cell becomes a status and a text.

use bytes::{Bytes, BytesMut};
use cellmesh_graph::{Engine, Response, StepKind};
use cellmesh_shm::head::{HeadError, HeadLimits, HeaderLines, is_hop_by_hop, is_tracing};
use cellmesh_shm::message::{Fault, RequestMessage, ResponseMessage};

use crate::host::{CellFault, Returned, ReturnedBody};

/// Statuses that a cell may answer with: 1xx are not final.
const STATUSES: std::ops::RangeInclusive<u16> = 200..=599;

const JSON: &[u8] = b"content-type: application/json\n";

/// What a client is told that there was no room for, as the network side tells those that it sheds.
const RETRY_AFTER: &[u8] = b"retry-after: 1\n";

/// A response of our own: `{"error": "..."}`, and the step where there is one.
pub(crate) fn error(status: u16, code: &str, text: &str, step: Option<&str>) -> ResponseMessage {
    let body = match step {
        Some(step) => serde_json::json!({ "error": text, "step": step }),
        None => serde_json::json!({ "error": text }),
    };
    let mut head = BytesMut::from(JSON);
    if !code.is_empty() {
        head.extend_from_slice(format!("x-cellmesh-error: {code}\n").as_bytes());
    }
    ResponseMessage { status, fault: Fault::None, head: head.freeze(), body: body.to_string().into() }
}

/// The answer that a handler gave by itself. `of_request`: the body of the request.
/// # Errors
/// How it breaks the contract.
pub(crate) fn of_handler(returned: Returned, of_request: &Bytes) -> Result<ResponseMessage, CellFault> {
    let body = match returned.body {
        ReturnedBody::Bytes(body) => body,
        ReturnedBody::OfRequest => of_request.clone(),
        ReturnedBody::OfInput(_) => {
            return Err(contract("response.body: of-input, but a handler has no inputs".into()));
        }
    };
    Ok(ResponseMessage { status: returned.status, fault: Fault::None, head: returned.headers, body })
}

fn contract(why: String) -> CellFault {
    CellFault::Contract(why)
}

/// The answer for one that broke the contract, fit to leave.
pub(crate) fn broken(fault: &CellFault, request: &RequestMessage) -> ResponseMessage {
    let response = error(fault.status(), &format!("cell-{}", fault.kind()), &fault.to_string(), None);
    finish(response, request).expect("it has a status and header lines of our own")
}

/// The answer for a handler that did not return.
pub(crate) fn handler_failed(service: &str, fault: &CellFault) -> ResponseMessage {
    let text = format!("cell {service}: handler: {fault}");
    let mut response = error(fault.status(), &format!("cell-{}", fault.kind()), &text, None);
    if matches!(fault, CellFault::Instance(_)) {
        response.head = [&response.head[..], RETRY_AFTER].concat().into();
    }
    response
}

/// The answer of a graph that has ended. An egress step's own answer passes through; a step that failed, tolerated or
/// not, and gave no body of its own is told with its name.
pub(crate) fn of_graph(response: Response, engine: &Engine) -> ResponseMessage {
    let result = response.result;
    match (response.step, result.error) {
        (Some(step), Some(text)) if result.body.is_empty() => {
            let code = if engine.kind(step) == StepKind::Egress { "egress" } else { "step" };
            error(result.status, code, &text, Some(engine.step_id(step)))
        }
        _ => ResponseMessage {
            status: result.status,
            fault: Fault::None,
            head: result.headers,
            body: result.body,
        },
    }
}

/// Makes `response` fit to leave: a status that is one, header lines that are some, none that belong to a single
/// connection, and the tracing headers of `request`.
/// # Errors
/// How it breaks the contract.
pub(crate) fn finish(
    response: ResponseMessage,
    request: &RequestMessage,
) -> Result<ResponseMessage, CellFault> {
    if response.fault != Fault::None {
        return Ok(response);
    }
    if !STATUSES.contains(&response.status) {
        let status = response.status;
        return Err(contract(format!("it answered with status {status}: must be from 200 to 599")));
    }
    let head = finish_head(response.head, HeaderLines(b""), request.headers());
    let head = head.map_err(|why| contract(format!("it answered with a bad header: {why}")))?;
    Ok(ResponseMessage { head, ..response })
}

/// Header lines of a message that a cell made, without those of a single connection, with the tracing headers of
/// `own`, and of `request`, that it does not have itself, as far as [`HeadLimits::with_added`] has room for them.
///
/// - cost: one look at each line; no copy when nothing has to be dropped or added.
/// # Errors
/// The first rule of heads that the cell broke.
pub(super) fn finish_head(
    head: Bytes,
    own: HeaderLines<'_>,
    request: HeaderLines<'_>,
) -> Result<Bytes, HeadError> {
    let limits = HeadLimits::with_added();
    let lines = HeaderLines(&head);
    let (mut count, mut drops, mut traces) = (0, false, false);
    for line in lines.checked(limits)? {
        let (name, _) = line?;
        count += 1;
        drops |= is_dropped(name);
        traces |= is_tracing(name);
    }
    let mut out = drops.then(|| {
        let mut kept = BytesMut::with_capacity(head.len() + TRACING_BYTES);
        let kept_lines = lines.bytes().filter(|(name, _)| !is_dropped(name));
        kept_lines.for_each(|(name, value)| push(&mut kept, name, value));
        kept
    });
    let passed_on = request.tracing().filter(|(name, _)| own.get(name).is_none());
    for (name, value) in own.tracing().chain(passed_on) {
        let so_far = out.as_ref().map_or(head.len(), BytesMut::len);
        let fits = count < limits.lines_max && so_far + line_len(name, value) <= limits.bytes_max;
        if fits && !(traces && lines.get(name).is_some()) {
            let out = out.get_or_insert_with(|| copied(&head));
            push(out, name, value);
            count += 1;
        }
    }
    Ok(out.map_or(head, BytesMut::freeze))
}

/// Room for what is usually added: a request id and a trace context.
const TRACING_BYTES: usize = 128;

fn copied(head: &[u8]) -> BytesMut {
    let mut copy = BytesMut::with_capacity(head.len() + TRACING_BYTES);
    copy.extend_from_slice(head);
    copy
}

/// The length is ours to say; the rest belongs to one connection.
fn is_dropped(name: &[u8]) -> bool {
    is_hop_by_hop(name) || name == b"content-length"
}

/// Bytes that [`push`] appends.
fn line_len(name: &[u8], value: &[u8]) -> usize {
    name.len() + b": ".len() + value.len() + b"\n".len()
}

fn push(out: &mut BytesMut, name: &[u8], value: &[u8]) {
    out.extend_from_slice(name);
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\n");
}

#[cfg(test)]
mod tests {
    use cellmesh_shm::clock::Nanos;
    use cellmesh_shm::ids::ServiceId;

    use super::*;

    fn request(headers: &str) -> RequestMessage {
        RequestMessage {
            service: ServiceId(0),
            deadline: Nanos::MAX,
            hops: 0,
            method_len: 3,
            target_len: 1,
            head: format!("GET/{headers}").into(),
            body: Bytes::new(),
        }
    }

    fn answer(status: u16, head: &'static str) -> ResponseMessage {
        ResponseMessage { status, fault: Fault::None, head: head.into(), body: Bytes::new() }
    }

    /// What belongs to one connection stays there; tracing goes on, unless the cell set it itself.
    #[test]
    fn heads_are_finished() {
        let cause = request("host: a\ntraceparent: 00-1\nx-request-id: 7\n");
        let given = answer(200, "content-length: 3\nconnection: close\nx-request-id: 8\nx: y\n");
        let response = finish(given, &cause).expect("a good answer");
        assert_eq!(&response.head[..], b"x-request-id: 8\nx: y\ntraceparent: 00-1\n");
    }

    /// A line of our own takes the place of the request's, and not of the cell's; what a cell sent is judged without it.
    #[test]
    fn own_lines_come_before_those_of_the_request() {
        let cause = request("traceparent: old\nx-request-id: 7\n");
        let own = HeaderLines(b"traceparent: own\n");
        let finished = |head: &'static str| finish_head(head.into(), own, cause.headers());
        let both = finished("x: y\n").expect("a good head");
        assert_eq!(&both[..], b"x: y\ntraceparent: own\nx-request-id: 7\n");
        let cells = finished("traceparent: cell\n").expect("a good head");
        assert_eq!(&cells[..], b"traceparent: cell\nx-request-id: 7\n");
        assert_eq!(finished("x: y"), Err(HeadError::NoLine { line: 1 }));
    }

    /// A head that needs nothing is passed on as it is, without a copy.
    #[test]
    fn plain_heads_are_not_copied() {
        let head = Bytes::from_static(b"content-type: text/plain\n");
        let finished =
            finish_head(head.clone(), HeaderLines(b""), request("host: a\n").headers()).expect("a good head");
        assert_eq!(finished.as_ptr(), head.as_ptr());
    }

    /// A status or header that no client could be sent is the cell's mistake, and is told as such.
    #[test]
    fn broken_answers_become_500() {
        let cause = request("x-request-id: 7\n");
        for (status, head) in [(101, ""), (42, ""), (600, ""), (200, "no header\n"), (200, "a: b\r\nc: d\n")]
        {
            let response = broken(&finish(answer(status, head), &cause).expect_err(head), &cause);
            assert_eq!(response.status, 500, "{status} {head:?}");
            let says = b"{\"error\":\"the cell broke its contract: it answered with";
            assert!(response.body.starts_with(says), "{:?}", response.body);
            assert_eq!(HeaderLines(&response.head).get("x-request-id"), Some(&b"7"[..]));
        }
    }

    /// A request that there is no instance for may be sent again; one that a cell failed may not help by that.
    #[test]
    fn want_of_room_is_no_failure_of_the_cell() {
        for (fault, status, retry_after) in [
            (CellFault::Instance("no descriptor is left".into()), 503, Some(&b"1"[..])),
            (CellFault::Trap("unreachable".into()), 500, None),
            (CellFault::Deadline, 504, None),
        ] {
            let response = handler_failed("shop", &fault);
            let said = HeaderLines(&response.head).get("retry-after");
            assert_eq!((response.status, said), (status, retry_after), "{fault}");
        }
    }
}
