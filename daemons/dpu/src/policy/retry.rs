//! Retries: which failures are tried again, how often, and how soon.
//!
//! - What was certainly not delivered may be tried again whatever its method. What may have been is tried again only if doing
//!   it twice is as good as once: by its method, or because config says so of the service.
//! - Each retry is paid for by a `Budget`; without it a service that is down would get twice its load.
//! - A retry never lengthens the request: one whose wait would last beyond the deadline is not made.
//! - Pure: time and randomness are passed in.

use std::fmt;
use std::time::Duration;

use cellmesh_shm::clock::Nanos;
use cellmesh_shm::message::RequestMessage;
use serde::Deserialize;
use serde::de::{Deserializer, Error as _, Unexpected, Visitor};

use super::Problems;
use super::backoff::Backoff;
use super::breaker::Verdict;
use super::budget::{Budget, Taken, Window};
use crate::units::{Ratio, TimeSpan};

/// More would only make a long failure longer.
const RETRIES_MOST: u32 = 10;

/// `retry` of `[service.NAME]`: what is tried again.
#[derive(Debug, Clone, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields, default)]
pub struct RetryPolicy {
    /// Tries of one request after the first.
    pub retries_max: u32,
    /// What is tried again.
    pub on: Vec<Trigger>,
    /// Retries, as a share of all requests of the last ten seconds, of all lanes of the process together.
    pub budget_ratio: Ratio,
    /// Retries that are allowed in any case, for each second of the last ten.
    pub budget_per_second_min: u32,
    /// Longest wait before the first retry; doubled for each one after it.
    pub backoff: TimeSpan,
    /// Longest wait before any retry.
    pub backoff_max: TimeSpan,
    /// Which requests may be tried again after they were sent.
    pub methods: Methods,
}

/// Which requests may be made twice.
#[derive(Debug, Clone, Copy, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub enum Methods {
    /// Those whose method says that twice is as good as once.
    #[default]
    Idempotent,
    /// All: whoever writes this says that the service can tell.
    All,
}

/// What is tried again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trigger {
    /// No worker serves it here, and no way leads elsewhere.
    NoWorker,
    /// A bound was reached on the way.
    Overloaded,
    /// No connection to another node.
    Connect,
    /// The worker died with it.
    WorkerLost,
    /// No answer within `try_timeout`.
    Timeout,
    /// The connection to another node broke.
    Reset,
    /// The service answered with this status.
    Status(u16),
}

/// What a try came to, as far as a policy cares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The callee's own answer, with its status.
    Answered(u16),
    /// One of the failures that can be named; never [`Trigger::Status`].
    Failed(Trigger),
    /// A failure that another try would not change: of the request, not of the callee.
    Final,
}

const NAMES: [(&str, Trigger); 6] = [
    ("no-worker", Trigger::NoWorker),
    ("overloaded", Trigger::Overloaded),
    ("connect", Trigger::Connect),
    ("worker-lost", Trigger::WorkerLost),
    ("timeout", Trigger::Timeout),
    ("reset", Trigger::Reset),
];

impl Default for RetryPolicy {
    fn default() -> Self {
        let named = NAMES.into_iter().map(|(_, trigger)| trigger);
        Self {
            retries_max: 1,
            on: named.chain([502, 503, 504].map(Trigger::Status)).collect(),
            budget_ratio: Ratio::thousandths(200),
            budget_per_second_min: 1,
            backoff: TimeSpan::millis(25),
            backoff_max: TimeSpan::millis(250),
            methods: Methods::default(),
        }
    }
}

impl RetryPolicy {
    pub(super) fn check(&self, problems: &mut Problems) {
        let count = self.retries_max;
        problems.check("retry.retries_max", &count, (1..=RETRIES_MOST).contains(&count), "from 1 to 10");
        problems.check_time("retry.backoff", self.backoff);
        problems.check_time("retry.backoff_max", self.backoff_max);
        let ordered = self.backoff <= self.backoff_max;
        problems.check_text("retry.backoff_max", self.backoff_max, ordered, "at least retry.backoff");
    }
}

impl Methods {
    /// Whether a request may be made twice.
    pub(crate) fn allow(self, message: &RequestMessage) -> bool {
        self == Self::All || message.is_idempotent()
    }
}

impl Outcome {
    /// Whether the callee may have begun with it.
    fn is_delivered(self) -> bool {
        !matches!(self, Self::Failed(Trigger::NoWorker | Trigger::Overloaded | Trigger::Connect))
    }

