//! Outlier ejection: members of a service that fail again and again get no requests for a while.
//!
//! ```text
//!            failures_max in a row, and not too many are ejected
//!   chosen ----------------------------------------------------> ejected --its time is over, or too few are left--> chosen
//! ```
//!
//! - A member is whatever can be chosen from: a worker at the DPA, an address of a service at the DPU. What a failure is
//!   is theirs to say.
//! - At most a share of a service's members is ejected at once, and never all: one for itself is not an outlier.
//! - Who is ejected keeps what it has to answer. It gets requests again when its time is over; each time that it is ejected
//!   again soon after that doubles the time.
//! - Pure: time is passed in. Not here: who is chosen of those that are left.

use std::time::Duration;

use crate::clock::Nanos;

/// When a member of a service gets no requests for a while.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OutlierRule {
    /// Failures in a row that eject it; at least 1. Source: Envoy's `consecutive_5xx`.
    pub failures_max: u32,
    /// How long it is ejected the first time.
    pub ejection: Duration,
    /// Longest time that it is ejected, however often it has been before.
    pub ejection_max: Duration,
    /// Percent of the service's members that may be ejected at once; one may be in any case, if there is another.
    pub share_max: u8,
}

impl Default for OutlierRule {
    /// Those of Envoy's outlier detection, but for the share: a service has few members.
    fn default() -> Self {
        Self {
            failures_max: 5,
            ejection: Duration::from_secs(30),
            ejection_max: Duration::from_secs(300),
            share_max: 50,
        }
    }
}

/// A member that is to get no requests for a while.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ejection<M> {
    /// Who.
    pub member: M,
    /// For how long.
    pub span: Duration,
}

/// The members of one service, and how each has done.
#[derive(Debug)]
pub struct Outliers<M> {
    rule: OutlierRule,
    records: Vec<Record<M>>,
}

#[derive(Debug)]
struct Record<M> {
    member: M,
    /// In a row.
    failures: u32,
    /// How long it was ejected last; zero if it was not.
    span: Duration,
    /// Since when, or until when.
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Chosen { since: Nanos },
    Ejected { until: Nanos },
}

impl<M: Copy + Eq> Outliers<M> {
    /// None of these members has failed yet.
    #[must_use]
    pub fn new(rule: OutlierRule, members: &[M]) -> Self {
        let mut outliers = Self { rule, records: Vec::new() };
        members.iter().for_each(|member| outliers.add(*member));
        outliers
    }

    /// What is gone by.
    #[must_use]
    pub fn rule(&self) -> OutlierRule {
        self.rule
    }

    /// Another member, which is chosen.
    pub fn add(&mut self, member: M) {
        let state = State::Chosen { since: Nanos(0) };
        self.records.push(Record { member, failures: 0, span: Duration::ZERO, state });
    }

    /// Forgets a member. Returns those that come back because too few would be left.
    pub fn remove(&mut self, member: M, now: Nanos) -> Vec<M> {
        self.records.retain(|record| record.member != member);
        let mut back = Vec::new();
        while self.ejected() > self.ejected_most() {
            let ejected = self.records.iter_mut().filter(|record| record.is_ejected());
            let Some(first) = ejected.min_by_key(|record| record.state.until()) else { break };
            first.readmit(now);
            back.push(first.member);
        }
        back
    }

    /// A member has done what it was asked, or has failed. Whether it is ejected now.
    pub fn note(&mut self, member: M, has_failed: bool, now: Nanos) -> Option<Ejection<M>> {
        let rule = self.rule;
        let index = self.records.iter().position(|record| record.member == member)?;
        let record = &mut self.records[index];
        record.failures = if has_failed { record.failures.saturating_add(1) } else { 0 };
        let State::Chosen { since } = record.state else { return None };
        if record.failures < rule.failures_max || self.ejected() >= self.ejected_most() {
            return None;
        }
        let record = &mut self.records[index];
        let is_again = !record.span.is_zero() && now <= since.saturating_add(record.span);
        let span =
            if is_again { record.span.saturating_mul(2) } else { rule.ejection }.min(rule.ejection_max);
        record.span = span;
        record.state = State::Ejected { until: now.saturating_add(span) };
        Some(Ejection { member, span })
    }

