//! The network side: one future per connection, from accept to close.
//!
//! ```text
//! sniff --{--> bridge                                  (JSON object in, JSON object out)
//!       --*--> http: check, route, body --call--> Dpu --answer--> client      (HTTP/1.1, HTTP/2)
//! ```
//!
//! - The first byte that is not white space tells JSON from HTTP; HTTP/2 is known by its preface.
//! - No worker hears of a request before its head is complete and valid and its body has arrived.
//! - TLS is not spoken here.

mod answer;
mod body;
mod check;
mod framing;
mod http;
mod io;
mod reply_body;
mod sniff;

use tokio::net::TcpStream;

use self::io::ClientIo;
use self::sniff::Protocol;
use crate::bridge;
use crate::dpu::Dpu;

pub(crate) use self::io::ClientIo as Client;

/// Serves one connection until it closes. Spawn it on the lane that owns `dpu`.
///
/// Every wait in it has a limit from [`crate::config::DpuConfig`]. Dropping it cuts the connection and
/// cancels what is in flight on it.
pub async fn serve_connection(dpu: Dpu, tcp: TcpStream) {
    let connection = dpu.open_connection();
    if let Err(error) = tcp.set_nodelay(true) {
        tracing::debug!(%error, "the connection was closed before it was served");
        return;
    }
    let settings = dpu.settings();
    let mut io = ClientIo::new(tcp, &settings.config);
    match sniff::protocol(&mut io, &connection, &settings.config).await {
        None => {}
        Some(Protocol::Json) => bridge::serve(&dpu, io).await,
        Some(Protocol::Http1) => http::serve_http1(&dpu, io, &connection).await,
        Some(Protocol::Http2) => http::serve_http2(&dpu, io, &connection).await,
    }
}
