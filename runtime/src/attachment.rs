//! How a DPU or a worker in a process of its own finds its DPA, stays attached, and comes back when that has gone.
//!
//! - Whoever starts first waits: nothing of the order of starts matters. What is waited for is logged once, not with each try.
//! - A refusal is waited out too: the other side may be about to be replaced by one that does not refuse.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use cellmesh_dpa::reactor::watch;
use cellmesh_shm::attach::{Attached, Channel, ChannelError, FromDpa, Hello, Received, ToDpa};
use cellmesh_shm::link::LinkFds;
use tokio::io::unix::AsyncFd;
use tokio::time::{sleep, timeout};

/// First and longest pause between tries. The longest bounds how late a new DPA is found, and costs nothing.
const BACK_OFF_FIRST: Duration = Duration::from_millis(5);
const BACK_OFF_MOST: Duration = Duration::from_millis(100);

/// From the hello to the answer.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(2);

/// Where a DPA listens, and what is said to it.
#[derive(Debug, Clone)]
pub struct DpaSocket {
    /// The socket's path.
    pub path: PathBuf,
    /// Who we are.
    pub hello: Hello,
}

/// What the DPA said of itself.
#[derive(Debug)]
pub struct NodeServices {
    /// Names of its services; a service's number is its place.
    pub names: Vec<String>,
    /// Calls that each lane may have in flight.
    pub calls_max: u32,
    /// Longest message in bytes.
    pub message_bytes_max: u32,
}

/// A life of the connection to the DPA. Dropping it detaches.
#[derive(Debug)]
pub struct Attachment {
    channel: AsyncFd<Channel>,
    /// The far side of each lane's link.
    pub links: Vec<LinkFds>,
    /// What the DPA said of itself.
    pub node: Arc<NodeServices>,
}

/// What a lane is told about its link.
#[derive(Debug)]
pub enum LinkOrder {
    /// There is a new one.
    Attach(Box<LinkFds>, Arc<NodeServices>),
    /// It has come to its end.
    Detach,
    /// Finish what is in flight.
    Finish,
}

impl DpaSocket {
    /// Attaches, however long it takes for a DPA to be there that lets us in.
    pub async fn attach(&self) -> Attachment {
        let mut pause = BACK_OFF_FIRST;
        let mut said = String::new();
        loop {
            let why = match self.try_attach().await {
                Ok(attached) => {
                    tracing::info!(socket = %self.path.display(), lanes = attached.links.len(), "attached");
                    return attached;
                }
                Err(why) => why,
            };
            if why != said {
                tracing::info!(socket = %self.path.display(), "waiting for the DPA: {why}");
                said = why;
            }
            sleep(pause).await;
            pause = (pause * 2).min(BACK_OFF_MOST);
        }
    }

    async fn try_attach(&self) -> Result<Attachment, String> {
        let channel = Channel::connect(&self.path).map_err(|error| not_there(&self.path, &error))?;
        let channel = watch(channel).map_err(|error| error.to_string())?;
        let hello = ToDpa::Hello(self.hello.clone());
        channel.get_ref().send_to_dpa(&hello).map_err(|error| error.to_string())?;
        let answer = timeout(HANDSHAKE_TIMEOUT, receive(&channel)).await;
        match answer.map_err(|_| "it does not answer".to_owned())? {
            Ok(Received::Attached(attached)) => {
                let Attached { welcome, links } = *attached;
                let node = NodeServices {
                    names: welcome.services,
                    calls_max: welcome.calls_max,
                    message_bytes_max: welcome.message_bytes_max,
                };
                Ok(Attachment { channel, links, node: Arc::new(node) })
            }
            Ok(Received::Said(FromDpa::Refused { why })) => Err(format!("it refuses: {why}")),
            Ok(Received::Said(_)) => Err("it answered the hello with something else".into()),
            Err(error) => Err(error.to_string()),
        }
    }
}

impl Attachment {
    /// Waits until the DPA has gone, or has let us go. Says how.
    pub async fn ended(&self) -> String {
        loop {
            match receive(&self.channel).await {
                Ok(_) => {}
                Err(error) => return error.to_string(),
            }
        }
    }

    /// Asks for nothing new, and waits until all that was sent before is in the rings, or the DPA has gone.
    pub async fn leave(&self) {
        if self.channel.get_ref().send_to_dpa(&ToDpa::Leave).is_err() {
            return;
        }
        while !matches!(receive(&self.channel).await, Ok(Received::Said(FromDpa::Left)) | Err(_)) {}
    }
}

fn not_there(path: &Path, error: &io::Error) -> String {
    let path = path.display();
    if error.kind() == io::ErrorKind::NotFound {
        format!("there is no {path}")
    } else if error.kind() == io::ErrorKind::ConnectionRefused {
        format!("nobody listens on {path}")
    } else {
        format!("{path}: {error}")
    }
}

async fn receive(channel: &AsyncFd<Channel>) -> Result<Received, ChannelError> {
    loop {
        let mut ready = channel.readable().await?;
        match ready.get_inner().receive_from_dpa() {
            Err(error) if error.would_block() => ready.clear_ready(),
            received => return received,
        }
    }
}

/// How this process is called in the logs of others.
#[must_use]
pub fn process_name(what: &str) -> String {
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let mut name = format!("{what}@{host}/{}", std::process::id());
    name.retain(|char| !char.is_control());
    name.truncate(name.floor_char_boundary(cellmesh_shm::attach::PEER_NAME_BYTES_MAX));
    name
}
