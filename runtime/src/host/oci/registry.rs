//! A registry, asked over HTTP: manifests and blobs, by digest.
//!
//! ```text
//! GET /v2/REPOSITORY/manifests/DIGEST  --401--> GET REALM?service&scope --> once more, with the token
//!     /v2/REPOSITORY/blobs/DIGEST      --307--> wherever it lies, without the token
//! ```
//!
//! - HTTP/1.1, a connection for each request: there are three or four.
//! - Credentials and tokens are for the registry's own address, and for the realm that it names, over TLS unless config
//!   says otherwise. Nobody who is redirected to gets them.
//! - Every request, try, redirect and body has a bound.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use http::header::{ACCEPT, AUTHORIZATION, HOST, LOCATION, USER_AGENT, WWW_AUTHENTICATE};
use http::{HeaderValue, Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt, Empty};
use hyper::body::{Body, Bytes, Incoming};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use serde::Deserialize;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::challenge::{self, Challenge};
use super::credentials::{self, Credentials};
use super::reference::{Reference, is_loopback, split_port};
use super::{OciError, RegistrySettings};

/// From a name to a connection, TLS included.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// From a request to the head of its answer, and between two pieces of a body.
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);
/// Tries of one request. A registry that restarts is back within the pauses of an orchestrator, not within ours.
const TRIES_MAX: u32 = 3;
/// Before the second try; twice as long before the third.
const PAUSE: Duration = Duration::from_millis(200);
/// One to where the blob lies is usual, and one more for a mirror.
const REDIRECTS_MAX: usize = 5;
/// Longest answer of those who give tokens. Tokens have a few KiB.
const TOKEN_BYTES_MAX: usize = 256 << 10;

/// Somebody to read from and write to.
trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// One repository of one registry.
pub(super) struct Registry<'a> {
    reference: &'a Reference,
    settings: &'a RegistrySettings,
    /// Read when it is needed first.
    tls: Option<Arc<ClientConfig>>,
    /// What the registry wants to see.
    authorization: Option<HeaderValue>,
}

/// Something to get from it.
#[derive(Clone, Copy)]
pub(super) struct Wanted<'w> {
    /// For messages: `manifest` or `component`.
    pub(super) what: &'static str,
    /// Below the repository.
    pub(super) path: &'w str,
    pub(super) accept: &'static str,
    pub(super) bytes_max: usize,
}

impl<'a> Registry<'a> {
    pub(super) fn new(reference: &'a Reference, settings: &'a RegistrySettings) -> Self {
        Self { reference, settings, tls: None, authorization: None }
    }

    /// The bytes of what is wanted, with a few tries. Nobody has compared them with anything yet.
    pub(super) async fn get(&mut self, wanted: Wanted<'_>) -> Result<Vec<u8>, OciError> {
        let mut pause = PAUSE;
        for _ in 1..TRIES_MAX {
            match self.try_to_get(wanted).await {
                Err(error) if error.may_pass() => {
                    tracing::warn!(error = %OneLine(&error), "the registry is asked once more");
                    tokio::time::sleep(pause).await;
                    pause *= 2;
                }
                ended => return ended,
            }
        }
        self.try_to_get(wanted).await
    }

    async fn try_to_get(&mut self, wanted: Wanted<'_>) -> Result<Vec<u8>, OciError> {
        let Reference { registry, repository, .. } = self.reference;
        let scheme = if self.settings.is_plain(registry) { "http" } else { "https" };
        let uri = parse_uri(&format!("{scheme}://{registry}/v2/{repository}/{}", wanted.path))?;
        let mut answer = self.ask(&uri, wanted.accept, self.authorization.clone()).await?;
        if answer.status() == StatusCode::UNAUTHORIZED {
            let asked_for = challenge_of(&answer);
            self.authorization = Some(self.authorize(asked_for).await?);
            answer = self.ask(&uri, wanted.accept, self.authorization.clone()).await?;
        }
        let answer = self.follow(uri, answer, wanted.accept).await?;
        self.judge(&answer, wanted)?;
        body(answer, wanted.what, wanted.bytes_max).await
    }

