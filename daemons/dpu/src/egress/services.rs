//! Calls of services of the application off this node: where they are, and which of several addresses is called.
//!
//! - Without a rule for outliers a new connection goes to the first address that takes it, and calls go over whichever there
//!   are. With one calls go to the addresses in turn, but for those that are ejected (`addresses.rs`).
//! - An address that has not answered when its request's deadline is there has failed, whoever notices it first: this side, or who
//!   waited for the answer and gives the call up. A call that is given up before that says nothing of its address.
//! - A host is looked up in a task of its own, once for all calls of a lane that wait for it: they wait as long as they have time,
//!   and what is found serves the next ones, of all lanes.
//! - An address that takes no connection has been sent nothing: the call goes to the next one. It counts as a failure.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use cellmesh_shm::clock::Nanos;
use cellmesh_shm::message::{RequestMessage, ResponseMessage};
use cellmesh_shm::outlier::{Ejection, OutlierRule};
use http::{HeaderValue, Request, Uri};
use http_body_util::Full;
use tokio::sync::watch;
use tokio::task::spawn_local;
use tokio::time::timeout;

use super::addresses::{Choice, Directory, HOSTS_MAX};
use super::connect::ConnectError;
use super::hosts::Authority;
use super::{Callee, Connections, EgressClients, Failure, HOPS_MAX, HttpClient, client, request};
use crate::forward::HOPS_HEADER;
use crate::policy::breaker::Verdict;
use crate::policy::retry::Outcome;

/// Where a service is off this node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Way {
    /// The service.
    service: String,
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
        let way = |host| Way { service: service.to_owned(), host, rule };
        if let Some(named) = named.filter(|named| is_mapped(named.host)) {
            return Some(way(named.to_string()));
        }
        let port = named.and_then(|named| named.port);
        let host = Authority { host: service, port }.to_string();
        (is_mapped(service) || self.config.services_elsewhere).then(|| way(host))
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
        let limit = deadline.saturating_since(Nanos::now());
        let late = || Failure::TimedOut { host: host.to_owned(), limit };
        let turn = timeout(limit, self.turn(way, rule)).await;
        let mut last = Err(late());
        for (address, client) in turn.unwrap_or_else(|_| Err(late()))? {
            let had = deadline.saturating_since(Nanos::now());
            if had.is_zero() {
                return last;
            }
            let request = to_node(host, message)?;
            let asked =
                Asked { clients: self, host, address, deadline, had, ejected: &ejected, is_over: false };
            last = self.exchange(&client, request, host, deadline, Callee::Node).await;
            if !asked.over(&last) || !was_sent_nothing(&last) {
                return last;
            }
        }
        last
    }

    /// Whether an outcome is nobody's failure: as a circuit would judge it, or because there was little time for it.
    fn says_nothing(&self, exchanged: &Exchanged, had: Duration) -> bool {
        let is_late = matches!(exchanged, Err(Failure::TimedOut { .. }));
        verdict(exchanged) == Verdict::Nothing || (is_late && !self.had_enough(had))
    }

    /// Whether an address that has not answered in this time has failed.
    fn had_enough(&self, had: Duration) -> bool {
        had >= self.config.try_timeout.0 / 2
    }

    /// Addresses of services that are ejected: on all lanes.
    pub(crate) fn ejected(&self, now: Nanos) -> usize {
        self.config.directory.ejected(now)
    }

    /// Where to call a service, in the order in which to try; at least one. Looks it up if that was not done lately: those that
    /// are known are used meanwhile.
    async fn turn(&self, way: &Way, rule: OutlierRule) -> Result<Vec<(SocketAddr, HttpClient)>, Failure> {
        let (connections, directory) = (&self.connections, &self.config.directory);
        let wants_lookup = directory.wants_lookup(&way.host, Nanos::now());
        let turn = self.known_turn(way);
        let lookup = || LookUp {
            connections: Rc::clone(connections),
            directory: directory.clone(),
            way: way.clone(),
            rule,
        };
        if let Some(turn) = turn {
            if wants_lookup {
                drop(lookup().begin());
            }
            return Ok(turn);
        }
        let problem = lookup().ended().await;
        if let Some(turn) = self.known_turn(way) {
            return Ok(turn);
        }
        if let Some(problem) = problem {
            return Err(Failure::Connect(problem));
        }
        // It was found, and forgotten for other hosts before this call had its turn.
        let found = lookup().addresses().await.map_err(Failure::Connect)?;
        let choice = directory.found_for_call((&way.service, &way.host), rule, &found, Nanos::now());
        choice.map(|choice| self.connected(way, &choice)).ok_or(Failure::Connect(ConnectError::NoHost))
    }

    /// The same of a service whose addresses are known.
    fn known_turn(&self, way: &Way) -> Option<Vec<(SocketAddr, HttpClient)>> {
        self.config.directory.turn(&way.host, Nanos::now()).map(|choice| self.connected(way, &choice))
    }

    fn connected(&self, way: &Way, choice: &Choice) -> Vec<(SocketAddr, HttpClient)> {
        let (connections, host) = (&self.connections, &*way.host);
        let connect = |address| client(&self.config, connections.connector.to(address), self.is_http2(host));
        connections.connected.borrow_mut().to(host, choice, connect)
    }

    fn is_http2(&self, host: &str) -> bool {
        self.speaks_http2(Authority::parse(host).map_or(host, |authority| authority.host))
    }
}

