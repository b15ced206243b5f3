//! Circuit breaker: a callee that only fails is left alone for a while, then asked with one call.
//!
//! ```text
//!            failures_max in a row           the time is over, one call
//!  closed -------------------------> open ------------------------------> half open
//!    ^                                ^                                     |    |
//!    |                                +---- it fails: twice as long --------+    |
//!    +-------------------------------------- it succeeds ------------------------+
//! ```
//!
//! - A call that is let through gets a `Pass`, which comes back with what the call came to.
//! - While it is open, nothing else closes it than the one call that asks: answers of calls from before say nothing of now.
//! - A call that asks may take longer than the next one waits: then several ask, and the first that ends decides.
//! - What a call that asks causes goes through beside it, up to a bound: a service that calls itself could not answer it otherwise, and
//!   would be left alone for ever. A call is known by the id of the request that it belongs to.
//! - Pure: time is passed in. Not here: what lanes share of it (`circuit.rs`). Source: Nygard, "Release It!"; the failure accrual of Linkerd.

use std::time::Duration;

use cellmesh_shm::clock::Nanos;
use serde::Deserialize;

use super::Problems;
use crate::units::TimeSpan;

/// `breaker` of `[service.NAME]`: when a service is left alone, and for how long.
#[derive(Debug, Clone, Copy, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields, default)]
pub struct BreakerPolicy {
    /// Failures in a row that open it.
    pub failures_max: u32,
    /// How long it is open before one call may ask.
    pub open: TimeSpan,
    /// The longest that it is open: the time doubles with each call that asks in vain.
    pub open_max: TimeSpan,
}

impl Default for BreakerPolicy {
    fn default() -> Self {
        Self { failures_max: 5, open: TimeSpan::secs(1), open_max: TimeSpan::secs(30) }
    }
}

impl BreakerPolicy {
    pub(super) fn check(&self, problems: &mut Problems) {
        let Self { failures_max, open, open_max } = *self;
        problems.check("breaker.failures_max", &failures_max, failures_max > 0, "at least 1");
        problems.check_time("breaker.open", open);
        problems.check_time("breaker.open_max", open_max);
        problems.check_text("breaker.open_max", open_max, open <= open_max, "at least breaker.open");
    }
}

/// The breaker of one callee. Closed at first.
#[derive(Debug, Default)]
pub(crate) struct Breaker {
    state: State,
    /// Times that the state has changed: a pass of an earlier state is told by it.
    turn: u64,
    /// The calls that ask, the latest last. At most [`ASKING_MAX`].
    asking: Vec<Asking>,
    /// Calls that have asked.
    questions: u64,
    /// Calls that went through beside those that ask.
    caused: u32,
}

/// A call that asks.
#[derive(Debug)]
struct Asking {
    question: u64,
    /// Of the request that it belongs to.
    id: Box<[u8]>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Failures in a row so far.
    Closed { failures: u32 },
    /// For `span`, from whose end on one call may ask.
    Open { until: Nanos, span: Duration },
    /// One call asks; from `until` on another may. `span`: how long it was open.
    HalfOpen { until: Nanos, span: Duration },
}

impl Default for State {
    fn default() -> Self {
        Self::Closed { failures: 0 }
    }
}

/// Where a breaker stands, for metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum BreakerState {
    /// Calls go through.
    #[default]
    Closed,
    /// One call goes through, to see whether more can.
    HalfOpen,
    /// None goes through.
    Open,
}

/// Leave for one call. What the call came to is to be told with it, exactly once.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[must_use]
pub(crate) struct Pass {
    turn: u64,
    /// Which of all calls that have asked it is; zero if it is none.
    question: u64,
}

impl Pass {
    /// Leave of a breaker that is closed, at this turn of it.
    pub(super) fn of(turn: u64) -> Self {
        Self { turn, question: 0 }
    }

    /// The turn of the breaker that it is of.
    pub(super) fn turn(&self) -> u64 {
        self.turn
    }
}

