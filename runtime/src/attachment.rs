//! How a DPU or a worker in a process of its own finds its DPA, stays attached, and comes back when that has gone.
//!
//! - Whoever starts first waits: nothing of the order of starts matters. What is waited for is logged once, not with each try.
//! - A refusal is waited out too, in longer and longer waits: the other side may be replaced by one that does not refuse. That
//!   one makes a socket of its own, which ends the wait.

mod ends;
mod wait;

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use cellmesh_dpa::reactor::watch;
use cellmesh_shm::attach::{Attached, Channel, ChannelError, FromDpa, Hello, Received, ToDpa};
use cellmesh_shm::link::LinkFds;
use tokio::io::unix::AsyncFd;
use tokio::time::{Instant, sleep, timeout};

pub(crate) use ends::{AttachmentNumber, LinkEnds};
pub(crate) use wait::Wait;

/// First and longest pause between tries as long as nobody is there. The longest bounds how late a new DPA is found, and costs
/// nothing.
const BACK_OFF_FIRST: Duration = Duration::from_millis(5);
const BACK_OFF_MOST: Duration = Duration::from_millis(100);

/// Longest pause after a refusal. It bounds how late it is seen that the same DPA does not refuse any more.
const REFUSED_BACK_OFF_MOST: Duration = Duration::from_secs(5);

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
pub(crate) enum LinkOrder {
    /// There is a new one, of this attachment.
    Attach(Box<LinkFds>, Arc<NodeServices>, AttachmentNumber),
    /// It has come to its end.
    Detach,
    /// Finish what is in flight.
    Finish,
}

impl DpaSocket {
    /// Attaches, however long it takes for a DPA to be there that lets us in.
    pub async fn attach(&self) -> Attachment {
        let mut tries = Tries::new();
        loop {
            // Before the try: who refuses is behind this file, or an earlier one.
            let file = SocketFile::at(&self.path);
            let (why, is_new) = match self.try_attach().await {
                Ok(attached) => {
                    tracing::info!(socket = %self.path.display(), lanes = attached.links.len(), "attached");
                    return attached;
                }
                Err(why) => tries.failed(why),
            };
            if is_new {
                self.log(why);
            }
            self.pause(tries.pause, file).await;
        }
    }

    fn log(&self, obstacle: &Obstacle) {
        let socket = self.path.display();
        match obstacle {
            Obstacle::Absent(why) => tracing::info!(%socket, "waiting for the DPA: {why}"),
            Obstacle::Lasting(why) => tracing::warn!(%socket, "waiting for the DPA: {why}"),
        }
    }

    /// Waits so long, or until another file is in the place of this one: another DPA may be there.
    async fn pause(&self, span: Duration, file: Option<SocketFile>) {
        let until = Instant::now() + span;
        loop {
            sleep(until.saturating_duration_since(Instant::now()).min(BACK_OFF_MOST)).await;
            if Instant::now() >= until || SocketFile::at(&self.path) != file {
                return;
            }
        }
    }

    async fn try_attach(&self) -> Result<Attachment, Obstacle> {
        let channel = Channel::connect(&self.path).map_err(|error| not_there(&self.path, &error))?;
        self.say_hello(channel).await.map_err(Obstacle::Lasting)
    }

    async fn say_hello(&self, channel: Channel) -> Result<Attachment, String> {
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

/// What keeps a process from attaching, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Obstacle {
    /// No DPA is there yet, or it has not come to us yet.
    Absent(String),
    /// Somebody has to do something about it: the DPA refuses, or none can be there.
    Lasting(String),
}

/// Tries to attach that failed, one after the other.
#[derive(Debug)]
struct Tries {
    /// Until the next one.
    pause: Duration,
    last: Option<Obstacle>,
}

impl Tries {
    fn new() -> Self {
        Self { pause: Duration::ZERO, last: None }
    }

