//! Requests of a client in this process: all that a request over the network passes, but for the network.
//!
//! - The same order: received, admitted, given a place and counted bytes, called, ended; and the same books
//!   ([`super::DpuStats`]).
//! - Not here: what a client's bytes may look like (ingress). Who calls this has made the head himself.
//! - Not here either: the tries of a service's policy. Who calls this gets the outcome of one call.

use std::pin::Pin;
use std::task::{Context, Poll};

use cellmesh_shm::clock::Nanos;
use cellmesh_shm::message::{Fault, RequestMessage, ResponseMessage};

use super::{Call, Dpu, Received};
use crate::faults::{Reason, Refusal};
use crate::forward::Head;
use crate::policy::Permit;

/// A request that is on its way; ready with its answer. Dropping it cancels the request.
///
/// The answer always comes: of the service, or a fault at the latest soon after the deadline.
pub struct Request {
    call: Call,
    permit: Permit,
    received: Received,
}

impl Dpu {
    /// Sends a request of this process into the mesh.
    ///
    /// - `message`: its service is the place in this sidecar's [`crate::Routes`]; its head is taken as it is.
    /// - cost: that of one call through a port.
    /// # Errors
    /// The fault that says why it was not sent: [`Fault::Overloaded`] beyond a limit or in a drain,
    /// [`Fault::Unroutable`] without a link, [`Fault::NoWorker`] for a service that the DPA does not know,
    /// [`Fault::TooLarge`].
    pub fn request(&self, message: RequestMessage) -> Result<Request, Fault> {
        let mut received = self.receive();
        match self.send(&mut received, message) {
            Ok((call, permit)) => Ok(Request { call, permit, received }),
            Err(refusal) => {
                let fault = refusal.fault();
                received.refused(fault.status(), refusal.reason(), refusal.is_shed());
                Err(fault)
            }
        }
    }

    fn send(&self, received: &mut Received, mut message: RequestMessage) -> Result<(Call, Permit), Refusal> {
        received.routed(message.service, None, &head_of(&message));
        received.admit(false)?;
        let now = Nanos::now();
        let mut permit = received.settings().policies.admit(message.service, (&message).into(), now)?;
        message.deadline = permit.deadline(now, message.deadline);
        let limit = received.settings().config.body_bytes_max;
        if message.body.len() as u64 > limit.0 {
            return Err(Refusal::BodyTooLarge { limit });
        }
        received.hold(message.body.len())?;
        received.dispatch()?;
        permit.dispatch(&mut message)?;
        Ok((self.call(message)?, permit))
    }
}

/// As it is: who calls from here says itself what its request is a part of.
fn head_of(message: &RequestMessage) -> Head {
    let RequestMessage { method_len, target_len, ref head, .. } = *message;
    Head { bytes: head.clone(), method_len, target_len, begun: None }
}

impl Future for Request {
    type Output = ResponseMessage;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<ResponseMessage> {
        let mut answer = Pin::new(&mut self.call).poll(cx);
        if let Poll::Ready(message) = &mut answer {
            self.permit.on_answer(message);
            if message.fault == Fault::None {
                self.received.answered(message.status);
            } else {
                let fault = message.fault;
                self.received.refused(fault.status(), Reason::of(fault), fault.is_shed());
            }
        }
        answer
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bytes::Bytes;
    use cellmesh_shm::ids::ServiceId;

    use super::*;
    use crate::config::DpuConfig;
    use crate::routes::Routes;
    use crate::units::ByteSize;

    fn dpu(config: DpuConfig) -> Dpu {
        let services = vec!["s0".parse().expect("a name")];
        Dpu::new(Arc::new(Routes::new(services, ServiceId(0)).expect("valid routes")), config)
    }

    fn message(service: u16, body: Bytes) -> RequestMessage {
        RequestMessage {
            service: ServiceId(service),
            deadline: Nanos::MAX,
            hops: 0,
            method_len: 3,
            target_len: 1,
            head: Bytes::from_static(b"GET/"),
            body,
        }
    }

    /// A request that cannot be sent says why, and the books have it as refused.
    #[test]
    fn refusals_are_faults_and_counted() {
        let dpu = dpu(DpuConfig { body_bytes_max: ByteSize(8), ..DpuConfig::default() });
        let fault = |message| dpu.request(message).err();
        assert_eq!(fault(message(0, Bytes::new())), Some(Fault::Unroutable));
        assert_eq!(fault(message(0, Bytes::from_static(b"nine byte"))), Some(Fault::TooLarge));
        drop(dpu.drain());
        assert_eq!(fault(message(0, Bytes::new())), Some(Fault::Overloaded));
        let stats = dpu.stats();
        assert_eq!((stats.received, stats.refused, stats.in_flight, stats.buffered_bytes), (3, 3, 0, 0));
    }
}
