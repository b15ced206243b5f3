//! Bounds of one DPA. Each has a default, a unit and a reason.

use std::time::Duration;

use cellmesh_shm::profile::RingProfile;

/// What one DPA lets through and holds at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DpaConfig {
    /// Requests in custody at once, of all endpoints; more are answered [`cellmesh_shm::message::Fault::Overloaded`].
    pub slots_max: u32,
    /// Requests in custody at once that one endpoint has made. Its port must not have more calls than this.
    pub calls_max: u32,
    /// Longest message, padded head and body, in bytes.
    pub message_bytes_max: u32,
    /// What every endpoint's rings agree on: chunks and inline frames are relayed as they are, so their sizes are the
    /// same on all links of a DPA. An endpoint may have rings of other capacities.
    pub profile: RingProfile,
    /// Chunks of large messages taken from one endpoint in one turn; its small frames wait until those that it had sent
    /// before them are through.
    pub chunks_per_turn: u32,
    /// Small frames taken from one endpoint in one turn, before the next endpoint has its turn.
    pub budget_per_turn: u32,
    /// Longest time from taking a request to its outcome; a longer deadline is shortened to it.
    pub request_timeout_max: Duration,
    /// Calls between workers that one request may lead to, one after another.
    pub hops_max: u8,
    /// An endpoint that takes nothing for so long, although frames wait for it, is taken for dead; so is one that sends
    /// nothing of a message for which it has credit.
    pub stall_timeout: Duration,
    /// How long a process that broke a rule waits before it may attach again; twice as long after each further time, up to 64
    /// times as long. Zero: not at all.
    pub reattach_delay: Duration,
    /// Shared memory that an endpoint may ask for, in bytes and each direction.
    pub segment_bytes_max: usize,
    /// Where the choice between workers of one service starts; the same seed makes the same choices.
    pub seed: u64,
}

impl Default for DpaConfig {
    /// Twice the calls that one sidecar may make, so that what they cause finds room; messages of 16 MiB with 64 KiB of
    /// head; a turn short enough that nobody waits long for it; hops beyond which a chain is taken for a loop;
    /// a stall that no scheduler makes; a wait in which a lane makes hundreds of links; rings that hold a quarter of the
    /// largest message.
    fn default() -> Self {
        Self {
            slots_max: 4096,
            calls_max: 1024,
            message_bytes_max: (16 << 20) + (64 << 10),
            profile: RingProfile::default(),
            chunks_per_turn: 1,
            budget_per_turn: 64,
            request_timeout_max: Duration::from_secs(30),
            hops_max: 16,
            stall_timeout: Duration::from_secs(5),
            reattach_delay: Duration::from_millis(100),
            segment_bytes_max: 4 << 20,
            seed: 1,
        }
    }
}

impl DpaConfig {
    /// Slots that requests of sidecars may take. The rest is for the calls that those requests cause: ingress alone
    /// must not fill the table, or everything in it would wait for calls that cannot be made.
    #[must_use]
    pub const fn sidecar_slots_max(&self) -> u32 {
        self.slots_max - self.slots_max / 4
    }

    /// Small frames that may wait for room in one endpoint's ring before nothing more is taken from that endpoint.
    #[must_use]
    pub const fn parked_max(&self) -> usize {
        self.calls_max as usize
    }
}
