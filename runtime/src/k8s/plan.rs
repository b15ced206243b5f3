//! What is to be rendered: names that Kubernetes takes, replicas and resources of what shares a pod, and all that stands
//! against it. No object is made before this is without problems.

use std::collections::BTreeMap;
use std::path::Path;

use crate::config::{App, Deploy, Problem, Problems, Quantity, Resource, ServiceSpec, Share};

use super::settings::{self, Drain};
use super::{Mode, Options};

/// Pods where an app.toml says nothing: one is left while the other is replaced.
const REPLICAS: u32 = 2;

/// Longest label of a host name; names of Services and containers are such labels. Source: RFC 1123.
const LABEL_BYTES_MAX: usize = 63;

/// What names are made of: `worker-NAME`, `NAMESPACE-system`.
const PREFIX_BYTES: usize = 7;

/// What compiling the example's cells takes. Source: docs/kubernetes.md.
const MEMORY_LEAST: &str = "96Mi";

/// Services in one pod that nobody is told about. A Deployment with three times as many is too long for `kubectl apply` without `--server-side`.
const POD_SERVICES_USUAL: usize = 50;

/// A ConfigMap holds so much. Source: Kubernetes, "ConfigMaps".
const CONFIG_BYTES_MAX: usize = 1 << 20;

/// Beyond it `kubectl apply` cannot keep a copy in an annotation (256 KiB, of the whole object).
const APPLY_BYTES_MAX: usize = 240_000;

/// Cells that the image of a release has. Also in `xtask/src/image.rs`.
const BUNDLED: [&str; 3] = ["fanout.wasm", "hello.wasm", "mubench.wasm"];

/// Names that objects of every application have.
const TAKEN: [&str; 2] = ["cellmesh", "cellmesh-metrics"];

/// What is rendered.
#[derive(Debug)]
pub(super) struct Plan<'a> {
    pub(super) mode: Mode,
    pub(super) name: String,
    pub(super) namespace: String,
    pub(super) image: String,
    /// In the order of the file.
    pub(super) services: Vec<Unit<'a>>,
    /// What shares a pod in `solo` and `pod`.
    pub(super) whole: Unit<'a>,
    /// What the ConfigMap has, by file name.
    pub(super) files: BTreeMap<String, String>,
    pub(super) drain: Drain,
}

/// A service, or all of them together.
#[derive(Debug)]
pub(super) struct Unit<'a> {
    pub(super) name: &'a str,
    pub(super) replicas: u32,
    pub(super) pod_antiaffinity: bool,
    pub(super) resources: Resources,
}

/// Of a container.
#[derive(Debug, Clone)]
pub(super) struct Resources {
    pub(super) cpu: Bounds,
    pub(super) memory: Bounds,
}

/// What is set aside, and the most there can be.
#[derive(Debug, Clone)]
pub(super) struct Bounds {
    pub(super) requests: Quantity,
    pub(super) limits: Quantity,
}

impl Bounds {
    fn usual(of: Resource, requests: &str, limits: &str) -> Self {
        let quantity = |text| Quantity::parse(of, text).expect("written down here");
        Self { requests: quantity(requests), limits: quantity(limits) }
    }

    /// What is said, and, where one of the two is not, what is usual, moved as far as it must be.
    fn of(share: &Share, usual: Self) -> Self {
        let limits = share.limits.clone().unwrap_or_else(|| match &share.requests {
            Some(requests) if requests.exceeds(&usual.limits) => requests.clone(),
            _ => usual.limits,
        });
        let requests = share.requests.clone().unwrap_or(usual.requests);
        Self { requests: if requests.exceeds(&limits) { limits.clone() } else { requests }, limits }
    }

    fn sum<'a>(of: Resource, all: impl Iterator<Item = &'a Self> + Clone) -> Self {
        let sum = |pick: fn(&'a Self) -> &'a Quantity| {
            Quantity::sum(of, all.clone().map(pick)).expect("the daemons' at least")
        };
        Self { requests: sum(|one| &one.requests), limits: sum(|one| &one.limits) }
    }
}

impl Resources {
    /// Of a container with one service, or with a daemon. Source: the measurements of docs/kubernetes.md, as in deploy/kustomize.
    pub(super) fn of(cpu_requests: &str, deploy: &Deploy) -> Self {
        Self {
            cpu: Bounds::of(&deploy.cpu, Bounds::usual(Resource::Cpu, cpu_requests, "1")),
            memory: Bounds::of(&deploy.memory, Bounds::usual(Resource::Memory, "64Mi", "256Mi")),
        }
    }

