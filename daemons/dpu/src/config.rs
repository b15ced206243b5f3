//! `[dpu]`: the limits of the network side. Each has a default, a unit and a reason.
//!
//! Times are texts such as `"30s"`, sizes such as `"16MiB"` ([`crate::units`]). Unknown keys are refused.

mod problems;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use cellmesh_shm::outlier::OutlierRule;
use serde::Deserialize;

pub use self::problems::ConfigError;
pub(crate) use self::problems::Problems;
use crate::egress::Directory;
use crate::egress::hosts::{Addresses, Authority, HostPattern};
use crate::egress::trust::Cas;
pub use crate::forward::ForwardedRule;
use crate::policy::ServicePolicy;
use crate::units::{ByteSize, TimeSpan};

/// Least head that hyper can be told to accept. Source: hyper's minimum buffer.
const HEAD_BYTES_LEAST: ByteSize = ByteSize::kib(8);
/// Most head that may be configured: what workers and cells are promised. Source: `HeadLimits`.
const HEAD_BYTES_MOST: ByteSize = ByteSize::kib(16);

/// `[dpu]`: what one sidecar lane accepts from the network. Limits are per lane unless they say so.
#[derive(Debug, Clone, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields, default)]
pub struct DpuConfig {
    /// From the first byte of a request's head known to the DPU to its answer; 504 after it.
    pub request_timeout: TimeSpan,
    /// Longest request body; longer ones are answered 413, before reading where the length is declared.
    pub body_bytes_max: ByteSize,
    /// Request bodies held at once, of all requests together; 503 beyond. Bounds the lane's memory.
    pub buffered_bytes_max: ByteSize,
    /// Bytes of answers at once that HTTP clients have not taken yet, of all connections together; what comes on top is
    /// answered 503. Bounds the lane's memory: an HTTP/2 client chooses how much of its answers it takes.
    pub answer_bytes_max: ByteSize,
    /// Longest request head (request line and headers, with those added here); 431 beyond.
    pub head_bytes_max: ByteSize,
    /// Longest request target (path and query); 414 beyond.
    pub target_bytes_max: ByteSize,
    /// Most header lines of a request, with those added here (`x-request-id`); 431 beyond.
    pub header_lines_max: u16,
    /// From the first byte of a head to its last, and from accept to the first byte.
    pub header_read_timeout: TimeSpan,
    /// Longest pause inside a request body; 408 beyond.
    pub body_idle_timeout: TimeSpan,
    /// A connection without a request in flight is closed after this.
    pub keep_alive_idle_timeout: TimeSpan,
    /// Longest time that a client may take none of an answer's bytes; the connection is cut then.
    pub write_idle_timeout: TimeSpan,
    /// After our last byte, how long a client that is still sending is read and ignored, so that it
    /// sees our answer and not a reset.
    pub linger_timeout: TimeSpan,
    /// Requests in flight at once; more are answered 503 with `Retry-After`.
    pub requests_max: u32,
    /// Calls of workers relayed at once (the slow path of service-to-service calls); 503 beyond.
    pub relays_max: u32,
    /// Whether a request whose worker died with it is sent once more, to another worker, if its method is idempotent.
    /// What the first worker did before it died, calls to other services among it, is then done twice.
    pub retry_worker_lost: bool,
    /// Open connections of the whole process; more are answered 503 and closed.
    pub connections_max: u32,
    /// Open connections of one client address of the whole process (an IPv6 network of 64 bits counts as one); more are
    /// answered 503 and closed.
    pub connections_per_address_max: u32,
    /// Streams open at once on one HTTP/2 connection.
    pub h2_streams_max: u32,
    /// HTTP/2 streams that the client reset before they were taken up; more close the connection.
    /// Source: CVE-2023-44487 (rapid reset).
    pub h2_pending_resets_max: u32,
    /// HTTP/2 streams that we had to reset for the client's errors; more close the connection.
    /// Source: CVE-2025-8671 (MadeYouReset).
    pub h2_local_resets_max: u32,
    /// What becomes of a client's `forwarded` and `x-forwarded-*`.
    pub forwarded: ForwardedRule,
    /// Whether a connection that starts with `{` is a JSON-bridge client.
    pub json_bridge: bool,
    /// From the first byte of a JSON object to its last.
    pub json_timeout: TimeSpan,
    /// Deepest nesting of a JSON object.
    pub json_depth_max: u16,
    /// `[dpu.egress]`.
    pub egress: EgressConfig,
    /// `[dpu.tls]`; without it only cleartext is spoken. Made by whoever reads the file: its paths are relative to that.
    #[serde(skip)]
    pub tls: Option<TlsConfig>,
    /// `[service.NAME]`, by the service's name. Not a key of its own.
    #[serde(skip)]
    pub services: BTreeMap<String, ServicePolicy>,
}

