//! What each command of the program does, from checked config to its end.
//!
//! ```text
//! run      DPU, DPA and worker on each lane                  one process
//! node     DPU and DPA on one lane                           the daemon of a node
//! dpa      DPA on one lane                                   the same as two
//! dpu      DPU on each lane
//! worker   cells on each lane                                any number of processes
//! ```
//!
//! - The order of the code is the order of a start: what can fail without leaving anything behind, what others see
//!   (listeners, sockets), lanes; then signals, drain, end.

mod announce;
pub mod dpa;
pub mod dpu;
pub mod node;
pub mod run;
pub mod worker;

use std::net::{SocketAddr, TcpListener};

use anyhow::Context;

fn bind(address: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).with_context(|| format!("cannot listen on {address}"))
}
