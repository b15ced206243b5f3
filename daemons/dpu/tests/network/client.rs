//! A client that sends exactly the bytes it is told to.

use std::net::SocketAddr;
use std::pin::Pin;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;

/// Longer than anything here takes; only a hang gets there. Shorter than the deadline of a request, so that
/// nothing passes because its deadline tidied up.
const HANG: Duration = Duration::from_secs(20);

/// Fails the test instead of hanging.
pub(crate) async fn soon<T>(what: &str, wait: impl Future<Output = T>) -> T {
    // Boxed: compiled once for each kind of value, not for each that is waited for.
    let wait: Pin<Box<dyn Future<Output = T> + '_>> = Box::pin(wait);
    match tokio::time::timeout(HANG, wait).await {
        Ok(value) => value,
        Err(_) => panic!("hangs: {what}"),
    }
}

pub(crate) struct Raw<S = TcpStream> {
    pub(crate) stream: S,
    unread: Vec<u8>,
}

#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

impl Reply {
    pub(crate) fn headers<'a>(&'a self, name: &str) -> Vec<&'a str> {
        let lines = self.head.lines().skip(1).filter_map(|line| line.split_once(": "));
        lines.filter(|(found, _)| *found == name).map(|(_, value)| value).collect()
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers(name).first().copied()
    }

    pub(crate) fn text(&self) -> &str {
        str::from_utf8(&self.body).expect("a text")
    }

    /// The text of an error that the mesh made.
    pub(crate) fn error(&self) -> String {
        let body: serde_json::Value = serde_json::from_slice(&self.body).expect("JSON");
        body["error"].as_str().expect("an error text").to_owned()
    }
}

impl Raw {
    pub(crate) async fn connect(addr: SocketAddr) -> Self {
        Self::on(TcpStream::connect(addr).await.expect("listening"))
    }

    pub(crate) fn on(stream: TcpStream) -> Self {
        stream.set_nodelay(true).expect("connected");
        Self::over(stream)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Raw<S> {
    pub(crate) fn over(stream: S) -> Self {
        Self { stream, unread: Vec::new() }
    }

    pub(crate) async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        soon("send", self.stream.write_all(bytes.as_ref())).await.expect("connected");
    }

    /// Sends as much as the other side takes; it may close in the middle.
    pub(crate) async fn try_send(&mut self, bytes: impl AsRef<[u8]>) {
        drop(soon("send", self.stream.write_all(bytes.as_ref())).await);
    }

    /// No more will be sent.
    pub(crate) async fn end_sending(&mut self) {
        self.stream.shutdown().await.expect("connected");
    }

    pub(crate) async fn get(&mut self, target: &str) -> Reply {
        self.send(format!("GET {target} HTTP/1.1\r\nhost: node\r\n\r\n")).await;
        self.reply().await
    }

    pub(crate) async fn post(&mut self, target: &str, body: &[u8]) -> Reply {
        let head = format!("POST {target} HTTP/1.1\r\nhost: node\r\ncontent-length: {}\r\n\r\n", body.len());
        self.send(head).await;
        self.send(body).await;
        self.reply().await
    }

    /// The next response, its body by `content-length`.
    pub(crate) async fn reply(&mut self) -> Reply {
        let mut reply = self.reply_head().await;
        let length = reply.header("content-length").map_or(0, |length| length.parse().expect("a number"));
        reply.body = self.take(length).await;
        reply
    }

    /// The next response to a HEAD request, or an interim one.
    pub(crate) async fn reply_head(&mut self) -> Reply {
        let end = loop {
            if let Some(end) = self.unread.windows(4).position(|four| four == b"\r\n\r\n") {
                break end + 4;
            }
            assert!(
                self.fill().await,
                "closed before a response; got {:?}",
                String::from_utf8_lossy(&self.unread)
            );
        };
        let head = String::from_utf8(self.take(end).await).expect("text");
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status line");
        Reply { status, head, body: Vec::new() }
    }

    /// All bytes until the other side closes, however it closes.
    pub(crate) async fn rest(&mut self) -> Vec<u8> {
        while self.fill().await {}
        std::mem::take(&mut self.unread)
    }

    /// Fails unless the other side closes without another byte.
    pub(crate) async fn expect_close(&mut self) {
        let rest = self.rest().await;
        assert!(rest.is_empty(), "unexpected bytes: {:?}", String::from_utf8_lossy(&rest));
    }

    /// Sends one JSON object and reads until the end.
    pub(crate) async fn json(&mut self, object: &str) -> serde_json::Value {
        self.send(object).await;
        self.json_rest().await
    }

    pub(crate) async fn json_rest(&mut self) -> serde_json::Value {
        let rest = self.rest().await;
        serde_json::from_slice(&rest)
            .unwrap_or_else(|error| panic!("{error}: {:?}", String::from_utf8_lossy(&rest)))
    }

    async fn take(&mut self, count: usize) -> Vec<u8> {
        while self.unread.len() < count {
            assert!(self.fill().await, "closed {} bytes too early", count - self.unread.len());
        }
        let rest = self.unread.split_off(count);
        std::mem::replace(&mut self.unread, rest)
    }

    /// `false` at the end.
    async fn fill(&mut self) -> bool {
        let mut bytes = vec![0; 256 * 1024];
        match soon("receive", self.stream.read(&mut bytes)).await {
            Ok(count @ 1..) => {
                self.unread.extend_from_slice(&bytes[..count]);
                true
            }
            Ok(0) | Err(_) => false,
        }
    }
}
