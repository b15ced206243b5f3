//! One accept loop for all lanes.
//!
//! ```text
//! listeners --accept--> Acceptor --bounded channel--> Lane::serve (spawns serve_connection on its lane)
//! ```
//!
//! - A new connection goes to the lane with the fewest open ones. It stays there until it closes.
//! - Running out of file descriptors is waited out, not spun on: what is open goes on.
//! - At the cap a client is told 503 at once instead of waiting in the kernel's queue; so is one whose address has as many
//!   connections open as one may have, so that nobody takes all of them. A client that would have to shake hands first is
//!   closed without a word.
//! - A connection of the listener with TLS takes the certificate with it that is current when it is accepted.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener as StdListener, TcpStream as StdStream};
use std::pin::Pin;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

use crate::config::DpuConfig;
use crate::dpu::Dpu;
use crate::ebb::Ebb;
use crate::ingress::serve;
use crate::tls::{Terms, Tls};

/// Connections accepted and not yet taken by their lane. A lane takes them at each turn of its loop, so
/// this many in waiting means that it is overloaded; the kernel's queue is the next to fill.
const WAITING_MAX: usize = 64;
/// First and longest pause after an accept that failed for want of a resource.
const BACK_OFF_FIRST: Duration = Duration::from_millis(10);
const BACK_OFF_MOST: Duration = Duration::from_millis(500);
/// What a client gets beyond a cap: before its request was read, so HTTP for everybody.
const FULL: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/json\r\n\
    x-cellmesh-error: overloaded\r\nretry-after: 1\r\nconnection: close\r\ncontent-length: 33\r\n\r\n\
    {\"error\": \"too many connections\"}";
const ADDRESS_FULL: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/json\r\n\
    x-cellmesh-error: overloaded\r\nretry-after: 1\r\nconnection: close\r\ncontent-length: 51\r\n\r\n\
    {\"error\": \"too many connections from your address\"}";

/// Accepts connections and hands them to lanes.
#[derive(Debug)]
pub struct Acceptor {
    listener: StdListener,
    tls: Option<(StdListener, Tls)>,
    lanes: Lanes,
}

/// How many connections may be open, to be changed while they are accepted. A cheap handle.
#[derive(Debug, Clone)]
pub struct ConnectionCaps(Arc<Caps>);

#[derive(Debug)]
struct Caps {
    connections: AtomicU32,
    per_address: AtomicU32,
}

#[derive(Debug)]
struct LaneHandle {
    open: Arc<AtomicU32>,
    accepted: mpsc::Sender<Accepted>,
}

/// Connections that were not taken up. A cheap handle on the counters of one acceptor.
#[derive(Debug, Clone, Default)]
pub struct TurnedAway(Arc<[AtomicU64; TurnedAway::REASONS.len()]>);

/// Places in [`TurnedAway::REASONS`].
const CONNECTIONS_MAX: usize = 0;
const PER_ADDRESS_MAX: usize = 1;
const ACCEPT: usize = 2;

impl TurnedAway {
    /// Why, in one word for metrics each.
    pub const REASONS: [&'static str; 3] = ["connections-max", "per-address-max", "accept"];

    fn count(&self, reason: usize) {
        // Relaxed, here and below: counters that nothing else depends on.
        self.0[reason].fetch_add(1, Ordering::Relaxed);
    }

    /// How many so far, by the places of [`TurnedAway::REASONS`].
    pub(crate) fn counts(&self) -> [u64; Self::REASONS.len()] {
        self.0.each_ref().map(|count| count.load(Ordering::Relaxed))
    }
}

/// A lane's end of the acceptor. `Send`: made where the acceptor is made, used on the lane's thread.
#[derive(Debug)]
pub struct LaneIntake {
    accepted: mpsc::Receiver<Accepted>,
    /// Of the first lane: what it tells for all.
    turned_away: Option<TurnedAway>,
}

/// A connection on its way to its lane. Counts as open on that lane and of its client until it is dropped.
#[derive(Debug)]
struct Accepted {
    stream: StdStream,
    client: IpAddr,
    tls: Option<Terms>,
    counted: Counted,
}

#[derive(Debug)]
struct Counted {
    lane: Arc<AtomicU32>,
    _client: OfClient,
}

impl Drop for Counted {
    fn drop(&mut self) {
        // Relaxed: the count steers, nothing is published through it.
        self.lane.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Open connections of each client. Looked at when one is accepted and when one closes, and never on the way of a request.
#[derive(Debug, Clone, Default)]
struct Clients(Arc<Mutex<HashMap<IpAddr, u32>>>);

/// One connection of a client, for as long as this lives.
#[derive(Debug)]
struct OfClient {
    clients: Clients,
    address: IpAddr,
}

impl Clients {
    /// `None`: this client has `max` open.
    fn open(&self, address: IpAddr, max: u32) -> Option<OfClient> {
        let address = network(address);
        let mut counts = self.counts();
        let count = counts.entry(address).or_default();
        if *count >= max {
            return None;
        }
        *count += 1;
        Some(OfClient { clients: self.clone(), address })
    }

    fn counts(&self) -> MutexGuard<'_, HashMap<IpAddr, u32>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for OfClient {
    fn drop(&mut self) {
        let mut counts = self.clients.counts();
        if let Some(count) = counts.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.address);
            }
        }
    }
}

/// Who counts as one client: an IPv4 address, or the network of 64 bits within which an IPv6 host chooses its own.
/// Source: RFC 4291, section 2.5.1.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(v4) => IpAddr::V4(v4),
        IpAddr::V6(v6) => IpAddr::V6((v6.to_bits() & (u128::MAX << 64)).into()),
    }
}