    /// Goes where the registry says that it is.
    async fn follow(
        &mut self,
        mut uri: Uri,
        mut answer: Response<Incoming>,
        accept: &'static str,
    ) -> Result<Response<Incoming>, OciError> {
        for redirects in 0.. {
            if !answer.status().is_redirection() {
                return Ok(answer);
            }
            if redirects == REDIRECTS_MAX {
                break;
            }
            let location = answer.headers().get(LOCATION).and_then(|location| location.to_str().ok());
            let location = location.unwrap_or_default();
            let next = if location.starts_with('/') {
                let authority = uri.authority().map_or("", |authority| authority.as_str());
                format!("{}://{authority}{location}", uri.scheme_str().unwrap_or("https"))
            } else {
                location.to_owned()
            };
            uri = parse_uri(&next)?;
            self.check_scheme(&uri)?;
            answer = self.ask(&uri, accept, None).await?;
        }
        Err(OciError::Redirects { registry: self.reference.registry.clone(), max: REDIRECTS_MAX })
    }

    /// Whoever names another place may not name one that anybody can listen to; nor one on this machine, if it is not here
    /// itself.
    fn check_scheme(&self, uri: &Uri) -> Result<(), OciError> {
        let authority = uri.authority().map_or("", |authority| authority.as_str());
        let is_plain = |authority| self.settings.is_plain(authority);
        match uri.scheme_str() {
            Some("https") => Ok(()),
            Some("http") if is_plain(authority) && is_plain(&self.reference.registry) => Ok(()),
            _ => {
                Err(OciError::Plain { registry: self.reference.registry.clone(), place: without_query(uri) })
            }
        }
    }

    fn judge(&self, answer: &Response<Incoming>, wanted: Wanted<'_>) -> Result<(), OciError> {
        let Reference { registry, repository, .. } = self.reference;
        let (registry, what, status) = (registry.clone(), wanted.what, answer.status());
        match status {
            StatusCode::OK => Ok(()),
            StatusCode::NOT_FOUND => {
                Err(OciError::NotThere { registry, repository: repository.clone(), what })
            }
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Err(self.refused(status)),
            _ => Err(OciError::Status { registry, what, status }),
        }
    }

    /// Credentials do not help, or there are none.
    fn refused(&self, status: StatusCode) -> OciError {
        let file = credentials::file(self.settings.credentials.as_deref());
        let file = file.map_or_else(|| "no file".to_owned(), |file| file.display().to_string());
        let has_some = matches!(self.credentials(), Ok(Some(_)));
        let registry = self.reference.registry.clone();
        if has_some {
            OciError::Refused { registry, status, file }
        } else {
            OciError::NoCredentials { registry, status, file }
        }
    }

    fn credentials(&self) -> Result<Option<Credentials>, OciError> {
        Ok(credentials::find(self.settings.credentials.as_deref(), &self.reference.registry)?)
    }

    /// What to show a registry that wants to see something.
    async fn authorize(&mut self, asked_for: Option<Challenge>) -> Result<HeaderValue, OciError> {
        let credentials = self.credentials()?;
        let shown = match asked_for {
            Some(Challenge::Bearer { realm, service, scope }) => {
                format!("Bearer {}", self.token(&realm, service, scope, credentials).await?)
            }
            Some(Challenge::Basic) => match credentials {
                Some(credentials) => credentials.basic(),
                None => return Err(self.refused(StatusCode::UNAUTHORIZED)),
            },
            None => return Err(OciError::Challenge { registry: self.reference.registry.clone() }),
        };
        secret(&shown).ok_or_else(|| OciError::Token { registry: self.reference.registry.clone() })
    }

