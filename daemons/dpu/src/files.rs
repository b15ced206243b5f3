//! Small files that config names: keys, certificates.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

/// What a file says; `None` if that is more than `bytes_max`, of which no more is read.
///
/// # Errors
/// What the system says.
pub(crate) fn read(path: &Path, bytes_max: u64) -> io::Result<Option<Vec<u8>>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(bytes_max.saturating_add(1)).read_to_end(&mut bytes)?;
    Ok((bytes.len() as u64 <= bytes_max).then_some(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Up to the bound, and not a byte more.
    #[test]
    fn files_are_read_up_to_their_bound() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("file");
        assert_eq!(read(&file, 3).map_err(|error| error.kind()), Err(io::ErrorKind::NotFound));
        std::fs::write(&file, b"abc").expect("a file in a temporary folder");
        assert_eq!(read(&file, 3).expect("it is there").as_deref(), Some(&b"abc"[..]));
        assert_eq!(read(&file, 2).expect("it is there"), None);
    }
}
