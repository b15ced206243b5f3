//! Off this node: calls of cells that no worker here answers, over HTTP.
//!
//! ```text
//! worker --> DPA --sidecar_sq--> pump --spawn--> task: connect, send, read --wake--> pump --sidecar_cq--> DPA --> worker
//! ```
//!
//! - Two kinds: a host that is not of this application and that config allows ([`ELSEWHERE`]), and a service of the
//!   application that has no worker here, where config says how to find it elsewhere.
//! - A call is a task of its own with bounds on time and bytes: none waits for another.
//! - Whatever fails is an answer with a status and a text that says what, never silence: 502 if the host was not reached
//!   or said nothing that can be passed on, 504 if it was late, 508 if the call went through too many nodes.
//! - Connections are kept and used again; those of one host are its own, and where a service has a rule for outliers so are
//!   those of each of its addresses (`egress/services.rs`).
//! - A request that was sent is not sent again here: whether it may is the policy of its service ([`crate::policy`]).

mod addresses;
mod connect;
pub mod hosts;
mod services;
pub mod trust;

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::error::Error;
use std::io;
use std::rc::Rc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use cellmesh_shm::clock::Nanos;
use cellmesh_shm::head::{HeadLimits, HeaderLines, is_hop_by_hop};
use cellmesh_shm::ids::{ServiceId, SlotId};
use cellmesh_shm::message::{Fault, RequestMessage, ResponseMessage};
use http::header::HOST;
use http::{HeaderName, HeaderValue, Method, Request, Response, Uri};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper_util::client::legacy::Client;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use tokio::time::timeout;

use self::addresses::Connected;
pub use self::addresses::Directory;
use self::connect::{ConnectError, Connector};
use self::hosts::{Authority, Scheme};
use self::services::LookUps;
pub(crate) use self::services::Way;
use crate::config::EgressConfig;
use crate::forward::{ERROR_HEADER, MESH_PREFIX, NamedByConnection};
use crate::origin::Origin;
use crate::policy::retry::{Outcome, Trigger};

/// The service of a call to a host that is not of this application. Its target is a whole URL.
pub const ELSEWHERE: ServiceId = ServiceId(u16::MAX);

/// Calls between nodes that one request may lead to, one after another. Source: the DPA's own default for a node.
const HOPS_MAX: u8 = 16;

/// Lines of an answer beside those that [`HeadLimits::with_added`] is about: of a single connection, and its date.
const FRAMING_LINES: usize = 16;
/// The same limit as HTTP/2 counts: 32 bytes more for each line. Source: RFC 9113, 6.5.2.
const HEADER_LIST_BYTES_MAX: u32 = 32 << 10;

/// A silent HTTP/2 peer is asked whether it is still there: every call to its host would go to it otherwise. One that config
/// names always, as a neighbour in the mesh; one that chose HTTP/2 over TLS, which may be anybody's, only while it owes answers.
const PING_INTERVAL: Duration = Duration::from_secs(15);
const PING_TIMEOUT: Duration = Duration::from_secs(5);

/// Calls of one lane off this node.
#[derive(Default)]
pub(crate) struct Egress {
    /// What to send off the node if nobody here answers it.
    spares: RefCell<HashMap<SlotId, Spare>>,
    sent: Cell<u64>,
    failed: Cell<u64>,
    ejections: Cell<u64>,
}

/// What config says of calls off this node, and the connections that were made by it.
pub(crate) struct EgressClients {
    config: EgressConfig,
    body_bytes_max: usize,
    connections: Rc<Connections>,
}

/// To all hosts.
struct Connections {
    connector: Connector,
    http1: HttpClient,
    http2: HttpClient,
    /// To each address of services with a rule for outliers.
    connected: RefCell<Connected<HttpClient>>,
    /// The hosts of such services that this lane is looking up.
    looking: RefCell<LookUps>,
}

type HttpClient = Client<Connector, Full<Bytes>>;

/// A request to a service, as it is sent off the node if nobody here answers it.
pub(crate) struct Spare {
    pub(crate) way: Way,
    pub(crate) message: RequestMessage,
    /// As config was when the request came.
    pub(crate) clients: Rc<EgressClients>,
}

/// Whom a call is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Callee {
    /// A node of the same application: its word for what went wrong is ours.
    Node,
    /// Anybody.
    Host,
}

