//! Scratch folders: what a cell sees as `/scratch`.
//!
//! - A temporary one is removed with the last instance of its service. One whose process was killed stays, until
//!   the next process that opens one finds it: a folder in use is locked, and the kernel lets go of the locks of the dead.

use std::fs::{self, File, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Once;
use std::time::Duration;

use tempfile::TempDir;

const PREFIX: &str = "cellmesh-scratch-";

/// A folder that is younger may not be locked yet.
const LOCKED_AFTER: Duration = Duration::from_secs(60);

/// Where a scratch folder is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scratch {
    /// A folder that is there already; it stays.
    Folder(PathBuf),
    /// A new folder for each service, removed with the last instance.
    Temporary,
}

/// An opened scratch folder; a temporary one is removed when it is dropped.
pub(super) enum ScratchFolder {
    Kept(PathBuf),
    Temporary { folder: TempDir, _lock: File },
}

impl ScratchFolder {
    /// Opens or makes one. The first temporary one of a process removes those of processes that were killed.
    /// # Errors
    /// The path that could not be used, and why.
    pub(super) fn open(scratch: &Scratch) -> Result<Self, (PathBuf, io::Error)> {
        match scratch {
            Scratch::Folder(path) if path.is_dir() => Ok(Self::Kept(path.clone())),
            Scratch::Folder(path) => Err((path.clone(), io::ErrorKind::NotADirectory.into())),
            Scratch::Temporary => {
                static SWEPT: Once = Once::new();
                let parent = std::env::temp_dir();
                SWEPT.call_once(|| sweep(&parent));
                Self::make(&parent).map_err(|source| (parent, source))
            }
        }
    }

    fn make(parent: &Path) -> io::Result<Self> {
        let folder = tempfile::Builder::new().prefix(PREFIX).tempdir_in(parent)?;
        let lock = File::open(folder.path())?;
        lock.lock()?;
        Ok(Self::Temporary { folder, _lock: lock })
    }

    pub(super) fn path(&self) -> &Path {
        match self {
            Self::Kept(path) => path,
            Self::Temporary { folder, .. } => folder.path(),
        }
    }
}

/// Removes the temporary folders in `parent` whose process is gone. One that cannot be removed is not worth stopping for.
fn sweep(parent: &Path) {
    let Ok(entries) = fs::read_dir(parent) else { return };
    for entry in entries.flatten() {
        let path = entry.path();
        let is_ours = entry.file_name().to_string_lossy().starts_with(PREFIX);
        if is_ours && is_left_behind(&path).unwrap_or(false) {
            match fs::remove_dir_all(&path) {
                Ok(()) => {
                    tracing::info!(path = %path.display(), "removed the scratch folder of a process that is gone")
                }
                Err(error) => tracing::debug!(path = %path.display(), %error, "a scratch folder stays"),
            }
        }
    }
}

/// A folder of our own user, not a link to one, that nobody has locked.
fn is_left_behind(path: &Path) -> io::Result<bool> {
    let is_old =
        |meta: &Metadata| meta.modified().is_ok_and(|at| at.elapsed().is_ok_and(|age| age > LOCKED_AFTER));
    let meta = fs::symlink_metadata(path)?;
    if !meta.is_dir() || meta.uid() != rustix::process::geteuid().as_raw() || !is_old(&meta) {
        return Ok(false);
    }
    Ok(File::open(path)?.try_lock().is_ok())
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;

    fn make_old(path: &Path) {
        let hour_ago = SystemTime::now() - Duration::from_secs(3600);
        File::open(path).and_then(|folder| folder.set_modified(hour_ago)).expect("our own folder");
    }

    /// Folders of the dead are removed with all that is in them. What is in use, new, of another name, or a link to something
    /// else stays.
    #[test]
    fn folders_of_the_dead_are_removed() {
        let parent = tempfile::tempdir().expect("a temporary folder");
        let at = |name: &str| parent.path().join(name);
        for name in ["cellmesh-scratch-dead", "cellmesh-scratch-new", "other-scratch-dead", "target"] {
            fs::create_dir_all(at(name).join("stress")).expect("room");
        }
        std::os::unix::fs::symlink(at("target"), at("cellmesh-scratch-link")).expect("room");
        let used = ScratchFolder::make(parent.path()).expect("room");
        for path in [&at("cellmesh-scratch-dead"), &at("other-scratch-dead"), &at("target"), used.path()] {
            make_old(path);
        }
        sweep(parent.path());
        let left = |path: &Path| path.exists();
        assert!(!left(&at("cellmesh-scratch-dead")));
        for name in ["cellmesh-scratch-new", "other-scratch-dead", "target/stress", "cellmesh-scratch-link"] {
            assert!(left(&at(name)), "{name}");
        }
        assert!(left(used.path()));
        let path = used.path().to_owned();
        drop(used);
        assert!(!left(&path));
    }
}
