//! What of a client's head goes on to the cell, and what of a cell's head goes back.
//!
//! - Hop-by-hop headers stay on their hop, those that `connection` names too (RFC 9110, 7.6.1).
//! - `content-length` stays too: the length is the message's, and written anew on the next hop.
//! - `x-cellmesh-*` is the mesh's own: from a client none of it goes on; from the worker only
//!   `x-cellmesh-error` does.
//! - `x-client-cert-sha256` is ours too: it says which certificate the client has shown, and was found good.
//! - Each request has an `x-request-id`: the client's, or one made here.

use bytes::Bytes;
use cellmesh_shm::head::is_hop_by_hop;

use crate::dpu::Received;
use crate::faults::Refusal;
use crate::request_id::ID_BYTES;

const REQUEST_ID: &str = "x-request-id";
pub(crate) const MESH_PREFIX: &str = "x-cellmesh-";
/// Header that carries the code of an error made by the mesh.
pub(crate) const ERROR_HEADER: &str = "x-cellmesh-error";
/// Header by which one node tells another how many nodes a request came through.
pub(crate) const HOPS_HEADER: &str = "x-cellmesh-hops";
/// Header by which a client names the service that it wants.
pub(crate) const SERVICE_HEADER: &str = "x-cellmesh-service";

/// Header that tells a cell the SHA-256 of the client's certificate, in hexadecimal digits.
const CLIENT_CERTIFICATE_HEADER: &str = "x-client-cert-sha256";

/// Most requests fit without growing: a browser's head is about 700 bytes.
const USUAL_HEAD_BYTES: usize = 768;

/// A request head under construction: `method | target | name: value\n ...`.
pub(crate) struct HeadWriter {
    bytes: Vec<u8>,
    method_len: u16,
    target_len: u16,
    lines: usize,
    has_request_id: bool,
}

/// A finished request head.
pub(crate) struct Head {
    pub(crate) bytes: Bytes,
    pub(crate) method_len: u16,
    pub(crate) target_len: u16,
}

impl HeadWriter {
    /// # Errors
    /// 431 if one of the two is longer than any limit allows (64 KiB).
    pub(crate) fn new(method: &str, target: &str) -> Result<Self, Refusal> {
        let length = |text: &str| u16::try_from(text.len()).map_err(|_| Refusal::HeadTooLarge);
        let (method_len, target_len) = (length(method)?, length(target)?);
        let mut bytes = Vec::with_capacity(USUAL_HEAD_BYTES);
        bytes.extend_from_slice(method.as_bytes());
        bytes.extend_from_slice(target.as_bytes());
        Ok(Self { bytes, method_len, target_len, lines: 0, has_request_id: false })
    }

    /// Passes a header of the client on, unless it stays on this hop. `name` is in lower case, `value`
    /// has no CR, LF or NUL.
    pub(crate) fn pass(&mut self, name: &str, value: &[u8]) {
        if stays(name) || name.starts_with(MESH_PREFIX) || name == CLIENT_CERTIFICATE_HEADER {
            return;
        }
        self.has_request_id |= name == REQUEST_ID;
        self.line(name, value);
    }

    /// Says which certificate the client has, if it has shown one.
    pub(crate) fn vouch(&mut self, certificate: Option<&str>) {
        if let Some(digest) = certificate {
            self.line(CLIENT_CERTIFICATE_HEADER, digest.as_bytes());
        }
    }

    /// The head, with a request id if it had none.
    /// # Errors
    /// 431 if it is over the limits with what was added here: cells are promised that it is not.
    pub(crate) fn finish(mut self, received: &Received) -> Result<Head, Refusal> {
        if !self.has_request_id {
            let mut text = [0; ID_BYTES];
            let id = received.ids().next(&mut text);
            self.line(REQUEST_ID, id.as_bytes());
        }
        let config = &received.settings().config;
        if self.lines > usize::from(config.header_lines_max)
            || self.bytes.len() > config.head_bytes_max.as_len()
        {
            return Err(Refusal::HeadTooLarge);
        }
        Ok(Head { bytes: Bytes::from(self.bytes), method_len: self.method_len, target_len: self.target_len })
    }

    fn line(&mut self, name: &str, value: &[u8]) {
        self.bytes.extend_from_slice(name.as_bytes());
        self.bytes.extend_from_slice(b": ");
        self.bytes.extend_from_slice(value);
        self.bytes.push(b'\n');
        self.lines += 1;
    }
}

/// Whether a header of a cell's answer goes back to the client.
pub(crate) fn goes_back(name: &str) -> bool {
    !stays(name) && (!name.starts_with(MESH_PREFIX) || name == ERROR_HEADER)
}

fn stays(name: &str) -> bool {
    name == "content-length" || is_hop_by_hop(name)
}
