//! A packet of the attach socket: see `cellmesh_shm_fuzz::packet`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| cellmesh_shm_fuzz::packet(data));
