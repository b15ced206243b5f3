//! The one place where a request that has no answer of a cell gets one.
//!
//! Whatever goes wrong on the way - in the client's bytes, in the mesh, in a cell's answer - becomes a
//! [`Refusal`], and a refusal becomes a status, a code for the header `x-cellmesh-error` and a
//! text here and nowhere else. HTTP and the JSON bridge only differ in how they write it down.

mod reason;

use std::time::Duration;

use bytes::Bytes;
use cellmesh_shm::message::{Fault, ResponseMessage};

pub use self::reason::Reason;
use crate::forward::ERROR_HEADER;
use crate::policy::Denied;
use crate::policy::jwt::TokenError;
use crate::routes::UnknownService;
use crate::units::ByteSize;

/// Seconds after which a client that was shed may try again: long enough for a burst to pass.
const RETRY_AFTER_S: u32 = 1;

/// Why a request gets no answer of a cell.
#[derive(Debug)]
pub(crate) enum Refusal {
    /// The client's bytes are no request that we take; says which rule they break.
    BadRequest(String),
    /// Longer than the limit.
    BodyTooLarge { limit: ByteSize },
    /// Of the JSON bridge, with its body in it.
    ObjectTooLarge { limit: ByteSize },
    /// Head longer than the limit, or too many lines.
    HeadTooLarge,
    /// Target longer than the limit.
    TargetTooLong { limit: ByteSize },
    /// A body that does not come.
    BodyTooSlow,
    /// A method or protocol that does not exist here.
    NotImplemented(&'static str),
    /// Named by the client, unknown here.
    UnknownService(UnknownService),
    /// A bound of this lane is reached; says which.
    Overloaded(&'static str),
    /// The process is about to stop.
    Draining,
    /// The ring to the DPA is closed.
    Detached,
    /// The policy of `service` says no.
    Denied { denied: Denied, service: String },
    /// Calls to `service` only failed: none is made for so long.
    CircuitOpen { service: String, after: Duration },
    /// The mesh gave up on the call to `service`.
    Mesh { fault: Fault, service: String },
    /// What the cell of `service` answered cannot be sent as HTTP; says why.
    BadResponse { service: String, why: String },
}

/// A refusal in the words of the protocols.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Refused {
    pub(crate) status: u16,
    /// Its word is the value of `x-cellmesh-error`: for programs.
    pub(crate) reason: Reason,
    /// For people. Names the service where one is to blame.
    pub(crate) text: String,
    /// Value of `retry-after`, where trying again can help.
    pub(crate) retry_after_s: Option<u32>,
    /// Value of `www-authenticate`, where a token can help. Source: RFC 6750, 3.
    pub(crate) authenticate: Option<String>,
    /// The connection cannot be used for another request.
    pub(crate) close: bool,
}

impl Refused {
    /// `{"error": "..."}`.
    pub(crate) fn body(&self) -> Bytes {
        Bytes::from(serde_json::json!({ "error": self.text }).to_string())
    }

    /// Headers that say what would help.
    pub(crate) fn advice(&self) -> impl Iterator<Item = (&'static str, String)> {
        let retry_after = self.retry_after_s.map(|seconds| ("retry-after", seconds.to_string()));
        let authenticate = self.authenticate.clone().map(|value| ("www-authenticate", value));
        retry_after.into_iter().chain(authenticate)
    }