/// Why a call off the node has no answer of its callee.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("{0}")]
    Request(String),
    #[error("host {0:?}: must be named in egress.allow")]
    NotAllowed(String),
    #[error(transparent)]
    Connect(#[from] ConnectError),
    #[error("{host}: {why}")]
    Exchange { host: String, why: String },
    #[error("{host}: no answer within {limit:?}")]
    TimedOut { host: String, limit: Duration },
    #[error("{host}: the answer is longer than {limit} bytes")]
    TooLarge { host: String, limit: usize },
    #[error("{host}: the answer cannot be passed on: {why}")]
    Answer { host: String, why: String },
    #[error("too many hops: is there a loop?")]
    Hops,
}

impl Failure {
    fn status(&self) -> u16 {
        match self {
            Self::Request(_) => 500,
            Self::NotAllowed(_) => 503,
            Self::TimedOut { .. } | Self::Connect(ConnectError::TimedOut { .. }) => 504,
            Self::Connect(_) | Self::Exchange { .. } | Self::TooLarge { .. } | Self::Answer { .. } => 502,
            Self::Hops => 508,
        }
    }

    /// For the header `x-cellmesh-error`.
    fn code(&self) -> &'static str {
        match self {
            Self::Request(_) => "egress-request",
            Self::NotAllowed(_) | Self::Connect(ConnectError::Inward { .. }) => "egress-not-allowed",
            Self::Connect(ConnectError::Lookup { .. }) => "egress-lookup",
            Self::Connect(ConnectError::Tls { .. }) => "egress-tls",
            Self::Connect(ConnectError::TimedOut { .. }) | Self::TimedOut { .. } => "egress-timeout",
            Self::Connect(ConnectError::Refused { .. } | ConnectError::NoHost) => "egress-connect",
            Self::Exchange { .. } | Self::TooLarge { .. } | Self::Answer { .. } => "egress-answer",
            Self::Hops => "hop-limit",
        }
    }

    /// To a policy. An answer that cannot be passed on would be the same the next time, and so would a certificate.
    fn outcome(&self) -> Outcome {
        match self {
            Self::Connect(ConnectError::Tls { source, .. })
                if source.kind() != io::ErrorKind::InvalidData =>
            {
                Outcome::Failed(Trigger::Connect)
            }
            Self::Connect(
                ConnectError::Lookup { .. } | ConnectError::Refused { .. } | ConnectError::TimedOut { .. },
            ) => Outcome::Failed(Trigger::Connect),
            Self::TimedOut { .. } => Outcome::Failed(Trigger::Timeout),
            Self::Exchange { .. } => Outcome::Failed(Trigger::Reset),
            Self::Request(_)
            | Self::NotAllowed(_)
            | Self::Connect(ConnectError::Inward { .. } | ConnectError::NoHost | ConnectError::Tls { .. })
            | Self::TooLarge { .. }
            | Self::Answer { .. }
            | Self::Hops => Outcome::Final,
        }
    }

    fn answer(&self) -> ResponseMessage {
        let body = serde_json::json!({ "error": format!("call off this node: {self}") }).to_string();
        let head = format!("content-type: application/json\nx-cellmesh-error: {}\n", self.code());
        ResponseMessage { status: self.status(), fault: Fault::None, head: head.into(), body: body.into() }
    }
}

impl EgressClients {
    pub(crate) fn new(config: &EgressConfig, body_bytes_max: usize) -> Self {
        let connector = Connector::new(config);
        let client = |http2| client(config, connector.clone(), http2);
        let (http1, http2) = (client(false), client(true));
        let (connected, looking) = (RefCell::default(), RefCell::default());
        let connections = Connections { connector, http1, http2, connected, looking };
        Self { config: config.clone(), body_bytes_max, connections: Rc::new(connections) }
    }

    /// The same connections, for answers of another length.
    pub(crate) fn with_body_bytes_max(&self, body_bytes_max: usize) -> Self {
        Self { config: self.config.clone(), body_bytes_max, connections: Rc::clone(&self.connections) }
    }

    #[cfg(test)]
    pub(crate) fn shares_connections_with(&self, other: &Self) -> bool {
        Rc::ptr_eq(&self.connections, &other.connections)
    }

    #[cfg(test)]
    pub(crate) fn shares_directory_with(&self, other: &Self) -> bool {
        self.config.directory.is(&other.config.directory)
    }

