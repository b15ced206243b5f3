//! Co-hosted modules, as values that are pumped in a circle on one lane.
//!
//! ```text
//! Cohosted   DPU ==sidecar_cq==> DPA ==worker_sq==> worker        `cellmesh run`
//!                <==sidecar_sq==     <==worker_cq==
//!
//! Node       DPU ==sidecar_cq==> DPA ==worker_sq==> workers,      `cellmesh node`
//!                <==sidecar_sq==     <==worker_cq== each a process
//! ```
//!
//! - The modules know nothing of each other: each has a link over sealed segments, as it would have in a process
//!   of its own. This is the only file that names both daemons.
//! - A circle goes the way of a request, so that one that needs no other thread is answered within a circle and
//!   a half.
//! - A node that has lost the link between its two modules makes another (`cohost/sidecar.rs`): its workers are other processes,
//!   and go on. A lane of `run` ends with an error: its cells have nobody else to answer to, and nobody else's memory is
//!   broken, so that a new process is all that helps.

mod sidecar;

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use cellmesh_dpa::{Closed, Dpa, DpaConfig, DpaHost, DpaStats};
use cellmesh_dpu::config::EgressConfig;
use cellmesh_dpu::{Dpu, DpuConfig, Routes, ServiceName};
use cellmesh_graph::Limits;
use cellmesh_shm::clock::Nanos;
use cellmesh_shm::ids::ServiceId;
use cellmesh_shm::link::Link;
use cellmesh_shm::port::{Port, PortConfig, Progress};
use cellmesh_shm::profile::RingProfile;
use tokio::sync::Notify;

use self::sidecar::Sidecar;
use crate::admin::Health;
use crate::call::LaneHandle;
use crate::config::App;
use crate::lane::Modules;
use crate::pool::Pool;
use crate::trace::{IngressParts, Recorder, RecorderParts};
use crate::worker::{Meters, ServiceCell, Worker, WorkerParts};

/// Room for a message's head beyond its body's limit. Source: the DPU takes heads of at most 16 KiB, a cell's are bounded
/// by 16 KiB of header lines and 8 KiB of URL, and each part is padded.
const HEAD_BYTES_MAX: usize = 64 << 10;

/// Messages of the largest size that a worker takes in at once; more wait for their turn.
const ASSEMBLIES: u64 = 8;

/// Custody slots for each call that an endpoint may have in flight: one for the sidecar's, the rest for what it causes.
const SLOTS_PER_CALL: u32 = 4;

/// What one lane of `cellmesh run` is made of.
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
    /// Instances that wait for calls, of all services together.
    pub idle_instances_max: usize,
    /// What the cells' requests are noted with.
    pub recorder: RecorderParts,
}

/// DPU, DPA and worker.
pub struct Cohosted {
    dpu: Dpu,
    dpa: Rc<RefCell<Dpa>>,
    worker: Worker,
    wake: Arc<Notify>,
}

/// DPU and DPA; workers are other processes.
pub struct Node {
    sidecar: Sidecar,
    readiness: Rc<Readiness>,
}

/// What a [`Node`] is made of.
#[derive(Debug)]
pub struct NodeParts {
    /// Names of services; the DPA numbers them as they do.
    pub routes: Arc<Routes>,
    /// Limits of the network side.
    pub dpu: DpuConfig,
    /// The DPA.
    pub dpa: DpaHost,
    /// Calls that the network side may have in flight.
    pub calls_max: u32,
    /// How long a network side whose link was lost waits before it attaches again.
    pub reattach_delay: Duration,
    /// Who is told whether clients can be served.
    pub readiness: Rc<Readiness>,
    /// What clients' requests are noted with.
    pub ingress: IngressParts,
}

/// Tells whether the network side has a DPA, and every service a worker, or a way to one elsewhere.
#[derive(Debug)]
pub struct Readiness {
    health: Health,
    elsewhere: RefCell<EgressConfig>,
    /// Of the DPA's workers, when they were last looked at.
    seen: Cell<Option<u64>>,
    /// Services without a worker, by then.
    unserved: RefCell<Vec<String>>,
    is_detached: Cell<bool>,
}

impl Readiness {
    /// Nothing is known yet: not ready.
    #[must_use]
    pub fn new(app: &App, health: Health) -> Self {
        health.missing(SERVICES, "the DPA has not started");
        Self::of(&app.dpu.egress, health)
    }

    fn of(elsewhere: &EgressConfig, health: Health) -> Self {
        let elsewhere = RefCell::new(elsewhere.clone());
        Self {
            health,
            elsewhere,
            seen: Cell::default(),
            unserved: RefCell::default(),
            is_detached: Cell::default(),
        }
    }