    /// What it says of the callee. That it has no worker, or that others fill the way to it, says nothing of its work.
    pub(crate) fn verdict(self) -> Verdict {
        match self {
            Self::Answered(500..) | Self::Failed(Trigger::Status(_)) => Verdict::Failure,
            Self::Answered(_) => Verdict::Success,
            Self::Failed(Trigger::Connect | Trigger::WorkerLost | Trigger::Timeout | Trigger::Reset) => {
                Verdict::Failure
            }
            Self::Failed(Trigger::NoWorker | Trigger::Overloaded) | Self::Final => Verdict::Nothing,
        }
    }

    fn trigger(self) -> Option<Trigger> {
        match self {
            Self::Answered(status) => Some(Trigger::Status(status)),
            Self::Failed(trigger) => Some(trigger),
            Self::Final => None,
        }
    }
}

/// Retries of one service.
#[derive(Debug)]
pub(crate) struct Retries {
    policy: RetryPolicy,
    budget: Budget,
    refused: u64,
}

/// A try that is to be made, and is paid for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Again {
    /// Until then.
    pub(crate) wait: Duration,
    /// Goes back to the budget if it is not made.
    pub(crate) paid: Taken,
}

/// A request whose try has failed, or not.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Tried<'m> {
    pub(crate) message: &'m RequestMessage,
    pub(crate) outcome: Outcome,
    /// Retries that it has had.
    pub(crate) retries: u32,
}

impl Retries {
    pub(super) fn new(policy: &RetryPolicy, window: Window) -> Self {
        let budget = Budget::new(policy.budget_ratio, policy.budget_per_second_min, window);
        Self { policy: policy.clone(), budget, refused: 0 }
    }

    /// A request has come.
    pub(crate) fn deposit(&mut self, now: Nanos) {
        self.budget.deposit(now);
    }

    /// Whether to try again. `random`: 64 random bits, asked for only if there is a wait.
    pub(crate) fn again(
        &mut self,
        tried: Tried<'_>,
        now: Nanos,
        random: impl FnOnce() -> u64,
    ) -> Option<Again> {
        let Tried { message, outcome, retries } = tried;
        let trigger = outcome.trigger()?;
        if retries >= self.policy.retries_max || !self.policy.on.contains(&trigger) {
            return None;
        }
        if outcome.is_delivered() && !self.policy.methods.allow(message) {
            return None;
        }
        let backoff = Backoff { base: self.policy.backoff.0, max: self.policy.backoff_max.0 };
        let wait = backoff.wait(retries, random());
        if wait >= message.deadline.saturating_since(now) {
            return None;
        }
        let paid = self.budget.withdraw(now);
        self.refused += u64::from(paid.is_none());
        Some(Again { wait, paid: paid? })
    }

    /// A try that was paid for is not made.
    pub(crate) fn give_back(&mut self, paid: Taken) {
        self.budget.give_back(paid);
    }

    /// Retries that the budget has refused, ever.
    pub(crate) fn refused(&self) -> u64 {
        self.refused
    }
}

impl<'de> Deserialize<'de> for Trigger {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(TriggerVisitor).map_err(D::Error::custom)
    }
}

struct TriggerVisitor;

