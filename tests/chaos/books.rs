//! The books of the DPU and the DPA, read from outside the whole time: nothing is counted twice, nothing is lost.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// Between two looks at each process.
const EVERY: Duration = Duration::from_millis(250);
/// A process that stands still is looked at when it goes on.
const PATIENCE: Duration = Duration::from_millis(500);

/// Equations of each process: what came in, and what became of it, by the names of samples.
const LAWS: [(&str, &[&str]); 2] = [
    (
        "requests_received_total",
        &[
            "requests_answered_total",
            "requests_refused_total",
            "requests_abandoned_total",
            "inflight_requests",
        ],
    ),
    (
        "custody_requests_total",
        &["custody_answered_total", "custody_faulted_total", "custody_abandoned_total", "custody_requests"],
    ),
];

/// Reads `/metrics` of some processes until it is stopped.
pub(crate) struct Books {
    stop: Arc<AtomicBool>,
    reader: JoinHandle<usize>,
}

impl Books {
    pub(crate) fn watch(admins: [SocketAddr; 2]) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let reader = std::thread::spawn(move || {
            let mut balanced = 0;
            while !stopped.load(Ordering::Relaxed) {
                // A process that is being killed or stands still says nothing.
                let texts = admins.iter().filter_map(|admin| scrape(*admin));
                texts.for_each(|text| balanced += assert_balanced(&text));
                std::thread::sleep(EVERY);
            }
            balanced
        });
        Self { stop, reader }
    }

    /// How many equations were looked at; each of them held.
    pub(crate) fn stop(self) -> usize {
        self.stop.store(true, Ordering::Relaxed);
        self.reader.join().expect("the books balanced, see above")
    }
}

/// The body, if it came whole.
fn scrape(admin: SocketAddr) -> Option<String> {
    let mut stream = TcpStream::connect_timeout(&admin, PATIENCE).ok()?;
    stream.set_read_timeout(Some(PATIENCE)).ok()?;
    stream.write_all(b"GET /metrics HTTP/1.1\r\nhost: admin\r\nconnection: close\r\n\r\n").ok()?;
    let mut text = String::new();
    stream.read_to_string(&mut text).ok()?;
    let (_head, body) = text.split_once("\r\n\r\n")?;
    body.ends_with('\n').then(|| body.to_owned())
}

/// How many of the laws this process knows; each of them holds, and that of each service.
fn assert_balanced(text: &str) -> usize {
    let samples: HashMap<&str, u64> = text
        .lines()
        .filter_map(|line| line.strip_prefix("cellmesh_")?.rsplit_once(' '))
        // Counts are whole; what is not is time.
        .filter_map(|(name, value)| Some((name, value.parse().ok()?)))
        .collect();
    for (sample, received) in &samples {
        if let Some(labels) = sample.strip_prefix("service_requests_received_total") {
            // Some have more labels than the service's.
            let service = labels.trim_end_matches('}');
            let is_of = |sample: &str, family: &str| {
                let rest = sample.strip_prefix("service_").and_then(|rest| rest.strip_prefix(family));
                rest.and_then(|rest| rest.strip_prefix(service))
                    .is_some_and(|rest| rest.starts_with(['}', ',']))
            };
            let of = |family: &&str| -> u64 {
                samples.iter().filter(|(sample, _)| is_of(sample, family)).map(|(_, value)| value).sum()
            };
            let ended: u64 = LAWS[0].1.iter().map(of).sum();
            assert_eq!(*received, ended, "{sample} of {text}");
        }
    }
    let sum_of = |name: &str| -> u64 {
        let is_it = |sample: &str| sample.split_once('{').map_or(sample, |(family, _labels)| family) == name;
        samples.iter().filter(|(sample, _)| is_it(sample)).map(|(_, value)| value).sum()
    };
    let known = LAWS.iter().filter(|(came_in, _)| samples.keys().any(|sample| sample.starts_with(came_in)));
    known
        .map(|(came_in, became)| {
            let ended: u64 = became.iter().map(|name| sum_of(name)).sum();
            assert_eq!(sum_of(came_in), ended, "{came_in} of {text}");
        })
        .count()
}