    async fn try_elsewhere(&self, url: &str, message: &RequestMessage) -> Result<ResponseMessage, Failure> {
        let uri: Uri = url.parse().map_err(|_| Failure::Request(format!("{url:?} is no URL")))?;
        let Some(scheme) = uri.scheme_str().and_then(Scheme::parse) else {
            return Err(Failure::Request(format!("{url:?}: must begin with http:// or https://")));
        };
        let text = uri.authority().map_or("", http::uri::Authority::as_str);
        let authority =
            Authority::parse(text).ok_or_else(|| Failure::Request(format!("{text:?} is no host")))?;
        // Workers check it too, each for its own cells; what they say is not believed.
        if !self.config.allow.iter().any(|pattern| pattern.matches(scheme, authority)) {
            return Err(Failure::NotAllowed(authority.to_string()));
        }
        // Over TLS it says itself what it speaks.
        let speaks_http2 = scheme == Scheme::Http && self.speaks_http2(authority.host);
        let client = if speaks_http2 { &self.connections.http2 } else { &self.connections.http1 };
        let request = request(uri.clone(), message, text)?;
        self.exchange(client, request, &authority.to_string(), message.deadline, Callee::Host).await
    }

    /// Whether config says that a host speaks HTTP/2 in cleartext.
    fn speaks_http2(&self, host: &str) -> bool {
        self.config.http2.iter().any(|known| known.eq_ignore_ascii_case(host))
    }

    async fn exchange(
        &self,
        client: &HttpClient,
        request: Request<Full<Bytes>>,
        host: &str,
        deadline: Nanos,
        callee: Callee,
    ) -> Result<ResponseMessage, Failure> {
        let limit = deadline.saturating_since(Nanos::now()).min(self.config.try_timeout.0);
        let whole = async {
            let response = client.request(request).await.map_err(|error| failed(host, error))?;
            let is_node = callee == Callee::Node;
            self.answer(host, response, |name| is_node && name == ERROR_HEADER).await
        };
        let host = || host.to_owned();
        timeout(limit, whole).await.unwrap_or_else(|_| Err(Failure::TimedOut { host: host(), limit }))
    }

    /// `keeps`: headers of the mesh's own that are passed on all the same.
    async fn answer(
        &self,
        host: &str,
        response: Response<Incoming>,
        keeps: impl Fn(&str) -> bool,
    ) -> Result<ResponseMessage, Failure> {
        let bad = |why: String| Failure::Answer { host: host.to_owned(), why };
        let (parts, body) = response.into_parts();
        let named = NamedByConnection::of(&parts.headers)
            .ok_or_else(|| bad("its connection header names too many others".to_owned()))?;
        let mut head = BytesMut::new();
        for (name, value) in &parts.headers {
            let name = name.as_str();
            if (!goes_on(name) && !keeps(name)) || named.names(name) {
                continue;
            }
            head.extend_from_slice(name.as_bytes());
            head.extend_from_slice(b": ");
            head.extend_from_slice(value.as_bytes());
            head.extend_from_slice(b"\n");
        }
        HeaderLines(&head).check(HeadLimits::with_added()).map_err(|why| bad(why.to_string()))?;
        let limit = self.body_bytes_max;
        let body = Limited::new(body, limit).collect().await.map_err(|error| {
            if error.is::<LengthLimitError>() {
                return Failure::TooLarge { host: host.to_owned(), limit };
            }
            Failure::Exchange { host: host.to_owned(), why: with_causes(&*error) }
        })?;
        let status = parts.status.as_u16();
        Ok(ResponseMessage { status, fault: Fault::None, head: head.freeze(), body: body.to_bytes() })
    }
}

impl Egress {
    /// Calls ever sent off this node, and those of them without an answer of their callee.
    pub(crate) fn counts(&self) -> (u64, u64) {
        (self.sent.get(), self.failed.get())
    }

    /// Times that an address of a service was ejected as an outlier.
    pub(crate) fn ejections(&self) -> u64 {
        self.ejections.get()
    }

    /// Keeps what will be sent if there is no worker for it here.
    pub(crate) fn keep_spare(&self, slot: SlotId, spare: Spare) {
        self.spares.borrow_mut().insert(slot, spare);
    }

    pub(crate) fn take_spare(&self, slot: SlotId) -> Option<Spare> {
        self.spares.borrow_mut().remove(&slot)
    }

    pub(crate) fn clear_spares(&self) {
        self.spares.borrow_mut().clear();
    }

