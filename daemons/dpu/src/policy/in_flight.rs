//! Places of a service's requests in flight, which all lanes of the process take from one count.
//!
//! - A place is taken when a request is sent and given back with its answer. A body that is still being read has none:
//!   slow clients must not shut out others.
//! - The count is exact: with room for one more, one of two lanes gets it.
//! - cost: two atomic writes for each request, and those only for services with such a policy.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

/// Requests of one service in flight. Clones are the same count.
#[derive(Debug, Clone, Default)]
pub(super) struct InFlight(Arc<AtomicU32>);

/// One of them, for as long as this lives.
#[derive(Debug)]
pub(super) struct Place(InFlight);

impl InFlight {
    /// Whether [`InFlight::take`] would succeed now.
    pub(super) fn has_room(&self, max: u32) -> bool {
        self.0.load(Ordering::Relaxed) < max
    }

    /// A place, if fewer than `max` are taken.
    pub(super) fn take(&self, max: u32) -> Option<Place> {
        // The count guards no other memory: nothing has to be ordered with it.
        let more = |taken| (taken < max).then_some(taken + 1);
        self.0.try_update(Ordering::Relaxed, Ordering::Relaxed, more).ok()?;
        Some(Place(self.clone()))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// However places are taken and given back, through whichever clone: never more than `max`, and never fewer
        /// than `max` while there is somebody who wants one.
        #[test]
        fn places_are_as_many_as_said(max in 0u32..5, deeds in prop::collection::vec(any::<(bool, bool, u8)>(), 0..60)) {
            let count = InFlight::default();
            let lanes = [count.clone(), count];
            let mut held: Vec<Place> = Vec::new();
            for (takes, lane, which) in deeds {
                if takes {
                    let lane = &lanes[usize::from(lane)];
                    let expected = held.len() < max as usize;
                    prop_assert_eq!(lane.has_room(max), expected);
                    let place = lane.take(max);
                    prop_assert_eq!(place.is_some(), expected);
                    held.extend(place);
                } else if !held.is_empty() {
                    held.swap_remove(usize::from(which) % held.len());
                }
            }
            held.clear();
            prop_assert_eq!(lanes[0].0.load(Ordering::Relaxed), 0);
        }
    }

    /// Threads that take at the same time are given no more than there are.
    #[test]
    fn threads_share_one_count() {
        let count = InFlight::default();
        let taken: Vec<Place> = std::thread::scope(|scope| {
            let take = || (0..100).filter_map(|_| count.take(150)).collect::<Vec<_>>();
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(take)).collect();
            threads.into_iter().flat_map(|thread| thread.join().expect("no panic")).collect()
        });
        assert_eq!(taken.len(), 150);
        assert!(!count.has_room(150));
    }
}
