//! What a reviewer should not have to look for. All of it runs, also after a failure.

use std::process::{Command, ExitCode};

use anyhow::Result;

use crate::workspace::Workspace;
use crate::{command, tidy, toolchain};

/// Beside the lints of the manifest: a function fits a screen (its length is set in clippy.toml).
const CLIPPY: [&str; 5] = ["--", "-D", "warnings", "-W", "clippy::too_many_lines"];

/// Crates that build and test without wasmtime, which takes longer than all of them.
const WITHOUT_WASMTIME: [&str; 4] = ["cellmesh-shm", "cellmesh-graph", "cellmesh-dpa", "cellmesh-dpu"];

/// Says at the end which checks failed.
pub(crate) fn run(workspace: &Workspace) -> Result<ExitCode> {
    toolchain::require_component(workspace, "fmt", "rustfmt")?;
    toolchain::require_component(workspace, "clippy", "clippy")?;
    let mut failed = Vec::new();
    if tidy::run(workspace)? != ExitCode::SUCCESS {
        failed.push("tidy");
    }
    if !are_light(workspace)? {
        failed.push("dependencies");
    }
    for (name, mut command) in commands(workspace) {
        if !command::status(&mut command)?.success() {
            failed.push(name);
        }
    }
    if failed.is_empty() {
        eprintln!("check: all is well");
        return Ok(ExitCode::SUCCESS);
    }
    eprintln!("check: failed: {}", failed.join(", "));
    Ok(ExitCode::FAILURE)
}

/// Whether they are, tests included.
fn are_light(workspace: &Workspace) -> Result<bool> {
    let mut light = true;
    for package in WITHOUT_WASMTIME {
        let mut tree = workspace.cargo();
        tree.args(["tree", "--locked", "--prefix", "none", "--edges", "all", "--package", package]);
        if command::capture(&mut tree)?.lines().any(|line| line.starts_with("wasmtime ")) {
            eprintln!("check: {package} depends on wasmtime: it must build and test without");
            light = false;
        }
    }
    Ok(light)
}

fn commands(workspace: &Workspace) -> Vec<(&'static str, Command)> {
    let cargo = |args: &[&str]| {
        let mut cargo = workspace.cargo();
        cargo.args(args);
        cargo
    };
    let in_cells = |args: &[&str]| {
        let mut cargo = cargo(args);
        cargo.args(["--manifest-path", "cells/Cargo.toml"]);
        cargo.env("CARGO_TARGET_DIR", workspace.target.join("wasm"));
        cargo
    };
    let mut clippy = cargo(&["clippy", "--workspace", "--all-targets"]);
    clippy.args(CLIPPY);
    let mut cells_clippy = in_cells(&["clippy", "--workspace", "--all-targets"]);
    cells_clippy.args(CLIPPY);
    let mut doc = cargo(&["doc", "--workspace", "--no-deps"]);
    doc.env("RUSTDOCFLAGS", "-D warnings");
    let mut commands = vec![
        ("fmt", cargo(&["fmt", "--all", "--check"])),
        ("fmt of the cells", in_cells(&["fmt", "--all", "--check"])),
        (
            "fmt of the benchmarks' guests",
            cargo(&["fmt", "--all", "--check", "--manifest-path", "bench/guests/Cargo.toml"]),
        ),
        ("clippy", clippy),
        ("clippy of the cells", cells_clippy),
        ("doc", doc),
    ];
    if command::succeeds(&mut cargo(&["deny", "--version"])) {
        commands.push(("deny", cargo(&["deny", "check", "licenses", "bans", "sources"])));
    } else {
        eprintln!("check: cargo-deny is not installed, licences and sources are not checked");
    }
    commands
}
