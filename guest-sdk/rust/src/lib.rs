//! Write cellmesh service cells in Rust.
