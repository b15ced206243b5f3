//! The benchmarks: `cargo xtask bench <name>`.

use std::process::ExitCode;

use anyhow::Result;

use crate::workspace::Workspace;
use crate::{cells, command, wasip2};

/// Builds cells, the guests of the benchmarks and the runtime, then runs the benchmark program, which
/// finds them through `CELLMESH_BIN`, `CELLMESH_CELLS` and `CELLMESH_BENCH_GUESTS`.
pub(crate) fn run(workspace: &Workspace, args: &[String]) -> Result<ExitCode> {
    let compiler = wasip2::compiler(workspace)?;
    let guests = workspace.target.join("bench-guests");
    let cells = workspace.cells();
    cells::build_folder(workspace, &compiler, &workspace.root.join("cells"), &cells)?;
    cells::build_folder(
        workspace,
        &compiler,
        &workspace.root.join("bench/guests"),
        &guests,
    )?;
    let packages = [
        "--release",
        "--package",
        "cellmesh",
        "--package",
        "cellmesh-bench",
    ];
    command::run(workspace.cargo().arg("build").args(packages))?;
    let mut bench = std::process::Command::new(workspace.target.join("release/cellmesh-bench"));
    bench
        .args(args)
        .current_dir(&workspace.root)
        .env("CELLMESH_BIN", workspace.target.join("release/cellmesh"))
        .env("CELLMESH_CELLS", cells)
        .env("CELLMESH_BENCH_GUESTS", guests);
    command::run(&mut bench)?;
    Ok(ExitCode::SUCCESS)
}
