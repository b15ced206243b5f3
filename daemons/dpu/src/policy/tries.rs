//! Tries: what the policy of a service says of a request that was let in, until it has its answer.
//!
//! ```text
//! begin --> admit --> the call --> settle --> again? --no--> answer
//!             ^          |  slow: hedge          |
//!             '----------'-----------------------' yes, after a wait
//! ```
//!
//! - The parts know nothing of each other: [`Circuit`] (may a call be made), [`Latencies`] (is it slow), [`Retries`] (is it
//!   made once more). Each is there only if config asks for it.
//! - Circuits and budgets are those of all lanes of the process together ([`Shared`]), everything else is a lane's own.
//! - Pure: time and randomness are passed in. Not here: making the calls ([`crate::dpu`]).

use std::time::Duration;

use cellmesh_shm::clock::Nanos;
use cellmesh_shm::message::RequestMessage;

use super::ServicePolicy;
use super::breaker::{BreakerPolicy, BreakerState, Pass, Turn, Verdict};
use super::budget::{Budget, Taken, Window};
use super::circuit::Circuit;
use super::hedge::{HedgePolicy, Latencies};
use super::retry::{Again, Retries, Tried};
use crate::origin::REQUEST_ID;

/// The tries of one service on one lane.
#[derive(Debug)]
pub(crate) struct Tries {
    try_timeout: Option<Duration>,
    /// Of the whole request.
    timeout: Option<Duration>,
    retries: Option<Retries>,
    breaker: Option<(BreakerPolicy, Circuit)>,
    hedges: Option<Hedges>,
    counts: TryCounts,
}

#[derive(Debug)]
struct Hedges {
    policy: HedgePolicy,
    latencies: Latencies,
    budget: Budget,
}

/// What the tries of all lanes of the process share. Clones are the same.
#[derive(Debug, Clone, Default)]
pub(super) struct Shared {
    circuit: Circuit,
    retried: Window,
    hedged: Window,
}

/// What became of the tries of one service on one lane since its start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TryCounts {
    /// Calls made once more because one had failed.
    pub retries: u64,
    /// Retries that the budget has refused.
    pub retries_refused: u64,
    /// Times that the circuit opened with the end of a call of this lane.
    pub circuit_openings: u64,
    /// Requests that were answered at once because it was open.
    pub circuit_refused: u64,
    /// Where the circuit is now: that of all lanes.
    pub circuit: BreakerState,
    /// Second calls made because the first was slow.
    pub hedges: u64,
    /// Of these, those whose answer came first.
    pub hedges_won: u64,
}

impl Tries {
    /// None if the policy says nothing of tries.
    pub(crate) fn new(policy: &ServicePolicy) -> Option<Self> {
        let ServicePolicy { retry, breaker, hedge, try_timeout, timeout, counts, .. } = policy;
        if retry.is_none() && breaker.is_none() && hedge.is_none() && try_timeout.is_none() {
            return None;
        }
        let Shared { circuit, retried, hedged } = counts.tries.clone();
        Some(Self {
            try_timeout: try_timeout.map(|span| span.0),
            timeout: timeout.map(|span| span.0),
            retries: retry.as_ref().map(|policy| Retries::new(policy, retried)),
            breaker: breaker.map(|policy| (policy, circuit)),
            hedges: hedge.map(|policy| Hedges::new(policy, hedged)),
            counts: TryCounts::default(),
        })
    }

    /// Whether both policies say the same of everything that tries go by.
    pub(crate) fn go_by_the_same(one: &ServicePolicy, other: &ServicePolicy) -> bool {
        let parts = |policy: &ServicePolicy| {
            let ServicePolicy { retry, breaker, hedge, try_timeout, timeout, .. } = policy.clone();
            (retry, breaker, hedge, try_timeout, timeout)
        };
        parts(one) == parts(other)
    }

    /// A request has come.
    pub(crate) fn begin(&mut self, now: Nanos) {
        if let Some(retries) = &mut self.retries {
            retries.deposit(now);
        }
        if let Some(hedges) = &mut self.hedges {
            hedges.budget.deposit(now);
        }
    }

    /// Leave for a call that sends `message`, or how long the circuit stays open. The pass comes back by [`Tries::settle`].
    pub(crate) fn admit(&self, message: &RequestMessage, now: Nanos) -> Result<Pass, Duration> {
        let Some((_, circuit)) = &self.breaker else { return Ok(Pass::default()) };
        circuit.admit_of(now, message.hops > 0, || message.headers().get(REQUEST_ID))
    }

    /// A call has ended: the circuit may have turned with it.
    pub(crate) fn settle(&mut self, pass: &Pass, verdict: Verdict, now: Nanos) -> Option<Turn> {
        let (policy, circuit) = self.breaker.as_ref()?;
        let turn = circuit.settle(*policy, pass, verdict, now);
        let has_opened = matches!(turn, Some(Turn::Opened | Turn::OpenedAgain));
        self.counts.circuit_openings += u64::from(has_opened);
        turn
    }

