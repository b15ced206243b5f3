//! One accept loop for all lanes.
//!
//! ```text
//! listener --accept--> Acceptor --bounded channel--> Lane::serve (spawns serve_connection on its lane)
//! ```
//!
//! - A new connection goes to the lane with the fewest open ones. It stays there until it closes.
//! - Running out of file descriptors is waited out, not spun on: what is open goes on.
//! - At the cap a client is told 503 at once instead of waiting in the kernel's queue.

use std::io;
use std::net::{SocketAddr, TcpListener as StdListener, TcpStream as StdStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

use crate::dpu::Dpu;
use crate::ingress::serve_connection;

/// Connections accepted and not yet taken by their lane. A lane takes them at each turn of its loop, so
/// this many in waiting means that it is overloaded; the kernel's queue is the next to fill.
const WAITING_MAX: usize = 64;
/// First and longest pause after an accept that failed for want of a resource.
const BACK_OFF_FIRST: Duration = Duration::from_millis(10);
const BACK_OFF_MOST: Duration = Duration::from_millis(500);
/// What a client gets beyond the cap: before its request was read, so HTTP for everybody.
const FULL: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/json\r\n\
    x-cellmesh-error: overloaded\r\nretry-after: 1\r\nconnection: close\r\ncontent-length: 33\r\n\r\n\
    {\"error\": \"too many connections\"}";

/// Accepts connections and hands them to lanes.
#[derive(Debug)]
pub struct Acceptor {
    listener: StdListener,
    lanes: Vec<LaneHandle>,
    connections_max: u32,
}

#[derive(Debug)]
struct LaneHandle {
    open: Arc<AtomicU32>,
    accepted: mpsc::Sender<Accepted>,
}

/// A lane's end of the acceptor. `Send`: made where the acceptor is made, used on the lane's thread.
#[derive(Debug)]
pub struct LaneIntake {
    accepted: mpsc::Receiver<Accepted>,
}

/// A connection on its way to its lane. Counts as open on that lane until it is dropped.
#[derive(Debug)]
struct Accepted {
    stream: StdStream,
    counted: Counted,
}

#[derive(Debug)]
struct Counted(Arc<AtomicU32>);

impl Drop for Counted {
    fn drop(&mut self) {
        // Relaxed: the count steers, nothing is published through it.
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Acceptor {
    /// Distributes what arrives on `listener` over `lanes` lanes, of which all together keep at most
    /// `connections_max` open. The intakes are in the order of the lanes.
    #[must_use]
    pub fn new(listener: StdListener, lanes: usize, connections_max: u32) -> (Self, Vec<LaneIntake>) {
        let (handles, intakes) = (0..lanes.max(1)).map(|_| lane()).unzip();
        (Self { listener, lanes: handles, connections_max }, intakes)
    }

    /// Where this accepts.
    /// # Errors
    /// What the kernel says.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Accepts until it is dropped, which closes the listener: the first step of a drain. Runs in any
    /// tokio runtime with IO and time; a lane's own will do.
    /// # Errors
    /// If the listener cannot be used with tokio at all. Failing accepts are logged and waited out.
    pub async fn run(self) -> io::Result<()> {
        let Self { listener, lanes, connections_max } = self;
        listener.set_nonblocking(true)?;
        let listener = TcpListener::from_std(listener)?;
        let lanes = Lanes { lanes, connections_max };
        let mut back_off = BACK_OFF_FIRST;
        loop {
            match listener.accept().await {
                Ok((stream, _client)) => {
                    back_off = BACK_OFF_FIRST;
                    lanes.hand_over(stream).await;
                }
                Err(error) if is_of_client(&error) => {}
                Err(error) => {
                    tracing::warn!(%error, "cannot accept connections; trying again in {back_off:?}");
                    tokio::time::sleep(back_off).await;
                    back_off = (back_off * 2).min(BACK_OFF_MOST);
                }
            }
        }
    }
}

/// The lanes that connections go to.
struct Lanes {
    lanes: Vec<LaneHandle>,
    connections_max: u32,
}

impl Lanes {
    async fn hand_over(&self, stream: TcpStream) {
        if self.open() >= self.connections_max {
            return refuse(&stream);
        }
        let Ok(stream) = stream.into_std() else { return };
        let lane = self.lanes.iter().min_by_key(|lane| lane.open.load(Ordering::Relaxed));
        let lane = lane.expect("there is at least one lane");
        lane.open.fetch_add(1, Ordering::Relaxed);
        let accepted = Accepted { stream, counted: Counted(Arc::clone(&lane.open)) };
        // A lane that has stopped drops its connections: nobody is left to serve them.
        drop(lane.accepted.send(accepted).await);
    }

    fn open(&self) -> u32 {
        self.lanes.iter().map(|lane| lane.open.load(Ordering::Relaxed)).sum()
    }
}

fn lane() -> (LaneHandle, LaneIntake) {
    let (sender, accepted) = mpsc::channel(WAITING_MAX);
    (LaneHandle { open: Arc::default(), accepted: sender }, LaneIntake { accepted })
}

impl LaneIntake {
    /// Serves what the acceptor sends, until the acceptor is gone. Await it on the lane's `LocalSet`.
    /// The connections it spawned go on after it ends.
    pub async fn serve(mut self, dpu: Dpu) {
        while let Some(Accepted { stream, counted }) = self.accepted.recv().await {
            match TcpStream::from_std(stream) {
                Ok(tcp) => {
                    let connection = serve_connection(dpu.clone(), tcp);
                    tokio::task::spawn_local(async move {
                        connection.await;
                        drop(counted);
                    });
                }
                Err(error) => tracing::warn!(%error, "a connection could not be taken up"),
            }
        }
    }
}

/// As much of [`FULL`] as goes without waiting: all of it, on a new connection.
fn refuse(stream: &TcpStream) {
    if let Err(error) = stream.try_write(FULL) {
        tracing::debug!(%error, "a client left before it was refused");
    }
}

/// The client gave up before we got to it; there is nothing to wait for.
fn is_of_client(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset | io::ErrorKind::Interrupted
    )
}
