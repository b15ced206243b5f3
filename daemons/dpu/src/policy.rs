//! Policy of one service (`[service.NAME]`): what is decided about a request before it is sent.
//!
//! ```text
//! client --> drain, head, route --.
//!                                 |--> admit: the checks below --> body --> dispatch --> answer --> give back
//! call of a cell --> relays_max --'            `--> refused
//! ```
//!
//! - The checks of `Policy::admit` come in a fixed order: who asks, then how fast, then how many at once. None of them waits,
//!   reads a body or hears of a worker.
//! - A `Permit` is what a request has taken. Whoever drops it gives that back, on every path.
//! - Decisions are functions of the time and the state here: no clock and no I/O.
//! - A service without policy has no entry: it costs one look at an empty list. Calls of cells to a service with policy get
//!   no flow entry, so that each of them comes here.
//! - What is done when a request that was sent fails or is slow: `tries`, and the files beside it.

mod backoff;
pub mod breaker;
pub(crate) mod budget;
mod circuit;
mod headers;
pub mod hedge;
mod in_flight;
pub mod jwt;
mod rate;
pub mod retry;
mod split;
mod tries;

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use cellmesh_shm::clock::Nanos;
use cellmesh_shm::head::{HeadLimits, HeaderLines};
use cellmesh_shm::ids::ServiceId;
use cellmesh_shm::message::{Fault, RequestMessage, ResponseMessage};
use serde::Deserialize;

use self::breaker::BreakerPolicy;
pub use self::headers::HeaderRules;
use self::hedge::HedgePolicy;
use self::in_flight::{InFlight, Place};
use self::jwt::{Gate, JwtPolicy, TokenError};
use self::rate::Bucket;
pub use self::rate::Rate;
use self::retry::RetryPolicy;
use self::split::Split;
pub(crate) use self::tries::Tries;
pub use self::tries::TryCounts;
use crate::config::{ConfigError, Problems};
use crate::faults::Refusal;
use crate::forward::ERROR_HEADER;
use crate::routes::{Routes, ServiceName};
use crate::units::TimeSpan;

/// `[service.NAME]`: policy of one service. Every key is optional; without any, nothing is decided.
#[derive(Debug, Clone, Default, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields, default)]
pub struct ServicePolicy {
    /// From a request's head to its answer; 504 after it. Shortens `dpu.request_timeout`, never lengthens it.
    pub timeout: Option<TimeSpan>,
    /// Who may ask, and for what.
    pub jwt: Option<JwtPolicy>,
    /// Requests sent and not answered at once, of all lanes of the process together; more are answered 503 with `retry-after`.
    pub in_flight_max: Option<u32>,
    /// How fast requests may come, over all lanes of the process together; more are answered 429 with `retry-after`.
    pub rate: Option<Rate>,
    /// What is added to and removed from the headers of requests.
    pub headers: HeaderRules,
    /// The same for the headers of answers.
    pub response_headers: HeaderRules,
    /// Percent of the requests that go to another service instead, by its name. That service's own policy is not asked, but
    /// for its tries.
    pub split: BTreeMap<String, u8>,
    /// From a call to its answer; the call is given up after it, and may be tried again. Shortens `timeout`.
    pub try_timeout: Option<TimeSpan>,
    /// What is tried again.
    pub retry: Option<RetryPolicy>,
    /// When the service is left alone.
    pub breaker: Option<BreakerPolicy>,
    /// When a second call is made because the first is slow.
    pub hedge: Option<HedgePolicy>,
    /// What the lanes of the process count together. Not a key.
    #[serde(skip)]
    pub counts: NodeCounts,
}

/// What the lanes of a process count together for one service: clones of a policy share it. It is no setting, so all are
/// equal.
#[derive(Debug, Clone, Default)]
pub struct NodeCounts {
    in_flight: InFlight,
    bucket: Bucket,
    tries: tries::Shared,
}

