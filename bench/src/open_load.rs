//! An open-loop load: `cellmesh load` at a constant rate, latencies from when each request was due.

use std::net::SocketAddr;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

use crate::process::cellmesh;

/// What to send, how fast, and for how long.
#[derive(Debug, Clone, Copy)]
pub(crate) struct OpenLoad<'a> {
    pub(crate) address: SocketAddr,
    pub(crate) path: &'a str,
    /// Requests per second.
    pub(crate) rate: f64,
    pub(crate) seconds: u64,
    /// `http1` or `http2`.
    pub(crate) protocol: &'a str,
}

/// What `cellmesh load --json` writes, as far as it is needed here.
#[derive(Deserialize)]
struct Report {
    offered: u64,
    answered: u64,
    latency_ms: Latency,
}

/// From when a request was due, in ms.
#[derive(Debug, Clone, Copy, Deserialize)]
pub(crate) struct Latency {
    pub(crate) p50: f64,
    pub(crate) p99: f64,
}

impl OpenLoad<'_> {
    /// # Errors
    /// When the load cannot be made, or a request is not answered 200.
    pub(crate) fn run(self) -> Result<Latency> {
        let Report { offered, answered, latency_ms } = self.report()?;
        ensure!(answered == offered, "{answered} of {offered} answered over {}", self.protocol);
        Ok(latency_ms)
    }

    /// Requests that fail.
    ///
    /// # Errors
    /// When the load cannot be made, or one is answered 200.
    pub(crate) fn run_failing(self) -> Result<()> {
        let Report { answered, .. } = self.report()?;
        ensure!(answered == 0, "{answered} requests did not fail");
        Ok(())
    }

    fn report(self) -> Result<Report> {
        let folder = tempfile::tempdir()?;
        let file = folder.path().join("load.json");
        let mut load = Command::new(cellmesh()?);
        load.args(["load", &format!("http://{}{}", self.address, self.path)])
            .args(["--rate", &self.rate.to_string(), "--duration", &format!("{}s", self.seconds)])
            .args(["--protocol", self.protocol, "--json"])
            .arg(&file)
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        ensure!(load.status().context("cannot start cellmesh load")?.success(), "cellmesh load failed");
        Ok(serde_json::from_slice(&std::fs::read(file)?)?)
    }
}
