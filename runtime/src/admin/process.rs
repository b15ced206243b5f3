//! What the kernel knows of this process.

use std::time::Duration;

/// What it uses. What cannot be read is not there.
#[derive(Debug, Clone, Copy)]
pub(super) struct Usage {
    /// Processor time of all its threads.
    pub(super) cpu: Duration,
    /// Resident memory.
    pub(super) memory_bytes: Option<u64>,
    /// Open file descriptors.
    pub(super) descriptors: Option<usize>,
}

impl Usage {
    pub(super) fn now() -> Self {
        let cpu = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
        let seconds = u64::try_from(cpu.tv_sec).unwrap_or_default();
        let nanos = u32::try_from(cpu.tv_nsec).unwrap_or_default();
        // The second number is resident pages. Source: proc_pid_statm(5).
        let pages = std::fs::read_to_string("/proc/self/statm").ok();
        let pages = pages.and_then(|text| text.split(' ').nth(1)?.parse::<u64>().ok());
        let descriptors = std::fs::read_dir("/proc/self/fd").ok();
        Self {
            cpu: Duration::new(seconds, nanos),
            memory_bytes: pages.map(|pages| pages * rustix::param::page_size() as u64),
            // One of them is for this look.
            descriptors: descriptors.map(|descriptors| descriptors.count().saturating_sub(1)),
        }
    }
}