    /// Those whose time is over.
    pub fn readmit(&mut self, now: Nanos) -> Vec<M> {
        let over =
            self.records.iter_mut().filter(|record| record.state.until().is_some_and(|until| until <= now));
        over.map(|record| {
            record.readmit(now);
            record.member
        })
        .collect()
    }

    /// When [`Outliers::readmit`] has something.
    #[must_use]
    pub fn next(&self) -> Option<Nanos> {
        self.records.iter().filter_map(|record| record.state.until()).min()
    }

    /// How many members are ejected.
    #[must_use]
    pub fn ejected(&self) -> usize {
        self.records.iter().filter(|record| record.is_ejected()).count()
    }

    fn ejected_most(&self) -> usize {
        let share = self.records.len() * usize::from(self.rule.share_max) / 100;
        share.max(1).min(self.records.len().saturating_sub(1))
    }

    /// Whether this member is ejected.
    #[must_use]
    pub fn is_ejected(&self, member: M) -> bool {
        self.all_ejected().any(|ejected| ejected == member)
    }

    /// Everybody who is ejected.
    pub fn all_ejected(&self) -> impl Iterator<Item = M> {
        self.records.iter().filter(|record| record.is_ejected()).map(|record| record.member)
    }
}

impl<M> Record<M> {
    fn is_ejected(&self) -> bool {
        matches!(self.state, State::Ejected { .. })
    }

    fn readmit(&mut self, now: Nanos) {
        self.failures = 0;
        self.state = State::Chosen { since: now };
    }
}

impl State {
    fn until(self) -> Option<Nanos> {
        match self {
            Self::Ejected { until } => Some(until),
            Self::Chosen { .. } => None,
        }
    }
}

