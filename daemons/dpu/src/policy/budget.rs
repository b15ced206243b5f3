//! Budget: how many calls may be made on top of those that were asked for.
//!
//! ```text
//! calls asked for in the window * ratio + per_second_min * window  >=  calls made on top in the window
//! ```
//!
//! - What is down gets no more than its usual load and that share of it: retries cannot make a storm.
//! - Since calls on top are remembered as long as those that paid for them, none is paid for twice: of all calls ever, those on
//!   top are at most the ratio of those asked for, and `per_second_min` for each second and once more for a window.
//! - All lanes of the process count in one window: the budget is that of the process.
//! - The window moves by whole slices. Pure: time is passed in.
//! - cost: a lane counts what is asked for by itself, and adds it to the window once in a millisecond, without waiting for another lane that is
//!   at it. A call on top takes a lock, which is held for a few sums.
//! - Source: the retry budgets of Finagle and Linkerd.

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use cellmesh_shm::clock::Nanos;

use crate::units::Ratio;

/// What the budget remembers. Source: Linkerd's default `ttl`.
pub(crate) const WINDOW_S: u64 = 10;
/// Parts that the window moves by.
const SLICES: usize = 10;
const SLICE_NS: u64 = WINDOW_S * 1_000_000_000 / SLICES as u64;
/// Between two times that a lane adds what was asked for.
const ADD_EVERY: Duration = Duration::from_millis(1);

/// What was asked for lately, and made on top of it. Clones are the same window.
#[derive(Debug, Clone, Default)]
pub(super) struct Window(Arc<Mutex<Slices>>);

#[derive(Debug, Default)]
struct Slices {
    slices: [Slice; SLICES],
    /// Number of the slice that is being counted in, since the clock's zero.
    newest: u64,
}

#[derive(Debug, Clone, Copy, Default)]
struct Slice {
    asked: u64,
    on_top: u64,
}

impl Slices {
    /// Moves on to the slice of `now` and returns its number; what is older than the window is forgotten.
    fn move_to(&mut self, now: Nanos) -> u64 {
        let number = (now.0 / SLICE_NS).max(self.newest);
        for passed in (self.newest + 1..=number).take(SLICES) {
            self.slices[place(passed)] = Slice::default();
        }
        self.newest = number;
        number
    }

    /// One that is in the window.
    fn slice(&mut self, number: u64) -> Option<&mut Slice> {
        (number + SLICES as u64 > self.newest).then(|| &mut self.slices[place(number)])
    }

    fn add_asked(&mut self, asked: u64, at: Nanos) {
        self.move_to(at);
        if let Some(slice) = self.slice(at.0 / SLICE_NS) {
            slice.asked += asked;
        }
    }

    fn sum(&self, of: fn(&Slice) -> u64) -> u64 {
        self.slices.iter().map(of).sum()
    }
}

fn place(number: u64) -> usize {
    usize::try_from(number % SLICES as u64).expect("less than the slices")
}

/// A budget of calls on top, as one lane has it.
#[derive(Debug)]
pub(crate) struct Budget {
    ratio: Ratio,
    /// What may be made in a window even if hardly anything was asked for.
    reserve: u64,
    window: Window,
    /// Calls that were asked for here and are not in the window yet, and when the last of them was.
    asked: u64,
    asked_at: Nanos,
    /// When they are added.
    add_at: Nanos,
}

/// A call on top that was taken: the number of the slice that it counts in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Taken(u64);

impl Budget {
    /// - `per_second_min`: calls on top that are always allowed, on average over the window.
    pub(super) fn new(ratio: Ratio, per_second_min: u32, window: Window) -> Self {
        Self {
            ratio,
            reserve: u64::from(per_second_min) * WINDOW_S,
            window,
            asked: 0,
            asked_at: Nanos(0),
            add_at: Nanos(0),
        }
    }

    /// A call was asked for.
    pub(crate) fn deposit(&mut self, now: Nanos) {
        self.asked += 1;
        self.asked_at = now;
        if now < self.add_at {
            return;
        }
        if let Ok(mut slices) = self.window.0.try_lock() {
            slices.add_asked(std::mem::take(&mut self.asked), now);
            self.add_at = now.saturating_add(ADD_EVERY);
        }
    }

    /// Takes a call on top, if there is one left.
    pub(crate) fn withdraw(&mut self, now: Nanos) -> Option<Taken> {
        let asked = std::mem::take(&mut self.asked);
        let mut slices = self.slices();
        slices.add_asked(asked, self.asked_at);
        let number = slices.move_to(now);
        let may = self.ratio.of(slices.sum(|slice| slice.asked)) + self.reserve;
        if slices.sum(|slice| slice.on_top) >= may {
            return None;
        }
        slices.slices[place(number)].on_top += 1;
        Some(Taken(number))
    }

    /// A call that was taken is not made.
    pub(crate) fn give_back(&mut self, taken: Taken) {
        if let Some(slice) = self.slices().slice(taken.0) {
            slice.on_top -= 1;
        }
    }

    fn slices(&self) -> MutexGuard<'_, Slices> {
        self.window.0.lock().expect("no sum panics")
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    fn at_ms(ms: u64) -> Nanos {
        Nanos(ms * 1_000_000)
    }

    /// The budget of a lane that is alone.
    fn own(thousandths: u32, per_second_min: u32) -> Budget {
        Budget::new(Ratio::thousandths(thousandths), per_second_min, Window::default())
    }