impl ConnectionCaps {
    fn new(config: &DpuConfig) -> Self {
        Self(Arc::new(Caps {
            connections: config.connections_max.into(),
            per_address: config.connections_per_address_max.into(),
        }))
    }

    /// From now on as many as `config` says; what is open stays.
    pub fn set(&self, config: &DpuConfig) {
        // Relaxed: each is read alone, when a connection comes.
        self.0.connections.store(config.connections_max, Ordering::Relaxed);
        self.0.per_address.store(config.connections_per_address_max, Ordering::Relaxed);
    }
}

impl Acceptor {
    /// Distributes what arrives on `listener` over `lanes` lanes, of which all together keep at most
    /// `connections_max` open, and of one client `connections_per_address_max`. The intakes are in the order of the lanes.
    #[must_use]
    pub fn new(listener: StdListener, lanes: usize, config: &DpuConfig) -> (Self, Vec<LaneIntake>) {
        let (lanes, mut intakes): (_, Vec<LaneIntake>) = (0..lanes.max(1)).map(|_| lane()).unzip();
        let turned_away = TurnedAway::default();
        intakes[0].turned_away = Some(turned_away.clone());
        let caps = ConnectionCaps::new(config);
        let lanes = Lanes { lanes, clients: Clients::default(), caps, turned_away };
        (Self { listener, tls: None, lanes }, intakes)
    }

    /// Accepts on this listener too, and speaks TLS there. Both share the lanes and the bounds.
    #[must_use]
    pub fn with_tls(mut self, listener: StdListener, tls: Tls) -> Self {
        self.tls = Some((listener, tls));
        self
    }

    /// What bounds the connections, to change it later.
    #[must_use]
    pub fn caps(&self) -> ConnectionCaps {
        self.lanes.caps.clone()
    }

    /// Where this accepts.
    /// # Errors
    /// What the kernel says.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Accepts until it is dropped, which closes the listeners: the first step of a drain. Runs in any
    /// tokio runtime with IO and time; a lane's own will do. Certificates are followed meanwhile.
    /// # Errors
    /// If a listener cannot be used with tokio at all. Failing accepts are logged and waited out.
    pub fn run(self) -> Pin<Box<dyn Future<Output = io::Result<()>> + Send>> {
        // Boxed, as all tasks that others spawn: what is awaited in them is compiled here, not once more in each crate that does.
        Box::pin(async move {
            let Self { listener, tls, lanes } = self;
            let plain = lanes.fill(listener, None);
            let Some((listener, tls)) = tls else { return plain.await };
            tokio::select! {
                ended = plain => ended,
                ended = lanes.fill(listener, Some(&tls)) => ended,
                () = tls.follow() => Ok(()),
            }
        })
    }
}

/// The lanes that connections go to.
#[derive(Debug)]
struct Lanes {
    lanes: Vec<LaneHandle>,
    clients: Clients,
    caps: ConnectionCaps,
    turned_away: TurnedAway,
}

impl Lanes {
    /// Hands over what arrives on a listener, for ever.
    async fn fill(&self, listener: StdListener, tls: Option<&Tls>) -> io::Result<()> {
        listener.set_nonblocking(true)?;
        let listener = TcpListener::from_std(listener)?;
        let mut back_off = BACK_OFF_FIRST;
        loop {
            match listener.accept().await {
                Ok((stream, client)) => {
                    back_off = BACK_OFF_FIRST;
                    self.hand_over(stream, client.ip(), tls).await;
                }
                Err(error) if is_of_client(&error) => {}
                Err(error) => {
                    self.turned_away.count(ACCEPT);
                    tracing::warn!(%error, "cannot accept connections; trying again in {back_off:?}");
                    tokio::time::sleep(back_off).await;
                    back_off = (back_off * 2).min(BACK_OFF_MOST);
                }
            }
        }
    }

