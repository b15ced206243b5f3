//! Calls of services of the application off this node: where they are, and which of several addresses is called.
//!
//! - Without a rule for outliers a new connection goes to the first address that takes it, and calls go over whichever there
//!   are. With one calls go to the addresses in turn, but for those that are ejected (`addresses.rs`).
//! - An address that takes no connection has been sent nothing: the call goes to the next one. It counts as a failure.

use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use cellmesh_shm::clock::Nanos;
use cellmesh_shm::message::{RequestMessage, ResponseMessage};
use cellmesh_shm::outlier::{Ejection, OutlierRule};
use http::{HeaderValue, Request, Uri};
use http_body_util::Full;
use tokio::task::spawn_local;
use tokio::time::timeout;

use super::connect::ConnectError;
use super::hosts::Authority;
use super::{Callee, Connections, EgressClients, Failure, HOPS_MAX, HttpClient, client, request};
use crate::config::EgressConfig;
use crate::forward::HOPS_HEADER;
use crate::policy::breaker::Verdict;
use crate::policy::retry::Outcome;

/// Where a service is off this node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Way {
    /// Its name, with a port where one was named.
    host: String,
    /// When one of its addresses is left out.
    rule: Option<OutlierRule>,
}

type Exchanged = Result<ResponseMessage, Failure>;

impl EgressClients {
    /// The way to a service without a worker here; none if config names none. `named`: the host that a cell's URL named,
    /// which is known to mean this service.
    ///
    /// A cell has a say in the port, and in which entry of the static map is used. It is at the service's own name that the
    /// call is made otherwise: what follows the name in `named` could lead anywhere.
    pub(crate) fn way_to_service(&self, service: &str, named: Option<Authority<'_>>) -> Option<Way> {
        let is_mapped = |host: &str| self.config.hosts.keys().any(|known| known.eq_ignore_ascii_case(host));
        let rule = self.config.outliers.get(service).copied();
        if let Some(named) = named.filter(|named| is_mapped(named.host)) {
            return Some(Way { host: named.to_string(), rule });
        }
        let port = named.and_then(|named| named.port);
        let host = Authority { host: service, port }.to_string();
        (is_mapped(service) || self.config.services_elsewhere).then_some(Way { host, rule })
    }

    /// `ejected`: called when an address of the service is ejected.
    pub(super) async fn try_service(
        &self,
        way: &Way,
        message: &RequestMessage,
        ejected: impl Fn(),
    ) -> Exchanged {
        if message.hops >= HOPS_MAX {
            return Err(Failure::Hops);
        }
        let host = &*way.host;
        let deadline = message.deadline.min(Nanos::now().saturating_add(self.config.try_timeout.0));
        let Some(rule) = way.rule else {
            let client = if self.is_http2(host) { &self.connections.http2 } else { &self.connections.http1 };
            return self.exchange(client, to_node(host, message)?, host, deadline, Callee::Node).await;
        };
        let late = || Failure::TimedOut { host: host.to_owned(), limit: self.config.try_timeout.0 };
        let turn = timeout(deadline.saturating_since(Nanos::now()), self.turn(host, rule)).await;
        let mut last = Err(late());
        for (address, client) in turn.unwrap_or_else(|_| Err(late()))? {
            let had = deadline.saturating_since(Nanos::now());
            if had.is_zero() {
                return last;
            }
            last = self.exchange(&client, to_node(host, message)?, host, deadline, Callee::Node).await;
            if self.says_nothing(&last, had) {
                return last;
            }
            let (has_failed, now) = (verdict(&last) == Verdict::Failure, Nanos::now());
            if let Some(ejection) = self.connections.hosts.borrow_mut().note(host, address, has_failed, now) {
                tell(host, ejection);
                ejected();
            }
            if !was_sent_nothing(&last) {
                return last;
            }
        }
        last
    }

    /// Whether an outcome is nobody's failure: as a circuit would judge it, or because there was little time for it.
    fn says_nothing(&self, exchanged: &Exchanged, had: Duration) -> bool {
        let is_late = matches!(exchanged, Err(Failure::TimedOut { .. }));
        verdict(exchanged) == Verdict::Nothing || (is_late && had < self.config.try_timeout.0 / 2)
    }

    /// Addresses of services that are ejected.
    pub(crate) fn ejected(&self, now: Nanos) -> usize {
        self.connections.hosts.borrow_mut().ejected(now)
    }

    /// Where to call a service, in the order in which to try; at least one. Looks it up if that was not done lately: those that
    /// are known are used meanwhile.
    async fn turn(&self, host: &str, rule: OutlierRule) -> Result<Vec<(SocketAddr, HttpClient)>, Failure> {
        let connections = &self.connections;
        let wants_lookup = connections.hosts.borrow_mut().wants_lookup(host, rule, Nanos::now());
        let turn = connections.hosts.borrow_mut().turn(host, rule, Nanos::now());
        let lookup = LookUp {
            connections: Rc::clone(connections),
            config: self.config.clone(),
            host: host.to_owned(),
            rule,
            http2: self.is_http2(host),
        };
        if !turn.is_empty() {
            if wants_lookup {
                // It ends by itself: a lookup is bounded in time.
                drop(spawn_local(lookup.run()));
            }
            return Ok(turn);
        }
        let problem = lookup.run().await.err().unwrap_or(ConnectError::NoHost);
        let turn = connections.hosts.borrow_mut().turn(host, rule, Nanos::now());
        if turn.is_empty() { Err(Failure::Connect(problem)) } else { Ok(turn) }
    }

