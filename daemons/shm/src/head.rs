//! Heads of messages: what both ends of a call agree on, and what the DPA never looks at.
//!
//! ```text
//! request head    POST/cart?id=7host: s1\ncontent-type: text/plain\n
//!                 `--' `-------' `--------------- header lines ----'
//!                 method  target
//! response head   content-type: text/plain\n
//! ```
//!
//! - A header line is `name: value\n`. The name is a lower-case HTTP token; the value may be anything but CR, LF and NUL.
//! - [`HeaderLines`] reads lines that anybody wrote: it never panics, and passes over a line that is none.
//!   [`HeaderLines::check`] tells a good head from a bad one; do it once, where a head comes in.
//! - Not here: which headers a part adds, drops or believes.

use bytes::Bytes;
use memchr::{memchr, memchr3};

/// Bounds of a head. The defaults are the node's; a daemon may set narrower ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeadLimits {
    /// Most header lines.
    pub lines_max: usize,
    /// Most bytes of all header lines together.
    pub bytes_max: usize,
}

impl Default for HeadLimits {
    /// 100 lines, 16 KiB. What a cell may send (SECURITY.md); common proxies take about as much.
    fn default() -> Self {
        Self { lines_max: 100, bytes_max: 16 << 10 }
    }
}

/// Lines that are added to a head on its way, and their bytes: those of a policy (at most 16, 4 KiB), and what ingress and the
/// runtime say of a request - who its client is, its id and its trace.
const ADDED_LINES_MAX: usize = 32;
const ADDED_BYTES_MAX: usize = 8 << 10;

impl HeadLimits {
    /// Of a head on its way through the node: what its maker may send, and what is added since.
    #[must_use]
    pub fn with_added() -> Self {
        let Self { lines_max, bytes_max } = Self::default();
        Self { lines_max: lines_max + ADDED_LINES_MAX, bytes_max: bytes_max + ADDED_BYTES_MAX }
    }
}

/// Why header lines are refused. A line's number counts from 1.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HeadError {
    /// More bytes than allowed.
    #[error("header lines of {found} bytes: must be at most {max}")]
    TooLong {
        /// Bytes found.
        found: usize,
        /// Bytes allowed.
        max: usize,
    },
    /// More lines than allowed.
    #[error("more than {max} header lines")]
    TooMany {
        /// Lines allowed.
        max: usize,
    },
    /// No line: no `: `, or no line end.
    #[error("header line {line}: must be `name: value` and a line end")]
    NoLine {
        /// Its number.
        line: usize,
    },
    /// The name is empty or has a character that is not in a lower-case token.
    #[error("header line {line}: the name must be a lower-case token")]
    Name {
        /// Its number.
        line: usize,
    },
    /// The value has a CR, LF or NUL.
    #[error("header line {line}: the value must not have CR, LF or NUL")]
    Value {
        /// Its number.
        line: usize,
    },
    /// The method is no token, or the target has a space or control character, or either is too long.
    #[error("the {part} must be {right}")]
    RequestLine {
        /// `"method"` or `"target"`.
        part: &'static str,
        /// What would be right.
        right: &'static str,
    },
}

/// Header lines, borrowed from a head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeaderLines<'a>(pub &'a [u8]);

impl<'a> HeaderLines<'a> {
    /// Name and value of each line, in order. A line that is none is passed over.
    pub fn iter(&self) -> impl Iterator<Item = (&'a str, &'a [u8])> + use<'a> {
        self.bytes().filter_map(|(name, value)| Some((str::from_utf8(name).ok()?, value)))
    }

    /// As [`HeaderLines::iter`], with names that are not known to be text: cheaper where they are only compared.
    pub fn bytes(&self) -> impl Iterator<Item = (&'a [u8], &'a [u8])> + use<'a> {
        let mut rest = self.0;
        std::iter::from_fn(move || {
            while !rest.is_empty() {
                let line;
                (line, rest) = first_line(rest);
                if let Some(parts) = split_line(line) {
                    return Some(parts);
                }
            }
            None
        })
    }

    /// The first value of `name`, which must be lower case.
    #[must_use]
    pub fn get(&self, name: impl AsRef<[u8]>) -> Option<&'a [u8]> {
        let name = name.as_ref();
        self.bytes().find(|(found, _)| *found == name).map(|(_, value)| value)
    }

    /// Checks every line against the form and the bounds. Cost: one pass.
    /// # Errors
    /// The first rule that is broken, with the number of the line.
    pub fn check(&self, limits: HeadLimits) -> Result<(), HeadError> {
        self.checked(limits)?.try_for_each(|line| line.map(drop))
    }

    /// Name and value of each line, in order, checked against the form and the bounds on the way: for who reads all of them
    /// anyway. The first rule that is broken is the last item, with the number of the line.
    /// # Errors
    /// [`HeadError::TooLong`].
    pub fn checked(&self, limits: HeadLimits) -> Result<CheckedLines<'a>, HeadError> {
        if self.0.len() > limits.bytes_max {
            return Err(HeadError::TooLong { found: self.0.len(), max: limits.bytes_max });
        }
        Ok(CheckedLines { rest: self.0, line: 0, lines_max: limits.lines_max })
    }

    /// Names and values of the headers that [`is_tracing`] is true of, in order.
    pub fn tracing(&self) -> impl Iterator<Item = (&'a [u8], &'a [u8])> + use<'a> {
        let mut rest = self.0;
        std::iter::from_fn(move || {
            while !rest.is_empty() {
                let line;
                (line, rest) = first_line(rest);
                if may_be_tracing(line)
                    && let Some((name, value)) = split_line(line)
                    && is_tracing(name)
                {
                    return Some((name, value));
                }
            }
            None
        })
    }
}

