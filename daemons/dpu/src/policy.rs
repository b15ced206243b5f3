//! Policy of one service (`[service.NAME]`): what is decided about a request before it is sent.
//!
//! ```text
//! client --> drain, head, route --.
//!                                 |--> admit: the checks below --> body --> dispatch --> answer --> give back
//! call of a cell --> relays_max --'            `--> refused
//! ```
//!
//! - The checks of [`Policy::admit`] come in a fixed order, cheap and final ones first; none of them waits, reads a body or
//!   hears of a worker.
//! - A [`Permit`] is what a request has taken. Whoever drops it gives that back, on every path.
//! - Decisions are functions of a request's head, the time and the state here: no clock and no I/O.
//! - A service without policy has no entry: it costs one look at an empty list. Calls of cells to a service with policy get
//!   no flow entry, so that each of them comes here.
//! - Not here: what is done when a request that was sent fails.

use std::collections::BTreeMap;
use std::rc::Rc;

use cellmesh_shm::clock::Nanos;
use cellmesh_shm::head::HeaderLines;
use cellmesh_shm::ids::ServiceId;
use cellmesh_shm::message::{RequestMessage, ResponseMessage};
use serde::Deserialize;

use crate::faults::Refusal;
use crate::routes::Routes;
use crate::units::TimeSpan;

/// `[service.NAME]`: policy of one service. Every key is optional; without any, nothing is decided.
#[derive(Debug, Clone, Default, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields, default)]
pub struct ServicePolicy {
    /// From a request's head to its answer; 504 after it. Shortens `dpu.request_timeout`, never lengthens it.
    pub timeout: Option<TimeSpan>,
}

/// A value of `[service.NAME]` that cannot work: the key, what was found, what would be right.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{key} = {found}: must be {right}")]
pub struct PolicyError {
    /// The key, without `service.NAME.`.
    pub key: &'static str,
    /// The value, as the file would write it.
    pub found: String,
    /// What would be right.
    pub right: String,
}

impl ServicePolicy {
    /// Everything that is wrong, at once; empty when the policy can be used.
    #[must_use]
    pub fn validate(&self) -> Vec<PolicyError> {
        let mut errors = Vec::new();
        if let Some(timeout) = self.timeout
            && !(TimeSpan::millis(1) <= timeout && timeout <= TimeSpan::secs(86_400))
        {
            let right = "from \"1ms\" to \"24h\"".to_owned();
            errors.push(PolicyError { key: "timeout", found: format!("\"{timeout}\""), right });
        }
        errors
    }

    /// Whether nothing is asked for: the service is then as one without a table.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// What is decided by: a request's head as the service would see it.
#[derive(Debug, Clone, Copy)]
#[expect(dead_code, reason = "checks that look at it follow")]
pub(crate) struct HeadView<'a> {
    /// Path and query.
    pub(crate) target: &'a [u8],
    pub(crate) headers: HeaderLines<'a>,
}

impl<'a> HeadView<'a> {
    pub(crate) fn of(message: &'a RequestMessage) -> Self {
        Self { target: message.target(), headers: message.headers() }
    }
}

/// The policies of a lane, by service.
#[derive(Debug, Default)]
pub(crate) struct Policies {
    /// Empty if there are none.
    by_service: Vec<Option<Rc<Policy>>>,
}

impl Policies {
    pub(crate) fn new(services: &BTreeMap<String, ServicePolicy>, routes: &Routes) -> Self {
        let of = |name: &str| services.get(name).filter(|settings| !settings.is_empty());
        let policies = routes.services().iter().map(|name| of(name.as_str()).map(Policy::new));
        let mut by_service: Vec<Option<Rc<Policy>>> = policies.collect();
        if by_service.iter().all(Option::is_none) {
            by_service.clear();
        }
        Self { by_service }
    }

