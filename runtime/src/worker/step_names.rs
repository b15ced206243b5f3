//! Names of steps as labels of metrics: the first sixteen of a service by themselves, all others as one.
//!
//! - A name is what the id of a step has before its first `#`: the SDK numbers the steps of a graph behind it.
//! - A cell chooses them, and may make them of what clients say: so they are bounded, in number and in length, and in what they
//!   are made of.
//! - They are the same on all lanes of a process, and a name that has a place keeps it: a series goes on.

use std::sync::{Arc, Mutex, PoisonError};

/// Names of a service that are told apart. Each costs three histograms of calls, and one for each service that it calls.
const NAMES_MAX: usize = 16;

/// What all others are called.
const OTHER: &str = "other";

/// A longer name is one of the others.
const NAME_BYTES_MAX: usize = 64;

/// Those of one service, in the order in which they were seen. A cheap handle.
#[derive(Debug, Clone, Default)]
pub struct StepNames(Arc<Mutex<Vec<Arc<str>>>>);

/// A lane's copy of them.
#[derive(Debug, Default)]
pub(super) struct KnownNames {
    all: StepNames,
    known: Vec<Arc<str>>,
}

/// What is counted by the names of steps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ByStep<T>(Vec<T>);

/// What can be counted together.
pub trait Tally: Default {
    /// Counts all that `other` has counted.
    fn add(&mut self, other: &Self);
}

impl KnownNames {
    pub(super) fn of(all: &StepNames) -> Self {
        Self { all: all.clone(), known: Vec::new() }
    }

    pub(super) fn known(&self) -> &[Arc<str>] {
        &self.known
    }

    /// The place of a step with this id; that behind all names for one that is not known.
    ///
    /// - cost: a comparison with each name that is known; a lock when one is new here.
    pub(super) fn place(&mut self, id: Option<&str>) -> usize {
        let Some(name) = id.and_then(|id| id.split('#').next()) else { return NAMES_MAX };
        match self.known.iter().position(|known| **known == *name) {
            Some(place) => place,
            None if self.known.len() == NAMES_MAX => NAMES_MAX,
            None => self.learn(name),
        }
    }

    #[cold]
    fn learn(&mut self, name: &str) -> usize {
        if !is_label(name) {
            return NAMES_MAX;
        }
        // Nothing that can panic runs under the lock.
        let mut all = self.all.0.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() < NAMES_MAX && all.iter().all(|known| **known != *name) {
            all.push(name.into());
        }
        self.known.clone_from(&all);
        self.known.iter().position(|known| **known == *name).unwrap_or(NAMES_MAX)
    }
}

/// Whether a step is told apart by this name: others might be text of clients, or what the others are called.
fn is_label(name: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_-.:/ ".contains(&byte);
    (1..=NAME_BYTES_MAX).contains(&name.len()) && name.bytes().all(is_plain) && name != OTHER
}

impl<T> Default for ByStep<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T: Tally> ByStep<T> {
    /// What is counted at a place of [`KnownNames::place`].
    pub(super) fn at(&mut self, place: usize) -> &mut T {
        if self.0.len() <= place {
            self.0.resize_with(place + 1, T::default);
        }
        &mut self.0[place]
    }

    /// All of it together.
    #[must_use]
    pub fn sum(&self) -> T {
        let mut sum = T::default();
        self.0.iter().for_each(|one| sum.add(one));
        sum
    }

    /// Name and count of each. `names`: those of the service, by their places.
    pub fn named<'n>(&'n self, names: &'n [Arc<str>]) -> impl Iterator<Item = (&'n str, &'n T)> {
        let name = |place: usize| match names.get(place) {
            Some(name) => Some(&**name),
            None => (place == NAMES_MAX).then_some(OTHER),
        };
        self.0.iter().enumerate().filter_map(move |(place, one)| Some((name(place)?, one)))
    }
}

impl Tally for u64 {
    fn add(&mut self, other: &Self) {
        *self += other;
    }
}

impl<T: Tally> Tally for ByStep<T> {
    fn add(&mut self, other: &Self) {
        other.0.iter().enumerate().for_each(|(place, more)| self.at(place).add(more));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A name has the same place on each lane, whichever sees it first; what has none is one of the others.
    #[test]
    fn names_are_the_same_on_all_lanes() {
        let all = StepNames::default();
        let [mut one, mut other] = [KnownNames::of(&all), KnownNames::of(&all)];
        assert_eq!((one.place(Some("a#0")), one.place(Some("b#1")), one.place(Some("a#17"))), (0, 1, 0));
        assert_eq!((other.place(Some("c")), other.place(Some("b"))), (2, 1));
        assert_eq!((one.place(Some("c#3#4")), one.place(None)), (2, NAMES_MAX));
        for name in ["#1", &"x".repeat(65), "other", "a\"b", "a\nb", "\u{e4}"] {
            assert_eq!(one.place(Some(name)), NAMES_MAX, "{name:?}");
        }
    }

    /// However many names there are, so many have a place of their own, and keep it.
    #[test]
    fn names_are_bounded() {
        let all = StepNames::default();
        let [mut one, mut other] = [KnownNames::of(&all), KnownNames::of(&all)];
        let places: Vec<usize> = (0..100).map(|step| one.place(Some(&format!("step-{step}")))).collect();
        let expected: Vec<usize> = (0..100).map(|step: usize| step.min(NAMES_MAX)).collect();
        assert_eq!(places, expected);
        assert_eq!((other.place(Some("step-99")), other.place(Some("step-15"))), (NAMES_MAX, 15));
        assert_eq!(other.known().len(), NAMES_MAX);
    }
}
