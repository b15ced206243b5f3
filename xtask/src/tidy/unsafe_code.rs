//! Where `unsafe` may be written by hand.

use super::rust_source::code_only;
use super::{Finding, Source};

/// The files, and why safe code will not do there. Each of them says more in its header.
const ALLOWED: [&str; 1] = [
    // Maps memory that another process writes.
    "daemons/shm/src/segment.rs",
];

pub(super) fn check(source: &Source) -> Vec<Finding> {
    if ALLOWED.contains(&source.path.as_str()) {
        return Vec::new();
    }
    let code = code_only(&source.text);
    let lines = code.lines().enumerate().filter(|(_, line)| has_unsafe(line));
    lines.map(|(index, _)| source.finding(index + 1, message())).collect()
}

fn message() -> String {
    format!("`unsafe` outside {}: use what that file offers", ALLOWED.join(", "))
}

/// Whether the word is there; `unsafe_code` is another word.
fn has_unsafe(line: &str) -> bool {
    line.split(|c: char| c != '_' && !c.is_ascii_alphanumeric()).any(|word| word == "unsafe")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Put into samples: samples in plain text would be found by others who look for the word.
    const WORD: &str = "unsafe";

    fn lines(path: &str, text: &str) -> Vec<usize> {
        let source = Source { path: path.to_owned(), text: text.to_owned() };
        check(&source).into_iter().map(|finding| finding.line).collect()
    }

    /// Blocks, functions, impls and attributes are found; words in comments and texts are not.
    #[test]
    fn unsafe_is_found_as_code_only() {
        let text = format!(
            "//! {WORD}\n#![deny({WORD}_code)]\nlet a = {WORD} {{ b }};\n\
             {WORD} impl Send for C {{}}\n#[{WORD}(no_mangle)]\nlet d = \"{WORD}\";\n"
        );
        assert_eq!(lines("runtime/src/a.rs", &text), [3, 4, 5]);
    }

    /// One file has it.
    #[test]
    fn segment_may_be_unsafe() {
        let block = format!("{WORD} {{ a }}");
        assert_eq!(lines("daemons/shm/src/segment.rs", &block), [0; 0]);
        assert_eq!(lines("daemons/shm/src/ring.rs", &block), [1]);
    }
}
