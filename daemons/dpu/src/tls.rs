//! TLS at the ingress: certificate, key and the CA of clients, from files that may be replaced at any time.
//!
//! ```text
//! files --load--> ServerConfig --> Acceptor --with each connection--> lane: handshake
//!   ^---- looked at every two seconds: other contents are loaded; bad ones are refused, and what there was stays
//! ```
//!
//! - What is compared are the contents, a few KiB. So it does not matter how files are replaced: written over, renamed over,
//!   by a symbolic link that changes (Kubernetes), with an old date, on a file system that reports no changes.
//! - A connection keeps what it began with: a reload disturbs nobody.
//! - What was loaded anew has sessions of its own: nobody resumes one that another CA let in.
//! - All lanes share one `ServerConfig`, its counter of references and its sessions. They are touched for each connection,
//!   never for a request.
//! - No early data: it can be replayed.

mod validity;

use std::fmt;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::{Error as PemError, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::sign::{CertifiedKey, SigningKey, SingleCertAndKey};
use rustls::{InconsistentKeys, RootCertStore, ServerConfig};

use crate::config::{ClientCa, TlsConfig};
use crate::files;

pub use self::validity::Validity;

/// How often the files are looked at. A certificate is replaced days before its end; two seconds are for people who wait.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// Longest file: chains have a few KiB, a system's bundle of all CAs has 220.
pub(crate) const FILE_BYTES_MAX: u64 = 1 << 20;
/// In the order of preference. Source: RFC 7301; RFC 9113, 3.2.
pub(crate) const PROTOCOLS: [&[u8]; 2] = [b"h2", b"http/1.1"];

/// Keys of `[dpu.tls]`.
const CERTIFICATE: &str = "certificate";
const KEY: &str = "key";
const CLIENT_CA: &str = "client_ca";

/// What a listener with TLS is served with; a handle that can be cloned.
#[derive(Clone)]
pub struct Tls(Arc<Shared>);

struct Shared {
    config: TlsConfig,
    /// What was looked at last, good or bad.
    seen: Mutex<Files>,
    /// What was good last.
    current: Mutex<Served>,
}

/// What new connections are served with.
struct Served {
    server: Arc<ServerConfig>,
    /// When its certificate ends; none if it never does.
    until: Option<SystemTime>,
}

/// What one connection is served with.
pub(crate) struct Terms {
    pub(crate) server: Arc<ServerConfig>,
    /// For the handshake.
    pub(crate) timeout: Duration,
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Tls").field(&self.0.config).finish() // not the contents: one of them is a key
    }
}

impl fmt::Debug for Terms {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Terms").field("timeout", &self.timeout).finish_non_exhaustive()
    }
}

impl Tls {
    /// Reads and checks the files.
    ///
    /// # Errors
    /// [`TlsProblems`]: everything that is wrong with them.
    pub fn load(config: &TlsConfig) -> Result<Self, TlsProblems> {
        let files = Files::read(config);
        let server = files.load(config)?;
        let until = Validity::of(config).and_then(|validity| validity.until);
        let current = Mutex::new(Served { server, until });
        let shared = Shared { config: config.clone(), seen: Mutex::new(files), current };
        Ok(Self(Arc::new(shared)))
    }

    /// Reads and checks the files again, now; new connections are served with them. Call it where reading files may take
    /// its time.
    ///
    /// # Errors
    /// [`TlsProblems`]: everything that is wrong with them. New connections are then served with what there was.
    pub fn reload(&self) -> Result<(), TlsProblems> {
        let files = Files::read(&self.0.config);
        let loaded = files.load(&self.0.config);
        *lock(&self.0.seen) = files;
        let server = loaded?;
        let until = Validity::of(&self.0.config).and_then(|validity| validity.until);
        // One that clients refuse is no better than none; the old one is good, or they refuse that too.
        if let Some(problem) = expired(&self.0.config, until) {
            return Err(TlsProblems(vec![problem]));
        }
        *lock(&self.0.current) = Served { server, until };
        Ok(())
    }

    /// When the certificate ends that new connections are served with; none if it never does.
    #[must_use]
    pub fn good_until(&self) -> Option<SystemTime> {
        lock(&self.0.current).until
    }

    /// What is wrong with serving it, if clients will refuse it for its age.
    #[must_use]
    pub fn expired(&self) -> Option<TlsProblem> {
        expired(&self.0.config, self.good_until())
    }

