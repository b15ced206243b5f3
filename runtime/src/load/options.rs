//! What one can ask for on the command line, checked.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use cellmesh_dpu::units::TimeSpan;
use clap::{Args, ValueEnum};

use super::pacer::requests_due;

/// Most requests per second that one can ask for.
pub(super) const RATE_MAX: f64 = 10_000_000.0;

/// Longest run, and longest wait: a week. A time later than that is somebody's typing error.
const SPAN_MAX: Duration = Duration::from_secs(7 * 24 * 3600);

/// Largest body that is read from a file. It is kept once, whatever the number of connections.
const BODY_BYTES_MAX: u64 = 16 << 20;

/// What is sent, how fast, and where the figures go.
#[derive(Debug, Clone, Args)]
pub struct Options {
    /// What to ask: http://host:port/path.
    pub url: String,
    /// Requests per second; of a search, the rate that it starts at.
    #[arg(long, short, default_value_t = 1000.0)]
    pub rate: f64,
    /// For how long; of a search, each of its steps.
    #[arg(long, short, default_value = "10s")]
    pub duration: TimeSpan,
    /// Requests in flight at once, each on a connection of its own (HTTP/2: a stream).
    #[arg(long, short, default_value_t = 64)]
    pub connections: usize,
    /// How to ask.
    #[arg(long, value_enum, default_value_t = Protocol::Http1)]
    pub protocol: Protocol,
    /// A request is a timeout if it finds no free connection within this time of when it was due, or has no whole answer
    /// within this time of when it was sent. Also the longest wait for a connection to be made.
    #[arg(long, default_value = "5s")]
    pub timeout: TimeSpan,
    /// Threads that ask; each takes its share of the rate and of the connections.
    #[arg(long, default_value_t = 1)]
    pub threads: usize,
    /// Method; GET if none is given, and POST with a body.
    #[arg(long)]
    pub method: Option<String>,
    /// A header line, `name: value`; may be given several times. `host` names the server (HTTP/2: `:authority`); the
    /// bridge takes the service from `host` or `x-cellmesh-service`.
    #[arg(long = "header", short = 'H', value_name = "LINE")]
    pub headers: Vec<String>,
    /// Body, as it stands here.
    #[arg(long, value_name = "TEXT")]
    pub body: Option<String>,
    /// Body, as it stands in this file; at most 16 MiB.
    #[arg(long, value_name = "FILE", conflicts_with = "body")]
    pub body_file: Option<PathBuf>,
    /// Finds the highest rate at which nothing fails or times out, the achieved rate is at least 0.98 of the offered one,
    /// and p99 is within --p99-max. Achieved: answers that came within the step, the time of its fastest answer and a 50th
    /// of the step, by the step's length.
    #[arg(long)]
    pub search: bool,
    /// What a search takes for too slow.
    #[arg(long, default_value = "100ms")]
    pub p99_max: TimeSpan,
    /// Writes the figures to this file as JSON.
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Writes the latencies to this file as an HdrHistogram log.
    #[arg(long, value_name = "FILE")]
    pub hdr_log: Option<PathBuf>,
}

/// How a request is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Protocol {
    /// HTTP/1.1, keep-alive.
    Http1,
    /// HTTP/2 without TLS, up to 100 streams on a connection.
    Http2,
    /// The JSON bridge: one object on a connection of its own.
    Bridge,
}

impl Options {
    /// # Errors
    /// When they make no sense.
    pub(super) fn check(&self) -> Result<()> {
        if !(self.rate > 0.0 && self.rate <= RATE_MAX) {
            bail!("--rate {}: must be more than 0 and at most {RATE_MAX}", self.rate);
        }
        if self.threads == 0 || self.connections < self.threads {
            bail!("--connections {}: must be at least --threads ({})", self.connections, self.threads);
        }
        for (name, span) in [("--duration", self.duration.0), ("--timeout", self.timeout.0)] {
            if span.is_zero() || span > SPAN_MAX {
                bail!("{name} {span:?}: must be more than 0 and at most a week");
            }
        }
        if requests_due(self.rate, self.duration.0) == 0 {
            bail!("--rate {} for {:?} is not even one request: ask for longer", self.rate, self.duration.0);
        }
        Ok(())
    }

    /// # Errors
    /// If the file cannot be read, or is too large.
    pub(super) fn read_body(&self) -> Result<Option<Bytes>> {
        match &self.body_file {
            Some(path) => {
                read_file(path).with_context(|| format!("--body-file {}", path.display())).map(Some)
            }
            None => Ok(self.body.clone().map(Bytes::from)),
        }
    }
}

fn read_file(path: &Path) -> Result<Bytes> {
    let mut body = Vec::new();
    std::fs::File::open(path)?.take(BODY_BYTES_MAX + 1).read_to_end(&mut body)?;
    if body.len() as u64 > BODY_BYTES_MAX {
        bail!("must be at most {BODY_BYTES_MAX} bytes");
    }
    Ok(body.into())
}

#[cfg(test)]
pub(super) mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        options: Options,
    }

    /// What this command line says.
    pub(in crate::load) fn options(args: &[&str]) -> Options {
        parsed(args).unwrap_or_else(|error| panic!("{error}"))
    }

    fn parsed(args: &[&str]) -> Result<Options, clap::Error> {
        Cli::try_parse_from([&["load", "http://127.0.0.1/"], args].concat()).map(|cli| cli.options)
    }

    /// A body is what was typed, whatever it begins with, or what stands in a file, and not both.
    #[test]
    fn body_is_text_or_file() {
        let mut file = tempfile::NamedTempFile::new().expect("a temporary file");
        std::io::Write::write_all(&mut file, b"from a file").expect("written");
        let path = file.path().to_str().expect("a path that is text");
        let body = |args: &[&str]| options(args).read_body().expect("a body");
        assert_eq!(body(&[]), None);
        assert_eq!(body(&["--body", "@typed"]), Some(Bytes::from("@typed")));
        assert_eq!(body(&["--body-file", path]), Some(Bytes::from("from a file")));
        assert!(parsed(&["--body", "x", "--body-file", path]).is_err());
    }

    /// A file that is too large, or not there, is named.
    #[test]
    fn body_file_is_bounded() {
        let file = tempfile::NamedTempFile::new().expect("a temporary file");
        let path = file.path().to_str().expect("a path that is text");
        let wrong = || {
            let error = options(&["--body-file", path]).read_body().expect_err("no body");
            assert!(format!("{error:#}").contains(path), "{error:#}");
            format!("{error:#}")
        };
        file.as_file().set_len(BODY_BYTES_MAX + 1).expect("a larger file");
        assert!(wrong().contains("must be at most 16777216 bytes"));
        std::fs::remove_file(path).expect("a file that is there");
        assert!(wrong().contains("No such file"));
    }

    /// What cannot be is told with what would be right.
    #[test]
    fn mistakes_are_named() {
        let wrong = |args: &[&str]| options(args).check().expect_err("wrong").to_string();
        assert!(wrong(&["--rate", "0"]).contains("--rate 0: must be more than 0"));
        assert!(wrong(&["-c", "1", "--threads", "2"]).contains("must be at least --threads (2)"));
        assert!(wrong(&["--timeout", "0s"]).contains("--timeout 0ns: must be more than 0"));
        assert!(wrong(&["--duration", "9999999h"]).contains("at most a week"));
        assert!(wrong(&["--rate", "0.1", "--duration", "1s"]).contains("not even one request"));
    }
}
