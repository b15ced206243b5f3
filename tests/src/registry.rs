//! A real registry: `docker-registry` of Debian, on a port and in a folder of its own.
//!
//! Where it is not installed the tests that need it fail, unless `CELLMESH_REGISTRY=none` says that they are not meant.

use std::fs;
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use rustls::ClientConfig;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tempfile::TempDir;

use crate::log::Log;
use crate::process::until;
use crate::{Ca, Identity, Reply, Wire};

/// How a registry is to be run.
#[derive(Debug, Default)]
pub struct Setup<'s> {
    /// A line `name:hash` of a file of htpasswd: only who knows its password may come in.
    pub htpasswd: Option<&'s str>,
    /// Over TLS.
    pub tls: Option<(&'s Ca, &'s Identity)>,
}

/// A registry that runs. Killed when it is dropped.
#[derive(Debug)]
pub struct Registry {
    child: Child,
    address: SocketAddr,
    client: Option<Arc<ClientConfig>>,
    dir: TempDir,
}

/// What is pushed, and as what.
#[derive(Debug)]
pub struct Artifact<'a> {
    /// Where to.
    pub repository: &'a str,
    /// The layer.
    pub component: &'a [u8],
    /// Media type of the config.
    pub config_type: &'a str,
    /// Media type of the layer.
    pub layer_type: &'a str,
    /// The value of a header `authorization`.
    pub authorization: Option<&'a str>,
}

impl<'a> Artifact<'a> {
    /// A cell, as it has to be.
    #[must_use]
    pub fn cell(repository: &'a str, component: &'a [u8]) -> Self {
        Self {
            repository,
            component,
            config_type: "application/vnd.wasm.config.v0+json",
            layer_type: "application/wasm",
            authorization: None,
        }
    }
}

impl Registry {
    /// Starts one, and waits until it listens. `None` where the tests are told to do without.
    #[must_use]
    pub fn start(setup: &Setup<'_>) -> Option<Self> {
        if std::env::var("CELLMESH_REGISTRY").as_deref() == Ok("none") {
            println!("skipped: CELLMESH_REGISTRY=none");
            return None;
        }
        let dir = tempfile::tempdir().expect("a temporary folder");
        let file = dir.path().join("config.yml");
        fs::write(&file, config(setup, &dir)).expect("writable");
        let child = Command::new("docker-registry")
            .arg("serve")
            .arg(&file)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn();
        let mut child = child.unwrap_or_else(|error| {
            panic!(
                "docker-registry cannot be started ({error}): `apt-get install docker-registry`, or say CELLMESH_REGISTRY=none"
            )
        });
        let log = Log::of(child.stderr.take().expect("stderr is piped"));
        let mut address = None;
        until("a registry that listens", || {
            let ended = child.try_wait().expect("our child");
            assert!(ended.is_none(), "docker-registry ended ({ended:?}):\n{}", log.text());
            address = log.text().lines().find_map(address_in);
            address.is_some()
        });
        let client = setup.tls.map(|(ca, _)| ca.client(&["http/1.1"], None));
        Some(Self { child, address: address.expect("waited for"), client, dir })
    }

    /// Host and port, as a reference names them.
    #[must_use]
    pub fn name(&self) -> String {
        match self.client {
            Some(_) => format!("localhost:{}", self.address.port()),
            None => self.address.to_string(),
        }
    }

    /// Pushes a cell; its reference.
    #[must_use]
    pub fn push(&self, repository: &str, component: &[u8]) -> String {
        self.push_as(&Artifact::cell(repository, component))
    }

