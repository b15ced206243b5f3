//! Certificates for a test, and what their owners connect with.

use std::path::Path;
use std::sync::Arc;

use rcgen::{BasicConstraints, Certificate, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::pki_types::PrivateKeyDer;
use rustls::{ClientConfig, RootCertStore};

/// Somebody who signs certificates.
pub(crate) struct Ca {
    pub(crate) certificate: Certificate,
    issuer: Issuer<'static, KeyPair>,
}

/// A certificate and its key.
pub(crate) struct Identity {
    pub(crate) certificate: Certificate,
    key: KeyPair,
}

impl Ca {
    pub(crate) fn new() -> Self {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let certificate = params.self_signed(&key).expect("a certificate");
        Self { certificate, issuer: Issuer::new(params, key) }
    }

    pub(crate) fn sign(&self, name: &str) -> Identity {
        let key = KeyPair::generate().expect("a key");
        let params = CertificateParams::new([name.to_owned()]).expect("a name");
        Identity { certificate: params.signed_by(&key, &self.issuer).expect("a certificate"), key }
    }

    /// A client that believes this CA, offers these protocols, and has maybe a certificate of its own.
    pub(crate) fn client(&self, protocols: &[&str], own: Option<&Identity>) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        roots.add(self.certificate.der().clone()).expect("a CA");
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let builder = builder.expect("the provider has suites").with_root_certificates(roots);
        let mut client = match own {
            None => builder.with_no_client_auth(),
            Some(own) => {
                let key = PrivateKeyDer::try_from(own.key.serialize_der()).expect("a key");
                builder.with_client_auth_cert(vec![own.certificate.der().clone()], key).expect("a pair")
            }
        };
        client.alpn_protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
        Arc::new(client)
    }
}

impl Identity {
    /// Writes `tls.crt` and `tls.key`.
    pub(crate) fn write(&self, folder: &Path) {
        std::fs::write(folder.join("tls.crt"), self.certificate.pem()).expect("writable");
        std::fs::write(folder.join("tls.key"), self.key.serialize_pem()).expect("writable");
    }
}
