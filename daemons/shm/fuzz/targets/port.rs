//! Images of a segment, read by a port with calls in flight: see `cellmesh_shm_fuzz::port`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| cellmesh_shm_fuzz::port(data));