impl PartialEq for NodeCounts {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for NodeCounts {}

impl ServicePolicy {
    /// Everything that is wrong, at once; empty when the policy can be used.
    #[must_use]
    pub fn validate(&self) -> Vec<ConfigError> {
        let mut problems = Problems::default();
        self.check_admission(&mut problems);
        self.check_tries(&mut problems);
        problems.found
    }

    fn check_admission(&self, problems: &mut Problems) {
        if let Some(timeout) = self.timeout {
            problems.check_time("timeout", timeout);
        }
        if let Some(jwt) = &self.jwt {
            jwt.check(problems);
        }
        if let Some(max) = self.in_flight_max {
            problems.check("in_flight_max", &max, max > 0, "at least 1");
        }
        if let Some(rate) = self.rate {
            let found = format!("{{ per_second = {}, burst = {} }}", rate.per_second, rate.burst);
            problems.check("rate", &found, rate.is_valid(), "per_second and burst from 1 to 1000000");
        }
        self.headers.check(["headers.add", "headers.remove"], problems);
        self.response_headers.check(["response_headers.add", "response_headers.remove"], problems);
        let shares = self.split.iter().map(|(name, share)| format!("{name} = {share}"));
        let found = format!("{{ {} }}", shares.collect::<Vec<_>>().join(", "));
        problems.check(
            "split",
            &found,
            split::is_whole(&self.split),
            "percents from 1, at most 100 together",
        );
    }

    fn check_tries(&self, problems: &mut Problems) {
        if let Some(try_timeout) = self.try_timeout {
            problems.check_time("try_timeout", try_timeout);
        }
        if let Some(retry) = &self.retry {
            retry.check(problems);
        }
        if let Some(breaker) = &self.breaker {
            breaker.check(problems);
        }
        if let Some(hedge) = &self.hedge {
            hedge.check(problems);
        }
    }

    /// Whether nothing is asked for: the service is then as one without a table.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// Why a policy refuses a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Denied {
    /// No token, or none that is good enough.
    Token(TokenError),
    /// They come too fast; says when the next may.
    Rate { wait: Duration },
    /// As many as may be are in flight.
    InFlight,
}

impl Denied {
    /// Its name in metrics.
    const REASONS: [&str; 4] = ["rate", "in-flight", "token", "claim"];

    /// Its place in [`Denied::REASONS`].
    fn reason(&self) -> usize {
        match self {
            Self::Rate { .. } => 0,
            Self::InFlight => 1,
            Self::Token(TokenError::Missing | TokenError::Invalid(_)) => 2,
            Self::Token(TokenError::Claim { .. }) => 3,
        }
    }
}

/// What a lane counts for the policy of one service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyStats {
    /// The service.
    pub service: String,
    /// Requests that were refused, ever: reason and count.
    pub refused: Vec<(&'static str, u64)>,
    /// Requests of this lane in flight that count for `in_flight_max`.
    pub in_flight: u64,
    /// How many all lanes together may have, if that is bounded.
    pub in_flight_max: Option<u32>,
    /// What became of its tries, if there is a policy for them.
    pub tries: Option<TryCounts>,
}

impl PolicyStats {
    /// Why one refuses, in one word for metrics each.
    pub const REASONS: [&'static str; 4] = Denied::REASONS;
}

/// What policies look at of a request's head.
#[derive(Debug, Clone, Copy)]
pub(crate) struct HeadView<'a> {
    /// Path and query.
    pub(crate) target: &'a [u8],
    pub(crate) headers: HeaderLines<'a>,
}

impl<'a> From<&'a RequestMessage> for HeadView<'a> {
    fn from(message: &'a RequestMessage) -> Self {
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
        Self::default().followed_by(services, routes)
    }

