//! A frame's header: see `cellmesh_shm_fuzz::frame`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| cellmesh_shm_fuzz::frame(data));
