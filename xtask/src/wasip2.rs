//! A compiler for wasm32-wasip2: found on this machine, or brought to it.
//!
//! 1. The active toolchain has the target's standard library: use it.
//! 2. A distribution's Rust with its source is there: it compiles the standard library itself.
//! 3. `rustup target add`. Where there is no network that waits for ever, so the wait is bounded.
//! 4. Install the distribution's packages, then as in 2.
//!
//! Each way is tried at most once per run; when all have failed the error tells what each one said.
//! The linker comes from the active toolchain in every case: distributions do not have it.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::command::Bounded;
use crate::toolchain::{self, Toolchain, Version};
use crate::workspace::Workspace;

mod debian;
#[cfg(test)]
mod tests;

/// What cells are compiled for.
pub(crate) const TARGET: &str = "wasm32-wasip2";

/// How to call a compiler for cells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Compiler {
    /// The active toolchain's cargo.
    Toolchain,
    /// The distribution's cargo, which compiles the standard library from source first.
    FromSource {
        /// The active toolchain's linker, and the folder of the `wasm-ld` that it calls.
        linker: PathBuf,
        wasm_ld_folder: PathBuf,
    },
}

/// Finds a compiler for cells or installs one.
pub(crate) fn compiler(workspace: &Workspace) -> Result<Compiler> {
    let toolchain = Toolchain::active(workspace)?;
    let mut known = Known {
        target_installed: toolchain.has_target(TARGET),
        source_installed: debian::is_complete(),
        rustup: Attempt::possible_if(toolchain.is_from_rustup(), "rustup did not make this toolchain"),
        packages: debian::installable(),
    };
    loop {
        match known.next() {
            Next::UseToolchain => return Ok(Compiler::Toolchain),
            Next::UseSource => return from_source(&toolchain),
            Next::AskRustup => {
                known.rustup = Attempt::Impossible(ask_rustup(workspace)?);
                known.target_installed = toolchain.has_target(TARGET);
            }
            Next::InstallPackages => {
                known.packages = Attempt::Impossible(debian::install()?);
                known.source_installed = debian::is_complete();
            }
            Next::GiveUp(why) => bail!(why),
        }
    }
}

/// What is known so far about the ways to a compiler.
#[derive(Debug)]
struct Known {
    target_installed: bool,
    source_installed: bool,
    rustup: Attempt,
    packages: Attempt,
}

/// A way that may change what is installed.
#[derive(Debug)]
enum Attempt {
    Possible,
    /// Tried, or not worth trying; why it is of no use.
    Impossible(String),
}

impl Attempt {
    fn possible_if(possible: bool, else_why: &str) -> Self {
        if possible { Self::Possible } else { Self::Impossible(else_why.to_owned()) }
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Next {
    UseToolchain,
    UseSource,
    AskRustup,
    InstallPackages,
    GiveUp(String),
}

impl Known {
    /// The cheapest thing to do next. What is there already comes before any download.
    fn next(&self) -> Next {
        match self {
            Self { target_installed: true, .. } => Next::UseToolchain,
            Self { source_installed: true, .. } => Next::UseSource,
            Self { rustup: Attempt::Possible, .. } => Next::AskRustup,
            Self { packages: Attempt::Possible, .. } => Next::InstallPackages,
            Self { rustup: Attempt::Impossible(rustup), packages: Attempt::Impossible(packages), .. } => {
                Next::GiveUp(format!(
                    "nothing on this machine compiles to {TARGET}:\n  \
                 - `rustup target add {TARGET}`: {rustup}\n  \
                 - packages with Rust's source: {packages}"
                ))
            }
        }
    }
}

/// Returns what to say if the target is not there afterwards.
fn ask_rustup(workspace: &Workspace) -> Result<String> {
    Ok(match toolchain::rustup(workspace, &["target", "add", TARGET])? {
        Bounded::Succeeded => "succeeded, but the standard library is not where it belongs",
        Bounded::Failed => "failed, see above",
        Bounded::GaveUp => "nothing arrived, gave up (is there a network?)",
    }
    .to_owned())
}

fn from_source(toolchain: &Toolchain) -> Result<Compiler> {
    let bin = toolchain.rustlib().join(&toolchain.host).join("bin");
    let linker = bin.join("wasm-component-ld");
    let wasm_ld_folder = bin.join("gcc-ld");
    if !linker.is_file() || !wasm_ld_folder.join("wasm-ld").is_file() {
        bail!(
            "the active Rust toolchain has no bin/wasm-component-ld and bin/gcc-ld/wasm-ld in {}: \
             a toolchain from rustup has them",
            toolchain.rustlib().join(&toolchain.host).display()
        );
    }
    Ok(Compiler::FromSource { linker, wasm_ld_folder })
}

impl Compiler {
    /// `cargo <subcommand> --target wasm32-wasip2` in `folder`, whose own cargo config applies. Flags in the
    /// environment are for the host, and would replace those of the config: they are left out.
    pub(crate) fn cargo(
        &self,
        workspace: &Workspace,
        folder: &Path,
        subcommand: &str,
    ) -> Result<std::process::Command> {
        let mut cargo = match self {
            Self::Toolchain => workspace.cargo(),
            Self::FromSource { linker, wasm_ld_folder } => debian::cargo(linker, wasm_ld_folder)?,
        };
        for variable in ["RUSTFLAGS", "CARGO_ENCODED_RUSTFLAGS", "CARGO_BUILD_RUSTFLAGS"] {
            cargo.env_remove(variable);
        }
        cargo.current_dir(folder).args([subcommand, "--target", TARGET]);
        if matches!(self, Self::FromSource { .. }) {
            cargo.args(debian::OPTIONS);
        }
        Ok(cargo)
    }
}

/// `first` in front of the search path.
fn path_with(first: &[&Path]) -> Result<OsString> {
    let rest = std::env::var_os("PATH").unwrap_or_default();
    let all = first.iter().map(PathBuf::from).chain(std::env::split_paths(&rest));
    std::env::join_paths(all).context("PATH cannot hold the folder of the linker")
}

/// Whether a compiler is new enough for cells.
fn is_new_enough(version: Version) -> bool {
    version >= Version::oldest()
}
