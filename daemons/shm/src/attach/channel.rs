//! The socket that packets and descriptors go through.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags, SocketType,
};

use super::packet::{PACKET_BYTES_MAX, PacketError};
use super::{FromDpa, LANES_MAX, ToDpa, Welcome};
use crate::link::LinkFds;

/// Descriptors of one link.
const LINK_FDS: usize = 4;

/// Most descriptors that come with one packet.
const FDS_MAX: usize = LANES_MAX as usize * LINK_FDS;

/// Longest path of a socket, in bytes. Source: `sun_path` less its end, unix(7).
const PATH_BYTES_MAX: usize = 107;

/// Connections that wait to be accepted.
const BACKLOG: i32 = 64;

const FLAGS: SocketFlags = SocketFlags::CLOEXEC.union(SocketFlags::NONBLOCK);

/// Why nothing came through a channel.
#[derive(Debug, thiserror::Error)]
pub enum ChannelError {
    /// The kernel's. [`io::ErrorKind::WouldBlock`] when nothing is there, or no room is, right now.
    #[error("the attach socket: {0}")]
    System(#[from] io::Error),
    /// The other side has ended.
    #[error("the other side has closed the attach socket")]
    Ended,
    /// Not understood. The channel should be closed.
    #[error(transparent)]
    Packet(#[from] PacketError),
    /// A welcome with more or fewer descriptors than its links have.
    #[error("a packet with {found} descriptors: must have {expected}")]
    Descriptors {
        /// Descriptors that came.
        found: usize,
        /// Descriptors that belong to the packet.
        expected: usize,
    },
}

impl ChannelError {
    /// Whether this is only that nothing is there, or no room is, right now.
    #[must_use]
    pub fn would_block(&self) -> bool {
        matches!(self, Self::System(error) if error.kind() == io::ErrorKind::WouldBlock)
    }
}

/// What came with a welcome.
#[derive(Debug)]
pub struct Attached {
    /// What the DPA said.
    pub welcome: Welcome,
    /// The far side of each lane's link.
    pub links: Vec<LinkFds>,
}

/// What came from the DPA.
#[derive(Debug)]
pub enum Received {
    /// A welcome, with its links.
    Attached(Box<Attached>),
    /// Any other packet.
    Said(FromDpa),
}

/// One end of an attach socket. Never blocks.
#[derive(Debug)]
pub struct Channel {
    socket: OwnedFd,
}

impl Channel {
    /// Connects to the DPA that listens at `path`.
    /// # Errors
    /// The kernel's: [`io::ErrorKind::NotFound`] and [`io::ErrorKind::ConnectionRefused`] when none does;
    /// [`io::ErrorKind::InvalidInput`] where none can.
    pub fn connect(path: &Path) -> io::Result<Self> {
        let address = address(path)?;
        let socket = socket()?;
        rustix::net::connect(&socket, &address)?;
        Ok(Self { socket })
    }

    /// Both ends of a channel inside one process.
    /// # Errors
    /// The kernel's, for want of descriptors.
    pub fn pair() -> io::Result<(Self, Self)> {
        let (near, far) = rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, FLAGS, None)?;
        Ok((Self { socket: near }, Self { socket: far }))
    }

    /// Says something to the DPA.
    /// # Errors
    /// The kernel's.
    pub fn send_to_dpa(&self, message: &ToDpa) -> Result<(), ChannelError> {
        self.send(&message.encode(), &[])
    }

    /// Says something to an endpoint process. `links` go with a welcome, in the order of its lanes.
    /// # Errors
    /// The kernel's.
    pub fn send_from_dpa(&self, message: &FromDpa, links: &[LinkFds]) -> Result<(), ChannelError> {
        let fds: Vec<BorrowedFd<'_>> = links
            .iter()
            .flat_map(|link| [link.tx.as_fd(), link.rx.as_fd(), link.ring.as_fd(), link.wait.as_fd()])
            .collect();
        self.send(&message.encode(), &fds)
    }

    /// What the DPA was sent next. Descriptors that came with it are closed: it takes none.
    /// # Errors
    /// [`ChannelError`]; all but those that [`ChannelError::would_block`] mean that the channel is to be closed.
    pub fn receive_as_dpa(&self) -> Result<ToDpa, ChannelError> {
        let (packet, _) = self.receive()?;
        Ok(ToDpa::decode(&packet)?)
    }

    /// What the endpoint process was sent next.
    /// # Errors
    /// As [`Channel::receive_as_dpa`].
    pub fn receive_from_dpa(&self) -> Result<Received, ChannelError> {
        let (packet, fds) = self.receive()?;
        match FromDpa::decode(&packet)? {
            FromDpa::Welcome(welcome) => {
                let links = links(&welcome, fds)?;
                Ok(Received::Attached(Box::new(Attached { welcome, links })))
            }
            said @ (FromDpa::Refused { .. } | FromDpa::Left) => Ok(Received::Said(said)),
        }
    }

    /// Sends bytes as they are.
    /// # Errors
    /// The kernel's.
    pub fn send(&self, packet: &[u8], fds: &[BorrowedFd<'_>]) -> Result<(), ChannelError> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FDS_MAX))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(fds)) {
            return Err(ChannelError::Descriptors { found: fds.len(), expected: FDS_MAX });
        }
        let sent = retrying(|| {
            rustix::net::sendmsg(&self.socket, &[IoSlice::new(packet)], &mut control, SendFlags::NOSIGNAL)
        });
        match sent {
            Ok(_) => Ok(()),
            Err(Errno::PIPE | Errno::CONNRESET) => Err(ChannelError::Ended),
            Err(errno) => Err(ChannelError::System(errno.into())),
        }
    }

    /// A packet and the descriptors that came with it.
    fn receive(&self) -> Result<(Vec<u8>, Vec<OwnedFd>), ChannelError> {
        let mut packet = vec![0; PACKET_BYTES_MAX];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FDS_MAX))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let received = retrying(|| {
            let into = &mut [IoSliceMut::new(&mut packet)];
            rustix::net::recvmsg(&self.socket, into, &mut control, RecvFlags::CMSG_CLOEXEC)
        });
        let received = match received {
            Ok(received) => received,
            Err(Errno::CONNRESET) => return Err(ChannelError::Ended),
            Err(errno) => return Err(ChannelError::System(errno.into())),
        };
        // All of them are taken first, so that those of a bad packet are closed.
        let mut fds = Vec::new();
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(rights) = message {
                fds.extend(rights);
            }
        }
        if received.bytes == 0 {
            return Err(ChannelError::Ended);
        }
        if received.flags.intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC) {
            let why = format!("longer than {PACKET_BYTES_MAX} bytes or {FDS_MAX} descriptors");
            return Err(PacketError::Body { what: "packet", why }.into());
        }
        packet.truncate(received.bytes);
        Ok((packet, fds))
    }
}

