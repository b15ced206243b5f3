//! The JSON bridge: one JSON object in, one JSON object out, over a bare TCP connection.
//!
//! ```text
//! client: {"method":"GET","path":"/s1"}                    complete when its last brace has come
//! we:     {"req_id":"...","status":200,"headers":{...},"body":"..."}      then the connection closes
//! ```
//!
//! - Objects that have arrived while one was answered are answered too, in order; then the
//!   connection closes, also under a client that would keep it open. Part of an object counts as arrived:
//!   it has its time to become whole.
//! - A client may shut its sending side and still gets its answer. So one that is gone is only noticed
//!   when the answer cannot be sent.
//! - A body in an answer that is not UTF-8 has its bad bytes replaced by U+FFFD: the format has
//!   no other way. Clients that need the bytes use HTTP.

mod answer;
mod inbox;
mod request;
mod scanner;

use bytes::Bytes;
use cellmesh_shm::message::{Fault, RequestMessage};
use tokio::io::AsyncWriteExt;

use self::inbox::Inbox;
use crate::dpu::{Dpu, HeldAnswer, Received};
use crate::faults::Refusal;
use crate::forward::Peer;
use crate::ingress::Client;

/// Serves a connection whose first byte is an object's.
pub(crate) async fn serve(dpu: &Dpu, mut io: Client) {
    let mut inbox = Inbox::new(&dpu.settings().config);
    let standing = io.standing();
    loop {
        let mut received = dpu.receive();
        let object = match received.admit(standing.is_in_time()) {
            Ok(()) => inbox.next(&mut io, &mut received).await,
            Err(refusal) => Err(refusal),
        };
        let last = object.is_err();
        let (answer, held) = answer(dpu, &mut received, object, standing.peer()).await;
        // From here on only its bytes count: how slowly they are taken is no business of other clients.
        drop(received);
        let is_sent = io.write_all(&answer).await.is_ok() && io.flush().await.is_ok();
        drop(held);
        if !is_sent || last || !inbox.has_more(&mut io) {
            break;
        }
    }
    if let Err(error) = io.shutdown().await {
        tracing::debug!(%error, "a JSON client left before its answer");
    }
}

/// The text to send, and what keeps its bytes counted; a refusal is short.
async fn answer(
    dpu: &Dpu,
    received: &mut Received,
    object: Result<Bytes, Refusal>,
    peer: &Peer,
) -> (Vec<u8>, Option<HeldAnswer>) {
    let outcome = match object {
        Ok(object) => call(dpu, received, &object, peer).await,
        Err(refusal) => Err(refusal),
    };
    let held = outcome.and_then(|(status, text)| Ok((status, received.hold_answer(text.capacity())?, text)));
    match held {
        Ok((status, held, text)) => {
            received.answered(status);
            (text, Some(held))
        }
        Err(refusal) => {
            let (status, text) = answer::of_refusal(dpu, received, &refusal);
            received.refused(status, refusal.reason(), refusal.is_shed());
            (text, None)
        }
    }
}

/// The answer's status, and its text.
async fn call(
    dpu: &Dpu,
    received: &mut Received,
    object: &[u8],
    peer: &Peer,
) -> Result<(u16, Vec<u8>), Refusal> {
    let request::Asked { service, route, head, body } = request::read(received, object, peer)?;
    received.routed(service, Some(route), &head);
    let (mut permit, deadline) = received.settings().admit(service, &head)?;
    received.dispatch()?;
    let mut message = RequestMessage {
        service,
        deadline,
        hops: 0,
        method_len: head.method_len,
        target_len: head.target_len,
        head: head.bytes,
        body,
    };
    permit.dispatch(&mut message)?;
    let service = message.service;
    let mut message = dpu.exchange(received.settings(), message).await?;
    permit.on_answer(&mut message);
    let name = received.settings().routes.name(service).expect("the route came from this table").as_str();
    if message.fault != Fault::None {
        return Err(Refusal::Mesh { fault: message.fault, service: name.to_owned() });
    }
    let text = answer::of_cell(dpu, &message);
    let text = text.map_err(|why| Refusal::BadResponse { service: name.to_owned(), why })?;
    Ok((message.status, text))
}
