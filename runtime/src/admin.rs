//! The admin port: whether the process lives, whether it is ready for requests, and what it counts.
//!
//! | path | aliases | answer |
//! |---|---|---|
//! | `/livez` | `/healthz`, `/live` | 200 as long as all lanes answer, 503 otherwise |
//! | `/readyz` | `/ready` | 200, or 503 with a line for each thing that is missing |
//! | `/metrics` | | counters of all lanes, for Prometheus |
//! | `/log-level` | | what is logged; PUT changes it |
//! | `/v1/state` | | cells, who calls whom, and how full what is bounded is, as JSON |
//! | `/v1/requests` | | the requests that are kept; below it, each by its id |
//! | `/` | | the dashboard, a page that shows both |
//! | `/openapi.json` | | this list, for programs |
//!
//! - A port of its own, so that nobody asks it by accident and a drain does not close it.
//! - Whoever knows of something that is missing says so in [`Health`]; nothing is looked up when somebody asks.
//! - Clients that take all connections do not keep probes out: the oldest makes room (`admin/connections.rs`).

mod connections;
mod dashboard;
mod lanes;
pub mod metrics;
mod process;
mod requests;
mod state;

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::TcpListener as StdListener;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use cellmesh_dpu::{DpuConfig, Tls};
use http::header::{ALLOW, CONTENT_TYPE};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

use self::connections::{Connections, Standing};
pub use self::lanes::{Asked, Lane, lane};
use self::metrics::{Counts, Reloads};
use self::requests::Kept;
use crate::config::App;
use crate::logs::{self, FilterError};
use crate::pool::Pool;
use crate::trace::{Exported, LeftOut, TraceSettings};

