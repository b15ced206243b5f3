//! What a cell writes to standard output and error, as lines in the log.
//!
//! - A line is at most [`LINE_BYTES_MAX`] bytes; longer ones are cut. Control characters are escaped, so that a
//!   cell cannot forge log lines or drive a terminal.
//! - A line names the request whose call wrote it, by its `x-request-id`.
//! - A cell gets [`LINES_PER_SECOND_MAX`] lines a second; more are counted, and the count is logged when it may write again.

use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use cellmesh_shm::head::HeaderLines;
use tokio::io::AsyncWrite;
use wasmtime_wasi::cli::{IsTerminal, StdoutStream};

/// Longest line that is logged whole.
const LINE_BYTES_MAX: usize = 4096;

/// What a request is known by from service to service.
const REQUEST_ID: &str = "x-request-id";

/// Lines of one service per second. A cell that logs in a loop must not drown the others.
const LINES_PER_SECOND_MAX: u32 = 100;

/// The log of one service; shared by all its instances.
#[derive(Clone)]
pub(super) struct GuestLog {
    service: Arc<str>,
    stream: &'static str,
    budget: Arc<Mutex<Budget>>,
    cause: Cause,
}

/// The request for which an instance is called, shared by the instance and its log.
#[derive(Clone, Default)]
pub(super) struct Cause(Arc<Mutex<Bytes>>);

impl Cause {
    /// From now on this one. `headers`: its header lines.
    pub(super) fn set(&self, headers: Bytes) {
        *lock(&self.0) = headers;
    }

    /// Its id. Cost: none for calls that log nothing.
    fn id(&self) -> Option<String> {
        let headers = lock(&self.0).clone();
        HeaderLines(&headers).get(REQUEST_ID).map(printable)
    }
}

/// Nothing panics under these locks, and what they guard is replaced as a whole.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

struct Budget {
    second: Instant,
    written: u32,
    dropped: u64,
}

impl GuestLog {
    /// Standard output and standard error of `service`; they share one budget.
    pub(super) fn pair(service: &Arc<str>) -> (Self, Self) {
        let budget = Arc::new(Mutex::new(Budget { second: Instant::now(), written: 0, dropped: 0 }));
        let stream = |stream| Self {
            service: Arc::clone(service),
            stream,
            budget: Arc::clone(&budget),
            cause: Cause::default(),
        };
        (stream("stdout"), stream("stderr"))
    }

    /// That of one instance.
    pub(super) fn of_instance(&self, cause: &Cause) -> Self {
        Self { cause: cause.clone(), ..self.clone() }
    }

    fn write_line(&self, line: &[u8]) {
        let (allowed, dropped) = {
            let mut budget = lock(&self.budget);
            budget.admit(Instant::now())
        };
        if dropped > 0 {
            tracing::warn!(target: "cell", service = %self.service, dropped, "log lines dropped");
        }
        if allowed {
            let (service, stream, request_id) = (&*self.service, self.stream, self.cause.id());
            tracing::info!(target: "cell", service, stream, request_id, "{}", printable(line));
        }
    }
}

impl Budget {
    /// Whether a line may be written now, and how many were dropped before it in an earlier second.
    fn admit(&mut self, now: Instant) -> (bool, u64) {
        let mut dropped = 0;
        if now.duration_since(self.second) >= Duration::from_secs(1) {
            dropped = std::mem::take(&mut self.dropped);
            *self = Self { second: now, written: 0, dropped: 0 };
        }
        if self.written < LINES_PER_SECOND_MAX {
            self.written += 1;
            return (true, dropped);
        }
        self.dropped += 1;
        (false, dropped)
    }
}

/// `line` as text without control characters, cut at [`LINE_BYTES_MAX`].
fn printable(line: &[u8]) -> String {
    let cut = &line[..line.len().min(LINE_BYTES_MAX)];
    let text = String::from_utf8_lossy(cut);
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() && c != '\t' { out.extend(c.escape_default()) } else { out.push(c) }
    }
    out
}

impl IsTerminal for GuestLog {
    fn is_terminal(&self) -> bool {
        false
    }
}

impl StdoutStream for GuestLog {
    fn async_stream(&self) -> Box<dyn AsyncWrite + Send + Sync> {
        Box::new(LineWriter { log: self.clone(), line: Vec::new() })
    }
}

/// Collects bytes into lines. Never waits: the log takes what it is given.
struct LineWriter {
    log: GuestLog,
    line: Vec<u8>,
}

impl LineWriter {
    fn push(&mut self, bytes: &[u8]) {
        for part in bytes.split_inclusive(|b| *b == b'\n') {
            let (text, ended) = part.strip_suffix(b"\n").map_or((part, false), |text| (text, true));
            let room = LINE_BYTES_MAX.saturating_sub(self.line.len());
            self.line.extend_from_slice(&text[..text.len().min(room)]);
            if ended {
                self.log.write_line(&std::mem::take(&mut self.line));
            }
        }
    }
}

impl Drop for LineWriter {
    fn drop(&mut self) {
        if !self.line.is_empty() {
            self.log.write_line(&std::mem::take(&mut self.line));
        }
    }
}

impl AsyncWrite for LineWriter {
    fn poll_write(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        self.push(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A cell cannot start a new log line or move the cursor of whoever reads the log.
    #[test]
    fn control_characters_are_escaped() {
        assert_eq!(printable(b"a\x1b[2Jb\rc"), "a\\u{1b}[2Jb\\rc");
    }

    /// Lines past the budget are counted, and the count comes with the next second's first line.
    #[test]
    fn lines_past_the_budget_are_counted() {
        let start = Instant::now();
        let mut budget = Budget { second: start, written: 0, dropped: 0 };
        let written = (0..150).filter(|_| budget.admit(start).0).count();
        assert_eq!(written, 100);
        assert_eq!(budget.admit(start + Duration::from_secs(1)), (true, 50));
    }
}
