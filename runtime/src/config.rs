//! Configuration: from a file to an [`App`] that can be run, or to the list of everything that is wrong with it.
//!
//! - `app.toml` names cells and settings (`manifest.rs`); `workmodel.json` is a muBench work model, in which every
//!   service becomes an instance of the muBench cell (`workmodel.rs`).
//! - Nothing is bound, compiled or started before the whole file is read and checked.
//! - Unknown keys are refused with the nearest known name. Durations are text such as `"250ms"`, sizes `"64MiB"`.

mod app;
mod changes;
mod deploy;
mod foreign;
mod ingress;
#[cfg(test)]
mod keys;
mod manifest;
mod node;
mod problems;
mod quantity;
mod reader;
mod registry;
mod service;
mod tls;
mod trace;
mod workmodel;

use std::path::{Path, PathBuf};

pub use app::{App, NodeSettings, Origin, RuntimeSettings, ServiceSpec, WorkerSocket};
pub use changes::{Changes, changes};
pub use deploy::{Deploy, Share};
pub use problems::{Problem, Problems};
pub use quantity::{Quantity, Resource};

/// Which part of an application a process is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Part {
    /// All of it.
    #[default]
    Whole,
    /// Some of its cells.
    Worker,
    /// None of its cells: their files need not be here.
    Daemon,
    /// Neither its cells nor its clients: nor need the files of TLS.
    Dpa,
}

/// What the command line says on top of the file.
#[derive(Debug, Clone, Default)]
pub struct Overrides {
    /// What the process is.
    pub part: Part,
    /// It runs already: files that it has read at its start are not looked at again.
    pub runs: bool,
    /// The DPA's socket.
    pub socket: Option<PathBuf>,
    /// Services that this worker hosts.
    pub worker_services: Option<Vec<String>>,
    /// Address to listen on.
    pub listen: Option<std::net::SocketAddr>,
    /// Address of the admin port.
    pub admin: Option<std::net::SocketAddr>,
    /// Number of lanes.
    pub lanes: Option<usize>,
    /// Folder of the artifact cache.
    pub cache_dir: Option<PathBuf>,
    /// Folder with the cells that come with cellmesh.
    pub cells_dir: Option<PathBuf>,
}

/// Reads and checks the file at `path`.
///
/// # Errors
/// [`Problems`]: all of them, each with file, key, what is wrong and what would be right.
pub fn load(path: &Path, overrides: &Overrides) -> Result<App, Problems> {
    parse(path, text(path)?, overrides)
}

/// Source: RFC 3629, 6.
const BYTE_ORDER_MARK: char = '\u{feff}';

/// What the file at `path` says now.
///
/// # Errors
/// One problem: that it cannot be read.
pub fn text(path: &Path) -> Result<String, Problems> {
    let mut text = std::fs::read_to_string(path).map_err(|error| {
        let (wrong, right) = if error.kind() == std::io::ErrorKind::InvalidData {
            ("is not UTF-8".to_owned(), "save it as UTF-8")
        } else {
            (format!("cannot be read: {error}"), "name an app.toml or a workmodel.json")
        };
        Problems::one(Problem::of_file(path, &wrong, right))
    })?;
    // Some editors begin a file with a mark that says that it is UTF-8.
    if text.starts_with(BYTE_ORDER_MARK) {
        text.drain(..BYTE_ORDER_MARK.len_utf8());
    }
    Ok(text)
}

/// Checks `text`, which was read from `path`.
///
/// # Errors
/// As [`load`].
pub fn parse(path: &Path, text: String, overrides: &Overrides) -> Result<App, Problems> {
    let mut app = if is_json(path, &text) {
        workmodel::read(path, &text, overrides)?
    } else {
        manifest::read(path, &text, overrides)?
    };
    app.apply(path, overrides)?;
    let model = app.origin.model.take();
    app.origin = Origin { path: path.to_owned(), text, model, overrides: overrides.clone() };
    Ok(app)
}

/// By its name, or, if that says nothing, by its first character.
pub(crate) fn is_json(path: &Path, text: &str) -> bool {
    match path.extension().and_then(|extension| extension.to_str()) {
        Some("json") => true,
        Some("toml") => false,
        _ => text.trim_start().starts_with('{'),
    }
}

#[cfg(test)]
mod tests;