const LOG_LEVEL: &str = "/log-level";
/// Longest text that says what is logged.
const FILTER_BYTES_MAX: usize = 4096;
/// What can be asked, as OpenAPI 3.1 says it.
const OPENAPI: &str = include_str!("admin/openapi.json");
/// Longest time for a request's head.
const HEAD_TIMEOUT: Duration = Duration::from_secs(5);
/// Longest time for a request's body.
const BODY_TIMEOUT: Duration = Duration::from_secs(5);
/// Longest life of a connection: a probe asks once.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(60);
/// How long a lane may take for an answer before it is taken for dead, and before its counters are missed: a lane never
/// runs a guest for longer than a tick.
const LIVE_PATIENCE: Duration = Duration::from_secs(5);
const METRICS_PATIENCE: Duration = Duration::from_secs(1);
/// Pause after an accept that failed for want of a resource.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What is missing before this process is ready. A cheap handle for all its threads.
#[derive(Debug, Clone, Default)]
pub struct Health(Arc<Mutex<BTreeMap<&'static str, String>>>);

impl Health {
    /// From now on `what` is missing, and why.
    pub fn missing(&self, what: &'static str, why: impl Into<String>) {
        self.reasons().insert(what, why.into());
    }

    /// `what` is not missing any more.
    pub fn found(&self, what: &'static str) {
        self.reasons().remove(what);
    }

    /// The process is told to end: it is not ready from now on.
    pub fn drain(&self) {
        self.missing("drain", "the process is told to end");
    }

    fn reasons(&self) -> MutexGuard<'_, BTreeMap<&'static str, String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A line for each thing that is missing.
    pub(crate) fn lines(&self) -> Vec<String> {
        self.reasons().iter().map(|(what, why)| format!("{what}: {why}")).collect()
    }

    fn readiness(&self) -> Response<Full<Bytes>> {
        let lines = self.lines();
        if lines.is_empty() {
            return text(StatusCode::OK, "ok\n".into());
        }
        text(StatusCode::SERVICE_UNAVAILABLE, lines.join("\n") + "\n")
    }
}

/// What a process is, for those who look at it.
#[derive(Debug, Clone)]
pub struct About {
    /// The command that it runs.
    pub command: &'static str,
    /// When it began.
    pub started: Instant,
    /// Of its network side, as it began.
    pub dpu: DpuConfig,
    /// What clients are served with over TLS, if it takes any in there.
    pub tls: Option<Tls>,
    /// What it keeps of requests.
    pub trace: TraceSettings,
    /// Where its long guest calls run, if it hosts cells.
    pub pool: Option<Pool>,
    /// What became of requests that are sent to a collector, if there is one.
    pub exported: Option<Exported>,
    /// Requests that no record was made of because there were too many at once.
    pub left_out: LeftOut,
}

impl About {
    /// A process that begins now.
    #[must_use]
    pub fn new(command: &'static str, app: &App) -> Self {
        Self {
            command,
            started: Instant::now(),
            dpu: app.dpu.clone(),
            tls: None,
            trace: app.trace.clone(),
            pool: None,
            exported: None,
            left_out: LeftOut::default(),
        }
    }
}

/// What the port answers from.
#[derive(Debug, Clone)]
struct Sources {
    about: Arc<About>,
    health: Health,
    lanes: Arc<[Lane]>,
    reloads: Option<Reloads>,
}

impl Sources {
    async fn answer(&self, request: Request<Incoming>, standing: &Standing) -> Response<Full<Bytes>> {
        let is_level = request.uri().path() == LOG_LEVEL;
        match *request.method() {
            Method::GET | Method::HEAD => {}
            Method::PUT if is_level => return set_log_level(request.into_body()).await,
            _ => {
                let allow = if is_level { "GET, HEAD, PUT" } else { "GET, HEAD" };
                let mut answer = text(StatusCode::METHOD_NOT_ALLOWED, format!("{allow} only\n"));
                answer.headers_mut().insert(ALLOW, HeaderValue::from_static(allow));
                return answer;
            }
        }
        let _answering = standing.answering();
        let path = request.uri().path();
        if let Some(answer) = dashboard::file(path) {
            return answer;
        }
        match path {
            "/livez" | "/healthz" | "/live" => match self.ask(LIVE_PATIENCE).await {
                Ok(_) => text(StatusCode::OK, "ok\n".into()),
                Err(silent) => text(StatusCode::SERVICE_UNAVAILABLE, silent),
            },
            "/readyz" | "/ready" => self.health.readiness(),
            "/metrics" => match self.ask(METRICS_PATIENCE).await {
                Ok(counts) => text(StatusCode::OK, {
                    let About { exported, left_out, pool, tls, .. } = &*self.about;
                    let certificate_until = tls.as_ref().and_then(Tls::good_until);
                    let (exported, pool) = (exported.as_ref(), pool.as_ref());
                    let beside = metrics::Beside { exported, left_out, pool, certificate_until };
                    metrics::text(&counts, self.reloads.as_ref(), &beside)
                }),
                Err(silent) => text(StatusCode::SERVICE_UNAVAILABLE, silent),
            },
            LOG_LEVEL => match logs::get() {
                Some(filter) => text(StatusCode::OK, format!("{filter}\n")),
                None => text(StatusCode::SERVICE_UNAVAILABLE, "this process has no log\n".into()),
            },
            "/v1/state" => match self.ask(METRICS_PATIENCE).await {
                Ok(counts) => json(StatusCode::OK, state::json(&self.about, &self.health, &counts)),
                Err(silent) => text(StatusCode::SERVICE_UNAVAILABLE, silent),
            },
            "/openapi.json" => json(StatusCode::OK, OPENAPI.into()),
            _ => match path.strip_prefix("/v1/requests") {
                Some(below) => self.requests(below).await,
                None => nothing_here(),
            },
        }
    }

    /// Requests that are kept: all, or the one whose id is behind a slash.
    async fn requests(&self, below: &str) -> Response<Full<Bytes>> {
        let mut records = Vec::new();
        for (index, lane) in self.lanes.iter().enumerate() {
            match lane.kept(METRICS_PATIENCE).await {
                Some(kept) => records.extend(kept),
                None => return text(StatusCode::SERVICE_UNAVAILABLE, silent(index, METRICS_PATIENCE)),
            }
        }
        let kept = Kept::new(records);
        let id = match below.strip_prefix('/') {
            None if below.is_empty() => {
                return json(StatusCode::OK, kept.list(&self.about.trace, self.lanes.len()));
            }
            None => return nothing_here(),
            Some(id) => id,
        };
        let found = match id.strip_suffix("/recording") {
            Some(id) => id.parse().ok().and_then(|id| kept.recording(id)),
            None => id.parse().ok().and_then(|id| kept.one(id)),
        };
        found.map_or_else(
            || {
                let why = "no request of this id is kept (any more), or it was not recorded: /v1/requests lists those that are";
                json(StatusCode::NOT_FOUND, serde_json::json!({ "error": why }).to_string())
            },
            |found| json(StatusCode::OK, found),
        )
    }

    /// What all lanes know, or which one is silent.
    async fn ask(&self, patience: Duration) -> Result<Vec<Counts>, String> {
        let mut counts = Vec::with_capacity(self.lanes.len());
        for (index, lane) in self.lanes.iter().enumerate() {
            counts.push(lane.counts(patience).await.ok_or_else(|| silent(index, patience))?);
        }
        Ok(counts)
    }
}

fn silent(lane: usize, patience: Duration) -> String {
    format!("lane {lane} did not answer within {patience:?}\n")
}

fn nothing_here() -> Response<Full<Bytes>> {
    let here =
        "here are /, /livez, /readyz, /metrics, /log-level, /v1/state, /v1/requests and /openapi.json\n";
    text(StatusCode::NOT_FOUND, here.into())
}

/// Takes the body for what is to be logged from now on.
async fn set_log_level(body: Incoming) -> Response<Full<Bytes>> {
    let body = match timeout(BODY_TIMEOUT, Limited::new(body, FILTER_BYTES_MAX).collect()).await {
        Ok(Ok(body)) => body,
        Ok(Err(_)) => {
            return text(StatusCode::PAYLOAD_TOO_LARGE, format!("at most {FILTER_BYTES_MAX} bytes\n"));
        }
        Err(_) => {
            let why = format!("the body did not arrive within {BODY_TIMEOUT:?}\n");
            return text(StatusCode::REQUEST_TIMEOUT, why);
        }
    };
    match logs::set(&String::from_utf8_lossy(&body.to_bytes())) {
        Ok(()) => text(StatusCode::OK, format!("{}\n", logs::get().unwrap_or_default())),
        Err(error @ FilterError::Parse { .. }) => text(StatusCode::BAD_REQUEST, format!("{error}\n")),
        Err(error @ FilterError::NoLog) => text(StatusCode::SERVICE_UNAVAILABLE, format!("{error}\n")),
    }
}

fn text(status: StatusCode, text: String) -> Response<Full<Bytes>> {
    answer(status, "text/plain; charset=utf-8", text)
}

fn json(status: StatusCode, text: String) -> Response<Full<Bytes>> {
    answer(status, "application/json", text)
}

fn answer(status: StatusCode, kind: &'static str, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut answer = Response::new(Full::new(body.into()));
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    answer
}

/// Answers until it is dropped.
///
/// # Errors
/// If the listener cannot be used at all. Failing accepts are waited out.
pub async fn serve(
    listener: StdListener,
    about: About,
    health: Health,
    lanes: Vec<Lane>,
    reloads: Option<Reloads>,
) -> std::io::Result<()> {
    let sources = Sources { about: Arc::new(about), health, lanes: lanes.into(), reloads };
    listener.set_nonblocking(true)?;
    let listener = TcpListener::from_std(listener)?;
    let mut connections = Connections::default();
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                let (sources, standing) = (sources.clone(), Standing::default());
                let served = serve_one(stream, sources, standing.clone());
                // Cut after its time: there is nothing to say to one that asks for longer.
                let served = tokio::spawn(timeout(CONNECTION_TIMEOUT, served));
                connections.add(served.abort_handle(), standing);
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept connections to the admin port");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn serve_one(stream: TcpStream, sources: Sources, standing: Standing) {
    let (sources, standing) = (&sources, &standing);
    let service =
        service_fn(|request| async move { Ok::<_, Infallible>(sources.answer(request, standing).await) });
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT);
    if let Err(error) = http.serve_connection(TokioIo::new(stream), service).await {
        tracing::debug!(%error, "a connection to the admin port ended");
    }
}
