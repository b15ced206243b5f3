//! End-to-end tests of cellmesh over real sockets: the harness. The tests are in `tests/`, a file for each theme.
//!
//! - A [`Node`] is a real cellmesh with real cells, on a port of its own, with its log at hand. Every test runs in both
//!   placements: one process, and, with `CELLMESH_PLACEMENT=split`, a node and workers.
//! - [`Wire`] sends and reads exact bytes; [`H2`] speaks HTTP/2.
//! - No test measures speed, and none sleeps to be sure: it waits for an event, or shows the order of two. Only
//!   what would hang runs into [`HANG`].
//!
//! The program is `$CELLMESH_BIN`, else the one beside the tests in cargo's target folder; the cells are in
//! `$CELLMESH_CELLS`, else in `cells` there. `cargo xtask test` builds both and says where they are.

mod attaching;
pub mod browser;
pub mod components;
mod h2;
mod log;
mod metrics;
mod node;
mod pki;
mod places;
mod process;
mod registry;
mod reply;
mod run;
pub mod upstream;
mod wire;

use std::time::Duration;

pub use attaching::Attaching;
pub use h2::H2;
pub use log::Log;
pub use metrics::{sample, seconds};
pub use node::Node;
pub use pki::{Ca, Identity};
pub use places::{Placement, cell, cells_dir, placement, program, shared_cache_dir};
pub use process::{Ended, SetOnDrop, Usage, until};
pub use registry::{Artifact, Registry, Setup};
pub use reply::Reply;
pub use run::Run;
pub use upstream::Upstream;
pub use wire::{Secure, Wire};

/// Longer than anything here takes, also on a busy machine; only a hang gets there.
pub const HANG: Duration = Duration::from_secs(60);