    /// The budgets of lanes that share theirs.
    fn shared<const LANES: usize>(thousandths: u32) -> [Budget; LANES] {
        let window = Window::default();
        [(); LANES].map(|()| Budget::new(Ratio::thousandths(thousandths), 0, window.clone()))
    }

    /// What was asked for on one lane pays for a call on another, once.
    #[test]
    fn lanes_share_what_was_paid() {
        let [mut one, mut other] = shared(200);
        (0..5).for_each(|call| one.deposit(at_ms(call)));
        assert!(other.withdraw(at_ms(5)).is_some());
        assert_eq!([one.withdraw(at_ms(5)), other.withdraw(at_ms(5))], [None; 2]);
    }

    /// A call that is given back can be taken by anybody.
    #[test]
    fn calls_are_given_back() {
        let [mut one, mut other] = shared(1000);
        one.deposit(at_ms(0));
        let taken = one.withdraw(at_ms(1)).expect("one is paid for");
        assert_eq!(other.withdraw(at_ms(2_000)), None);
        one.give_back(taken);
        let taken = other.withdraw(at_ms(2_000)).expect("it is there again");
        one.deposit(at_ms(12_000));
        other.give_back(taken);
        assert!(one.withdraw(at_ms(12_001)).is_some());
        assert_eq!(one.withdraw(at_ms(12_001)), None, "what was forgotten is not given back too");
    }

    /// A lane adds what was asked for when its millisecond is over, or when it wants to know.
    #[test]
    fn calls_are_added_together() {
        let [mut one, mut other] = shared(1000);
        (0..3).for_each(|_| one.deposit(at_ms(0)));
        assert!(other.withdraw(at_ms(0)).is_some());
        assert_eq!(other.withdraw(at_ms(0)), None, "two are not in the window yet");
        assert!(one.withdraw(at_ms(0)).is_some() && other.withdraw(at_ms(0)).is_some());
        assert_eq!(one.withdraw(at_ms(0)), None);
    }

    /// Lanes that ask at the same time get what was paid together, to the last call and no more.
    #[test]
    fn threads_share_one_budget() {
        // A fifth of the calls of each lane is no whole number: together they have three more.
        const CALLS: usize = 2_004;
        let lanes = shared::<4>(200);
        let taken: usize = std::thread::scope(|scope| {
            let lanes = lanes.map(|mut lane| {
                scope.spawn(move || {
                    (0..CALLS).for_each(|_| lane.deposit(at_ms(0)));
                    (0..CALLS).filter(|_| lane.withdraw(at_ms(1)).is_some()).count()
                })
            });
            lanes.into_iter().map(|lane| lane.join().expect("no panic")).sum()
        });
        assert_eq!(taken, 4 * CALLS / 5);
    }

    /// One call in five is paid for by the others, and none before.
    #[test]
    fn five_calls_pay_for_one() {
        let mut budget = own(200, 0);
        (0..4).for_each(|_| budget.deposit(at_ms(0)));
        assert_eq!(budget.withdraw(at_ms(1)), None);
        budget.deposit(at_ms(2));
        assert!(budget.withdraw(at_ms(3)).is_some());
        assert_eq!(budget.withdraw(at_ms(4)), None);
    }

    /// What was asked for longer ago than the window pays for nothing.
    #[test]
    fn old_calls_are_forgotten() {
        let mut budget = own(1000, 0);
        (0..50).for_each(|_| budget.deposit(at_ms(0)));
        assert!(budget.withdraw(at_ms(9_999)).is_some());
        assert_eq!(budget.withdraw(at_ms(10_000)), None);
    }

    /// Without any load the reserve is there, once in a window.
    #[test]
    fn reserve_comes_back_after_a_window() {
        let mut budget = own(0, 1);
        let taken =
            |budget: &mut Budget, ms| (0..20).filter(|_| budget.withdraw(at_ms(ms)).is_some()).count();
        assert_eq!(taken(&mut budget, 1_000), 10);
        assert_eq!(taken(&mut budget, 10_999), 0);
        assert_eq!(taken(&mut budget, 11_000), 10);
    }

    proptest! {
        /// Whatever comes when, calls on top stay within the ratio of all, and the reserve.
        #[test]
        fn total_stays_within_the_ratio(
            thousandths in 0..=1000_u32,
            per_second_min in 0..3_u32,
            events in vec((0..3_000_u64, 0..40_usize, 0..40_usize), 1..200),
        ) {
            let ratio = Ratio::thousandths(thousandths);
            let mut budget = Budget::new(ratio, per_second_min, Window::default());
            let (mut now_ms, mut asked, mut on_top) = (0, 0_u64, 0_u64);
            for (pause_ms, deposits, withdrawals) in events {
                now_ms += pause_ms;
                (0..deposits).for_each(|_| budget.deposit(at_ms(now_ms)));
                asked += deposits as u64;
                on_top += (0..withdrawals).filter(|_| budget.withdraw(at_ms(now_ms)).is_some()).count() as u64;
                let reserve = u64::from(per_second_min) * (now_ms / 1000 + 1 + WINDOW_S);
                prop_assert!(on_top <= ratio.of(asked) + reserve, "{on_top} of {asked} at {now_ms} ms");
            }
        }

        /// A clock that seems to stand still or to go back harms nothing.
        #[test]
        fn any_instant_is_taken(instants in vec(any::<u64>(), 1..50)) {
            let mut budget = own(500, 1);
            for instant in instants {
                budget.deposit(Nanos(instant));
                budget.withdraw(Nanos(instant));
            }
        }
    }
}
