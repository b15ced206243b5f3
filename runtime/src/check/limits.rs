//! Limits of the system against what config asks for: descriptors, mappings, address space, memory, processors.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use cellmesh_dpu::DpuConfig;
use cellmesh_dpu::units::ByteSize;
use rustix::process::{Resource, getrlimit};

use super::Finding;
use crate::config::{RuntimeSettings, ServiceSpec};
use crate::host::{HostEngine, MAPPINGS_PER_INSTANCE, mappings_max};
use crate::mesh::engine_limits;

/// Descriptors beside those of connections: lanes, links, files, calls off the node.
const OTHER_DESCRIPTORS: u64 = 256;

/// Of a process that clients come to.
pub(super) fn of_clients(dpu: &DpuConfig, lanes: usize) -> Vec<Finding> {
    let limit = getrlimit(Resource::Nofile);
    let bytes = dpu.buffered_bytes_max.0.saturating_add(dpu.answer_bytes_max.0).saturating_mul(lanes as u64);
    let descriptors = descriptors(u64::from(dpu.connections_max), limit.current, limit.maximum);
    vec![descriptors, buffers(bytes, lanes, memory_max())]
}

/// Of a process that hosts cells.
pub(super) fn of_cells(services: &[&ServiceSpec], lanes: usize, settings: &RuntimeSettings) -> Vec<Finding> {
    let instances: usize = services.iter().map(|spec| spec.instances_max as usize).sum();
    let memory = services.iter().map(|spec| spec.setup.limits.memory_bytes_max as u64).max().unwrap_or(0);
    let limits = engine_limits(services, lanes);
    // All at once, as the start does; without a cache, which is looked at by itself.
    let engines: Result<Vec<_>, _> =
        (0..lanes).map(|_| HostEngine::serving(limits, None, &Arc::default())).collect();
    let engines = engines.map(drop).map_err(|error| format!("{:#}", anyhow::Error::from(error)));
    vec![
        mappings(instances, mappings_max()),
        pools(lanes, engines),
        instance_memory(memory, memory_max()),
        threads("runtime.pool_threads", settings.pool_threads, processors()),
    ]
}

/// Of any.
pub(super) fn of_lanes(lanes: usize) -> Vec<Finding> {
    vec![threads("lanes", lanes, processors())]
}

fn descriptors(connections_max: u64, soft: Option<u64>, hard: Option<u64>) -> Finding {
    let needed = connections_max + OTHER_DESCRIPTORS;
    let Some(soft) = soft.filter(|soft| *soft < needed) else {
        return Finding::ok(format!("descriptors: enough for dpu.connections_max = {connections_max}"));
    };
    let found = format!(
        "descriptors: {soft} at most (ulimit -n), and dpu.connections_max = {connections_max} needs {needed}"
    );
    let raise = if hard.is_none_or(|hard| hard >= needed) {
        format!("ulimit -n {needed} (LimitNOFILE= of a systemd unit)")
    } else {
        format!("raise the hard limit too (LimitNOFILE={needed} of a systemd unit, --ulimit of a container)")
    };
    match soft.checked_sub(OTHER_DESCRIPTORS) {
        // No bound of connections is low enough: what takes requests has none left to serve them.
        None | Some(0) => Finding::error(found, raise),
        Some(left) => Finding::warning(found, format!("{raise}, or dpu.connections_max = {left}")),
    }
}

fn buffers(bytes: u64, lanes: usize, memory_max: Option<u64>) -> Finding {
    let shown = format!(
        "bodies: dpu.buffered_bytes_max and dpu.answer_bytes_max hold up to {} on {lanes} lanes",
        ByteSize(bytes)
    );
    match memory_max {
        Some(memory) if memory < bytes => Finding::warning(
            format!("{shown}, and the control group has {} of memory", ByteSize(memory)),
            "lower both, or give the container more: beyond it the kernel kills the process",
        ),
        _ => Finding::ok(shown),
    }
}

fn instance_memory(bytes: u64, memory_max: Option<u64>) -> Finding {
    let shown = format!("instances: memory_max is {} at most", ByteSize(bytes));
    match memory_max {
        Some(memory) if memory < bytes => Finding::warning(
            format!("{shown}, and the control group has {} of memory", ByteSize(memory)),
            "lower memory_max, so that a cell that swells is ended and not the process, or give the container more",
        ),
        _ => Finding::ok(shown),
    }
}

fn mappings(instances: usize, mappings_max: usize) -> Finding {
    let needed = instances.saturating_mul(MAPPINGS_PER_INSTANCE);
    if needed <= mappings_max {
        return Finding::ok(format!(
            "mappings: enough for {instances} instances (vm.max_map_count = {mappings_max})"
        ));
    }
    let found = format!(
        "mappings: vm.max_map_count = {mappings_max}, and {instances} instances at once need up to {needed}"
    );
    Finding::warning(found, format!("sysctl -w vm.max_map_count={needed}, or lower instances_max"))
}

fn pools(lanes: usize, engines: Result<(), String>) -> Finding {
    match engines {
        Ok(()) => Finding::ok(format!("address space: enough for the pools of {lanes} lanes")),
        Err(why) => Finding::error(
            format!("address space: {why}"),
            "ulimit -v unlimited, vm.overcommit_memory other than 2, or lower instances_max or lanes",
        ),
    }
}

fn threads(key: &str, threads: usize, processors: usize) -> Finding {
    let shown = format!("{key} = {threads}, on {processors} processors");
    if threads <= processors {
        return Finding::ok(shown);
    }
    let remedy =
        format!("{key} = {processors}, unless others are to wait in turn; or give the container more");
    Finding::warning(shown, remedy)
}

