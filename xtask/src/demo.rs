//! The main job on the bundled example.

use std::process::{Command, ExitCode};

use anyhow::Result;

use crate::workspace::Workspace;
use crate::{cells, command};

/// What is served where nothing else is named: `s0` calls `s1`, then `s2`.
const EXAMPLE: &str = "examples/chain.json";

/// Builds the cells and the runtime, then runs `cellmesh run`; its exit code is ours.
pub(crate) fn run(workspace: &Workspace, args: &[String]) -> Result<ExitCode> {
    cells::build(workspace)?;
    command::run(workspace.cargo().args(["build", "--release", "--package", "cellmesh"]))?;
    let mut cellmesh = Command::new(workspace.target.join("release/cellmesh"));
    cellmesh.arg("run").args(with_example(args));
    cellmesh.current_dir(&workspace.root).env("CELLMESH_CELLS", workspace.cells());
    let status = command::status(&mut cellmesh)?;
    Ok(status.code().and_then(|code| u8::try_from(code).ok()).map_or(ExitCode::FAILURE, ExitCode::from))
}

/// The arguments of `cellmesh run`: an application comes first, so that options need not name one.
fn with_example(args: &[String]) -> Vec<&str> {
    let args = args.iter().map(String::as_str);
    let names_application = args.clone().next().is_some_and(|first| !first.starts_with('-'));
    let example = (!names_application).then_some(EXAMPLE);
    example.into_iter().chain(args).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Options alone keep the example; an application replaces it.
    #[test]
    fn example_is_served_unless_another_is_named() {
        let with =
            |args: &[&str]| with_example(&args.iter().map(ToString::to_string).collect::<Vec<_>>()).join(" ");
        assert_eq!(with(&[]), EXAMPLE);
        assert_eq!(with(&["--port", "0"]), format!("{EXAMPLE} --port 0"));
        assert_eq!(with(&["mine.toml", "--port", "0"]), "mine.toml --port 0");
    }
}