/// What a call came to, as far as a breaker cares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The callee did its work.
    Success,
    /// It did not.
    Failure,
    /// The call says nothing of the callee: it never got there, or nobody waited for it.
    Nothing,
}

/// Calls that ask at the same time and are known by their ids.
const ASKING_MAX: usize = 4;

/// Calls that go through beside those that ask: ids are what clients say, so that one of them could let all of its calls through.
const CAUSED_MAX: u32 = 64;

/// Of a pass that says nothing: no state is reached so late.
const NO_TURN: u64 = u64::MAX;

/// What the end of a call has made of a breaker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Turn {
    /// Calls went through so far.
    Opened,
    /// The call that asked has failed.
    OpenedAgain,
    /// The call that asked has succeeded.
    Closed,
}

impl Breaker {
    /// Leave for a call, or how long to wait before the next is worth a try.
    pub(crate) fn admit(&mut self, now: Nanos) -> Result<Pass, Duration> {
        match self.state {
            State::Closed { .. } => {}
            State::Open { until, span } if until <= now => {
                self.turn_to(State::HalfOpen { until: now.saturating_add(span), span });
            }
            // The same turn: what the call from before comes to still counts.
            State::HalfOpen { until, span } if until <= now => {
                self.state = State::HalfOpen { until: now.saturating_add(span), span };
            }
            State::Open { until, .. } | State::HalfOpen { until, .. } => {
                return Err(until.saturating_since(now));
            }
        }
        Ok(Pass::of(self.turn))
    }

