//! The log: where it goes, and what is in it, which can be changed while the process runs.

use std::io::IsTerminal;
use std::sync::OnceLock;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::ParseError;

/// What is logged where nobody asks for something else.
const DEFAULT: &str = "info";

/// Sets what is logged: once for the process, as its log is.
static SET: OnceLock<Box<dyn Fn(EnvFilter) -> Result<(), String> + Send + Sync>> = OnceLock::new();
/// Says what is logged.
static GET: OnceLock<Box<dyn Fn() -> Option<String> + Send + Sync>> = OnceLock::new();

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
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    if std::io::stderr().is_terminal() {
        let log = log.with_filter_reloading();
        keep(log.reload_handle());
        log.init();
    } else {
        let log = log.json().flatten_event(true).with_filter_reloading();
        keep(log.reload_handle());
        log.init();
    }
    if let Some(why) = wrong {
        tracing::warn!("RUST_LOG: {why}; logging {DEFAULT}");
    }
}

fn keep<S: 'static>(handle: tracing_subscriber::reload::Handle<EnvFilter, S>) {
    let getting = handle.clone();
    // Who starts a second log, a test, has the first one's.
    let _ = GET.set(Box::new(move || getting.with_current(ToString::to_string).ok()));
    let _ = SET.set(Box::new(move |filter| handle.reload(filter).map_err(|error| error.to_string())));
}

fn filter(text: &str) -> Result<EnvFilter, FilterError> {
    let bad = |why: String| FilterError::Parse { found: text.to_owned(), why };
    if text.trim().is_empty() {
        return Err(bad("it is empty".into()));
    }
    EnvFilter::try_new(text.trim()).map_err(|error: ParseError| bad(error.to_string()))
}

/// What is logged now, as [`set`] takes it; `None` if this process did not start a log.
#[must_use]
pub fn get() -> Option<String> {
    GET.get()?()
}

/// From now on that is logged.
///
/// # Errors
/// [`FilterError`]; then what was logged still is.
pub fn set(text: &str) -> Result<(), FilterError> {
    let filter = filter(text)?;
    let set = SET.get().ok_or(FilterError::NoLog)?;
    set(filter).map_err(|_| FilterError::NoLog)
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
        for text in ["", " ", "info,,=", "cellmesh=loud"] {
            let error = filter(text).expect_err(text).to_string();
            assert!(error.contains("is no filter") && error.contains("target=level"), "{error}");
        }
    }
}
