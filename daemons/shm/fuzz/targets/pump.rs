//! Images of a segment, read by a DPA that serves honest ports too: see `cellmesh_shm_fuzz::pump`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| cellmesh_shm_fuzz::pump(data));
