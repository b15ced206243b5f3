//! Disk stress: a file that is written, and read back in random order. It has a name only until it is open: who stops this service in the middle of
//! it leaves nothing behind.

use std::fs::{self, File, OpenOptions};
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
            let is_granted = error.kind() != io::ErrorKind::NotFound;
            let hint = if is_granted { "" } else { " (has this service been granted a scratch folder?)" };
            format!("disk_stress in {SCRATCH}: {error}{hint}")
        })
    }

    /// Returns the number of bytes that were read back.
    fn run_in(&self, folder: &Path) -> io::Result<usize> {
        let mut file = self.open_in(folder)?;
        self.write(&mut file)?;
        self.read_back(&mut file)
    }

    /// A new file, which is gone when it is closed.
    fn open_in(&self, folder: &Path) -> io::Result<File> {
        let path = self.new_path(folder);
        let file = OpenOptions::new().read(true).write(true).create_new(true).open(&path)?;
        fs::remove_file(&path)?;
        Ok(file)
    }

    /// A name in the model cannot lead out of the folder.
    fn new_path(&self, folder: &Path) -> PathBuf {
        let end = Path::new(&self.tmp_file_name).file_name().unwrap_or_default();
        folder.join(format!("{:016x}-{}", fastrand::u64(..), end.to_string_lossy()))
    }

    fn write(&self, file: &mut File) -> io::Result<()> {
        let mut block = vec![0; self.disk_write_block_size.get()];
        for _ in 0..self.disk_write_block_count.get() {
            fastrand::fill(&mut block);
            file.write_all(&block)?;
        }
        file.sync_all()
    }

    fn read_back(&self, file: &mut File) -> io::Result<usize> {
        let size = self.disk_write_block_size.get();
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

    /// All that was written is read back.
    #[test]
    fn file_is_read_back() {
        let folder = tempfile::tempdir().unwrap();
        for (count, size, expected) in [(50, 512, 25_600), (0, 512, 0), (3, 0, 0)] {
            assert_eq!(disk("x.txt", count, size).run_in(folder.path()).unwrap(), expected);
        }
    }

    /// Nothing is left of a file that was begun and never read, as when the service is stopped.
    #[test]
    fn nothing_is_left_behind() {
        let folder = tempfile::tempdir().unwrap();
        let disk = disk("x.txt", 3, 512);
        let mut file = disk.open_in(folder.path()).unwrap();
        disk.write(&mut file).unwrap();
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
        assert_eq!(disk.read_back(&mut file).unwrap(), 1536);
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
