//! The network side of a node, attached to the DPA of the same process, and attached again when that link is lost.
//!
//! - Either side may end the link: the DPA closes an endpoint that broke a rule, the network side leaves a link on which the
//!   DPA broke one. Nobody else has these segments, so both are errors of this program; what does not depend on them goes on.
//! - The wait before it attaches again is that of a process that broke a rule, and grows as that does.
//! - Where the network side has left, the DPA is told so at once: nobody would take what it sends there.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use cellmesh_dpa::DpaHost;
use cellmesh_dpu::{Dpu, Routes, ServiceName};
use cellmesh_shm::clock::Nanos;
use cellmesh_shm::ids::EndpointId;
use cellmesh_shm::link::Link;
use cellmesh_shm::port::Progress;
use cellmesh_shm::profile::RingProfile;
use rustix::net::RecvFlags;

use super::CohostError;
use crate::attachment::Wait;

/// What it takes to attach a network side.
pub(super) struct Sidecar {
    pub(super) dpu: Dpu,
    pub(super) dpa: DpaHost,
    /// The services of the DPA by its numbers.
    routes: Arc<Routes>,
    calls_max: u32,
    link: Option<Held>,
    /// Of the DPA's endpoints, when they were last looked at.
    seen: u64,
    wait: Wait,
    /// When to attach again. None: it is attached, as far as is known.
    attach_at: Option<Nanos>,
}

impl Sidecar {
    /// Attaches `dpu`, and does so again `reattach_delay` after the link was lost.
    ///
    /// # Errors
    /// [`CohostError`] when shared memory cannot be had.
    pub(super) fn new(
        dpu: Dpu,
        dpa: DpaHost,
        routes: Arc<Routes>,
        calls_max: u32,
        reattach_delay: Duration,
    ) -> Result<Self, CohostError> {
        let wait = Wait::new(reattach_delay);
        let mut sidecar = Self { dpu, dpa, routes, calls_max, link: None, seen: 0, wait, attach_at: None };
        sidecar.attach()?;
        Ok(sidecar)
    }

    fn attach(&mut self) -> Result<(), CohostError> {
        // Whoever sends to it is another process, and sends as much as it grants.
        let link = self.dpa.attach_sidecar_here(RingProfile::default());
        self.enter(link.map_err(|source| CohostError { who: "sidecar", source })?);
        Ok(())
    }

    pub(super) fn enter(&mut self, link: Link) {
        // Without a descriptor of its own it does not hear of this end, as it would not of a bell.
        let bell = link.sleep.as_fd().try_clone_to_owned().ok();
        self.link = bell.map(|bell| Held { endpoint: link.spec.endpoint, bell });
        self.seen = self.dpa.workers_version();
        self.dpu.attach(link, self.calls_max, self.routes.services().iter().map(ServiceName::as_str));
    }

    /// Whether it has a link, as of the last [`Sidecar::look`].
    pub(super) fn is_attached(&self) -> bool {
        self.attach_at.is_none()
    }

    /// When [`Sidecar::look`] attaches.
    pub(super) fn next_deadline(&self) -> Option<Nanos> {
        self.attach_at
    }

    /// Looks whether the link is lost, and attaches again when it is time.
    ///
    /// - cost: two comparisons; a system call when an endpoint has come or gone.
    pub(super) fn look(&mut self, now: Nanos) -> Progress {
        let version = self.dpa.workers_version();
        if std::mem::replace(&mut self.seen, version) != version
            && self.link.as_ref().is_some_and(Held::has_ended)
        {
            self.dpu.detach();
        }
        if self.dpu.is_attached() {
            return Progress::Idle;
        }
        match self.attach_at {
            None => self.lost(now),
            Some(at) if now < at => return Progress::Idle,
            Some(_) => self.attach_again(now),
        }
        Progress::Moved
    }

    fn lost(&mut self, now: Nanos) {
        if let Some(left) = self.link.take().filter(|link| !link.has_ended()) {
            self.dpa.detach_here(left.endpoint);
        }
        let wait = self.wait.after_loss(now);
        tracing::warn!(?wait, "the network side is detached from the DPA; it will attach again");
        self.attach_at = Some(now.saturating_add(wait));
    }

    fn attach_again(&mut self, now: Nanos) {
        match self.attach() {
            Ok(()) => {
                tracing::warn!("the network side is attached to the DPA again");
                self.wait.attached(now);
                self.attach_at = None;
            }
            Err(error) => {
                let wait = self.wait.longer();
                let error = format!("{:#}", anyhow::Error::from(error));
                tracing::warn!(error, ?wait, "the network side cannot attach to the DPA; trying again");
                self.attach_at = Some(now.saturating_add(wait));
            }
        }
    }
}

/// What is kept of a link beside the network side that has it.
struct Held {
    /// The DPA's name for it, as long as the link has not ended.
    endpoint: EndpointId,
    /// Nobody rings it within a lane: what can be read from it is its end, when the DPA has closed the endpoint.
    bell: OwnedFd,
}

impl Held {
    fn has_ended(&self) -> bool {
        let looked = rustix::net::recv(&self.bell, &mut [0; 1][..], RecvFlags::DONTWAIT | RecvFlags::PEEK);
        matches!(looked, Ok((0, _)))
    }
}