    /// A token, for whoever we are; without credentials for anybody.
    async fn token(
        &mut self,
        realm: &str,
        service: Option<String>,
        scope: Option<String>,
        credentials: Option<Credentials>,
    ) -> Result<String, OciError> {
        #[derive(Deserialize)]
        struct Answer {
            token: Option<String>,
            access_token: Option<String>,
        }
        let scope = scope.unwrap_or_else(|| format!("repository:{}:pull", self.reference.repository));
        let mut query = form_urlencoded::Serializer::new(String::new());
        query.extend_pairs(service.map(|service| ("service", service))).append_pair("scope", &scope);
        let join = if realm.contains('?') { '&' } else { '?' };
        let uri = parse_uri(&format!("{realm}{join}{}", query.finish()))?;
        self.check_scheme(&uri)?;
        let authorization = credentials.and_then(|credentials| secret(&credentials.basic()));
        let answer = self.ask(&uri, "application/json", authorization).await?;
        let (registry, status) = (self.reference.registry.clone(), answer.status());
        if matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) {
            return Err(self.refused(status));
        }
        if status != StatusCode::OK {
            return Err(OciError::Status { registry, what: "token", status });
        }
        let text = body(answer, "token", TOKEN_BYTES_MAX).await?;
        let answer: Option<Answer> = serde_json::from_slice(&text).ok();
        answer.and_then(|answer| answer.token.or(answer.access_token)).ok_or(OciError::Token { registry })
    }

    /// One request, and the head of its answer.
    async fn ask(
        &mut self,
        uri: &Uri,
        accept: &'static str,
        authorization: Option<HeaderValue>,
    ) -> Result<Response<Incoming>, OciError> {
        let place = || uri.authority().map_or_else(String::new, ToString::to_string);
        let stream = timeout(CONNECT_TIMEOUT, self.connect(uri)).await;
        let stream = stream.unwrap_or_else(|_| {
            Err(OciError::TimedOut { place: place(), what: "connection", limit: CONNECT_TIMEOUT })
        })?;
        let broken = |source| OciError::Broken { place: place(), source };
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
        // It ends with the answer's body, or when that is dropped.
        tokio::spawn(connection);
        let target = uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str);
        // A URL may have a query and no path; a request may not.
        let target = if target.starts_with('/') { target.to_owned() } else { format!("/{target}") };
        let mut request = Request::get(target)
            .header(HOST, place())
            .header(ACCEPT, accept)
            .header(USER_AGENT, concat!("cellmesh/", env!("CARGO_PKG_VERSION")))
            .body(Empty::<Bytes>::new())
            .map_err(|_| OciError::Url { found: without_query(uri) })?;
        if let Some(authorization) = authorization {
            request.headers_mut().insert(AUTHORIZATION, authorization);
        }
        match timeout(IDLE_TIMEOUT, sender.send_request(request)).await {
            Ok(answer) => answer.map_err(broken),
            Err(_) => Err(OciError::TimedOut { place: place(), what: "answer", limit: IDLE_TIMEOUT }),
        }
    }

    async fn connect(&mut self, uri: &Uri) -> Result<Box<dyn Stream>, OciError> {
        let authority = uri.authority().map_or("", |authority| authority.as_str());
        let failed = |source| OciError::Connect { place: authority.to_owned(), source };
        let (is_plain, host) = (uri.scheme_str() == Some("http"), uri.host().unwrap_or_default());
        let host = host.trim_matches(['[', ']']);
        let port = uri.port_u16().unwrap_or(if is_plain { 80 } else { 443 });
        let tcp = TcpStream::connect((host, port)).await.map_err(failed)?;
        if is_plain {
            return Ok(Box::new(tcp));
        }
        let name = ServerName::try_from(host.to_owned());
        let name = name.map_err(|error| failed(io::Error::new(io::ErrorKind::InvalidInput, error)))?;
        let tls = TlsConnector::from(self.tls()?).connect(name, tcp).await.map_err(failed)?;
        Ok(Box::new(tls))
    }

    /// Who is believed: CAs of the system, or those that config names.
    fn tls(&mut self) -> Result<Arc<ClientConfig>, OciError> {
        if let Some(tls) = &self.tls {
            return Ok(Arc::clone(tls));
        }
        let client = cellmesh_dpu::egress::trust::client_of(self.settings.cas.as_ref());
        let mut client = client.map_err(OciError::Trust)?;
        Arc::make_mut(&mut client).alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Arc::clone(self.tls.insert(client)))
    }
}

impl RegistrySettings {
    /// Whether this registry (`host` or `host:port`) is spoken to without TLS.
    fn is_plain(&self, authority: &str) -> bool {
        let (host, _) = split_port(authority);
        match &self.plain_http {
            Some(named) => named
                .iter()
                .any(|name| name.eq_ignore_ascii_case(authority) || name.eq_ignore_ascii_case(host)),
            None => is_loopback(host),
        }
    }
}

fn challenge_of(answer: &Response<Incoming>) -> Option<Challenge> {
    let headers = answer.headers().get_all(WWW_AUTHENTICATE);
    challenge::best(headers.iter().filter_map(|header| header.to_str().ok()))
}

/// A header that nothing logs.
fn secret(text: &str) -> Option<HeaderValue> {
    let mut header = HeaderValue::from_str(text).ok()?;
    header.set_sensitive(true);
    Some(header)
}