    pub(crate) fn terms(&self) -> Terms {
        Terms {
            server: Arc::clone(&lock(&self.0.current).server),
            timeout: self.0.config.handshake_timeout.0,
        }
    }

    /// Looks at the files for ever, and reloads them when they have changed.
    pub(crate) async fn follow(&self) {
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            let tls = self.clone();
            match tokio::task::spawn_blocking(move || tls.look()).await {
                Ok(None) => {}
                Ok(Some(Ok(()))) => tracing::info!("the TLS certificate was replaced"),
                Ok(Some(Err(problems))) => {
                    tracing::error!("the new TLS certificate is refused, the old one stays: {problems}");
                }
                Err(error) => tracing::error!(%error, "cannot look at the files of the TLS certificate"),
            }
        }
    }

    /// `None`: nothing has changed.
    fn look(&self) -> Option<Result<(), TlsProblems>> {
        let has_changed = *lock(&self.0.seen) != Files::read(&self.0.config);
        has_changed.then(|| self.reload())
    }
}

/// The certificate, if it is not good any more.
fn expired(config: &TlsConfig, until: Option<SystemTime>) -> Option<TlsProblem> {
    let ago = SystemTime::now().duration_since(until?).ok()?;
    let (shown, days) = (config.certificate.display(), ago.as_secs() / (24 * 60 * 60));
    let wrong = format!("{shown} has expired, {days} days ago");
    Some(TlsProblem { key: CERTIFICATE, wrong, right: "name a certificate that is good now" })
}

/// Nothing panics under these locks, and what they guard is replaced as a whole.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Something that is wrong with a file of `[dpu.tls]`, and what would be right.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("dpu.tls.{key}: {wrong}; {right}")]
pub struct TlsProblem {
    /// The key that names the file, without `dpu.tls.`.
    pub key: &'static str,
    /// What is wrong.
    pub wrong: String,
    /// What would be right.
    pub right: &'static str,
}

/// Everything that is wrong with them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsProblems(pub Vec<TlsProblem>);

impl fmt::Display for TlsProblems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let problems: Vec<String> = self.0.iter().map(ToString::to_string).collect();
        f.write_str(&problems.join(". "))
    }
}

impl std::error::Error for TlsProblems {}

/// Contents of the files, or why they cannot be read.
#[derive(PartialEq, Eq)]
struct Files {
    certificate: Content,
    key: Content,
    client_ca: Option<Content>,
}

type Content = Result<Vec<u8>, String>;

impl Files {
    fn read(config: &TlsConfig) -> Self {
        Self {
            certificate: read(&config.certificate),
            key: read(&config.key),
            client_ca: config.clients.as_ref().map(|clients| read(&clients.file)),
        }
    }

    fn load(&self, config: &TlsConfig) -> Result<Arc<ServerConfig>, TlsProblems> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let identity = self.identity(config, &provider);
        let clients = self.clients(config, &provider).map_err(|problem| vec![problem]);
        match (identity, clients) {
            (Ok(identity), Ok(clients)) => Ok(server(provider, identity, clients)),
            (identity, clients) => {
                let problems = [identity.err(), clients.err()].into_iter().flatten().flatten();
                Err(TlsProblems(problems.collect()))
            }
        }
    }

    /// The certificate with its key.
    fn identity(
        &self,
        config: &TlsConfig,
        provider: &CryptoProvider,
    ) -> Result<CertifiedKey, Vec<TlsProblem>> {
        let chain = certificates(CERTIFICATE, &config.certificate, &self.certificate);
        let key = private_key(&config.key, &self.key, provider);
        match (chain, key) {
            (Ok(chain), Ok(key)) => matching(config, chain, key).map_err(|problem| vec![problem]),
            (chain, key) => Err([chain.err(), key.err()].into_iter().flatten().collect()),
        }
    }

    /// Who judges the certificates of clients.
    fn clients(
        &self,
        config: &TlsConfig,
        provider: &Arc<CryptoProvider>,
    ) -> Result<Arc<dyn ClientCertVerifier>, TlsProblem> {
        let (Some(ClientCa { file, required }), Some(content)) = (&config.clients, &self.client_ca) else {
            return Ok(WebPkiClientVerifier::no_client_auth());
        };
        let bad = |error: &dyn fmt::Display| problem(CLIENT_CA, file, error);
        let mut roots = RootCertStore::empty();
        for certificate in certificates(CLIENT_CA, file, content)? {
            roots.add(certificate).map_err(|error| bad(&error))?;
        }
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider));
        let verifier = if *required { verifier } else { verifier.allow_unauthenticated() };
        verifier.build().map_err(|error| bad(&error))
    }
}

