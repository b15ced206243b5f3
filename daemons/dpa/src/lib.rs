//! The DMA manager of a cellmesh node: moves frames between the rings of workers and sidecars.
//!
//! ```text
//!   worker lane  ==worker_cq==>  [ inlet | outlet ]  <==sidecar_cq==  sidecar lane
//!                <==worker_sq==  [    custody     ]  ==sidecar_sq==>
//!                                [   flow table   ]
//! ```
//!
//! - A [`Dpa`] is a value that is pumped. It has no thread, no clock and no socket: whoever owns it gives it the time
//!   and tells it who is attached.
//! - Every request that it takes is in one custody slot until it has exactly one outcome: its answer, or a fault that
//!   says why there is none (`custody.rs`).
//! - The other sides are workers that may be hostile: nothing that they write can harm more than their own requests.
//!   A broken rule closes that endpoint and settles what is in flight on it (`mover.rs`).
//! - It never waits for an endpoint and gives each a bounded share of every turn.
//! - Not here: HTTP, names of services, routing policy (the DPU); sockets
//!   ([`DpaHost`], the daemon around it).

use std::collections::VecDeque;
use std::os::fd::BorrowedFd;
use std::time::Duration;

use cellmesh_shm::clock::Nanos;
use cellmesh_shm::ids::{EndpointId, ServiceId};
use cellmesh_shm::layout::segment_bytes;
use cellmesh_shm::link::{Link, LinkError, LinkFds, LinkSpec};
use cellmesh_shm::outlier::OutlierRule;
use cellmesh_shm::profile::RingProfile;
use cellmesh_shm::rings::LinkRx;

mod config;
mod custody;
mod endpoint;
mod exchange;
mod flow;
mod host;
mod mover;
pub mod reactor;
#[cfg(test)]
mod schedule_tests;
mod settle;
mod stats;
#[cfg(test)]
mod testing;

pub use cellmesh_shm::progress::Progress;
pub use config::DpaConfig;
pub use host::{Admission, DpaHost};
pub use stats::{DpaStats, RingStats, WorkerCount};

use endpoint::{Outlet, Role};
use exchange::Exchange;

/// Why an endpoint was not attached.
#[derive(Debug, thiserror::Error)]
pub enum DpaError {
    /// The table of endpoints is full.
    #[error("{max} endpoints are attached: no more can be")]
    Endpoints {
        /// Most endpoints.
        max: usize,
    },
    /// Its frames could not be relayed to the others.
    #[error(
        "ring profile of the endpoint: {field} = {found}: must be {expected}, as on all links of this node"
    )]
    Profile {
        /// Field of [`RingProfile`].
        field: &'static str,
        /// Its value.
        found: u32,
        /// The node's value.
        expected: u32,
    },
    /// More shared memory than an endpoint may ask for.
    #[error("ring profile of the endpoint: {found} bytes of shared memory: must be at most {most}")]
    Segment {
        /// Bytes of a segment of this profile.
        found: usize,
        /// Most bytes.
        most: usize,
    },
    /// The link could not be made.
    #[error(transparent)]
    Link(#[from] LinkError),
}

/// Most endpoints at once: their names are 16 bits, and a turn goes round all of them.
const ENDPOINTS_MAX: usize = 4096;

/// An endpoint that was closed because it broke a rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Closed {
    /// Its name, which may be given to another from now on.
    pub endpoint: EndpointId,
    /// The rule, with what was found.
    pub rule: String,
    /// It did nothing in time, which a process that was stopped does too; nothing that it did was wrong.
    pub slow: bool,
}

/// The mover, its custody table and its flow table.
#[derive(Debug)]
pub struct Dpa {
    /// What comes from each endpoint.
    inlets: Vec<Option<LinkRx>>,
    exchange: Exchange,
    generation: u32,
    first_turn: usize,
    closed: VecDeque<Closed>,
    hung_up: Vec<EndpointId>,
    /// When to look next whether an endpoint takes nothing.
    next_stall_check: Nanos,
}

impl Dpa {
    /// A DPA without endpoints.
    #[must_use]
    pub fn new(config: DpaConfig) -> Self {
        Self {
            inlets: Vec::new(),
            exchange: Exchange::new(config),
            generation: 0,
            first_turn: 0,
            closed: VecDeque::new(),
            hung_up: Vec::new(),
            next_stall_check: Nanos(0),
        }
    }

