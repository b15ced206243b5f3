//! An open-loop load: `cellmesh load` at a constant rate, latencies from when each request was due.

use std::net::SocketAddr;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
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
    latency_ms: Percentiles,
}

/// None where nothing was answered.
#[derive(Deserialize)]
struct Percentiles {
    p50: Option<f64>,
    p99: Option<f64>,
}

/// From when a request was due, in ms.
#[derive(Debug, Clone, Copy)]
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
        let Percentiles { p50: Some(p50), p99: Some(p99) } = latency_ms else {
            bail!("nothing was asked over {}", self.protocol)
        };
        Ok(Latency { p50, p99 })
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
            .stdout(Stdio::null());
        // Not by its status: there are figures where nothing was answered too.
        let said = load.output().context("cannot start cellmesh load")?.stderr;
        let figures = std::fs::read(file).unwrap_or_default();
        ensure!(!figures.is_empty(), "cellmesh load failed: {}", String::from_utf8_lossy(&said).trim());
        Ok(serde_json::from_slice(&figures)?)
    }
}
