//! HAProxy as a sidecar: what comes to a service and what leaves it goes through a process of its own.

use std::fmt::Write as _;
use std::fs;
use std::net::SocketAddr;
use std::process::{Command, Stdio};

use anyhow::{Context, Result};

use crate::process::Server;

const SETTINGS: &str = "\
defaults
    mode http
    timeout connect 5s
    timeout client 60s
    timeout server 60s
    http-reuse always
    option http-keep-alive
";

/// A port that a sidecar listens on, and where it passes on what comes there.
#[derive(Debug, Clone, Copy)]
pub(super) struct Hop {
    pub(super) listen: SocketAddr,
    pub(super) to: SocketAddr,
}

/// Whether it is there to be measured.
pub(super) fn is_installed() -> bool {
    Command::new("haproxy").arg("-v").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok()
}

/// One process for all hops of a service; its address is that of the first.
pub(super) fn start(hops: &[Hop]) -> Result<Server> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("haproxy.cfg");
    fs::write(&file, config(hops)?)?;
    let mut command = Command::new("haproxy");
    command.arg("-db").arg("-f").arg(&file);
    let address = hops.first().context("a sidecar without a hop")?.listen;
    Server::silent(command, address, Some(folder))
}

fn config(hops: &[Hop]) -> Result<String> {
    let mut text = SETTINGS.to_owned();
    for (index, Hop { listen, to }) in hops.iter().enumerate() {
        write!(text, "frontend f{index}\n    bind {listen}\n    default_backend b{index}\n")?;
        write!(text, "backend b{index}\n    server s{index} {to}\n")?;
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each hop has its way in and its way out.
    #[test]
    fn hops_are_written() {
        let address = |port| SocketAddr::from(([127, 0, 0, 1], port));
        let text = config(&[Hop { listen: address(1), to: address(2) }]).unwrap();
        assert!(text.ends_with("frontend f0\n    bind 127.0.0.1:1\n    default_backend b0\nbackend b0\n    server s0 127.0.0.1:2\n"));
    }
}