/// `[dpu.tls]`: a listener that speaks TLS, beside the cleartext one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsConfig {
    /// Where it listens.
    pub listen: SocketAddr,
    /// PEM file: the certificate, and behind it those of the CAs between it and one that clients know.
    pub certificate: PathBuf,
    /// PEM file: the certificate's private key, not encrypted.
    pub key: PathBuf,
    /// Whether clients show certificates, and which.
    pub clients: Option<ClientCa>,
    /// From accept to the end of the handshake; the connection is closed then. `header_read_timeout`, which runs from accept
    /// too, bounds it as well.
    pub handshake_timeout: TimeSpan,
}

impl TlsConfig {
    /// What `handshake_timeout` is unless config says otherwise.
    pub const HANDSHAKE_TIMEOUT: TimeSpan = TimeSpan::secs(5);
}

/// Which certificates of clients are good.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientCa {
    /// PEM file: the CAs that sign them.
    pub file: PathBuf,
    /// Whether a client must have one.
    pub required: bool,
}

/// `[dpu.egress]`: calls off this node.
#[derive(Debug, Clone, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields, default)]
pub struct EgressConfig {
    /// Whether a service of the application that has no worker here is called elsewhere: at its own name, at the port of the
    /// cell's URL.
    pub services_elsewhere: bool,
    /// Where hosts are, instead of asking the system's resolver: `"name" = "address:port"`, or a list of these. A service
    /// that is named here and has no worker on this node is called there.
    pub hosts: BTreeMap<String, Addresses>,
    /// Hosts that speak HTTP/2 without being asked (prior knowledge); others are spoken to in HTTP/1.1.
    pub http2: Vec<String>,
    /// Whose certificates are believed over TLS, in place of the system's CAs: a file with certificates in PEM.
    pub ca: Option<PathBuf>,
    /// What was in it when config was read.
    #[serde(skip)]
    pub cas: Option<Cas>,
    /// From a name to a connection, TLS included; 504 after it.
    pub connect_timeout: TimeSpan,
    /// From the call to the last byte of its answer; 504 after it, or at the request's own deadline if that is sooner.
    pub try_timeout: TimeSpan,
    /// A connection without a request is closed after this.
    pub idle_timeout: TimeSpan,
    /// Connections without a request that are kept for each host.
    pub idle_connections_max: u32,
    /// Hosts beyond the services of the application that its cells may call: what any of them may. Not a key of its own:
    /// see `cell.egress.allow`.
    #[serde(skip)]
    pub allow: Vec<HostPattern>,
    /// When an address of a service gets no calls for a while; a service that is not named has no such rule. Not a key of
    /// its own: see `[service.NAME.outlier]`.
    #[serde(skip)]
    pub outliers: BTreeMap<String, OutlierRule>,
    /// What the lanes of the process know of the addresses of these services: clones of a config share it. Not a key.
    #[serde(skip)]
    pub directory: Directory,
}

impl Default for EgressConfig {
    fn default() -> Self {
        Self {
            services_elsewhere: false,
            hosts: BTreeMap::new(),
            http2: Vec::new(),
            ca: None,
            cas: None,
            connect_timeout: TimeSpan::secs(2),
            try_timeout: TimeSpan::secs(30),
            idle_timeout: TimeSpan::secs(60),
            idle_connections_max: 64,
            allow: Vec::new(),
            outliers: BTreeMap::new(),
            directory: Directory::default(),
        }
    }
}

impl EgressConfig {
    /// Reads the file of `ca`, relative to `folder`.
    ///
    /// # Errors
    /// Why it cannot be used.
    pub fn read_ca(&mut self, folder: &Path) -> Result<(), ConfigError> {
        let Some(ca) = &mut self.ca else { return Ok(()) };
        *ca = folder.join(&*ca);
        let wrong = |error| ConfigError {
            key: "egress.ca",
            found: format!("{} {error}, and so", ca.display()),
            right: "a PEM file with the certificates of CAs".into(),
        };
        self.cas = Some(Cas::load(ca).map_err(wrong)?);
        Ok(())
    }

