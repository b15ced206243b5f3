//! A client's socket, with the patience that we have for it.
//!
//! ```text
//! reading a head, first byte seen      header_read_timeout from that byte   cut
//! nothing in flight, nothing begun     keep_alive_idle_timeout              closed, as if by the client
//! reading a body                       (the body's reader has its own limit)
//! client takes none of our bytes       write_idle_timeout                   cut
//! after our last byte                  linger_timeout                       closed
//! ```
//!
//! - Bytes that were read ahead, to tell protocols apart or to see a client leave, are given out first.
//! - hyper looks for the end of a connection only when it has no bytes left to parse. So while a request is in flight
//!   [`Departure`] reads what the client pipelines behind it, up to a bound, and finds the end behind that.
//! - Lingering: closing a socket with unread bytes in it makes the kernel send a reset, which can destroy
//!   an answer (413, 400) that the client has not read yet. So after our end is shut, what a client is
//!   still sending is read and ignored for a short while.
//! - cost: no timer is touched while requests flow; one clock read per request.

use std::cell::{Cell, RefCell};
use std::io;
use std::mem::MaybeUninit;
use std::net::IpAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::task::coop::unconstrained;
use tokio::time::{Instant, Sleep};

use super::framing::Framing;
use super::stream::Stream;
use crate::config::DpuConfig;
use crate::forward::Peer;

/// What a connection's socket and its requests know of each other.
#[derive(Debug, Default)]
pub(crate) struct Standing {
    /// Requests begun and not answered.
    in_flight: Cell<u32>,
    /// Requests begun, ever; to see that there was one since the last look.
    begun: Cell<u64>,
    /// A request was read whose end can be seen in two places.
    ambiguous: Cell<bool>,
    /// The connection was there before a drain.
    in_time: Cell<bool>,
    /// A head did not come in time.
    head_slow: Cell<bool>,
    /// Who is at the other end.
    peer: Peer,
}

impl Standing {
    /// Counts a request until the result is dropped.
    pub(crate) fn begin(self: &Rc<Self>) -> InFlight {
        self.in_flight.set(self.in_flight.get() + 1);
        self.begun.set(self.begun.get() + 1);
        InFlight(Rc::clone(self))
    }

    pub(crate) fn peer(&self) -> &Peer {
        &self.peer
    }

    pub(crate) fn set_in_time(&self, is_in_time: bool) {
        self.in_time.set(is_in_time);
    }

    /// Whether the connection was there before a drain.
    pub(crate) fn is_in_time(&self) -> bool {
        self.in_time.get()
    }

    pub(crate) fn is_ambiguous(&self) -> bool {
        self.ambiguous.get()
    }

    pub(crate) fn is_head_slow(&self) -> bool {
        self.head_slow.get()
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.in_flight.get() == 0
    }

    pub(crate) fn begun(&self) -> u64 {
        self.begun.get()
    }
}

/// One request of a connection.
pub(crate) struct InFlight(Rc<Standing>);

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.in_flight.set(self.0.in_flight.get() - 1);
    }
}

/// Bytes that a client may send behind a request in flight and still be noticed when it leaves.
const AHEAD_BYTES_MAX: usize = 16 * 1024;

/// A client's socket.
#[derive(Debug)]
pub(crate) struct ClientIo {
    socket: Rc<RefCell<Socket>>,
    standing: Rc<Standing>,
    /// `None` until the connection is known to speak HTTP/1: then reads have no limit here.
    framing: Option<Framing>,
    head_since: Option<Instant>,
    idle_since: Option<Instant>,
    read_timer: Patience,
    write_timer: Patience,
    stalled_since: Option<Instant>,
    linger_until: Option<Instant>,
    /// The client will send nothing more, or we no longer care.
    read_ended: bool,
    limits: Limits,
}

/// The socket itself, which [`Departure`] looks at too.
#[derive(Debug)]
struct Socket {
    stream: Stream,
    /// Read ahead; given out first.
    early: BytesMut,
}

impl Socket {
    fn poll_fill(&mut self, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.early.is_empty() {
            return Pin::new(&mut self.stream).poll_read(cx, into);
        }
        let taken = self.early.len().min(into.remaining());
        into.put_slice(&self.early[..taken]);
        self.early.advance(taken);
        if self.early.is_empty() {
            self.early = BytesMut::new();
        }
        Poll::Ready(Ok(()))
    }

