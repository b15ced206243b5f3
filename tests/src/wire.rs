//! A connection on which a test sends exactly the bytes that it wants.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;

use rustls::{ClientConfig, ClientConnection, StreamOwned};

use crate::{HANG, Reply};

/// A connection to a node: over TCP, or over TLS.
#[derive(Debug)]
pub struct Wire<S = TcpStream> {
    stream: S,
    unread: Vec<u8>,
}

/// TLS over TCP.
pub type Secure = StreamOwned<ClientConnection, TcpStream>;

impl Wire {
    /// Connects.
    #[must_use]
    pub fn connect(address: SocketAddr) -> Self {
        Self { stream: connect(address), unread: Vec::new() }
    }

    /// Says that no more will be sent.
    pub fn end_sending(&mut self) {
        self.stream.shutdown(Shutdown::Write).expect("the node is connected");
    }

    /// Whether nothing has come that was not read, not even the end: what was asked for is still being done.
    #[must_use]
    pub fn is_silent(&self) -> bool {
        if !self.unread.is_empty() {
            return false;
        }
        self.stream.set_nonblocking(true).expect("a TCP option");
        let peeked = self.stream.peek(&mut [0]);
        self.stream.set_nonblocking(false).expect("a TCP option");
        peeked.is_err_and(|error| error.kind() == ErrorKind::WouldBlock)
    }
}

impl Wire<Secure> {
    /// Connects and shakes hands with a node that has a certificate for `localhost`.
    ///
    /// # Errors
    /// When one of both does not like what the other shows.
    pub fn shake(address: SocketAddr, client: Arc<ClientConfig>) -> std::io::Result<Self> {
        let name = "localhost".try_into().expect("a name");
        let mut connection = ClientConnection::new(client, name).expect("a client");
        let mut tcp = connect(address);
        while connection.is_handshaking() {
            connection.complete_io(&mut tcp)?;
        }
        Ok(Self { stream: StreamOwned::new(connection, tcp), unread: Vec::new() })
    }
}

fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).expect("the node listens");
    stream.set_nodelay(true).expect("a TCP option");
    stream.set_read_timeout(Some(HANG)).expect("a TCP option");
    stream.set_write_timeout(Some(HANG)).expect("a TCP option");
    stream
}

impl<S: Read + Write> Wire<S> {
    /// Sends bytes.
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).expect("the node is connected");
    }

    /// Sends as much as the node takes: it may close in the middle.
    pub fn send_some(&mut self, bytes: impl AsRef<[u8]>) {
        let _ = self.stream.write_all(bytes.as_ref());
    }

    /// A `GET` over this connection, which stays open.
    pub fn get(&mut self, host: &str, target: &str) -> Reply {
        self.ask("GET", host, target);
        self.reply()
    }

    /// A `POST` over this connection, which stays open.
    pub fn post(&mut self, host: &str, target: &str, body: impl AsRef<[u8]>) -> Reply {
        let body = body.as_ref();
        self.send(format!(
            "POST {target} HTTP/1.1\r\nhost: {host}\r\ncontent-length: {}\r\n\r\n",
            body.len()
        ));
        self.send(body);
        self.reply()
    }

    /// Sends a request without a body.
    pub fn ask(&mut self, method: &str, host: &str, target: &str) {
        self.send(format!("{method} {target} HTTP/1.1\r\nhost: {host}\r\n\r\n"));
    }

    /// The next response, its body by `content-length`.
    pub fn reply(&mut self) -> Reply {
        let mut reply = self.reply_head();
        let length = reply.header("content-length").map_or(0, |length| length.parse().expect("a number"));
        reply.body = self.take(length);
        reply
    }

    /// The next response without a body: to a HEAD request, or an interim one.
    pub fn reply_head(&mut self) -> Reply {
        let mut from = 0;
        let end = loop {
            if let Some(end) = find(&self.unread[from..], b"\r\n\r\n") {
                break from + end + 4;
            }
            from = self.unread.len().saturating_sub(3);
            assert!(self.fill(), "closed before a response; got {:?}", String::from_utf8_lossy(&self.unread));
        };
        read_head(&String::from_utf8_lossy(&self.take(end)))
    }

    /// All bytes until the node closes, however it closes.
    pub fn rest(&mut self) -> Vec<u8> {
        while self.fill() {}
        std::mem::take(&mut self.unread)
    }

    /// Reads until these bytes have come; `false` if the node closes before.
    pub fn rest_until(&mut self, wanted: &[u8]) -> bool {
        while find(&self.unread, wanted).is_none() {
            if !self.fill() {
                return false;
            }
        }
        self.unread.clear();
        true
    }

    /// Fails unless the node closes without another byte.
    pub fn expect_close(&mut self) {
        let rest = self.rest();
        assert!(rest.is_empty(), "unexpected bytes: {:?}", String::from_utf8_lossy(&rest));
    }

    fn take(&mut self, count: usize) -> Vec<u8> {
        while self.unread.len() < count {
            assert!(self.fill(), "closed {} bytes too early", count - self.unread.len());
        }
        let rest = self.unread.split_off(count);
        std::mem::replace(&mut self.unread, rest)
    }

    /// Reads more; `false` at the end. A node that says nothing for too long fails the test.
    fn fill(&mut self) -> bool {
        let mut bytes = vec![0; 64 * 1024];
        match self.stream.read(&mut bytes) {
            Ok(count @ 1..) => {
                self.unread.extend_from_slice(&bytes[..count]);
                true
            }
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                panic!("the node hangs; got {:?}", String::from_utf8_lossy(&self.unread))
            }
            Ok(0) | Err(_) => false,
        }
    }
}

fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes.windows(wanted.len()).position(|window| window == wanted)
}

fn read_head(head: &str) -> Reply {
    let mut lines = head.lines();
    let first = lines.next().unwrap_or_default();
    // A client of 1.0 is answered in 1.0.
    let rest = first.strip_prefix("HTTP/1.1 ").or_else(|| first.strip_prefix("HTTP/1.0 "));
    let status = rest.and_then(|rest| rest.get(..3)).and_then(|code| code.parse().ok());
    let status = status.unwrap_or_else(|| panic!("no status line: {first:?}"));
    // The space is usual, and not all servers write it.
    let header =
        |line: &str| line.split_once(':').map(|(name, value)| (name.to_lowercase(), value.trim().to_owned()));
    Reply { status, headers: lines.filter_map(header).collect(), body: Vec::new() }
}
