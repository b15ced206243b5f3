//! The machine that figures come from, as far as they depend on it.

use std::fs;

use crate::cacheline;
use crate::turns::quantile;

/// CPU model, cores, kernel, and what a cache line takes between two cores now; one line of Markdown. No names of hosts
/// or people.
///
/// - cost: some milliseconds, in which both cores spin.
pub(crate) fn describe() -> String {
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let kernel = kernel.trim().split('-').next().unwrap_or_default();
    let model = model(&cpuinfo).unwrap_or("unknown CPU");
    let line = quantile(&std::array::from_fn::<_, 9, _>(|_| cacheline::round_trip()), 0.5);
    format!("{model}, {cores} cores, Linux {kernel}; a cache line between two cores and back: {line:.0} ns")
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