    /// Reads ahead until nothing is there, the bound is reached, or the client has ended.
    fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        while self.early.len() < AHEAD_BYTES_MAX {
            let mut buffer = [const { MaybeUninit::uninit() }; 1024];
            let mut into = ReadBuf::uninit(&mut buffer);
            let read = ready!(Pin::new(&mut self.stream).poll_read(cx, &mut into));
            if read.is_err() || into.filled().is_empty() {
                return Poll::Ready(());
            }
            self.early.extend_from_slice(into.filled());
        }
        Poll::Pending
    }
}

/// Notices that a client leaves while a request of its is in flight.
#[derive(Debug)]
pub(crate) struct Departure {
    socket: Rc<RefCell<Socket>>,
    standing: Rc<Standing>,
}

impl Departure {
    /// Ready when the client has left and a request of its is in flight. Poll after whoever reads the connection.
    ///
    /// - cost: nothing while that one waits for bytes itself: the socket is known to have none.
    pub(crate) fn poll(&self, cx: &mut Context<'_>) -> Poll<()> {
        if self.standing.is_idle() {
            return Poll::Pending;
        }
        self.socket.borrow_mut().poll_end(cx)
    }
}

#[derive(Debug, Clone, Copy)]
struct Limits {
    header_read: Duration,
    keep_alive_idle: Duration,
    write_idle: Duration,
    linger: Duration,
}

impl ClientIo {
    pub(super) fn new(stream: Stream, client: IpAddr, config: &DpuConfig) -> Self {
        let peer = stream.peer(client);
        Self {
            socket: Rc::new(RefCell::new(Socket { stream, early: BytesMut::new() })),
            standing: Rc::new(Standing { peer, ..Standing::default() }),
            framing: None,
            head_since: None,
            idle_since: None,
            read_timer: Patience::default(),
            write_timer: Patience::default(),
            stalled_since: None,
            linger_until: None,
            read_ended: false,
            limits: Limits {
                header_read: config.header_read_timeout.0,
                keep_alive_idle: config.keep_alive_idle_timeout.0,
                write_idle: config.write_idle_timeout.0,
                linger: config.linger_timeout.0,
            },
        }
    }

    /// What the connection's requests share with its socket.
    pub(crate) fn standing(&self) -> Rc<Standing> {
        Rc::clone(&self.standing)
    }

    /// What notices that the client leaves.
    pub(crate) fn departure(&self) -> Departure {
        Departure { socket: Rc::clone(&self.socket), standing: self.standing() }
    }

    /// From here on the bytes are HTTP/1: heads have a time limit, and framing is watched.
    pub(crate) fn expect_http1(&mut self) {
        self.framing = Some(Framing::new());
    }

    /// Puts bytes back that were read from this socket.
    pub(crate) fn put_back(&mut self, bytes: BytesMut) {
        self.socket.borrow_mut().early = bytes;
    }

