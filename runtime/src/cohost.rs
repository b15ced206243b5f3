//! Co-hosted placement: DPU, DPA and worker of one lane, as values that are pumped in a circle.
//!
//! ```text
//! DPU ==sidecar_cq==> DPA ==worker_sq==> worker
//!     <==sidecar_sq==     <==worker_cq==
//! ```
//!
//! - The modules know nothing of each other: each has a link over sealed segments, as it would have in a process
//!   of its own. This is the only file that names both daemons.
//! - A circle goes the way of a request, so that one that needs no other thread is answered within a circle and
//!   a half.

use std::sync::Arc;

use cellmesh_dpa::{Dpa, DpaConfig};
use cellmesh_dpu::{Dpu, DpuConfig, Routes};
use cellmesh_graph::Limits;
use cellmesh_shm::clock::Nanos;
use cellmesh_shm::ids::ServiceId;
use cellmesh_shm::link::{Link, LinkError};
use cellmesh_shm::port::{Port, PortConfig, Progress};
use cellmesh_shm::profile::RingProfile;

use crate::call::{LaneHandle, LaneInbox};
use crate::pool::Pool;
use crate::worker::{ServiceCell, Worker, WorkerParts};

/// Room for a message's head beyond its body's limit. Source: the DPU takes heads of at most 16 KiB, a cell's are bounded
/// by 16 KiB of header lines and 8 KiB of URL, and each part is padded.
const HEAD_BYTES_MAX: usize = 64 << 10;

/// Messages of the largest size that a worker takes in at once; more wait for their turn.
const ASSEMBLIES: u64 = 8;

/// Custody slots for each call that an endpoint may have in flight: one for the sidecar's, the rest for what it causes.
const SLOTS_PER_CALL: u32 = 4;

/// What one lane is made of.
#[derive(Debug)]
pub struct LaneParts {
    /// Names of services.
    pub routes: Arc<Routes>,
    /// Limits of the network side.
    pub dpu: DpuConfig,
    /// The cells; a service's number is its place.
    pub services: Vec<ServiceCell>,
    /// Where long guest calls run.
    pub pool: Pool,
    /// The way back from there.
    pub lane: (LaneHandle, LaneInbox),
}

/// The modules of one lane.
pub struct Cohosted {
    dpu: Dpu,
    dpa: Dpa,
    worker: Worker,
}

/// Why a lane has no modules.
#[derive(Debug, thiserror::Error)]
pub enum CohostError {
    /// The DPA could not make the segments of an endpoint.
    #[error("cannot attach a {who} to the DPA")]
    Attach {
        /// `worker` or `sidecar`.
        who: &'static str,
        /// Why.
        #[source]
        source: cellmesh_dpa::DpaError,
    },
    /// The segments could not be mapped.
    #[error("cannot map the segments of the {who}")]
    Map {
        /// `worker` or `sidecar`.
        who: &'static str,
        /// Why.
        #[source]
        source: LinkError,
    },
}

impl Cohosted {
    /// Makes the modules of one lane and attaches them to each other.
    ///
    /// # Errors
    /// [`CohostError`] when shared memory cannot be had.
    pub fn new(parts: LaneParts) -> Result<Self, CohostError> {
        let message_bytes_max =
            u32::try_from(parts.dpu.body_bytes_max.as_len() + HEAD_BYTES_MAX).unwrap_or(u32::MAX);
        let calls_max = parts.dpu.requests_max.saturating_add(parts.dpu.relays_max);
        let mut dpa = Dpa::new(DpaConfig {
            slots_max: calls_max.saturating_mul(SLOTS_PER_CALL),
            calls_max,
            message_bytes_max,
            request_timeout_max: parts.dpu.request_timeout.0,
            ..DpaConfig::default()
        });
        let profile = RingProfile::default();
        let services: Vec<ServiceId> = (0..parts.services.len()).map(service_id).collect();
        let attach = |who| move |source| CohostError::Attach { who, source };
        let map = |who| move |source| CohostError::Map { who, source };
        let sidecar = dpa.attach_sidecar(profile).map_err(attach("sidecar"))?;
        let sidecar = Link::open(sidecar).map_err(map("sidecar"))?;
        let worker = dpa.attach_worker(&services, profile).map_err(attach("worker"))?;
        let worker = Link::open(worker).map_err(map("worker"))?;
        let port = Port::new(worker, worker_port_config(calls_max, message_bytes_max));
        Ok(Self {
            dpu: Dpu::new(sidecar, Arc::clone(&parts.routes), parts.dpu),
            dpa,
            worker: Worker::new(WorkerParts {
                port,
                routes: parts.routes,
                services: parts.services,
                pool: parts.pool,
                lane: parts.lane,
                limits: Limits::default(),
            }),
        })
    }

    /// The network side.
    #[must_use]
    pub fn dpu(&self) -> &Dpu {
        &self.dpu
    }

    /// One circle: in the way of a request, and back.
    ///
    /// # Errors
    /// When the worker's link broke: the lane cannot go on.
    pub fn pump(&mut self, now: Nanos) -> anyhow::Result<Progress> {
        let mut progress = self.dpu.pump(now);
        progress |= self.dpa.pump(now);
        progress |= self.worker.pump(now)?;
        progress |= self.dpa.pump(now);
        Ok(progress)
    }

    /// When [`Cohosted::pump`] must be called at the latest.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Nanos> {
        [self.dpu.next_deadline(), self.dpa.next_deadline()].into_iter().flatten().min()
    }

    /// Requests in flight in any of the modules.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.dpu.in_flight() == 0 && self.worker.in_flight() == 0
    }
}

fn worker_port_config(calls_max: u32, message_bytes_max: u32) -> PortConfig {
    PortConfig { calls_max, message_bytes_max, assembly_bytes_max: u64::from(message_bytes_max) * ASSEMBLIES }
}

fn service_id(index: usize) -> ServiceId {
    ServiceId(u16::try_from(index).expect("routes hold at most 65,536 services"))
}
