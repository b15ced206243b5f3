//! `wasmtime serve` with a component for `wasi:http` that gives the hello cell's answer.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::Result;

use crate::process::{Server, free_address};

/// How it keeps its instances.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Instances {
    /// As many requests as come go to one instance, one after the other.
    Reused,
    /// A fresh one for each request: its default.
    Fresh,
    /// The same, with memory that stays resident between two instances.
    FreshKeptResident,
}

/// The program, if it is there: `$WASMTIME`, or `wasmtime` on the path.
pub(super) fn program() -> Option<PathBuf> {
    let program = std::env::var_os("WASMTIME").map_or_else(|| "wasmtime".into(), PathBuf::from);
    let found = Command::new(&program).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    found.is_ok().then_some(program)
}

/// Starts it on a free port.
pub(super) fn start(program: &Path, component: &Path, instances: Instances) -> Result<Server> {
    let address = free_address()?;
    let mut command = Command::new(program);
    command.args(["serve", "--addr", &address.to_string(), "-S", "cli=y", "-O", "pooling-allocator=y"]);
    match instances {
        Instances::Reused => _ = command.args(["--max-instance-reuse-count", "1000000000"]),
        Instances::Fresh => {}
        Instances::FreshKeptResident => {
            command.args(["-O", "pooling-memory-keep-resident=1048576"]);
            command.args(["-O", "pooling-table-keep-resident=65536", "-O", "pooling-pagemap-scan=y"]);
        }
    }
    command.arg(component);
    Server::silent(command, address, None)
}
