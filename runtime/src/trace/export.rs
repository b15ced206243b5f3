//! Exporter: sends what was kept to a collector, OTLP over HTTP.
//!
//! - A lane never waits for it: what finds no room is dropped, and counted.
//! - A collector that is away is tried again for a while; what it refuses is dropped. Both are said in the log once, not for
//!   each message.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Context;
use bytes::Bytes;
use cellmesh_dpu::egress::trust;
use http::header::{CONTENT_TYPE, USER_AGENT};
use http::{HeaderValue, Method, Request, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};

use super::otlp;
use super::record::{IngressRecord, RequestRecord};
use super::resource::Resource;
use super::settings::Otlp;

/// Requests that wait to be sent.
const WAITING_MAX: usize = 2048;
/// Requests in one message, and how long the first of them waits for more.
const BATCH_MAX: usize = 256;
/// Parts of requests in one message, but for those of its last request.
const PARTS_MAX: usize = 4096;
const BATCH_PATIENCE: Duration = Duration::from_secs(1);
/// Longest time for one try. Source: the default of OTLP exporters.
const TRY_TIMEOUT: Duration = Duration::from_secs(10);
/// Tries of one message, and the first pause between two; each pause is twice the one before.
const TRIES_MAX: u32 = 5;
const FIRST_PAUSE: Duration = Duration::from_millis(500);
/// What is read of an answer.
const ANSWER_BYTES_MAX: usize = 64 << 10;

/// What became of requests that were to be exported. A cheap handle.
#[derive(Debug, Clone, Default)]
pub struct Exported(Arc<Counts>);

#[derive(Debug, Default)]
struct Counts {
    sent: AtomicU64,
    failed: AtomicU64,
    dropped: AtomicU64,
}

/// What is sent to a collector.
#[derive(Debug, Clone)]
pub(crate) enum Outgoing {
    /// A request as its cell had it.
    Request(Arc<RequestRecord>),
    /// A client's request as the network side had it.
    Ingress(Arc<IngressRecord>),
}

impl Outgoing {
    /// Spans that come of it, or one more.
    fn parts(&self) -> usize {
        match self {
            Self::Request(record) => record.spans.len() + 2,
            Self::Ingress(_) => 1,
        }
    }
}

/// A lane's way to the exporter.
#[derive(Debug, Clone)]
pub(crate) struct Outbox {
    to: mpsc::Sender<Outgoing>,
    counts: Exported,
}

/// Sends for all lanes of a process.
#[derive(Debug)]
pub struct Exporter {
    from: mpsc::Receiver<Outgoing>,
    otlp: Otlp,
    resource: Resource,
    counts: Exported,
    /// The last message did not reach the collector, which was said.
    is_failing: bool,
}

