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

/// How a line is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    /// For people.
    Text { is_coloured: bool },
    /// For programs.
    Json,
}

/// What names a format.
const FORMAT: &str = "CELLMESH_LOG_FORMAT";
/// What keeps colours away, whatever it says. Source: no-color.org.
const NO_COLOR: &str = "NO_COLOR";

/// Starts the log, to standard error. `RUST_LOG` says what is logged, `CELLMESH_LOG_FORMAT` how; else it is text on a terminal and JSON
/// lines elsewhere.
pub fn start() {
    let asked = variable(EnvFilter::DEFAULT_ENV);
    let filter = asked.as_deref().map_or_else(|| Ok(EnvFilter::new(DEFAULT)), filter);
    let (filter, wrong) =
        filter.map_or_else(|why| (EnvFilter::new(DEFAULT), Some(why)), |right| (right, None));
    let (format, unknown) = Format::of(variable, std::io::stderr().is_terminal());
    let (filter, handle) = reload::Layer::new(filter);
    let lines = fmt::layer().with_writer(std::io::stderr);
    let log = tracing_subscriber::registry().with(filter).with(FilterFn::new(is_bounded));
    match format {
        Format::Text { is_coloured } => log.with(lines.with_ansi(is_coloured)).init(),
        Format::Json => log.with(lines.json().flatten_event(true)).init(),
    }
    keep(handle);
    if let Some(why) = wrong {
        tracing::warn!("RUST_LOG: {why}; logging {DEFAULT}");
    }
    if let Some(why) = unknown {
        tracing::warn!("{why}");
    }
}

/// A variable of the environment that says something.
fn variable(name: &str) -> Option<String> {
    let text = std::env::var_os(name)?.to_string_lossy().into_owned();
    Some(text).filter(|text| !text.trim().is_empty())
}

impl Format {
    /// The format that the environment asks for, and why it is not what was asked for, if that is none.
    fn of(variable: impl Fn(&str) -> Option<String>, is_terminal: bool) -> (Self, Option<String>) {
        let text = Self::Text { is_coloured: is_terminal && variable(NO_COLOR).is_none() };
        let usual = if is_terminal { text } else { Self::Json };
        let asked = variable(FORMAT);
        match asked.as_deref().map(str::trim) {
            None => (usual, None),
            Some("text") => (text, None),
            Some("json") => (Self::Json, None),
            Some(other) => {
                let name = if usual == Self::Json { "json" } else { "text" };
                (usual, Some(format!("{FORMAT} = {other:?}: must be text or json; logging {name}")))
            }
        }
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

    /// Who asks for a format has it; colours are for terminals, and for nobody who wants none.
    #[test]
    fn format_is_as_asked() {
        let [plain, coloured] = [false, true].map(|is_coloured| Format::Text { is_coloured });
        for (asked, no_color, is_terminal, expected) in [
            (None, None, true, coloured),
            (None, None, false, Format::Json),
            (None, Some("1"), true, plain),
            (None, Some("1"), false, Format::Json),
            (Some("text"), None, true, coloured),
            (Some("text"), None, false, plain),
            (Some("text"), Some("1"), true, plain),
            (Some(" json\n"), None, true, Format::Json),
            (Some("json"), None, false, Format::Json),
        ] {
            let variable = |name: &str| if name == FORMAT { asked } else { no_color }.map(Into::into);
            let found = Format::of(variable, is_terminal);
            assert_eq!(found, (expected, None), "{asked:?} {no_color:?} {is_terminal}");
        }
        for (is_terminal, expected, name) in [(true, coloured, "text"), (false, Format::Json, "json")] {
            let (found, why) = Format::of(|name| (name == FORMAT).then(|| "JSON".into()), is_terminal);
            assert_eq!(found, expected);
            let why = why.expect("it is none");
            assert_eq!(why, format!("CELLMESH_LOG_FORMAT = \"JSON\": must be text or json; logging {name}"));
        }
    }

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
