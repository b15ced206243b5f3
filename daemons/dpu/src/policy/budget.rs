//! Budget: how many calls may be made on top of those that were asked for.
//!
//! ```text
//! calls asked for in the window * ratio + per_second_min * window  >=  calls made on top in the window
//! ```
//!
//! - What is down gets no more than its usual load and that share of it: retries cannot make a storm.
//! - Since calls on top are remembered as long as those that paid for them, none is paid for twice: of all calls ever, those on
//!   top are at most the ratio of those asked for, and `per_second_min` for each second and once more for a window.
//! - The window moves by whole slices. Pure: time is passed in.
//! - Source: the retry budgets of Finagle and Linkerd.

use cellmesh_shm::clock::Nanos;

use crate::units::Ratio;

/// What the budget remembers. Source: Linkerd's default `ttl`.
pub(crate) const WINDOW_S: u64 = 10;
/// Parts that the window moves by.
const SLICES: usize = 10;
const SLICE_NS: u64 = WINDOW_S * 1_000_000_000 / SLICES as u64;

/// A budget of calls on top.
#[derive(Debug)]
pub(crate) struct Budget {
    ratio: Ratio,
    /// What may be made in a window even if hardly anything was asked for.
    reserve: u64,
    slices: [Slice; SLICES],
    /// Number of the slice that is being counted in, since the clock's zero.
    newest: u64,
}

#[derive(Debug, Clone, Copy, Default)]
struct Slice {
    asked: u64,
    on_top: u64,
}

impl Budget {
    /// - `per_second_min`: calls on top that are always allowed, on average over the window.
    pub(crate) fn new(ratio: Ratio, per_second_min: u32) -> Self {
        let reserve = u64::from(per_second_min) * WINDOW_S;
        Self { ratio, reserve, slices: [Slice::default(); SLICES], newest: 0 }
    }

    /// A call was asked for.
    pub(crate) fn deposit(&mut self, now: Nanos) {
        self.slice(now).asked += 1;
    }

    /// Whether [`Budget::withdraw`] would take a call now.
    pub(crate) fn has_room(&mut self, now: Nanos) -> bool {
        self.slice(now);
        let sum = |of: fn(&Slice) -> u64| self.slices.iter().map(of).sum::<u64>();
        let may = self.ratio.of(sum(|slice| slice.asked)) + self.reserve;
        sum(|slice| slice.on_top) < may
    }

    /// Takes a call on top, if there is one left.
    pub(crate) fn withdraw(&mut self, now: Nanos) -> bool {
        let has_room = self.has_room(now);
        self.slice(now).on_top += u64::from(has_room);
        has_room
    }

    /// The slice of `now`; what is older than the window is forgotten.
    fn slice(&mut self, now: Nanos) -> &mut Slice {
        let number = (now.0 / SLICE_NS).max(self.newest);
        for passed in (self.newest + 1..=number).take(SLICES) {
            self.slices[place(passed)] = Slice::default();
        }
        self.newest = number;
        &mut self.slices[place(number)]
    }
}

fn place(number: u64) -> usize {
    usize::try_from(number % SLICES as u64).expect("less than the slices")
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    fn at_ms(ms: u64) -> Nanos {
        Nanos(ms * 1_000_000)
    }

    /// One call in five is paid for by the others, and none before.
    #[test]
    fn five_calls_pay_for_one() {
        let mut budget = Budget::new(Ratio::thousandths(200), 0);
        (0..4).for_each(|_| budget.deposit(at_ms(0)));
        assert!(!budget.withdraw(at_ms(1)));
        budget.deposit(at_ms(2));
        assert!(budget.withdraw(at_ms(3)));
        assert!(!budget.withdraw(at_ms(4)));
    }

    /// What was asked for longer ago than the window pays for nothing.
    #[test]
    fn old_calls_are_forgotten() {
        let mut budget = Budget::new(Ratio::thousandths(1000), 0);
        (0..50).for_each(|_| budget.deposit(at_ms(0)));
        assert!(budget.withdraw(at_ms(9_999)));
        assert!(!budget.withdraw(at_ms(10_000)));
    }

    /// Without any load the reserve is there, once in a window.
    #[test]
    fn reserve_comes_back_after_a_window() {
        let mut budget = Budget::new(Ratio::thousandths(0), 1);
        let taken = |budget: &mut Budget, ms| (0..20).filter(|_| budget.withdraw(at_ms(ms))).count();
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
            let mut budget = Budget::new(ratio, per_second_min);
            let (mut now_ms, mut asked, mut on_top) = (0, 0_u64, 0_u64);
            for (pause_ms, deposits, withdrawals) in events {
                now_ms += pause_ms;
                (0..deposits).for_each(|_| budget.deposit(at_ms(now_ms)));
                asked += deposits as u64;
                on_top += (0..withdrawals).filter(|_| budget.withdraw(at_ms(now_ms))).count() as u64;
                let reserve = u64::from(per_second_min) * (now_ms / 1000 + 1 + WINDOW_S);
                prop_assert!(on_top <= ratio.of(asked) + reserve, "{on_top} of {asked} at {now_ms} ms");
            }
        }

        /// A clock that seems to stand still or to go back harms nothing.
        #[test]
        fn any_instant_is_taken(instants in vec(any::<u64>(), 1..50)) {
            let mut budget = Budget::new(Ratio::thousandths(500), 1);
            for instant in instants {
                budget.deposit(Nanos(instant));
                budget.withdraw(Nanos(instant));
            }
        }
    }
}