impl Exported {
    /// What can become of a request, in one word for metrics each.
    pub const OUTCOMES: [&'static str; 3] = ["sent", "failed", "dropped"];

    /// Requests that a collector took, that it did not take, and that found no room: the places of [`Exported::OUTCOMES`].
    #[must_use]
    pub fn counts(&self) -> [u64; Self::OUTCOMES.len()] {
        // Relaxed, here and below: counters that nothing else depends on.
        [&self.0.sent, &self.0.failed, &self.0.dropped].map(|counter| counter.load(Ordering::Relaxed))
    }
}

impl Outbox {
    pub(crate) fn send(&self, record: Outgoing) {
        if self.to.try_send(record).is_err() {
            self.counts.0.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Exporter {
    /// One for this collector, and the way to it.
    #[must_use]
    pub(crate) fn new(otlp: &Otlp) -> (Outbox, Self) {
        let (to, from) = mpsc::channel(WAITING_MAX);
        let counts = Exported::default();
        let resource = otlp.resource.clone().of_this_process();
        let exporter = Self { from, otlp: otlp.clone(), resource, counts: counts.clone(), is_failing: false };
        (Outbox { to, counts }, exporter)
    }

    /// What it counts.
    #[must_use]
    pub fn counts(&self) -> Exported {
        self.counts.clone()
    }

    /// What waits to be sent, for tests.
    #[cfg(test)]
    pub(super) fn next_waiting(&mut self) -> Option<Outgoing> {
        self.from.try_recv().ok()
    }

    /// Sends until all lanes have ended and nothing waits.
    ///
    /// # Errors
    /// When this system's CAs are needed and there are none.
    pub async fn run(mut self) -> anyhow::Result<()> {
        if let Some(why) = &self.resource.malformed {
            tracing::warn!("{why}");
        }
        let client = client(&self.otlp).await?;
        let mut batch = Vec::with_capacity(BATCH_MAX);
        while self.fill(&mut batch).await {
            self.send(&client, &batch).await;
            batch.clear();
        }
        Ok(())
    }

    /// Waits for a first request, and a little for more. Returns whether there is one.
    async fn fill(&mut self, batch: &mut Vec<Outgoing>) -> bool {
        match self.from.recv().await {
            Some(first) => batch.push(first),
            None => return false,
        }
        let more = async {
            let mut room = PARTS_MAX.saturating_sub(batch.iter().map(Outgoing::parts).sum());
            while batch.len() < BATCH_MAX && room > 0 {
                let Some(next) = self.from.recv().await else { break };
                room = room.saturating_sub(next.parts());
                batch.push(next);
            }
        };
        // What has come until then is in the batch.
        let _ = timeout(BATCH_PATIENCE, more).await;
        true
    }

    async fn send(&mut self, client: &HttpClient, batch: &[Outgoing]) {
        let body = Bytes::from(otlp::message(batch, &self.resource));
        let mut pause = FIRST_PAUSE;
        for tries_left in (0..TRIES_MAX).rev() {
            let why = match timeout(TRY_TIMEOUT, post(client, &self.otlp, body.clone())).await {
                Ok(Ok(status)) if status.is_success() => return self.sent(batch.len()),
                Ok(Ok(status)) if !is_worth_a_try(status) => {
                    return self.gave_up(batch.len(), &status.to_string());
                }
                Ok(Ok(status)) => status.to_string(),
                Ok(Err(error)) => format!("{error:#}"),
                Err(_) => format!("no answer within {TRY_TIMEOUT:?}"),
            };
            // When the lanes have ended the process wants to end too.
            if tries_left == 0 || self.from.is_closed() {
                return self.gave_up(batch.len(), &why);
            }
            sleep(pause).await;
            pause *= 2;
        }
    }

    fn sent(&mut self, count: usize) {
        self.counts.0.sent.fetch_add(count as u64, Ordering::Relaxed);
        if std::mem::take(&mut self.is_failing) {
            tracing::info!(collector = self.otlp.place(), "the collector takes traces again");
        }
    }

    fn gave_up(&mut self, count: usize, why: &str) {
        self.counts.0.failed.fetch_add(count as u64, Ordering::Relaxed);
        if !std::mem::replace(&mut self.is_failing, true) {
            tracing::warn!(
                collector = self.otlp.place(),
                why,
                "traces are lost: the collector does not take them"
            );
        }
    }
}

type HttpClient = Client<HttpsConnector<HttpConnector>, Full<Bytes>>;

async fn client(otlp: &Otlp) -> anyhow::Result<HttpClient> {
    let tls = if otlp.url.scheme_str() == Some("https") {
        let read = tokio::task::spawn_blocking(|| trust::client_of(None)).await?;
        read.map_err(anyhow::Error::msg)?
    } else {
        trust::client_of_nobody()
    };
    let mut tls = (*tls).clone();
    // It speaks HTTP/1.1, and the connector says so itself.
    tls.alpn_protocols.clear();
    let connector = HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http().enable_http1().build();
    Ok(Client::builder(TokioExecutor::new()).build(connector))
}

async fn post(client: &HttpClient, otlp: &Otlp, body: Bytes) -> anyhow::Result<StatusCode> {
    let mut request = Request::new(Full::new(body));
    (*request.method_mut(), *request.uri_mut()) = (Method::POST, otlp.url.clone());
    let headers = request.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(USER_AGENT, HeaderValue::from_static(concat!("cellmesh/", env!("CARGO_PKG_VERSION"))));
    headers.extend(otlp.headers.iter().cloned());
    let answer = client.request(request).await.context("cannot be reached")?;
    let status = answer.status();
    // To its end, so that the connection serves again; one that says more is closed.
    let _ = Limited::new(answer.into_body(), ANSWER_BYTES_MAX).collect().await;
    Ok(status)
}

/// Source: OTLP over HTTP, "Retryable Response Codes".
fn is_worth_a_try(status: StatusCode) -> bool {
    matches!(status.as_u16(), 429 | 502 | 503 | 504)
}
