//! `[dpa]` and `[worker]`: how the processes of a node find each other.
//!
//! ```toml
//! [dpa]
//! socket = "/run/cellmesh/dpa.sock"   # workers of any service, and sidecars
//! stall_timeout = "5s"
//! reattach_delay = "100ms"
//!
//! [[dpa.worker_socket]]               # workers of these services only
//! path = "/run/cellmesh/shop/dpa.sock"
//! services = ["front", "cart"]
//!
//! [worker]
//! socket = "/run/cellmesh/shop/dpa.sock"
//! services = ["cart"]
//! ring = { small = "64KiB", bulk_chunks = 32 }
//! ```

use std::path::{Path, PathBuf};
use std::time::Duration;

use cellmesh_shm::profile::RingProfile;

use super::app::{NodeSettings, ServiceSpec, WorkerSocket};
use super::manifest::{LONGEST, SHORTEST};
use super::reader::{Source, Table};

/// With it the longest wait is about a minute.
const REATTACH_DELAY_MOST: Duration = Duration::from_secs(1);
/// What a socket's path must be: an empty one would be a name without a file, which no permissions protect.
const SOCKET_RIGHT: &str = "name a Unix socket";
/// The most of each ring that a worker may ask for: together they fit what a DPA grants (`DpaConfig::segment_bytes_max`).
const RING_SMALL_MOST: u64 = 1 << 20;
/// The least that two frames of the longest small message fit.
const RING_SMALL_LEAST: u64 = 16 << 10;
const RING_CHUNKS_MOST: u64 = 128;

/// Reads both sections, if they are there.
pub(super) fn read(
    source: &mut Source<'_>,
    root: &mut Table<'_, '_>,
    services: &[ServiceSpec],
) -> NodeSettings {
    let mut settings = NodeSettings::default();
    if let Some(mut dpa) = root.table(source, "dpa") {
        if let Some(socket) = dpa.words(source, "socket", SOCKET_RIGHT) {
            settings.socket = PathBuf::from(socket);
        }
        if let Some(timeout) = dpa.duration(source, "stall_timeout", SHORTEST, LONGEST) {
            settings.stall_timeout = timeout;
        }
        if let Some(delay) = dpa.duration(source, "reattach_delay", Duration::ZERO, REATTACH_DELAY_MOST) {
            settings.reattach_delay = delay;
        }
        for table in dpa.tables(source, "worker_socket") {
            let socket = worker_socket(source, table, services, &settings);
            settings.worker_sockets.extend(socket);
        }
        dpa.finish(source);
    }
    if let Some(mut worker) = root.table(source, "worker") {
        settings.worker_socket = worker.words(source, "socket", SOCKET_RIGHT).map(PathBuf::from);
        settings.worker_ring = ring(source, &mut worker);
        settings.worker_services = known_services(source, &mut worker, services);
        worker.finish(source);
    }
    settings
}

/// The shape of a worker's rings. What relaying needs to be the same everywhere is not for it to choose.
fn ring(source: &mut Source<'_>, worker: &mut Table<'_, '_>) -> Option<RingProfile> {
    let mut table = worker.table(source, "ring")?;
    let mut profile = RingProfile::default();
    let small = table.size(source, "small", RING_SMALL_LEAST, RING_SMALL_MOST);
    let chunks = table.number(source, "bulk_chunks", 2, RING_CHUNKS_MOST);
    for (key, found, field) in
        [("small", small, &mut profile.small_bytes), ("bulk_chunks", chunks, &mut profile.bulk_chunks)]
    {
        let Some(found) = found else { continue };
        if found.is_power_of_two() {
            *field = u32::try_from(found).expect("at most what is checked above");
        } else {
            let (least, most) = (1 << found.ilog2(), found.next_power_of_two());
            let right = format!("write {least} or {most}");
            let line = table.line_of_key(source, key);
            source.note(line, table.path(key), format!("{found} is no power of two"), right);
        }
    }
    table.finish(source);
    Some(profile)
}

fn worker_socket(
    source: &mut Source<'_>,
    mut table: Table<'_, '_>,
    services: &[ServiceSpec],
    settings: &NodeSettings,
) -> Option<WorkerSocket> {
    let path = table.words(source, "path", SOCKET_RIGHT);
    if path.is_none() && !table.has("path") {
        source.note(Some(table.line()), table.path("path"), "is missing", "name a Unix socket");
    }
    let mut others = settings.worker_sockets.iter().map(|socket| &socket.path).chain([&settings.socket]);
    if let Some(twin) = others.find(|other| path.as_ref().is_some_and(|path| Path::new(path) == *other)) {
        let wrong = format!("{} is there twice", twin.display());
        let right = "give each socket a path of its own, dpa.socket too";
        source.note(table.line_of_key(source, "path"), table.path("path"), wrong, right);
    }
    let served = known_services(source, &mut table, services);
    if served.is_none() && !table.has("services") {
        let right = "name the services that may be served through this socket";
        source.note(Some(table.line()), table.path("services"), "is missing", right);
    }
    table.finish(source);
    Some(WorkerSocket { path: path?.into(), services: served? })
}

/// A list of services, all of them of this application.
fn known_services(
    source: &mut Source<'_>,
    table: &mut Table<'_, '_>,
    services: &[ServiceSpec],
) -> Option<Vec<String>> {
    let names = table.text_list(source, "services")?;
    if names.is_empty() {
        let line = table.line_of_key(source, "services");
        source.note(line, table.path("services"), "names no service", "name at least one, or leave it out");
    }
    for (index, name) in names.iter().enumerate() {
        if !services.iter().any(|spec| *spec.setup.service == **name) {
            let known: Vec<&str> = services.iter().map(|spec| &*spec.setup.service).collect();
            let right = format!("name one of: {}", known.join(", "));
            let key = format!("{}[{index}]", table.path("services"));
            let line = table.line_of_key(source, "services");
            source.note(line, key, format!("{name} is no service"), right);
        }
    }
    Some(names)
}

#[cfg(test)]
mod tests {
    use cellmesh_dpa::DpaConfig;
    use cellmesh_shm::layout::segment_bytes;

    use super::*;

    /// Whatever rings config lets a worker ask for, the DPA of its node grants.
    #[test]
    fn largest_rings_are_granted() {
        let small_bytes = u32::try_from(RING_SMALL_MOST).expect("some MiB");
        let bulk_chunks = u32::try_from(RING_CHUNKS_MOST).expect("some chunks");
        let profile = RingProfile { small_bytes, bulk_chunks, ..RingProfile::default() };
        assert_eq!(profile.validate(), Ok(()));
        let (asked, granted) = (segment_bytes(&profile), DpaConfig::default().segment_bytes_max);
        assert!(asked <= granted, "{asked} bytes asked for, {granted} granted");
    }
}
