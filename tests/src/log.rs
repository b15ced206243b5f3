//! The log of a node: what its processes write to standard error, a JSON object in each line.

use std::io::{BufRead, BufReader, Read};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Instant, SystemTime};

use serde_json::Value;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::HANG;

/// All lines so far, of processes that may still write.
#[derive(Debug, Clone)]
pub struct Log(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    lines: Mutex<Lines>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Lines {
    texts: Vec<String>,
    /// Processes that may still write.
    writers: usize,
}

impl Log {
    /// Collects what comes from `output` on a thread of its own.
    #[must_use]
    pub fn of(output: impl Read + Send + 'static) -> Self {
        let log = Self(Arc::default());
        log.add(output);
        log
    }

    /// Collects what comes from `output` too.
    pub(crate) fn add(&self, output: impl Read + Send + 'static) {
        let writer = self.clone();
        self.lock().writers += 1;
        std::thread::spawn(move || {
            for line in BufReader::new(output).split(b'\n') {
                let Ok(line) = line else { break };
                writer.lock().texts.push(String::from_utf8_lossy(&line).into_owned());
                writer.0.changed.notify_all();
            }
            writer.lock().writers -= 1;
            writer.0.changed.notify_all();
        });
    }

    fn lock(&self) -> MutexGuard<'_, Lines> {
        self.0.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All lines as they are.
    #[must_use]
    pub fn text(&self) -> String {
        self.lock().texts.join("\n")
    }

    /// All lines that are JSON.
    #[must_use]
    pub fn lines(&self) -> Vec<Value> {
        self.lock().texts.iter().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    /// When a process wrote this line of its log, by its own clock.
    ///
    /// # Panics
    /// If the line carries no time.
    #[must_use]
    pub fn time_of(line: &Value) -> SystemTime {
        let text = line["timestamp"].as_str().expect("a line of a log carries its time");
        OffsetDateTime::parse(text, &Rfc3339).expect("RFC 3339").into()
    }

    /// The texts of all lines with this value of `key`, in order.
    #[must_use]
    pub fn messages_of(&self, key: &str, value: &str) -> Vec<String> {
        let lines = self.lines();
        lines.iter().filter(|line| line[key] == value).map(|line| line["message"].to_string()).collect()
    }

    /// The first line that `is_it`; waits for it. `what` is for the message when it does not come.
    #[must_use]
    pub fn wait_for(&self, what: &str, is_it: impl Fn(&Value) -> bool) -> Value {
        let until = Instant::now() + HANG;
        let mut seen = 0;
        let mut lines = self.lock();
        loop {
            let new = lines.texts[seen..].iter().filter_map(|line| serde_json::from_str(line).ok());
            if let Some(found) = new.into_iter().find(&is_it) {
                return found;
            }
            seen = lines.texts.len();
            let left = until.saturating_duration_since(Instant::now());
            assert!(
                !left.is_zero() && lines.writers > 0,
                "not in the log: {what}\n{}",
                lines.texts.join("\n")
            );
            lines = self.0.changed.wait_timeout(lines, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Waits until all processes closed their ends, and gives all that they wrote.
    pub(crate) fn whole(&self) -> String {
        let ended = self.0.changed.wait_timeout_while(self.lock(), HANG, |lines| lines.writers > 0);
        let (lines, timeout) = ended.unwrap_or_else(PoisonError::into_inner);
        assert!(!timeout.timed_out(), "a process keeps its output open:\n{}", lines.texts.join("\n"));
        lines.texts.join("\n")
    }
}
