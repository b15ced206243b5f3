//! The folder of the artifact cache: whether it is there or can be made, and whether it is ours alone.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use super::Finding;
use super::folders::{Nearest, nearest};

/// What is said when another folder would do.
const OTHER: &str = "name another (runtime.cache_dir, --cache-dir or CELLMESH_CACHE_DIR)";

/// A folder and who may do what in it.
struct Facts {
    nearest: Nearest,
    owner: u32,
    mode: u32,
    uid: u32,
}

/// Looks at the folder.
pub(super) fn look(dir: &Path) -> Vec<Finding> {
    let nearest = nearest(dir);
    let metadata = fs::metadata(&nearest.path);
    let (owner, mode) = metadata.map_or((0, 0), |found| (found.uid(), found.permissions().mode() & 0o777));
    vec![judge(dir, &Facts { nearest, owner, mode, uid: rustix::process::getuid().as_raw() })]
}

fn judge(dir: &Path, facts: &Facts) -> Finding {
    let (shown, Facts { nearest, owner, mode, uid }) = (dir.display(), facts);
    let there = nearest.path.display();
    if !nearest.is_folder {
        return Finding::error(format!("cache folder {shown}: {there} is no folder"), OTHER);
    }
    if !nearest.is_meant {
        return match nearest.is_writable {
            true => Finding::ok(format!("cache folder {shown}: made at the start")),
            false => Finding::error(
                format!("cache folder {shown}: is not there, and this user may not make it in {there}"),
                format!("make it with mode 700 and owner {uid}, or {OTHER}"),
            ),
        };
    }
    if owner != uid {
        let found = format!("cache folder {shown}: belongs to user {owner}, and must to this one ({uid})");
        return Finding::error(found, format!("chown -R {uid} {shown}, or {OTHER}"));
    }
    if mode & 0o077 != 0 {
        let found = format!("cache folder {shown}: others may use it (mode {mode:o})");
        return Finding::error(found, format!("chmod 700 {shown}"));
    }
    if !nearest.is_writable {
        let found = format!("cache folder {shown}: cannot be written (mode {mode:o}, or a read-only mount)");
        return Finding::error(found, format!("chmod 700 {shown}, or {OTHER}"));
    }
    Finding::ok(format!("cache folder {shown}: ours alone"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(is_meant: bool, is_writable: bool, owner: u32, mode: u32) -> String {
        let path = if is_meant { "/a/b".into() } else { "/a".into() };
        let nearest = Nearest { path, is_meant, is_folder: true, is_writable };
        judge(Path::new("/a/b"), &Facts { nearest, owner, mode, uid: 7 }).to_string()
    }

    /// Only a folder that is ours alone, or that can be made, will do; each other says what helps.
    #[test]
    fn only_our_own_folder_will_do() {
        assert_eq!(said(true, true, 7, 0o700), "ok: cache folder /a/b: ours alone");
        assert_eq!(said(false, true, 0, 0o755), "ok: cache folder /a/b: made at the start");
        let not_there = said(false, false, 0, 0o755);
        assert!(
            not_there
                .starts_with("error: cache folder /a/b: is not there, and this user may not make it in /a;")
        );
        assert!(
            said(true, true, 8, 0o700)
                .contains("belongs to user 8, and must to this one (7); remedy: chown -R 7 /a/b")
        );
        let others = said(true, true, 7, 0o750);
        assert_eq!(others, "error: cache folder /a/b: others may use it (mode 750); remedy: chmod 700 /a/b");
        assert!(
            said(true, false, 7, 0o500).starts_with("error: cache folder /a/b: cannot be written (mode 500")
        );
    }
}
