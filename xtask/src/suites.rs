//! All tests, and one line at the end that says how they went.
//!
//! `cargo test`, not another runner: a machine with a Rust toolchain has it.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context, Result};

use crate::summary::Summary;
use crate::tools::Tools;
use crate::workspace::Workspace;
use crate::{cells, command, fuzz};

/// End-to-end tests that run once more with a node and workers; the others choose their placement, or need none.
const IN_BOTH_PLACEMENTS: [&str; 17] = [
    "admin",
    "bridge",
    "cells",
    "chain",
    "contract",
    "drain",
    "egress",
    "faults",
    "h2_frames",
    "http",
    "policy",
    "raw_http1",
    "reload",
    "retries",
    "soak",
    "tls",
    "traces",
];

/// Some tests that belong together, and what they need.
enum Suite {
    Cargo {
        name: &'static str,
        command: Command,
    },
    /// With tests that need programs which may still be on their way.
    WithTools {
        name: &'static str,
        command: Command,
    },
    Fuzz {
        name: &'static str,
    },
    Skipped {
        name: &'static str,
        why: &'static str,
    },
}

/// Runs everything; the last line on standard output is the summary.
pub(crate) fn run(workspace: &Workspace, no_fail_fast: bool) -> Result<ExitCode> {
    let cells = cells::build(workspace)?;
    let mut sum = Summary::default();
    // After the cells: both may install packages, and only one can at a time.
    let mut tools = Some(Tools::bring());
    let mut fuzzing = None;
    for suite in suites(workspace, &cells) {
        match suite {
            Suite::Fuzz { name } => {
                eprintln!("== {name}, beside what comes next");
                fuzzing = Some(fuzz::start(workspace)?);
            }
            Suite::Cargo { name, mut command } => {
                eprintln!("== {name}");
                sum += count(&mut command)?;
            }
            Suite::WithTools { name, mut command } => {
                for (tool, why) in tools.take().map(Tools::wait).unwrap_or_default() {
                    sum += skip(tool.suite, &why);
                    command.env(tool.variable, "none");
                }
                eprintln!("== {name}");
                sum += count(&mut command)?;
            }
            Suite::Skipped { name, why } => sum += skip(name, why),
        }
        if sum.failed > 0 && !no_fail_fast {
            break;
        }
    }
    if let Some(fuzzing) = fuzzing {
        sum += fuzzing.end()?;
    }
    println!("{sum}");
    Ok(if sum.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn skip(name: &str, why: &str) -> Summary {
    println!("== {name}: skipped, {why}");
    Summary::SKIPPED
}

/// The long version of the chaos suite, one deed after the other, with its figures.
pub(crate) fn chaos(workspace: &Workspace) -> Result<ExitCode> {
    let cells = cells::build(workspace)?;
    command::run(workspace.cargo().args(["build", "--release", "--package", "cellmesh"]))?;
    let mut cargo = workspace.cargo();
    cargo.args(["test", "--workspace", "--test", "chaos", "--", "--test-threads=1", "--nocapture"]);
    cargo.env("CELLMESH_BIN", workspace.target.join("release/cellmesh")).env("CELLMESH_CELLS", cells);
    let sum = count(cargo.env("CELLMESH_CHAOS", "long"))?;
    println!("{sum}");
    Ok(if sum.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// In the order in which they are most likely to tell something soon. What cargo builds for the workspace it builds for all
/// of it at once: for a part of it, with fewer features of what that depends on, it would build those once more.
fn suites(workspace: &Workspace, cells: &Path) -> Vec<Suite> {
    let bin = workspace.target.join("debug/cellmesh");
    let mut build = workspace.cargo();
    // `--bin` beside `--tests`: the plain binary too, which the end-to-end tests start.
    build.args(["build", "--workspace", "--bin", "cellmesh", "--tests"]);
    let mut all = workspace.cargo();
    all.args(["test", "--no-fail-fast", "--workspace"]);
    all.env("CELLMESH_BIN", &bin).env("CELLMESH_CELLS", cells);
    let mut split = workspace.cargo();
    split.args(["test", "--no-fail-fast", "--workspace"]);
    split.args(IN_BOTH_PLACEMENTS.iter().flat_map(|name| ["--test", name]));
    split.env("CELLMESH_BIN", &bin).env("CELLMESH_CELLS", cells).env("CELLMESH_PLACEMENT", "split");
    // End to end most of the time is waiting for other processes.
    let threads = std::thread::available_parallelism().map_or(2, |cores| 2 * cores.get()).to_string();
    for tests in [&mut all, &mut split] {
        tests.env("RUST_TEST_THREADS", &threads);
    }
    let cargo = |name, command| Suite::Cargo { name, command };
    vec![
        cargo("rings, every interleaving (loom)", models(workspace, "loom", "cellmesh-shm")),
        cargo("DPA and endpoints, random schedules (shuttle)", models(workspace, "shuttle", "cellmesh-dpa")),
        miri(workspace),
        Suite::Fuzz { name: "bytes of a peer, fuzzed" },
        cargo("cells, compiled for this machine", native_cells(workspace)),
        cargo("workspace, build", build),
        Suite::WithTools { name: "workspace and end to end", command: all },
        cargo("end to end, split into processes", split),
    ]
}

/// The models that need `--cfg <checker>`, in a test of that name. Flags would rebuild everything else: each checker has a
/// target folder of its own.
fn models(workspace: &Workspace, checker: &str, package: &str) -> Command {
    let mut cargo = workspace.cargo();
    cargo
        .args(["test", "--profile", "model", "--package", package, "--test", checker])
        .env("RUSTFLAGS", format!("--cfg {checker}"))
        .env("CARGO_TARGET_DIR", workspace.target.join(checker));
    cargo
}

fn miri(workspace: &Workspace) -> Suite {
    let name = "rings, undefined behaviour (Miri)";
    // Not `$CARGO`: only rustup's cargo understands `+nightly`.
    let nightly = || {
        let mut cargo = Command::new("cargo");
        cargo.env_remove("RUSTUP_TOOLCHAIN").env("RUSTUP_AUTO_INSTALL", "0");
        cargo.current_dir(&workspace.root).args(["+nightly", "miri"]);
        cargo
    };
    if !command::succeeds(nightly().arg("--version")) {
        return Suite::Skipped { name, why: "no nightly toolchain with the component `miri`" };
    }
    let mut command = nightly();
    command
        .args(["test", "--package", "cellmesh-shm", "--lib"])
        .env("CARGO_TARGET_DIR", workspace.target.join("miri"));
    Suite::Cargo { name, command }
}

fn native_cells(workspace: &Workspace) -> Command {
    let mut cargo = workspace.cargo();
    cargo
        .args(["test", "--no-fail-fast", "--workspace", "--manifest-path", "cells/Cargo.toml"])
        .env("CARGO_TARGET_DIR", workspace.target.join("wasm"));
    cargo
}

/// Runs tests, passes on what they say, and adds up their results.
fn count(command: &mut Command) -> Result<Summary> {
    let mut child = command.stdout(Stdio::piped()).spawn().context("cannot start cargo")?;
    let output = BufReader::new(child.stdout.take().expect("stdout is piped"));
    let sum = pass_through(output, std::io::stdout().lock())?;
    let status = child.wait().context("cannot wait for cargo")?;
    Ok(with_status(sum, status.success()))
}

/// Copies line by line and reads the results on the way. Output that is no text is passed on as it is.
fn pass_through(mut from: impl BufRead, mut to: impl Write) -> Result<Summary> {
    let mut sum = Summary::default();
    let mut line = Vec::new();
    while from.read_until(b'\n', &mut line).context("cannot read the output of cargo")? > 0 {
        to.write_all(&line).context("cannot pass on the output of cargo")?;
        if let Some(result) = Summary::of_line(&String::from_utf8_lossy(&line)) {
            sum += result;
        }
        line.clear();
    }
    Ok(sum)
}

/// Cargo also fails when a test does not compile or its program dies: nobody counted that.
fn with_status(mut sum: Summary, succeeded: bool) -> Summary {
    if !succeeded && sum.failed == 0 {
        sum += Summary::FAILED;
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    const TWO_PROGRAMS: &str = "running 2 tests\n\
        test a ... ok\n\
        test result: ok. 2 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.0s\n\
        \n\
        test result: FAILED. 1 passed; 1 failed; 3 ignored; 0 measured; 0 filtered out; finished in 0s";

    /// Every line is passed on, every result counted, also on a last line without an end.
    #[test]
    fn output_is_passed_on_and_counted() {
        let mut seen = Vec::new();
        let sum = pass_through(TWO_PROGRAMS.as_bytes(), &mut seen).unwrap();
        assert_eq!(String::from_utf8(seen).unwrap(), TWO_PROGRAMS);
        assert_eq!(sum, Summary { passed: 3, failed: 1, skipped: 3 });
    }

    /// A program may print what it likes.
    #[test]
    fn output_that_is_no_text_is_passed_on() {
        let bytes = b"\xff\xfe\ntest result: ok. 1 passed; 0 failed; 0 ignored;\n";
        let mut seen = Vec::new();
        let sum = pass_through(&bytes[..], &mut seen).unwrap();
        assert_eq!(seen, bytes);
        assert_eq!(sum.passed, 1);
    }

    /// A suite that does not compile must not look like one without tests.
    #[test]
    fn failure_that_no_test_counted_is_one_failure() {
        assert_eq!(with_status(Summary::default(), false), Summary::FAILED);
        assert_eq!(with_status(Summary::default(), true), Summary::default());
        let counted = Summary { passed: 1, failed: 2, skipped: 0 };
        assert_eq!(with_status(counted, false), counted);
    }
}
