//! Writes the corpora that the targets start from, each into its folder, and runs every target on them once.

use std::path::Path;

// What the compiler's flags make every program here call is in there.
use libfuzzer_sys as _;

fn main() -> std::io::Result<()> {
    cellmesh_shm_fuzz::seeds::write(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/corpus")))
}