    /// Whether a service of the application can be called off this node at all.
    #[must_use]
    pub fn leads_elsewhere(&self) -> bool {
        self.services_elsewhere || !self.hosts.is_empty()
    }

    /// Whether this service can be called off this node.
    #[must_use]
    pub fn leads_to(&self, service: &str) -> bool {
        self.services_elsewhere || self.hosts.keys().any(|host| host.eq_ignore_ascii_case(service))
    }

    fn check(&self, problems: &mut Problems) {
        for (key, span) in [
            ("egress.connect_timeout", self.connect_timeout),
            ("egress.try_timeout", self.try_timeout),
            ("egress.idle_timeout", self.idle_timeout),
        ] {
            problems.check_time(key, span);
        }
        let is_host = |host: &str| Authority::parse(host).is_some_and(|host| host.port.is_none());
        for (key, hosts) in [
            ("egress.hosts", self.hosts.keys().collect::<Vec<_>>()),
            ("egress.http2", self.http2.iter().collect()),
        ] {
            for host in hosts {
                problems.check_text(key, host, is_host(host), "a host name, without a port");
            }
        }
    }
}

impl Default for DpuConfig {
    fn default() -> Self {
        Self {
            request_timeout: TimeSpan::secs(30),
            body_bytes_max: ByteSize::mib(16),
            buffered_bytes_max: ByteSize::mib(256),
            answer_bytes_max: ByteSize::mib(256),
            head_bytes_max: ByteSize::kib(16),
            target_bytes_max: ByteSize::kib(8),
            header_lines_max: 100,
            header_read_timeout: TimeSpan::secs(5),
            body_idle_timeout: TimeSpan::secs(10),
            keep_alive_idle_timeout: TimeSpan::secs(60),
            write_idle_timeout: TimeSpan::secs(30),
            linger_timeout: TimeSpan::secs(2),
            requests_max: 1024,
            relays_max: 1024,
            retry_worker_lost: false,
            connections_max: 16_384,
            connections_per_address_max: 4096,
            h2_streams_max: 100,
            h2_pending_resets_max: 20,
            h2_local_resets_max: 64,
            forwarded: ForwardedRule::default(),
            json_bridge: true,
            json_timeout: TimeSpan::secs(5),
            json_depth_max: 64,
            egress: EgressConfig::default(),
            services: BTreeMap::new(),
            tls: None,
        }
    }
}

impl DpuConfig {
    /// Everything that is wrong, at once; empty when the config can be used.
    #[must_use]
    pub fn validate(&self) -> Vec<ConfigError> {
        let mut problems = Problems::default();
        self.check_counts(&mut problems);
        self.check_times(&mut problems);
        self.check_sizes(&mut problems);
        self.egress.check(&mut problems);
        if let Some(tls) = &self.tls {
            problems.check_time("tls.handshake_timeout", tls.handshake_timeout);
        }
        problems.found
    }

    /// As much of this as a process can do that began with `first`, for which its rings and custody were made; and the keys
    /// that say more.
    #[must_use]
    pub fn within(mut self, first: &Self) -> (Self, Vec<&'static str>) {
        let mut cut = Vec::new();
        lower(&mut self.request_timeout, first.request_timeout, "dpu.request_timeout", &mut cut);
        lower(&mut self.body_bytes_max, first.body_bytes_max, "dpu.body_bytes_max", &mut cut);
        lower(&mut self.requests_max, first.requests_max, "dpu.requests_max", &mut cut);
        lower(&mut self.relays_max, first.relays_max, "dpu.relays_max", &mut cut);
        (self, cut)
    }

    fn check_counts(&self, problems: &mut Problems) {
        for (key, count) in [
            ("header_lines_max", u32::from(self.header_lines_max)),
            ("requests_max", self.requests_max),
            ("relays_max", self.relays_max),
            ("connections_max", self.connections_max),
            ("connections_per_address_max", self.connections_per_address_max),
            ("h2_streams_max", self.h2_streams_max),
            ("json_depth_max", u32::from(self.json_depth_max)),
        ] {
            problems.check(key, &count, count > 0, "at least 1");
        }
        let depth = self.json_depth_max;
        problems.check(
            "json_depth_max",
            &depth,
            depth <= JSON_DEPTH_MOST,
            "at most 120 (the JSON reader's own limit is 128)",
        );
        let lines = self.header_lines_max;
        problems.check("header_lines_max", &lines, lines <= HEADER_LINES_MOST, "at most 100");
    }

