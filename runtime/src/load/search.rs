//! The highest clean rate: doubled until it is not clean any more, then halved in between. Pure.

use std::fmt;
use std::time::Duration;

use super::options::RATE_MAX;
use super::pacer::requests_due;

/// The search ends when it knows the rate to this part of it.
const PRECISION: f64 = 0.02;

/// Halvings before a search gives up on a server that is never clean.
const HALVINGS_MAX: u32 = 12;

/// What a step was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Nothing failed, in time, fast enough.
    Clean,
    /// Something failed, or took too long to be answered at all.
    Failing,
    /// Less was done than was offered.
    Behind,
    /// Slower than asked for.
    Slow,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Clean => "clean",
            Self::Failing => "errors or timeouts",
            Self::Behind => "not kept up with",
            Self::Slow => "too slow",
        })
    }
}

/// Where the search is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Search {
    rate: f64,
    clean: Option<f64>,
    not_clean: Option<f64>,
    halvings: u32,
}

impl Search {
    pub(super) fn from(rate: f64) -> Self {
        Self { rate, clean: None, not_clean: None, halvings: 0 }
    }

    /// The rate to try next, in steps of this length; none when the search is over.
    pub(super) fn next_rate(&self, duration: Duration) -> Option<f64> {
        let over = match (self.clean, self.not_clean) {
            (Some(clean), Some(not_clean)) => (not_clean - clean) / clean <= PRECISION,
            (None, Some(_)) => self.halvings > HALVINGS_MAX || requests_due(self.rate, duration) == 0,
            (_, None) => self.rate > RATE_MAX,
        };
        (!over).then_some(self.rate)
    }

    /// What became of the rate that was tried.
    pub(super) fn tell(&mut self, clean: bool) {
        if clean {
            self.clean = Some(self.rate);
        } else {
            self.not_clean = Some(self.rate);
        }
        self.rate = match (self.clean, self.not_clean) {
            (Some(clean), Some(not_clean)) => f64::midpoint(clean, not_clean),
            (Some(clean), None) => clean * 2.0,
            (None, Some(not_clean)) => {
                self.halvings += 1;
                not_clean / 2.0
            }
            (None, None) => self.rate,
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(start: f64, capacity: f64) -> (Option<f64>, u32) {
        let mut search = Search::from(start);
        let mut steps = 0;
        while let Some(rate) = search.next_rate(Duration::from_secs(10)) {
            search.tell(rate <= capacity);
            steps += 1;
        }
        (search.clean, steps)
    }

    /// Whatever the start, what is found is clean and close to what the server can do.
    #[test]
    fn capacity_is_found_from_both_sides() {
        for start in [10.0, 1000.0, 30_000.0, 1_000_000.0] {
            let (clean, steps) = found(start, 31_400.0);
            let clean = clean.expect("something is clean");
            assert!((31_400.0 * 0.98..=31_400.0).contains(&clean), "{clean} from {start}");
            assert!(steps <= 25, "{steps} from {start}");
        }
    }

    /// A server that is never clean, or always, ends the search too.
    #[test]
    fn search_ends() {
        assert_eq!(found(1000.0, 0.0).0, None);
        assert!(found(1000.0, f64::MAX).0.is_some());
        let (clean, steps) = found(0.1, 0.0);
        assert_eq!((clean, steps), (None, 2), "a step of no request says nothing");
    }
}
