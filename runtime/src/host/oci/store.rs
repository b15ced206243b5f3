//! What was pulled, kept in the cache folder by digest: a second start needs no registry.
//!
//! - The folder is that of the artifact cache, which belongs to this user alone. All the same what is read is compared
//!   with its digest each time: a file that was changed or cut is deleted, and pulled again.
//! - A file appears whole, by a rename: of two processes that pull at once each leaves the same.

use std::fs::{self, DirBuilder, File};
use std::io::{self, Read};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use super::digest::Digest;

/// Most that is read of a file: more than any component may have.
const READ_BYTES_MAX: usize = 65 << 20;

/// Manifests and components by digest, in one folder.
pub(super) struct Store {
    dir: PathBuf,
}

impl Store {
    /// In the folder of the artifact cache.
    pub(super) fn inside(cache: &Path) -> Self {
        Self { dir: cache.join("oci") }
    }

    /// The folder.
    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    /// The bytes with this digest, if they are here and not more than `bytes_max`.
    pub(super) fn read(&self, digest: &Digest, bytes_max: usize) -> Option<Vec<u8>> {
        let path = self.path(digest);
        let bytes = read_up_to(&path, READ_BYTES_MAX).ok()?;
        if Digest::of(&bytes) == *digest {
            // Who expects less is wrong about it, and not the file.
            return (bytes.len() <= bytes_max).then_some(bytes);
        }
        tracing::warn!(file = %path.display(), "does not fit its digest any more: pulling it again");
        // One that is gone already is what we want.
        let _ = fs::remove_file(&path);
        None
    }

    /// Keeps bytes under their digest, which the caller has compared.
    pub(super) fn keep(&self, digest: &Digest, bytes: &[u8]) -> io::Result<()> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        DirBuilder::new().recursive(true).mode(0o700).create(&self.dir)?;
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let draft = self.dir.join(format!("new-{}-{number}", std::process::id()));
        let kept = fs::write(&draft, bytes).and_then(|()| fs::rename(&draft, self.path(digest)));
        if kept.is_err() {
            // A full disk is not helped by what is half written.
            let _ = fs::remove_file(&draft);
        }
        kept
    }

    fn path(&self, digest: &Digest) -> PathBuf {
        self.dir.join(digest.hex())
    }
}

/// A longer file is read so far, and does not fit its digest then.
fn read_up_to(path: &Path, bytes_max: usize) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let most = u64::try_from(bytes_max).unwrap_or(u64::MAX).saturating_add(1);
    File::open(path)?.take(most).read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is kept is found; what was changed, cut or grew is not, and is gone.
    #[test]
    fn only_what_fits_its_digest_is_found() {
        let folder = tempfile::tempdir().expect("a folder");
        let store = Store::inside(folder.path());
        let digest = Digest::of(b"cell");
        assert_eq!(store.read(&digest, 10), None);
        for changed in [&b"cel1"[..], b"cel", b"", b"cells", &[b'x'; 100]] {
            store.keep(&digest, b"cell").expect("a folder of ours");
            assert_eq!(store.read(&digest, 10).as_deref(), Some(&b"cell"[..]));
            fs::write(store.path(&digest), changed).expect("writable");
            assert_eq!(store.read(&digest, 10), None);
            assert!(!store.path(&digest).exists());
        }
        let left = fs::read_dir(store.dir()).expect("it was made").count();
        assert_eq!(left, 0, "drafts");
    }
}
