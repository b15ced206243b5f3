//! Cells from a registry: OCI artifacts, named by digest.
//!
//! ```text
//! oci://HOST/REPOSITORY@sha256:...  --> manifest, compared with that digest
//!                                         '--> its one layer, compared with the digest there --> the component
//! <cache>/oci/<digits>              both, kept for the next start
//! ```
//!
//! - What is run is what config names, bit by bit: a registry can withhold a cell, not change one.
//! - It happens before anything is compiled, and on a thread of its own: whoever asks may wait on whatever it likes.
//! - Over hyper and rustls, which are here anyway; a client library would add 38 crates to the build.
//! - Not here: who checks that the bytes are a cell ([`super::Cell`]).

mod challenge;
mod credentials;
mod digest;
mod manifest;
mod reference;
mod registry;
mod store;

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use cellmesh_dpu::egress::trust::Cas;
use http::StatusCode;

pub use self::credentials::CredentialsError;
pub use self::manifest::ManifestError;
pub use self::reference::{Reference, ReferenceError};

use self::digest::Digest;
use self::manifest::Layer;
use self::registry::{Registry, Wanted};
use self::store::Store;

/// Longest manifest. One of a cell has half a KiB.
const MANIFEST_BYTES_MAX: usize = 256 << 10;

/// All of one pull: the longest component at 200 KiB a second.
const PULL_TIMEOUT: Duration = Duration::from_secs(300);

/// How registries are spoken to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RegistrySettings {
    /// Registries (`host` or `host:port`) that are spoken to without TLS; without a list those at loopback.
    pub plain_http: Option<Vec<String>>,
    /// A file with names and passwords, as `docker login` writes it; else that of this user.
    pub credentials: Option<PathBuf>,
    /// Whose certificates are believed, if not those of the system's CAs.
    pub cas: Option<Cas>,
}

/// Why a component was not had from its registry.
#[derive(Debug, thiserror::Error)]
pub enum OciError {
    /// Nobody there, or not known to be who it should be.
    #[error("no connection to the registry {place}")]
    Connect {
        /// Host and port.
        place: String,
        /// What the system or TLS said.
        #[source]
        source: io::Error,
    },
    /// Nobody can be believed.
    #[error("no registry can be spoken to over TLS: {0}")]
    Trust(String),
    /// It took too long.
    #[error("{place}: no {what} within {limit:?}")]
    TimedOut {
        /// Host and port.
        place: String,
        /// What was waited for.
        what: &'static str,
        /// How long.
        limit: Duration,
    },
    /// The connection, or what came over it.
    #[error("{place} did not answer in whole")]
    Broken {
        /// Host and port.
        place: String,
        /// What hyper said.
        #[source]
        source: hyper::Error,
    },
    /// It is not there.
    #[error(
        "the registry {registry} has no such {what} in {repository}: compare the reference with what was pushed there"
    )]
    NotThere {
        /// Host and port.
        registry: String,
        /// The repository.
        repository: String,
        /// Manifest or component.
        what: &'static str,
    },
    /// Somebody has to say who they are.
    #[error(
        "the registry {registry} asks for credentials ({status}), and there are none for it in {file}: `docker login {registry}` \
         writes them, registry.credentials or DOCKER_CONFIG names another file"
    )]
    NoCredentials {
        /// Host and port.
        registry: String,
        /// What it said.
        status: StatusCode,
        /// Where there are none.
        file: String,
    },
    /// Whoever they are, they may not.
    #[error("the registry {registry} refuses the credentials that {file} has for it ({status})")]
    Refused {
        /// Host and port.
        registry: String,
        /// What it said.
        status: StatusCode,
        /// Where they are.
        file: String,
    },
    /// The file with credentials.
    #[error(transparent)]
    Credentials(#[from] CredentialsError),
    /// It asks for something that nobody here knows.
    #[error("the registry {registry} asks for credentials in a way that is neither Bearer nor Basic")]
    Challenge {
        /// Host and port.
        registry: String,
    },
    /// What came instead of a token.
    #[error("whoever gives tokens for the registry {registry} gave none")]
    Token {
        /// Host and port.
        registry: String,
    },
    /// Any other answer.
    #[error("the registry {registry} answered {status} when it was asked for the {what}")]
    Status {
        /// Host and port.
        registry: String,
        /// Manifest, component or token.
        what: &'static str,
        /// What it said.
        status: StatusCode,
    },
    /// It leads in circles.
    #[error("the registry {registry} redirects more than {max} times")]
    Redirects {
        /// Host and port.
        registry: String,
        /// The limit.
        max: usize,
    },
    /// It leads to where anybody can listen.
    #[error(
        "the registry {registry} leads to {place}, which is not https://: registry.plain_http allows it for hosts that it names"
    )]
    Plain {
        /// Host and port.
        registry: String,
        /// The URL, without its query.
        place: String,
    },
    /// It names a place that is none.
    #[error("the registry leads to {found:?}, which is no URL")]
    Url {
        /// As it is written.
        found: String,
    },
    /// Nobody needs so much.
    #[error("the registry's {what} has more than the {max} bytes that it may have")]
    TooLong {
        /// Manifest, component or token.
        what: &'static str,
        /// The limit.
        max: usize,
    },
    /// Something else than what was asked for.
    #[error("the registry's {what} is {found}, and not {expected}")]
    Digest {
        /// Manifest or component.
        what: &'static str,
        /// What it has to be.
        expected: String,
        /// What it is.
        found: String,
    },
    /// It is no artifact of a cell.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// The cache folder.
    #[error("cannot keep what was pulled in {dir}")]
    Keep {
        /// The folder.
        dir: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// Not even a thread.
    #[error("cannot start a thread that pulls")]
    Thread(#[source] io::Error),
}

impl OciError {
    /// Whether it may be otherwise when it is tried again.
    fn may_pass(&self) -> bool {
        match self {
            Self::Connect { .. } | Self::TimedOut { .. } | Self::Broken { .. } => true,
            Self::Status { status, .. } => {
                status.is_server_error() || *status == StatusCode::TOO_MANY_REQUESTS
            }
            Self::Trust(_)
            | Self::NotThere { .. }
            | Self::NoCredentials { .. }
            | Self::Refused { .. }
            | Self::Credentials(_)
            | Self::Challenge { .. }
            | Self::Token { .. }
            | Self::Redirects { .. }
            | Self::Plain { .. }
            | Self::Url { .. }
            | Self::TooLong { .. }
            | Self::Digest { .. }
            | Self::Manifest(_)
            | Self::Keep { .. }
            | Self::Thread(_) => false,
        }
    }
}

/// The component that `reference` names: from the artifact cache in `cache`, else from its registry.
///
/// - `bytes_max`: longest component.
/// - cost: a read and a SHA-256 of it when it is in the cache.
///
/// # Errors
/// [`OciError`]: why it was not had.
pub(super) fn component(
    reference: &Reference,
    cache: &Path,
    settings: &RegistrySettings,
    bytes_max: usize,
) -> Result<Vec<u8>, OciError> {
    let store = Store::inside(cache);
    match cached(reference, &store, bytes_max)? {
        Some(component) => Ok(component),
        None => std::thread::scope(|scope| {
            let pull = || pull_here(reference, &store, settings, bytes_max);
            let thread = std::thread::Builder::new().name("pull".into()).spawn_scoped(scope, pull);
            thread.map_err(OciError::Thread)?.join().expect("nothing in it panics")
        }),
    }
}

fn cached(reference: &Reference, store: &Store, bytes_max: usize) -> Result<Option<Vec<u8>>, OciError> {
    let Some(manifest) = store.read(&reference.digest, MANIFEST_BYTES_MAX) else { return Ok(None) };
    let layer = manifest::layer(&manifest, bytes_max)?;
    Ok(store.read(&layer.digest, layer.bytes))
}

fn pull_here(
    reference: &Reference,
    store: &Store,
    settings: &RegistrySettings,
    bytes_max: usize,
) -> Result<Vec<u8>, OciError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(OciError::Thread)?;
    let pulled = runtime.block_on(async {
        let pulling = pull(reference, store, settings, bytes_max);
        let place = reference.registry.clone();
        let timed_out = |_| Err(OciError::TimedOut { place, what: "component", limit: PULL_TIMEOUT });
        tokio::time::timeout(PULL_TIMEOUT, pulling).await.unwrap_or_else(timed_out)
    });
    // A resolver that hangs is not waited for.
    runtime.shutdown_background();
    pulled
}

