//! Disk stress: a file that is written, read back in random order and removed.

use std::fs::{self, File};
use std::hint::black_box;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::Count;

/// The folder that the config can grant a cell.
const SCRATCH: &str = "/scratch";

/// `disk_stress`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Disk {
    pub(crate) run: bool,
    /// The end of the file's name; the beginning is random, because copies of the service share the folder.
    tmp_file_name: String,
    disk_write_block_count: Count,
    /// Bytes of a block.
    disk_write_block_size: Count,
}

impl Default for Disk {
    fn default() -> Self {
        Self {
            run: false,
            tmp_file_name: "mubtestfile.txt".to_owned(),
            disk_write_block_count: Count::new(1000),
            disk_write_block_size: Count::new(1024),
        }
    }
}

impl Disk {
    /// # Errors
    /// That no scratch folder was granted, or what the file system refused.
    pub(crate) fn run(&self) -> Result<(), String> {
        self.run_in(Path::new(SCRATCH)).map(|_| ()).map_err(|error| {
            format!("disk_stress in {SCRATCH}: {error} (has this service been granted a scratch folder?)")
        })
    }

    /// Returns the number of bytes that were read back.
    fn run_in(&self, folder: &Path) -> io::Result<usize> {
        let path = self.new_path(folder);
        let read = self.write(&path).and_then(|()| self.read_back(&path));
        let removed = fs::remove_file(&path);
        let read = read?;
        removed?;
        Ok(read)
    }

    /// A name in the model cannot lead out of the folder.
    fn new_path(&self, folder: &Path) -> PathBuf {
        let end = Path::new(&self.tmp_file_name).file_name().unwrap_or_default();
        folder.join(format!("{:016x}-{}", fastrand::u64(..), end.to_string_lossy()))
    }

    fn write(&self, path: &Path) -> io::Result<()> {
        let mut file = File::create_new(path)?;
        let mut block = vec![0; self.disk_write_block_size.get()];
        for _ in 0..self.disk_write_block_count.get() {
            fastrand::fill(&mut block);
            file.write_all(&block)?;
        }
        file.sync_all()
    }

    fn read_back(&self, path: &Path) -> io::Result<usize> {
        let size = self.disk_write_block_size.get();
        let mut file = File::open(path)?;
        let mut block = vec![0; size];
        let mut order: Vec<usize> = (0..self.disk_write_block_count.get()).collect();
        fastrand::shuffle(&mut order);
        for index in &order {
            file.seek(SeekFrom::Start(*index as u64 * size as u64))?;
            file.read_exact(&mut block)?;
            black_box(&block);
        }
        Ok(order.len() * size)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn disk(name: &str, count: u32, size: u32) -> Disk {
        Disk {
            run: true,
            tmp_file_name: name.to_owned(),
            disk_write_block_count: Count::new(count),
            disk_write_block_size: Count::new(size),
        }
    }

    /// All that was written is read back, and nothing is left behind.
    #[test]
    fn file_is_read_back_and_removed() {
        let folder = tempfile::tempdir().unwrap();
        for (count, size, expected) in [(50, 512, 25_600), (0, 512, 0), (3, 0, 0)] {
            assert_eq!(disk("x.txt", count, size).run_in(folder.path()).unwrap(), expected);
        }
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    /// A path in the work model is a name, not a way out; two requests at once have two files.
    #[test]
    fn names_stay_in_the_folder() {
        let path = |name| disk(name, 1, 1).new_path(Path::new("/scratch"));
        for name in ["../../etc/passwd", "/etc/passwd", "passwd"] {
            let path = path(name);
            assert_eq!(path.parent(), Some(Path::new("/scratch")));
            assert!(path.to_string_lossy().ends_with("-passwd"), "{path:?}");
        }
        assert!(path("..").to_string_lossy().ends_with('-') && path("a") != path("a"));
    }

    /// Without the grant the step says what is missing.
    #[test]
    fn missing_folder_is_said() {
        let error = disk("x", 1, 1).run_in(Path::new("/no/such/folder")).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }
}
