//! What a service asks of a cluster: `[service.NAME.deploy]`, and muBench's keys for its deployment. Only `cellmesh k8s` does
//! anything with it.
//!
//! ```toml
//! [service.front.deploy]
//! replicas = 3
//! cpu_requests = "500m"            # muBench: cpu-requests
//! cpu_limits = "2"
//! memory_requests = "64Mi"
//! memory_limits = "256Mi"
//! pod_antiaffinity = true          # no two of its pods on one node
//! ```

use std::path::Path;

use serde_json::{Map, Value};

use super::problems::Problem;
use super::quantity::{Quantity, Resource};
use super::reader::{Source, Table};

/// Pods of one service: more than a cluster has nodes for.
const REPLICAS_MAX: u64 = 10_000;

/// Keys that muBench's own deployer knows, and that have nothing to stand for here.
const WITHOUT_MEANING: [&str; 5] = ["image", "node_affinity", "sidecar", "threads", "workers"];

/// What a service asks of a cluster. What it does not say is left to whoever renders.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Deploy {
    /// Pods.
    pub replicas: Option<u32>,
    /// Processors.
    pub cpu: Share,
    /// Memory.
    pub memory: Share,
    /// No two of its pods on one node.
    pub pod_antiaffinity: Option<bool>,
    /// The namespace that the work model names.
    pub namespace: Option<String>,
    /// Keys of the work model that have no meaning here, with their values.
    pub without_meaning: Vec<(&'static str, String)>,
}

/// How much of a resource.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Share {
    /// What is set aside.
    pub requests: Option<Quantity>,
    /// The most there can be.
    pub limits: Option<Quantity>,
}

impl Share {
    fn exceeding(&self) -> Option<(&Quantity, &Quantity)> {
        let (requests, limits) = (self.requests.as_ref()?, self.limits.as_ref()?);
        requests.exceeds(limits).then_some((requests, limits))
    }
}

impl Deploy {
    /// With what `self` does not say from `other`.
    pub(super) fn or(self, other: Self) -> Self {
        let share = |one: Share, other: Share| Share {
            requests: one.requests.or(other.requests),
            limits: one.limits.or(other.limits),
        };
        Self {
            replicas: self.replicas.or(other.replicas),
            cpu: share(self.cpu, other.cpu),
            memory: share(self.memory, other.memory),
            pod_antiaffinity: self.pod_antiaffinity.or(other.pod_antiaffinity),
            ..other
        }
    }
}

/// Reads `[service.NAME.deploy]`, if it is there.
pub(super) fn read(source: &mut Source<'_>, service: &mut Table<'_, '_>) -> Option<Deploy> {
    let mut table = service.table(source, "deploy")?;
    let replicas = table.number(source, "replicas", 1, REPLICAS_MAX);
    let cpu = Share {
        requests: table.quantity(source, "cpu_requests", Resource::Cpu),
        limits: table.quantity(source, "cpu_limits", Resource::Cpu),
    };
    let memory = Share {
        requests: table.quantity(source, "memory_requests", Resource::Memory),
        limits: table.quantity(source, "memory_limits", Resource::Memory),
    };
    for (key, share) in [("cpu_limits", &cpu), ("memory_limits", &memory)] {
        if let Some((requests, limits)) = share.exceeding() {
            let (wrong, right) = too_little(requests, limits);
            source.note(table.line_of_key(source, key), table.path(key), wrong, right);
        }
    }
    let pod_antiaffinity = table.flag(source, "pod_antiaffinity");
    table.finish(source);
    let replicas = replicas.and_then(|count| count.try_into().ok());
    Some(Deploy { replicas, cpu, memory, pod_antiaffinity, ..Deploy::default() })
}

fn too_little(requests: &Quantity, limits: &Quantity) -> (String, String) {
    (format!("{limits} is less than what is requested, {requests}"), "raise it, or request less".into())
}

/// Reads muBench's keys of one service.
pub(super) fn of_work_model(path: &Path, name: &str, entry: &Value) -> (Deploy, Vec<Problem>) {
    let nothing = Map::new();
    let entry = entry.as_object().unwrap_or(&nothing);
    let mut keys = Keys { path, name, entry, problems: Vec::new() };
    let deploy = Deploy {
        // Source: muBench's deployer, which makes one where nothing is said.
        replicas: keys.replicas().or(Some(1)),
        cpu: keys.share("cpu-requests", "cpu-limits", Resource::Cpu),
        memory: keys.share("memory-requests", "memory-limits", Resource::Memory),
        pod_antiaffinity: keys.flag("pod_antiaffinity"),
        namespace: entry.get("namespace").and_then(Value::as_str).map(str::to_owned),
        without_meaning: WITHOUT_MEANING
            .into_iter()
            .filter_map(|key| Some((key, plain(entry.get(key)?))))
            .collect(),
    };
    (deploy, keys.problems)
}

/// Text as it is, everything else as JSON.
fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// The keys of one service of a work model, and what is wrong with them.
struct Keys<'a> {
    path: &'a Path,
    name: &'a str,
    entry: &'a Map<String, Value>,
    problems: Vec<Problem>,
}

impl Keys<'_> {
    fn wrong(&mut self, key: &str, wrong: impl Into<String>, right: &str) {
        self.problems.push(Problem::at(self.path, format!("{}.{key}", self.name), wrong, right));
    }

    fn replicas(&mut self) -> Option<u32> {
        let value = self.entry.get("replicas")?;
        let count = plain(value).parse().ok().filter(|count| (1..=REPLICAS_MAX).contains(&u64::from(*count)));
        if count.is_none() {
            let right = format!("write a whole number from 1 to {REPLICAS_MAX}");
            self.wrong("replicas", format!("{value} does not fit"), &right);
        }
        count
    }

    fn share(&mut self, requests: &str, limits: &str, of: Resource) -> Share {
        let share = Share { requests: self.quantity(requests, of), limits: self.quantity(limits, of) };
        if let Some((requested, limited)) = share.exceeding() {
            let (wrong, right) = too_little(requested, limited);
            self.wrong(limits, wrong, &right);
        }
        share
    }

    fn quantity(&mut self, key: &str, of: Resource) -> Option<Quantity> {
        let value = self.entry.get(key)?;
        let quantity = Quantity::parse(of, &plain(value));
        if quantity.is_none() {
            self.wrong(key, format!("{value} does not fit"), of.right());
        }
        quantity
    }

    fn flag(&mut self, key: &str) -> Option<bool> {
        let value = self.entry.get(key)?;
        let flag = value.as_bool();
        if flag.is_none() {
            self.wrong(key, format!("{value} does not fit"), "write true or false");
        }
        flag
    }
}
