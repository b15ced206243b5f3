//! An HTTP/2 client on a thread of its own: over cleartext with prior knowledge, or over TLS.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use http::{Method, Request};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http2::{SendRequest, handshake};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::ClientConfig;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;

use crate::{HANG, Reply};

/// One HTTP/2 connection.
#[derive(Debug)]
pub struct H2 {
    runtime: Handle,
    sender: SendRequest<Full<Bytes>>,
    /// The thread ends when this is dropped.
    _stop: oneshot::Sender<()>,
}

/// A response that may not be there yet.
#[derive(Debug)]
pub struct Stream(JoinHandle<Result<Reply, hyper::Error>>);

impl H2 {
    /// Connects and shakes hands.
    #[must_use]
    pub fn connect(address: SocketAddr) -> Self {
        Self::over(async move { TcpStream::connect(address).await.expect("the node listens") })
    }

    /// Connects and shakes hands with a node that has a certificate for `localhost` and agrees to HTTP/2.
    #[must_use]
    pub fn shake(address: SocketAddr, client: Arc<ClientConfig>) -> Self {
        Self::over(async move {
            let tcp = TcpStream::connect(address).await.expect("the node listens");
            let name = "localhost".try_into().expect("a name");
            let stream = TlsConnector::from(client).connect(name, tcp).await.expect("good certificates");
            assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
            stream
        })
    }

    fn over<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(connected: impl Future<Output = S>) -> Self {
        let (runtime, stop) = start_runtime();
        let sender = runtime.block_on(async {
            let stream = connected.await;
            let (sender, connection) =
                handshake(TokioExecutor::new(), TokioIo::new(stream)).await.expect("the node speaks HTTP/2");
            tokio::spawn(connection);
            sender
        });
        Self { runtime, sender, _stop: stop }
    }

    /// Begins a request to `service`; its answer is waited for later.
    #[must_use]
    pub fn start(&self, method: Method, service: &str, target: &str, body: impl Into<Bytes>) -> Stream {
        let request = Request::builder().method(method).uri(format!("http://{service}{target}"));
        let request = request.body(Full::new(body.into())).expect("a request");
        let mut sender = self.sender.clone();
        Stream(self.runtime.spawn(async move {
            sender.ready().await?;
            let (parts, body) = sender.send_request(request).await?.into_parts();
            let text = |value: &http::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
            let headers = parts.headers.iter().map(|(name, value)| (name.to_string(), text(value))).collect();
            let body = body.collect().await?.to_bytes().to_vec();
            Ok(Reply { status: parts.status.as_u16(), headers, body })
        }))
    }

    /// Waits for an answer.
    ///
    /// # Errors
    /// When the node resets the stream or closes the connection.
    pub fn finish(&self, stream: Stream) -> Result<Reply, hyper::Error> {
        let answer = self.runtime.block_on(async { tokio::time::timeout(HANG, stream.0).await });
        answer.expect("the node hangs").expect("nothing panics in a stream")
    }

    /// Whether the node has ended the connection.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.sender.is_closed()
    }

    /// One request and its answer.
    #[must_use]
    pub fn get(&self, service: &str, target: &str) -> Reply {
        self.finish(self.start(Method::GET, service, target, Bytes::new())).expect("an answer")
    }

    /// One request with a body and its answer.
    #[must_use]
    pub fn post(&self, service: &str, target: &str, body: impl Into<Bytes>) -> Reply {
        self.finish(self.start(Method::POST, service, target, body)).expect("an answer")
    }
}

fn start_runtime() -> (Handle, oneshot::Sender<()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let (stop, stopped) = oneshot::channel();
    let handle = runtime.handle().clone();
    std::thread::spawn(move || runtime.block_on(stopped));
    (handle, stop)
}

impl Stream {
    /// Whether the answer is there.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.0.is_finished()
    }

    /// Gives the answer up: the node sees a reset.
    pub fn reset(self) {
        self.0.abort();
    }
}