/// An address that was asked, from then until it is known what that says of it.
struct Asked<'a, E: Fn()> {
    clients: &'a EgressClients,
    host: &'a str,
    address: SocketAddr,
    /// Until when it had to answer, and how long that was.
    deadline: Nanos,
    had: Duration,
    ejected: &'a E,
    is_over: bool,
}

impl<E: Fn()> Asked<'_, E> {
    /// It has an outcome. Whether that says something of the address.
    fn over(mut self, exchanged: &Exchanged) -> bool {
        self.is_over = true;
        if self.clients.says_nothing(exchanged, self.had) {
            return false;
        }
        self.note(verdict(exchanged) == Verdict::Failure);
        true
    }

    fn note(&self, has_failed: bool) {
        let Self { host, address, .. } = *self;
        let noted = self.clients.config.directory.note(host, address, has_failed, Nanos::now());
        if let Some(ejection) = noted {
            tell(host, ejection);
            (self.ejected)();
        }
    }
}

impl<E: Fn()> Drop for Asked<'_, E> {
    /// Who waited for the answer gave it up. At the deadline, which the DPA keeps too and often sees first, that is a failure.
    fn drop(&mut self) {
        let is_late = !self.is_over && self.deadline <= Nanos::now();
        if is_late && self.clients.had_enough(self.had) {
            self.note(true);
        }
    }
}

/// Lookups that are under way, by host. The end of one is told to all who wait for it, with why nothing was found.
pub(super) type LookUps = HashMap<String, watch::Receiver<Option<ConnectError>>>;

/// Looks for the addresses of a host. Those that were found before serve for a while if none are.
struct LookUp {
    connections: Rc<Connections>,
    directory: Directory,
    way: Way,
    rule: OutlierRule,
}

impl LookUp {
    /// Waits for its end, or that of the same one that is under way already. What went wrong, if something did.
    async fn ended(self) -> Option<ConnectError> {
        let mut ended = match self.begin() {
            Ok(ended) => ended,
            Err(too_many) => return too_many.run().await.err(),
        };
        // It says nothing before its end, and the sender is gone then.
        while ended.changed().await.is_ok() {}
        ended.borrow().as_ref().map(ConnectError::again)
    }

