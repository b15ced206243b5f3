//! How long things took, as Prometheus counts it: in buckets with fixed bounds.

use std::time::Duration;

/// Upper bounds of all buckets but the last, which has none. Each about twice the one before: from what a call between cells
/// takes to the longest timeouts.
pub const BOUNDS: [Duration; 19] = [
    Duration::from_micros(25),
    Duration::from_micros(50),
    Duration::from_micros(100),
    Duration::from_micros(250),
    Duration::from_micros(500),
    Duration::from_millis(1),
    Duration::from_micros(2500),
    Duration::from_millis(5),
    Duration::from_millis(10),
    Duration::from_millis(25),
    Duration::from_millis(50),
    Duration::from_millis(100),
    Duration::from_millis(250),
    Duration::from_millis(500),
    Duration::from_secs(1),
    Duration::from_millis(2500),
    Duration::from_secs(5),
    Duration::from_secs(10),
    Duration::from_secs(30),
];

/// Durations, counted. The bytes of one are few and fixed, however many it counts.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Histogram {
    /// How many fell between a bound and the one before; the last: beyond all.
    buckets: [u64; BOUNDS.len() + 1],
    sum_nanos: u64,
}

/// [`BOUNDS`], in nanoseconds.
const BOUNDS_NANOS: [u64; BOUNDS.len()] = {
    let mut nanos = [0; BOUNDS.len()];
    let mut place = 0;
    while place < nanos.len() {
        nanos[place] = BOUNDS[place].as_secs() * 1_000_000_000 + BOUNDS[place].subsec_nanos() as u64;
        place += 1;
    }
    nanos
};

impl Histogram {
    /// Counts one. Cost: some comparisons.
    pub fn record(&mut self, took: Duration) {
        let took = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        // Most are a call between cells, or shorter.
        let place =
            if took <= BOUNDS_NANOS[0] { 0 } else { BOUNDS_NANOS.partition_point(|bound| *bound < took) };
        self.buckets[place] += 1;
        self.sum_nanos = self.sum_nanos.saturating_add(took);
    }

    /// Counts all that `other` has counted.
    pub fn add(&mut self, other: &Self) {
        self.buckets.iter_mut().zip(other.buckets).for_each(|(count, more)| *count += more);
        self.sum_nanos = self.sum_nanos.saturating_add(other.sum_nanos);
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }

    /// How many fell between each bound and the one before; the last: beyond all.
    #[must_use]
    pub fn buckets(&self) -> &[u64] {
        &self.buckets
    }

    /// All of them together.
    #[must_use]
    pub fn sum(&self) -> Duration {
        Duration::from_nanos(self.sum_nanos)
    }

    /// How many took no longer than each of [`BOUNDS`].
    pub fn cumulative(&self) -> impl Iterator<Item = (Duration, u64)> {
        let mut below = 0;
        BOUNDS.into_iter().zip(self.buckets).map(move |(bound, count)| {
            below += count;
            (bound, below)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A duration counts for its own bound and all above; one beyond the last bound for none of them.
    #[test]
    fn durations_are_counted_by_their_bounds() {
        let mut histogram = Histogram::default();
        for bound in BOUNDS {
            histogram.record(bound);
        }
        histogram.record(Duration::from_secs(3600));
        let cumulative: Vec<u64> = histogram.cumulative().map(|(_, count)| count).collect();
        let expected: Vec<u64> = (1..=BOUNDS.len() as u64).collect();
        assert_eq!((cumulative, histogram.count()), (expected, BOUNDS.len() as u64 + 1));
        assert!(BOUNDS.is_sorted() && histogram.sum() > Duration::from_secs(3600));
        let mut twice = histogram.clone();
        twice.add(&histogram);
        assert_eq!((twice.count(), twice.sum()), (2 * histogram.count(), 2 * histogram.sum()));
    }
}
