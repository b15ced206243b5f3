//! The network side: one future per connection, from accept to close.
//!
//! ```text
//! handshake                                            (on the listener with TLS)
//!   v
//! sniff --{--> bridge                                  (JSON object in, JSON object out)
//!       --*--> http: check, route, body --call--> Dpu --answer--> client      (HTTP/1.1, HTTP/2)
//! ```
//!
//! - The first byte that is not white space tells JSON from HTTP; HTTP/2 is known by its preface. A first head of HTTP/1 is
//!   read as a whole before there is a parser for the connection.
//! - No worker hears of a request before its head is complete and valid and its body has arrived.
//! - TLS ends here: behind the handshake nothing knows of it but [`stream`], and [`io`] that bytes may be held back.

mod answer;
mod body;
mod check;
mod framing;
mod handshake;
mod http;
mod io;
mod reply_body;
mod sniff;
mod stream;

use std::net::IpAddr;
use std::pin::Pin;

use tokio::net::TcpStream;
use tokio::time::Instant;

use self::io::ClientIo;
use self::sniff::Protocol;
use self::stream::Stream;
use crate::bridge;
use crate::dpu::{Connection, Dpu};
use crate::tls::Terms;

pub(crate) use self::io::ClientIo as Client;

/// Why no request came of a head of HTTP/1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeadProblem {
    /// It is none.
    Malformed,
    /// It has too many bytes or lines.
    TooLarge,
    /// It did not come in time.
    TooSlow,
}

impl HeadProblem {
    /// All of them: `ALL[problem as usize] == problem`.
    pub const ALL: [Self; 3] = [Self::Malformed, Self::TooLarge, Self::TooSlow];

    /// One word for metrics.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::TooLarge => "too-large",
            Self::TooSlow => "too-slow",
        }
    }
}

/// Serves one connection in cleartext until it closes. Spawn it on the lane that owns `dpu`.
///
/// Every wait in it has a limit from [`crate::config::DpuConfig`]. Dropping it cuts the connection and
/// cancels what is in flight on it.
pub fn serve_connection(dpu: Dpu, tcp: TcpStream) -> Pin<Box<dyn Future<Output = ()>>> {
    Box::pin(async move {
        match tcp.peer_addr() {
            Ok(client) => serve(dpu, tcp, client.ip(), None).await,
            Err(error) => tracing::debug!(%error, "a client left before it was served"),
        }
    })
}

/// As [`serve_connection`]; with `tls` the client has to shake hands first. `client`: its address when it was accepted, which
/// a socket forgets when the client resets it.
pub(crate) async fn serve(dpu: Dpu, tcp: TcpStream, client: IpAddr, tls: Option<Terms>) {
    let connection = dpu.open_connection();
    // Boxed, each: a connection has room for what it is at, and not for all that it may come to.
    match Box::pin(begin(&dpu, tcp, client, tls, &connection)).await {
        None => {}
        Some((io, Protocol::Json)) => Box::pin(bridge::serve(&dpu, io)).await,
        Some((io, Protocol::Http1)) => Box::pin(http::serve_http1(&dpu, io, &connection)).await,
        Some((io, Protocol::Http2)) => Box::pin(http::serve_http2(&dpu, io, &connection)).await,
    }
}

/// A connection from accept until its protocol is known; `None` if it does not come to that.
async fn begin(
    dpu: &Dpu,
    tcp: TcpStream,
    client: IpAddr,
    tls: Option<Terms>,
    connection: &Connection,
) -> Option<(ClientIo, Protocol)> {
    if let Err(error) = tcp.set_nodelay(true) {
        tracing::debug!(%error, "the connection was closed before it was served");
        return None;
    }
    let settings = dpu.settings();
    let until = Instant::now() + settings.config.header_read_timeout.0;
    let stream = match tls {
        None => Stream::Plain(tcp),
        Some(terms) => Box::pin(handshake::shake(dpu, tcp, terms, connection, until)).await?,
    };
    let mut io = ClientIo::new(stream, client, &settings.config);
    io.standing().set_in_time(connection.is_in_time());
    let protocol = sniff::protocol(dpu, &mut io, connection, until).await?;
    Some((io, protocol))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of_connection<F: Future>(_serve: impl FnOnce(Dpu, TcpStream, IpAddr, Option<Terms>) -> F) -> usize {
        size_of::<F>()
    }

    /// What is there for as long as a connection is, whatever it is at.
    #[test]
    fn what_stays_is_small() {
        let size = of_connection(serve);
        assert!(size <= 640, "{size} bytes");
    }
}
