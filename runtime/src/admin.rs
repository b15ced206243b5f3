//! The admin port: whether the process lives, whether it is ready for requests, and what it counts.
//!
//! | path | aliases | answer |
//! |---|---|---|
//! | `/livez` | `/healthz`, `/live` | 200 as long as all lanes answer, 503 otherwise |
//! | `/readyz` | `/ready` | 200, or 503 with a line for each thing that is missing |
//! | `/metrics` | | counters of all lanes, for Prometheus |
//! | `/log-level` | | what is logged; PUT changes it |
//! | `/openapi.json` | | this list, for programs |
//!
//! - A port of its own, so that nobody asks it by accident and a drain does not close it.
//! - Whoever knows of something that is missing says so in [`Health`]; nothing is looked up when somebody asks.

pub mod metrics;

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::TcpListener as StdListener;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::header::{ALLOW, CONTENT_TYPE};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

use self::metrics::{Counts, Lane, Reloads};
use crate::logs::{self, FilterError};

const LOG_LEVEL: &str = "/log-level";
/// Longest text that says what is logged.
const FILTER_BYTES_MAX: usize = 4096;
/// What can be asked, as OpenAPI 3.1 says it.
const OPENAPI: &str = include_str!("admin/openapi.json");
/// Connections at once; more wait.
const CONNECTIONS_MAX: usize = 64;
/// Longest time for a request's head.
const HEAD_TIMEOUT: Duration = Duration::from_secs(5);
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

    fn readiness(&self) -> Response<Full<Bytes>> {
        let reasons = self.reasons();
        if reasons.is_empty() {
            return text(StatusCode::OK, "ok\n".into());
        }
        let lines = reasons.iter().map(|(what, why)| format!("{what}: {why}\n")).collect();
        text(StatusCode::SERVICE_UNAVAILABLE, lines)
    }
}

/// What the port answers from.
#[derive(Debug, Clone)]
struct Sources {
    health: Health,
    lanes: Arc<[Lane]>,
    reloads: Option<Reloads>,
}

impl Sources {
    async fn answer(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
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
        match request.uri().path() {
            "/livez" | "/healthz" | "/live" => match self.ask(LIVE_PATIENCE).await {
                Ok(_) => text(StatusCode::OK, "ok\n".into()),
                Err(silent) => text(StatusCode::SERVICE_UNAVAILABLE, silent),
            },
            "/readyz" | "/ready" => self.health.readiness(),
            "/metrics" => match self.ask(METRICS_PATIENCE).await {
                Ok(counts) => text(StatusCode::OK, metrics::text(&counts, self.reloads.as_ref())),
                Err(silent) => text(StatusCode::SERVICE_UNAVAILABLE, silent),
            },
            LOG_LEVEL => match logs::get() {
                Some(filter) => text(StatusCode::OK, format!("{filter}\n")),
                None => text(StatusCode::SERVICE_UNAVAILABLE, "this process has no log\n".into()),
            },
            "/openapi.json" => {
                let mut answer = text(StatusCode::OK, OPENAPI.into());
                answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
                answer
            }
            _ => text(
                StatusCode::NOT_FOUND,
                "here are /livez, /readyz, /metrics, /log-level and /openapi.json\n".into(),
            ),
        }
    }

    /// What all lanes know, or which one is silent.
    async fn ask(&self, patience: Duration) -> Result<Vec<Counts>, String> {
        let mut counts = Vec::with_capacity(self.lanes.len());
        for (index, lane) in self.lanes.iter().enumerate() {
            let answer = lane.ask(patience).await;
            counts.push(answer.ok_or_else(|| format!("lane {index} did not answer within {patience:?}\n"))?);
        }
        Ok(counts)
    }
}

/// Takes the body for what is to be logged from now on.
async fn set_log_level(body: Incoming) -> Response<Full<Bytes>> {
    let Ok(body) = Limited::new(body, FILTER_BYTES_MAX).collect().await else {
        return text(StatusCode::PAYLOAD_TOO_LARGE, format!("at most {FILTER_BYTES_MAX} bytes\n"));
    };
    match logs::set(&String::from_utf8_lossy(&body.to_bytes())) {
        Ok(()) => text(StatusCode::OK, format!("{}\n", logs::get().unwrap_or_default())),
        Err(error @ FilterError::Parse { .. }) => text(StatusCode::BAD_REQUEST, format!("{error}\n")),
        Err(error @ FilterError::NoLog) => text(StatusCode::SERVICE_UNAVAILABLE, format!("{error}\n")),
    }
}

fn text(status: StatusCode, text: String) -> Response<Full<Bytes>> {
    let mut answer = Response::new(Full::new(Bytes::from(text)));
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    answer
}

/// Answers until it is dropped.
///
/// # Errors
/// If the listener cannot be used at all. Failing accepts are waited out.
pub async fn serve(
    listener: StdListener,
    health: Health,
    lanes: Vec<Lane>,
    reloads: Option<Reloads>,
) -> std::io::Result<()> {
    let sources = Sources { health, lanes: lanes.into(), reloads };
    listener.set_nonblocking(true)?;
    let listener = TcpListener::from_std(listener)?;
    let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let place = Arc::clone(&room).acquire_owned().await.expect("never closed");
        match listener.accept().await {
            Ok((stream, _)) => {
                let sources = sources.clone();
                tokio::spawn(async move {
                    // Cut after its time: there is nothing to say to one that asks for longer.
                    let _ = tokio::time::timeout(CONNECTION_TIMEOUT, serve_one(stream, sources)).await;
                    drop(place);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept connections to the admin port");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn serve_one(stream: TcpStream, sources: Sources) {
    let sources = &sources;
    let service = service_fn(|request| async move { Ok::<_, Infallible>(sources.answer(request).await) });
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT);
    if let Err(error) = http.serve_connection(TokioIo::new(stream), service).await {
        tracing::debug!(%error, "a connection to the admin port ended");
    }
}
