//! What can be done in a folder, without doing it.

use std::path::{Path, PathBuf};

use rustix::fs::{Access, access};

/// A folder that is there, or the nearest one above it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Nearest {
    /// The first that is there, upwards.
    pub(super) path: PathBuf,
    /// Whether it is the one that was meant.
    pub(super) is_meant: bool,
    /// Whether it is a folder at all.
    pub(super) is_folder: bool,
    /// Whether this user may make files in it.
    pub(super) is_writable: bool,
}

/// The folder `meant`, or where it would be made.
pub(super) fn nearest(meant: &Path) -> Nearest {
    let meant = if meant.as_os_str().is_empty() { Path::new(".") } else { meant };
    let there = meant.ancestors().find(|path| path.exists()).filter(|path| !path.as_os_str().is_empty());
    let path = there.unwrap_or(if meant.is_absolute() { Path::new("/") } else { Path::new(".") });
    let rights = Access::WRITE_OK | Access::EXEC_OK;
    Nearest {
        path: path.to_owned(),
        is_meant: path == meant,
        is_folder: path.is_dir(),
        is_writable: access(path, rights).is_ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A folder is found as it is; one that is not there yet by where it would be made.
    #[test]
    fn nearest_folder_is_found() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let (here, file) = (folder.path(), folder.path().join("file"));
        std::fs::write(&file, b"").expect("writable");
        let expected = Nearest { path: here.to_owned(), is_meant: true, is_folder: true, is_writable: true };
        assert_eq!(nearest(here), expected);
        assert_eq!(nearest(&here.join("a/b/c")), Nearest { is_meant: false, ..expected });
        assert!(!nearest(&file).is_folder && !nearest(&file.join("below")).is_folder);
        assert_eq!(nearest(Path::new("")).path, Path::new("."));
        assert_eq!(nearest(Path::new("no/such")).path, Path::new("."));
    }
}
