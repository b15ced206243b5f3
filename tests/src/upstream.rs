//! A host off the node: a server that a test holds in its hand.

use std::collections::HashSet;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustls::ServerConfig;
use tokio::io::copy_bidirectional;
use tokio_rustls::TlsAcceptor;

use crate::HANG;

/// What a server writes to a request: its head, its body, and the stream to write to. `false` ends the connection.
pub trait Answer: Fn(&str, &[u8], &mut TcpStream) -> bool + Send + Sync + 'static {}

impl<F: Fn(&str, &[u8], &mut TcpStream) -> bool + Send + Sync + 'static> Answer for F {}

/// A server on a port of its own. Its threads end with their connections.
#[derive(Debug)]
pub struct Upstream {
    address: SocketAddr,
    seen: Arc<Seen>,
}

#[derive(Debug, Default)]
struct Seen {
    connections: AtomicUsize,
    heads: Mutex<Vec<String>>,
}

impl Upstream {
    /// Serves until the test ends.
    #[must_use]
    pub fn start(answer: impl Answer) -> Self {
        let answer = Arc::new(answer);
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("bound");
        let seen = Arc::new(Seen::default());
        let in_thread = Arc::clone(&seen);
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                in_thread.connections.fetch_add(1, Ordering::Relaxed);
                let (seen, answer) = (Arc::clone(&in_thread), Arc::clone(&answer));
                std::thread::spawn(move || serve(stream, &*answer, &seen));
            }
        });
        Self { address, seen }
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Speaks TLS in front of it, until the test ends; where.
    #[must_use]
    pub fn over_tls(&self, server: Arc<ServerConfig>) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let (address, behind) = (listener.local_addr().expect("bound"), self.address);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        std::thread::spawn(move || {
            runtime.block_on(async {
                listener.set_nonblocking(true).expect("a socket");
                let listener = tokio::net::TcpListener::from_std(listener).expect("a socket");
                while let Ok((client, _)) = listener.accept().await {
                    let acceptor = TlsAcceptor::from(Arc::clone(&server));
                    tokio::spawn(async move {
                        let mut client = acceptor.accept(client).await?;
                        let mut plain = tokio::net::TcpStream::connect(behind).await?;
                        copy_bidirectional(&mut client, &mut plain).await
                    });
                }
            });
        });
        address
    }

    /// Connections that were made to it.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.seen.connections.load(Ordering::Relaxed)
    }

    /// Heads of the requests that it was sent, in lower case.
    #[must_use]
    pub fn heads(&self) -> Vec<String> {
        self.seen.heads.lock().expect("servers do not panic").clone()
    }
}

/// Ports that the system gives to nobody who asks for any: below its default range. Source: `ip_local_port_range`, ip(7).
const PORTS: std::ops::Range<u16> = 10_000..32_000;

/// An address at which nobody listens, and nobody else will: a port that is free, each time another.
#[must_use]
pub fn nobody() -> SocketAddr {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    // Another process begins elsewhere, more often than not.
    let first = std::process::id() as usize * 97;
    let taken = taken_ports();
    let mut ports = (0..PORTS.len()).map(|_| {
        let place = (first + NEXT.fetch_add(1, Ordering::Relaxed)) % PORTS.len();
        PORTS.start + u16::try_from(place).expect("less than a port")
    });
    let free = ports.find(|port| !taken.contains(port)).expect("a free port");
    SocketAddr::from(([127, 0, 0, 1], free))
}

/// Ports of this machine that sockets have. Not found out by taking them: a program that another test starts at that moment
/// would have them too, until it runs.
fn taken_ports() -> HashSet<u16> {
    let tables = ["/proc/net/tcp", "/proc/net/tcp6"].map(std::fs::read_to_string);
    let mut ports = HashSet::new();
    for line in tables.iter().flatten().flat_map(|table| table.lines().skip(1)) {
        // The second word is the local address, in hexadecimal digits. Source: proc(5).
        let port = line.split_whitespace().nth(1).and_then(|address| address.rsplit_once(':'));
        ports.extend(port.and_then(|(_, port)| u16::from_str_radix(port, 16).ok()));
    }
    ports
}

fn serve(mut stream: TcpStream, answer: &impl Answer, seen: &Seen) {
    // A socket that is gone ends the loop below.
    let _ = stream.set_read_timeout(Some(HANG));
    let Ok(reading) = stream.try_clone() else { return };
    let mut reader = BufReader::new(reading);
    while let Some((head, body)) = request(&mut reader) {
        seen.heads.lock().expect("servers do not panic").push(head.to_lowercase());
        if !answer(&head, &body, &mut stream) {
            return;
        }
    }
}

fn request(reader: &mut impl BufRead) -> Option<(String, Vec<u8>)> {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if reader.read_line(&mut head).ok()? == 0 {
            return None;
        }
    }
    let lower = head.to_lowercase();
    let length = lower.lines().find_map(|line| line.strip_prefix("content-length:"));
    let mut body = vec![0; length.map_or(0, |text| text.trim().parse().expect("a length"))];
    reader.read_exact(&mut body).ok()?;
    Some((head, body))
}

/// An address that takes no connection and tells nobody: its queue is full, so that the system drops what asks for more. As long as
/// this lives.
#[derive(Debug)]
pub struct Silent {
    listener: TcpListener,
    _queue: Vec<TcpStream>,
}

/// Connections that fit in the shortest queue that a system has, and some more.
const QUEUE_MOST: usize = 8;
/// What nobody has answered by then on the same machine is dropped.
const DROPPED_AFTER: Duration = Duration::from_millis(300);

impl Silent {
    /// Listens with a queue that is full at once.
    #[must_use]
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        // Again, to make the queue short.
        rustix::net::listen(&listener, 0).expect("a listener");
        let address = listener.local_addr().expect("bound");
        let connect = |_| TcpStream::connect_timeout(&address, DROPPED_AFTER).ok();
        let queue: Vec<TcpStream> = (0..QUEUE_MOST).map_while(connect).collect();
        assert!(queue.len() < QUEUE_MOST, "its queue has no end");
        Self { listener, _queue: queue }
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.listener.local_addr().expect("bound")
    }
}

/// Writes a whole response with this body. Whether the connection can go on.
pub fn reply(stream: &mut TcpStream, status: u16, headers: &str, body: &[u8]) -> bool {
    let head = format!("HTTP/1.1 {status} Said\r\n{headers}content-length: {}\r\n\r\n", body.len());
    stream.write_all(&[head.as_bytes(), body].concat()).is_ok()
}
