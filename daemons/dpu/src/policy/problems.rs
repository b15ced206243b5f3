//! What is wrong with the tables inside `[service.NAME]`, all of it at once.

use std::fmt::Display;

use super::PolicyError;
use crate::units::TimeSpan;

/// Errors as they are found.
#[derive(Debug, Default)]
pub(super) struct Problems(pub(super) Vec<PolicyError>);

impl Problems {
    pub(super) fn check(&mut self, key: &'static str, found: &dyn Display, ok: bool, right: &str) {
        if !ok {
            self.0.push(PolicyError { key, found: found.to_string(), right: right.to_owned() });
        }
    }

    /// As [`Problems::check`], for a value that the file writes as text.
    pub(super) fn check_text(&mut self, key: &'static str, found: TimeSpan, ok: bool, right: &str) {
        self.check(key, &format_args!("\"{found}\""), ok, right);
    }

    pub(super) fn check_time(&mut self, key: &'static str, span: TimeSpan) {
        let right = TimeSpan::millis(1) <= span && span <= TimeSpan::secs(86_400);
        self.check_text(key, span, right, "from \"1ms\" to \"24h\"");
    }
}
