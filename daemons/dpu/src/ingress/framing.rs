//! A second pair of eyes on where HTTP/1 requests start and end.
//!
//! A request with both `Content-Length` and `Transfer-Encoding` is how requests are smuggled past
//! a proxy that believes the other one. The HTTP parser resolves it by the letter of RFC 9112 (chunked
//! wins, the connection closes afterwards) and hides that it did; we refuse such a request. So this
//! watches the same bytes, before the parser sees them:
//!
//! ```text
//! Head --blank line--> Head | Sized(n) | ChunkSize | Ambiguous (for ever)
//! Sized(n) --n bytes--> Head
//! ChunkSize --n--> ChunkData(n) --n bytes and CRLF--> ChunkSize        ChunkSize --0--> Trailers --blank line--> Head
//! ```
//!
//! - It decides nothing but "ambiguous" and "a head has begun". Where it is more lenient than the parser
//!   the parser answers 400 and the connection ends; it stops watching then (`Lost`).
//! - Where the parser reads on and this cannot, the connection is ambiguous too: a length in more bytes than are
//!   kept, one behind `Transfer-Encoding` that is no number, a trailer that ends with LF alone.
//! - Bounded: it keeps the first bytes of one line.
//! - cost: one `memchr` per line of a head; nothing per byte of a body.

use memchr::memchr;

/// Enough of a line to know its name, and the digits of a length.
const LINE_KEPT_BYTES: usize = 64;

/// What is expected next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Lines of a head; `true` once the request line has been seen.
    Head(bool),
    Sized(u64),
    ChunkSize,
    ChunkData(u64),
    ChunkEnd,
    Trailers,
    Ambiguous,
    Lost,
}

/// Follows the framing of one connection.
#[derive(Debug)]
pub(crate) struct Framing {
    state: State,
    /// Start of a line whose end has not been read.
    line: Vec<u8>,
    /// Whether that start, of which only the first bytes are kept, ends with CR.
    ends_with_cr: bool,
    content_length: Option<u64>,
    chunked: bool,
}

impl Framing {
    pub(crate) fn new() -> Self {
        Self {
            state: State::Head(false),
            line: Vec::new(),
            ends_with_cr: false,
            content_length: None,
            chunked: false,
        }
    }

    /// A request whose end can be seen in two places: nothing on this connection can be trusted any more.
    pub(crate) fn is_ambiguous(&self) -> bool {
        self.state == State::Ambiguous
    }

    /// Some but not all of a head has been read.
    pub(crate) fn is_inside_head(&self) -> bool {
        matches!(self.state, State::Head(begun) if begun || !self.line.is_empty())
    }

    /// The last request has been read to its end, and nothing of another.
    pub(crate) fn is_at_rest(&self) -> bool {
        self.state == State::Head(false) && self.line.is_empty()
    }

    /// Takes the next bytes of the connection.
    pub(crate) fn feed(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            bytes = match self.state {
                State::Sized(left) => self.skip(bytes, left, State::Sized, State::Head(false)),
                State::ChunkData(left) => self.skip(bytes, left, State::ChunkData, State::ChunkEnd),
                State::Ambiguous | State::Lost => return,
                State::Head(_) | State::ChunkSize | State::ChunkEnd | State::Trailers => {
                    self.take_line(bytes)
                }
            };
        }
    }

    fn skip<'a>(&mut self, bytes: &'a [u8], left: u64, again: fn(u64) -> State, then: State) -> &'a [u8] {
        let taken = usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len());
        let left = left - taken as u64;
        self.state = if left == 0 { then } else { again(left) };
        &bytes[taken..]
    }

    fn take_line<'a>(&mut self, bytes: &'a [u8]) -> &'a [u8] {
        let Some(end) = memchr(b'\n', bytes) else {
            self.keep(bytes);
            return &[];
        };
        if self.line.is_empty() {
            self.on_line(&bytes[..end], bytes[..end].ends_with(b"\r"));
        } else {
            self.keep(&bytes[..end]);
            let line = std::mem::take(&mut self.line);
            self.on_line(&line, self.ends_with_cr);
        }
        &bytes[end + 1..]
    }

    fn keep(&mut self, bytes: &[u8]) {
        self.ends_with_cr = bytes.last().map_or(self.ends_with_cr, |last| *last == b'\r');
        let room = LINE_KEPT_BYTES - self.line.len().min(LINE_KEPT_BYTES);
        self.line.extend_from_slice(&bytes[..bytes.len().min(room)]);
    }

    fn on_line(&mut self, line: &[u8], has_cr: bool) {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        self.state = match self.state {
            State::Head(false) if line.is_empty() => State::Head(false), // allowed before a request line
            State::Head(true) if line.is_empty() => self.after_head(),
            State::Head(false) => State::Head(true),
            State::Head(true) => self.on_header(line),
            State::ChunkSize => on_chunk_size(line),
            State::ChunkEnd => State::ChunkSize,
            State::Trailers if !has_cr => State::Ambiguous, // hyper reads on to the next CRLF
            State::Trailers if line.is_empty() => State::Head(false),
            State::Trailers => State::Trailers,
            State::Sized(_) | State::ChunkData(_) | State::Ambiguous | State::Lost => State::Lost, // not in lines
        };
    }

    fn on_header(&mut self, line: &[u8]) -> State {
        if let Some(value) = value_of(line, b"content-length:") {
            match decimal(value) {
                _ if line.len() >= LINE_KEPT_BYTES => return State::Ambiguous,
                Some(length) => self.content_length = Some(length),
                None if self.chunked => return State::Ambiguous, // hyper ignores it
                None => return State::Lost,
            }
        } else if value_of(line, b"transfer-encoding:").is_some() {
            self.chunked = true;
        }
        State::Head(true)
    }

    fn after_head(&mut self) -> State {
        match (self.content_length.take(), std::mem::take(&mut self.chunked)) {
            (Some(_), true) => State::Ambiguous,
            (None, true) => State::ChunkSize,
            (None | Some(0), false) => State::Head(false),
            (Some(length), false) => State::Sized(length),
        }
    }
}

/// What follows `name`, if the line starts with it in any case.
fn value_of<'a>(line: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let (start, value) = line.split_at_checked(name.len())?;
    start.eq_ignore_ascii_case(name).then_some(value)
}

fn decimal(text: &[u8]) -> Option<u64> {
    let digits = text.trim_ascii();
    let valid = !digits.is_empty() && digits.iter().all(u8::is_ascii_digit);
    valid.then(|| str::from_utf8(digits).ok()?.parse().ok()).flatten()
}

fn on_chunk_size(line: &[u8]) -> State {
    let size = line.split(|b| *b == b';').next().unwrap_or_default();
    match hexadecimal(size) {
        _ if size.len() >= LINE_KEPT_BYTES => State::Ambiguous,
        Some(0) => State::Trailers,
        Some(size) => State::ChunkData(size),
        None => State::Lost,
    }
}

fn hexadecimal(text: &[u8]) -> Option<u64> {
    let digits = text.trim_ascii();
    let valid = !digits.is_empty() && digits.iter().all(u8::is_ascii_hexdigit);
    valid.then(|| u64::from_str_radix(str::from_utf8(digits).ok()?, 16).ok()).flatten()
}

#[cfg(test)]
mod tests;
