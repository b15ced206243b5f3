//! Whom a host off this node has to be vouched for by, where it is spoken to over TLS.
//!
//! - The CAs of the system, or instead of them those of one file (`dpu.egress.ca`).
//! - TLS 1.2 and 1.3. HTTP/2 is offered, and spoken with those who take it.

use std::fmt;
use std::io;
use std::path::Path;
use std::sync::{Arc, OnceLock};

use rustls::crypto::aws_lc_rs;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};

use crate::files;
use crate::tls::{FILE_BYTES_MAX, PROTOCOLS};

/// What is made of the system's CAs: read when the first call over TLS is made, and kept for the process.
static SYSTEM: OnceLock<Arc<ClientConfig>> = OnceLock::new();

/// Certificates of the CAs of one file; at least one.
#[derive(Clone, PartialEq, Eq)]
pub struct Cas(Arc<[CertificateDer<'static>]>);

/// Why a file is no [`Cas`].
#[derive(Debug, thiserror::Error)]
pub enum CasError {
    /// It cannot be read.
    #[error("cannot be read: {0}")]
    Read(#[from] io::Error),
    /// No bundle of CAs is that long.
    #[error("is longer than 1 MiB")]
    TooLong,
    /// It is not PEM throughout.
    #[error("is not PEM")]
    NotPem,
    /// There is no certificate in it.
    #[error("has no certificate in PEM")]
    Empty,
    /// One of them is none of a CA.
    #[error("has a certificate that cannot be used: {0}")]
    Certificate(#[from] rustls::Error),
}

impl fmt::Debug for Cas {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Cas({} certificates)", self.0.len())
    }
}

impl Cas {
    /// Reads and checks a file.
    ///
    /// # Errors
    /// [`CasError`]: why it cannot be used.
    pub fn load(path: &Path) -> Result<Self, CasError> {
        let bytes = files::read(path, FILE_BYTES_MAX)?.ok_or(CasError::TooLong)?;
        let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&bytes).collect();
        let certificates = certificates.map_err(|_| CasError::NotPem)?;
        if certificates.is_empty() {
            return Err(CasError::Empty);
        }
        let mut roots = RootCertStore::empty();
        certificates.iter().try_for_each(|certificate| roots.add(certificate.clone()))?;
        Ok(Self(certificates.into()))
    }
}

/// What calls over TLS are made with.
#[derive(Debug, Clone)]
pub(super) enum Trust {
    System,
    Own(Arc<ClientConfig>),
}

impl Trust {
    /// In `cas`, or in those of the system.
    pub(super) fn new(cas: Option<&Cas>) -> Self {
        let Some(Cas(certificates)) = cas else { return Self::System };
        let mut roots = RootCertStore::empty();
        // All of them: they were checked when they were read.
        roots.add_parsable_certificates(certificates.iter().cloned());
        Self::Own(client(roots))
    }

    /// # Errors
    /// Why nobody can be believed.
    pub(super) async fn client(&self) -> Result<Arc<ClientConfig>, String> {
        match (self, SYSTEM.get()) {
            (Self::Own(client), _) => Ok(Arc::clone(client)),
            (Self::System, Some(client)) => Ok(Arc::clone(client)),
            (Self::System, None) => {
                // Some hundred certificates: not on a lane. What failed is tried again with the next call.
                let read = tokio::task::spawn_blocking(|| {
                    of_system().map(|client| Arc::clone(SYSTEM.get_or_init(|| client)))
                });
                read.await.unwrap_or_else(|error| Err(error.to_string()))
            }
        }
    }
}

/// For a client of another kind that believes in the system's CAs: no protocol is offered beside HTTP/1.1.
///
/// # Errors
/// This system has none.
pub async fn in_the_system() -> Result<ClientConfig, String> {
    let client = Trust::System.client().await?;
    Ok(without_protocols(&client))
}

/// As [`in_the_system`], for a client that speaks to nobody over TLS.
#[must_use]
pub fn in_nobody() -> ClientConfig {
    without_protocols(&client(RootCertStore::empty()))
}

fn without_protocols(client: &ClientConfig) -> ClientConfig {
    let mut client = client.clone();
    client.alpn_protocols.clear();
    client
}

fn of_system() -> Result<Arc<ClientConfig>, String> {
    let found = rustls_native_certs::load_native_certs();
    for error in &found.errors {
        tracing::warn!(%error, "a CA of this system cannot be read");
    }
    let mut roots = RootCertStore::empty();
    let (usable, _unusable) = roots.add_parsable_certificates(found.certs);
    if usable == 0 {
        return Err(
            "this system has no CAs: install them (ca-certificates), or name a file in dpu.egress.ca".into(),
        );
    }
    Ok(client(roots))
}

fn client(roots: RootCertStore) -> Arc<ClientConfig> {
    let mut client = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("the provider has suites for TLS 1.2 and 1.3")
        .with_root_certificates(roots)
        .with_no_client_auth();
    client.alpn_protocols = PROTOCOLS.map(<[u8]>::to_vec).to_vec();
    Arc::new(client)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// A file that is no bundle of CAs says why.
    #[test]
    fn only_certificates_are_taken() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("ca.pem");
        let said = |text: &[u8]| {
            fs::write(&file, text).expect("a file in a temporary folder");
            Cas::load(&file).map_err(|error| error.to_string())
        };
        assert!(Cas::load(&file).expect_err("no file").to_string().starts_with("cannot be read: "));
        assert_eq!(said(b""), Err("has no certificate in PEM".into()));
        assert_eq!(said(b"-----BEGIN CERTIFICATE-----\nnot base64"), Err("is not PEM".into()));
        assert_eq!(said(&[b' '; (1 << 20) + 1]), Err("is longer than 1 MiB".into()));
        let made = rcgen::generate_simple_self_signed(vec!["host".to_owned()]).expect("a certificate");
        let (one, other) = (said(made.cert.pem().as_bytes()), said(made.cert.pem().repeat(2).as_bytes()));
        assert_ne!(one.expect("one certificate"), other.expect("two of them"));
        let broken = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        assert!(said(broken.as_bytes()).expect_err("no certificate").starts_with("has a certificate that"));
    }
}
