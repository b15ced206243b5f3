//! A link from the process that made it to another, over the socket that the product's modules attach by.

use std::io::ErrorKind;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use cellmesh_shm::attach::{AttachListener, Channel, FromDpa, LinkWelcome, Received, Welcome};
use cellmesh_shm::link::LinkFds;

/// How often and how long the other process is waited for.
const TRIES: u32 = 10_000;
const PAUSE: Duration = Duration::from_millis(1);

/// Gives the far side of a link to the process that comes first. That one takes the end of the channel for ours.
pub(super) fn offer(listener: &AttachListener, fds: LinkFds) -> Result<Channel> {
    let channel = patiently(|| listener.accept())?;
    let spec = fds.spec;
    let link = LinkWelcome { endpoint: spec.endpoint.0, generation: spec.generation, profile: spec.profile };
    let welcome = Welcome {
        services: Vec::new(),
        calls_max: 1,
        message_bytes_max: spec.message_bytes_max,
        links: vec![link],
    };
    channel.send_from_dpa(&FromDpa::Welcome(welcome), &[fds])?;
    Ok(channel)
}

/// Takes the far side of a link from the process that listens there, or will.
pub(super) fn take(socket: &Path) -> Result<LinkFds> {
    let channel = patiently(|| Channel::connect(socket))?;
    for _ in 0..TRIES {
        match channel.receive_from_dpa() {
            Ok(Received::Attached(mut attached)) => return attached.links.pop().context("one link"),
            Ok(Received::Said(said)) => bail!("{said:?} is no welcome"),
            Err(error) if error.would_block() => std::thread::sleep(PAUSE),
            Err(error) => return Err(error.into()),
        }
    }
    bail!("no link came")
}

/// Tries again while there is nothing, and nobody yet.
fn patiently<T>(mut what: impl FnMut() -> std::io::Result<T>) -> Result<T> {
    for _ in 0..TRIES {
        match what() {
            Err(error)
                if matches!(
                    error.kind(),
                    ErrorKind::WouldBlock | ErrorKind::NotFound | ErrorKind::ConnectionRefused
                ) =>
            {
                std::thread::sleep(PAUSE);
            }
            result => return Ok(result?),
        }
    }
    bail!("the other process did not come")
}
