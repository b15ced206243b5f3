//! TLS handshakes, and what becomes of clients that come with something else.
//!
//! ```text
//! first byte: a handshake record   handshake     done | refused: alert, linger, close
//!             a letter             400 in cleartext, for people who wrote http:// where https:// is right
//!             anything else        close
//! ```
//!
//! - A drain waits for handshakes that have begun: their clients are then told that they come too late.
//! - A client that says nothing has not begun a handshake: it is closed at the same time as one that does not finish, but
//!   not counted. Probes of ports do that.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_rustls::TlsAcceptor;

use super::stream::{Metered, Stream};
use crate::dpu::{Connection, Dpu};
use crate::tls::Terms;

/// First byte of a handshake. Source: RFC 8446, 5.1 (`ContentType`).
const HANDSHAKE_RECORD: u8 = 22;

/// What a client gets that speaks HTTP without TLS.
const SPEAK_TLS: &[u8] = b"HTTP/1.1 400 Bad Request\r\ncontent-type: application/json\r\n\
    connection: close\r\ncontent-length: 52\r\n\r\n\
    {\"error\": \"this port speaks TLS only; use https://\"}";

/// Shakes hands with a client, `until` then at the latest. `None`: it came to nothing, and the connection is closed.
pub(super) async fn shake(
    dpu: &Dpu,
    tcp: TcpStream,
    terms: Terms,
    connection: &Connection,
    until: Instant,
) -> Option<Stream> {
    let until = until.min(Instant::now() + terms.timeout);
    let mut first = [0];
    let peeked = connection.unless_drained(timeout_at(until, tcp.peek(&mut first))).await;
    let Some(Ok(Ok(1..))) = peeked else { return None };
    if first[0] != HANDSHAKE_RECORD {
        dpu.count_tls_failure();
        refuse(dpu, tcp, first[0]).await;
        return None;
    }
    let shaking = TlsAcceptor::from(terms.server).accept(Metered::new(tcp)).into_fallible();
    match timeout_at(until, shaking).await {
        Ok(Ok(stream)) => return Some(Stream::Tls(Box::new(stream))),
        Ok(Err((error, socket))) => {
            tracing::debug!(%error, "a TLS handshake failed");
            dpu.count_tls_failure();
            part(dpu, socket.into_inner()).await;
        }
        Err(_) => dpu.count_tls_failure(),
    }
    None
}

async fn refuse(dpu: &Dpu, mut tcp: TcpStream, first: u8) {
    if first.is_ascii_alphabetic() && tcp.write_all(SPEAK_TLS).await.is_ok() {
        part(dpu, tcp).await;
    }
}

/// Closes so that the client can read our last words, the alert: what it is still sending is read and ignored for a while,
/// as in [`super::io`].
async fn part(dpu: &Dpu, mut tcp: TcpStream) {
    let ending = async {
        tcp.shutdown().await?;
        let mut waste = [0; 4096];
        while tcp.read(&mut waste).await? > 0 {}
        Ok::<_, std::io::Error>(())
    };
    // Whether the client has ended or time is up: the connection is closed now.
    let _ = timeout(dpu.settings().config.linger_timeout.0, ending).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The length is what it says.
    #[test]
    fn refusal_is_whole() {
        let text = std::str::from_utf8(SPEAK_TLS).expect("text");
        let (head, body) = text.split_once("\r\n\r\n").expect("a head");
        assert!(head.ends_with(&format!("content-length: {}", body.len())), "{text}");
    }
}
