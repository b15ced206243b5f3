//! What a cell writes to standard output and error, as lines in the log.
//!
//! - A line is at most [`LINE_BYTES_MAX`] bytes; longer ones are cut. Control characters are escaped, so that a
//!   cell cannot forge log lines or drive a terminal.
//! - A line names the request whose call wrote it, by its `x-request-id`, and the trace that this belongs to.
//! - A cell gets [`LINES_PER_SECOND_MAX`] lines a second; more are counted, and the count is logged when it may write again.

use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use cellmesh_dpu::origin::{Origin, printable};
use cellmesh_shm::head::HeaderLines;
use tokio::io::AsyncWrite;
use wasmtime_wasi::cli::{IsTerminal, StdoutStream};

/// Longest line that is logged whole.
const LINE_BYTES_MAX: usize = 4096;

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

    /// What it is called. Cost: none for calls that log nothing.
    fn origin(&self) -> Origin {
        let headers = lock(&self.0).clone();
        Origin::of(HeaderLines(&headers))
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

/// What becomes of a line.
#[derive(Debug, PartialEq, Eq)]
struct Admitted {
    is_written: bool,
    /// It is the first of its second that is not written.
    is_first_dropped: bool,
    /// Lines of an earlier second that were not.
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

    /// A line without text is none: a panic of a cell begins with one.
    fn write_line(&self, line: &[u8]) {
        if line.trim_ascii().is_empty() {
            return;
        }
        let admitted = lock(&self.budget).admit(Instant::now());
        let (service, stream) = (&*self.service, self.stream);
        if admitted.dropped > 0 {
            tracing::warn!(target: "cell", service, dropped = admitted.dropped, "log lines dropped");
        }
        if admitted.is_first_dropped {
            tracing::warn!(target: "cell", service, "more than {LINES_PER_SECOND_MAX} log lines in a second: others are dropped");
        }
        if admitted.is_written {
            let Origin { request_id, trace_id } = self.cause.origin();
            let line = printable(&line[..line.len().min(LINE_BYTES_MAX)]);
            tracing::info!(target: "cell", service, stream, request_id, trace_id, "{line}");
        }
    }
}

impl Budget {
    /// What becomes of a line now.
    fn admit(&mut self, now: Instant) -> Admitted {
        let mut dropped = 0;
        if now.duration_since(self.second) >= Duration::from_secs(1) {
            dropped = std::mem::take(&mut self.dropped);
            *self = Self { second: now, written: 0, dropped: 0 };
        }
        if self.written < LINES_PER_SECOND_MAX {
            self.written += 1;
            return Admitted { is_written: true, is_first_dropped: false, dropped };
        }
        self.dropped += 1;
        Admitted { is_written: false, is_first_dropped: self.dropped == 1, dropped }
    }
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

    /// What is logged while `deed` is done, in one form and in the other.
    fn logged(deed: impl Fn()) -> [String; 2] {
        let log = |json: bool| {
            let written = Written::default();
            let to = written.clone();
            let log = tracing_subscriber::fmt().with_ansi(false).with_writer(move || to.clone());
            if json {
                tracing::subscriber::with_default(log.json().flatten_event(true).finish(), &deed);
            } else {
                tracing::subscriber::with_default(log.finish(), &deed);
            }
            String::from_utf8(lock(&written.0).clone()).expect("the log is text")
        };
        [log(true), log(false)]
    }

    #[derive(Clone, Default)]
    struct Written(Arc<Mutex<Vec<u8>>>);

    impl std::io::Write for Written {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            lock(&self.0).extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    /// For programs and for people a line has the request and its trace; of a call without them it has neither.
    #[test]
    fn lines_have_their_request_and_its_trace() {
        const TRACE_ID: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
        let cause = Cause::default();
        let log = GuestLog::pair(&"s".into()).0.of_instance(&cause);
        cause.set(format!("x-request-id: r\ntraceparent: 00-{TRACE_ID}-00f067aa0ba902b7-01\n").into());
        let [json, text] = logged(|| log.write_line(b"hello"));
        let line: serde_json::Value = serde_json::from_str(&json).expect("a line of JSON");
        assert_eq!((&line["request_id"], &line["trace_id"]), (&"r".into(), &TRACE_ID.into()), "{json}");
        assert!(text.contains(&format!("request_id=\"r\" trace_id=\"{TRACE_ID}\"")), "{text}");
        cause.set(Bytes::new());
        let lines = logged(|| log.write_line(b"hello"));
        assert!(lines.iter().all(|line| line.contains("hello") && !line.contains("_id")), "{lines:?}");
    }

    /// A panic of a cell begins with an empty line: that says nothing, and takes nothing of the budget.
    #[test]
    fn lines_without_text_are_left_out() {
        let log = GuestLog::pair(&"s".into()).1;
        let [json, _] = logged(|| {
            let mut writer = LineWriter { log: log.clone(), line: Vec::new() };
            writer.push(b"\n\r\nthread panicked\n  \n");
        });
        assert_eq!(json.lines().count(), 1, "{json}");
        assert!(json.contains("thread panicked"), "{json}");
    }

    /// Lines past the budget are counted: it is told with the first of them, and the count comes with the next second's first line.
    #[test]
    fn lines_past_the_budget_are_counted() {
        let start = Instant::now();
        let mut budget = Budget { second: start, written: 0, dropped: 0 };
        let admitted: Vec<Admitted> = (0..150).map(|_| budget.admit(start)).collect();
        assert_eq!(admitted.iter().filter(|line| line.is_written).count(), 100);
        assert_eq!(admitted.iter().position(|line| line.is_first_dropped), Some(100));
        assert_eq!(admitted.iter().filter(|line| line.is_first_dropped).count(), 1);
        let next = budget.admit(start + Duration::from_secs(1));
        assert_eq!(next, Admitted { is_written: true, is_first_dropped: false, dropped: 50 });
    }
}