    /// Attaches a worker lane that serves `services`: makes its segments and returns its side of them. Its name is in
    /// the result's `spec`.
    /// # Errors
    /// [`DpaError`] if the profile does not fit the node's or the kernel has no memory or descriptors left.
    pub fn attach_worker(
        &mut self,
        services: &[ServiceId],
        profile: RingProfile,
    ) -> Result<LinkFds, DpaError> {
        let fds = self.attach(Role::Worker, profile)?;
        self.exchange.flows.add_worker(fds.spec.endpoint, services);
        Ok(fds)
    }

    /// Attaches a sidecar lane.
    /// # Errors
    /// As [`Dpa::attach_worker`].
    pub fn attach_sidecar(&mut self, profile: RingProfile) -> Result<LinkFds, DpaError> {
        let fds = self.attach(Role::Sidecar, profile)?;
        self.exchange.flows.add_sidecar(fds.spec.endpoint);
        Ok(fds)
    }

    /// Attaches a worker lane of this process, which the thread that pumps this DPA pumps too: nobody is ever rung.
    /// # Errors
    /// As [`Dpa::attach_worker`].
    pub fn attach_worker_here(
        &mut self,
        services: &[ServiceId],
        profile: RingProfile,
    ) -> Result<Link, DpaError> {
        let link = self.attach_here(Role::Worker, profile)?;
        self.exchange.flows.add_worker(link.spec.endpoint, services);
        Ok(link)
    }

    /// Attaches a sidecar lane of this process, as [`Dpa::attach_worker_here`] does with a worker's.
    /// # Errors
    /// As [`Dpa::attach_worker`].
    pub fn attach_sidecar_here(&mut self, profile: RingProfile) -> Result<Link, DpaError> {
        let link = self.attach_here(Role::Sidecar, profile)?;
        self.exchange.flows.add_sidecar(link.spec.endpoint);
        Ok(link)
    }

    /// Trust boundary rule 1: we make the segments, of the node's sizes, and hand them out.
    fn attach(&mut self, role: Role, profile: RingProfile) -> Result<LinkFds, DpaError> {
        let (near, far) = Link::create(self.next_spec(profile)?)?;
        self.enter(near, role);
        Ok(far)
    }

    fn attach_here(&mut self, role: Role, profile: RingProfile) -> Result<Link, DpaError> {
        let (near, far) = Link::pair(self.next_spec(profile)?)?;
        self.enter(near, role);
        Ok(far)
    }

    fn next_spec(&self, profile: RingProfile) -> Result<LinkSpec, DpaError> {
        self.check_profile(&profile)?;
        Ok(LinkSpec {
            endpoint: EndpointId(u16::try_from(self.free_index()?).expect("at most ENDPOINTS_MAX")),
            generation: self.generation,
            profile,
            message_bytes_max: self.exchange.config.message_bytes_max,
        })
    }

    /// Takes the near side of a link of [`Dpa::next_spec`].
    fn enter(&mut self, link: Link, role: Role) {
        let index = usize::from(link.spec.endpoint.0);
        self.generation = self.generation.wrapping_add(1);
        if index == self.inlets.len() {
            self.inlets.push(None);
            self.exchange.outlets.push(None);
        }
        self.inlets[index] = Some(link.rx);
        let outlet = Outlet::new(link.tx, link.sleep, role, self.exchange.config.calls_max);
        self.exchange.outlets[index] = Some(outlet);
    }

    fn check_profile(&self, profile: &RingProfile) -> Result<(), DpaError> {
        let node = &self.exchange.config.profile;
        for (field, found, expected) in [
            ("chunk_bytes", profile.chunk_bytes, node.chunk_bytes),
            ("inline_bytes_max", profile.inline_bytes_max, node.inline_bytes_max),
        ] {
            if found != expected {
                return Err(DpaError::Profile { field, found, expected });
            }
        }
        profile.validate().map_err(LinkError::from)?;
        let (found, most) = (segment_bytes(profile), self.exchange.config.segment_bytes_max);
        if found > most {
            return Err(DpaError::Segment { found, most });
        }
        Ok(())
    }

    fn free_index(&self) -> Result<usize, DpaError> {
        let index = self.inlets.iter().position(Option::is_none).unwrap_or(self.inlets.len());
        if index >= ENDPOINTS_MAX {
            return Err(DpaError::Endpoints { max: ENDPOINTS_MAX });
        }
        Ok(index)
    }

