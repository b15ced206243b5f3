//! What a DPA counts. Everything that is dropped is in here.
//!
//! ```text
//!   received = answered + faulted (all of them) + abandoned + live      always
//! ```

use cellmesh_shm::frame::FrameError;
use cellmesh_shm::message::Fault;
use cellmesh_shm::ring::Batches;

use crate::endpoint::Role;

/// Counters since the DPA was made, and what is in flight now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct DpaStats {
    /// Requests taken from endpoints.
    pub received: u64,
    /// Requests whose callee's answer went to the caller whole, faults that the callee set included.
    pub answered: u64,
    /// Requests that the DPA answered itself, by the number of the fault.
    pub faulted: [u64; Fault::ALL.len()],
    /// Requests whose caller went away first.
    pub abandoned: u64,
    /// Requests in custody now.
    pub live: u32,
    /// How many that can be.
    pub slots_max: u32,
    /// From how many on sidecars get no slot any more.
    pub sidecar_slots_max: u32,
    /// Requests that went to a sidecar because their service had no flow entry.
    pub slow_path: u64,
    /// Requests that were sent to another worker because theirs went away before it had them.
    pub redispatched: u64,
    /// Small frames relayed, announcements and credits included.
    pub frames: u64,
    /// Chunks relayed.
    pub chunks: u64,
    /// Small frames that found the ring of their destination full and waited here.
    pub parked: u64,
    /// Small frames that wait here now.
    pub parked_now: usize,
    /// Chunks that receivers have asked for and that have not come yet.
    pub reserved_now: u32,
    /// Responses that named no live request of their sender: late, forged or sent twice. Dropped.
    pub late_responses: u64,
    /// Credits that named no live request of their sender. Dropped.
    pub late_credits: u64,
    /// Chunks that named no live request of their sender. Dropped.
    pub late_chunks: u64,
    /// Calls given up that had their outcome already.
    pub late_cancels: u64,
    /// Frames that were not believed, by [`FrameError::REASONS`]. Each closed its endpoint.
    pub rejected: [u64; FrameError::REASONS.len()],
    /// Counters of rings that were not believed. Each closed its endpoint.
    pub corrupt_rings: u64,
    /// Frames that their sender may not send, or not now, and bells rung too often. Each closed its endpoint.
    pub violations: u64,
    /// Endpoints that took nothing for too long, or sent nothing of what they were asked for. Each was closed.
    pub stalled: u64,
    /// Workers that were ejected as outliers of a service: each time.
    pub ejections: u64,
    /// Workers that are ejected now, of all services together.
    pub ejected_now: usize,
    /// System calls spent on waking endpoints.
    pub doorbells: u64,
    /// Endpoints attached now.
    pub endpoints: usize,
    /// Of the rings of workers.
    pub workers: RingStats,
    /// Of the rings of sidecars.
    pub sidecars: RingStats,
}

/// How many lanes of workers serve a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct WorkerCount {
    /// All that are attached.
    pub attached: usize,
    /// Of these, ejected as outliers.
    pub ejected: usize,
}

/// What is counted of the rings of all endpoints of a role. Of each pair: small rings, then bulk rings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RingStats {
    /// What was written to them, those that are gone included.
    pub written: [Batches; 2],
    /// Bytes that they have not read.
    pub to_waiting: [u64; 2],
    /// Bytes of theirs that are not taken.
    pub from_waiting: [u64; 2],
    /// Bytes that can wait for them.
    pub to_waiting_max: [u64; 2],
    /// Bytes of theirs that can wait.
    pub from_waiting_max: [u64; 2],
}

impl RingStats {
    pub(crate) fn wrote(&mut self, batches: [Batches; 2]) {
        self.written.iter_mut().zip(batches).for_each(|(sum, more)| sum.add(more));
    }

    /// `to`, `from`: bytes that wait, and how many can.
    pub(crate) fn wait(&mut self, to: [[u32; 2]; 2], from: [[u32; 2]; 2]) {
        let add = |sum: &mut [u64; 2], more: [u32; 2]| {
            sum.iter_mut().zip(more).for_each(|(sum, more)| *sum += u64::from(more));
        };
        add(&mut self.to_waiting, to[0]);
        add(&mut self.to_waiting_max, to[1]);
        add(&mut self.from_waiting, from[0]);
        add(&mut self.from_waiting_max, from[1]);
    }
}

impl DpaStats {
    /// Requests that the DPA answered itself, for any reason.
    #[must_use]
    pub fn faulted_total(&self) -> u64 {
        self.faulted.iter().sum()
    }

    /// Requests that the DPA answered itself for this reason.
    #[must_use]
    pub fn faulted_for(&self, fault: Fault) -> u64 {
        self.faulted[fault as usize]
    }

    /// Those of the rings of endpoints of this role.
    pub(crate) fn rings_of(&mut self, role: Role) -> &mut RingStats {
        match role {
            Role::Worker => &mut self.workers,
            Role::Sidecar => &mut self.sidecars,
        }
    }

    /// Endpoints that were closed for breaking a rule, or for taking nothing.
    #[must_use]
    pub fn closed(&self) -> u64 {
        self.rejected.iter().sum::<u64>() + self.corrupt_rings + self.violations + self.stalled
    }

    /// Whether the books balance, see the module's header.
    #[must_use]
    pub fn is_balanced(&self) -> bool {
        self.received == self.answered + self.faulted_total() + self.abandoned + u64::from(self.live)
    }
}