    /// Calls a host that is not of this application. `message`: its target is a URL.
    pub(crate) async fn call_elsewhere(
        &self,
        clients: &EgressClients,
        message: RequestMessage,
    ) -> ResponseMessage {
        let url = String::from_utf8_lossy(message.target()).into_owned();
        self.told(&message, clients.try_elsewhere(&url, &message).await).0
    }

    /// Calls a service of this application on another node. The answer, and what that is to a policy.
    pub(crate) async fn call_service(
        &self,
        clients: &EgressClients,
        way: &Way,
        message: RequestMessage,
    ) -> (ResponseMessage, Outcome) {
        let ejected = || self.ejections.set(self.ejections.get() + 1);
        self.told(&message, clients.try_service(way, &message, ejected).await)
    }

    fn told(
        &self,
        message: &RequestMessage,
        outcome: Result<ResponseMessage, Failure>,
    ) -> (ResponseMessage, Outcome) {
        self.sent.set(self.sent.get() + 1);
        match outcome {
            Ok(answer) => {
                let outcome = Outcome::Answered(answer.status);
                (answer, outcome)
            }
            Err(failure) => {
                self.failed.set(self.failed.get() + 1);
                let Origin { request_id, trace_id } = Origin::of(message.headers());
                tracing::debug!(request_id, trace_id, %failure, "a call off this node failed");
                (failure.answer(), failure.outcome())
            }
        }
    }
}

/// Connections to hosts, or to one address of a host, in HTTP/2 at once or in what is agreed on.
fn client(config: &EgressConfig, connector: Connector, http2: bool) -> HttpClient {
    pinging_client(config, connector, http2, PING_INTERVAL)
}

fn pinging_client(
    config: &EgressConfig,
    connector: Connector,
    http2: bool,
    interval: Duration,
) -> HttpClient {
    Client::builder(TokioExecutor::new())
        .pool_timer(TokioTimer::new())
        .timer(TokioTimer::new())
        .pool_idle_timeout(config.idle_timeout.0)
        .pool_max_idle_per_host(config.idle_connections_max as usize)
        .http1_max_headers(HeadLimits::with_added().lines_max + FRAMING_LINES)
        .http2_max_header_list_size(HEADER_LIST_BYTES_MAX)
        .http2_only(http2)
        .http2_keep_alive_interval(interval)
        .http2_keep_alive_timeout(PING_TIMEOUT)
        .http2_keep_alive_while_idle(http2)
        .set_host(false)
        .build(connector)
}

/// Whether a header is neither of a single hop nor of the mesh.
fn goes_on(name: &str) -> bool {
    !is_hop_by_hop(name) && name != "content-length" && !name.starts_with(MESH_PREFIX)
}

/// The request as HTTP, without what belongs to a single hop or to the mesh.
fn request(uri: Uri, message: &RequestMessage, host: &str) -> Result<Request<Full<Bytes>>, Failure> {
    let bad = |what: &str| Failure::Request(format!("{what} cannot be sent as HTTP"));
    let mut request = Request::new(Full::new(message.body.clone()));
    *request.method_mut() = Method::from_bytes(message.method()).map_err(|_| bad("the method"))?;
    if request.method() == Method::CONNECT {
        return Err(bad("CONNECT"));
    }
    *request.uri_mut() = uri;
    let lines = message.headers();
    lines.check(HeadLimits::with_added()).map_err(|why| Failure::Request(format!("bad header: {why}")))?;
    for (name, value) in lines.iter() {
        if !goes_on(name) || name == "host" {
            continue;
        }
        let value = HeaderValue::from_bytes(value).map_err(|_| bad(&format!("header {name}")))?;
        let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| bad(&format!("header {name}")))?;
        request.headers_mut().append(name, value);
    }
    // Whom the request goes to, and nobody else: what is behind a shared address is told apart by this header.
    let host = HeaderValue::from_str(host).map_err(|_| bad("the host"))?;
    request.headers_mut().insert(HOST, host);
    Ok(request)
}

/// Ours if the connection was not made, else HTTP's.
fn failed(host: &str, error: hyper_util::client::legacy::Error) -> Failure {
    let why = with_causes(&error);
    let mut source: Option<&(dyn Error + 'static)> = error.source();
    while let Some(cause) = source {
        if let Some(cause) = cause.downcast_ref::<ConnectError>() {
            return Failure::Connect(cause.again());
        }
        source = cause.source();
    }
    Failure::Exchange { host: host.to_owned(), why }
}

fn with_causes(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests;
