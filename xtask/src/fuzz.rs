//! The fuzz targets, where cargo-fuzz is installed: corpora are made, then every target runs for a minute, all of them side
//! by side.
//!
//! Without a sanitizer: that needs no other compiler than the one that builds everything else.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result};

use crate::command;
use crate::summary::Summary;
use crate::workspace::Workspace;

const TARGETS: [&str; 5] = ["frame", "packet", "ring", "port", "pump"];

/// Seconds that each target runs; `CELLMESH_FUZZ_SECONDS` says otherwise.
const SECONDS: &str = "60";

/// The longest input of any target: the images of a segment.
const INPUT_BYTES_MAX: &str = "16384";

/// Whether there is a cargo-fuzz.
pub(crate) fn is_installed() -> bool {
    command::succeeds(Command::new("cargo").args(["fuzz", "--version"]))
}

/// Runs all targets; one that finds something has failed, and left the input in `artifacts/`.
pub(crate) fn run(workspace: &Workspace) -> Result<Summary> {
    let folder = workspace.root.join("daemons/shm/fuzz");
    let in_folder = |mut cargo: Command| {
        cargo.current_dir(&folder).env("CARGO_TARGET_DIR", target(workspace));
        cargo
    };
    let mut seeds = in_folder(workspace.cargo());
    command::run(seeds.args(["run", "--release", "--quiet", "--example", "seeds"]))?;
    let mut build = in_folder(Command::new("cargo"));
    command::run(build.args(["fuzz", "build", "--sanitizer", "none", "--fuzz-dir", "."]))?;
    let seconds = std::env::var("CELLMESH_FUZZ_SECONDS").unwrap_or_else(|_| SECONDS.into());
    for name in TARGETS {
        std::fs::create_dir_all(folder.join("artifacts").join(name)).context("a folder for findings")?;
    }
    let running: Vec<(&str, Child)> = TARGETS
        .into_iter()
        .map(|name| {
            Ok((name, in_folder(fuzzer(workspace, name, &seconds)).spawn().context("a fuzz target")?))
        })
        .collect::<Result<_>>()?;
    let mut sum = Summary::default();
    for (name, child) in running {
        let output = child.wait_with_output().context("cannot wait for a fuzz target")?;
        let said = String::from_utf8_lossy(&output.stderr);
        let last = said.lines().rev().find(|line| line.starts_with("Done ")).unwrap_or("found something");
        println!("fuzz {name}: {last}");
        if !output.status.success() {
            println!("{said}");
        }
        sum += if output.status.success() { Summary::PASSED } else { Summary::FAILED };
    }
    Ok(sum)
}

fn fuzzer(workspace: &Workspace, name: &str, seconds: &str) -> Command {
    let triple = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    let mut fuzzer = Command::new(target(workspace).join(triple).join("release").join(name));
    fuzzer.arg(format!("corpus/{name}")).arg(format!("-artifact_prefix=artifacts/{name}/"));
    fuzzer.arg(format!("-max_total_time={seconds}")).arg(format!("-max_len={INPUT_BYTES_MAX}"));
    fuzzer.stdout(Stdio::null()).stderr(Stdio::piped());
    fuzzer
}

/// Other flags than everything else's, so a folder of its own.
fn target(workspace: &Workspace) -> PathBuf {
    workspace.target.join("fuzz")
}
