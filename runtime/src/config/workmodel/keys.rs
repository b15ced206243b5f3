//! Keys of a work model: which of them mean something, here or to muBench, and what the others were meant to be.
//!
//! - A key that is nearly a known one is a mistake; any other is somebody else's, and passed over. That is told once for a file.

use std::collections::BTreeMap;

/// Of a service. Source: muBench's manual, and the files that its generators and its deployer write and read.
pub(super) const OF_SERVICE: [&str; 18] = [
    "alternative_behaviors",
    "cpu-limits",
    "cpu-requests",
    "external_services",
    "image",
    "internal_service",
    "memory-limits",
    "memory-requests",
    "namespace",
    "node_affinity",
    "path",
    "pod_antiaffinity",
    "replicas",
    "request_method",
    "sidecar",
    "threads",
    "url",
    "workers",
];

/// Of one of its alternative behaviors.
pub(super) const OF_BEHAVIOR: [&str; 3] = ["external_services", "internal_service", "internal_services"];

/// Of a group of callees.
pub(super) const OF_GROUP: [&str; 3] = ["probabilities", "seq_len", "services"];

/// Keys that nobody here knows, and how many places have each.
#[derive(Debug, Default)]
pub(super) struct Strangers(BTreeMap<String, Places>);

#[derive(Debug)]
struct Places {
    first: String,
    more: usize,
}

/// Keys that are named in the note.
const NAMED_MAX: usize = 8;

impl Strangers {
    pub(super) fn add(&mut self, at: &str, key: &str) {
        let places = self.0.entry(key.to_owned());
        places
            .and_modify(|places| places.more += 1)
            .or_insert_with(|| Places { first: format!("{at}.{key}"), more: 0 });
    }

    /// One for all of them.
    pub(super) fn note(&self) -> Option<String> {
        let named: Vec<String> = self.0.values().take(NAMED_MAX).map(Places::to_string).collect();
        let others = self.0.len().saturating_sub(NAMED_MAX);
        let others = if others == 0 { String::new() } else { format!(", and {others} other keys") };
        (!named.is_empty())
            .then(|| format!("keys that mean nothing here and are passed over: {}{others}", named.join(", ")))
    }
}

impl std::fmt::Display for Places {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.more {
            0 => f.write_str(&self.first),
            more => write!(f, "{} ({more} more)", self.first),
        }
    }
}

/// The known key that an unknown one was meant to be, if it is nearly the same.
pub(super) fn meant(name: &str, known: &[&'static str]) -> Option<&'static str> {
    let plain = |name: &str| name.to_ascii_lowercase().replace(['-', ' ', '.'], "_");
    let name = plain(name);
    // Letters that are missing, too many, others or exchanged: with them a short word is another word, that of somebody else.
    let slips_max = match name.len() {
        ..5 => 0,
        5..8 => 1,
        8.. => 2,
    };
    let slips = |known: &&'static str| (strsim::osa_distance(&name, &plain(known)), *known);
    let (slips, nearest) = known.iter().map(slips).min()?;
    (slips <= slips_max).then_some(nearest)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Slips of the hand are told from words of others.
    #[test]
    fn slips_are_told_from_words() {
        for (name, known) in [
            ("cpu-requets", Some("cpu-requests")),
            ("cpu_requests", Some("cpu-requests")),
            ("CPU-Limit", Some("cpu-limits")),
            ("internal_servce", Some("internal_service")),
            ("internal_services", Some("internal_service")),
            ("externalServices", Some("external_services")),
            ("paht", None),
            ("math", None),
            ("replica", Some("replicas")),
            ("uri", None),
            ("teastore_ref", None),
            ("params", None),
            ("cpu", None),
            ("memory", None),
            ("comment", None),
        ] {
            assert_eq!(meant(name, &OF_SERVICE), known, "{name}");
        }
    }
}
