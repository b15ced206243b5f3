//! One request after the other, each on what its protocol takes for a connection.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::{http1, http2};
use hyper::rt::Executor;
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use super::Protocol;
use super::pacer::Due;
use super::tally::{Ended, Tally};
use super::target::Target;

/// Streams of one HTTP/2 connection. Source: what servers allow by default.
const STREAMS_PER_CONNECTION: usize = 100;

/// Connections that a thread makes at once: a server's backlog is short (128 and less), and does not answer when it is full.
const CONNECTING_MAX: usize = 64;

/// Longest answer of the bridge, which is kept to be read: a body of 16 MiB, the longest of a cell, and its head.
const ANSWER_BYTES_MAX: u64 = (16 << 20) + (64 << 10);

/// What the server's statuses can be. Source: RFC 9110, 15; larger ones are seen in practice.
const STATUSES: std::ops::RangeInclusive<u16> = 100..=999;

/// One request in flight at a time.
pub(super) struct Client {
    target: Arc<Target>,
    way: Way,
}

enum Way {
    /// Keep-alive; made anew when it breaks.
    Http1(Option<http1::SendRequest<Full<Bytes>>>),
    /// Streams share a connection, which is made anew by whoever finds it broken.
    Http2(Rc<RefCell<Option<http2::SendRequest<Full<Bytes>>>>>),
    /// One connection for each request.
    Bridge,
}

impl Client {
    /// As many as are asked for, connected; each connection within `patience`.
    ///
    /// # Errors
    /// If one of them cannot be.
    pub(super) async fn connect(target: &Arc<Target>, count: usize, patience: Duration) -> Result<Vec<Self>> {
        let ways = match target.protocol {
            Protocol::Http1 => {
                let senders = connections(count, patience, target, || http1(target)).await?;
                senders.into_iter().map(|sender| Way::Http1(Some(sender))).collect()
            }
            Protocol::Http2 => {
                let needed = count.div_ceil(STREAMS_PER_CONNECTION);
                let senders = connections(needed, patience, target, || http2(target)).await?;
                let shared: Vec<_> =
                    senders.into_iter().map(|sender| Rc::new(RefCell::new(Some(sender)))).collect();
                (0..count)
                    .map(|index| Way::Http2(Rc::clone(&shared[index / STREAMS_PER_CONNECTION])))
                    .collect()
            }
            Protocol::Bridge => {
                // Only to learn at once that nobody is there.
                connections(1, patience, target, || target.connect()).await?;
                (0..count).map(|_| Way::Bridge).collect::<Vec<_>>()
            }
        };
        Ok(ways.into_iter().map(|way| Self { target: Arc::clone(target), way }).collect())
    }

    /// Sends what is due until nothing is any more. `patience` is for each request: once from when it was due to when it is
    /// sent, and once from there to the end of its answer. `start`: that of the schedule.
    pub(super) async fn run(
        mut self,
        due: Arc<Due>,
        tally: Arc<Mutex<Tally>>,
        start: Instant,
        patience: Duration,
    ) {
        while let Some(intended) = due.next().await {
            let ended = if intended.elapsed() > patience { Ended::Timeout } else { self.ask(patience).await };
            let now = Instant::now();
            let (latency, at) = (now.duration_since(intended), now.saturating_duration_since(start));
            tally.lock().unwrap_or_else(PoisonError::into_inner).count(ended, latency, at);
        }
    }

    /// Asks once.
    async fn ask(&mut self, patience: Duration) -> Ended {
        let ended = match timeout(patience, self.exchange()).await {
            Ok(Ok(status)) => return Ended::Status(status),
            Ok(Err(why)) => Ended::Connection(format!("{why:#}")),
            Err(_) => Ended::Timeout,
        };
        self.give_up_connection();
        ended
    }

    /// The status of the answer.
    async fn exchange(&mut self) -> Result<u16> {
        match &mut self.way {
            Way::Http1(kept) => {
                let mut sender = match kept.take() {
                    Some(sender) if !sender.is_closed() => sender,
                    Some(_) | None => http1(&self.target).await?,
                };
                sender.ready().await?;
                let status = answer(sender.send_request(self.target.request()).await?).await?;
                *kept = Some(sender);
                Ok(status)
            }
            Way::Http2(shared) => {
                let open = shared.borrow().as_ref().filter(|sender| !sender.is_closed()).cloned();
                let mut sender = match open {
                    Some(sender) => sender,
                    None => {
                        let sender = http2(&self.target).await?;
                        *shared.borrow_mut() = Some(sender.clone());
                        sender
                    }
                };
                sender.ready().await?;
                answer(sender.send_request(self.target.request()).await?).await
            }
            Way::Bridge => bridge(&self.target).await,
        }
    }

    /// An answer that comes too late must not be taken for the next one's.
    fn give_up_connection(&mut self) {
        if let Way::Http1(kept) = &mut self.way {
            *kept = None;
        }
    }
}

/// Makes so many connections, some at once.
async fn connections<T, F>(
    count: usize,
    patience: Duration,
    target: &Target,
    connect: impl Fn() -> F,
) -> Result<Vec<T>>
where
    F: Future<Output = Result<T>>,
{
    let connect = |_| {
        let connecting = timeout(patience, connect());
        async move {
            connecting.await.unwrap_or_else(|_| {
                bail!("cannot connect to {}: no answer within --timeout ({patience:?})", target.address())
            })
        }
    };
    stream::iter((0..count).map(connect)).buffer_unordered(CONNECTING_MAX).try_collect().await
}

