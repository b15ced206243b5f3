//! Step results: what a step came to.

use bytes::Bytes;

/// What an internal step returned, a service answered, or why neither happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StepResult {
    /// HTTP status.
    pub status: u16,
    /// Why the step failed. An answer with a bad status has none: it speaks for itself.
    pub error: Option<Box<str>>,
    /// Lines of `name: value\n`.
    pub headers: Bytes,
    /// The body.
    pub body: Bytes,
}

/// The result of what had nothing to do.
pub(crate) static EMPTY: StepResult =
    StepResult { status: 200, error: None, headers: Bytes::new(), body: Bytes::new() };

impl StepResult {
    /// A result with status 200.
    pub fn ok(headers: Bytes, body: Bytes) -> Self {
        Self::answer(200, headers, body)
    }

    /// A result without an error text: an answer of a service, or what an internal step returned on purpose.
    pub fn answer(status: u16, headers: Bytes, body: Bytes) -> Self {
        Self { status, error: None, headers, body }
    }

    /// The result of what had nothing to do: an empty 200.
    pub fn skipped() -> Self {
        EMPTY.clone()
    }

    /// A failure: no headers, no body, the reason in `text`.
    pub fn failure(status: u16, text: impl Into<Box<str>>) -> Self {
        Self { status, error: Some(text.into()), headers: Bytes::new(), body: Bytes::new() }
    }

    /// Whether an answer of a service is no error: no error text, and a status from 200 to 399.
    pub fn is_ok_answer(&self) -> bool {
        self.error.is_none() && (200..=399).contains(&self.status)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answered(status: u16) -> StepResult {
        StepResult::answer(status, Bytes::new(), Bytes::new())
    }

    /// The edges of what counts as ok.
    #[test]
    fn ok_is_200_to_399() {
        let ok = |status| answered(status).is_ok_answer();
        assert_eq!([199, 200, 399, 400].map(ok), [false, true, true, false]);
    }

    /// An error text makes any status an error.
    #[test]
    fn error_text_is_never_ok() {
        assert!(!StepResult::failure(200, "connection lost").is_ok_answer());
    }

    /// Nothing to do is a success without content.
    #[test]
    fn skipped_is_an_empty_200() {
        let skipped = StepResult::skipped();
        assert!(skipped.is_ok_answer());
        assert_eq!((skipped.status, skipped.headers.len(), skipped.body.len()), (200, 0, 0));
    }
}
