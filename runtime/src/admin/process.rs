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
    /// How many it may have, if that is bounded.
    pub(super) descriptors_max: Option<u64>,
    /// When it began, since 1970.
    pub(super) started: Option<Duration>,
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
            descriptors_max: rustix::process::getrlimit(rustix::process::Resource::Nofile).current,
            started: started(),
        }
    }
}

/// The 22nd field is the time from the start of the system until that of the process, in ticks; names in parentheses, the 2nd
/// field, may have spaces. Source: proc_pid_stat(5), proc_stat(5).
fn started() -> Option<Duration> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    let ticks: u64 = stat.rsplit_once(')')?.1.split_ascii_whitespace().nth(19)?.parse().ok()?;
    let system = std::fs::read_to_string("/proc/stat").ok()?;
    let boot: u64 = system.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()?;
    let ticks_per_second = rustix::param::clock_ticks_per_second().max(1);
    let millis = ticks.saturating_mul(1000) / ticks_per_second;
    Some(Duration::from_secs(boot) + Duration::from_millis(millis))
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;

    /// This process began before now, and not long ago; the kernel tells its own start to the second.
    #[test]
    fn start_is_in_the_past() {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("after 1970");
        let started = Usage::now().started.expect("Linux");
        assert!(
            started <= now + Duration::from_secs(2) && now < started + Duration::from_secs(3600),
            "{started:?}"
        );
    }
}