    /// As [`Breaker::admit`], for a call of the request with the id that `id` looks up; `is_caused`: a cell makes it.
    pub(crate) fn admit_of<'m>(
        &mut self,
        now: Nanos,
        is_caused: bool,
        id: impl FnOnce() -> Option<&'m [u8]>,
    ) -> Result<Pass, Duration> {
        if matches!(self.state, State::Closed { .. }) {
            return self.admit(now);
        }
        let id = id();
        if is_caused && id.is_some_and(|id| self.lets_through(id)) {
            self.caused += 1;
            return Ok(Pass::of(NO_TURN));
        }
        let pass = self.admit(now)?;
        if self.asking.len() == ASKING_MAX {
            self.asking.remove(0);
        }
        self.questions += 1;
        let question = self.questions;
        self.asking.extend(id.map(|id| Asking { question, id: id.into() }));
        Ok(Pass { question, ..pass })
    }

    /// Whether it is asked by a call of the request with this id.
    fn lets_through(&self, id: &[u8]) -> bool {
        let is_asking = self.asking.iter().any(|asking| *asking.id == *id);
        is_asking && self.caused < CAUSED_MAX && self.state() == BreakerState::HalfOpen
    }

    /// The call of `pass` has ended.
    pub(crate) fn settle(
        &mut self,
        policy: BreakerPolicy,
        pass: &Pass,
        verdict: Verdict,
        now: Nanos,
    ) -> Option<Turn> {
        if pass.turn != self.turn {
            return None;
        }
        match (self.state, verdict) {
            (State::Closed { failures }, Verdict::Failure) if failures + 1 >= policy.failures_max => {
                self.open_for(policy.open.0, now);
                return Some(Turn::Opened);
            }
            (State::Closed { failures }, Verdict::Failure) => {
                self.state = State::Closed { failures: failures + 1 };
            }
            (State::Closed { .. }, Verdict::Success) => self.state = State::Closed { failures: 0 },
            (State::HalfOpen { .. }, Verdict::Success) => {
                self.turn_to(State::Closed { failures: 0 });
                return Some(Turn::Closed);
            }
            (State::HalfOpen { span, .. }, Verdict::Failure) => {
                self.open_for(span.saturating_mul(2).min(policy.open_max.0), now);
                return Some(Turn::OpenedAgain);
            }
            // The next call asks. The same turn: what others come to that ask still counts.
            (State::HalfOpen { span, .. }, Verdict::Nothing) => {
                self.state = State::HalfOpen { until: now, span };
                self.asking.retain(|asking| asking.question != pass.question);
                if self.asking.is_empty() {
                    self.caused = 0;
                }
            }
            (State::Closed { .. }, Verdict::Nothing) | (State::Open { .. }, _) => {}
        }
        None
    }

    /// Where it stands.
    pub(crate) fn state(&self) -> BreakerState {
        match self.state {
            State::Closed { .. } => BreakerState::Closed,
            State::HalfOpen { .. } => BreakerState::HalfOpen,
            State::Open { .. } => BreakerState::Open,
        }
    }

    /// Times that it has changed its state.
    pub(super) fn turn(&self) -> u64 {
        self.turn
    }

    /// Whether it is closed, and the latest call that says something was a failure.
    pub(super) fn has_failures(&self) -> bool {
        matches!(self.state, State::Closed { failures: 1.. })
    }

    /// Until when calls are refused that nobody who asks has caused; the clock's zero while it is closed.
    pub(super) fn refuses_until(&self) -> Nanos {
        match self.state {
            State::Closed { .. } => Nanos(0),
            State::Open { until, .. } | State::HalfOpen { until, .. } => until,
        }
    }

    fn open_for(&mut self, span: Duration, now: Nanos) {
        self.turn_to(State::Open { until: now.saturating_add(span), span });
    }

    fn turn_to(&mut self, state: State) {
        self.state = state;
        self.turn += 1;
        self.asking.clear();
        self.caused = 0;
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn at_ms(ms: u64) -> Nanos {
        Nanos(ms * 1_000_000)
    }

    fn policy() -> BreakerPolicy {
        BreakerPolicy { failures_max: 3, open: TimeSpan::millis(100), open_max: TimeSpan::millis(350) }
    }

    /// One call that comes to this, if it is let through.
    fn call(breaker: &mut Breaker, verdict: Verdict, ms: u64) -> Result<(), Duration> {
        let pass = breaker.admit(at_ms(ms))?;
        breaker.settle(policy(), &pass, verdict, at_ms(ms));
        Ok(())
    }

    fn opened() -> Breaker {
        let mut breaker = Breaker::default();
        (0..3).for_each(|_| call(&mut breaker, Verdict::Failure, 0).expect("closed"));
        breaker
    }

    /// Failures in a row open it; one success among them, and they count anew.
    #[test]
    fn only_failures_in_a_row_open_it() {
        let mut breaker = Breaker::default();
        for verdict in
            [Verdict::Failure, Verdict::Failure, Verdict::Success, Verdict::Failure, Verdict::Failure]
        {
            call(&mut breaker, verdict, 0).expect("closed");
        }
        call(&mut breaker, Verdict::Nothing, 0).expect("closed");
        call(&mut breaker, Verdict::Failure, 0).expect("closed");
        assert_eq!(call(&mut breaker, Verdict::Success, 30), Err(70 * MS));
        assert_eq!(breaker.state(), BreakerState::Open);
    }

    /// The time is over: one call asks, and the others are refused until it has its answer.
    #[test]
    fn one_call_asks() {
        let mut breaker = opened();
        let pass = breaker.admit(at_ms(100)).expect("the time is over");
        assert_eq!(breaker.state(), BreakerState::HalfOpen);
        assert_eq!(breaker.admit(at_ms(100)), Err(100 * MS));
        assert_eq!(breaker.settle(policy(), &pass, Verdict::Success, at_ms(101)), Some(Turn::Closed));
        assert_eq!(breaker.state(), BreakerState::Closed);
        call(&mut breaker, Verdict::Success, 101).expect("closed");
    }

    /// Each call that asks in vain doubles the time, up to its bound; a success makes it short again.
    #[test]
    fn time_grows_up_to_its_bound() {
        let mut breaker = opened();
        let mut now_ms = 0;
        for span_ms in [100, 200, 350, 350] {
            assert_eq!(call(&mut breaker, Verdict::Failure, now_ms + span_ms - 1), Err(MS));
            now_ms += span_ms;
            call(&mut breaker, Verdict::Failure, now_ms).expect("the time is over");
        }
        now_ms += 350;
        call(&mut breaker, Verdict::Success, now_ms).expect("the time is over");
        (0..3).for_each(|_| call(&mut breaker, Verdict::Failure, now_ms).expect("closed"));
        assert_eq!(breaker.admit(at_ms(now_ms)), Err(100 * MS));
    }

    /// A call that asked and was given up lets the next one ask.
    #[test]
    fn abandoned_question_is_asked_again() {
        let mut breaker = opened();
        call(&mut breaker, Verdict::Nothing, 100).expect("the time is over");
        call(&mut breaker, Verdict::Success, 100).expect("nobody has asked");
        assert_eq!(breaker.state(), BreakerState::Closed);
    }

    /// A call that asked and was given up takes nothing from another that asks still: the first that has an answer decides.
    #[test]
    fn abandoned_question_leaves_others() {
        let mut breaker = opened();
        let slow = breaker.admit(at_ms(100)).expect("the time is over");
        let given_up = breaker.admit(at_ms(200)).expect("the first takes too long");
        assert_eq!(breaker.settle(policy(), &given_up, Verdict::Nothing, at_ms(210)), None);
        let next = breaker.admit(at_ms(210)).expect("one was given up");
        assert_eq!(breaker.admit(at_ms(210)), Err(100 * MS));
        assert_eq!(breaker.settle(policy(), &slow, Verdict::Success, at_ms(250)), Some(Turn::Closed));
        assert_eq!(breaker.settle(policy(), &next, Verdict::Failure, at_ms(260)), None);
    }

    /// A service that calls itself can answer the call that asks: what belongs to it goes through, and decides nothing.
    #[test]
    fn what_the_asking_call_causes_goes_through() {
        let mut breaker = opened();
        let id = |id: &'static str| move || Some(id.as_bytes());
        assert_eq!(breaker.admit_of(at_ms(50), true, id("a")), Err(50 * MS));
        let pass = breaker.admit_of(at_ms(100), false, id("a")).expect("the time is over");
        assert_eq!(breaker.admit_of(at_ms(100), false, id("a")), Err(100 * MS));
        assert_eq!(breaker.admit_of(at_ms(100), true, id("b")), Err(100 * MS));
        assert_eq!(breaker.admit_of(at_ms(100), true, || None), Err(100 * MS));
        let caused = breaker.admit_of(at_ms(100), true, id("a")).expect("a part of what asks");
        breaker.settle(policy(), &caused, Verdict::Failure, at_ms(100));
        assert_eq!(breaker.state(), BreakerState::HalfOpen);
        breaker.settle(policy(), &pass, Verdict::Success, at_ms(101));
        assert_eq!(breaker.state(), BreakerState::Closed);
    }

    /// A service that takes longer to answer than the next call waits comes back with its first right answer, and what each of those
    /// that ask causes goes through.
    #[test]
    fn slow_answer_closes_it() {
        let mut breaker = opened();
        let id = |id: &'static str| move || Some(id.as_bytes());
        let first = breaker.admit_of(at_ms(100), false, id("a")).expect("the time is over");
        let second = breaker.admit_of(at_ms(200), false, id("b")).expect("the first takes too long");
        for asking in ["a", "b"] {
            let _ = breaker.admit_of(at_ms(210), true, id(asking)).expect("a part of what asks");
        }
        assert_eq!(breaker.settle(policy(), &first, Verdict::Success, at_ms(250)), Some(Turn::Closed));
        breaker.settle(policy(), &second, Verdict::Failure, at_ms(260));
        assert_eq!(breaker.state(), BreakerState::Closed);
    }

    /// However many calls ask and are given up, what belongs to one that still asks goes through.
    #[test]
    fn given_up_questions_leave_room() {
        let mut breaker = opened();
        let id = |id: &'static str| move || Some(id.as_bytes());
        let _asking = breaker.admit_of(at_ms(100), false, id("patient")).expect("the time is over");
        for (ms, given_up) in (200_u64..).zip(["a", "b", "c", "d", "e", "f"]) {
            let pass = breaker.admit_of(at_ms(ms), false, id(given_up)).expect("nobody asks any more");
            assert_eq!(breaker.settle(policy(), &pass, Verdict::Nothing, at_ms(ms)), None);
            assert!(breaker.asking.len() <= 1, "{:?}", breaker.asking);
        }
        let _belongs = breaker.admit_of(at_ms(206), true, id("patient")).expect("a part of what asks");
    }

    /// What goes through beside the call that asks is bounded, whatever clients say.
    #[test]
    fn caused_calls_are_bounded() {
        let mut breaker = opened();
        let id = || Some(&b"a"[..]);
        let _ = breaker.admit_of(at_ms(100), false, id).expect("the time is over");
        let through = (0..10_000).filter(|_| breaker.admit_of(at_ms(100), true, id).is_ok()).count();
        assert_eq!(through, CAUSED_MAX as usize);
    }

    /// A call from before it opened neither closes it nor keeps it open.
    #[test]
    fn late_answers_change_nothing() {
        let mut breaker = Breaker::default();
        let early: Vec<Pass> = (0..5).map(|_| breaker.admit(at_ms(0)).expect("closed")).collect();
        (0..3).for_each(|_| call(&mut breaker, Verdict::Failure, 0).expect("closed"));
        breaker.settle(policy(), &early[0], Verdict::Success, at_ms(50));
        assert_eq!(breaker.state(), BreakerState::Open);
        let pass = breaker.admit(at_ms(100)).expect("the time is over");
        breaker.settle(policy(), &early[1], Verdict::Failure, at_ms(100));
        assert_eq!(breaker.state(), BreakerState::HalfOpen);
        breaker.settle(policy(), &pass, Verdict::Success, at_ms(100));
        for pass in &early[2..] {
            breaker.settle(policy(), pass, Verdict::Failure, at_ms(100));
        }
        assert_eq!(breaker.state(), BreakerState::Closed);
    }

    #[derive(Debug, Clone)]
    enum Event {
        Admit,
        Settle(usize, Verdict),
        Wait(u64),
    }

    fn event() -> impl Strategy<Value = Event> {
        let verdict = prop_oneof![
            1 => Just(Verdict::Success),
            4 => Just(Verdict::Failure),
            1 => Just(Verdict::Nothing),
        ];
        prop_oneof![
            3 => Just(Event::Admit),
            3 => (any::<prop::sample::Index>(), verdict)
                .prop_map(|(index, verdict)| Event::Settle(index.index(64), verdict)),
            1 => (0..400_u64).prop_map(Event::Wait),
        ]
    }

    proptest! {
        /// Whatever is settled in whatever order: a refusal is never longer than the bound, while it is half open no call goes
        /// through until the one before has had its time or was given up, and when the time is over one does, whoever is out still.
        #[test]
        fn always_bounded_and_never_stuck(events in vec(event(), 1..300)) {
            let (mut breaker, mut now_ms, mut out, mut last_ms) = (Breaker::default(), 0, Vec::new(), 0);
            let mut was_given_up = false;
            for event in events {
                let before = breaker.state();
                match event {
                    Event::Wait(ms) => now_ms += ms,
                    Event::Admit => match breaker.admit(at_ms(now_ms)) {
                        Ok(pass) => {
                            let is_due = now_ms >= last_ms + 100 || was_given_up;
                            prop_assert!(before != BreakerState::HalfOpen || is_due);
                            (last_ms, was_given_up) = (now_ms, false);
                            out.push(pass);
                        }
                        Err(wait) => prop_assert!(wait <= 350 * MS && before != BreakerState::Closed),
                    },
                    Event::Settle(index, verdict) if index < out.len() => {
                        let pass: Pass = out.swap_remove(index);
                        let asks = before == BreakerState::HalfOpen && pass.turn == breaker.turn;
                        was_given_up |= asks && verdict == Verdict::Nothing;
                        breaker.settle(policy(), &pass, verdict, at_ms(now_ms));
                    }
                    Event::Settle(..) => {}
                }
            }
            prop_assert!(breaker.admit(at_ms(now_ms + 350)).is_ok());
        }
    }
}
