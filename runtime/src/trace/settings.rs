//! The `[trace]` section, and what the environment says beside it.

use std::time::Duration;

use cellmesh_dpu::config::ConfigError;
use cellmesh_dpu::units::{ByteSize, Ratio, TimeSpan};
use serde::Deserialize;

use super::resource::Resource;

/// `[trace]` as a file has it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TraceConfig {
    /// Requests that each lane keeps to be looked at: so many that were sampled, and so many that were slow or in error. 0: none.
    pub kept_max: u32,
    /// Share of all requests that is sampled, in thousandths.
    pub sample: Ratio,
    /// Requests that each lane samples every second if there are so many, however small the share. 0: only the share.
    pub sample_per_second_min: u32,
    /// A request that takes longer is kept.
    pub slow: TimeSpan,
    /// Whether what is kept has the bytes of requests and step results too, to be run again with `cellmesh replay`.
    pub record: bool,
    /// Most bytes of one request and its step results that are recorded; one with more is kept without them.
    pub record_bytes_max: ByteSize,
    /// Base address of a collector that takes OTLP over HTTP. None: nothing is exported.
    pub endpoint: Option<String>,
}

impl Default for TraceConfig {
    fn default() -> Self {
        Self {
            kept_max: 128,
            sample: Ratio::thousandths(0),
            sample_per_second_min: 10,
            slow: TimeSpan::secs(1),
            record: false,
            record_bytes_max: ByteSize::kib(256),
            endpoint: None,
        }
    }
}

/// Most requests that a lane may be told to keep, of each kind.
const KEPT_MOST: u32 = 4096;
/// Most bytes that may be recorded of one request.
const RECORD_BYTES_MOST: ByteSize = ByteSize::mib(16);

impl TraceConfig {
    /// What single keys cannot know.
    pub(crate) fn validate(&self) -> Vec<ConfigError> {
        let mut wrong = Vec::new();
        let mut note = |key, found: String, right: &str| {
            wrong.push(ConfigError { key, found, right: right.to_owned() });
        };
        if self.kept_max > KEPT_MOST {
            note("kept_max", self.kept_max.to_string(), &format!("at most {KEPT_MOST}"));
        }
        if self.sample_per_second_min > 1000 {
            note("sample_per_second_min", self.sample_per_second_min.to_string(), "at most 1000");
        }
        if self.record_bytes_max > RECORD_BYTES_MOST {
            note(
                "record_bytes_max",
                self.record_bytes_max.to_string(),
                &format!("at most {RECORD_BYTES_MOST}"),
            );
        }
        if let Some(Err(why)) = self.endpoint.as_deref().map(Otlp::parse) {
            note("endpoint", why.found, why.right);
        }
        wrong
    }
}

/// What is kept of requests, and where it goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TraceSettings {
    /// Requests that are kept on a lane, of each kind.
    pub kept_max: usize,
    /// Thousandths of all requests that are sampled.
    pub share: u64,
    /// Samples a second, at least.
    pub sample_per_second_min: u32,
    /// From here on a request is slow.
    pub slow: Duration,
    /// Bytes that are recorded of a request, at most. None: nothing is recorded.
    pub record_bytes_max: Option<usize>,
    /// Where what is kept is sent, too.
    pub otlp: Option<Otlp>,
}

impl Default for TraceSettings {
    fn default() -> Self {
        Self::of(&TraceConfig::default())
    }
}

impl TraceSettings {
    /// What a file says, once it is validated.
    #[must_use]
    pub fn of(config: &TraceConfig) -> Self {
        Self {
            kept_max: config.kept_max as usize,
            share: config.sample.of(1000),
            sample_per_second_min: config.sample_per_second_min,
            slow: config.slow.0,
            record_bytes_max: config.record.then(|| config.record_bytes_max.as_len()),
            otlp: config.endpoint.as_deref().and_then(|endpoint| Otlp::parse(endpoint).ok()),
        }
    }

    /// Takes what the environment says over what the file says: the variables of OpenTelemetry.
    ///
    /// - `variable`: the value of a variable of the environment, if it is set.
    /// # Errors
    /// The variable that cannot be used, what it says, and what would be right.
    pub fn with_environment(mut self, variable: impl Fn(&str) -> Option<String>) -> Result<Self, String> {
        let set = |name: &str| variable(name).filter(|value| !value.is_empty());
        let bad =
            |name: &str, wrong: BadEndpoint| format!("{name} = {:?}: must be {}", wrong.found, wrong.right);
        for (name, parse) in [
            ("OTEL_EXPORTER_OTLP_ENDPOINT", Otlp::parse as fn(&str) -> Result<Otlp, BadEndpoint>),
            ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", Otlp::parse_whole),
        ] {
            if let Some(value) = set(name) {
                self.otlp = Some(parse(&value).map_err(|wrong| bad(name, wrong))?);
            }
        }
        if let Some(otlp) = &mut self.otlp {
            otlp.resource = Resource::of_environment(&variable);
            for name in ["OTEL_EXPORTER_OTLP_HEADERS", "OTEL_EXPORTER_OTLP_TRACES_HEADERS"] {
                if let Some(value) = set(name) {
                    otlp.headers = headers(&value)
                        .ok_or_else(|| format!("{name}: must be a list like \"name=value,name=value\""))?;
                }
            }
        }
        match set("OTEL_TRACES_SAMPLER").as_deref() {
            None => {}
            Some("always_on" | "parentbased_always_on") => self.share = 1000,
            Some("always_off" | "parentbased_always_off") => {
                (self.share, self.sample_per_second_min) = (0, 0)
            }
            Some("traceidratio" | "parentbased_traceidratio") => {
                self.share = share(set("OTEL_TRACES_SAMPLER_ARG").as_deref())?;
            }
            Some(other) => {
                return Err(format!(
                    "OTEL_TRACES_SAMPLER = {other:?}: must be always_on, always_off or traceidratio, \
                     or one of these behind parentbased_"
                ));
            }
        }
        Ok(self)
    }
}