async fn pull(
    reference: &Reference,
    store: &Store,
    settings: &RegistrySettings,
    bytes_max: usize,
) -> Result<Vec<u8>, OciError> {
    let mut registry = Registry::new(reference, settings);
    let manifest = manifest_of(reference, store, &mut registry).await?;
    let layer = manifest::layer(&manifest, bytes_max)?;
    let component = match store.read(&layer.digest, layer.bytes) {
        Some(component) => component,
        None => blob(&layer, &mut registry).await?,
    };
    let kept = store.keep(&layer.digest, &component).and_then(|()| store.keep(&reference.digest, &manifest));
    kept.map_err(|source| OciError::Keep { dir: store.dir().to_owned(), source })?;
    tracing::info!(component = %reference, bytes = component.len(), "pulled");
    Ok(component)
}

async fn manifest_of(
    reference: &Reference,
    store: &Store,
    registry: &mut Registry<'_>,
) -> Result<Vec<u8>, OciError> {
    if let Some(manifest) = store.read(&reference.digest, MANIFEST_BYTES_MAX) {
        return Ok(manifest);
    }
    let path = format!("manifests/{}", reference.digest);
    let accept = manifest::MANIFEST;
    let wanted = Wanted { what: "manifest", path: &path, accept, bytes_max: MANIFEST_BYTES_MAX };
    compared("manifest", &reference.digest, registry.get(wanted).await?)
}

async fn blob(layer: &Layer, registry: &mut Registry<'_>) -> Result<Vec<u8>, OciError> {
    let path = format!("blobs/{}", layer.digest);
    let wanted = Wanted { what: "component", path: &path, accept: "*/*", bytes_max: layer.bytes };
    compared("component", &layer.digest, registry.get(wanted).await?)
}

/// These bytes, if they are those that were asked for.
fn compared(what: &'static str, expected: &Digest, bytes: Vec<u8>) -> Result<Vec<u8>, OciError> {
    let found = Digest::of(&bytes);
    if found == *expected {
        return Ok(bytes);
    }
    Err(OciError::Digest { what, expected: expected.to_string(), found: found.to_string() })
}
