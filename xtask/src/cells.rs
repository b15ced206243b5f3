//! Compiling cells: a workspace of them goes into one folder of components.
//!
//! A component is named by the folder of its package: `cells/hello` becomes `target/cells/hello.wasm`.
//! Every package with a `cdylib` is a cell; others are libraries of cells.
//!
//! How they are linked (the memory that they start with) is said in `.cargo/config.toml` beside their
//! manifest, so that a plain `cargo build` there makes the same components.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{ChildStdout, Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;

use crate::wasip2::{self, Compiler};
use crate::workspace::Workspace;

/// Builds the cells of `cells/`; returns the folder of the components.
pub(crate) fn build(workspace: &Workspace) -> Result<PathBuf> {
    let compiler = wasip2::compiler(workspace)?;
    let out = workspace.cells();
    build_folder(workspace, &compiler, &workspace.root.join("cells"), &out, &[])?;
    Ok(out)
}

/// Builds the workspace in `folder`, release profile, and puts its components into `out`. `rust_flags` are added to those of the
/// folder's config.
///
/// A second run costs what cargo takes to see that nothing changed; components that did not change
/// keep their time stamps.
pub(crate) fn build_folder(
    workspace: &Workspace,
    compiler: &Compiler,
    folder: &Path,
    out: &Path,
    rust_flags: &[String],
) -> Result<()> {
    let mut cargo = compiler.cargo(workspace, folder, "build")?;
    if !rust_flags.is_empty() {
        // A list of strings is the same in JSON and in TOML.
        let flags = serde_json::to_string(rust_flags).context("flags are text")?;
        cargo.arg("--config").arg(format!("target.{}.rustflags={flags}", wasip2::TARGET));
    }
    cargo
        .args(["--workspace", "--release", "--message-format=json-render-diagnostics"])
        .env("CARGO_TARGET_DIR", workspace.target.join("wasm"));
    let components = compile(&mut cargo)?;
    ensure!(!components.is_empty(), "{} has no package with a cdylib", folder.display());
    fs::create_dir_all(out).with_context(|| format!("cannot create {}", out.display()))?;
    for component in &components {
        component.place(out)?;
    }
    let names: Vec<&str> = components.iter().map(|component| component.name.as_str()).collect();
    eprintln!("cells in {}: {}", out.display(), names.join(", "));
    Ok(())
}

/// A compiled cell in cargo's target folder.
#[derive(Debug, PartialEq, Eq)]
struct Component {
    name: String,
    file: PathBuf,
}

fn compile(cargo: &mut Command) -> Result<Vec<Component>> {
    let mut child = cargo.stdout(Stdio::piped()).spawn().context("cannot start cargo")?;
    let output = child.stdout.take().expect("stdout is piped");
    let components = components(output);
    let status = child.wait().context("cannot wait for cargo")?;
    if !status.success() {
        bail!("the cells do not compile");
    }
    components
}

/// Reads all that cargo says, to the end, so that it never waits for us.
fn components(output: ChildStdout) -> Result<Vec<Component>> {
    let mut found = Vec::new();
    for line in BufReader::new(output).lines() {
        let line = line.context("cannot read the output of cargo")?;
        found.extend(component_in(&line));
    }
    found.sort_by(|left, right| left.name.cmp(&right.name));
    Ok(found)
}

/// A message of `cargo build --message-format=json`, as far as it is needed here.
#[derive(Deserialize)]
struct Message {
    manifest_path: PathBuf,
    target: CargoTarget,
    filenames: Vec<PathBuf>,
}

#[derive(Deserialize)]
struct CargoTarget {
    kind: Vec<String>,
}

/// The component that a message announces, if it does.
fn component_in(line: &str) -> Option<Component> {
    let message: Message = serde_json::from_str(line).ok()?;
    if !message.target.kind.iter().any(|kind| kind == "cdylib") {
        return None;
    }
    let is_wasm = |file: &PathBuf| file.extension().is_some_and(|extension| extension == "wasm");
    let name = message.manifest_path.parent()?.file_name()?.to_str()?.to_owned();
    Some(Component { name, file: message.filenames.into_iter().find(is_wasm)? })
}

impl Component {
    /// Copies the component into `out`, in one step, unless the same is there already: a running
    /// server may be reading it.
    fn place(&self, out: &Path) -> Result<()> {
        let target = out.join(format!("{}.wasm", self.name));
        let new = fs::read(&self.file).with_context(|| format!("cannot read {}", self.file.display()))?;
        if fs::read(&target).is_ok_and(|old| old == new) {
            return Ok(());
        }
        let partial = target.with_extension("wasm.partial");
        fs::write(&partial, new)
            .and_then(|()| fs::rename(&partial, &target))
            .with_context(|| format!("cannot write {}", target.display()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Only cdylibs are cells, and the folder names them.
    #[test]
    fn components_are_named_by_their_folder() {
        let line = |kind: &str| {
            format!(
                r#"{{"reason":"compiler-artifact","manifest_path":"/w/cells/fan-out/Cargo.toml",
                    "target":{{"kind":["{kind}"],"name":"fan_out"}},
                    "filenames":["/t/libfan_out.rlib","/t/fan_out.wasm"],"fresh":true}}"#
            )
        };
        let expected = Component { name: "fan-out".into(), file: "/t/fan_out.wasm".into() };
        assert_eq!(component_in(&line("cdylib")), Some(expected));
        assert_eq!(component_in(&line("lib")), None);
        assert_eq!(component_in(r#"{"reason":"build-finished","success":true}"#), None);
    }

    /// An unchanged component is not written again.
    #[test]
    fn unchanged_component_keeps_its_file() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("built.wasm");
        let component = Component { name: "hello".into(), file: file.clone() };
        let placed = dir.path().join("hello.wasm");
        let inode = |path: &Path| std::os::unix::fs::MetadataExt::ino(&fs::metadata(path).unwrap());

        fs::write(&file, "one").unwrap();
        component.place(dir.path()).unwrap();
        let first = inode(&placed);
        component.place(dir.path()).unwrap();
        assert_eq!(inode(&placed), first);

        fs::write(&file, "two").unwrap();
        component.place(dir.path()).unwrap();
        assert_eq!(fs::read_to_string(&placed).unwrap(), "two");
        assert_ne!(inode(&placed), first);
    }
}