    /// Whether the network side in the same process has a link to the DPA. Cost: a comparison.
    fn attached(&self, is_attached: bool) {
        if self.is_detached.replace(!is_attached) != is_attached {
            return;
        }
        if is_attached {
            self.health.found(LINK);
        } else {
            self.health.missing(LINK, "the network side is not attached to it");
        }
    }

    /// Looks again if workers have come or gone. Cost otherwise: a comparison.
    pub fn look(&self, dpa: &DpaHost) {
        let version = dpa.workers_version();
        if self.seen.replace(Some(version)) == Some(version) {
            return;
        }
        let mut missing = dpa.unserved();
        missing.retain(|service| !self.elsewhere.borrow().leads_to(service));
        if missing.is_empty() {
            self.health.found(SERVICES);
        } else {
            self.health.missing(SERVICES, format!("no worker serves {}", missing.join(", ")));
        }
        self.log(&missing);
        self.unserved.replace(missing);
    }

    /// Tells of services that have lost their last worker, or never had one, and when there are none.
    fn log(&self, unserved: &[String]) {
        let known = self.unserved.borrow();
        let lost: Vec<&str> =
            unserved.iter().filter(|service| !known.contains(service)).map(String::as_str).collect();
        if !lost.is_empty() {
            tracing::warn!("no worker serves {}: requests to them are answered 503", lost.join(", "));
        } else if unserved.is_empty() && !known.is_empty() {
            tracing::info!("every service has a worker");
        }
    }

    /// From now on services are called elsewhere as `egress` says. Looks again.
    pub fn reconfigure(&self, egress: &EgressConfig, dpa: &DpaHost) {
        self.elsewhere.borrow_mut().clone_from(egress);
        self.seen.set(None);
        self.look(dpa);
    }
}

/// What is missing while a service has no worker.
const SERVICES: &str = "services";

/// What is missing while the network side has no link to the DPA.
const LINK: &str = "dpa";

/// A lane has no modules: the DPA could not make the segments of one of its endpoints.
#[derive(Debug, thiserror::Error)]
#[error("cannot attach a {who} to the DPA")]
pub struct CohostError {
    /// `worker` or `sidecar`.
    pub who: &'static str,
    /// Why.
    pub source: cellmesh_dpa::DpaError,
}

/// A lane has lost a module: one of them broke a rule of the rings between them.
#[derive(Debug, thiserror::Error)]
enum LinkLost {
    #[error("the DPA of this lane has closed endpoint {endpoint} of the same lane: {rule}")]
    Closed { endpoint: u16, rule: String },
    #[error("the network side of this lane has left the DPA of the same lane, which broke a rule")]
    Left,
}

/// The DPA that fits this network side: everything that one may send, and what that causes, finds room.
#[must_use]
pub fn dpa_config(dpu: &DpuConfig) -> DpaConfig {
    let message_bytes_max = u32::try_from(dpu.body_bytes_max.as_len() + HEAD_BYTES_MAX).unwrap_or(u32::MAX);
    let calls_max = dpu.requests_max.saturating_add(dpu.relays_max);
    DpaConfig {
        slots_max: calls_max.saturating_mul(SLOTS_PER_CALL),
        calls_max,
        message_bytes_max,
        request_timeout_max: dpu.request_timeout.0,
        ..DpaConfig::default()
    }
}

/// What a worker's port takes on.
#[must_use]
pub fn worker_port_config(calls_max: u32, message_bytes_max: u32) -> PortConfig {
    PortConfig { calls_max, message_bytes_max, assembly_bytes_max: u64::from(message_bytes_max) * ASSEMBLIES }
}

impl Cohosted {
    /// Makes the modules of one lane and attaches them to each other. Call it where the lane's runtime runs.
    ///
    /// # Errors
    /// [`CohostError`] when shared memory cannot be had.
    pub fn new(parts: LaneParts) -> Result<Self, CohostError> {
        let config = DpaConfig { profile: RingProfile::within_lane(), ..dpa_config(&parts.dpu) };
        // One thread pumps all three: nobody has to be rung.
        let mut dpa = Dpa::new(config);
        let services: Vec<ServiceId> = (0..parts.services.len()).map(service_id).collect();
        let attach = |who| move |source| CohostError { who, source };
        let sidecar = dpa.attach_sidecar_here(config.profile).map_err(attach("sidecar"))?;
        let worker = dpa.attach_worker_here(&services, config.profile).map_err(attach("worker"))?;
        let wake = Arc::new(Notify::new());
        Ok(Self {
            dpu: attached(&parts.routes, parts.dpu, sidecar, config.calls_max, parts.recorder.ingress()),
            dpa: Rc::new(RefCell::new(dpa)),
            worker: Worker::new(WorkerParts {
                port: Port::new(worker, worker_port_config(config.calls_max, config.message_bytes_max)),
                routes: parts.routes,
                services: services.into_iter().zip(parts.services).collect(),
                pool: parts.pool,
                lane: LaneHandle::new(Arc::clone(&wake)),
                limits: Limits::default(),
                idle_instances_max: parts.idle_instances_max,
                // Its callees are lost together with itself.
                retry_worker_lost: false,
                meters: Meters::default(),
                recorder: Recorder::new(parts.recorder),
            }),
            wake,
        })
    }

