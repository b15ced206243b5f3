//! Throughput against latency: `cellmesh load` at rising rates, from when each request was due.

use anyhow::{Context, Result};

use crate::open_load::OpenLoad;
use crate::plots::Line;
use crate::process::Server;

/// Rates, as parts of what the server did closed loop.
const PARTS: [f64; 7] = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7];

/// The lines of one server, median and 99th percentile in ms by requests per second. `most_per_s`: what it did closed loop.
pub(super) fn measure(
    name: &str,
    server: &Server,
    path: &str,
    most_per_s: f64,
    seconds: u64,
) -> Result<[Line; 2]> {
    let (mut medians, mut tails) = (Vec::new(), Vec::new());
    for part in PARTS {
        let rate = (most_per_s * part).round();
        let load = OpenLoad { address: server.address(), path, rate, seconds, protocol: "http1" };
        let latency = load.run().with_context(|| name.to_owned())?;
        medians.push((rate, latency.p50));
        tails.push((rate, latency.p99));
    }
    Ok([(format!("{name}, p50"), medians), (format!("{name}, p99"), tails)])
}