    /// The policy of a service, if it has one. `service`: its place in [`Routes`].
    pub(crate) fn of(&self, service: ServiceId) -> Option<&Rc<Policy>> {
        self.by_service.get(usize::from(service.0))?.as_ref()
    }

    /// See [`Policy::admit`]; a service without policy takes everything.
    pub(crate) fn admit(
        &self,
        service: ServiceId,
        head: HeadView<'_>,
        now: Nanos,
    ) -> Result<Permit, Refusal> {
        self.of(service).map_or_else(|| Ok(Permit::default()), |policy| policy.admit(head, now))
    }
}

/// The policy of one service on one lane.
#[derive(Debug)]
pub(crate) struct Policy {
    settings: ServicePolicy,
}

impl Policy {
    fn new(settings: &ServicePolicy) -> Rc<Self> {
        Rc::new(Self { settings: settings.clone() })
    }

    /// Whether a request may go on.
    #[expect(clippy::unnecessary_wraps, reason = "checks follow")]
    fn admit(self: &Rc<Self>, _head: HeadView<'_>, _now: Nanos) -> Result<Permit, Refusal> {
        Ok(Permit { policy: Some(Rc::clone(self)) })
    }
}

/// A request that may go on, of a service with policy or without.
#[derive(Debug, Default)]
pub(crate) struct Permit {
    policy: Option<Rc<Policy>>,
}

impl Permit {
    /// The end of a request that would otherwise end at `deadline`.
    pub(crate) fn deadline(&self, now: Nanos, deadline: Nanos) -> Nanos {
        let timeout = self.policy.as_ref().and_then(|policy| policy.settings.timeout);
        timeout.map_or(deadline, |timeout| deadline.min(now.saturating_add(timeout.0)))
    }

    /// What the request becomes on its way out. Called once, when its body is there.
    #[expect(clippy::unused_self, reason = "what it does follows")]
    pub(crate) fn on_request(&self, _message: &mut RequestMessage) {}

    /// What the answer of the service becomes on its way back; what the mesh says instead stays as it is.
    #[expect(clippy::unused_self, reason = "what it does follows")]
    pub(crate) fn on_answer(&self, _message: &mut ResponseMessage) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policies(text: &str) -> Policies {
        let settings = serde_json::from_str(text).expect("policies");
        let services = ["s0", "s1"].map(|name| name.parse().expect("a name")).to_vec();
        Policies::new(&settings, &Routes::new(services, ServiceId(0)).expect("valid routes"))
    }

    fn permit(policies: &Policies, service: u16) -> Permit {
        let head = HeadView { target: b"/", headers: HeaderLines(b"") };
        policies.admit(ServiceId(service), head, Nanos(0)).expect("admitted")
    }

    /// A timeout shortens what there is and never lengthens it; other services are not concerned.
    #[test]
    fn timeout_shortens_the_deadline() {
        let policies = policies(r#"{"s1": {"timeout": "2ms"}}"#);
        let deadline = |service, limit| permit(&policies, service).deadline(Nanos(7), Nanos(limit));
        assert_eq!(deadline(1, 5_000_000), Nanos(2_000_007));
        assert_eq!(deadline(1, 1_000_000), Nanos(1_000_000));
        assert_eq!(deadline(0, 5_000_000), Nanos(5_000_000));
    }

    /// An empty table is no policy: calls of cells to the service may pass the DPU by.
    #[test]
    fn empty_policies_are_none() {
        assert!(policies(r#"{"s1": {}}"#).of(ServiceId(1)).is_none());
        assert!(policies(r#"{"s1": {"timeout": "1s"}}"#).of(ServiceId(1)).is_some());
    }

    /// A time of nothing is refused with what would be right.
    #[test]
    fn values_have_bounds() {
        let policy = ServicePolicy { timeout: Some(TimeSpan::millis(0)) };
        let errors: Vec<String> = policy.validate().iter().map(ToString::to_string).collect();
        assert_eq!(errors, ["timeout = \"0ms\": must be from \"1ms\" to \"24h\""]);
    }
}
