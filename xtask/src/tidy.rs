//! Our own rules, each with a message that names file and line.
//!
//! | rule | where |
//! |---|---|
//! | `unsafe` is written in a few named files only (that each block has a `SAFETY:` comment is a clippy lint) | [`unsafe_code`] |
//! | a file answers one question: at most 600 lines without its tests | [`length`] |
//! | links between our pages lead somewhere | [`links`] |
//! | crates depend on each other in one direction | [`layers`] |

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result};

use crate::workspace::Workspace;

mod layers;
mod length;
mod links;
mod rust_source;
mod unsafe_code;

/// Folders that hold nothing of ours: build results and what starts with a dot.
const BUILD_RESULTS: &str = "target";

/// Something that breaks a rule.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Finding {
    /// From the root of the checkout.
    file: String,
    /// Counted from 1.
    line: usize,
    message: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.file, self.line, self.message)
    }
}

/// A file of ours that is text.
struct Source {
    /// From the root of the checkout.
    path: String,
    text: String,
}

/// Prints all findings.
pub(crate) fn run(workspace: &Workspace) -> Result<ExitCode> {
    let mut findings = layers::check(workspace)?;
    for source in sources(&workspace.root)? {
        findings.extend(check(&workspace.root, &source));
    }
    findings.sort();
    for finding in &findings {
        println!("{finding}");
    }
    if findings.is_empty() {
        return Ok(ExitCode::SUCCESS);
    }
    eprintln!("tidy: {} findings", findings.len());
    Ok(ExitCode::FAILURE)
}

fn check(root: &Path, source: &Source) -> Vec<Finding> {
    match Path::new(&source.path).extension().and_then(|extension| extension.to_str()) {
        Some("rs") => unsafe_code::check(source).into_iter().chain(length::check(source)).collect(),
        Some("md") => links::check(source, |path| root.join(path).exists()),
        _ => Vec::new(),
    }
}

/// All Rust and Markdown files of the checkout.
fn sources(root: &Path) -> Result<Vec<Source>> {
    let mut folders = vec![root.to_owned()];
    let mut sources = Vec::new();
    while let Some(folder) = folders.pop() {
        let entries = fs::read_dir(&folder).with_context(|| format!("cannot read {}", folder.display()))?;
        for entry in entries {
            let path = entry.with_context(|| format!("cannot read {}", folder.display()))?.path();
            if is_ours(&path) && path.is_dir() {
                folders.push(path);
            } else if is_source(&path) {
                sources.push(Source::read(root, &path)?);
            }
        }
    }
    Ok(sources)
}

fn is_ours(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    !name.starts_with('.') && name != BUILD_RESULTS && !path.is_symlink()
}

fn is_source(path: &Path) -> bool {
    path.is_file() && path.extension().is_some_and(|extension| extension == "rs" || extension == "md")
}

impl Source {
    fn read(root: &Path, path: &PathBuf) -> Result<Self> {
        let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        let relative = path.strip_prefix(root).unwrap_or(path);
        Ok(Self { path: relative.to_string_lossy().into_owned(), text })
    }

    fn finding(&self, line: usize, message: impl Into<String>) -> Finding {
        Finding { file: self.path.clone(), line, message: message.into() }
    }
}
