//! Bytes of a packet.
//!
//! ```text
//!   "cellmesh"   version: u16, little endian   kind: u8   body
//!
//!   kind 0   Refused   UTF-8 text, in every version
//!   kind 1   Hello     JSON
//!   kind 2   Welcome   JSON
//!   kind 3   Leave     nothing
//!   kind 4   Left      nothing
//! ```

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{
    FromDpa, Hello, LANES_MAX, PEER_NAME_BYTES_MAX, Role, SERVICE_NAME_BYTES_MAX, SERVICES_MAX, ToDpa,
    VERSION, Welcome,
};

const MAGIC: [u8; 8] = *b"cellmesh";

/// Bytes before the body.
const HEAD_BYTES: usize = MAGIC.len() + 2 + 1;

/// Longest packet: the names of all services and the links of all lanes.
pub(super) const PACKET_BYTES_MAX: usize =
    HEAD_BYTES + SERVICES_MAX * (SERVICE_NAME_BYTES_MAX + 3) + LANES_MAX as usize * 256 + 1024;

const REFUSED: u8 = 0;
const HELLO: u8 = 1;
const WELCOME: u8 = 2;
const LEAVE: u8 = 3;
const LEFT: u8 = 4;

/// Why a packet was not understood.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PacketError {
    /// The other side speaks another protocol.
    #[error("a packet that is not of cellmesh")]
    Magic,
    /// The other side is older or newer.
    #[error(
        "the peer speaks version {theirs} of the attach protocol, this is version {VERSION}: run the same release on both sides"
    )]
    Version {
        /// What the packet says.
        theirs: u16,
    },
    /// A packet that this side is not sent.
    #[error("a packet of kind {kind} is not expected here")]
    Kind {
        /// What the packet says.
        kind: u8,
    },
    /// A body that cannot be read.
    #[error("{what}: {why}")]
    Body {
        /// Which packet.
        what: &'static str,
        /// What is wrong.
        why: String,
    },
}

impl ToDpa {
    /// The packet.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        match self {
            Self::Hello(hello) => encode_json(HELLO, hello),
            Self::Leave => head(LEAVE),
        }
    }

    /// From a packet.
    /// # Errors
    /// [`PacketError`] if it is none, of another version, or breaks a bound.
    pub fn decode(packet: &[u8]) -> Result<Self, PacketError> {
        match open(packet)? {
            (HELLO, body) => {
                let hello: Hello = decode_json("hello", body)?;
                hello.check().map_err(|why| PacketError::Body { what: "hello", why })?;
                Ok(Self::Hello(hello))
            }
            (LEAVE, []) => Ok(Self::Leave),
            (kind, _) => Err(PacketError::Kind { kind }),
        }
    }
}

impl FromDpa {
    /// The packet.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        match self {
            Self::Welcome(welcome) => encode_json(WELCOME, welcome),
            Self::Refused { why } => [&head(REFUSED), why.as_bytes()].concat(),
            Self::Left => head(LEFT),
        }
    }

    /// From a packet. A refusal is understood in every version.
    /// # Errors
    /// [`PacketError`] if it is none, of another version, or breaks a bound.
    pub fn decode(packet: &[u8]) -> Result<Self, PacketError> {
        if let Some(([REFUSED, why @ ..], _)) = split(packet) {
            return Ok(Self::Refused { why: printable(why) });
        }
        match open(packet)? {
            (WELCOME, body) => {
                let welcome: Welcome = decode_json("welcome", body)?;
                welcome.check().map_err(|why| PacketError::Body { what: "welcome", why })?;
                Ok(Self::Welcome(welcome))
            }
            (LEFT, []) => Ok(Self::Left),
            (kind, _) => Err(PacketError::Kind { kind }),
        }
    }
}

impl Hello {
    fn check(&self) -> Result<(), String> {
        if self.name.len() > PEER_NAME_BYTES_MAX || self.name.chars().any(char::is_control) {
            return Err(format!("name: must be at most {PEER_NAME_BYTES_MAX} printable bytes"));
        }
        if !(1..=LANES_MAX).contains(&self.lanes) {
            return Err(format!("lanes = {}: must be from 1 to {LANES_MAX}", self.lanes));
        }
        if (self.role == Role::Worker) == self.services.is_empty() {
            return Err("services: a worker names at least one, a sidecar none".into());
        }
        if let Some(profile) = &self.profile {
            profile.validate().map_err(|error| error.to_string())?;
        }
        check_services(&self.services)
    }
}

impl Welcome {
    fn check(&self) -> Result<(), String> {
        if self.links.is_empty() || self.links.len() > usize::from(LANES_MAX) {
            return Err(format!("{} links: must be from 1 to {LANES_MAX}", self.links.len()));
        }
        for lane in 0..self.links.len() {
            let spec = self.spec(lane).expect("a lane of this welcome");
            spec.validate().map_err(|error| error.to_string())?;
        }
        check_services(&self.services)
    }
}

fn check_services(services: &[String]) -> Result<(), String> {
    if services.len() > SERVICES_MAX {
        return Err(format!("{} services: must be at most {SERVICES_MAX}", services.len()));
    }
    let right = |name: &&String| {
        (1..=SERVICE_NAME_BYTES_MAX).contains(&name.len()) && name.bytes().all(|byte| byte.is_ascii_graphic())
    };
    match services.iter().find(|name| !right(name)) {
        Some(name) => Err(format!("service name {name:?}: must be 1 to {SERVICE_NAME_BYTES_MAX} letters")),
        None => Ok(()),
    }
}

fn head(kind: u8) -> Vec<u8> {
    let mut packet = Vec::with_capacity(HEAD_BYTES);
    packet.extend_from_slice(&MAGIC);
    packet.extend_from_slice(&VERSION.to_le_bytes());
    packet.push(kind);
    packet
}

fn encode_json(kind: u8, body: &impl Serialize) -> Vec<u8> {
    let mut packet = head(kind);
    serde_json::to_writer(&mut packet, body).expect("plain data, into memory");
    packet
}

fn decode_json<T: DeserializeOwned>(what: &'static str, body: &[u8]) -> Result<T, PacketError> {
    serde_json::from_slice(body).map_err(|error| PacketError::Body { what, why: error.to_string() })
}

/// Kind and body of a packet of this version.
fn open(packet: &[u8]) -> Result<(u8, &[u8]), PacketError> {
    let (rest, theirs) = split(packet).ok_or(PacketError::Magic)?;
    if theirs != VERSION {
        return Err(PacketError::Version { theirs });
    }
    let (kind, body) = rest.split_first().ok_or(PacketError::Magic)?;
    Ok((*kind, body))
}

/// What is behind the version, and the version.
fn split(packet: &[u8]) -> Option<(&[u8], u16)> {
    let rest = packet.strip_prefix(&MAGIC)?;
    let (version, rest) = rest.split_first_chunk()?;
    Some((rest, u16::from_le_bytes(*version)))
}

/// A peer's text, fit for a log.
fn printable(text: &[u8]) -> String {
    const CHARS_MAX: usize = 1024;
    String::from_utf8_lossy(text).chars().filter(|char| !char.is_control()).take(CHARS_MAX).collect()
}