    /// Runs it in a task that ends by itself, since a lookup is bounded in time; unless it is under way already.
    /// # Errors
    /// Too many are under way.
    fn begin(self) -> Result<watch::Receiver<Option<ConnectError>>, Box<Self>> {
        let connections = Rc::clone(&self.connections);
        let mut under_way = connections.looking.borrow_mut();
        // One whose task was ended tells nobody anything.
        if let Some(known) = under_way.get(&self.way.host).filter(|known| known.has_changed().is_ok()) {
            return Ok(known.clone());
        }
        if under_way.len() >= HOSTS_MAX {
            return Err(Box::new(self));
        }
        let (said, ended) = watch::channel(None);
        under_way.insert(self.way.host.clone(), ended.clone());
        drop(spawn_local(async move {
            let (connections, host) = (Rc::clone(&self.connections), self.way.host.clone());
            let problem = self.run().await.err();
            connections.looking.borrow_mut().remove(&host);
            said.send_replace(problem);
        }));
        Ok(ended)
    }

    async fn run(self) -> Result<(), ConnectError> {
        let found = self.addresses().await?;
        let Way { service, host, .. } = &self.way;
        self.directory.found((service, host), self.rule, &found, Nanos::now());
        Ok(())
    }

    async fn addresses(&self) -> Result<Vec<SocketAddr>, ConnectError> {
        let host = &*self.way.host;
        let authority = Authority::parse(host).unwrap_or(Authority { host, port: None });
        self.connections.connector.addresses(authority).await
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
    use std::cell::Cell;

    use cellmesh_shm::ids::ServiceId;
    use cellmesh_shm::message::Fault;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;
    use tokio::time::sleep;

    use super::*;
    use crate::config::EgressConfig;
    use crate::units::TimeSpan;

    /// Longer than anything takes that is not stuck.
    const HANG: Duration = Duration::from_secs(20);

    const RULE: OutlierRule = OutlierRule {
        failures_max: 1,
        ejection: Duration::from_secs(600),
        ejection_max: Duration::from_secs(600),
        share_max: 50,
    };

    /// Runs `test` where a lane runs.
    fn on_lane(test: impl Future<Output = ()>) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        tokio::task::LocalSet::new().block_on(&runtime, async { timeout(HANG, test).await.expect("stuck") });
    }

    /// A request that has so much time.
    fn request_within(time: Duration) -> RequestMessage {
        RequestMessage {
            service: ServiceId(0),
            deadline: Nanos::now().saturating_add(time),
            hops: 0,
            method_len: 3,
            target_len: 1,
            head: Bytes::from_static(b"GET/"),
            body: Bytes::new(),
        }
    }

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

    /// A call that was sent to an address that never answers, and that is given up: whether that ejects the address.
    async fn is_ejected_when_given_up(try_timeout: Duration, had: Duration, at_deadline: bool) -> bool {
        let silent = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let other = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let addresses = [&silent, &other].map(|listener| listener.local_addr().expect("bound").to_string());
        let addresses = serde_json::from_value(serde_json::json!(addresses)).expect("addresses");
        let config = EgressConfig {
            hosts: [("back".to_owned(), addresses)].into(),
            outliers: [("back".to_owned(), RULE)].into(),
            try_timeout: TimeSpan(try_timeout),
            ..EgressConfig::default()
        };
        let clients = EgressClients::new(&config, 0);
        let way = clients.way_to_service("back", None).expect("it is mapped");
        let (message, ejections) = (request_within(had), Cell::new(0));
        let ejected = || ejections.set(ejections.get() + 1);
        let mut call = Box::pin(clients.try_service(&way, &message, ejected));
        let seen = async {
            let (mut stream, _) = silent.accept().await.expect("a connection");
            stream.read_u8().await.expect("a request");
            stream
        };
        tokio::select! {
            _stream = seen => {}
            _ = &mut call => {}
        }
        if at_deadline {
            // Without letting the call see it: somebody else does first.
            std::thread::sleep(message.deadline.saturating_since(Nanos::now()));
        }
        drop(call);
        assert_eq!(clients.ejected(Nanos::now()), ejections.get());
        ejections.get() == 1
    }