    /// Of a container with everything that says nothing, or with both daemons.
    pub(super) fn of_whole() -> Self {
        Self {
            cpu: Bounds::usual(Resource::Cpu, "500m", "2"),
            memory: Bounds::usual(Resource::Memory, "128Mi", "512Mi"),
        }
    }
}

impl<'a> Plan<'a> {
    /// The plan, and what to tell.
    pub(super) fn make(app: &'a App, options: &Options) -> Result<(Self, Vec<String>), Problems> {
        let mut check = Check { app, options, problems: Vec::new(), notes: app.notes.clone() };
        let name = check.name();
        let namespace = check.namespace();
        let image = check.image();
        check.services();
        let components = check.components();
        let settings = settings::rewrite(app, options.mode, &components);
        let (files, drain) = settings.unwrap_or_else(|problems| {
            check.problems.extend(problems.0);
            (BTreeMap::new(), Drain::default())
        });
        check.size(&files);
        check.deployment();
        let Check { problems, notes, .. } = check;
        if !problems.is_empty() {
            return Err(Problems(problems));
        }
        let said: Vec<(&str, Deploy)> = said(app);
        let services = said.iter().map(|(name, deploy)| unit(name, deploy)).collect();
        let whole = whole(&said);
        Ok((Self { mode: options.mode, name, namespace, image, services, whole, files, drain }, notes))
    }
}

/// What each service asks for.
fn said(app: &App) -> Vec<(&str, Deploy)> {
    let of = |spec: &'_ ServiceSpec| app.deploy.get(&*spec.setup.service).cloned().unwrap_or_default();
    app.services.iter().map(|spec| (&*spec.setup.service, of(spec))).collect()
}

fn unit<'a>(name: &'a str, deploy: &Deploy) -> Unit<'a> {
    Unit {
        name,
        replicas: deploy.replicas.unwrap_or(REPLICAS),
        pod_antiaffinity: deploy.pod_antiaffinity.unwrap_or(false),
        resources: Resources::of("200m", deploy),
    }
}

/// Who shares a pod gets as many as the one with most. Who shares a process has resources for each service as in a container
/// of its own, and for the daemons.
fn whole<'a>(said: &[(&'a str, Deploy)]) -> Unit<'a> {
    let units: Vec<Unit<'a>> = said.iter().map(|(name, deploy)| unit(name, deploy)).collect();
    let daemons = Resources::of("200m", &Deploy::default());
    let all = || units.iter().map(|unit| &unit.resources).chain([&daemons]);
    let usual = Resources::of_whole();
    let says = |pick: fn(&Deploy) -> &Share| said.iter().any(|(_, deploy)| *pick(deploy) != Share::default());
    let sum = |of, pick: fn(&Resources) -> &Bounds| Bounds::sum(of, all().map(pick));
    Unit {
        name: "cellmesh",
        replicas: said.iter().filter_map(|(_, deploy)| deploy.replicas).max().unwrap_or(REPLICAS),
        pod_antiaffinity: units.iter().any(|unit| unit.pod_antiaffinity),
        resources: Resources {
            cpu: if says(|deploy| &deploy.cpu) { sum(Resource::Cpu, |all| &all.cpu) } else { usual.cpu },
            memory: if says(|deploy| &deploy.memory) {
                sum(Resource::Memory, |all| &all.memory)
            } else {
                usual.memory
            },
        },
    }
}

/// Collects what is wrong and what to tell.
struct Check<'a> {
    app: &'a App,
    options: &'a Options,
    problems: Vec<Problem>,
    notes: Vec<String>,
}

