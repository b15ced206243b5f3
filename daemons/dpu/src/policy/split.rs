//! A share of a service's requests for another service: a canary.
//!
//! - Which request goes where is drawn for each, by a random number from outside: the rest is a pure function of it.
//! - A request that went to another service is not asked again by that service's policy.

use std::collections::BTreeMap;

use cellmesh_shm::ids::ServiceId;

use crate::routes::Routes;

/// Whether shares in percent can be those of one whole.
pub(super) fn is_whole(shares: &BTreeMap<String, u8>) -> bool {
    let sum: u32 = shares.values().map(|share| u32::from(*share)).sum();
    sum <= 100 && shares.values().all(|share| *share > 0)
}

/// Where requests go instead: service and percent, in the order of their names. What is left stays.
#[derive(Debug, Default)]
pub(super) struct Split(Vec<(ServiceId, u8)>);

impl Split {
    /// Names that are no services get nothing: config refuses them.
    pub(super) fn new(shares: &BTreeMap<String, u8>, routes: &Routes) -> Self {
        Self(shares.iter().filter_map(|(name, share)| Some((routes.id(name)?, *share))).collect())
    }

    /// Whether nothing goes elsewhere, so that nobody has to draw.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The service that a request goes to instead of its own. `random`: any number, each as likely.
    pub(super) fn choose(&self, random: u32) -> Option<ServiceId> {
        // The high half of the product: 0 to 99, each for as many numbers, but for one in 40 million.
        let drawn = (u64::from(random) * 100) >> 32;
        let mut end = 0;
        self.0
            .iter()
            .find(|(_, share)| {
                end += u64::from(*share);
                drawn < end
            })
            .map(|(service, _)| *service)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn split(shares: &[u8]) -> Split {
        Split((0..).zip(shares).map(|(service, share)| (ServiceId(service), *share)).collect())
    }

    proptest! {
        /// Each service gets its share of all numbers, to within one in ten thousand, and no other service any.
        #[test]
        fn shares_are_kept(first in 0u8..=100, second in 0u8..=100) {
            prop_assume!(first + second <= 100);
            let split = split(&[first, second]);
            let mut counts = [0_u32; 3];
            let draws = 10_000;
            for draw in 0..draws {
                let random = u32::try_from(u64::from(draw) * u64::from(u32::MAX) / u64::from(draws - 1)).expect("fits");
                counts[split.choose(random).map_or(2, |service| usize::from(service.0))] += 1;
            }
            for (count, share) in counts.into_iter().zip([first, second, 100 - first - second]) {
                prop_assert!(count.abs_diff(u32::from(share) * draws / 100) <= 1, "{:?}", counts);
            }
        }
    }

    /// The ends: nothing goes without a share, everything with all of it.
    #[test]
    fn ends_are_exact() {
        for random in [0, 1, u32::MAX / 2, u32::MAX - 1, u32::MAX] {
            assert_eq!(split(&[]).choose(random), None);
            assert_eq!(split(&[0]).choose(random), None);
            assert_eq!(split(&[100]).choose(random), Some(ServiceId(0)));
        }
    }

    /// More than the whole, and a share of nothing, are refused.
    #[test]
    fn shares_have_bounds() {
        let shares =
            |shares: &[(&str, u8)]| shares.iter().map(|(name, share)| ((*name).to_owned(), *share)).collect();
        assert!(is_whole(&shares(&[("a", 60), ("b", 40)])));
        assert!(!is_whole(&shares(&[("a", 60), ("b", 41)])));
        assert!(!is_whole(&shares(&[("a", 0)])));
    }
}
