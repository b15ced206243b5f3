use std::path::PathBuf;

use rcgen::{CertificateParams, CertifiedKey as Made, KeyPair};

use super::*;
use crate::units::TimeSpan;

/// A folder with a certificate, its key, and a config that names them.
fn folder() -> (tempfile::TempDir, TlsConfig) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = |name: &str| folder.path().join(name);
    let config = TlsConfig {
        listen: "127.0.0.1:0".parse().expect("an address"),
        certificate: path("tls.crt"),
        key: path("tls.key"),
        clients: None,
        handshake_timeout: TimeSpan::secs(5),
    };
    replace(&config);
    (folder, config)
}

/// Another certificate with its key.
fn replace(config: &TlsConfig) {
    let Made { cert, signing_key } = made();
    write(&config.certificate, cert.pem());
    write(&config.key, signing_key.serialize_pem());
}

fn made() -> Made<KeyPair> {
    rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).expect("a certificate")
}

fn write(path: &PathBuf, bytes: impl AsRef<[u8]>) {
    std::fs::write(path, bytes).expect("writable");
}

/// What is wrong, without the folder.
#[track_caller]
fn problems(folder: &tempfile::TempDir, config: &TlsConfig) -> Vec<String> {
    let shown = format!("{}/", folder.path().display());
    let problems = Tls::load(config).expect_err("something is wrong");
    problems
        .0
        .iter()
        .map(|problem| format!("{}: {}", problem.key, problem.wrong).replace(&shown, ""))
        .collect()
}

/// Keys of all kinds that tools make are taken, and a CA for clients.
#[test]
fn good_files_are_taken() {
    let (folder, mut config) = folder();
    Tls::load(&config).expect("self-signed");
    for algorithm in [&rcgen::PKCS_ED25519, &rcgen::PKCS_ECDSA_P384_SHA384, &rcgen::PKCS_RSA_SHA256] {
        let key = KeyPair::generate_for(algorithm).expect("a key");
        let certificate = CertificateParams::default().self_signed(&key).expect("a certificate");
        write(&config.certificate, certificate.pem());
        write(&config.key, key.serialize_pem());
        Tls::load(&config).unwrap_or_else(|problems| panic!("{algorithm:?}: {problems}"));
    }
    let file = folder.path().join("ca.crt");
    write(&file, made().cert.pem() + &made().cert.pem());
    config.clients = Some(ClientCa { file, required: true });
    Tls::load(&config).expect("two CAs for clients");
}

/// Whatever is wrong is told, each with its key, all at once.
#[test]
fn bad_files_are_told() {
    let (folder, mut config) = folder();
    let certificate = std::fs::read(&config.certificate).expect("written");
    let key = std::fs::read(&config.key).expect("written");
    let half = &certificate[..certificate.len() / 2];
    let rubbish = b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    for (file, key, wrong) in [
        (&b"hello"[..], &key[..], "certificate: tls.crt has no certificate in PEM"),
        (&key, &key, "certificate: tls.crt has no certificate in PEM"),
        (half, &key, "certificate: tls.crt is cut off: a section has no end line"),
        (
            b"-----BEGIN CERTIFICATE-----\n?\n-----END CERTIFICATE-----\n",
            &key,
            "certificate: tls.crt is not PEM: a section is not base64",
        ),
        (rubbish, &key, "certificate: tls.crt has a first certificate that cannot be read: BadEncoding"),
        (&certificate, b"", "key: tls.key has no private key in PEM, or an encrypted one"),
        (&certificate, &certificate, "key: tls.key has no private key in PEM, or an encrypted one"),
        (
            &certificate,
            made().signing_key.serialize_pem().as_bytes(),
            "key: tls.key does not belong to the first certificate of tls.crt",
        ),
    ] {
        write(&config.certificate, file);
        write(&config.key, key);
        assert_eq!(problems(&folder, &config), [wrong]);
    }
    std::fs::remove_file(&config.certificate).expect("written");
    write(&config.key, vec![b'x'; (1 << 20) + 1]);
    config.clients = Some(ClientCa { file: folder.path().to_owned(), required: false });
    let all = problems(&folder, &config);
    assert_eq!(all[0], "certificate: tls.crt cannot be read: No such file or directory (os error 2)");
    assert_eq!(all[1], "key: tls.key is longer than 1 MiB");
    assert!(all[2].starts_with("client_ca: ") && all[2].contains("Is a directory"), "{all:?}");
}

