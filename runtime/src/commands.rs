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
use std::time::Duration;

use anyhow::Context;
use cellmesh_dpu::Acceptor;
use cellmesh_shm::attach::LANES_MAX;

use crate::config::RuntimeSettings;
use crate::lanes::Lanes;

/// Lanes of a process that attaches: as configured, one if nothing is said.
///
/// # Errors
/// More than a DPA gives links to.
fn attached_lanes(settings: &RuntimeSettings) -> anyhow::Result<usize> {
    let lanes = settings.lanes_or(1);
    anyhow::ensure!(
        lanes <= usize::from(LANES_MAX),
        "{lanes} lanes (runtime.lanes, --lanes or CELLMESH_LANES): a process that attaches has at most {LANES_MAX}"
    );
    Ok(lanes)
}

/// Serves until a signal, then drains. Connections are accepted while the lanes drain: their requests are told 503.
fn serve(acceptor: Acceptor, lanes: Lanes, drain_timeout: Duration) -> anyhow::Result<()> {
    let main = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    main.block_on(async {
        let accepting = tokio::spawn(acceptor.run());
        let served = lanes.serve(drain_timeout).await;
        accepting.abort();
        served
    })
}

fn bind(address: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).with_context(|| format!("cannot listen on {address}"))
}