/// See [`HeaderLines::checked`].
#[derive(Debug, Clone)]
pub struct CheckedLines<'a> {
    rest: &'a [u8],
    /// Number of the line before.
    line: usize,
    lines_max: usize,
}

impl<'a> Iterator for CheckedLines<'a> {
    type Item = Result<(&'a [u8], &'a [u8]), HeadError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        self.line += 1;
        let rest = std::mem::take(&mut self.rest);
        if self.line > self.lines_max {
            return Some(Err(HeadError::TooMany { max: self.lines_max }));
        }
        let Some((name, value, behind)) = good_line(rest) else {
            return Some(Err(what_is_wrong(rest, self.line)));
        };
        self.rest = behind;
        Some(Ok((name, value)))
    }
}

/// Name and value of the first line, and what is behind it, if the line keeps all rules.
#[inline]
fn good_line(bytes: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let colon = bytes.iter().position(|&byte| !IS_NAME_BYTE[usize::from(byte)]).filter(|&colon| colon > 0)?;
    let (name, behind) = bytes.split_at(colon);
    let behind = behind.strip_prefix(b": ")?;
    let end = memchr3(b'\r', b'\n', 0, behind).filter(|&end| behind[end] == b'\n')?;
    Some((name, &behind[..end], &behind[end + 1..]))
}

/// Up to the next line end, and what is behind it.
#[inline]
fn first_line(bytes: &[u8]) -> (&[u8], &[u8]) {
    match memchr(b'\n', bytes) {
        Some(end) => (&bytes[..end], &bytes[end + 1..]),
        None => (bytes, &[]),
    }
}

/// Name and value, which the first `: ` parts.
#[inline]
fn split_line(line: &[u8]) -> Option<(&[u8], &[u8])> {
    let mut from = 0;
    loop {
        let end = from + memchr(b':', &line[from..])?;
        if line.get(end + 1) == Some(&b' ') {
            return Some((&line[..end], &line[end + 2..]));
        }
        from = end + 1;
    }
}

/// The rule that the first of these lines breaks: one that is not a [`good_line`].
#[cold]
fn what_is_wrong(bytes: &[u8], line: usize) -> HeadError {
    let whole = memchr(b'\n', bytes).and_then(|end| split_line(&bytes[..end]));
    match whole {
        None => HeadError::NoLine { line },
        Some((name, _)) if !is_name(name) => HeadError::Name { line },
        Some(_) => HeadError::Value { line },
    }
}

/// A lower-case HTTP token (RFC 9110, 5.6.2).
fn is_name(name: &[u8]) -> bool {
    !name.is_empty() && name.iter().all(|&byte| IS_NAME_BYTE[usize::from(byte)])
}

fn is_value(value: &[u8]) -> bool {
    memchr3(b'\r', b'\n', 0, value).is_none()
}

const fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
        || matches!(byte, b'!' | b'#' | b'$' | b'%' | b'&' | b'\'' | b'*' | b'+')
        || matches!(byte, b'-' | b'.' | b'^' | b'_' | b'`' | b'|' | b'~')
}

/// Whether a byte may be in a lower-case token.
const IS_NAME_BYTE: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0u8;
    while byte < 128 {
        table[byte as usize] = is_token_byte(byte) && !byte.is_ascii_uppercase();
        byte += 1;
    }
    table
};

/// The head of a request, ready for a [`crate::message::RequestMessage`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestHead {
    /// Bytes of the method.
    pub method_len: u16,
    /// Bytes of the target.
    pub target_len: u16,
    /// `method | target | header lines`.
    pub bytes: Bytes,
}

