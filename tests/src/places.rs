//! Where the program, the cells and the artifact cache are.

use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

/// `target/debug` or `target/release`: this test is in `deps` below it.
fn profile_dir() -> PathBuf {
    let test = std::env::current_exe().expect("a test knows its own file");
    let deps = test.parent().expect("it is in a folder");
    deps.parent().expect("cargo puts tests two folders deep").to_owned()
}

fn target_dir() -> PathBuf {
    profile_dir().parent().expect("the profile is a folder of the target folder").to_owned()
}

/// How the modules are spread over processes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Placement {
    /// All in one: `cellmesh run`.
    CoHosted,
    /// `cellmesh node` and workers.
    Split,
}

/// The placement under test: `$CELLMESH_PLACEMENT`, `cohosted` or `split`.
#[must_use]
pub fn placement() -> Placement {
    match std::env::var("CELLMESH_PLACEMENT").as_deref() {
        Err(_) | Ok("cohosted") => Placement::CoHosted,
        Ok("split") => Placement::Split,
        Ok(other) => panic!("CELLMESH_PLACEMENT={other}: must be cohosted or split"),
    }
}

/// The program under test.
#[must_use]
pub fn program() -> PathBuf {
    let program =
        std::env::var_os("CELLMESH_BIN").map_or_else(|| profile_dir().join("cellmesh"), PathBuf::from);
    assert!(program.is_file(), "no cellmesh at {}: run `cargo xtask test`", program.display());
    program
}

/// The folder of the compiled cells.
#[must_use]
pub fn cells_dir() -> PathBuf {
    std::env::var_os("CELLMESH_CELLS").map_or_else(|| target_dir().join("cells"), PathBuf::from)
}

/// The component of a cell of this repository.
#[must_use]
pub fn cell(name: &str) -> PathBuf {
    let file = cells_dir().join(name).with_extension("wasm");
    assert!(file.is_file(), "no cell at {}: run `cargo xtask cells`", file.display());
    file
}

/// The artifact cache that all tests share, so that a cell is compiled once and not in each test.
#[must_use]
pub fn shared_cache_dir() -> PathBuf {
    let dir = target_dir().join("e2e-cache");
    make_private(&dir);
    dir
}

/// The folder of the pictures that tests take of the dashboard: `target/screenshots`.
pub(crate) fn screenshots_dir() -> PathBuf {
    let dir = target_dir().join("screenshots");
    std::fs::create_dir_all(&dir).expect("the target folder can be written to");
    dir
}

/// Makes a folder that only this user can read.
pub(crate) fn make_private(dir: &Path) {
    let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir);
    made.unwrap_or_else(|error| panic!("cannot make {}: {error}", dir.display()));
}
