//! What the system knows of a process.

use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// How a process ended, and what it wrote.
#[derive(Debug)]
pub struct Ended {
    /// Exit status; none when a signal killed it.
    pub code: Option<i32>,
    /// All of its standard output.
    pub stdout: String,
    /// All of its standard error.
    pub stderr: String,
    /// From the order to end, or from the start, to the end.
    pub took: Duration,
}

impl Ended {
    /// That of a start that failed: status 1, nothing was served, and a last line with these parts.
    #[track_caller]
    pub fn failed_saying(&self, parts: &[&str]) {
        assert_eq!((self.code, self.stdout.as_str()), (Some(1), ""), "{}", self.stderr);
        let last = self.stderr.lines().last().unwrap_or_default();
        for part in parts {
            assert!(last.contains(part), "no {part:?} in {last:?}");
        }
    }
}

/// Sets a flag when it goes: others are let go also when a test fails.
#[derive(Debug)]
pub struct SetOnDrop<'a>(pub &'a AtomicBool);

impl Drop for SetOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// What a process uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Usage {
    /// Memory that is in use and in no file.
    pub anonymous_bytes: u64,
    /// Open file descriptors.
    pub descriptors: usize,
    /// Threads.
    pub threads: usize,
    /// Segments of shared memory that are mapped.
    pub segments: usize,
    /// Whether memory may come in huge pages.
    pub takes_huge_pages: bool,
}

impl std::ops::Add for Usage {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            anonymous_bytes: self.anonymous_bytes + other.anonymous_bytes,
            descriptors: self.descriptors + other.descriptors,
            threads: self.threads + other.threads,
            segments: self.segments + other.segments,
            takes_huge_pages: self.takes_huge_pages || other.takes_huge_pages,
        }
    }
}

impl Usage {
    /// Of the process now.
    #[must_use]
    pub fn of(pid: u32) -> Self {
        let count = |what: &str| fs::read_dir(format!("/proc/{pid}/{what}")).map_or(0, Iterator::count);
        let maps = fs::read_to_string(format!("/proc/{pid}/maps")).expect("the process runs");
        let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("the process runs");
        let said = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
        Self {
            anonymous_bytes: anonymous_bytes(said("RssAnon:")),
            descriptors: count("fd"),
            threads: count("task"),
            segments: maps.lines().filter(|line| line.contains("cellmesh-segment")).count(),
            takes_huge_pages: said("THP_enabled:") != Some("0"),
        }
    }
}

/// Of `RssAnon`. Pages of files and of shared memory stay mapped at the system's pleasure.
fn anonymous_bytes(said: Option<&str>) -> u64 {
    let kib: u64 =
        said.and_then(|text| text.trim_end_matches(" kB").parse().ok()).expect("Linux says RssAnon in kB");
    kib * 1024
}

/// Looks again and again until `condition` holds; for what the system has no event for. `what` is for the message.
pub fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let until = Instant::now() + crate::HANG;
    while !condition() {
        assert!(Instant::now() < until, "never: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}