/// The text of a key is in no message.
#[test]
fn keys_are_not_shown() {
    let (folder, config) = folder();
    write(&config.key, "-----BEGIN PRIVATE KEY-----\nsecret\nsecret\n");
    assert_eq!(problems(&folder, &config), ["key: tls.key is cut off: a section has no end line"]);
    write(&config.key, "-----BEGIN secret");
    assert!(!format!("{:?}", problems(&folder, &config)).contains("secret"));
}

/// Other contents are loaded once; bad ones leave what there was, and are told once.
#[test]
fn changes_are_noticed() {
    let (_folder, config) = folder();
    let tls = Tls::load(&config).expect("good files");
    let current = || Arc::as_ptr(&tls.terms().server);
    let first = current();
    assert!(tls.look().is_none());
    replace(&config);
    tls.look().expect("a change").expect("a good one");
    let second = current();
    assert_ne!(first, second);
    assert!(tls.look().is_none());
    write(&config.certificate, "half");
    let problems = tls.look().expect("a change").expect_err("a bad one");
    assert_eq!((problems.0.len(), problems.0[0].key), (1, CERTIFICATE));
    assert!(tls.look().is_none());
    assert_eq!(current(), second);
    tls.reload().expect_err("still a bad one");
    replace(&config);
    tls.reload().expect("a good one again");
    assert!(tls.look().is_none());
    assert_ne!(current(), second);
}

/// A certificate that has expired takes the place of none, with its key or without; a process may start with one.
#[test]
fn expired_certificates_replace_nothing() {
    let (_folder, config) = folder();
    let tls = Tls::load(&config).expect("good files");
    let good = Arc::as_ptr(&tls.terms().server);
    let key = KeyPair::generate().expect("a key");
    let mut params = CertificateParams::new(["localhost".to_owned()]).expect("a name");
    (params.not_before, params.not_after) =
        (rcgen::date_time_ymd(2020, 1, 1), rcgen::date_time_ymd(2021, 1, 1));
    write(&config.certificate, params.self_signed(&key).expect("a certificate").pem());
    write(&config.key, key.serialize_pem());
    let problems = tls.look().expect("a change").expect_err("one that no client takes");
    assert!(problems.0.len() == 1 && problems.0[0].wrong.contains(" has expired, "), "{problems}");
    assert_eq!(Arc::as_ptr(&tls.terms().server), good);
    let begun = Tls::load(&config).expect("files that fit");
    assert!(begun.expired().is_some() && tls.expired().is_none());
    let of_2021 = SystemTime::UNIX_EPOCH + Duration::from_secs(1_609_459_200);
    assert_eq!(begun.good_until(), Some(of_2021));
    replace(&config);
    assert_eq!(tls.look(), Some(Ok(())));
}

/// As Kubernetes replaces a secret: the files are links into a folder that is a link itself.
#[cfg(unix)]
#[test]
fn swapped_links_are_a_change() {
    let (folder, mut config) = folder();
    let at = |name: &str| folder.path().join(name);
    for (name, with) in [("one", &config), ("two", &config)] {
        replace(with);
        std::fs::create_dir(at(name)).expect("a folder");
        for file in ["tls.crt", "tls.key"] {
            std::fs::copy(at(file), at(name).join(file)).expect("written");
        }
    }
    let point = |to: &str| {
        std::os::unix::fs::symlink(to, at("new")).expect("a link");
        std::fs::rename(at("new"), at("data")).expect("swapped");
    };
    point("one");
    config.certificate = at("data/tls.crt");
    config.key = at("data/tls.key");
    let tls = Tls::load(&config).expect("good files");
    assert!(tls.look().is_none());
    point("two");
    tls.look().expect("a change").expect("a good one");
}