    /// As an answer to a call of a cell.
    pub(crate) fn message(&self) -> ResponseMessage {
        let mut head = format!("content-type: application/json\n{ERROR_HEADER}: {}\n", self.reason.word());
        for (name, value) in self.advice() {
            head.push_str(&format!("{name}: {value}\n"));
        }
        ResponseMessage { status: self.status, fault: Fault::None, head: head.into(), body: self.body() }
    }
}

impl Refusal {
    /// Status, reason and text.
    pub(crate) fn describe(&self) -> Refused {
        let refused = |status, text: &str| refused(status, self.reason(), text.to_owned());
        match self {
            Self::BadRequest(why) => refused(400, why).closing(),
            Self::BodyTooLarge { limit } => {
                refused(413, &format!("the body is longer than {limit}")).closing()
            }
            Self::ObjectTooLarge { limit } => {
                refused(413, &format!("the JSON object is longer than {limit}")).closing()
            }
            Self::HeadTooLarge => refused(431, "the headers are too many or too long").closing(),
            Self::TargetTooLong { limit } => refused(414, &format!("path and query are longer than {limit}")),
            Self::BodyTooSlow => refused(408, "the body did not arrive in time").closing(),
            Self::NotImplemented(what) => refused(501, &format!("{what} is not supported")).closing(),
            Self::UnknownService(unknown) => refused(503, &unknown.to_string()),
            Self::Overloaded(what) => refused(503, &format!("too many {what}")).retrying(),
            Self::Draining => refused(503, "this server is stopping").retrying().closing(),
            Self::Detached => refused(503, "this server is not attached to its node").retrying(),
            Self::Denied { denied, service } => of_policy(denied, service),
            Self::CircuitOpen { service, after } => circuit_open(service, *after),
            Self::Mesh { fault, service } => of_mesh(*fault, service),
            Self::BadResponse { service, why } => {
                refused(502, &format!("service \"{service}\" answered what cannot be sent: {why}"))
            }
        }
    }

    /// Which of all reasons it is.
    pub(crate) fn reason(&self) -> Reason {
        match self {
            Self::BadRequest(_) => Reason::BadRequest,
            Self::BodyTooLarge { .. } | Self::ObjectTooLarge { .. } => Reason::BodyTooLarge,
            Self::HeadTooLarge => Reason::HeadTooLarge,
            Self::TargetTooLong { .. } => Reason::TargetTooLong,
            Self::BodyTooSlow => Reason::BodyTooSlow,
            Self::NotImplemented(_) => Reason::NotImplemented,
            Self::UnknownService(_) => Reason::UnknownService,
            Self::Overloaded(_) => Reason::Overloaded,
            Self::Draining => Reason::Draining,
            Self::Detached => Reason::Detached,
            Self::Denied { denied, .. } => of_denied(denied),
            Self::CircuitOpen { .. } => Reason::CircuitOpen,
            Self::Mesh { fault, .. } => Reason::of(*fault),
            Self::BadResponse { .. } => Reason::BadResponse,
        }
    }
}

fn of_denied(denied: &Denied) -> Reason {
    match denied {
        Denied::Rate { .. } => Reason::RateLimited,
        Denied::InFlight => Reason::Overloaded,
        Denied::Token(TokenError::Missing) => Reason::TokenMissing,
        Denied::Token(TokenError::Invalid(_)) => Reason::TokenInvalid,
        Denied::Token(TokenError::Claim { .. }) => Reason::TokenClaim,
    }
}

impl Refusal {
    /// Whether the request was refused before a cell or a host had it.
    pub(crate) fn is_shed(&self) -> bool {
        if let Self::Mesh { fault, .. } = self {
            return fault.is_shed();
        }
        !matches!(self, Self::BadResponse { .. })
    }

    /// The mesh's word for it, for a client in this process.
    pub(crate) fn fault(&self) -> Fault {
        match self {
            Self::Mesh { fault, .. } => *fault,
            Self::BodyTooLarge { .. }
            | Self::ObjectTooLarge { .. }
            | Self::HeadTooLarge
            | Self::TargetTooLong { .. } => Fault::TooLarge,
            Self::UnknownService(_) => Fault::NoWorker,
            Self::Overloaded(_) | Self::Draining | Self::Denied { .. } | Self::CircuitOpen { .. } => {
                Fault::Overloaded
            }
            Self::Detached => Fault::Unroutable,
            Self::BadRequest(_) | Self::BodyTooSlow | Self::NotImplemented(_) | Self::BadResponse { .. } => {
                Fault::Internal
            }
        }
    }
}

fn refused(status: u16, reason: Reason, text: String) -> Refused {
    Refused { status, reason, text, retry_after_s: None, authenticate: None, close: false }
}

impl Refused {
    fn closing(self) -> Self {
        Self { close: true, ..self }
    }