    /// A call that is given up at its deadline says that its address has not answered; one whose client has gone before that, or
    /// that had little time, says nothing.
    #[test]
    fn silent_addresses_have_failed_at_the_deadline() {
        let ms = Duration::from_millis;
        on_lane(async {
            assert!(is_ejected_when_given_up(ms(1500), ms(1000), true).await, "at its deadline");
            assert!(!is_ejected_when_given_up(ms(60_000), ms(30_001), false).await, "before it");
            assert!(!is_ejected_when_given_up(ms(60_000), ms(200), true).await, "it had little time");
        });
    }

    /// A call waits for a lookup as long as it has time. The lookup goes on, once for all that wait for it, and those that come
    /// later use what it finds.
    #[test]
    fn lookups_outlast_calls_that_have_no_time() {
        on_lane(async {
            let server = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
            let host = server.local_addr().expect("bound").to_string();
            let config = EgressConfig {
                allow: vec![host.parse().expect("a pattern")],
                connect_timeout: TimeSpan(HANG * 2),
                ..EgressConfig::default()
            };
            let clients = EgressClients::new(&config, 1024);
            let way = Way { service: "back".to_owned(), host: host.clone(), rule: Some(RULE) };
            let resolver = clients.connections.connector.hold_lookups();
            for _ in 0..3 {
                let message = request_within(Duration::from_millis(10));
                let late = clients.try_service(&way, &message, || {}).await;
                assert!(matches!(late, Err(Failure::TimedOut { .. })), "{late:?}");
                assert_eq!(clients.connections.looking.borrow().len(), 1);
            }
            drop(resolver);
            while clients.config.directory.turn(&host, Nanos::now()).is_none() {
                sleep(Duration::from_millis(1)).await;
            }
            assert!(clients.connections.looking.borrow().is_empty());
            // Nobody is looked up any more: it is known.
            let _resolver = clients.connections.connector.hold_lookups();
            let message = request_within(HANG);
            let serving = async {
                let (mut stream, _) = server.accept().await.expect("a connection");
                stream.read_u8().await.expect("a request");
                stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await.expect("sent");
                stream
            };
            let (answer, _stream) = tokio::join!(clients.try_service(&way, &message, || {}), serving);
            assert_eq!(answer.expect("an answer").status, 204);
        });
    }

    /// Hosts of one service that are found all at once, more than are kept: each call finds its own.
    #[test]
    fn calls_to_more_hosts_than_are_kept_find_theirs() {
        on_lane(async {
            let server = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
            let address = server.local_addr().expect("bound").to_string();
            let config = EgressConfig {
                hosts: [("back".to_owned(), serde_json::from_value(address.into()).expect("an address"))]
                    .into(),
                ..EgressConfig::default()
            };
            let clients = Rc::new(EgressClients::new(&config, 1024));
            let _serving = spawn_local(async move {
                while let Ok((mut stream, _)) = server.accept().await {
                    spawn_local(async move {
                        stream.read_u8().await.expect("a request");
                        stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await.expect("sent");
                        sleep(HANG).await;
                    });
                }
            });
            let call = |port| {
                let clients = Rc::clone(&clients);
                let way = Way { service: "back".to_owned(), host: format!("back:{port}"), rule: Some(RULE) };
                spawn_local(async move { clients.try_service(&way, &request_within(HANG), || {}).await })
            };
            for answer in (1..=40).map(call).collect::<Vec<_>>() {
                let answer = answer.await.expect("it does not panic");
                assert_eq!(answer.expect("an answer").status, 204);
            }
        });
    }

    /// All that wait for a lookup are told why it found nothing.
    #[test]
    fn failed_lookups_are_told_to_all_who_wait() {
        on_lane(async {
            let clients = EgressClients::new(&EgressConfig::default(), 0);
            // Looked up, and found to be where no cell may call.
            let way = Way { service: "back".to_owned(), host: "127.0.0.1:9".to_owned(), rule: Some(RULE) };
            let (one, other) = (request_within(HANG), request_within(HANG));
            let (one, other) = tokio::join!(
                clients.try_service(&way, &one, || {}),
                clients.try_service(&way, &other, || {})
            );
            for told in [one, other] {
                assert!(matches!(told, Err(Failure::Connect(ConnectError::Inward { .. }))), "{told:?}");
            }
        });
    }
}
