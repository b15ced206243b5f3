//! Seals: what makes an artifact on disk ours.
//!
//! wasmtime checks that an artifact fits its version and settings, not that it is the one it wrote:
//! a flipped byte would be run as native code. So each artifact has a keyed digest (HMAC-SHA-256, RFC 2104), and
//! the key lies in a folder that only we can read.

use std::fs;
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use hmac::{Hmac, Mac};
use sha2::{Digest, Sha256};

const KEY_BYTES: usize = 32;

/// The keyed digest of one artifact.
pub(super) type Tag = [u8; 32];

/// Makes and checks seals.
pub(super) struct Sealer {
    key: [u8; KEY_BYTES],
}

/// Why the cache folder cannot be trusted or used.
#[derive(Debug, thiserror::Error)]
pub enum SealError {
    /// Others may write or read the folder.
    #[error(
        "cache folder {path}: owner {owner} and mode {mode:o}, but it must belong to this user ({uid}) with mode 700"
    )]
    Exposed {
        /// The folder.
        path: PathBuf,
        /// Its owner.
        owner: u32,
        /// Its permission bits.
        mode: u32,
        /// Us.
        uid: u32,
    },
    /// The file system said no.
    #[error("cannot use {path} in the cache folder")]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

impl SealError {
    pub(super) fn io(path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { path, source }
    }
}

impl Sealer {
    /// Opens the folder `dir` and the key in it, both made if they are not there.
    ///
    /// # Errors
    /// [`SealError`] if the folder is not ours alone or cannot be used.
    pub(super) fn open(dir: &Path) -> Result<Self, SealError> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(SealError::io(dir))?;
        refuse_exposed(dir)?;
        let path = dir.join("key");
        let key = match read_key(&path) {
            Ok(key) => key,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                create_key(&path).map_err(SealError::io(&path))?
            }
            Err(error) => return Err(SealError::io(&path)(error)),
        };
        Ok(Self { key })
    }

    /// The tag of an artifact: of what it was compiled from, its file's name and its bytes.
    pub(super) fn tag(&self, id: &str, file: &str, bytes: &[u8]) -> Tag {
        self.mac(id, file, bytes).finalize().into_bytes().into()
    }

    /// Whether `tag` is the tag of that artifact; takes the same time wherever they differ.
    pub(super) fn is_sealed(&self, id: &str, file: &str, bytes: &[u8], tag: &[u8]) -> bool {
        self.mac(id, file, bytes).verify_slice(tag).is_ok()
    }

    fn mac(&self, id: &str, file: &str, bytes: &[u8]) -> Hmac<Sha256> {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.key).expect("HMAC takes a key of any length");
        for part in [id.as_bytes(), file.as_bytes()] {
            mac.update(&(part.len() as u64).to_le_bytes());
            mac.update(part);
        }
        mac.update(bytes);
        mac
    }
}

/// SHA-256 as lower-case hexadecimal.
pub(super) fn sha256_hex(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

/// `bytes` as lower-case hexadecimal.
pub(super) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn refuse_exposed(dir: &Path) -> Result<(), SealError> {
    let found = fs::metadata(dir).map_err(SealError::io(dir))?;
    let (owner, mode, uid) =
        (found.uid(), found.permissions().mode() & 0o777, rustix::process::getuid().as_raw());
    if owner == uid && mode & 0o077 == 0 {
        return Ok(());
    }
    Err(SealError::Exposed { path: dir.to_owned(), owner, mode, uid })
}

fn read_key(path: &Path) -> io::Result<[u8; KEY_BYTES]> {
    let mut key = [0; KEY_BYTES];
    fs::File::open(path)?.read_exact(&mut key)?;
    Ok(key)
}

/// Writes a new key beside `path` and links it into place: of two processes that start at once both
/// read the key of the one that was first.
fn create_key(path: &Path) -> io::Result<[u8; KEY_BYTES]> {
    let mut key = [0; KEY_BYTES];
    getrandom::fill(&mut key)?;
    let draft = path.with_extension(format!("new-{}", std::process::id()));
    fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&draft)?
        .write_all(&key)?;
    let linked = fs::hard_link(&draft, path);
    fs::remove_file(&draft)?;
    match linked {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => read_key(path),
    }
}