    /// When a call that begins now has to end.
    pub(crate) fn deadline_of_try(&self, now: Nanos, deadline: Nanos) -> Nanos {
        self.try_timeout.map_or(deadline, |span| deadline.min(now.saturating_add(span)))
    }

    /// What the policy leaves a call of a request that has just come.
    pub(crate) fn allowance(&self) -> Option<Duration> {
        self.try_timeout.into_iter().chain(self.timeout).min()
    }

    /// Whether to call once more. `random`: 64 random bits, asked for only if there is a wait.
    pub(crate) fn again(
        &mut self,
        tried: Tried<'_>,
        now: Nanos,
        random: impl FnOnce() -> u64,
    ) -> Option<Again> {
        self.retries.as_mut()?.again(tried, now, random)
    }

    /// What was paid for a call that is not made.
    pub(crate) fn give_back(&mut self, paid: Taken) {
        if let Some(retries) = &mut self.retries {
            retries.give_back(paid);
        }
    }

    /// Whether it is decided here what is done when a worker dies.
    pub(crate) fn decides_retries(&self) -> bool {
        self.retries.is_some()
    }

    /// A call has been made once more.
    pub(crate) fn count_retry(&mut self) {
        self.counts.retries += 1;
    }

    /// A request has been answered because the circuit is open.
    pub(crate) fn count_circuit_refused(&mut self) {
        self.counts.circuit_refused += 1;
    }

    /// How long to wait for an answer to `message` before a second call is worth asking for.
    pub(crate) fn slow_after(&self, message: &RequestMessage) -> Option<Duration> {
        let hedges = self.hedges.as_ref().filter(|hedges| hedges.policy.methods.allow(message))?;
        hedges.latencies.slow_after()
    }

    /// Leave for a second call that sends `message`, if the budget has one left and the circuit lets it through.
    pub(crate) fn hedge(&mut self, message: &RequestMessage, now: Nanos) -> Option<Pass> {
        // In this order: a call that is not made must not be one that asks.
        let paid = self.hedges.as_mut()?.budget.withdraw(now)?;
        let Ok(pass) = self.admit(message, now) else {
            self.hedges.as_mut()?.budget.give_back(paid);
            return None;
        };
        self.counts.hedges += 1;
        Some(pass)
    }

    /// The second call's answer came first. `first_took`: how long the first one had been waited for.
    pub(crate) fn hedge_won(&mut self, first_took: Duration) {
        self.counts.hedges_won += 1;
        self.took(first_took);
    }

    /// A call had its answer after this, or would have had it later.
    pub(crate) fn took(&mut self, latency: Duration) {
        if let Some(hedges) = &mut self.hedges {
            hedges.latencies.record(latency);
        }
    }

    /// The counters now.
    pub(crate) fn counts(&self) -> TryCounts {
        let circuit = self.breaker.as_ref().map(|(_, circuit)| circuit.state());
        TryCounts {
            retries_refused: self.retries.as_ref().map_or(0, Retries::refused),
            circuit: circuit.unwrap_or_default(),
            ..self.counts
        }
    }
}

impl Hedges {
    fn new(policy: HedgePolicy, window: Window) -> Self {
        let latencies = Latencies::new(policy.percentile);
        let budget = Budget::new(policy.budget_ratio, 0, window);
        Self { policy, latencies, budget }
    }
}

#[cfg(test)]
mod tests {
    use cellmesh_shm::ids::ServiceId;

    use super::*;

    fn tries(text: &str) -> Option<Tries> {
        Tries::new(&serde_json::from_str(text).expect("a policy"))
    }

