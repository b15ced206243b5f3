//! Images of a segment, read by the two consumers of a link: see `cellmesh_shm_fuzz::ring`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| cellmesh_shm_fuzz::ring(data));