impl Check<'_> {
    fn wrong(&mut self, wrong: &str, right: &str) {
        self.problems.push(Problem::of_file(&self.app.origin.path, wrong, right));
    }

    fn name(&mut self) -> String {
        let name = self.options.name.clone().unwrap_or_else(|| self.app.name.clone());
        if !is_label(&name, LABEL_BYTES_MAX) {
            let wrong = format!("the application's name {name:?} is no DNS label");
            self.wrong(&wrong, &format!("name it with --name: {LABEL_RULE}"));
        }
        name
    }

    /// The command line's, else the file's, else the one of deploy/kustomize.
    fn namespace(&mut self) -> String {
        let said = self.options.namespace.clone().or_else(|| self.app.namespace.clone());
        let namespace = said.or_else(|| self.namespace_of_model()).unwrap_or_else(|| "cellmesh".into());
        if !is_label(&namespace, LABEL_BYTES_MAX - PREFIX_BYTES) {
            let wrong = format!("namespace {namespace:?} is no DNS label of at most 56 letters");
            self.wrong(&wrong, &format!("name one with --namespace: {LABEL_RULE}"));
        } else if namespace == "default" || namespace.starts_with("kube-") {
            let wrong = format!("namespace {namespace:?} is not the application's own");
            let right = "name another with --namespace: its Pod Security level is set and its network closed";
            self.wrong(&wrong, right);
        }
        namespace
    }

    /// muBench's deployer writes one namespace into each service; its default is no place for this.
    fn namespace_of_model(&self) -> Option<String> {
        let mut named = self.app.deploy.values().filter_map(|deploy| deploy.namespace.as_ref());
        let first = named.next()?;
        (first != "default" && named.all(|other| other == first)).then(|| first.clone())
    }

    fn image(&mut self) -> String {
        let image = self.options.image.clone().unwrap_or_else(release_image);
        let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-/:@".contains(&byte);
        if image.is_empty() || !image.bytes().all(is_allowed) {
            let right =
                format!("name an image with --image, such as registry.example.com/{}", release_image());
            self.wrong(&format!("{image:?} is no name of an image"), &right);
        }
        image
    }

    fn services(&mut self) {
        let bytes_max = match self.options.mode {
            Mode::Solo => LABEL_BYTES_MAX,
            Mode::Pod | Mode::Node => LABEL_BYTES_MAX - PREFIX_BYTES,
        };
        for spec in &self.app.services {
            let name = &*spec.setup.service;
            if !is_label(name, bytes_max) || !name.starts_with(|first: char| first.is_ascii_lowercase()) {
                let wrong = format!("service {name:?} cannot be the name of a Service");
                let right = format!(
                    "rename it: a lower case letter first, at most {bytes_max} letters; {LABEL_RULE}"
                );
                self.wrong(&wrong, &right);
            } else if TAKEN.contains(&name) {
                let wrong = format!("service {name:?} has the name of the application's own Service");
                self.wrong(&wrong, "rename it");
            }
        }
    }

    /// Where pods find the cells, by what the file says of them.
    fn components(&mut self) -> BTreeMap<String, String> {
        let mut places: BTreeMap<String, String> = BTreeMap::new();
        for path in settings::components(self.app) {
            if places.contains_key(&path) {
                continue;
            }
            let place = self.place(&path);
            if let Some((other, _)) = places.iter().find(|(_, other)| **other == place) {
                let wrong = format!("{other} and {path} are both {place} in the image");
                self.wrong(&wrong, "rename one of the files");
            }
            places.insert(path, place);
        }
        places
    }

    /// Paths of the file's machine mean the image's folder of cells; absolute ones are the image's own.
    fn place(&mut self, path: &str) -> String {
        let file = Path::new(path).file_name().unwrap_or_default().to_string_lossy().into_owned();
        let is_local = !Path::new(path).is_absolute();
        let place = if is_local { format!("/cells/{file}") } else { path.to_owned() };
        let release = release_image();
        let copy = if is_local {
            format!("FROM {release}, COPY {path} /cells/")
        } else {
            format!("FROM {release}, COPY {file} {path}: an absolute path is the image's own")
        };
        let is_bundled = BUNDLED.iter().any(|bundled| place == format!("/cells/{bundled}"));
        match &self.options.image {
            None if is_bundled && is_local => {
                self.notes.push(format!("{path}: pods use the {file} that is in {release}"))
            }
            None if is_bundled => {}
            None => {
                let wrong = format!("{path} is no cell of {release}");
                self.wrong(&wrong, &format!("make an image that has it ({copy}) and name that with --image"));
            }
            Some(_) if is_bundled && !is_local => {}
            Some(image) => self.notes.push(format!("{path}: {image} has to have it as {place} ({copy})")),
        }
        place
    }

    fn size(&mut self, files: &BTreeMap<String, String>) {
        let bytes: usize = files.iter().map(|(name, text)| name.len() + text.len()).sum();
        if bytes > CONFIG_BYTES_MAX {
            let wrong = format!("has {bytes} bytes, and a ConfigMap holds {CONFIG_BYTES_MAX}");
            self.wrong(&wrong, "divide the application");
        } else if bytes > APPLY_BYTES_MAX {
            self.notes.push(format!("{bytes} bytes of config are too much for kubectl apply alone: use kubectl apply --server-side"));
        }
    }

    /// What of the deployment keys is otherwise than somebody might expect.
    fn deployment(&mut self) {
        let said = said(self.app);
        self.without_meaning(&said);
        match self.options.mode {
            Mode::Solo => self.shared(&said),
            Mode::Pod => {
                self.shared(&said);
                self.too_little_memory(&said);
                self.crowded();
            }
            Mode::Node => self.too_little_memory(&said),
        }
        let calling = self.app.services.iter().filter(|spec| !spec.setup.egress_allow.is_empty());
        let calling: Vec<&str> = calling.map(|spec| &*spec.setup.service).collect();
        if !calling.is_empty() {
            self.notes.push(format!(
                "egress.allow of {}: those hosts need a NetworkPolicy of their own; only DNS is open",
                calling.join(", ")
            ));
        }
        self.collector();
    }

    /// A pod of hundreds of containers starts one after the other.
    fn crowded(&mut self) {
        let count = self.app.services.len();
        if count > POD_SERVICES_USUAL {
            self.notes.push(format!(
                "{count} services are {count} containers in each pod; --mode node has a Deployment for each, and --mode solo one container for all"
            ));
        }
    }

    /// Spans would find no way out, and nobody would miss them.
    fn collector(&mut self) {
        if let Some(otlp) = &self.app.trace.otlp {
            self.notes.push(format!(
                "trace.endpoint: {} needs a NetworkPolicy of its own, for all pods; only DNS is open{}",
                otlp.place(),
                if self.options.mode == Mode::Node { ", and not for workers" } else { "" }
            ));
        }
    }

    fn without_meaning(&mut self, said: &[(&str, Deploy)]) {
        for (key, why) in WITHOUT_MEANING {
            let has = |deploy: &Deploy| deploy.without_meaning.iter().any(|(other, _)| *other == key);
            let of = named(said, has);
            if !of.is_empty() {
                let whose = if of.len() == said.len() { "all services".into() } else { of.join(", ") };
                self.notes.push(format!("{key} of {whose}: left out; {why}"));
            }
        }
    }

    /// Replicas and anti-affinity are of pods.
    fn shared(&mut self, said: &[(&str, Deploy)]) {
        let replicas = whole(said).replicas;
        let others = named(said, |deploy| deploy.replicas.is_some_and(|count| count != replicas));
        if !others.is_empty() {
            let with_most = named(said, |deploy| deploy.replicas == Some(replicas)).join(", ");
            self.notes.push(format!(
                "replicas: services share pods, so {replicas} of each, as of {with_most}; fewer of {} with --mode node",
                others.join(", ")
            ));
        }
        let apart = named(said, |deploy| deploy.pod_antiaffinity == Some(true));
        if !apart.is_empty() && apart.len() < said.len() {
            self.notes.push(format!(
                "pod_antiaffinity: services share pods, so that of {} holds for all",
                apart.join(", ")
            ));
        }
    }

    /// Compiling needs memory too.
    fn too_little_memory(&mut self, said: &[(&str, Deploy)]) {
        let least = Quantity::parse(Resource::Memory, MEMORY_LEAST).expect("written down here");
        let below =
            named(said, |deploy| deploy.memory.limits.as_ref().is_some_and(|limits| least.exceeds(limits)));
        if !below.is_empty() {
            self.notes.push(format!(
                "memory-limits of {}: the compiler may be killed, and the service not start, with less than {MEMORY_LEAST}",
                below.join(", ")
            ));
        }
    }
}

