//! Where the checkout is and where its build results go.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use serde::Deserialize;

use crate::command;

/// The checkout that this program was built from.
#[derive(Debug, Clone)]
pub(crate) struct Workspace {
    /// The folder of the root `Cargo.toml`.
    pub(crate) root: PathBuf,
    /// Cargo's target folder: `CARGO_TARGET_DIR`, else what its config says.
    pub(crate) target: PathBuf,
}

impl Workspace {
    /// Asks cargo; one process.
    pub(crate) fn find() -> Result<Self> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"))
            .parent()
            .context("xtask lies in the root of the workspace")?;
        let metadata = Metadata::of(&root.join("Cargo.toml"))?;
        Ok(Self { root: metadata.workspace_root, target: metadata.target_directory })
    }

    /// A `cargo` of the active toolchain, started in the root.
    pub(crate) fn cargo(&self) -> Command {
        let mut cargo = cargo();
        cargo.current_dir(&self.root).env("CARGO_TARGET_DIR", &self.target);
        cargo
    }

    /// Where the built cells are: `<name>.wasm`, named by their folders.
    pub(crate) fn cells(&self) -> PathBuf {
        self.target.join("cells")
    }
}

/// The cargo that runs this program, so that all of a build is made by one toolchain.
fn cargo() -> Command {
    Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
}

/// What `cargo metadata` says, as far as it is needed here. Packages from registries are left out.
#[derive(Debug, Deserialize)]
pub(crate) struct Metadata {
    pub(crate) packages: Vec<Package>,
    pub(crate) workspace_root: PathBuf,
    pub(crate) target_directory: PathBuf,
}

/// A member of a workspace.
#[derive(Debug, Deserialize)]
pub(crate) struct Package {
    pub(crate) name: String,
    pub(crate) manifest_path: PathBuf,
    /// Where its source is, if it says so.
    pub(crate) repository: Option<String>,
    pub(crate) dependencies: Vec<Dependency>,
}

/// One line of a `[dependencies]` table of any kind.
#[derive(Debug, Deserialize)]
pub(crate) struct Dependency {
    pub(crate) name: String,
    /// Set where the dependency is a folder of this checkout.
    pub(crate) path: Option<PathBuf>,
    /// `dev` or `build`; none for an ordinary dependency.
    pub(crate) kind: Option<String>,
}

impl Metadata {
    /// The members of the workspace of `manifest`.
    pub(crate) fn of(manifest: &Path) -> Result<Self> {
        let mut ask = cargo();
        ask.args(["metadata", "--format-version=1", "--no-deps", "--manifest-path"]).arg(manifest);
        let text = command::capture(&mut ask)?;
        serde_json::from_str(&text).context("cannot read the output of `cargo metadata`")
    }
}
