//! Who may depend on whom: ARCHITECTURE.md's picture, checked against the manifests.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use super::Finding;
use crate::workspace::{Metadata, Package, Workspace};

/// The members of the workspace and which others they may name, lowest first. What is not listed here
/// is refused: a new crate has to be given a place.
const LAYERS: [(&str, &[&str]); 10] = [
    ("cellmesh-shm", &[]),
    ("cellmesh-graph", &[]),
    ("cellmesh-dpa", &["cellmesh-shm"]),
    ("cellmesh-dpu", &["cellmesh-shm"]),
    ("cellmesh-guest-macros", &[]),
    ("cellmesh-guest", &["cellmesh-guest-macros"]),
    ("cellmesh", &["cellmesh-shm", "cellmesh-graph", "cellmesh-dpa", "cellmesh-dpu"]),
    ("cellmesh-tests", &["cellmesh", "cellmesh-shm", "cellmesh-graph", "cellmesh-dpa", "cellmesh-dpu"]),
    ("cellmesh-bench", &["cellmesh", "cellmesh-shm", "cellmesh-graph", "cellmesh-dpa", "cellmesh-dpu"]),
    ("xtask", &[]),
];

/// What a cell may use from this checkout, besides libraries in its own workspace.
const FOR_CELLS: [&str; 1] = ["cellmesh-guest"];

/// What tests of a crate may use beside that: who, and whom.
const FOR_TESTS: [(&str, &str); 1] = [
    // Rings need somebody at the other end.
    ("cellmesh-dpu", "cellmesh-dpa"),
];

/// Checks dependencies of every kind.
pub(super) fn check(workspace: &Workspace) -> Result<Vec<Finding>> {
    let mut findings = Vec::new();
    for package in Metadata::of(&workspace.root.join("Cargo.toml"))?.packages {
        let layer = LAYERS.iter().find(|(name, _)| *name == package.name);
        findings.extend(broken(workspace, &package, layer.map(|(_, allowed)| *allowed))?);
    }
    for package in cells(workspace)? {
        findings.extend(broken(workspace, &package, Some(&FOR_CELLS))?);
    }
    Ok(findings)
}

fn cells(workspace: &Workspace) -> Result<Vec<Package>> {
    Ok(Metadata::of(&workspace.root.join("cells/Cargo.toml"))?.packages)
}

/// What one manifest names against the rules; `allowed` is none for a crate without a place.
fn broken(workspace: &Workspace, package: &Package, allowed: Option<&[&str]>) -> Result<Vec<Finding>> {
    let manifest = &package.manifest_path;
    let text = fs::read_to_string(manifest).with_context(|| format!("cannot read {}", manifest.display()))?;
    let relative = manifest.strip_prefix(&workspace.root).unwrap_or(manifest);
    let finding = |line, message| Finding { file: relative.display().to_string(), line, message };
    let Some(allowed) = allowed else {
        let message = format!("`{}` has no place in xtask/src/tidy/layers.rs", package.name);
        return Ok(vec![finding(1, message)]);
    };
    let refused = refused(workspace, package, allowed);
    Ok(refused.map(|name| finding(line_of(&text, name), refusal(&package.name, name, allowed))).collect())
}

/// Folders of this checkout that a package names and may not.
fn refused<'a>(
    workspace: &'a Workspace,
    package: &'a Package,
    allowed: &'a [&str],
) -> impl Iterator<Item = &'a str> {
    let cells = workspace.root.join("cells");
    let is_cell = package.manifest_path.starts_with(&cells);
    package.dependencies.iter().filter_map(move |dependency| {
        let path: &Path = dependency.path.as_ref()?;
        let is_neighbour = is_cell && path.starts_with(&cells);
        let name = dependency.name.as_str();
        let is_for_tests =
            dependency.kind.as_deref() == Some("dev") && FOR_TESTS.contains(&(package.name.as_str(), name));
        let is_allowed = allowed.contains(&name) || is_neighbour || is_for_tests;
        (!is_allowed).then_some(dependency.name.as_str())
    })
}

fn refusal(package: &str, name: &str, allowed: &[&str]) -> String {
    let allowed = if allowed.is_empty() { "nothing".to_owned() } else { allowed.join(", ") };
    format!("`{package}` must not depend on `{name}`; of ours it may use: {allowed}")
}

/// Where a manifest names a dependency; its first line if it is hidden by a renaming.
fn line_of(manifest: &str, name: &str) -> usize {
    let is_entry = |line: &str| {
        line.trim_start().strip_prefix(name).is_some_and(|rest| rest.starts_with(['.', ' ', '=']))
    };
    manifest.lines().position(is_entry).map_or(1, |index| index + 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workspace::Dependency;

    fn workspace() -> Workspace {
        Workspace { root: "/w".into(), target: "/t".into() }
    }

    fn package(manifest: &str, dependencies: &[(&str, Option<&str>)]) -> Package {
        let dependency = |(name, path): &(&str, Option<&str>)| Dependency {
            name: (*name).to_owned(),
            path: path.map(Into::into),
            kind: None,
        };
        Package {
            name: "it".to_owned(),
            manifest_path: manifest.into(),
            repository: None,
            dependencies: dependencies.iter().map(dependency).collect(),
        }
    }

    fn refused_names(package: &Package, allowed: &[&str]) -> Vec<String> {
        refused(&workspace(), package, allowed).map(str::to_owned).collect()
    }

    /// Crates of registries are free, ours only where the layer allows them.
    #[test]
    fn only_listed_crates_are_allowed() {
        let it = package(
            "/w/daemons/dpa/Cargo.toml",
            &[
                ("tracing", None),
                ("cellmesh-shm", Some("/w/daemons/shm")),
                ("cellmesh-dpu", Some("/w/daemons/dpu")),
            ],
        );
        assert_eq!(refused_names(&it, &["cellmesh-shm"]), ["cellmesh-dpu"]);
    }

    /// Tests of the DPU may start a DPA; the DPU itself may not.
    #[test]
    fn some_crates_are_for_tests_only() {
        let mut it = package("/w/daemons/dpu/Cargo.toml", &[("cellmesh-dpa", Some("/w/daemons/dpa"))]);
        it.name = "cellmesh-dpu".to_owned();
        assert_eq!(refused_names(&it, &["cellmesh-shm"]), ["cellmesh-dpa"]);
        it.dependencies[0].kind = Some("dev".to_owned());
        assert_eq!(refused_names(&it, &["cellmesh-shm"]), [""; 0]);
    }

    /// Cells may share a library of their own workspace, and know the SDK alone.
    #[test]
    fn cells_know_the_sdk_and_each_other() {
        let it = package(
            "/w/cells/mubench/Cargo.toml",
            &[
                ("cellmesh-guest", Some("/w/guest-sdk/rust")),
                ("stress", Some("/w/cells/stress")),
                ("cellmesh-graph", Some("/w/runtime/graph")),
            ],
        );
        assert_eq!(refused_names(&it, &FOR_CELLS), ["cellmesh-graph"]);
    }

    /// The finding points at the line to remove.
    #[test]
    fn line_of_a_dependency_is_found() {
        let manifest = "[dependencies]\ncellmesh-shm-x = 1\ncellmesh-shm.workspace = true\n";
        assert_eq!(line_of(manifest, "cellmesh-shm"), 3);
        assert_eq!(line_of(manifest, "hidden"), 1);
    }
}
