//! Commands that look at a process from outside: `cellmesh top` and `cellmesh graph`. They ask its admin port.

mod client;
pub mod graph;
mod output;
pub mod top;

use std::path::Path;

use anyhow::Context;
use serde::de::DeserializeOwned;

pub(crate) use client::AdminPort;
pub(crate) use output::say;

/// Longest file with a recording, or an answer of the admin port that was saved.
const FILE_BYTES_MAX: u64 = 64 << 20;

/// Text that somebody else chose, on one line of a terminal or a picture: cut, and what would steer it written out.
pub(crate) fn shown(text: &str, letters_max: usize) -> String {
    let mut shown = String::new();
    for letter in text.chars().take(letters_max) {
        if letter.is_control() {
            shown.extend(letter.escape_default());
        } else {
            shown.push(letter);
        }
    }
    if text.chars().nth(letters_max).is_some() {
        shown.push('…');
    }
    shown
}

/// A file as JSON; `-` is standard input.
///
/// # Errors
/// It cannot be read, is too long, or is not what it should be.
pub(crate) fn read_json<T: DeserializeOwned>(file: &Path, what: &str) -> anyhow::Result<T> {
    use std::io::Read;
    let mut text = Vec::new();
    let shown = file.display();
    let from: Box<dyn Read> = if file == Path::new("-") {
        Box::new(std::io::stdin())
    } else {
        Box::new(std::fs::File::open(file).with_context(|| format!("{shown} cannot be read"))?)
    };
    let taken = from.take(FILE_BYTES_MAX + 1).read_to_end(&mut text);
    taken.with_context(|| format!("{shown} cannot be read"))?;
    anyhow::ensure!(
        text.len() as u64 <= FILE_BYTES_MAX,
        "{shown} is longer than {} MiB",
        FILE_BYTES_MAX >> 20
    );
    serde_json::from_slice(&text).with_context(|| format!("{shown}: must be {what}"))
}