    /// Reads what is there without waiting; no bytes if nothing is.
    /// # Errors
    /// If the client has ended.
    pub(crate) fn read_now(&mut self, into: &mut BytesMut) -> io::Result<()> {
        let socket = &mut *self.socket.borrow_mut();
        into.extend_from_slice(&std::mem::take(&mut socket.early));
        match socket.stream.read_now(into) {
            Ok(0) => {
                self.read_ended = true;
                Err(io::ErrorKind::UnexpectedEof.into())
            }
            Ok(_) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn on_read(&mut self, fresh: &[u8]) {
        self.read_ended |= fresh.is_empty();
        self.idle_since = None;
        let Some(framing) = &mut self.framing else { return };
        framing.feed(fresh);
        if framing.is_ambiguous() {
            self.standing.ambiguous.set(true);
        }
        if !framing.is_inside_head() {
            self.head_since = None;
        } else if self.head_since.is_none() {
            self.head_since = Some(Instant::now());
        }
    }

    /// Nothing to read: how long may that last?
    fn poll_patience(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.framing.is_none() || !self.standing.is_idle() {
            return Poll::Pending;
        }
        if let Some(since) = self.head_since {
            ready!(self.read_timer.poll(cx, since + self.limits.header_read));
            self.standing.head_slow.set(true);
            self.read_ended = true;
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        let since = *self.idle_since.get_or_insert_with(Instant::now);
        ready!(self.read_timer.poll(cx, since + self.limits.keep_alive_idle));
        self.read_ended = true;
        Poll::Ready(Ok(()))
    }

    /// Keeps the clock of a write: bytes went out, or none could.
    fn after_write<T>(&mut self, cx: &mut Context<'_>, wrote: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if wrote.is_ready() {
            self.stalled_since = None;
            return wrote;
        }
        if self.socket.borrow_mut().stream.has_let_out() {
            self.stalled_since = None;
        }
        let since = *self.stalled_since.get_or_insert_with(Instant::now);
        ready!(self.write_timer.poll(cx, since + self.limits.write_idle));
        self.read_ended = true;
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }

    /// Reads and ignores until the client ends, falls silent where it owes us nothing, or time is up.
    fn poll_linger(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let early = std::mem::take(&mut self.socket.borrow_mut().early);
        if let Some(framing) = &mut self.framing {
            framing.feed(&early); // of a request that nobody will read
        }
        let owes = self.framing.as_ref().is_some_and(|framing| !framing.is_at_rest());
        let mut waste = [0; 4096];
        while !self.read_ended {
            let mut into = ReadBuf::new(&mut waste);
            let read = Pin::new(&mut self.socket.borrow_mut().stream).poll_read(cx, &mut into);
            match read {
                Poll::Ready(read) => {
                    self.read_ended = read.is_err() || into.filled().is_empty();
                    self.linger_until.get_or_insert_with(|| Instant::now() + self.limits.linger);
                }
                Poll::Pending if !owes && self.linger_until.is_none() => return Poll::Ready(()),
                Poll::Pending => {
                    let until = *self.linger_until.get_or_insert_with(|| Instant::now() + self.limits.linger);
                    return self.read_timer.poll(cx, until);
                }
            }
            if self.linger_until.is_some_and(|until| Instant::now() >= until) {
                return Poll::Ready(());
            }
        }
        Poll::Ready(())
    }
}

impl AsyncRead for ClientIo {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = into.filled().len();
        let filled = this.socket.borrow_mut().poll_fill(cx, into);
        match filled {
            Poll::Pending => this.poll_patience(cx),
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Ready(Ok(())) => {
                this.on_read(&into.filled()[before..]);
                Poll::Ready(Ok(()))
            }
        }
    }
}

impl AsyncWrite for ClientIo {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let wrote = Pin::new(&mut this.socket.borrow_mut().stream).poll_write(cx, bytes);
        this.after_write(cx, wrote)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let mut room = [const { MaybeUninit::uninit() }; JOINED_BYTES_MAX];
        let mut joined = ReadBuf::uninit(&mut room);
        let is_joined = join(slices, &mut joined);
        let mut socket = this.socket.borrow_mut();
        let stream = Pin::new(&mut socket.stream);
        let wrote = if is_joined {
            stream.poll_write(cx, joined.filled())
        } else {
            stream.poll_write_vectored(cx, slices)
        };
        drop(socket);
        this.after_write(cx, wrote)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.borrow().stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let flushed = Pin::new(&mut this.socket.borrow_mut().stream).poll_flush(cx);
        this.after_write(cx, flushed)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let shut = Pin::new(&mut this.socket.borrow_mut().stream).poll_shutdown(cx);
        ready!(this.after_write(cx, shut))?;
        ready!(this.poll_linger(cx));
        Poll::Ready(Ok(()))
    }
}

/// Most bytes of a head and a body that are copied behind each other: to hand the kernel two places costs more.
const JOINED_BYTES_MAX: usize = 1024;