    fn is_http2(&self, host: &str) -> bool {
        self.speaks_http2(Authority::parse(host).map_or(host, |authority| authority.host))
    }
}

/// Looks for the addresses of a host. Those that were found before serve for a while if none are.
struct LookUp {
    connections: Rc<Connections>,
    config: EgressConfig,
    host: String,
    rule: OutlierRule,
    http2: bool,
}

impl LookUp {
    async fn run(self) -> Result<(), ConnectError> {
        let Self { connections, config, host, rule, http2 } = self;
        let authority = Authority::parse(&host).unwrap_or(Authority { host: &host, port: None });
        let found = connections.connector.addresses(authority).await?;
        let connect = |address| client(&config, connections.connector.to(address), http2);
        connections.hosts.borrow_mut().found(&host, rule, &found, Nanos::now(), connect);
        Ok(())
    }
}

/// An address that took no connection: another may be asked.
fn was_sent_nothing(exchanged: &Exchanged) -> bool {
    matches!(exchanged, Err(Failure::Connect(ConnectError::Refused { .. } | ConnectError::TimedOut { .. })))
}

/// The request as it goes to another node.
fn to_node(host: &str, message: &RequestMessage) -> Result<Request<Full<Bytes>>, Failure> {
    let path = String::from_utf8_lossy(message.target());
    let uri = Uri::builder().scheme("http").authority(host).path_and_query(&*path).build();
    let uri = uri.map_err(|_| Failure::Request(format!("http://{host}{path} is no URL")))?;
    let mut request = request(uri, message, host)?;
    let hops = HeaderValue::from(u16::from(message.hops) + 1);
    request.headers_mut().insert(HOPS_HEADER, hops);
    Ok(request)
}

/// As a circuit would judge it.
fn verdict(exchanged: &Exchanged) -> Verdict {
    match exchanged {
        Ok(answer) => Outcome::Answered(answer.status).verdict(),
        Err(failure) => failure.outcome().verdict(),
    }
}

fn tell(host: &str, ejection: Ejection<SocketAddr>) {
    let Ejection { member, span } = ejection;
    tracing::warn!(host, address = %member, "address ejected for {span:?}: it fails again and again");
}

#[cfg(test)]
mod tests {
    use cellmesh_shm::message::Fault;

    use super::*;

    fn host(config: EgressConfig, named: Option<&str>) -> Option<String> {
        let clients = EgressClients::new(&config, 0);
        let named = named.map(|named| Authority::parse(named).expect("a host"));
        clients.way_to_service("back", named).map(|way| way.host)
    }

    /// A service is called at its own name, or where the map says, whatever a cell puts behind that name.
    #[test]
    fn services_are_called_at_their_own_names() {
        let elsewhere = || EgressConfig { services_elsewhere: true, ..EgressConfig::default() };
        let address: SocketAddr = "10.0.0.7:80".parse().expect("an address");
        let mapped = |name: &str| EgressConfig {
            hosts: [(name.into(), address.into())].into(),
            ..EgressConfig::default()
        };
        assert_eq!(host(EgressConfig::default(), Some("back")), None);
        assert_eq!(host(elsewhere(), None).as_deref(), Some("back"));
        assert_eq!(host(elsewhere(), Some("back.shop.svc.evil.example:8080")).as_deref(), Some("back:8080"));
        assert_eq!(host(mapped("Back"), Some("back.shop")).as_deref(), Some("back"));
        assert_eq!(host(mapped("back.shop"), Some("back.shop:1")).as_deref(), Some("back.shop:1"));
        assert_eq!(host(mapped("other"), Some("back")), None);
    }

    /// A call that had little time says nothing of an address that did not answer in it; one that had enough does. Where no
    /// connection was taken another address may be asked, and after anything else none.
    #[test]
    fn outcomes_are_told_apart() {
        let clients = EgressClients::new(&EgressConfig::default(), 0);
        let usual = clients.config.try_timeout.0;
        let late = || Err(Failure::TimedOut { host: "back".into(), limit: usual });
        assert!(clients.says_nothing(&late(), usual / 4) && !clients.says_nothing(&late(), usual));
        let answered = |status| Ok(ResponseMessage { status, ..ResponseMessage::faulted(Fault::None) });
        assert!(!clients.says_nothing(&answered(503), usual / 4));
        let unanswered = ConnectError::TimedOut { host: "back".into(), limit: usual };
        assert!(was_sent_nothing(&Err(Failure::Connect(unanswered))));
        assert!(!was_sent_nothing(&late()) && !was_sent_nothing(&answered(503)));
    }
}