fn read(path: &Path) -> Content {
    let bytes = files::read(path, FILE_BYTES_MAX).map_err(|error| format!("cannot be read: {error}"))?;
    bytes.ok_or_else(|| "is longer than 1 MiB".to_owned())
}

fn certificates(
    key: &'static str,
    path: &Path,
    content: &Content,
) -> Result<Vec<CertificateDer<'static>>, TlsProblem> {
    let bytes = content.as_ref().map_err(|why| problem(key, path, why))?;
    let certificates = CertificateDer::pem_slice_iter(bytes).collect::<Result<Vec<_>, _>>();
    let certificates = certificates.map_err(|error| problem(key, path, not_pem(&error)))?;
    if certificates.is_empty() {
        return Err(problem(key, path, "has no certificate in PEM"));
    }
    Ok(certificates)
}

fn private_key(
    path: &Path,
    content: &Content,
    provider: &CryptoProvider,
) -> Result<Arc<dyn SigningKey>, TlsProblem> {
    let bytes = content.as_ref().map_err(|why| problem(KEY, path, why))?;
    let key = PrivateKeyDer::from_pem_slice(bytes).map_err(|error| problem(KEY, path, not_pem(&error)))?;
    provider.key_provider.load_private_key(key).map_err(|error| problem(KEY, path, &error))
}

/// What the parser says of the text is left out: the text may be of a key.
fn not_pem(error: &PemError) -> &'static str {
    if matches!(error, PemError::MissingSectionEnd { .. }) {
        return "is cut off: a section has no end line";
    }
    if matches!(error, PemError::Base64Decode(_)) {
        return "is not PEM: a section is not base64";
    }
    if matches!(error, PemError::NoItemsFound) {
        return "has no private key in PEM, or an encrypted one";
    }
    "is not PEM"
}

fn matching(
    config: &TlsConfig,
    chain: Vec<CertificateDer<'static>>,
    key: Arc<dyn SigningKey>,
) -> Result<CertifiedKey, TlsProblem> {
    let identity = CertifiedKey::new(chain, key);
    match identity.keys_match() {
        // A key that does not say what it belongs to is believed.
        Ok(()) | Err(rustls::Error::InconsistentKeys(InconsistentKeys::Unknown)) => Ok(identity),
        Err(rustls::Error::InconsistentKeys(_)) => {
            let wrong =
                format!("does not belong to the first certificate of {}", config.certificate.display());
            Err(problem(KEY, &config.key, &wrong))
        }
        Err(rustls::Error::InvalidCertificate(why)) => {
            let wrong = format!("has a first certificate that cannot be read: {why:?}");
            Err(problem(CERTIFICATE, &config.certificate, &wrong))
        }
        Err(error) => Err(problem(CERTIFICATE, &config.certificate, &error)),
    }
}

fn problem(key: &'static str, path: &Path, wrong: &(impl fmt::Display + ?Sized)) -> TlsProblem {
    let right = match key {
        CERTIFICATE => "name a PEM file with the certificate, and then those of the CAs between",
        KEY => "name a PEM file with the private key of the certificate, not encrypted",
        _ => "name a PEM file with the certificates of the CAs that sign those of clients",
    };
    TlsProblem { key, wrong: format!("{} {wrong}", path.display()), right }
}

fn server(
    provider: Arc<CryptoProvider>,
    identity: CertifiedKey,
    clients: Arc<dyn ClientCertVerifier>,
) -> Arc<ServerConfig> {
    let asks_clients = clients.offer_client_auth();
    let mut server = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("the provider has suites for TLS 1.2 and 1.3")
        .with_client_cert_verifier(clients)
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(identity)));
    if asks_clients {
        // One who resumes is not asked for a certificate again, however long ago it was good.
        server.session_storage = Arc::new(NoServerSessionStorage {});
        server.send_tls13_tickets = 0;
    }
    server.alpn_protocols = PROTOCOLS.map(<[u8]>::to_vec).to_vec();
    Arc::new(server)
}

#[cfg(test)]
mod tests;
