//! What paths of this machine are called in what is built here: the same on every machine.
//!
//! Panic messages name source files. Those of packages lie in a folder that is called after the mirror that they came from, so
//! that folder has another name too.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::workspace::Workspace;

/// The folder of a registry's packages.
const REGISTRY: &str = "/cargo/registry";

/// A path, and what it is called instead.
#[derive(Debug)]
pub(crate) struct Remap {
    from: PathBuf,
    to: &'static str,
}

impl Remap {
    /// What `rustc` takes.
    pub(crate) fn rust_flag(&self) -> String {
        format!("--remap-path-prefix={}={}", self.from.display(), self.to)
    }

    /// What compilers of C take.
    pub(crate) fn c_flag(&self) -> String {
        format!("-ffile-prefix-map={}={}", self.from.display(), self.to)
    }
}

/// Where cargo keeps packages and its settings.
pub(crate) fn cargo_home() -> Result<PathBuf> {
    let set = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    set.or_else(|| Some(std::env::home_dir()?.join(".cargo"))).context("neither HOME nor CARGO_HOME is set")
}

/// All of this machine, once packages have been fetched: only then there is a folder for them.
pub(crate) fn remaps(workspace: &Workspace) -> Result<Vec<Remap>> {
    let cargo_home = cargo_home()?;
    let sources = cargo_home.join("registry/src");
    let mut remaps = vec![Remap { from: cargo_home, to: "/cargo" }];
    // Of two that fit, the last one holds.
    remaps.extend(folders(&sources)?.into_iter().map(|from| Remap { from, to: REGISTRY }));
    remaps.push(Remap { from: workspace.root.clone(), to: "/cellmesh" });
    remaps.push(Remap { from: workspace.target.clone(), to: "/cellmesh/target" });
    Ok(remaps)
}

/// What is in a folder, in the order of the names. Nothing if it is not there: packages may be vendored.
fn folders(folder: &Path) -> Result<Vec<PathBuf>> {
    if !folder.exists() {
        return Ok(Vec::new());
    }
    let entries = fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?;
    let mut paths = entries.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
    paths.sort();
    Ok(paths)
}

/// Paths that should have another name in `built`, but are in it.
pub(crate) fn leaked(built: &[u8], remaps: &[Remap]) -> Vec<PathBuf> {
    // What is also part of a new name cannot be told from it.
    let is_told = |from: &Path| !remaps.iter().any(|remap| remap.to.contains(&*from.to_string_lossy()));
    let found = |from: &Path| {
        let path = from.as_os_str().as_bytes();
        memchr::memmem::find_iter(built, path).any(|at| is_whole(built, at, at + path.len()))
    };
    // The name of a registry's folder, wherever that was said to be.
    let names = remaps.iter().filter(|remap| remap.to == REGISTRY).filter_map(|remap| remap.from.file_name());
    let all = remaps.iter().map(|remap| remap.from.clone()).chain(names.map(PathBuf::from));
    all.filter(|from| is_told(from) && found(from)).collect()
}

/// Whether these bytes are a path or begin one: a short one is also found inside of others.
fn is_whole(built: &[u8], begin: usize, end: usize) -> bool {
    let goes_on = |byte: &u8| byte.is_ascii_alphanumeric() || b"._-".contains(byte);
    let before = begin.checked_sub(1).map(|at| &built[at]);
    !before.is_some_and(goes_on) && !built.get(end).is_some_and(goes_on)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Paths that were not replaced are found, new names are not taken for them, and a registry's folder is known by its name alone.
    #[test]
    fn leaked_paths_are_found() {
        let remap = |from: &str, to| Remap { from: from.into(), to };
        let remaps = [
            remap("/home/me/.cargo", "/cargo"),
            remap("/home/me/.cargo/registry/src/mirror-1f2e", "/cargo/registry"),
            remap("/cellmesh", "/cellmesh"),
        ];
        let leaked = |program: &str| leaked(program.as_bytes(), &remaps);
        assert_eq!(
            leaked("panicked at /cargo/registry/h2-0.4.20/src/lib.rs of /cellmesh/runtime"),
            Vec::<PathBuf>::new()
        );
        assert_eq!(leaked("\0/home/me/.cargo/git/x.rs\0"), [PathBuf::from("/home/me/.cargo")]);
        assert_eq!(leaked("/cargo/registry/src/mirror-1f2e/h2"), [PathBuf::from("mirror-1f2e")]);
        let short = [remap("/src", "/cellmesh")];
        let leaked = |program: &str| super::leaked(program.as_bytes(), &short);
        assert_eq!(leaked("/cargo/registry/h2/src/lib.rs /srcs/x"), Vec::<PathBuf>::new());
        assert_eq!(leaked("at /src/runtime/main.rs"), [PathBuf::from("/src")]);
    }
}
