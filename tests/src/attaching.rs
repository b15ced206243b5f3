//! A process by itself that attaches to a DPA.

use std::path::Path;
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

use crate::{Log, cells_dir, program, shared_cache_dir};

/// A worker, or another process that looks for its DPA at a socket. It ends when this is dropped.
pub struct Attaching {
    child: Child,
    log: Log,
    _folder: TempDir,
}

impl Attaching {
    /// Starts `cellmesh COMMAND app.toml ARGS --socket SOCKET`; in `toml` `{cells}` stands for the folder of the cells.
    #[must_use]
    pub fn start(command: &str, toml: &str, args: &[&str], socket: &Path) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let app = folder.path().join("app.toml");
        std::fs::write(&app, toml.replace("{cells}", cells_dir().to_str().expect("text"))).expect("a file");
        let mut child = Command::new(program())
            .arg(command)
            .arg(app)
            .args(args)
            .arg("--socket")
            .arg(socket)
            .arg("--cache-dir")
            .arg(shared_cache_dir())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("cellmesh can be started");
        let log = Log::of(child.stderr.take().expect("stderr is piped"));
        Self { child, log, _folder: folder }
    }

    /// What it logs.
    #[must_use]
    pub fn log(&self) -> &Log {
        &self.log
    }

    /// Whether it goes on.
    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().expect("our child").is_none()
    }
}

impl Drop for Attaching {
    fn drop(&mut self) {
        // One that has ended already has nothing more to say.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
