//! A client of the admin port.

use std::time::Duration;

use anyhow::{Context, bail};
use bytes::Bytes;
use http::{Request, Uri};
use http_body_util::{BodyExt, Empty, Limited};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde::de::DeserializeOwned;

use super::graph::title;

/// Longest time for an answer, and the most of it that is read.
const PATIENCE: Duration = Duration::from_secs(5);
const ANSWER_BYTES_MAX: usize = 64 << 20;

/// The admin port of a process.
pub(crate) struct AdminPort {
    base: String,
    client: Client<HttpConnector, Empty<Bytes>>,
}

impl AdminPort {
    /// - `address`: `127.0.0.1:9901`, with or without `http://` before it.
    /// # Errors
    /// It is no address.
    pub(crate) fn new(address: &str) -> anyhow::Result<Self> {
        let base = address.trim_end_matches('/');
        let base = if base.contains("://") { base.to_owned() } else { format!("http://{base}") };
        let uri: Option<Uri> = base.parse().ok();
        if uri.is_none_or(|uri| uri.scheme_str() != Some("http") || uri.port().is_none()) {
            bail!("{address:?}: must be the admin port of a cellmesh process, such as 127.0.0.1:9901");
        }
        Ok(Self { base, client: Client::builder(TokioExecutor::new()).build_http() })
    }

    /// What it answers for `path`.
    ///
    /// # Errors
    /// No answer, an error, or something else than what was asked for.
    pub(crate) async fn get<T: DeserializeOwned>(&self, path: &str) -> anyhow::Result<T> {
        let url = format!("{}{path}", self.base);
        let asked = tokio::time::timeout(PATIENCE, self.ask(&url)).await;
        let body = asked.with_context(|| format!("{url}: no answer within {PATIENCE:?}"))??;
        serde_json::from_slice(&body).with_context(|| format!("{url}: no answer of a cellmesh admin port"))
    }

    async fn ask(&self, url: &str) -> anyhow::Result<Bytes> {
        let request = Request::get(url).body(Empty::new()).with_context(|| url.to_owned())?;
        let answer = self.client.request(request).await;
        let answer = answer.with_context(|| {
            format!(
                "{url} cannot be reached: is [admin] listen (or --admin) of the process set to this address?"
            )
        })?;
        let status = answer.status();
        let body = Limited::new(answer.into_body(), ANSWER_BYTES_MAX).collect().await;
        let body = body.map_err(|error| anyhow::anyhow!("{url}: {error}"))?.to_bytes();
        if !status.is_success() {
            let said: Option<serde_json::Value> = serde_json::from_slice(&body).ok();
            let said = said.and_then(|said| said["error"].as_str().map(title));
            bail!("{url}: {}", said.unwrap_or_else(|| status.to_string()));
        }
        Ok(body)
    }
}