impl Visitor<'_> for TriggerVisitor {
    type Value = Trigger;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = NAMES.map(|(name, _)| format!("\"{name}\"")).join(", ");
        write!(f, "{names} or a status from 400 to 599")
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Trigger, E> {
        let known = NAMES.iter().find(|(name, _)| *name == text).map(|(_, trigger)| *trigger);
        known.ok_or_else(|| E::invalid_value(Unexpected::Str(text), &self))
    }

    fn visit_u64<E: serde::de::Error>(self, number: u64) -> Result<Trigger, E> {
        let status = u16::try_from(number).ok().filter(|status| (400..=599).contains(status));
        status.map(Trigger::Status).ok_or_else(|| E::invalid_value(Unexpected::Unsigned(number), &self))
    }

    fn visit_i64<E: serde::de::Error>(self, number: i64) -> Result<Trigger, E> {
        match u64::try_from(number) {
            Ok(number) => self.visit_u64(number),
            Err(_) => Err(E::invalid_value(Unexpected::Signed(number), &self)),
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use cellmesh_shm::ids::ServiceId;
    use proptest::prelude::*;

    use super::*;

    const DEADLINE: Nanos = Nanos(1_000_000_000);

    fn message(method: &'static str) -> RequestMessage {
        RequestMessage {
            service: ServiceId(0),
            deadline: DEADLINE,
            hops: 0,
            method_len: u16::try_from(method.len()).expect("a short word"),
            target_len: 0,
            head: Bytes::from_static(method.as_bytes()),
            body: Bytes::new(),
        }
    }

    fn is_tried_again(policy: &RetryPolicy, method: &'static str, outcome: Outcome) -> bool {
        let tried = Tried { message: &message(method), outcome, retries: 0 };
        Retries::new(policy, Window::default()).again(tried, Nanos(0), || 0).is_some()
    }

    /// POST is tried again only where it was certainly not delivered, or where config says that it is safe.
    #[test]
    fn sent_requests_are_repeated_only_if_that_is_safe() {
        let all = RetryPolicy { methods: Methods::All, ..RetryPolicy::default() };
        let check = |outcome, unsafe_too: bool| {
            assert!(is_tried_again(&RetryPolicy::default(), "GET", outcome), "{outcome:?}");
            assert_eq!(is_tried_again(&RetryPolicy::default(), "POST", outcome), unsafe_too, "{outcome:?}");
            assert!(is_tried_again(&all, "POST", outcome), "{outcome:?}");
        };
        for trigger in [Trigger::NoWorker, Trigger::Overloaded, Trigger::Connect] {
            check(Outcome::Failed(trigger), true);
        }
        for trigger in [Trigger::WorkerLost, Trigger::Timeout, Trigger::Reset] {
            check(Outcome::Failed(trigger), false);
        }
        check(Outcome::Answered(503), false);
    }

    /// Only what is named is tried again.
    #[test]
    fn other_failures_are_final() {
        let policy: RetryPolicy = serde_json::from_str(r#"{"on": ["timeout", 429]}"#).expect("a policy");
        let is_tried_again = |outcome| is_tried_again(&policy, "GET", outcome);
        assert!(is_tried_again(Outcome::Failed(Trigger::Timeout)));
        assert!(is_tried_again(Outcome::Answered(429)));
        for outcome in [
            Outcome::Answered(200),
            Outcome::Answered(503),
            Outcome::Failed(Trigger::WorkerLost),
            Outcome::Final,
        ] {
            assert!(!is_tried_again(outcome), "{outcome:?}");
        }
    }

    /// A name or a status that does not exist is refused, with those that do.
    #[test]
    fn unknown_triggers_are_refused() {
        for text in [r#"{"on": ["tiemout"]}"#, r#"{"on": [99]}"#, r#"{"on": [-1]}"#, r#"{"on": [true]}"#] {
            let error = serde_json::from_str::<RetryPolicy>(text).unwrap_err().to_string();
            assert!(error.contains("\"timeout\"") && error.contains("from 400 to 599"), "{error}");
        }
    }

    /// What the budget does not pay for is not tried, and counted.
    #[test]
    fn budget_is_kept() {
        let policy = RetryPolicy { budget_per_second_min: 0, ..RetryPolicy::default() };
        let mut retries = Retries::new(&policy, Window::default());
        let get = message("GET");
        let tried = Tried { message: &get, outcome: Outcome::Answered(503), retries: 0 };
        (0..10).for_each(|_| retries.deposit(Nanos(0)));
        let made = (0..10).filter(|_| retries.again(tried, Nanos(0), || 0).is_some()).count();
        assert_eq!((made, retries.refused()), (2, 8));
    }

    /// What was paid for and is not made can be had again.
    #[test]
    fn retries_that_are_not_made_cost_nothing() {
        let policy = RetryPolicy { budget_per_second_min: 0, ..RetryPolicy::default() };
        let mut retries = Retries::new(&policy, Window::default());
        let get = message("GET");
        let tried = Tried { message: &get, outcome: Outcome::Answered(503), retries: 0 };
        (0..5).for_each(|_| retries.deposit(Nanos(0)));
        for _ in 0..3 {
            let again = retries.again(tried, Nanos(0), || 0).expect("one of five");
            assert_eq!(retries.again(tried, Nanos(0), || 0), None);
            retries.give_back(again.paid);
        }
    }

    proptest! {
        /// No retry begins at the deadline or after it, and none is one too many.
        #[test]
        fn deadline_and_count_are_kept(now: u64, random: u64, retries in 0..4_u32) {
            let policy = RetryPolicy { retries_max: 2, ..RetryPolicy::default() };
            let get = message("GET");
            let tried = Tried { message: &get, outcome: Outcome::Answered(503), retries };
            if let Some(again) = Retries::new(&policy, Window::default()).again(tried, Nanos(now), || random) {
                prop_assert!(Nanos(now).saturating_add(again.wait) < DEADLINE);
                prop_assert!(retries < 2);
            }
        }
    }
}