/// Keys of muBench with nothing to stand for, and why.
const WITHOUT_MEANING: [(&str, &str); 5] = [
    ("image", "services are cells of one image (--image)"),
    ("node_affinity", "pods go where Kubernetes has room"),
    (
        "sidecar",
        "cells reach nothing in their pod but each other; deploy it by itself, and allow its host (egress.allow)",
    ),
    ("threads", "a lane serves any number of requests; instances_max bounds them"),
    ("workers", "processes of muBench's server; here replicas, and lanes (runtime.lanes)"),
];

fn named<'a>(said: &[(&'a str, Deploy)], has: impl Fn(&Deploy) -> bool) -> Vec<&'a str> {
    said.iter().filter(|(_, deploy)| has(deploy)).map(|(name, _)| *name).collect()
}

/// The image of this release, as `cargo xtask image` names it.
fn release_image() -> String {
    format!("cellmesh:{}", env!("CARGO_PKG_VERSION"))
}

const LABEL_RULE: &str = "lower case letters, digits and '-', which is neither first nor last";

/// Whether it can be a label of a host name. Source: RFC 1123.
fn is_label(name: &str, bytes_max: usize) -> bool {
    let is_allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    (1..=bytes_max).contains(&name.len())
        && name.bytes().all(is_allowed)
        && !name.starts_with('-')
        && !name.ends_with('-')
}