    async fn hand_over(&self, stream: TcpStream, client: IpAddr, tls: Option<&Tls>) {
        let speaks_tls = tls.is_some();
        let caps = &self.caps.0;
        if self.open() >= caps.connections.load(Ordering::Relaxed) {
            self.turned_away.count(CONNECTIONS_MAX);
            return refuse(&stream, FULL, speaks_tls);
        }
        let Some(counted_client) = self.clients.open(client, caps.per_address.load(Ordering::Relaxed)) else {
            self.turned_away.count(PER_ADDRESS_MAX);
            return refuse(&stream, ADDRESS_FULL, speaks_tls);
        };
        let Ok(stream) = stream.into_std() else { return };
        let lane = self.lanes.iter().min_by_key(|lane| lane.open.load(Ordering::Relaxed));
        let lane = lane.expect("there is at least one lane");
        lane.open.fetch_add(1, Ordering::Relaxed);
        let counted = Counted { lane: Arc::clone(&lane.open), _client: counted_client };
        let accepted = Accepted { stream, client, tls: tls.map(Tls::terms), counted };
        // A lane that has stopped drops its connections: nobody is left to serve them.
        drop(lane.accepted.send(accepted).await);
    }

    fn open(&self) -> u32 {
        self.lanes.iter().map(|lane| lane.open.load(Ordering::Relaxed)).sum()
    }
}

fn lane() -> (LaneHandle, LaneIntake) {
    let (sender, accepted) = mpsc::channel(WAITING_MAX);
    (LaneHandle { open: Arc::default(), accepted: sender }, LaneIntake { accepted, turned_away: None })
}

impl LaneIntake {
    /// Serves what the acceptor sends, until the acceptor is gone. Await it on the lane's `LocalSet`.
    /// The connections it spawned go on after it ends.
    pub fn serve(mut self, dpu: Dpu) -> Pin<Box<dyn Future<Output = ()>>> {
        Box::pin(async move {
            self.turned_away.take().into_iter().for_each(|counts| dpu.tell_turned_away(counts));
            let ebb = Ebb::default();
            while let Some(Accepted { stream, client, tls, counted }) = self.accepted.recv().await {
                match TcpStream::from_std(stream) {
                    Ok(tcp) => {
                        let connection = serve(dpu.clone(), tcp, client, tls);
                        let ebb = ebb.clone();
                        tokio::task::spawn_local(async move {
                            connection.await;
                            drop(counted);
                            ebb.connection_ended();
                        });
                    }
                    Err(error) => tracing::warn!(%error, "a connection could not be taken up"),
                }
            }
        })
    }
}

/// As much of `answer` as goes without waiting: all of it, on a new connection. Who expects TLS could not read it.
fn refuse(stream: &TcpStream, answer: &[u8], speaks_tls: bool) {
    if speaks_tls {
        return;
    }
    if let Err(error) = stream.try_write(answer) {
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

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    /// A client has as many connections as it may, gets room back when one closes, and is forgotten when all are closed.
    #[test]
    fn clients_are_counted() {
        let clients = Clients::default();
        let first = clients.open(address("10.0.0.1"), 2).expect("room");
        let second = clients.open(address("::ffff:10.0.0.1"), 2).expect("room");
        assert!(clients.open(address("10.0.0.1"), 2).is_none());
        assert!(clients.open(address("10.0.0.2"), 2).is_some());
        drop(first);
        let third = clients.open(address("10.0.0.1"), 2).expect("room again");
        drop((second, third));
        assert!(clients.counts().is_empty());
    }

    /// Hosts of IPv6 choose their own address within their network.
    #[test]
    fn networks_of_ipv6_are_one_client() {
        let clients = Clients::default();
        let _open = clients.open(address("2001:db8::1"), 1).expect("room");
        assert!(clients.open(address("2001:db8::ffff:1"), 1).is_none());
        assert!(clients.open(address("2001:db8:0:1::1"), 1).is_some());
    }

    /// Lengths are what they say.
    #[test]
    fn refusals_are_whole() {
        for answer in [FULL, ADDRESS_FULL] {
            let text = std::str::from_utf8(answer).expect("text");
            let (head, body) = text.split_once("\r\n\r\n").expect("a head");
            assert!(head.ends_with(&format!("content-length: {}", body.len())), "{text}");
        }
    }
}