    /// When [`Dpa::pump`] has something to do although nothing comes in: the earliest deadline, or a time before it.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Nanos> {
        let expiry = self.exchange.custody.next_expiry().map(|expiry| expiry.min(self.next_stall_check));
        expiry.into_iter().chain(self.exchange.flows.next_readmission()).min()
    }

    /// From now on this is the rule for outliers of a service; none if it has none. Another one than before begins with
    /// everybody readmitted. Whoever sets one asks for [`Dpa::take_ejection`] after each pump.
    pub fn set_outlier_rule(&mut self, service: ServiceId, rule: Option<OutlierRule>) {
        self.exchange.flows.set_rule(service, rule);
    }

    /// A worker that was ejected since this was last asked: service, name, for how long.
    pub fn take_ejection(&mut self) -> Option<(ServiceId, EndpointId, Duration)> {
        self.exchange.ejections.pop().map(|(service, ejection)| (service, ejection.member, ejection.span))
    }

    /// The next endpoint that was closed for breaking a rule since this was last asked; its owner drops its socket.
    pub fn take_closed(&mut self) -> Option<Closed> {
        self.closed.pop_front()
    }

    /// A number that changes whenever a worker comes or goes.
    #[must_use]
    pub fn workers_version(&self) -> u64 {
        self.exchange.flows.version()
    }

    /// Whether a worker serves this service.
    #[must_use]
    pub fn is_served(&self, service: ServiceId) -> bool {
        self.exchange.flows.is_served(service)
    }

    /// How many lanes of workers serve this service.
    #[must_use]
    pub fn workers(&self, service: ServiceId) -> WorkerCount {
        self.exchange.flows.workers(service)
    }

    /// Requests in custody now. Cost: a subtraction.
    #[must_use]
    pub fn live(&self) -> u32 {
        self.exchange.custody.live()
    }

    /// What was counted, and what is in flight now. Cost: one look at each endpoint.
    #[must_use]
    pub fn stats(&self) -> DpaStats {
        let mut stats = DpaStats {
            live: self.exchange.custody.live(),
            slots_max: self.exchange.config.slots_max,
            sidecar_slots_max: self.exchange.config.sidecar_slots_max(),
            ejected_now: self.exchange.flows.ejected(),
            ..self.exchange.stats
        };
        for outlet in self.exchange.outlets.iter().flatten() {
            stats.endpoints += 1;
            stats.parked_now += outlet.parked();
            stats.reserved_now += outlet.reserved;
            stats.doorbells += outlet.tx.rings();
        }
        for (rx, outlet) in self.inlets.iter().zip(&self.exchange.outlets) {
            let (Some(rx), Some(outlet)) = (rx, outlet) else { continue };
            let rings = stats.rings_of(outlet.role);
            rings.wrote(outlet.tx.batches());
            rings.wait(
                [outlet.tx.waiting_bytes(), outlet.tx.capacities()],
                [rx.waiting_bytes(), rx.capacities()],
            );
        }
        stats
    }

    /// Says on every link that this side is about to sleep. The caller pumps once more after this, and waits for the
    /// bells ([`Dpa::wait_fd`]) or [`Dpa::next_deadline`] only if nothing moved; [`Dpa::wake`] afterwards.
    pub fn announce_sleep(&mut self) {
        for (index, outlet) in self.exchange.outlets.iter_mut().enumerate() {
            if outlet.as_mut().is_some_and(|outlet| !outlet.announce_sleep()) {
                self.hung_up.push(EndpointId(u16::try_from(index).expect("at most ENDPOINTS_MAX")));
            }
        }
    }

    /// The next endpoint that has closed its end of the bell since this was last asked, as one does that ends. Its owner
    /// waits for that bell no more: all that it can still do is to wake somebody for nothing.
    pub fn take_hung_up(&mut self) -> Option<EndpointId> {
        self.hung_up.pop()
    }

    /// Says on every link that this side is awake.
    pub fn wake(&mut self) {
        self.exchange.outlets.iter_mut().flatten().for_each(Outlet::wake);
    }

    /// What becomes readable when this endpoint rings; none if it is not attached.
    #[must_use]
    pub fn wait_fd(&self, endpoint: EndpointId) -> Option<BorrowedFd<'_>> {
        self.exchange.outlets.get(usize::from(endpoint.0))?.as_ref().map(Outlet::wait_fd)
    }
}