/// The links of a welcome, from the descriptors that came with it.
fn links(welcome: &Welcome, fds: Vec<OwnedFd>) -> Result<Vec<LinkFds>, ChannelError> {
    let (found, expected) = (fds.len(), welcome.links.len() * LINK_FDS);
    if found != expected {
        return Err(ChannelError::Descriptors { found, expected });
    }
    let mut fds = fds.into_iter();
    let mut next = || fds.next().expect("counted above");
    let link = |lane| {
        let spec = welcome.spec(lane).expect("a lane of this welcome");
        LinkFds { spec, tx: next(), rx: next(), ring: next(), wait: next() }
    };
    Ok((0..welcome.links.len()).map(link).collect())
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Tokio's reactor asks for both.
impl AsRawFd for Channel {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}

/// Where the DPA waits for endpoint processes. The socket's file goes when this is dropped; one of another DPA does not.
#[derive(Debug)]
pub struct AttachListener {
    socket: OwnedFd,
    path: PathBuf,
    /// None if it was gone at once.
    file: Option<FileId>,
}

/// Device and inode. The kernel gives an inode's number to no other file as long as the socket that is bound to it is open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct FileId(u64, u64);

impl FileId {
    fn at(path: &Path) -> Option<Self> {
        let file = path.symlink_metadata().ok()?;
        Some(Self(file.dev(), file.ino()))
    }
}

impl AttachListener {
    /// Listens at `path`. The socket of a DPA that is gone is replaced; any other file is left alone.
    /// # Errors
    /// [`io::ErrorKind::AddrInUse`] if another DPA listens there; [`io::ErrorKind::AlreadyExists`] if a file is there that is
    /// no socket of a DPA; [`io::ErrorKind::InvalidInput`] if the path is empty or too long; else the kernel's.
    pub fn bind(path: &Path) -> io::Result<Self> {
        let address = address(path)?;
        let listening = socket()?;
        match rustix::net::bind(&listening, &address) {
            Err(Errno::ADDRINUSE) => {
                remove_stale(path)?;
                rustix::net::bind(&listening, &address)?;
            }
            bound => bound?,
        }
        let listener = Self { socket: listening, path: path.to_owned(), file: FileId::at(path) };
        rustix::net::listen(&listener.socket, BACKLOG)?;
        Ok(listener)
    }

    /// The next process that wants to attach.
    /// # Errors
    /// The kernel's; [`io::ErrorKind::WouldBlock`] when nobody is there.
    pub fn accept(&self) -> io::Result<Channel> {
        Ok(Channel { socket: rustix::net::accept_with(&self.socket, FLAGS)? })
    }

    /// Where it listens.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for AttachListener {
    fn drop(&mut self) {
        // The socket is still open here: whatever has its file's number is its file.
        if self.file.is_some() && self.file == FileId::at(&self.path) {
            // One that is gone already is what we want.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

impl AsFd for AttachListener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Tokio's reactor asks for both.
impl AsRawFd for AttachListener {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}

/// Removes the socket file of a DPA that was killed; nothing else.
fn remove_stale(path: &Path) -> io::Result<()> {
    let other = || io::Error::new(io::ErrorKind::AlreadyExists, "a file is there that is no socket of a DPA");
    // The kernel refuses connections to files of any kind; only sockets may go.
    match path.symlink_metadata() {
        Ok(file) if file.file_type().is_socket() => {}
        Ok(_) => return Err(other()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    }
    match Channel::connect(path) {
        Ok(_) => Err(io::Error::new(io::ErrorKind::AddrInUse, "another DPA listens there")),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => std::fs::remove_file(path),
        // Too many wait to be accepted: it is alive.
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
            Err(io::Error::new(io::ErrorKind::AddrInUse, "another DPA listens there"))
        }
        // Somebody listens there for connections of another kind.
        Err(error) if error.raw_os_error() == Some(Errno::PROTOTYPE.raw_os_error()) => Err(other()),
        Err(error) => Err(error),
    }
}

/// Of a file: an empty path would be a socket without one, with a name of the kernel's choice.
fn address(path: &Path) -> io::Result<SocketAddrUnix> {
    let wrong = |why: String| io::Error::new(io::ErrorKind::InvalidInput, why);
    if path.as_os_str().is_empty() {
        return Err(wrong("the path of a socket is empty".into()));
    }
    if path.as_os_str().len() > PATH_BYTES_MAX {
        return Err(wrong(format!("is longer than {PATH_BYTES_MAX} bytes")));
    }
    Ok(SocketAddrUnix::new(path)?)
}

fn socket() -> io::Result<OwnedFd> {
    Ok(rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, FLAGS, None)?)
}

fn retrying<T>(mut call: impl FnMut() -> Result<T, Errno>) -> Result<T, Errno> {
    loop {
        match call() {
            Err(Errno::INTR) => {}
            done => return done,
        }
    }
}