    fn check_times(&self, problems: &mut Problems) {
        for (key, span) in [
            ("request_timeout", self.request_timeout),
            ("header_read_timeout", self.header_read_timeout),
            ("body_idle_timeout", self.body_idle_timeout),
            ("keep_alive_idle_timeout", self.keep_alive_idle_timeout),
            ("write_idle_timeout", self.write_idle_timeout),
            ("json_timeout", self.json_timeout),
        ] {
            problems.check_time(key, span);
        }
    }

    fn check_sizes(&self, problems: &mut Problems) {
        let (body, held) = (self.body_bytes_max, self.buffered_bytes_max);
        problems.check_text("body_bytes_max", body, body <= ByteSize::mib(1024), "at most \"1GiB\"");
        problems.check_text("buffered_bytes_max", held, held >= body, "at least dpu.body_bytes_max");
        let answers = self.answer_bytes_max;
        let right = answers >= body;
        problems.check_text("answer_bytes_max", answers, right, "at least dpu.body_bytes_max");
        let head = self.head_bytes_max;
        let right = HEAD_BYTES_LEAST <= head && head <= HEAD_BYTES_MOST;
        problems.check_text("head_bytes_max", head, right, "from \"8KiB\" to \"16KiB\"");
        let target = self.target_bytes_max;
        let right = target < head.min(HEAD_BYTES_MOST);
        problems.check_text("target_bytes_max", target, right, "less than dpu.head_bytes_max");
    }
}

fn lower<T: PartialOrd>(value: &mut T, most: T, key: &'static str, cut: &mut Vec<&'static str>) {
    if *value > most {
        *value = most;
        cut.push(key);
    }
}

/// Below the recursion limit of the JSON reader, so that our own limit is the one that speaks.
const JSON_DEPTH_MOST: u16 = 120;
/// What workers and cells are promised. Source: `HeadLimits`.
const HEADER_LINES_MOST: u16 = 100;

#[cfg(test)]
mod tests {
    use super::*;

    /// The defaults are a config that can be used.
    #[test]
    fn defaults_are_valid() {
        assert_eq!(DpuConfig::default().validate(), []);
    }

    /// A file sets what it names and leaves the rest; an unknown key is refused by name.
    #[test]
    fn keys_are_read_with_units() {
        let config: DpuConfig =
            serde_json::from_str(r#"{"request_timeout": "250ms", "body_bytes_max": "1MiB"}"#).expect("valid");
        assert_eq!(config.request_timeout, TimeSpan::millis(250));
        assert_eq!(config.body_bytes_max, ByteSize::mib(1));
        assert_eq!(config.requests_max, DpuConfig::default().requests_max);
        let error = serde_json::from_str::<DpuConfig>(r#"{"requests": 1}"#).unwrap_err().to_string();
        assert!(error.contains("requests"), "{error}");
    }

    /// Limits can be lowered, and raised again to what they were at the start.
    #[test]
    fn limits_go_up_to_what_they_were_at_first() {
        let first = DpuConfig::default();
        let wanted = DpuConfig {
            body_bytes_max: ByteSize::mib(32),
            requests_max: 7,
            header_lines_max: 9,
            ..DpuConfig::default()
        };
        let (config, cut) = wanted.within(&first);
        assert_eq!(cut, ["dpu.body_bytes_max"]);
        assert_eq!(config, DpuConfig { requests_max: 7, header_lines_max: 9, ..DpuConfig::default() });
    }

    /// All problems are reported at once, each with its key and what would be right.
    #[test]
    fn every_problem_is_named() {
        let config = DpuConfig {
            requests_max: 0,
            request_timeout: TimeSpan::millis(0),
            buffered_bytes_max: ByteSize::mib(1),
            ..DpuConfig::default()
        };
        let messages: Vec<String> = config.validate().iter().map(ToString::to_string).collect();
        assert_eq!(
            messages,
            [
                "requests_max = 0: must be at least 1",
                "request_timeout = \"0ms\": must be from \"1ms\" to \"24h\"",
                "buffered_bytes_max = \"1MiB\": must be at least dpu.body_bytes_max",
            ]
        );
    }
}
