//! cellmesh: services as WebAssembly cells, called over shared-memory rings.
//!
//! ```text
//! cli, config --> server --> lane --> cohost: DPU, DPA (own crates), worker
//!                                                                     |-- graph engine (own crate)
//!                                                                     |-- host: cells on wasmtime
//!                                                                     '-- call, pool: where guest calls run
//! ```
//!
//! `ARCHITECTURE.md` has the whole picture and the way of a request from file to file.

pub mod call;
pub mod cli;
pub mod cohost;
pub mod config;
pub mod host;
pub mod lane;
pub mod pool;
pub mod server;
pub mod worker;
