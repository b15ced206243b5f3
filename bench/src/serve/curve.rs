//! Throughput against latency: `cellmesh load` at rising rates, from when each request was due.

use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

use crate::plots::Line;
use crate::process::{Server, cellmesh};

/// Rates, as parts of what the server did closed loop.
const PARTS: [f64; 7] = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7];

/// What `cellmesh load --json` writes, as far as it is needed here.
#[derive(Deserialize)]
struct Report {
    offered: u64,
    answered: u64,
    latency_ms: Latency,
}

#[derive(Deserialize)]
struct Latency {
    p50: f64,
    p99: f64,
}

/// The lines of one server, median and 99th percentile in ms by requests per second. `most_per_s`: what it did closed loop.
pub(super) fn measure(
    name: &str,
    server: &Server,
    path: &str,
    most_per_s: f64,
    seconds: u64,
) -> Result<[Line; 2]> {
    let dir = tempfile::tempdir()?;
    let file = dir.path().join("load.json");
    let (mut medians, mut tails) = (Vec::new(), Vec::new());
    for part in PARTS {
        let rate = (most_per_s * part).round();
        let report = at_rate(server, path, rate, seconds, &file)?;
        ensure!(
            report.answered == report.offered,
            "{name}: {} of {} answered",
            report.answered,
            report.offered
        );
        medians.push((rate, report.latency_ms.p50));
        tails.push((rate, report.latency_ms.p99));
    }
    Ok([(format!("{name}, p50"), medians), (format!("{name}, p99"), tails)])
}

fn at_rate(server: &Server, path: &str, rate: f64, seconds: u64, file: &Path) -> Result<Report> {
    let mut load = Command::new(cellmesh()?);
    load.args(["load", &format!("http://{}{path}", server.address())])
        .args(["--rate", &rate.to_string(), "--duration", &format!("{seconds}s"), "--json"])
        .arg(file)
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    ensure!(load.status().context("cannot start cellmesh load")?.success(), "cellmesh load failed");
    Ok(serde_json::from_slice(&std::fs::read(file)?)?)
}