fn parse_uri(text: &str) -> Result<Uri, OciError> {
    // A name before the host would be taken for the host by who reads only up to a colon.
    let is_whole = |uri: &Uri| uri.authority().is_some_and(|authority| !authority.as_str().contains('@'));
    let uri = text.parse::<Uri>().ok().filter(|uri| is_whole(uri) && uri.scheme().is_some());
    uri.ok_or_else(|| OciError::Url { found: text.chars().take(200).collect() })
}

/// What is signed in a query is nobody's business.
fn without_query(uri: &Uri) -> String {
    uri.to_string().split('?').next().unwrap_or_default().to_owned()
}

async fn body(answer: Response<Incoming>, what: &'static str, bytes_max: usize) -> Result<Vec<u8>, OciError> {
    let mut body = answer.into_body();
    let too_long = || OciError::TooLong { what, max: bytes_max };
    if body.size_hint().lower() > bytes_max as u64 {
        return Err(too_long());
    }
    let mut bytes = Vec::new();
    loop {
        let frame = timeout(IDLE_TIMEOUT, body.frame()).await;
        let frame = frame.map_err(|_| OciError::TimedOut {
            place: "the registry".into(),
            what: "next piece",
            limit: IDLE_TIMEOUT,
        })?;
        match frame {
            None => return Ok(bytes),
            Some(Err(source)) => return Err(OciError::Broken { place: "the registry".into(), source }),
            Some(Ok(frame)) => {
                let Ok(data) = frame.into_data() else { continue };
                if bytes.len() + data.len() > bytes_max {
                    return Err(too_long());
                }
                bytes.extend_from_slice(&data);
            }
        }
    }
}

/// An error with its causes.
struct OneLine<'e>(&'e OciError);

impl std::fmt::Display for OneLine<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.0)?;
        let mut source = std::error::Error::source(self.0);
        while let Some(error) = source {
            write!(f, ": {error}")?;
            source = error.source();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(plain: Option<&[&str]>) -> RegistrySettings {
        let plain_http = plain.map(|names| names.iter().map(ToString::to_string).collect());
        RegistrySettings { plain_http, ..RegistrySettings::default() }
    }

    /// Without a word in config only this machine is spoken to in cleartext; with one, who is named and nobody else.
    #[test]
    fn cleartext_is_for_loopback_or_whom_config_names() {
        let usual = settings(None);
        for host in ["127.0.0.1", "127.0.0.1:5000", "[::1]:5000", "localhost:80", "LOCALHOST"] {
            assert!(usual.is_plain(host), "{host}");
        }
        for host in
            ["registry.example", "10.0.0.1:5000", "localhost.example", "127.0.0.1.example:5000", "[::2]", ""]
        {
            assert!(!usual.is_plain(host), "{host}");
        }
        let named = settings(Some(&["r.shop:5000", "other"]));
        for host in ["r.shop:5000", "R.shop:5000", "other:1", "other"] {
            assert!(named.is_plain(host), "{host}");
        }
        for host in ["r.shop", "r.shop:5001", "127.0.0.1:5000"] {
            assert!(!named.is_plain(host), "{host}");
        }
    }

    /// Neither a redirect nor a realm leads to where anybody can listen.
    #[test]
    fn nobody_leads_into_cleartext() {
        let reference = |host: &str| format!("oci://{host}/a@sha256:{}", "0".repeat(64)).parse();
        let (far, near) =
            (reference("r.example").expect("right"), reference("127.0.0.1:5000").expect("right"));
        let settings = settings(None);
        let check = |uri: &str| Registry::new(&far, &settings).check_scheme(&parse_uri(uri)?);
        assert!(check("https://elsewhere.example/x").is_ok());
        // A port of this machine gets nothing of a registry elsewhere; of one that is here itself it may.
        assert!(check("http://127.0.0.1:1/x").is_err());
        let here = parse_uri("http://127.0.0.1:1/x").expect("a URL");
        assert!(Registry::new(&near, &settings).check_scheme(&here).is_ok());
        assert!(parse_uri("http://127.0.0.1:x@evil.example/token").is_err());
        let error = check("http://elsewhere.example/x?signature=1").expect_err("in cleartext");
        let said = error.to_string();
        assert!(said.contains("http://elsewhere.example/x,") && !said.contains("signature"), "{said}");
        assert!(check("ftp://elsewhere.example/x").is_err());
    }
}