/// Writes a head line by line, so that what it makes passes [`HeaderLines::check`] but for the bounds.
#[derive(Debug, Clone, Default)]
pub struct HeadBuilder {
    bytes: Vec<u8>,
    method_len: u16,
    target_len: u16,
    lines: usize,
}

impl HeadBuilder {
    /// Starts the head of a response.
    #[must_use]
    pub fn response() -> Self {
        Self::default()
    }

    /// Starts the head of a request.
    /// # Errors
    /// [`HeadError::RequestLine`] if `method` is no token, or `target` is empty, has a space or a control character;
    /// either must be shorter than 64 KiB.
    pub fn request(method: &str, target: &str) -> Result<Self, HeadError> {
        Self::request_bytes(method.as_bytes(), target.as_bytes())
    }

    /// As [`HeadBuilder::request`], for parts that are bytes already.
    /// # Errors
    /// As [`HeadBuilder::request`].
    pub fn request_bytes(method: &[u8], target: &[u8]) -> Result<Self, HeadError> {
        if method.is_empty() || !method.iter().all(|&byte| is_token_byte(byte)) {
            return Err(HeadError::RequestLine { part: "method", right: "an HTTP token" });
        }
        if target.is_empty() || target.iter().any(|&byte| byte <= b' ' || byte == 0x7f) {
            return Err(HeadError::RequestLine {
                part: "target",
                right: "a path without spaces or control characters",
            });
        }
        Ok(Self {
            method_len: part_len("method", method)?,
            target_len: part_len("target", target)?,
            bytes: [method, target].concat(),
            lines: 0,
        })
    }

    /// Appends a line; the name is written in lower case.
    /// # Errors
    /// [`HeadError::Name`] or [`HeadError::Value`] with the number that the line would have had.
    pub fn push(&mut self, name: &str, value: &[u8]) -> Result<(), HeadError> {
        let line = self.lines + 1;
        if name.is_empty() || !name.bytes().all(is_token_byte) {
            return Err(HeadError::Name { line });
        }
        if !is_value(value) {
            return Err(HeadError::Value { line });
        }
        let start = self.bytes.len();
        self.bytes.extend_from_slice(name.as_bytes());
        self.bytes[start..].make_ascii_lowercase();
        self.bytes.extend_from_slice(b": ");
        self.bytes.extend_from_slice(value);
        self.bytes.push(b'\n');
        self.lines = line;
        Ok(())
    }

    /// The finished header lines of a response (of a request: the whole head).
    #[must_use]
    pub fn finish(self) -> Bytes {
        self.bytes.into()
    }

    /// The finished head of a request.
    #[must_use]
    pub fn finish_request(self) -> RequestHead {
        RequestHead { method_len: self.method_len, target_len: self.target_len, bytes: self.bytes.into() }
    }
}

fn part_len(part: &'static str, bytes: &[u8]) -> Result<u16, HeadError> {
    u16::try_from(bytes.len()).map_err(|_| HeadError::RequestLine { part, right: "shorter than 64 KiB" })
}

/// Whether a header speaks of one connection only and must not be passed on (RFC 9110, 7.6.1).
/// `content-length` is not among them: it describes the message, but who re-frames a body writes its own.
#[must_use]
pub fn is_hop_by_hop(name: impl AsRef<[u8]>) -> bool {
    let name = name.as_ref();
    matches!(name, b"connection" | b"keep-alive" | b"te" | b"trailer" | b"transfer-encoding" | b"upgrade")
        || name.starts_with(b"proxy-")
}

/// Whether a header of a request is passed on to every call that it causes, and to its response.
/// Source: W3C Trace Context, B3, Datadog, OpenTracing, gRPC and Google Cloud Trace.
#[must_use]
pub fn is_tracing(name: impl AsRef<[u8]>) -> bool {
    let name = name.as_ref();
    match name.first() {
        Some(b'x') => matches!(
            name,
            b"x-request-id"
                | b"x-b3-traceid"
                | b"x-b3-spanid"
                | b"x-b3-parentspanid"
                | b"x-b3-sampled"
                | b"x-b3-flags"
                | b"x-datadog-trace-id"
                | b"x-datadog-parent-id"
                | b"x-datadog-sampling-priority"
                | b"x-ot-span-context"
                | b"x-cloud-trace-context"
        ),
        Some(b't') => matches!(name, b"traceparent" | b"tracestate"),
        Some(b'g') => name == b"grpc-trace-bin",
        _ => false,
    }
}

/// Whether the name that a line begins with may be one of [`is_tracing`].
fn may_be_tracing(line: &[u8]) -> bool {
    matches!(line.first(), Some(b'x' | b't' | b'g'))
}

#[cfg(test)]
mod tests;