/// Processors that this process may use, by affinity and control group.
fn processors() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

/// The least of the limits of all control groups that this process is in; `None` without one.
fn memory_max() -> Option<u64> {
    let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let files = groups.lines().flat_map(memory_files);
    let physical = fs::read_to_string("/proc/meminfo").ok().and_then(|text| total_in(&text));
    let limits = files.filter_map(|file| fs::read_to_string(file).ok()?.trim().parse::<u64>().ok());
    // A group without a limit has more than there is.
    limits.filter(|limit| physical.is_none_or(|physical| *limit < physical)).min()
}

/// Where the limits of one line of `/proc/self/cgroup` are, from the group to the root. In a container the group is the
/// root, whatever it is called outside.
fn memory_files(line: &str) -> Vec<String> {
    let mut fields = line.splitn(3, ':').skip(1);
    let (Some(controllers), Some(group)) = (fields.next(), fields.next()) else { return Vec::new() };
    let (root, file) = if controllers.is_empty() {
        ("/sys/fs/cgroup", "memory.max")
    } else if controllers.split(',').any(|controller| controller == "memory") {
        ("/sys/fs/cgroup/memory", "memory.limit_in_bytes")
    } else {
        return Vec::new();
    };
    let groups = Path::new(group).ancestors().map(|group| group.display().to_string());
    groups.map(|group| format!("{root}{}/{file}", group.trim_end_matches('/'))).collect()
}

/// Bytes of memory of the machine.
fn total_in(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: u64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kib << 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Fewer descriptors than connections is a warning with both ways out.
    #[test]
    fn connections_need_descriptors() {
        assert!(descriptors(1000, None, None).to_string().starts_with("ok: "));
        assert!(descriptors(1000, Some(1256), None).to_string().starts_with("ok: "));
        let said = descriptors(16_384, Some(1024), Some(1 << 20)).to_string();
        let found =
            "warning: descriptors: 1024 at most (ulimit -n), and dpu.connections_max = 16384 needs 16640";
        assert!(said.starts_with(found), "{said}");
        assert!(said.contains("ulimit -n 16640") && said.ends_with("or dpu.connections_max = 768"), "{said}");
        let said = descriptors(16_384, Some(1024), Some(4096)).to_string();
        assert!(said.contains("raise the hard limit too (LimitNOFILE=16640"), "{said}");
    }

    /// Fewer descriptors than a process needs without any connection is an error, which fewer connections do not mend.
    #[test]
    fn process_needs_descriptors_of_its_own() {
        for soft in [100, OTHER_DESCRIPTORS] {
            let said = descriptors(1000, Some(soft), Some(1 << 20)).to_string();
            assert!(said.starts_with(&format!("error: descriptors: {soft} at most (ulimit -n)")), "{said}");
            assert!(said.ends_with("remedy: ulimit -n 1256 (LimitNOFILE= of a systemd unit)"), "{said}");
        }
        let said = descriptors(1000, Some(OTHER_DESCRIPTORS + 1), None).to_string();
        assert!(said.starts_with("warning: ") && said.ends_with("or dpu.connections_max = 1"), "{said}");
    }

    /// Bounds that are larger than the memory are told with the memory.
    #[test]
    fn memory_bounds_are_compared() {
        assert!(buffers(1 << 30, 2, None).to_string().starts_with("ok: "));
        assert!(buffers(1 << 30, 2, Some(1 << 30)).to_string().starts_with("ok: "));
        let said = buffers(1 << 30, 2, Some(512 << 20)).to_string();
        assert!(said.contains("up to 1GiB on 2 lanes, and the control group has 512MiB of memory"), "{said}");
        let said = instance_memory(128 << 20, Some(64 << 20)).to_string();
        assert!(said.contains("memory_max is 128MiB at most, and the control group has 64MiB"), "{said}");
        assert!(instance_memory(128 << 20, None).to_string().starts_with("ok: "));
    }

    /// Mappings, address space and threads: what is too little, and what to do.
    #[test]
    fn pools_and_threads_are_compared() {
        assert!(mappings(64, 65_530).to_string().starts_with("ok: "));
        assert!(
            mappings(5000, 65_530)
                .to_string()
                .contains("need up to 80000; remedy: sysctl -w vm.max_map_count=80000")
        );
        assert!(pools(2, Ok(())).to_string().starts_with("ok: "));
        assert!(
            pools(2, Err("no".into())).to_string().starts_with("error: address space: no; remedy: ulimit -v")
        );
        assert!(threads("lanes", 2, 2).to_string().starts_with("ok: "));
        assert!(
            threads("lanes", 8, 2)
                .to_string()
                .starts_with("warning: lanes = 8, on 2 processors; remedy: lanes = 2")
        );
    }

    /// Both generations of control groups, and a machine's memory.
    #[test]
    fn control_groups_are_found() {
        let one =
            ["/sys/fs/cgroup/a/b/memory.max", "/sys/fs/cgroup/a/memory.max", "/sys/fs/cgroup/memory.max"];
        assert_eq!(memory_files("0::/a/b"), one);
        assert_eq!(memory_files("4:memory:/"), ["/sys/fs/cgroup/memory/memory.limit_in_bytes"]);
        assert_eq!(memory_files("3:cpuset:/"), [""; 0]);
        assert_eq!(memory_files("garbage"), [""; 0]);
        assert_eq!(total_in("MemTotal:        1024 kB\nMemFree: 1 kB"), Some(1 << 20));
    }
}
