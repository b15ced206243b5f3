//! Steady load, and what became of each request.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use cellmesh_tests::HANG;

/// Small requests in a second, open loop: a request is due at its time, however long those before it took.
const RATE: u32 = 2000;
/// Clients that send them in turn, one connection each.
const CLIENTS: u32 = 64;

/// The time between two requests of a client.
const EVERY: Duration = Duration::from_micros(1_000_000 * CLIENTS as u64 / RATE as u64);

/// One client with large requests sends one so often.
const LARGE_EVERY: Duration = Duration::from_millis(200);
const LARGE_BYTES: usize = 16 << 20;

/// What became of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The right answer.
    Right,
    /// An answer, but not the right one.
    Wrong(String),
    /// An error of the mesh or of a cell.
    Error(u16, String),
    /// The connection ended or could not be made.
    Cut,
    /// Nothing came for far longer than a request may take.
    Hung,
}

/// A request that has ended.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    pub(crate) started: Instant,
    pub(crate) ended: Instant,
    pub(crate) outcome: Outcome,
}

/// Clients that go on until they are stopped.
pub(crate) struct Load {
    shared: Arc<Shared>,
    clients: Vec<JoinHandle<()>>,
}

struct Shared {
    address: SocketAddr,
    stop: AtomicBool,
    numbers: AtomicU64,
    requests: Mutex<Vec<Request>>,
}

impl Load {
    pub(crate) fn start(address: SocketAddr) -> Self {
        let shared = Arc::new(Shared {
            address,
            stop: AtomicBool::new(false),
            numbers: AtomicU64::new(0),
            requests: Mutex::default(),
        });
        let start = Instant::now();
        let mut clients: Vec<_> =
            (0..CLIENTS).map(|n| client(&shared, start + n * EVERY / CLIENTS, EVERY, ask_offer)).collect();
        clients.push(client(&shared, start, LARGE_EVERY, ask_echo));
        Self { shared, clients }
    }

    /// One more request, now.
    pub(crate) fn probe(&self) -> Outcome {
        ask_offer(&mut None, &self.shared)
    }

    /// The same with a large body.
    pub(crate) fn probe_large(&self) -> Outcome {
        ask_echo(&mut None, &self.shared)
    }

    /// Lets the clients finish; all that was asked.
    pub(crate) fn stop(self) -> Vec<Request> {
        self.shared.stop.store(true, Ordering::Relaxed);
        for client in self.clients {
            client.join().expect("clients do not panic");
        }
        std::mem::take(&mut self.shared.requests.lock().expect("clients do not panic"))
    }
}

/// Asks at `due` and so often from then on; one that comes too late for a time catches up.
fn client(
    shared: &Arc<Shared>,
    mut due: Instant,
    every: Duration,
    ask: fn(&mut Option<TcpStream>, &Shared) -> Outcome,
) -> JoinHandle<()> {
    let shared = Arc::clone(shared);
    std::thread::spawn(move || {
        let mut kept = None;
        while !shared.stop.load(Ordering::Relaxed) {
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            due += every;
            let started = Instant::now();
            let outcome = ask(&mut kept, &shared);
            let request = Request { started, ended: Instant::now(), outcome };
            shared.requests.lock().expect("clients do not panic").push(request);
        }
    })
}

/// A small request with a number of its own, which comes back in the answer.
fn ask_offer(kept: &mut Option<TcpStream>, shared: &Shared) -> Outcome {
    let number = shared.numbers.fetch_add(1, Ordering::Relaxed);
    let request = format!("GET /?item={number} HTTP/1.1\r\nhost: offers\r\n\r\n");
    let expected = format!(r#"{{"wanted":"item={number}","price":"7","stock":"3","delivery":"tomorrow"}}"#);
    exchange(kept, shared.address, request.as_bytes(), expected.as_bytes())
}

/// A large body, there and back.
fn ask_echo(kept: &mut Option<TcpStream>, shared: &Shared) -> Outcome {
    let number = shared.numbers.fetch_add(1, Ordering::Relaxed);
    let head = format!("POST /echo HTTP/1.1\r\nhost: echo\r\ncontent-length: {LARGE_BYTES}\r\n\r\n");
    let body = number.to_le_bytes().repeat(LARGE_BYTES / size_of_val(&number));
    exchange(kept, shared.address, &[head.as_bytes(), &body].concat(), &body)
}

/// Sends, and reads one answer. The connection is kept only after a right one.
fn exchange(kept: &mut Option<TcpStream>, address: SocketAddr, request: &[u8], expected: &[u8]) -> Outcome {
    let Some(mut stream) = kept.take().or_else(|| connect(address)) else { return Outcome::Cut };
    if stream.write_all(request).is_err() {
        return Outcome::Cut;
    }
    let outcome = read_answer(&mut stream, expected);
    if outcome == Outcome::Right {
        *kept = Some(stream);
    }
    outcome
}

fn connect(address: SocketAddr) -> Option<TcpStream> {
    let stream = TcpStream::connect(address).ok()?;
    stream.set_nodelay(true).ok()?;
    stream.set_read_timeout(Some(HANG)).ok()?;
    stream.set_write_timeout(Some(HANG)).ok()?;
    Some(stream)
}

fn read_answer(stream: &mut TcpStream, expected: &[u8]) -> Outcome {
    let mut bytes = Vec::new();
    let mut piece = vec![0; 256 * 1024];
    loop {
        if let Some((status, code, head, length)) = read_head(&bytes)
            && bytes.len() >= head + length
        {
            let body = &bytes[head..head + length];
            return match status {
                200 if body == expected => Outcome::Right,
                200 => Outcome::Wrong(shown(body)),
                _ => Outcome::Error(status, if code.is_empty() { shown(body) } else { code }),
            };
        }
        match stream.read(&mut piece) {
            Ok(0) => return Outcome::Cut,
            Ok(count) => bytes.extend_from_slice(&piece[..count]),
            Err(error)
                if matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut) =>
            {
                return Outcome::Hung;
            }
            Err(_) => return Outcome::Cut,
        }
    }
}

/// Status, `x-cellmesh-error`, length of the head, length of the body.
fn read_head(bytes: &[u8]) -> Option<(u16, String, usize, usize)> {
    let end = bytes.windows(4).take(16 * 1024).position(|window| window == b"\r\n\r\n")?;
    let head = String::from_utf8_lossy(&bytes[..end]).to_lowercase();
    let status = head.get(9..12)?.parse().ok()?;
    let header = |name: &str| head.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
    let length = header("content-length:").and_then(|length| length.parse().ok()).unwrap_or(0);
    Some((status, header("x-cellmesh-error:").unwrap_or_default().to_owned(), end + 4, length))
}

fn shown(body: &[u8]) -> String {
    String::from_utf8_lossy(&body[..body.len().min(200)]).into_owned()
}
