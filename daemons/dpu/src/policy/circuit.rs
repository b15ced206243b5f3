//! The circuit of a service, which all lanes of the process share: one [`Breaker`], and what of it most calls need.
//!
//! ```text
//! closed                                   a load for a call, and a load for its success
//! open                                     two loads for a refusal
//! what changes it, or asks it for more     one step of the breaker, under a lock
//! ```
//!
//! - So `failures_max` counts the calls of all lanes in the order in which they end, one call of all asks, and what that one causes
//!   goes through on whichever lane it comes.
//! - What is read without the lock may be from just before a step of another lane: it is as if the call had come then.
//! - The lock is held for one step, which waits for nothing. Only failures, the first success after one, and calls while it is half open take it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use cellmesh_shm::clock::Nanos;

use super::breaker::{Breaker, BreakerPolicy, BreakerState, Pass, Turn, Verdict};

/// The circuit of one service. Clones are the same one.
#[derive(Debug, Clone, Default)]
pub(super) struct Circuit(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    /// A [`Glance`] at the breaker.
    glance: AtomicU64,
    /// Until when it refuses, while it is not closed.
    until: AtomicU64,
    breaker: Mutex<Breaker>,
}

/// Turn and state of a breaker, and whether a success would change it, as one number.
///
/// ```text
/// turn: 61 bits | has failures: 1 | state: 2
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Glance(u64);

impl Glance {
    fn at(breaker: &Breaker) -> Self {
        let state = match breaker.state() {
            BreakerState::Closed => 0,
            BreakerState::HalfOpen => 1,
            BreakerState::Open => 2,
        };
        Self((breaker.turn() << 3) | (u64::from(breaker.has_failures()) << 2) | state)
    }

    fn turn(self) -> u64 {
        self.0 >> 3
    }

    fn has_failures(self) -> bool {
        self.0 & 4 != 0
    }

    fn state(self) -> BreakerState {
        match self.0 & 3 {
            0 => BreakerState::Closed,
            1 => BreakerState::HalfOpen,
            _ => BreakerState::Open,
        }
    }

    /// Whether the end of a call changes nothing.
    fn ignores(self, pass: &Pass, verdict: Verdict) -> bool {
        let is_good = || match verdict {
            Verdict::Nothing => true,
            Verdict::Success => !self.has_failures(),
            Verdict::Failure => false,
        };
        pass.turn() != self.turn() || (self.state() == BreakerState::Closed && is_good())
    }
}

impl Circuit {
    /// As [`Breaker::admit_of`], for whatever lane.
    pub(super) fn admit_of<'m>(
        &self,
        now: Nanos,
        is_caused: bool,
        id: impl FnOnce() -> Option<&'m [u8]>,
    ) -> Result<Pass, Duration> {
        let glance = self.glance();
        if glance.state() == BreakerState::Closed {
            return Ok(Pass::of(glance.turn()));
        }
        let until = Nanos(self.0.until.load(Ordering::Relaxed));
        let may_belong = is_caused && glance.state() == BreakerState::HalfOpen;
        if now < until && !may_belong {
            return Err(until.saturating_since(now));
        }
        self.step(|breaker| breaker.admit_of(now, is_caused, id))
    }

    /// As [`Breaker::settle`].
    pub(super) fn settle(
        &self,
        policy: BreakerPolicy,
        pass: &Pass,
        verdict: Verdict,
        now: Nanos,
    ) -> Option<Turn> {
        if self.glance().ignores(pass, verdict) {
            return None;
        }
        self.step(|breaker| breaker.settle(policy, pass, verdict, now))
    }

    /// Where it stands.
    pub(super) fn state(&self) -> BreakerState {
        self.glance().state()
    }

    // Neither number guards other memory: who goes by an old one refuses or lets through what would have been so just before.
    fn glance(&self) -> Glance {
        Glance(self.0.glance.load(Ordering::Relaxed))
    }

    fn step<T>(&self, step: impl FnOnce(&mut Breaker) -> T) -> T {
        let mut breaker = self.0.breaker.lock().expect("no step panics");
        let outcome = step(&mut breaker);
        self.0.until.store(breaker.refuses_until().0, Ordering::Relaxed);
        self.0.glance.store(Glance::at(&breaker).0, Ordering::Relaxed);
        outcome
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;
    use crate::units::TimeSpan;

    fn policy() -> BreakerPolicy {
        BreakerPolicy { failures_max: 3, open: TimeSpan::millis(100), open_max: TimeSpan::millis(350) }
    }

    fn at_ms(ms: u64) -> Nanos {
        Nanos(ms * 1_000_000)
    }

    #[derive(Debug, Clone)]
    enum Event {
        Admit { is_caused: bool, id: Option<u8> },
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
            4 => (any::<bool>(), prop::option::of(0..3_u8))
                .prop_map(|(is_caused, id)| Event::Admit { is_caused, id }),
            4 => (0..8_usize, verdict).prop_map(|(index, verdict)| Event::Settle(index, verdict)),
            1 => (0..400_u64).prop_map(Event::Wait),
        ]
    }

    proptest! {
        /// Whichever lane does what, in whatever order: it is one breaker, and what is seen at a glance is what it says.
        #[test]
        fn lanes_share_one_breaker(events in vec((any::<bool>(), event()), 1..300)) {
            let circuit = Circuit::default();
            let lanes = [circuit.clone(), circuit];
            let (mut model, mut now_ms, mut out) = (Breaker::default(), 0, Vec::new());
            for (lane, event) in events {
                let (lane, now) = (&lanes[usize::from(lane)], at_ms(now_ms));
                match event {
                    Event::Wait(ms) => now_ms += ms,
                    Event::Admit { is_caused, id } => {
                        let id = || id.as_ref().map(std::slice::from_ref);
                        let expected = model.admit_of(now, is_caused, id);
                        prop_assert_eq!(lane.admit_of(now, is_caused, id), expected.clone());
                        out.extend(expected);
                    }
                    Event::Settle(index, verdict) if index < out.len() => {
                        let pass = out.remove(index);
                        let expected = model.settle(policy(), &pass, verdict, now);
                        prop_assert_eq!(lane.settle(policy(), &pass, verdict, now), expected);
                    }
                    Event::Settle(..) => {}
                }
                prop_assert_eq!(lane.state(), model.state());
            }
        }
    }

    /// Lanes that fail at the same time open it once, and of those that ask at the same time one is let through.
    #[test]
    fn threads_share_one_circuit() {
        let circuit = Circuit::default();
        let on_threads = |deed: &(dyn Fn() -> usize + Sync)| -> usize {
            std::thread::scope(|scope| {
                let threads = [(); 4].map(|()| scope.spawn(deed));
                threads.into_iter().map(|thread| thread.join().expect("no panic")).sum()
            })
        };
        let opened = on_threads(&|| {
            let fails = || {
                let Ok(pass) = circuit.admit_of(at_ms(0), false, || None) else { return false };
                circuit.settle(policy(), &pass, Verdict::Failure, at_ms(0)) == Some(Turn::Opened)
            };
            (0..100).filter(|_| fails()).count()
        });
        let asked = on_threads(&|| {
            let asks = || circuit.admit_of(at_ms(100), false, || None).is_ok();
            (0..100).filter(|_| asks()).count()
        });
        assert_eq!((opened, asked), (1, 1));
    }
}