    /// The network side.
    #[must_use]
    pub fn dpu(&self) -> &Dpu {
        &self.dpu
    }

    /// What the DPA counts, whenever it is called between two pumps.
    pub fn dpa_stats(&self) -> impl Fn() -> DpaStats + 'static {
        let dpa = Rc::clone(&self.dpa);
        move || dpa.borrow().stats()
    }

    /// The side of the cells.
    #[must_use]
    pub fn worker(&self) -> &Worker {
        &self.worker
    }
}

impl Modules for Cohosted {
    fn pump(&mut self, now: Nanos) -> anyhow::Result<Progress> {
        let mut progress = self.dpu.pump(now);
        progress |= self.dpa.borrow_mut().pump(now);
        progress |= self.worker.pump(now)?;
        let mut dpa = self.dpa.borrow_mut();
        progress |= dpa.pump(now);
        if let Some(Closed { endpoint, rule, .. }) = dpa.take_closed() {
            return Err(LinkLost::Closed { endpoint: endpoint.0, rule }.into());
        }
        if !self.dpu.is_attached() {
            return Err(LinkLost::Left.into());
        }
        Ok(progress)
    }

    fn next_deadline(&self) -> Option<Nanos> {
        [self.dpu.next_deadline(), self.dpa.borrow().next_deadline()].into_iter().flatten().min()
    }

    async fn woken(&self) {
        tokio::select! {
            () = self.dpu.work().notified() => {}
            () = self.wake.notified() => {}
        }
    }
}

impl Node {
    /// Makes both and attaches them to each other. Call it where the lane's runtime runs.
    ///
    /// # Errors
    /// [`CohostError`] when shared memory cannot be had.
    pub fn new(parts: NodeParts) -> Result<Self, CohostError> {
        let NodeParts { routes, dpu, dpa, calls_max, reattach_delay, readiness, ingress } = parts;
        let dpu = Dpu::new(Arc::clone(&routes), dpu);
        ingress.tell(&dpu);
        let sidecar = Sidecar::new(dpu, dpa, routes, calls_max, reattach_delay)?;
        Ok(Self { sidecar, readiness })
    }

    /// The network side.
    #[must_use]
    pub fn dpu(&self) -> &Dpu {
        &self.sidecar.dpu
    }
}

impl Modules for Node {
    fn pump(&mut self, now: Nanos) -> anyhow::Result<Progress> {
        let Sidecar { dpu, dpa, .. } = &self.sidecar;
        let mut progress = dpu.pump(now);
        progress |= dpa.pump(now);
        progress |= dpu.pump(now);
        progress |= self.sidecar.look(now);
        self.readiness.attached(self.sidecar.is_attached());
        self.readiness.look(&self.sidecar.dpa);
        Ok(progress)
    }

    fn next_deadline(&self) -> Option<Nanos> {
        let Sidecar { dpu, dpa, .. } = &self.sidecar;
        [dpu.next_deadline(), dpa.next_deadline(), self.sidecar.next_deadline()].into_iter().flatten().min()
    }

    async fn woken(&self) {
        tokio::select! {
            () = self.sidecar.dpu.work().notified() => {}
            () = self.sidecar.dpa.woken() => {}
        }
    }

    fn announce_sleep(&mut self) -> bool {
        self.sidecar.dpa.announce_sleep();
        true
    }

    fn wake(&mut self) {
        self.sidecar.dpa.wake();
    }

    fn awaits_bell(&self) -> bool {
        self.sidecar.dpa.live() > 0
    }
}

/// A network side at the far end of `link`, whose DPA knows the services by the same numbers.
fn attached(
    routes: &Arc<Routes>,
    config: DpuConfig,
    link: Link,
    calls_max: u32,
    ingress: IngressParts,
) -> Dpu {
    let dpu = Dpu::new(Arc::clone(routes), config);
    ingress.tell(&dpu);
    dpu.attach(link, calls_max, routes.services().iter().map(ServiceName::as_str));
    dpu
}

fn service_id(index: usize) -> ServiceId {
    ServiceId(u16::try_from(index).expect("routes hold at most 65,536 services"))
}

#[cfg(test)]
mod tests;
