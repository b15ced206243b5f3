//! Connections to hosts off this node: from a name to an open socket. The one place where an address is judged.
//!
//! - A host of the static map is at the address that config names for it, whatever address that is.
//! - Any other is looked up each time that a connection is made, and judged as it was found: the address that was judged
//!   is the one that is connected to, so a resolver that changes its mind gains nothing.
//! - Of several addresses those that may not be called are left out; the others are tried in turn, each for its share of the time. Where it was decided before
//!   which one is called (`addresses.rs`), it is that one.
//! - Over TLS a host has to prove that it has the name that the URL gives it, however its address was found.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::Uri;
use hyper_rustls::MaybeHttpsStream;
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout};
use tokio_rustls::TlsConnector;
use tower_service::Service;

use super::hosts::{Addresses, Authority, HostPattern, Scheme, is_inward};
use super::trust::Trust;
use crate::config::EgressConfig;

/// Names looked up at once; more wait. Each takes a thread of the system's resolver.
const LOOKUPS_MAX: usize = 16;

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConnectError {
    /// The URL names no host.
    #[error("no host")]
    NoHost,
    /// No address.
    #[error("host {host:?} was not found: {source}")]
    Lookup { host: String, source: io::Error },
    /// Only addresses that cells may not call.
    #[error("host {host:?} is at {address}, which no cell may call unless config names that address")]
    Inward { host: String, address: IpAddr },
    /// Nobody there.
    #[error("{address} ({host:?}): {source}")]
    Refused { host: String, address: SocketAddr, source: io::Error },
    /// Somebody there, but it is not known to be the host.
    #[error("host {host:?}: no connection over TLS: {source}")]
    Tls { host: String, source: io::Error },
    /// Nobody answered.
    #[error("host {host:?}: no connection within {limit:?}")]
    TimedOut { host: String, limit: Duration },
}

impl ConnectError {
    /// The same error once more: the one that was made is inside another.
    pub(super) fn again(&self) -> Self {
        let same = |error: &io::Error| io::Error::new(error.kind(), error.to_string());
        match self {
            Self::NoHost => Self::NoHost,
            Self::Lookup { host, source } => Self::Lookup { host: host.clone(), source: same(source) },
            Self::Inward { host, address } => Self::Inward { host: host.clone(), address: *address },
            Self::Refused { host, address, source } => {
                Self::Refused { host: host.clone(), address: *address, source: same(source) }
            }
            Self::Tls { host, source } => Self::Tls { host: host.clone(), source: same(source) },
            Self::TimedOut { host, limit } => Self::TimedOut { host: host.clone(), limit: *limit },
        }
    }
}

/// Makes connections, as config allows.
#[derive(Debug, Clone)]
pub(super) struct Connector {
    rules: Arc<Rules>,
    /// The one address to connect to, of those that were found for the host.
    to: Option<SocketAddr>,
}

#[derive(Debug)]
struct Rules {
    /// By host in lower case.
    hosts: BTreeMap<String, Addresses>,
    allow: Vec<HostPattern>,
    trust: Trust,
    connect_timeout: Duration,
    lookups: Arc<Semaphore>,
}

impl Connector {
    pub(super) fn new(config: &EgressConfig) -> Self {
        let hosts = config.hosts.iter().map(|(host, all)| (host.to_ascii_lowercase(), all.clone())).collect();
        let rules = Arc::new(Rules {
            hosts,
            allow: config.allow.clone(),
            trust: Trust::new(config.cas.as_ref()),
            connect_timeout: config.connect_timeout.0,
            lookups: Arc::new(Semaphore::new(LOOKUPS_MAX)),
        });
        Self { rules, to: None }
    }

    /// The same, to one of a host's [`Connector::addresses`].
    pub(super) fn to(&self, address: SocketAddr) -> Self {
        Self { rules: Arc::clone(&self.rules), to: Some(address) }
    }

    /// As long as it lives the resolver answers nobody.
    #[cfg(test)]
    pub(super) fn hold_lookups(&self) -> tokio::sync::OwnedSemaphorePermit {
        let lookups = Arc::clone(&self.rules.lookups);
        let all = u32::try_from(LOOKUPS_MAX).expect("they are few");
        lookups.try_acquire_many_owned(all).expect("none is under way")
    }

