//! The machine that figures come from, as far as they depend on it.

use std::fs;

/// CPU model, cores and kernel; one line of Markdown. No names of hosts or people.
pub(crate) fn describe() -> String {
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let kernel = kernel.trim().split('-').next().unwrap_or_default();
    format!("{}, {cores} cores, Linux {kernel}", model(&cpuinfo).unwrap_or("unknown CPU"))
}

fn model(cpuinfo: &str) -> Option<&str> {
    let line = cpuinfo.lines().find(|line| line.starts_with("model name"))?;
    Some(line.split_once(':')?.1.trim())
}

#[cfg(test)]
mod tests {
    use super::model;

    /// The first of many cores speaks for all.
    #[test]
    fn model_is_read_from_cpuinfo() {
        let cpuinfo = "processor\t: 0\nmodel name\t: Some CPU @ 3 GHz\nmodel name\t: Other\n";
        assert_eq!(model(cpuinfo), Some("Some CPU @ 3 GHz"));
        assert_eq!(model("processor : 0\n"), None);
    }
}
