//! What was found, and how it is said.

use std::fmt::{self, Write as _};

use crate::inspect::say;

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Severity {
    /// As it should be.
    Ok,
    /// It serves, and will hurt.
    Warning,
    /// It will not serve.
    Error,
}

/// One line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Finding {
    pub(super) severity: Severity,
    found: String,
    remedy: String,
}

impl Finding {
    pub(super) fn ok(found: impl Into<String>) -> Self {
        Self::new(Severity::Ok, &found.into(), String::new())
    }

    pub(super) fn warning(found: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self::new(Severity::Warning, &found.into(), remedy.into())
    }

    pub(super) fn error(found: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self::new(Severity::Error, &found.into(), remedy.into())
    }

    /// What others say of an error may have several lines.
    fn new(severity: Severity, found: &str, remedy: String) -> Self {
        let found = found.split('\n').map(str::trim).collect::<Vec<_>>().join(" ");
        Self { severity, found, remedy }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let severity = match self.severity {
            Severity::Ok => "ok",
            Severity::Warning => "warning",
            Severity::Error => "error",
        };
        write!(f, "{severity}: {}", self.found)?;
        if !self.remedy.is_empty() {
            write!(f, "; remedy: {}", self.remedy)?;
        }
        Ok(())
    }
}

/// All findings, in the order in which they were made.
#[derive(Debug, Default)]
pub(super) struct Report(Vec<Finding>);

impl Report {
    pub(super) fn extend(&mut self, findings: impl IntoIterator<Item = Finding>) {
        self.0.extend(findings);
    }

    pub(super) fn has_errors(&self) -> bool {
        self.count(Severity::Error) > 0
    }

    fn count(&self, severity: Severity) -> usize {
        self.0.iter().filter(|finding| finding.severity == severity).count()
    }

    /// Writes it to standard output. A reader that has seen enough is no failure.
    ///
    /// # Errors
    /// It cannot be written.
    pub(super) fn say(&self, title: &str, verbose: bool) -> anyhow::Result<()> {
        say(&self.text(title, verbose)).map(drop)
    }

    /// Findings, and the sum of it.
    fn text(&self, title: &str, verbose: bool) -> String {
        let shown = self.0.iter().filter(|finding| verbose || finding.severity != Severity::Ok);
        let mut text = shown.fold(String::new(), |mut text, finding| {
            let _ = writeln!(text, "{finding}");
            text
        });
        let counted = |count: usize, name: &str| match count {
            0 => None,
            1 => Some(format!("1 {name}")),
            _ => Some(format!("{count} {name}s")),
        };
        let errors = counted(self.count(Severity::Error), "error");
        let warnings = counted(self.count(Severity::Warning), "warning");
        let sum: Vec<String> = [errors, warnings].into_iter().flatten().collect();
        let sum = if sum.is_empty() { "nothing wrong".to_owned() } else { sum.join(", ") };
        let _ = writeln!(text, "{title}, {sum}");
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is wrong is always said, what is right only when asked for; the last line counts.
    #[test]
    fn report_says_what_was_found() {
        let mut report = Report::default();
        assert_eq!(report.text("shop: 2 services", true), "shop: 2 services, nothing wrong\n");
        report.extend([
            Finding::ok("a"),
            Finding::warning("b", "c"),
            Finding::error("d", "e"),
            Finding::error("f", "g"),
        ]);
        let wrong = "warning: b; remedy: c\nerror: d; remedy: e\nerror: f; remedy: g\n";
        let sum = "shop: 2 services, 2 errors, 1 warning\n";
        assert_eq!(report.text("shop: 2 services", false), format!("{wrong}{sum}"));
        assert_eq!(report.text("shop: 2 services", true), format!("ok: a\n{wrong}{sum}"));
        assert!(report.has_errors());
        assert_eq!(Finding::error("a:\n  b", "c").to_string(), "error: a: b; remedy: c");
    }
}