    /// Where a host may be called in cleartext; at least one.
    pub(super) async fn addresses(&self, host: Authority<'_>) -> Result<Vec<SocketAddr>, ConnectError> {
        let limit = self.rules.connect_timeout;
        let timed_out = |_| Err(ConnectError::TimedOut { host: host.host.to_owned(), limit });
        timeout(limit, self.rules.addresses(Scheme::Http, host)).await.unwrap_or_else(timed_out)
    }
}

impl Service<Uri> for Connector {
    type Response = MaybeHttpsStream<TokioIo<TcpStream>>;
    type Error = ConnectError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, ConnectError>> + Send>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), ConnectError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let (rules, to) = (Arc::clone(&self.rules), self.to);
        Box::pin(async move {
            let host = uri.host().ok_or(ConnectError::NoHost)?.trim_matches(['[', ']']);
            let authority = Authority { host, port: uri.port_u16() };
            let scheme = uri.scheme_str().and_then(Scheme::parse).unwrap_or(Scheme::Http);
            let limit = rules.connect_timeout;
            let until = Instant::now() + limit;
            let connecting = async {
                let addresses = match to {
                    Some(address) => vec![address],
                    None => rules.addresses(scheme, authority).await?,
                };
                let tcp = TokioIo::new(connect(host, &addresses, until).await?);
                match scheme {
                    Scheme::Http => Ok(MaybeHttpsStream::Http(tcp)),
                    Scheme::Https => rules.shake_hands(tcp, host).await,
                }
            };
            let timed_out = |_| Err(ConnectError::TimedOut { host: host.to_owned(), limit });
            timeout(limit, connecting).await.unwrap_or_else(timed_out)
        })
    }
}

impl Rules {
    async fn shake_hands(
        &self,
        tcp: TokioIo<TcpStream>,
        host: &str,
    ) -> Result<MaybeHttpsStream<TokioIo<TcpStream>>, ConnectError> {
        let failed = |source| ConnectError::Tls { host: host.to_owned(), source };
        let client = self.trust.client().await.map_err(|why| failed(io::Error::other(why)))?;
        let name = ServerName::try_from(host.strip_suffix('.').unwrap_or(host).to_owned());
        let name = name.map_err(|error| failed(io::Error::new(io::ErrorKind::InvalidData, error)))?;
        let tls = TlsConnector::from(client).connect(name, TokioIo::new(tcp)).await.map_err(failed)?;
        Ok(tls.into())
    }

    /// Where a host may be called; at least one.
    async fn addresses(
        &self,
        scheme: Scheme,
        authority: Authority<'_>,
    ) -> Result<Vec<SocketAddr>, ConnectError> {
        let host = authority.host.strip_suffix('.').unwrap_or(authority.host).to_ascii_lowercase();
        if let Some(known) = self.hosts.get(&host) {
            return Ok(known.all().to_vec());
        }
        let failed = |source| ConnectError::Lookup { host: authority.host.to_owned(), source };
        let turn = Arc::clone(&self.lookups).acquire_owned().await.expect("never closed");
        let name = (authority.host.to_owned(), authority.port.unwrap_or(scheme.port()));
        // Its thread goes on when nobody waits any more, and keeps its turn until then.
        let looking = tokio::task::spawn_blocking(move || {
            let found = name.to_socket_addrs().map(Vec::from_iter);
            drop(turn);
            found
        });
        let found = looking.await.map_err(|error| failed(io::Error::other(error)))?.map_err(failed)?;
        self.callable(found, scheme, authority)
    }

    /// Those of the addresses that were found that may be called; at least one.
    fn callable(
        &self,
        found: Vec<SocketAddr>,
        scheme: Scheme,
        authority: Authority<'_>,
    ) -> Result<Vec<SocketAddr>, ConnectError> {
        let host = || authority.host.to_owned();
        let Some(first) = found.first().map(SocketAddr::ip) else {
            let source = io::Error::other("it has no address");
            return Err(ConnectError::Lookup { host: host(), source });
        };
        let may_call = |address: &SocketAddr| self.may_call(address.ip(), scheme, authority);
        let callable: Vec<SocketAddr> = found.into_iter().filter(may_call).collect();
        if callable.is_empty() {
            return Err(ConnectError::Inward { host: host(), address: first });
        }
        Ok(callable)
    }

