//! From when until when the certificate of `[dpu.tls]` is good.
//!
//! - rustls is asked at the beginning of all time and at its end, and says what speaks against it: there is no parser of
//!   certificates here beside its own.

use std::time::{Duration, SystemTime};

use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::UnixTime;
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, Error, RootCertStore};

use super::{CERTIFICATE, certificates, read};
use crate::config::TlsConfig;

/// The end of the year 9999: certificates end before. Source: RFC 5280, 4.1.2.5.
const END_OF_TIME: Duration = Duration::from_secs(253_402_300_799);

/// When a certificate is good.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Validity {
    /// Not before; `None` if it always was.
    pub from: Option<SystemTime>,
    /// Not after; `None` if for ever.
    pub until: Option<SystemTime>,
}

impl Validity {
    /// Of the certificate that is shown to clients; `None` if it cannot be read, which [`super::Tls::load`] tells.
    #[must_use]
    pub fn of(config: &TlsConfig) -> Option<Self> {
        let chain = certificates(CERTIFICATE, &config.certificate, &read(&config.certificate)).ok()?;
        let certificate = ParsedCertificate::try_from(chain.first()?).ok()?;
        let at = |time| against(&certificate, UnixTime::since_unix_epoch(time));
        let time = |at: UnixTime| SystemTime::UNIX_EPOCH + Duration::from_secs(at.as_secs());
        let from = match at(Duration::ZERO) {
            Some(CertificateError::NotValidYetContext { not_before, .. }) => Some(time(not_before)),
            _ => None,
        };
        let until = match at(END_OF_TIME) {
            Some(CertificateError::ExpiredContext { not_after, .. }) => Some(time(not_after)),
            _ => None,
        };
        Some(Self { from, until })
    }
}

/// What is found against it first. Nobody is believed here, so something always is; but times come before issuers.
fn against(certificate: &ParsedCertificate<'_>, now: UnixTime) -> Option<CertificateError> {
    let algorithms = aws_lc_rs::default_provider().signature_verification_algorithms.all;
    let nobody = RootCertStore::empty();
    match verify_server_cert_signed_by_trust_anchor(certificate, &nobody, &[], now, algorithms) {
        Err(Error::InvalidCertificate(why)) => Some(why),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair, date_time_ymd};

    use super::*;
    use crate::units::TimeSpan;

    fn validity(params: CertificateParams) -> Option<Validity> {
        let key = KeyPair::generate().expect("a key");
        let folder = tempfile::tempdir().expect("a temporary folder");
        let config = TlsConfig {
            listen: "127.0.0.1:0".parse().expect("an address"),
            certificate: folder.path().join("tls.crt"),
            key: folder.path().join("tls.key"),
            clients: None,
            handshake_timeout: TimeSpan::secs(5),
        };
        std::fs::write(&config.certificate, params.self_signed(&key).expect("a certificate").pem())
            .expect("writable");
        Validity::of(&config)
    }

    /// Both ends are found, of a certificate that has ended, too; of a CA's own as well.
    #[test]
    fn both_ends_are_found() {
        let mut params = CertificateParams::new(["localhost".to_owned()]).expect("a name");
        (params.not_before, params.not_after) = (date_time_ymd(2020, 1, 1), date_time_ymd(2021, 1, 1));
        let at = |seconds| Some(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds));
        let expected = Some(Validity { from: at(1_577_836_800), until: at(1_609_459_200) });
        assert_eq!(validity(params.clone()), expected);
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        assert_eq!(validity(params), expected);
    }
}
