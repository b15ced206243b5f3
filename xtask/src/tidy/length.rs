//! How long a file may be.

use super::{Finding, Source};

/// More lines than this are more than one question.
const LINES_MAX: usize = 600;

pub(super) fn check(source: &Source) -> Option<Finding> {
    let lines = code_lines(source);
    (lines > LINES_MAX).then(|| {
        let message = format!("{lines} lines without tests: split it, at most {LINES_MAX}");
        source.finding(LINES_MAX + 1, message)
    })
}

/// The lines in front of the tests; files of tests have none.
fn code_lines(source: &Source) -> usize {
    let is_test = source.path.ends_with("/tests.rs")
        || source.path.starts_with("tests/")
        || source.path.contains("/tests/");
    if is_test {
        return 0;
    }
    let end = source.text.find("#[cfg(test)]\nmod tests {").unwrap_or(source.text.len());
    source.text[..end].lines().count()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_lines(path: &str, before_tests: usize, in_tests: usize) -> Option<Finding> {
        let code = "x\n".repeat(before_tests);
        let text = format!("{code}#[cfg(test)]\nmod tests {{\n{}}}\n", "y\n".repeat(in_tests));
        check(&Source { path: path.to_owned(), text })
    }

    /// Tests do not count, code does.
    #[test]
    fn only_code_counts() {
        assert_eq!(check_lines("a/src/b.rs", LINES_MAX, 900), None);
        let finding = check_lines("a/src/b.rs", LINES_MAX + 1, 0).unwrap();
        assert_eq!(finding.to_string(), "a/src/b.rs:601: 601 lines without tests: split it, at most 600");
        assert_eq!(check_lines("a/src/b/tests.rs", 900, 0), None);
        assert_eq!(check_lines("tests/src/b.rs", 900, 0), None);
    }
}