fn share(argument: Option<&str>) -> Result<u64, String> {
    let Some(text) = argument else { return Ok(1000) };
    let bad = || format!("OTEL_TRACES_SAMPLER_ARG = {text:?}: must be a share from 0 to 1, such as 0.01");
    let share: f64 = text.parse().map_err(|_| bad())?;
    if !(0.0..=1.0).contains(&share) {
        return Err(bad());
    }
    (0..=1000_u16)
        .find(|thousandths| f64::from(*thousandths) >= share * 1000.0)
        .map(u64::from)
        .ok_or_else(bad)
}

/// Where OTLP is sent.
#[derive(Clone, PartialEq, Eq)]
pub struct Otlp {
    /// The whole address, path included.
    pub url: http::Uri,
    /// Sent with each message: names and values, often secrets.
    pub headers: Vec<(http::HeaderName, http::HeaderValue)>,
    /// What all spans are said to be of.
    pub resource: Resource,
}

impl std::fmt::Debug for Otlp {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Otlp({}, {} headers)", self.place(), self.headers.len())
    }
}

/// Why a text names no collector.
#[derive(Debug)]
pub struct BadEndpoint {
    found: String,
    right: &'static str,
}

const ENDPOINT_RIGHT: &str =
    "the base address of a collector that takes OTLP over HTTP, such as \"http://127.0.0.1:4318\"";

impl Otlp {
    /// For the log: without a query, which may have a key.
    #[must_use]
    pub fn place(&self) -> String {
        self.url.to_string().split('?').next().unwrap_or_default().to_owned()
    }

    /// The address of traces below a base address.
    ///
    /// # Errors
    /// It is none.
    pub fn parse(base: &str) -> Result<Self, BadEndpoint> {
        Self::parse_whole(&format!("{}/v1/traces", base.trim_end_matches('/')))
            .map_err(|wrong| BadEndpoint { found: base.to_owned(), ..wrong })
    }

    /// An address that is used as it is.
    ///
    /// # Errors
    /// It is none.
    pub fn parse_whole(address: &str) -> Result<Self, BadEndpoint> {
        let wrong = || BadEndpoint { found: address.to_owned(), right: ENDPOINT_RIGHT };
        let url: http::Uri = address.parse().map_err(|_| wrong())?;
        let scheme = url.scheme_str();
        if !matches!(scheme, Some("http" | "https")) || url.host().is_none_or(str::is_empty) {
            return Err(wrong());
        }
        // Names and passwords are for OTEL_EXPORTER_OTLP_HEADERS: an address is logged.
        if url.authority().is_some_and(|authority| authority.as_str().contains('@')) {
            return Err(wrong());
        }
        Ok(Self { url, headers: Vec::new(), resource: Resource::default() })
    }
}

/// `name=value,name=value`, values percent-encoded. Source: the OTLP exporter's specification.
fn headers(text: &str) -> Option<Vec<(http::HeaderName, http::HeaderValue)>> {
    let one = |pair: &str| {
        let (name, value) = pair.split_once('=')?;
        let value = percent_encoding::percent_decode_str(value.trim()).collect::<Vec<u8>>();
        let mut value = http::HeaderValue::from_bytes(&value).ok()?;
        value.set_sensitive(true);
        Some((name.trim().parse().ok()?, value))
    };
    text.split(',').filter(|pair| !pair.trim().is_empty()).map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(variables: &[(&str, &str)]) -> Result<TraceSettings, String> {
        let find =
            |name: &str| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).into());
        TraceSettings::default().with_environment(find)
    }

    /// OpenTelemetry's variables mean here what they mean elsewhere.
    #[test]
    fn environment_is_taken_over_the_file() {
        let plain = settings(&[]).unwrap();
        assert_eq!((plain.otlp, plain.share), (None, 0));
        let set = settings(&[
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4318/"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "authorization=Basic%20abc, x-team = mesh"),
            ("OTEL_TRACES_SAMPLER", "parentbased_traceidratio"),
            ("OTEL_TRACES_SAMPLER_ARG", "0.25"),
        ]);
        let set = set.unwrap();
        let otlp = set.otlp.unwrap();
        assert_eq!((otlp.url.to_string().as_str(), set.share), ("http://collector:4318/v1/traces", 250));
        let headers: Vec<_> =
            otlp.headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes())).collect();
        assert_eq!(headers, [("authorization", &b"Basic abc"[..]), ("x-team", b"mesh")]);
        let whole = settings(&[("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "https://collector/otlp")]).unwrap();
        assert_eq!(whole.otlp.unwrap().url, "https://collector/otlp");
    }

    /// What cannot be used is named, with what could.
    #[test]
    fn bad_environment_is_refused() {
        for (name, value) in [
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "collector:4318"),
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "grpc://collector:4317"),
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://user:secret@collector"),
            ("OTEL_TRACES_SAMPLER", "jaeger_remote"),
        ] {
            let error = settings(&[(name, value)]).unwrap_err();
            assert!(error.starts_with(name) && error.contains("must be"), "{error}");
        }
        let ratio = [("OTEL_TRACES_SAMPLER", "traceidratio"), ("OTEL_TRACES_SAMPLER_ARG", "2")];
        assert!(settings(&ratio).unwrap_err().starts_with("OTEL_TRACES_SAMPLER_ARG"));
        let base = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4318");
        let error = settings(&[base, ("OTEL_EXPORTER_OTLP_HEADERS", "secret")]).unwrap_err();
        assert!(error.contains("name=value") && !error.contains("secret"), "{error}");
    }
}