    fn retrying(self) -> Self {
        Self { retry_after_s: Some(RETRY_AFTER_S), ..self }
    }
}

fn of_policy(denied: &Denied, service: &str) -> Refused {
    match denied {
        Denied::Token(error) => of_token(error, service),
        Denied::Rate { wait } => Refused {
            retry_after_s: Some(whole_seconds(*wait)),
            ..refused(429, Reason::RateLimited, format!("requests of service \"{service}\" come too fast"))
        },
        Denied::InFlight => {
            refused(503, Reason::Overloaded, format!("too many requests of service \"{service}\" in flight"))
                .retrying()
        }
    }
}

fn of_token(error: &TokenError, service: &str) -> Refused {
    let (refused, says) = match error {
        TokenError::Missing => {
            let text = format!("service \"{service}\" wants a token: authorization: Bearer TOKEN");
            (refused(401, Reason::TokenMissing, text), "Bearer".to_owned())
        }
        TokenError::Invalid(why) => {
            let text = format!("service \"{service}\" does not take this token: {why}");
            let says = format!("Bearer error=\"invalid_token\", error_description=\"{why}\"");
            (refused(401, Reason::TokenInvalid, text), says)
        }
        TokenError::Claim { claim } => {
            let text = format!(
                "service \"{service}\" wants another value of the token's claim {claim} for this path"
            );
            (refused(403, Reason::TokenClaim, text), "Bearer error=\"insufficient_scope\"".to_owned())
        }
    };
    Refused { authenticate: Some(says), ..refused }
}

fn circuit_open(service: &str, after: Duration) -> Refused {
    let text = format!("service \"{service}\" has failed too often and is left alone for now");
    Refused { retry_after_s: Some(whole_seconds(after)), ..refused(503, Reason::CircuitOpen, text) }
}

/// Rounded up: who waits so long is let through.
fn whole_seconds(wait: Duration) -> u32 {
    u32::try_from(wait.as_millis().div_ceil(1000)).unwrap_or(u32::MAX).max(1)
}

fn of_mesh(fault: Fault, service: &str) -> Refused {
    let text = match fault {
        Fault::NoWorker => format!("no worker serves \"{service}\""),
        Fault::Deadline => format!("service \"{service}\" did not answer in time"),
        Fault::Overloaded => format!("too many requests in flight on the way to service \"{service}\""),
        Fault::WorkerLost => {
            format!("the worker that handled this request for service \"{service}\" is gone")
        }
        Fault::Unroutable => format!("no way leads to service \"{service}\""),
        Fault::HopLimit => format!("service \"{service}\" was reached through too many services"),
        Fault::TooLarge => format!("a message to or from service \"{service}\" is too large"),
        Fault::Cancelled => format!("the request to service \"{service}\" was cancelled"),
        Fault::None | Fault::Internal => format!("the mesh failed on the way to service \"{service}\""),
    };
    let described = refused(fault.status(), Reason::of(fault), text);
    if fault == Fault::Overloaded { described.retrying() } else { described }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mesh(fault: Fault) -> Refused {
        Refusal::Mesh { fault, service: "s1".to_owned() }.describe()
    }

    /// Every fault of the mesh has an error status, its own code and text, and names the service.
    #[test]
    fn faults_are_told_apart() {
        let faults = Fault::ALL.into_iter().filter(|fault| *fault != Fault::None);
        let mut codes = std::collections::HashSet::new();
        for refused in faults.map(mesh) {
            assert!((400..=599).contains(&refused.status), "{refused:?}");
            assert!(refused.text.contains("\"s1\""), "{refused:?}");
            assert!(codes.insert((refused.reason.word(), refused.text)));
        }
        assert_eq!(mesh(Fault::NoWorker).status, 503);
        assert_eq!(mesh(Fault::Deadline).status, 504);
        assert_eq!(mesh(Fault::WorkerLost).status, 502);
        assert_eq!(mesh(Fault::Overloaded).retry_after_s, Some(RETRY_AFTER_S));
    }

    /// Text of a client in an error cannot break out of its JSON.
    #[test]
    fn texts_are_escaped() {
        let unknown = UnknownService::named("a\"}\n\u{7}");
        let body = Refusal::UnknownService(unknown).describe().body();
        let read: serde_json::Value = serde_json::from_slice(&body).expect("JSON");
        assert_eq!(read["error"], "no service \"a\"}\n\u{7}\"");
    }
}