/// Writes all of `slices` behind each other, if they fit.
fn join(slices: &[io::IoSlice<'_>], into: &mut ReadBuf<'_>) -> bool {
    let fits = slices.iter().map(|slice| slice.len()).sum::<usize>() <= into.remaining();
    if fits {
        slices.iter().for_each(|slice| into.put_slice(slice));
    }
    fits
}

/// A timer that is set rarely: it may be armed for an earlier instant than the one that counts, and
/// looks again when that has come. Only the task of its connection polls it.
#[derive(Debug, Default)]
struct Patience {
    /// Polled before: it wakes the task when its instant has come.
    sleep: Option<Pin<Box<Sleep>>>,
}

impl Patience {
    /// Ready once `until` has come.
    fn poll(&mut self, cx: &mut Context<'_>, until: Instant) -> Poll<()> {
        if self.sleep.as_ref().is_some_and(|sleep| !sleep.is_elapsed() && sleep.deadline() <= until) {
            return Poll::Pending;
        }
        // Whatever the task has left of its turn: a timer that was not polled in earnest would never wake it.
        let mut poll = |sleep: Pin<&mut Sleep>| Pin::new(&mut unconstrained(sleep)).poll(cx);
        let sleep = self.sleep.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(until)));
        if sleep.deadline() > until {
            sleep.as_mut().reset(until);
        }
        ready!(poll(sleep.as_mut()));
        if sleep.deadline() < until {
            sleep.as_mut().reset(until);
            ready!(poll(sleep.as_mut()));
        }
        Poll::Ready(())
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::sync::Arc;

    use rustls::{ClientConfig, RootCertStore, ServerConfig};
    use tokio::io::AsyncWriteExt;
    use tokio::net::{TcpSocket, TcpStream};
    use tokio_rustls::client::TlsStream;
    use tokio_rustls::{TlsAcceptor, TlsConnector};

    use super::super::stream::Metered;
    use super::*;
    use crate::units::TimeSpan;

    /// Longer than anything here takes; only a hang gets there.
    const HANG: Duration = Duration::from_secs(20);
    /// As little as the system lets a socket hold.
    const LEAST: u32 = 1;

    /// A connection over TLS whose sockets hold little, and its client.
    async fn shaken() -> (Stream, TlsStream<TcpStream>) {
        let listening = TcpSocket::new_v4().expect("a socket");
        listening.set_send_buffer_size(LEAST).expect("a TCP option");
        listening.bind("127.0.0.1:0".parse().expect("an address")).expect("a free port");
        let listener = listening.listen(1).expect("a listener");
        let client = TcpSocket::new_v4().expect("a socket");
        client.set_recv_buffer_size(LEAST).expect("a TCP option");
        let client = client.connect(listener.local_addr().expect("bound")).await.expect("listening");
        let (server, _) = listener.accept().await.expect("a client");

        let made = rcgen::generate_simple_self_signed(vec!["node".to_owned()]).expect("a certificate");
        let key = made.signing_key.serialize_der().try_into().expect("a key");
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ServerConfig::builder_with_provider(Arc::clone(&provider));
        let config = config.with_safe_default_protocol_versions().expect("suites").with_no_client_auth();
        let config = config.with_single_cert(vec![made.cert.der().clone()], key).expect("a pair");
        let mut roots = RootCertStore::empty();
        roots.add(made.cert.der().clone()).expect("a certificate");
        let believing = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let believing = believing.expect("suites").with_root_certificates(roots).with_no_client_auth();
        let name = "node".try_into().expect("a name");
        let (server, client) = tokio::join!(
            TlsAcceptor::from(Arc::new(config)).accept(Metered::new(server)),
            TlsConnector::from(Arc::new(believing)).connect(name, client),
        );
        (Stream::Tls(Box::new(server.expect("a handshake"))), client.expect("a handshake"))
    }

    /// A timer that is first asked when its task has had its turn rings all the same.
    #[test]
    fn timer_rings_whenever_it_was_asked_first() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let until = Instant::now() + Duration::from_millis(50);
            let mut patience = Patience::default();
            let waited = poll_fn(|cx| {
                while tokio::task::coop::has_budget_remaining() {
                    let _spent = std::pin::pin!(tokio::task::coop::consume_budget()).poll(cx);
                }
                patience.poll(cx, until)
            });
            tokio::time::timeout(HANG, waited).await.expect("it never rings");
        });
    }

    /// TLS takes bytes that the client does not take, and holds them back: who waits for them in a flush or at the end
    /// waits no longer than for others.
    #[test]
    fn bytes_that_are_held_back_have_a_time() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let config = DpuConfig { write_idle_timeout: TimeSpan::millis(50), ..DpuConfig::default() };
            for at_the_end in [false, true] {
                let (stream, _client) = shaken().await;
                let mut io = ClientIo::new(stream, IpAddr::from([127, 0, 0, 1]), &config);
                // Less than rustls holds, more than the sockets do.
                io.write_all(&[0; 60_000]).await.expect("TLS takes it");
                let ending = async { if at_the_end { io.shutdown().await } else { io.flush().await } };
                let ended = tokio::time::timeout(HANG, ending).await.expect("hangs");
                assert_eq!(ended.map_err(|error| error.kind()), Err(io::ErrorKind::TimedOut));
            }
        });
    }
}