/// Reads the body to its end and keeps nothing of it.
async fn answer(response: http::Response<hyper::body::Incoming>) -> Result<u16> {
    let status = response.status().as_u16();
    let mut body = response.into_body();
    while let Some(frame) = body.frame().await {
        frame?;
    }
    Ok(status)
}

async fn http1(target: &Target) -> Result<http1::SendRequest<Full<Bytes>>> {
    let (sender, connection) = http1::handshake(TokioIo::new(target.connect().await?)).await?;
    // How it ends is seen by who sends on it.
    tokio::task::spawn_local(async move { drop(connection.await) });
    Ok(sender)
}

async fn http2(target: &Target) -> Result<http2::SendRequest<Full<Bytes>>> {
    let (sender, connection) = http2::handshake(OnLane, TokioIo::new(target.connect().await?)).await?;
    tokio::task::spawn_local(async move { drop(connection.await) });
    Ok(sender)
}

async fn bridge(target: &Target) -> Result<u16> {
    let mut stream = target.connect().await?;
    stream.write_all(target.object.as_bytes()).await?;
    bridge_answer(stream, ANSWER_BYTES_MAX).await
}

/// The bridge's own status is inside its object.
#[derive(Deserialize)]
struct BridgeAnswer {
    status: u16,
}

async fn bridge_answer(from: impl AsyncRead + Unpin, bytes_max: u64) -> Result<u16> {
    let mut text = Vec::new();
    from.take(bytes_max + 1).read_to_end(&mut text).await?;
    if text.len() as u64 > bytes_max {
        bail!("the bridge's answer has more than {bytes_max} bytes");
    }
    let BridgeAnswer { status } = serde_json::from_slice(&text).context("cannot read the bridge's answer")?;
    if !STATUSES.contains(&status) {
        bail!("the bridge's answer has status {status}: must be from 100 to 999");
    }
    Ok(status)
}

/// Runs hyper's streams on this thread.
#[derive(Clone, Copy)]
struct OnLane;

impl<F: Future<Output = ()> + 'static> Executor<F> for OnLane {
    fn execute(&self, stream: F) {
        tokio::task::spawn_local(stream);
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use tokio::net::{TcpListener, TcpSocket};
    use tokio::task::LocalSet;

    use super::*;
    use crate::load::pacer::{Pacer, Schedule};
    use crate::load::target::tests::target_at;

    const PROTOCOLS: [&str; 3] = ["http1", "http2", "bridge"];

    async fn refused(address: SocketAddr, protocol: &str, count: usize) -> String {
        let target = Arc::new(target_at(address, protocol));
        let connecting = Client::connect(&target, count, Duration::from_millis(200));
        let connected = LocalSet::new().run_until(connecting).await;
        format!("{:#}", connected.err().expect("nobody is there"))
    }

    /// Where nobody listens nothing is sent at all, whatever the protocol.
    #[tokio::test]
    async fn closed_port_is_an_error_at_once() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("bound");
        drop(listener);
        for protocol in PROTOCOLS {
            let why = refused(address, protocol, 4).await;
            assert!(why.contains(&format!("cannot connect to {address}: Connection refused")), "{why}");
        }
    }

    /// A server that lets connections wait is given up, and named.
    #[tokio::test]
    async fn connecting_is_bounded() {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.bind(([127, 0, 0, 1], 0).into()).expect("a free port");
        let never_accepts = socket.listen(1).expect("a listener");
        let address = never_accepts.local_addr().expect("bound");
        let why = refused(address, "http1", 16).await;
        assert_eq!(why, format!("cannot connect to {address}: no answer within --timeout (200ms)"));
    }

    /// What could not be sent in its time is a timeout and is not sent any more; what has waited less is sent.
    #[tokio::test]
    async fn late_requests_are_not_sent() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let target = Arc::new(target_at(listener.local_addr().expect("bound"), "bridge"));
        drop(listener);
        let five_due_ago = async |ago: Duration| {
            let start = Instant::now().checked_sub(ago).expect("a machine that has run for a minute");
            let pacer = Pacer::start(Schedule::new(start, 5.0, Duration::from_secs(1))).expect("a thread");
            let tally = Arc::new(Mutex::new(Tally::new(5.0, Duration::from_secs(1))));
            let client = Client { target: Arc::clone(&target), way: Way::Bridge };
            client.run(pacer.due(), Arc::clone(&tally), start, Duration::from_secs(30)).await;
            let tally = tally.lock().expect("no panic");
            (tally.timeouts, tally.connection_errors)
        };
        assert_eq!(five_due_ago(Duration::from_secs(40)).await, (5, 0));
        assert_eq!(five_due_ago(Duration::from_secs(2)).await, (0, 5));
    }

    /// What the bridge says is read as far as it may be long, and what is none of its answers is told.
    #[tokio::test]
    async fn bridge_answers_are_checked() {
        let read =
            async |text: &str| bridge_answer(text.as_bytes(), 30).await.map_err(|why| format!("{why:#}"));
        assert_eq!(read(r#"{"req_id":"1","status":404}"#).await, Ok(404));
        let wrong = async |text: &str| read(text).await.expect_err("no answer");
        assert_eq!(wrong(&"x".repeat(31)).await, "the bridge's answer has more than 30 bytes");
        assert!(wrong("HTTP/1.1 400 Bad").await.starts_with("cannot read the bridge's answer: expected"));
        assert!(wrong("{}").await.contains("missing field `status`"));
        assert!(wrong(r#"{"status":7}"#).await.contains("status 7: must be from 100 to 999"));
    }
}
