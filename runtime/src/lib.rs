//! cellmesh: services as WebAssembly cells, called over shared-memory rings.
//!
//! ```text
//! cli, config --> commands --> lanes, lane --> cohost: DPU, DPA (own crates), worker
//!                     |                                                       |-- graph engine (own crate)
//!                     '-- attachment: to a DPA in another process             |-- host: cells on wasmtime
//!                                                                             '-- call, pool: where guest calls run
//! ```
//!
//! `ARCHITECTURE.md` has the whole picture and the way of a request from file to file.

pub mod admin;
pub mod attachment;
pub mod call;
pub mod check;
pub mod cli;
pub mod cohost;
pub mod commands;
pub mod config;
pub mod cpu;
pub mod hangups;
pub mod host;
pub mod inspect;
pub mod k8s;
pub mod lane;
pub mod lanes;
pub mod load;
pub mod logs;
pub mod mesh;
pub mod pool;
pub mod reload;
pub mod replay;
pub mod trace;
pub mod worker;