    /// A policy that says nothing of tries costs none of this.
    #[test]
    fn other_policies_have_no_tries() {
        assert!(tries(r#"{"timeout": "1s"}"#).is_none());
        for text in [r#"{"retry": {}}"#, r#"{"breaker": {}}"#, r#"{"hedge": {}}"#, r#"{"try_timeout": "1s"}"#]
        {
            assert!(tries(text).is_some(), "{text}");
        }
    }

    /// A try ends after its own time or with the whole request, whichever comes first.
    #[test]
    fn try_ends_with_the_request() {
        let tries = tries(r#"{"try_timeout": "1ms"}"#).expect("a time for a try");
        assert_eq!(tries.deadline_of_try(Nanos(5), Nanos::MAX), Nanos(1_000_005));
        assert_eq!(tries.deadline_of_try(Nanos(5), Nanos(6)), Nanos(6));
    }

    const MS: u64 = 1_000_000;

    /// A request with the id `a`; `hops`: more than 0 if a cell makes it.
    fn message(hops: u8) -> RequestMessage {
        RequestMessage {
            service: ServiceId(0),
            deadline: Nanos::MAX,
            hops,
            method_len: 0,
            target_len: 0,
            head: "x-request-id: a\n".into(),
            body: Default::default(),
        }
    }

    /// Second calls are paid for by the budget, and each is counted.
    #[test]
    fn hedges_have_a_budget() {
        let mut tries = tries(r#"{"hedge": {"budget_ratio": 0.5}}"#).expect("hedges");
        (0..4).for_each(|_| tries.begin(Nanos(0)));
        let made = (0..4).filter(|_| tries.hedge(&message(0), Nanos(0)).is_some()).count();
        tries.hedge_won(Duration::ZERO);
        assert_eq!((made, tries.counts().hedges, tries.counts().hedges_won), (2, 2, 1));
    }

    /// No second call goes to a service whose circuit is open.
    #[test]
    fn open_circuit_has_no_hedges() {
        let mut tries =
            tries(r#"{"hedge": {"budget_ratio": 1}, "breaker": {"failures_max": 1}}"#).expect("both");
        tries.begin(Nanos(0));
        let pass = tries.admit(&message(0), Nanos(0)).expect("closed");
        tries.settle(&pass, Verdict::Failure, Nanos(0));
        assert_eq!(tries.hedge(&message(0), Nanos(0)), None);
        assert_eq!((tries.counts().hedges, tries.counts().circuit_openings), (0, 1));
    }

    /// A second call that the circuit refuses has cost nothing.
    #[test]
    fn refused_hedges_are_given_back() {
        let mut tries =
            tries(r#"{"hedge": {"budget_ratio": 1}, "breaker": {"failures_max": 1, "open": "1ms"}}"#)
                .expect("both");
        tries.begin(Nanos(0));
        let pass = tries.admit(&message(0), Nanos(0)).expect("closed");
        tries.settle(&pass, Verdict::Failure, Nanos(0));
        assert_eq!(tries.hedge(&message(0), Nanos(0)), None);
        let asks = tries.admit(&message(0), Nanos(MS)).expect("the time is over");
        assert_eq!(tries.settle(&asks, Verdict::Success, Nanos(MS)), Some(Turn::Closed));
        assert!(tries.hedge(&message(0), Nanos(MS)).is_some(), "the one that is paid for");
    }

    /// Of a service that calls itself, and whose circuit a call asks: half open.
    fn asked(budget_ratio: u32) -> (Tries, Pass) {
        let policy = r#"{"hedge": {"budget_ratio": RATIO}, "breaker": {"failures_max": 1, "open": "1ms"}}"#;
        let mut tries = tries(&policy.replace("RATIO", &budget_ratio.to_string())).expect("both");
        (0..9).for_each(|_| tries.begin(Nanos(0)));
        let pass = tries.admit(&message(0), Nanos(0)).expect("closed");
        tries.settle(&pass, Verdict::Failure, Nanos(0));
        let asks = tries.admit(&message(0), Nanos(MS)).expect("the time is over");
        assert_eq!(tries.counts().circuit, BreakerState::HalfOpen);
        (tries, asks)
    }

    /// A slow call that belongs to the one that asks has a second one beside it, and that decides as little as the first.
    #[test]
    fn what_the_asking_call_causes_is_hedged() {
        for now in [Nanos(MS + 1), Nanos(3 * MS)] {
            let (mut tries, asks) = asked(1);
            let hedge = tries.hedge(&message(1), now).expect("a part of what asks");
            assert_eq!(tries.settle(&hedge, Verdict::Failure, now), None);
            assert_eq!(tries.settle(&asks, Verdict::Success, now), Some(Turn::Closed));
        }
    }

    /// A second call that is not paid for is none: the call that asks goes on asking.
    #[test]
    fn refused_hedges_ask_nothing() {
        let (mut tries, asks) = asked(0);
        assert_eq!(tries.hedge(&message(0), Nanos(3 * MS)), None);
        assert_eq!(tries.settle(&asks, Verdict::Success, Nanos(3 * MS)), Some(Turn::Closed));
    }

    /// What comes on one lane pays for second calls on another.
    #[test]
    fn lanes_have_one_budget() {
        const S: u64 = 1000 * MS;
        let policy: ServicePolicy =
            serde_json::from_str(r#"{"hedge": {"budget_ratio": 0.5}}"#).expect("a policy");
        let [mut one, mut other] = [(); 2].map(|()| Tries::new(&policy.clone()).expect("hedges"));
        (0..4).for_each(|second| one.begin(Nanos(second * S)));
        let made = (0..4).filter(|_| other.hedge(&message(0), Nanos(4 * S)).is_some()).count();
        assert_eq!((made, one.hedge(&message(0), Nanos(4 * S))), (2, None));
    }

    /// Lanes have their own tries and one circuit: failures of both open it for both, and each counts what it has opened.
    #[test]
    fn lanes_have_one_circuit() {
        let policy: ServicePolicy =
            serde_json::from_str(r#"{"breaker": {"failures_max": 2}}"#).expect("a policy");
        let mut lanes = [(); 2].map(|()| Tries::new(&policy.clone()).expect("a breaker"));
        for tries in &mut lanes {
            let pass = tries.admit(&message(0), Nanos(0)).expect("closed");
            tries.settle(&pass, Verdict::Failure, Nanos(0));
        }
        assert!(lanes.iter().all(|tries| tries.admit(&message(0), Nanos(0)).is_err()));
        let counts = lanes.each_ref().map(|tries| (tries.counts().circuit_openings, tries.counts().circuit));
        assert_eq!(counts, [(0, BreakerState::Open), (1, BreakerState::Open)]);
    }
}
