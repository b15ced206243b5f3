//! What is wrong with a section of config, all of it at once.

use std::fmt::Display;

use crate::units::TimeSpan;

/// A value that cannot work: the key, what was found, what would be right.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{key} = {found}: must be {right}")]
pub struct ConfigError {
    /// The key, from its section on.
    pub key: &'static str,
    /// The value, as the file would write it.
    pub found: String,
    /// What would be right.
    pub right: String,
}

/// Errors as they are found.
#[derive(Debug, Default)]
pub(crate) struct Problems {
    pub(crate) found: Vec<ConfigError>,
}

impl Problems {
    pub(crate) fn check(&mut self, key: &'static str, found: &dyn Display, ok: bool, right: &str) {
        if !ok {
            self.found.push(ConfigError { key, found: found.to_string(), right: right.to_owned() });
        }
    }

    /// As [`Problems::check`], for a value that the file writes as text.
    pub(crate) fn check_text(&mut self, key: &'static str, found: impl Display, ok: bool, right: &str) {
        self.check(key, &format_args!("\"{found}\""), ok, right);
    }

    pub(crate) fn check_time(&mut self, key: &'static str, span: TimeSpan) {
        let right = TimeSpan::millis(1) <= span && span <= TimeSpan::secs(86_400);
        self.check_text(key, span, right, "from \"1ms\" to \"24h\"");
    }
}