#[cfg(all(test, not(any(loom, miri))))] // Its random numbers take Miri minutes.
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::ids::EndpointId;

    const RULE: OutlierRule = OutlierRule {
        failures_max: 3,
        ejection: Duration::from_secs(10),
        ejection_max: Duration::from_secs(30),
        share_max: 50,
    };

    fn outliers(workers: u16) -> Outliers<EndpointId> {
        let workers: Vec<EndpointId> = (0..workers).map(EndpointId).collect();
        Outliers::new(RULE, &workers)
    }

    fn at(seconds: u64) -> Nanos {
        Nanos(seconds * 1_000_000_000)
    }

    /// Fails until it is out, or three times.
    fn fail(outliers: &mut Outliers<EndpointId>, worker: u16, seconds: u64) -> Option<u64> {
        (0..3)
            .find_map(|_| outliers.note(EndpointId(worker), true, at(seconds)))
            .map(|out| out.span.as_secs())
    }

    /// Failures in a row put a worker out for a time; an answer between them counts for it.
    #[test]
    fn failures_in_a_row_put_out() {
        let mut outliers = outliers(4);
        let mut note = |has_failed| outliers.note(EndpointId(1), has_failed, at(5));
        assert_eq!([true, true, false, true, true].map(|failed| note(failed).is_some()), [false; 5]);
        assert_eq!(note(true), Some(Ejection { member: EndpointId(1), span: RULE.ejection }));
        assert_eq!(note(true), None, "it is out already");
        assert_eq!((outliers.ejected(), outliers.next()), (1, Some(at(15))));
        assert_eq!(outliers.readmit(at(14)), []);
        assert_eq!(outliers.readmit(at(15)), [EndpointId(1)]);
        assert_eq!((outliers.ejected(), outliers.next()), (0, None));
    }

    /// Who fails again soon is out for longer, up to a bound; who did well for a while begins anew.
    #[test]
    fn soon_again_is_longer() {
        let mut outliers = outliers(2);
        let mut now = 100;
        for expected in [10, 20, 30, 30] {
            assert_eq!(fail(&mut outliers, 0, now), Some(expected));
            now += expected;
            assert_eq!(outliers.readmit(at(now)), [EndpointId(0)]);
        }
        assert_eq!(fail(&mut outliers, 0, now + 31), Some(10));
    }

    /// A part is left, always; one that is alone is never out.
    #[test]
    fn some_are_left() {
        let mut four = outliers(4);
        assert_eq!(
            [0, 1, 2, 3].map(|worker| fail(&mut four, worker, 1).is_some()),
            [true, true, false, false]
        );
        let mut three = outliers(3);
        assert_eq!([0, 1, 2].map(|worker| fail(&mut three, worker, 1).is_some()), [true, false, false]);
        assert_eq!(fail(&mut outliers(1), 0, 1), None);
        assert_eq!(four.remove(EndpointId(3), at(2)), [EndpointId(0)], "one of three may be out");
        assert_eq!(four.remove(EndpointId(2), at(2)), []);
        assert_eq!(four.remove(EndpointId(0), at(2)), [EndpointId(1)], "it is alone");
        assert_eq!(four.remove(EndpointId(1), at(2)), []);
        assert_eq!(fail(&mut four, 1, 3), None, "it has gone");
    }

    #[derive(Debug, Clone)]
    enum Event {
        Note { worker: u16, has_failed: bool },
        Pass { seconds: u64 },
        Come { worker: u16 },
        Go { worker: u16 },
    }

    fn event() -> impl Strategy<Value = Event> {
        prop_oneof![
            12 => (0..6u16, prop::bool::weighted(0.8))
                .prop_map(|(worker, has_failed)| Event::Note { worker, has_failed }),
            2 => (1..12u64).prop_map(|seconds| Event::Pass { seconds }),
            1 => (0..6u16).prop_map(|worker| Event::Come { worker }),
            1 => (0..6u16).prop_map(|worker| Event::Go { worker }),
        ]
    }

    proptest! {
        /// Whatever happens: who is told to be out is out until it is told to be back, which is in time, and never are too
        /// many.
        #[test]
        fn somebody_is_always_chosen(events in prop::collection::vec(event(), 0..200)) {
            let mut outliers = outliers(0);
            let mut all: Vec<u16> = Vec::new();
            let mut out: Vec<(u16, Nanos)> = Vec::new();
            let mut now = at(1);
            for event in events {
                match event {
                    Event::Note { worker, has_failed } => {
                        if let Some(put) = outliers.note(EndpointId(worker), has_failed, now) {
                            prop_assert!(has_failed && all.contains(&worker));
                            prop_assert!(out.iter().all(|(known, _)| *known != worker));
                            prop_assert!(RULE.ejection <= put.span && put.span <= RULE.ejection_max);
                            out.push((worker, now.saturating_add(put.span)));
                        }
                    }
                    Event::Pass { seconds } => {
                        now = now.saturating_add(Duration::from_secs(seconds));
                        let back = outliers.readmit(now);
                        let (over, rest): (Vec<_>, Vec<_>) = out.into_iter().partition(|(_, until)| *until <= now);
                        prop_assert_eq!(back.len(), over.len());
                        prop_assert!(over.iter().all(|(worker, _)| back.contains(&EndpointId(*worker))));
                        out = rest;
                    }
                    Event::Come { worker } if !all.contains(&worker) => {
                        all.push(worker);
                        outliers.add(EndpointId(worker));
                    }
                    Event::Come { .. } => {}
                    Event::Go { worker } => {
                        all.retain(|known| *known != worker);
                        let back = outliers.remove(EndpointId(worker), now);
                        out.retain(|(known, _)| *known != worker && !back.contains(&EndpointId(*known)));
                    }
                }
                prop_assert_eq!(outliers.ejected(), out.len());
                prop_assert_eq!(outliers.next(), out.iter().map(|(_, until)| *until).min());
                prop_assert!(out.is_empty() || out.len() < all.len());
                prop_assert!(out.len() <= (all.len() / 2).max(1));
            }
        }
    }
}