    /// Notes one, and sets the pause behind it. Whether it failed in another way than the one before.
    fn failed(&mut self, obstacle: Obstacle) -> (&Obstacle, bool) {
        let most = match obstacle {
            Obstacle::Absent(_) => BACK_OFF_MOST,
            Obstacle::Lasting(_) => REFUSED_BACK_OFF_MOST,
        };
        self.pause = (self.pause * 2).clamp(BACK_OFF_FIRST, most);
        let is_new = self.last.as_ref() != Some(&obstacle);
        (self.last.insert(obstacle), is_new)
    }
}

/// A socket's file, told from the one before it at the same path: device, inode, and time of its last change, as a number may
/// be given to another inode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct SocketFile(u64, u64, (i64, i64));

impl SocketFile {
    /// None if nothing is there.
    fn at(path: &Path) -> Option<Self> {
        let file = path.metadata().ok()?;
        Some(Self(file.dev(), file.ino(), (file.ctime(), file.ctime_nsec())))
    }
}

fn not_there(path: &Path, error: &io::Error) -> Obstacle {
    let path = path.display();
    if error.kind() == io::ErrorKind::NotFound {
        Obstacle::Absent(format!("there is no {path}"))
    } else if error.kind() == io::ErrorKind::ConnectionRefused {
        Obstacle::Absent(format!("nobody listens on {path}"))
    } else if error.kind() == io::ErrorKind::WouldBlock {
        Obstacle::Absent(format!("{path}: too many wait to attach"))
    } else {
        Obstacle::Lasting(format!("{path}: {error}"))
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

#[cfg(test)]
mod tests {
    use cellmesh_shm::attach::{AttachListener, LinkWelcome, Role, Welcome};
    use cellmesh_shm::ids::EndpointId;
    use cellmesh_shm::link::{Link, LinkSpec};
    use cellmesh_shm::profile::RingProfile;

    use super::*;

    fn absent(why: &str) -> Obstacle {
        Obstacle::Absent(why.into())
    }

    fn lasting(why: &str) -> Obstacle {
        Obstacle::Lasting(why.into())
    }

    /// The pauses behind so many failures of one kind.
    fn pauses_ms(tries: &mut Tries, obstacle: &Obstacle, count: usize) -> Vec<u128> {
        let mut pause = || {
            tries.failed(obstacle.clone());
            tries.pause.as_millis()
        };
        (0..count).map(|_| pause()).collect()
    }

    /// Who is refused asks less and less often; who waits for a DPA goes on asking ten times a second, also after a refusal.
    #[test]
    fn pauses_grow_with_refusals() {
        let mut tries = Tries::new();
        assert_eq!(pauses_ms(&mut tries, &absent("none"), 8), [5, 10, 20, 40, 80, 100, 100, 100]);
        let refused = [200, 400, 800, 1600, 3200, 5000, 5000];
        assert_eq!(pauses_ms(&mut tries, &lasting("no"), 7), refused);
        assert_eq!(pauses_ms(&mut tries, &absent("none"), 2), [100, 100]);
    }

    /// A reason is new until it is the last one; the same words of another kind are another reason.
    #[test]
    fn reason_is_said_once() {
        let mut tries = Tries::new();
        let said =
            [absent("a"), absent("a"), lasting("a"), lasting("a"), lasting("b"), lasting("b"), absent("a")];
        let new = said.map(|obstacle| tries.failed(obstacle).1);
        assert_eq!(new, [true, false, true, false, true, false, true]);
    }

    /// What only lacks a DPA is told from what somebody has to mend.
    #[test]
    fn obstacles_are_told_apart() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let of = |path: &Path| not_there(path, &Channel::connect(path).expect_err("nobody is there"));
        assert!(matches!(of(&dir.path().join("none")), Obstacle::Absent(_)));
        let dead = dir.path().join("dead");
        drop(std::os::unix::net::UnixListener::bind(&dead).expect("a free path"));
        assert!(matches!(of(&dead), Obstacle::Absent(_)));
        let long = dir.path().join("x".repeat(200));
        let why = format!("{}: is longer than 107 bytes", long.display());
        assert_eq!(of(&long), Obstacle::Lasting(why));
    }

    /// A process in a long pause after a refusal attaches to the next DPA as soon as that has made its socket.
    #[tokio::test]
    async fn new_socket_ends_the_pause() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let path = dir.path().join("dpa.sock");
        let hello = Hello {
            name: "w".into(),
            role: Role::Worker,
            services: vec!["s".into()],
            lanes: 1,
            profile: None,
        };
        let socket = DpaSocket { path: path.clone(), hello };
        // It stays open, so that its number is not given to the second.
        let _first = AttachListener::bind(&path).expect("a free path");
        let file = SocketFile::at(&path);
        let pausing = socket.pause(Duration::from_secs(3600), file);
        let replacing = async {
            std::fs::remove_file(&path).expect("it was there");
            AttachListener::bind(&path).expect("a free path")
        };
        let ((), second) = tokio::join!(pausing, replacing);
        let (attachment, ()) = tokio::join!(socket.attach(), welcome_next(second));
        assert_eq!(attachment.node.names, ["s"]);
    }

    /// A DPA that takes in the next process.
    async fn welcome_next(listener: AttachListener) {
        let listener = watch(listener).expect("a reactor");
        let ready = listener.readable().await.expect("a socket");
        let channel = watch(ready.get_inner().accept().expect("somebody is there")).expect("a reactor");
        drop(channel.readable().await.expect("a socket"));
        // What is left unread would take the answer with it.
        assert!(matches!(channel.get_ref().receive_as_dpa(), Ok(ToDpa::Hello(_))));
        let spec = LinkSpec {
            endpoint: EndpointId(1),
            generation: 1,
            profile: RingProfile::default(),
            message_bytes_max: 1 << 20,
        };
        let (_, fds) = Link::create(spec).expect("memory and descriptors");
        let links = vec![LinkWelcome { endpoint: 1, generation: 1, profile: spec.profile }];
        let welcome = Welcome { services: vec!["s".into()], calls_max: 1, message_bytes_max: 1 << 20, links };
        let sent = channel.get_ref().send_from_dpa(&FromDpa::Welcome(welcome), &[fds]);
        sent.expect("it is there");
    }
}
