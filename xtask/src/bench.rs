//! The benchmarks: `cargo xtask bench <name>`.

use std::process::{Command, ExitCode};

use anyhow::Result;

use crate::workspace::Workspace;
use crate::{cells, command, wasip2};

/// Benchmarks of parts: they need neither cells nor the runtime.
const OF_PARTS: [&str; 2] = ["contract", "transport"];

/// Builds what a benchmark needs, then runs the benchmark program, which finds it through
/// `CELLMESH_BIN`, `CELLMESH_CELLS` and `CELLMESH_BENCH_GUESTS`. `profile`: of cargo, for both.
pub(crate) fn run(workspace: &Workspace, profile: &str, args: &[String]) -> Result<ExitCode> {
    let compiler = wasip2::compiler(workspace)?;
    let guests = workspace.target.join("bench-guests");
    cells::build_folder(workspace, &compiler, &workspace.root.join("bench/guests"), &guests, &[])?;
    let mut build = workspace.cargo();
    build.args(["build", "--profile", profile, "--package", "cellmesh-bench"]);
    if needs_runtime(args) {
        let cells = workspace.root.join("cells");
        cells::build_folder(workspace, &compiler, &cells, &workspace.cells(), &[])?;
        build.args(["--package", "cellmesh"]);
    }
    command::run(&mut build)?;
    let built = workspace.target.join(profile);
    let mut bench = Command::new(built.join("cellmesh-bench"));
    bench
        .args(args)
        .current_dir(&workspace.root)
        .env("CELLMESH_BIN", built.join("cellmesh"))
        .env("CELLMESH_CELLS", workspace.cells())
        .env("CELLMESH_BENCH_GUESTS", guests);
    command::run(&mut bench)?;
    Ok(ExitCode::SUCCESS)
}

fn needs_runtime(args: &[String]) -> bool {
    args.first().is_none_or(|first| !OF_PARTS.contains(&first.as_str()))
}

#[cfg(test)]
mod tests {
    use super::needs_runtime;

    /// A benchmark of a part does not wait for a build of the whole.
    #[test]
    fn only_benchmarks_of_the_whole_build_it() {
        let needs = |args: &[&str]| needs_runtime(&args.iter().map(ToString::to_string).collect::<Vec<_>>());
        assert!(!needs(&["contract", "--rounds", "1"]));
        assert!(needs(&["serve"]));
        assert!(needs(&[]));
    }
}