    /// An inward address only if the URL itself names it and config allows just that: a name that leads there is no
    /// permission, whoever else may call it.
    fn may_call(&self, address: IpAddr, scheme: Scheme, authority: Authority<'_>) -> bool {
        let is_named = || authority.host.parse() == Ok(address);
        let is_allowed = || self.allow.iter().any(|pattern| pattern.matches(scheme, authority));
        !is_inward(address) || (is_named() && is_allowed())
    }
}

/// Addresses that are waited for at least, if all of them say nothing: a share that is too small reaches nobody.
const WAITED_FOR: u32 = 4;

/// To the first of some addresses that takes a connection, `until` then. There is one at least.
///
/// Each has its share of the time that is left, so that one that says nothing leaves some to the others, and a quarter of the whole at
/// least. Source: Go's `net.Dialer`, whose least share is two seconds.
async fn connect(host: &str, addresses: &[SocketAddr], until: Instant) -> Result<TcpStream, ConnectError> {
    let limit = until.saturating_duration_since(Instant::now());
    let mut last = None;
    for (address, count) in addresses.iter().zip((1..=addresses.len()).rev()) {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() && last.is_some() {
            break;
        }
        let share = share(left, count, limit);
        let host = host.to_owned();
        last = match timeout(share, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => {
                // Worth a try: a socket that is gone says so when it is used.
                let _ = stream.set_nodelay(true);
                return Ok(stream);
            }
            Ok(Err(source)) => Some(ConnectError::Refused { host, address: *address, source }),
            Err(_elapsed) => Some(ConnectError::TimedOut { host, limit }),
        };
    }
    Err(last.expect("there is an address, or an error that says why not"))
}

/// Of the time that is left of the limit, for the first of so many addresses.
fn share(left: Duration, count: usize, limit: Duration) -> Duration {
    let equal = left / u32::try_from(count).unwrap_or(u32::MAX);
    equal.max(left.min(limit / WAITED_FOR))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(texts: &[&str]) -> Vec<SocketAddr> {
        texts.iter().map(|text| text.parse().expect("an address")).collect()
    }

    /// A few addresses share the time; of many some are waited for, and not all in vain.
    #[test]
    fn shares_of_time_are_worth_waiting() {
        let limit = Duration::from_secs(2);
        assert_eq!(share(limit, 1, limit), limit);
        assert_eq!(share(limit, 2, limit), limit / 2);
        let mut left = limit;
        let waited_for = (1..=40).rev().map(|count| {
            let share = share(left, count, limit);
            left -= share;
            share
        });
        assert_eq!(waited_for.filter(|share| !share.is_zero()).collect::<Vec<_>>(), [limit / 4; 4]);
    }

    /// A name that leads to addresses of both kinds leads to those that may be called; to inward ones alone it leads nowhere, and
    /// it is no permission that config allows the name, or one of these addresses.
    #[test]
    fn answers_of_resolvers_are_judged_each() {
        let allow = ["rebound.example", "127.0.0.1:443"].map(|text| text.parse().expect("a pattern"));
        let config = EgressConfig { allow: allow.into(), ..EgressConfig::default() };
        let Connector { rules, .. } = Connector::new(&config);
        let name = Authority::parse("rebound.example").expect("a host");
        let callable = |found: &[&str]| rules.callable(addresses(found), Scheme::Https, name);
        let mixed =
            ["127.0.0.1:443", "203.0.113.7:443", "[::1]:443", "[2001:db8::7]:443", "169.254.169.254:443"];
        let expected = addresses(&["203.0.113.7:443", "[2001:db8::7]:443"]);
        assert_eq!(callable(&mixed).expect("some may be called"), expected);
        for inward in [&["127.0.0.1:443"][..], &["[::ffff:127.0.0.1]:443", "[fe80::1]:443"], &["0.0.0.0:443"]]
        {
            assert!(matches!(callable(inward), Err(ConnectError::Inward { .. })), "{inward:?}");
        }
        assert!(matches!(callable(&[]), Err(ConnectError::Lookup { .. })));
        let itself = Authority::parse("127.0.0.1").expect("an address");
        let own = rules.callable(addresses(&["127.0.0.1:443"]), Scheme::Https, itself);
        assert_eq!(own.expect("named and allowed").len(), 1);
    }
}
