//! Attaching: how a process that is not the DPA's gets its side of a link.
//!
//! ```text
//!   endpoint process                      DPA
//!   connect            --------------->   accept; which socket it came in on says what it may serve
//!   Hello              --------------->   checks it, makes the links
//!                      <---------------   Welcome, with four descriptors for each lane
//!                            ...frames go through the rings...
//!   Leave              --------------->   sends it nothing new
//!                      <---------------   Left: all that it was sent is in its rings now
//!   end of the socket  <-------------->   end of the socket
//! ```
//!
//! - The socket is a Unix `SOCK_SEQPACKET`: messages keep their borders, and its end is the notice that the other side is
//!   gone, however it went.
//! - The version comes first in every packet and is checked before anything else. [`FromDpa::Refused`] is text behind
//!   that, in every version: an old peer can always be told why.
//! - The DPA makes the segments and doorbells and hands them out; nothing that it maps was made by a peer.
//! - What comes from a peer is bounded, read once, and checked here, so that nobody else has to.
//! - Not here: who may attach (the DPA), waiting for a socket (whoever has a reactor).

mod channel;
mod packet;

use serde::{Deserialize, Serialize};

use crate::ids::EndpointId;
use crate::link::LinkSpec;
use crate::profile::RingProfile;

pub use channel::{AttachListener, Attached, Channel, ChannelError, Received};
pub use packet::PacketError;

/// Version of this protocol, of the frames and of the rings: both sides must have the same.
pub const VERSION: u16 = 2;

/// Lanes of one process. Four descriptors for each go with one packet, and the kernel passes at most 253.
pub const LANES_MAX: u16 = 32;

/// Services of one node: their names fit a packet.
pub const SERVICES_MAX: usize = 1024;

/// Longest name of a service, in bytes. Source: a label of a host name, RFC 1035.
pub const SERVICE_NAME_BYTES_MAX: usize = 63;

/// Longest name that a peer gives itself, in bytes.
pub const PEER_NAME_BYTES_MAX: usize = 128;

/// What an endpoint process says to the DPA.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ToDpa {
    /// The first packet: who it is and what it wants.
    Hello(Hello),
    /// Nothing new, please: it wants to end.
    Leave,
}

/// What the DPA says to an endpoint process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FromDpa {
    /// The answer to [`ToDpa::Hello`]. Four descriptors for each lane come with it.
    Welcome(Welcome),
    /// The other answer: why not. The socket ends behind it.
    Refused {
        /// For people.
        why: String,
    },
    /// The answer to [`ToDpa::Leave`].
    Left,
}

/// What an endpoint process is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Answers requests of its services and makes calls.
    Worker,
    /// Takes requests from the network and decides about calls without a flow entry.
    Sidecar,
}

/// Who a process is and what it wants.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Hello {
    /// What it calls itself, for logs. Printable, at most [`PEER_NAME_BYTES_MAX`] bytes.
    pub name: String,
    /// What it is.
    pub role: Role,
    /// Services that a worker serves; none of a sidecar.
    pub services: Vec<String>,
    /// Links that it wants: one for each of its lanes.
    pub lanes: u16,
    /// Shape of its rings; the DPA's own if it has no wish.
    pub profile: Option<RingProfile>,
}

/// What a process was given.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Welcome {
    /// Names of all services of the node; a service's number is its place.
    pub services: Vec<String>,
    /// Calls that each endpoint may have in flight.
    pub calls_max: u32,
    /// Longest message, padded head and body, in bytes.
    pub message_bytes_max: u32,
    /// One for each lane; the descriptors are in the same order.
    pub links: Vec<LinkWelcome>,
}

/// The part of a [`LinkSpec`] that is each link's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LinkWelcome {
    /// The DPA's name for the endpoint.
    pub endpoint: u16,
    /// Which life of that name.
    pub generation: u32,
    /// Shape of the rings.
    pub profile: RingProfile,
}

impl Welcome {
    /// What the link of this lane looks like.
    #[must_use]
    pub fn spec(&self, lane: usize) -> Option<LinkSpec> {
        let link = self.links.get(lane)?;
        Some(LinkSpec {
            endpoint: EndpointId(link.endpoint),
            generation: link.generation,
            profile: link.profile,
            message_bytes_max: self.message_bytes_max,
        })
    }
}

#[cfg(test)]
mod tests;
