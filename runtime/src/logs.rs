//! The log: where it goes, and what is in it, which can be changed while the process runs.

use std::io::IsTerminal;
use std::sync::OnceLock;

use tracing::{Level, Metadata};
use tracing_subscriber::filter::{FilterFn, ParseError};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::reload::{self, Handle};
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, fmt};

/// What is logged where nobody asks for something else.
const DEFAULT: &str = "info";

/// The log of this process.
static LOG: OnceLock<Box<dyn Filtered>> = OnceLock::new();

/// What can say and change what is logged.
trait Filtered: Send + Sync {
    fn get(&self) -> Option<String>;
    fn set(&self, filter: EnvFilter) -> Result<(), FilterError>;
}

impl<S: 'static> Filtered for Handle<EnvFilter, S> {
    fn get(&self) -> Option<String> {
        self.with_current(ToString::to_string).ok()
    }

    fn set(&self, filter: EnvFilter) -> Result<(), FilterError> {
        self.reload(filter).map_err(|_| FilterError::NoLog)
    }
}

/// Why what is logged was not changed.
#[derive(Debug, thiserror::Error)]
pub enum FilterError {
    /// It is no filter.
    #[error(
        "{found:?} is no filter: {why}; write a level (error, warn, info, debug, trace) or target=level, with commas between"
    )]
    Parse {
        /// What was found.
        found: String,
        /// Why.
        why: String,
    },
    /// This process did not start a log.
    #[error("the log of this process cannot be changed")]
    NoLog,
}

/// Starts the log, to standard error: text for people, JSON lines for programs. `RUST_LOG` says what is logged.
pub fn start() {
    let asked = std::env::var(EnvFilter::DEFAULT_ENV).ok().filter(|text| !text.trim().is_empty());
    let filter = asked.as_deref().map_or_else(|| Ok(EnvFilter::new(DEFAULT)), filter);
    let (filter, wrong) =
        filter.map_or_else(|why| (EnvFilter::new(DEFAULT), Some(why)), |right| (right, None));
    let (filter, handle) = reload::Layer::new(filter);
    let lines = fmt::layer().with_writer(std::io::stderr);
    let log = tracing_subscriber::registry().with(filter).with(FilterFn::new(is_bounded));
    if std::io::stderr().is_terminal() {
        log.with(lines).init();
    } else {
        log.with(lines.json().flatten_event(true)).init();
    }
    keep(handle);
    if let Some(why) = wrong {
        tracing::warn!("RUST_LOG: {why}; logging {DEFAULT}");
    }
}

/// Whether a line may be written whatever filter is set. What watches config files says each change in their folder in trace: where
/// the log is a file there, each line would lead to the next.
fn is_bounded(line: &Metadata<'_>) -> bool {
    let target = line.target();
    let is_of_watcher = target == "notify" || target.starts_with("notify::");
    !is_of_watcher || *line.level() <= Level::INFO
}

/// Who starts a second log has failed before this: a process has one.
fn keep(log: impl Filtered + 'static) {
    let _ = LOG.set(Box::new(log));
}

fn filter(text: &str) -> Result<EnvFilter, FilterError> {
    let bad = |why: String| FilterError::Parse { found: text.to_owned(), why };
    if text.trim().is_empty() {
        return Err(bad("it is empty".into()));
    }
    // Values of fields are compared as they are: as a pattern, a few of their bytes could cost all memory.
    let filter = EnvFilter::builder().with_regex(false).parse(text.trim());
    filter.map_err(|error: ParseError| bad(error.to_string()))
}

/// What is logged now, as [`set`] takes it; `None` if this process did not start a log.
#[must_use]
pub fn get() -> Option<String> {
    LOG.get()?.get()
}

/// From now on that is logged.
///
/// # Errors
/// [`FilterError`]; then what was logged still is.
pub fn set(text: &str) -> Result<(), FilterError> {
    let filter = filter(text)?;
    // Before it is changed: what is logged then may not have this in it.
    tracing::warn!(to = text.trim(), "what is logged is changed");
    LOG.get().ok_or(FilterError::NoLog)?.set(filter)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is no filter says so, with what would be one.
    #[test]
    fn only_filters_are_taken() {
        for text in ["warn", "info,cellmesh_dpu=debug", " debug\n"] {
            assert!(filter(text).is_ok(), "{text:?}");
        }
        // A pattern with 2^40 states, if it were one.
        assert!(filter(&format!("[a{{b=1{}}}]=info", "(0|1)".repeat(40))).is_ok());
        for text in ["", " ", "info,,=", "cellmesh=loud"] {
            let error = filter(text).expect_err(text).to_string();
            assert!(error.contains("is no filter") && error.contains("target=level"), "{error}");
        }
    }
}
