//! Adding up what test programs say about themselves.

use std::fmt;
use std::ops::AddAssign;

/// Tests that ran, or did not.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Summary {
    pub(crate) passed: u32,
    pub(crate) failed: u32,
    pub(crate) skipped: u32,
}

impl Summary {
    /// One test, or one suite, that could not run on this machine.
    pub(crate) const SKIPPED: Self = Self { passed: 0, failed: 0, skipped: 1 };
    /// One suite that counts as one test and holds.
    pub(crate) const PASSED: Self = Self { passed: 1, failed: 0, skipped: 0 };
    /// One failure that no test counted: a test that does not compile, or a program that died.
    pub(crate) const FAILED: Self = Self { passed: 0, failed: 1, skipped: 0 };

    /// Reads a line such as `test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; ...`.
    /// `None` for every other line.
    pub(crate) fn of_line(line: &str) -> Option<Self> {
        let counts = line.strip_prefix("test result: ")?;
        Some(Self {
            passed: count(counts, "passed")?,
            failed: count(counts, "failed")?,
            skipped: count(counts, "ignored")?,
        })
    }
}

/// The number before ` what`.
fn count(counts: &str, what: &str) -> Option<u32> {
    let part = counts.split(';').map(str::trim).find(|part| part.ends_with(what))?;
    part.strip_suffix(what)?.trim_end().rsplit(' ').next()?.parse().ok()
}

impl AddAssign for Summary {
    fn add_assign(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} passed, {} failed, {} skipped", self.passed, self.failed, self.skipped)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Both outcomes of a real test program.
    #[test]
    fn results_are_read() {
        let ok = "test result: ok. 13 passed; 0 failed; 2 ignored; 0 measured; 4 filtered out; \
                  finished in 0.01s";
        let failed = "test result: FAILED. 1 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out; \
                      finished in 0.01s";
        assert_eq!(Summary::of_line(ok), Some(Summary { passed: 13, failed: 0, skipped: 2 }));
        assert_eq!(Summary::of_line(failed), Some(Summary { passed: 1, failed: 2, skipped: 0 }));
    }

    /// Names of tests and output of programs are not results.
    #[test]
    fn other_lines_are_not_results() {
        for line in ["test result_is_kept ... ok", "running 3 tests", "", "test result: what"] {
            assert_eq!(Summary::of_line(line), None, "{line}");
        }
    }

    /// The last line of a run, as scripts read it.
    #[test]
    fn summary_is_one_plain_line() {
        let mut sum = Summary { passed: 3, failed: 0, skipped: 0 };
        sum += Summary::FAILED;
        sum += Summary::SKIPPED;
        assert_eq!(sum.to_string(), "3 passed, 1 failed, 1 skipped");
    }
}