    /// Pushes whatever it is; its reference.
    #[must_use]
    pub fn push_as(&self, artifact: &Artifact<'_>) -> String {
        let descriptor = |kind: &str, bytes: &[u8]| {
            self.push_blob(artifact, bytes);
            json!({ "mediaType": kind, "digest": digest(bytes), "size": bytes.len() })
        };
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": descriptor(artifact.config_type, br#"{"architecture":"wasm","os":"wasip2"}"#),
            "layers": [descriptor(artifact.layer_type, artifact.component)],
        });
        let digest = self.push_manifest(artifact, &manifest);
        format!("oci://{}/{}@{digest}", self.name(), artifact.repository)
    }

    /// Pushes a manifest with the tag `latest`; its digest.
    fn push_manifest(&self, artifact: &Artifact<'_>, manifest: &Value) -> String {
        let text = manifest.to_string();
        let kind = manifest["mediaType"].as_str().expect("a media type");
        let target = format!("/v2/{}/manifests/latest", artifact.repository);
        let put = self.ask(artifact, "PUT", &target, &format!("content-type: {kind}\r\n"), text.as_bytes());
        assert_eq!(put.status, 201, "{put:?}");
        let digest = digest(text.as_bytes());
        assert_eq!(put.header("docker-content-digest"), Some(digest.as_str()), "{put:?}");
        digest
    }

    fn push_blob(&self, artifact: &Artifact<'_>, bytes: &[u8]) {
        let begin = format!("/v2/{}/blobs/uploads/", artifact.repository);
        let begun = self.ask(artifact, "POST", &begin, "", b"");
        assert_eq!(begun.status, 202, "{begun:?}");
        let location = begun.header("location").expect("somewhere to push to");
        let target = location.find("/v2/").map(|at| &location[at..]).expect("a URL of the registry");
        let target = format!("{target}&digest={}", digest(bytes));
        let put = self.ask(artifact, "PUT", &target, "content-type: application/octet-stream\r\n", bytes);
        assert_eq!(put.status, 201, "{put:?}");
    }

    fn ask(&self, artifact: &Artifact<'_>, method: &str, target: &str, headers: &str, body: &[u8]) -> Reply {
        let authorization = artifact.authorization;
        let authorization =
            authorization.map(|value| format!("authorization: {value}\r\n")).unwrap_or_default();
        let (host, length) = (self.name(), body.len());
        let head = format!(
            "{method} {target} HTTP/1.1\r\nhost: {host}\r\n{headers}{authorization}content-length: {length}\r\n\r\n"
        );
        match &self.client {
            None => asked(Wire::connect(self.address), head.as_bytes(), body),
            Some(client) => {
                let wire =
                    Wire::shake(self.address, Arc::clone(client)).expect("the registry has our certificate");
                asked(wire, head.as_bytes(), body)
            }
        }
    }

    /// The file in which it keeps the bytes with this digest.
    #[must_use]
    pub fn file_of(&self, bytes: &[u8]) -> PathBuf {
        let digits = digest(bytes).replace("sha256:", "");
        let blobs = self.dir.path().join("store/docker/registry/v2/blobs/sha256");
        blobs.join(&digits[..2]).join(&digits).join("data")
    }

    /// Ends it at once.
    pub fn stop(&mut self) {
        // One that has ended already is what we want.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        self.stop();
    }
}

/// The digest of these bytes, as registries write it.
fn digest(bytes: &[u8]) -> String {
    let digits: String = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{digits}")
}

fn asked<S: Read + Write>(mut wire: Wire<S>, head: &[u8], body: &[u8]) -> Reply {
    wire.send([head, body].concat());
    wire.reply()
}

/// `... msg="listening on 127.0.0.1:41233" ...`, with `, tls` behind it where that is spoken.
fn address_in(line: &str) -> Option<SocketAddr> {
    let (_, rest) = line.split_once("listening on ")?;
    rest.split(['"', ',']).next()?.parse().ok()
}

fn config(setup: &Setup<'_>, dir: &TempDir) -> String {
    let here = dir.path();
    let mut config = format!(
        "version: 0.1\nstorage:\n  filesystem:\n    rootdirectory: {}\nhttp:\n  addr: 127.0.0.1:0\n",
        here.join("store").display()
    );
    if let Some((_, identity)) = setup.tls {
        let (certificate, key) = (here.join("tls.crt"), here.join("tls.key"));
        fs::write(&certificate, identity.certificate_pem()).expect("writable");
        fs::write(&key, identity.key_pem()).expect("writable");
        config +=
            &format!("  tls:\n    certificate: {}\n    key: {}\n", certificate.display(), key.display());
    }
    if let Some(line) = setup.htpasswd {
        let file = here.join("htpasswd");
        fs::write(&file, format!("{line}\n")).expect("writable");
        config += &format!("auth:\n  htpasswd:\n    realm: cells\n    path: {}\n", file.display());
    }
    config
}