    /// Other policies of the same services, in the place of these. One that says the same stays, with all that it has counted
    /// and learned. Another goes on with the counters and with the requests in flight, and begins its tries anew.
    pub(crate) fn followed_by(&self, services: &BTreeMap<String, ServicePolicy>, routes: &Routes) -> Self {
        let known =
            |name: &ServiceName| self.by_service.iter().flatten().find(|policy| policy.service == *name);
        let policy = |name: &ServiceName| {
            let settings = services.get(name.as_str()).filter(|settings| !settings.is_empty())?;
            Some(match known(name) {
                Some(policy) if policy.settings == *settings => Rc::clone(policy),
                Some(policy) => policy.followed_by(settings, routes),
                None => Policy::new(name, settings, routes),
            })
        };
        let policies = routes.services().iter().map(policy);
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

    /// What was counted, of each service with policy.
    pub(crate) fn stats(&self) -> Vec<PolicyStats> {
        self.by_service.iter().flatten().map(|policy| policy.stats()).collect()
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
    service: ServiceName,
    settings: ServicePolicy,
    gate: Option<Gate>,
    split: Split,
    counted: Rc<Counted>,
    tries: Option<Rc<RefCell<Tries>>>,
}

/// What is counted for one service on one lane, whatever its policy is at the time.
#[derive(Debug, Default)]
struct Counted {
    refused: [Cell<u64>; Denied::REASONS.len()],
    in_flight: Cell<u64>,
}

impl Policy {
    fn new(service: &ServiceName, settings: &ServicePolicy, routes: &Routes) -> Rc<Self> {
        Rc::new(Self {
            service: service.clone(),
            settings: settings.clone(),
            gate: settings.jwt.as_ref().map(Gate::new),
            split: Split::new(&settings.split, routes),
            counted: Rc::default(),
            tries: Self::tries_of(settings),
        })
    }

    /// What is in flight counts for the new one too. All lanes have shared the count of the old one, so they go on sharing it.
    /// What its tries have learned stays while nothing that they go by is another.
    fn followed_by(&self, settings: &ServicePolicy, routes: &Routes) -> Rc<Self> {
        let mut settings = settings.clone();
        let old = &self.settings;
        settings.counts.in_flight = old.counts.in_flight.clone();
        if settings.rate == old.rate {
            settings.counts.bucket = old.counts.bucket.clone();
        }
        let is_same = Tries::go_by_the_same(old, &settings);
        let tries = if is_same { self.tries.clone() } else { Self::tries_of(&settings) };
        let split = Split::new(&settings.split, routes);
        let gate = settings.jwt.as_ref().map(Gate::new);
        let (service, counted) = (self.service.clone(), Rc::clone(&self.counted));
        Rc::new(Self { service, settings, gate, split, counted, tries })
    }

    fn tries_of(settings: &ServicePolicy) -> Option<Rc<RefCell<Tries>>> {
        Tries::new(settings).map(|tries| Rc::new(RefCell::new(tries)))
    }

    /// What is done when a call fails or is slow, if anything.
    pub(crate) fn tries(&self) -> Option<&RefCell<Tries>> {
        self.tries.as_deref()
    }

    /// Whether a request may go on. Its body is not needed for that.
    fn admit(self: &Rc<Self>, head: HeadView<'_>, now: Nanos) -> Result<Permit, Refusal> {
        let checked = self.check_token(head).and_then(|()| self.check_rate(now));
        checked.and_then(|()| self.check_room()).map_err(|denied| self.refusal(denied))?;
        Ok(Permit { policy: Some(Rc::clone(self)), place: None })
    }

    /// Before all that counts: who may not ask takes nothing away from those who may.
    fn check_token(&self, head: HeadView<'_>) -> Result<(), Denied> {
        let Some(gate) = &self.gate else { return Ok(()) };
        gate.admit(head.target, head.headers).map_err(Denied::Token)
    }

    fn check_rate(&self, now: Nanos) -> Result<(), Denied> {
        let Some(rate) = self.settings.rate else { return Ok(()) };
        self.settings.counts.bucket.take(rate, now).map_err(|wait| Denied::Rate { wait })
    }

    fn check_room(&self) -> Result<(), Denied> {
        let max = self.settings.in_flight_max;
        let has_room = max.is_none_or(|max| self.settings.counts.in_flight.has_room(max));
        if has_room { Ok(()) } else { Err(Denied::InFlight) }
    }

    fn refusal(&self, denied: Denied) -> Refusal {
        let count = &self.counted.refused[denied.reason()];
        count.set(count.get() + 1);
        Refusal::Denied { denied, service: self.service.to_string() }
    }

    fn stats(&self) -> PolicyStats {
        let refused = Denied::REASONS.iter().zip(&self.counted.refused);
        PolicyStats {
            service: self.service.to_string(),
            refused: refused.map(|(reason, count)| (*reason, count.get())).collect(),
            in_flight: self.counted.in_flight.get(),
            in_flight_max: self.settings.in_flight_max,
            tries: self.tries().map(|tries| tries.borrow().counts()),
        }
    }
}

/// A request that may go on, of a service with policy or without. What it has taken is given back when this is dropped.
#[derive(Debug, Default)]
pub(crate) struct Permit {
    policy: Option<Rc<Policy>>,
    place: Option<Place>,
}

impl Permit {
    /// The end of a request that would otherwise end at `deadline`.
    pub(crate) fn deadline(&self, now: Nanos, deadline: Nanos) -> Nanos {
        let timeout = self.policy.as_ref().and_then(|policy| policy.settings.timeout);
        timeout.map_or(deadline, |timeout| deadline.min(now.saturating_add(timeout.0)))
    }

    /// The request, whose body is there, is about to be sent: takes a place in flight, gives the message the headers that
    /// the service is to see, and says which service that is, by its place in [`Routes`]. Called once.
    /// # Errors
    /// A refusal if there is no place any more, or no room for what is added to the head.
    pub(crate) fn dispatch(&mut self, message: &mut RequestMessage) -> Result<(), Refusal> {
        let Some(policy) = &self.policy else { return Ok(()) };
        if let Some(max) = policy.settings.in_flight_max {
            let place = policy.settings.counts.in_flight.take(max);
            self.place = Some(place.ok_or_else(|| policy.refusal(Denied::InFlight))?);
            policy.counted.in_flight.set(policy.counted.in_flight.get() + 1);
        }
        rewrite(message, &policy.settings.headers)?;
        if !policy.split.is_empty() {
            message.service = policy.split.choose(fastrand::u32(..)).unwrap_or(message.service);
        }
        Ok(())
    }

    /// What the answer of the service becomes on its way back; what the mesh says instead stays as it is, and so does a head
    /// that is too large already, or would be then.
    pub(crate) fn on_answer(&self, message: &mut ResponseMessage) {
        let Some(rules) = self.policy.as_ref().map(|policy| &policy.settings.response_headers) else {
            return;
        };
        let is_good = |head: HeaderLines<'_>| head.check(HeadLimits::with_added()).is_ok();
        let is_ours = message.fault != Fault::None || message.headers().get(ERROR_HEADER).is_some();
        if is_ours || *rules == HeaderRules::default() || !is_good(message.headers()) {
            return;
        }
        let head = rules.apply(b"", message.headers());
        if is_good(HeaderLines(&head)) {
            message.head = head;
        } else {
            tracing::warn!(
                "response_headers of a policy do not fit the head of an answer, which goes without them"
            );
        }
    }
}

/// Gives a request the headers that the policy wants, for which there is room beside all that a client may send.
fn rewrite(message: &mut RequestMessage, rules: &HeaderRules) -> Result<(), Refusal> {
    if *rules == HeaderRules::default() {
        return Ok(());
    }
    let lines_at = usize::from(message.method_len) + usize::from(message.target_len);
    let before = message.head.get(..lines_at).ok_or(Refusal::HeadTooLarge)?;
    message.head = rules.apply(before, message.headers());
    message.headers().check(HeadLimits::with_added()).map_err(|_| Refusal::HeadTooLarge)
}

impl Drop for Permit {
    fn drop(&mut self) {
        if let (Some(policy), Some(_place)) = (&self.policy, &self.place) {
            policy.counted.in_flight.set(policy.counted.in_flight.get() - 1);
        }
    }
}

#[cfg(test)]
mod tests;
