//! The collector of traces: whether somebody listens there, and what the environment says of the resource.

use std::io;
use std::net::{TcpStream, ToSocketAddrs};
use std::sync::mpsc;
use std::time::Duration;

use super::Finding;
use crate::trace::Otlp;

/// For its name and a connection: no check may hang.
const PATIENCE: Duration = Duration::from_secs(2);

/// Connects, and lets go at once.
pub(super) fn look(otlp: &Otlp) -> Vec<Finding> {
    let (host, port) = (otlp.url.host().unwrap_or_default(), port(otlp));
    let malformed = otlp.resource.malformed.as_deref().map(|why| {
        Finding::warning(why, "write name=value,name=value, with what else is not plain percent-encoded")
    });
    let reached = judge(&otlp.place(), reach(host.trim_matches(['[', ']']).to_owned(), port));
    std::iter::once(reached).chain(malformed).collect()
}

fn port(otlp: &Otlp) -> u16 {
    let usual = if otlp.url.scheme_str() == Some("https") { 443 } else { 80 };
    otlp.url.port_u16().unwrap_or(usual)
}

/// On a thread of its own: whoever asks for a name cannot say how long.
fn reach(host: String, port: u16) -> io::Result<()> {
    let (tell, told) = mpsc::channel();
    std::thread::spawn(move || {
        // Nobody listens any more if it took too long.
        let _ = tell.send(connect(&host, port));
    });
    told.recv_timeout(PATIENCE).unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

/// To the first of its addresses that answers.
fn connect(host: &str, port: u16) -> io::Result<()> {
    let mut last = Err(io::Error::new(io::ErrorKind::NotFound, "the name has no address"));
    for address in (host, port).to_socket_addrs()? {
        last = TcpStream::connect_timeout(&address, PATIENCE).map(drop);
        if last.is_ok() {
            break;
        }
    }
    last
}

fn judge(place: &str, reached: io::Result<()>) -> Finding {
    match reached {
        Ok(()) => Finding::ok(format!("trace.endpoint = {place}: can be reached")),
        Err(error) => Finding::warning(
            format!("trace.endpoint = {place}: cannot be reached: {error}"),
            "start the collector, or name another (trace.endpoint or OTEL_EXPORTER_OTLP_ENDPOINT); traces are lost until it is there",
        ),
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    /// Who listens is found, who does not is told, with what would help.
    #[test]
    fn collector_is_reached_or_told() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("bound");
        let otlp = Otlp::parse(&format!("http://{address}")).expect("an address");
        let said = |otlp: &Otlp| look(otlp).iter().map(Finding::to_string).collect::<Vec<_>>();
        assert_eq!(said(&otlp), [format!("ok: trace.endpoint = http://{address}/v1/traces: can be reached")]);
        drop(listener);
        let [found] = &said(&otlp)[..] else { panic!("one finding") };
        assert!(found.starts_with("warning: ") && found.contains("; remedy: start the collector"), "{found}");
        let here = Otlp::parse("http://[::1]:1").expect("an address");
        assert!(said(&here)[0].contains("http://[::1]:1/v1/traces: cannot be reached"));
    }

    /// Without a port it is that of the scheme.
    #[test]
    fn ports_are_those_of_schemes() {
        for (address, expected) in [("http://c", 80), ("https://c", 443), ("https://c:4318", 4318)] {
            assert_eq!(port(&Otlp::parse(address).expect("an address")), expected);
        }
    }
}
