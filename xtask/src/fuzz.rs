//! The fuzz targets: corpora are made, then every target runs for a minute, beside each other and beside the tests that come
//! next.
//!
//! Without cargo-fuzz, which would have to be installed, and without a sanitizer, which would need another compiler: what is
//! left is a build with flags that record what an input reached.

use std::fs::{self, File};
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

/// Instruments code so that libFuzzer sees which branches an input took. Source: what cargo-fuzz 0.13 passes to the compiler.
const FLAGS: &str = "--cfg fuzzing -Cdebug-assertions -Ccodegen-units=1 -Cpasses=sancov-module \
    -Cllvm-args=-sanitizer-coverage-level=4 -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
    -Cllvm-args=-sanitizer-coverage-pc-table -Cllvm-args=-sanitizer-coverage-trace-compares \
    -Cllvm-args=-sanitizer-coverage-stack-depth -Cllvm-args=-simplifycfg-branch-fold-threshold=0";

/// Targets that run beside everything else, with what is left of the processors; each says what it does in a file.
pub(crate) struct Running(Vec<(&'static str, Child, PathBuf)>);

/// Makes the corpora, builds the targets and starts them.
pub(crate) fn start(workspace: &Workspace) -> Result<Running> {
    let folder = workspace.root.join("daemons/shm/fuzz");
    let in_folder = |mut cargo: Command| {
        cargo.current_dir(&folder).env("CARGO_TARGET_DIR", target(workspace));
        cargo
    };
    let mut build = in_folder(workspace.cargo());
    // With a target named, build scripts and macros are built without the flags.
    build.args(["build", "--release", "--bins", "--target", &triple()]).env("RUSTFLAGS", FLAGS);
    command::run(&mut build)?;
    command::run(&mut in_folder(Command::new(built(workspace, "seeds"))))?;
    let seconds = std::env::var("CELLMESH_FUZZ_SECONDS").unwrap_or_else(|_| SECONDS.into());
    let start = |name| {
        std::fs::create_dir_all(folder.join("artifacts").join(name)).context("a folder for findings")?;
        let log = target(workspace).join(name).with_extension("log");
        let mut fuzzer = in_folder(fuzzer(workspace, name, &seconds));
        let child = fuzzer.stdout(Stdio::null()).stderr(File::create(&log)?).spawn();
        Ok((name, child.context("a fuzz target")?, log))
    };
    Ok(Running(TARGETS.into_iter().map(start).collect::<Result<_>>()?))
}

impl Running {
    /// Waits for all of them. One that found something has failed, and left the input in `artifacts/`.
    pub(crate) fn end(self) -> Result<Summary> {
        let mut sum = Summary::default();
        for (name, mut child, log) in self.0 {
            let status = child.wait().context("cannot wait for a fuzz target")?;
            let said = fs::read(&log).context("what a fuzz target said")?;
            let said = String::from_utf8_lossy(&said);
            let last = said.lines().rev().find(|line| line.starts_with("Done ")).unwrap_or("found something");
            println!("fuzz {name}: {last}");
            if !status.success() {
                println!("{said}");
            }
            sum += if status.success() { Summary::PASSED } else { Summary::FAILED };
        }
        Ok(sum)
    }
}

fn fuzzer(workspace: &Workspace, name: &str, seconds: &str) -> Command {
    let mut fuzzer = Command::new("nice");
    fuzzer.args(["-n", "19"]).arg(built(workspace, name));
    fuzzer.arg(format!("corpus/{name}")).arg(format!("-artifact_prefix=artifacts/{name}/"));
    fuzzer.arg(format!("-max_total_time={seconds}")).arg(format!("-max_len={INPUT_BYTES_MAX}"));
    fuzzer
}

fn built(workspace: &Workspace, name: &str) -> PathBuf {
    target(workspace).join(triple()).join("release").join(name)
}

fn triple() -> String {
    format!("{}-unknown-linux-gnu", std::env::consts::ARCH)
}

/// Other flags than everything else's, so a folder of its own.
fn target(workspace: &Workspace) -> PathBuf {
    workspace.target.join("fuzz")
}
