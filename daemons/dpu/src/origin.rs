//! What a request is called in the log: by its id, and by the trace that it belongs to.
//!
//! - Both are what somebody outside wrote: control characters are escaped, so that nobody forges lines or drives a terminal.
//! - Cost: only lines that are written ask for it.

use cellmesh_shm::head::HeaderLines;

use crate::trace_context::Parent;

/// What a request is known by from service to service.
pub const REQUEST_ID: &str = "x-request-id";

/// The header of [`crate::trace_context`].
pub const TRACEPARENT: &str = "traceparent";
/// What vendors say beside it.
pub(crate) const TRACESTATE: &str = "tracestate";

/// Bytes of an id that are logged.
const ID_BYTES_MAX: usize = 256;

/// What a request is called in the log.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Origin {
    /// Its `x-request-id`.
    pub request_id: Option<String>,
    /// The trace of its `traceparent`, if that keeps the rules.
    pub trace_id: Option<String>,
}

impl Origin {
    /// That of a request with these header lines.
    #[must_use]
    pub fn of(lines: HeaderLines<'_>) -> Self {
        let cut = |id: &[u8]| printable(&id[..id.len().min(ID_BYTES_MAX)]);
        let parent = lines.get(TRACEPARENT).and_then(Parent::parse);
        Self {
            request_id: lines.get(REQUEST_ID).map(cut),
            trace_id: parent.map(|parent| format!("{:032x}", parent.trace_id)),
        }
    }
}

/// Bytes as text without control characters.
#[must_use]
pub fn printable(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() && c != '\t' { out.extend(c.escape_default()) } else { out.push(c) }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRACE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00";

    fn of(lines: &str) -> Origin {
        Origin::of(HeaderLines(lines.as_bytes()))
    }

    /// Whoever writes to a log cannot start a new line or move the cursor of whoever reads it.
    #[test]
    fn control_characters_are_escaped() {
        assert_eq!(printable(b"a\x1b[2Jb\rc"), "a\\u{1b}[2Jb\\rc");
        assert_eq!(of("x-request-id: a\x1bb\n").request_id.as_deref(), Some("a\\u{1b}b"));
    }

    /// A trace is named whether it is sampled or not; a header that breaks a rule names none.
    #[test]
    fn requests_are_named_by_their_headers() {
        let named = of(&format!("host: a\nx-request-id: r-7\n{TRACEPARENT}: {TRACE}\n"));
        assert_eq!(named.request_id.as_deref(), Some("r-7"));
        assert_eq!(named.trace_id.as_deref(), Some("4bf92f3577b34da6a3ce929d0e0e4736"));
        assert_eq!(of(&format!("{TRACEPARENT}: 00-what\n")), Origin::default());
        assert_eq!(of("").request_id, None);
        assert_eq!(
            of(&format!("x-request-id: {}\n", "x".repeat(5000))).request_id.map(|id| id.len()),
            Some(256)
        );
    }
}
