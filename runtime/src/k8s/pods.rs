//! Pods: what runs in them, how they are asked and confined, how long they take to end.
//!
//! `pod` has the DPU as its container and the others as native sidecars before it: they start from top to bottom and end from
//! bottom to top, so the DPU, which has the clients, ends while workers still serve.

use serde_json::{Value, json};

use crate::config::Deploy;

use super::Mode;
use super::objects::{INGRESS, selector};
use super::plan::{Plan, Resources, Unit};
use super::settings::{CONFIG_FOLDER, FILE, RUN_FOLDER, socket_of};

/// Nodes with a daemon.
pub(super) const NODE_LABEL: &str = "cellmesh.dev/node";

/// The admin port of whoever takes requests in, and of workers in pods of their own.
pub(super) const ADMIN_PORT: (&str, u16) = ("admin", 5006);

/// Where requests come in.
const HTTP_PORT: (&str, u16) = ("http", 5005);

/// The admin port of the DPA in `pod`; those of the workers follow it.
const DPA_PORT: u16 = 5007;

/// Longest name of a port. Source: Kubernetes, "ContainerPort".
const PORT_NAME_BYTES_MAX: usize = 15;

/// What a process takes to end beside its drain.
const END_SECONDS: u64 = 5;

/// What a workload is called, and the component that its pods are.
pub(super) fn names(plan: &Plan<'_>, unit: &Unit<'_>) -> (String, String) {
    match plan.mode {
        Mode::Solo | Mode::Pod => ("cellmesh".into(), INGRESS.into()),
        Mode::Node => (worker_of(unit.name), worker_of(unit.name)),
    }
}

fn worker_of(service: &str) -> String {
    format!("worker-{service}")
}

/// The claim to the folder with a service's socket.
pub(super) fn claim_of(service: &str) -> String {
    format!("cellmesh-{service}")
}

/// The folder with a service's socket.
pub(super) fn run_folder_of(service: &str) -> String {
    format!("{RUN_FOLDER}/{service}")
}

/// Admin ports of `pod`: the DPU's, the DPA's, one for each worker.
pub(super) fn admin_ports(plan: &Plan<'_>) -> Vec<(String, u16)> {
    let first = [(ADMIN_PORT.0.to_owned(), ADMIN_PORT.1), ("admin-dpa".into(), DPA_PORT)];
    let workers = plan.services.iter().zip(DPA_PORT + 1..).map(|(unit, port)| {
        let name = format!("admin-{}", unit.name);
        // No service is called by a number.
        let is_taken = unit.name == "dpa";
        let fits = name.len() <= PORT_NAME_BYTES_MAX && !name.contains("--") && !is_taken;
        (if fits { name } else { format!("admin-{port}") }, port)
    });
    first.into_iter().chain(workers).collect()
}

/// The pods of an application, or the workers of a service.
pub(super) fn of_deployment(plan: &Plan<'_>, unit: &Unit<'_>) -> Value {
    let (_, component) = names(plan, unit);
    let (containers, sidecars, volumes) = match plan.mode {
        Mode::Solo => (vec![solo(plan, unit)], Vec::new(), vec![cache(), tmp()]),
        Mode::Pod => (vec![dpu(plan)], sidecars(plan), volumes_of_pod(plan)),
        Mode::Node => (vec![worker(plan, unit)], Vec::new(), volumes_of_worker(unit)),
    };
    let mut spec = spec(plan, containers, sidecars, volumes);
    spec["topologySpreadConstraints"] = spread(plan, &component);
    if plan.mode == Mode::Node {
        spec["nodeSelector"] = json!({ NODE_LABEL: "true" });
    }
    if unit.pod_antiaffinity {
        let apart = json!({
            "labelSelector": { "matchLabels": selector(plan, Some(&component)) },
            "topologyKey": "kubernetes.io/hostname",
        });
        spec["affinity"] =
            json!({ "podAntiAffinity": { "requiredDuringSchedulingIgnoredDuringExecution": [apart] } });
    }
    spec
}

/// The daemon of a node.
pub(super) fn of_daemons(plan: &Plan<'_>) -> Value {
    let node = Container {
        name: "node".into(),
        args: vec!["node".into(), file()],
        ports: vec![HTTP_PORT, ADMIN_PORT],
        resources: Resources::of_whole(),
        mounts: vec![mount("run", RUN_FOLDER.into(), false)],
        ..Container::new(plan)
    };
    // Made on each node beforehand: deploy/kustomize/overlays/node/cellmesh.tmpfiles.conf.
    let run = json!({ "name": "run", "hostPath": { "path": RUN_FOLDER, "type": "Directory" } });
    let mut spec = spec(plan, vec![node.value()], Vec::new(), vec![run]);
    spec["nodeSelector"] = json!({ NODE_LABEL: "true" });
    spec
}

/// What all pods have.
fn spec(plan: &Plan<'_>, containers: Vec<Value>, sidecars: Vec<Value>, more_volumes: Vec<Value>) -> Value {
    let mut volumes = vec![json!({ "name": "config", "configMap": { "name": "cellmesh" } })];
    volumes.extend(more_volumes);
    let mut spec = json!({
        "serviceAccountName": "cellmesh",
        "automountServiceAccountToken": false,
        "enableServiceLinks": false,
        "terminationGracePeriodSeconds": grace_seconds(plan, sidecars.len()),
        "securityContext": {
            "runAsNonRoot": true,
            "runAsUser": 65532,
            "runAsGroup": 65532,
            "seccompProfile": { "type": "RuntimeDefault" },
        },
    });
    if !sidecars.is_empty() {
        spec["initContainers"] = sidecars.into();
    }
    spec["containers"] = containers.into();
    spec["volumes"] = volumes.into();
    spec
}

/// One after the other: whoever has the clients takes its delay and its drain, each sidecar its delay.
fn grace_seconds(plan: &Plan<'_>, sidecars: usize) -> u64 {
    let sidecars = sidecars as u64;
    let delays = plan.drain.delay.as_millis() * (1 + u128::from(sidecars));
    let millis = delays + plan.drain.timeout.as_millis();
    u64::try_from(millis.div_ceil(1000)).unwrap_or(u64::MAX) + END_SECONDS * (1 + sidecars)
}

fn spread(plan: &Plan<'_>, component: &str) -> Value {
    let chosen = json!({ "matchLabels": selector(plan, Some(component)) });
    match plan.mode {
        // A node without a worker of each service is not ready. Counted for each revision by itself: pods that a rollout is
        // about to remove keep no node in service.
        Mode::Node => json!([{
            "maxSkew": 1,
            "topologyKey": "kubernetes.io/hostname",
            "whenUnsatisfiable": "DoNotSchedule",
            "matchLabelKeys": ["pod-template-hash"],
            "labelSelector": chosen,
        }]),
        Mode::Solo | Mode::Pod => ["kubernetes.io/hostname", "topology.kubernetes.io/zone"]
            .map(|key| {
                json!({
                    "maxSkew": 1,
                    "topologyKey": key,
                    "whenUnsatisfiable": "ScheduleAnyway",
                    "labelSelector": chosen,
                })
            })
            .to_vec()
            .into(),
    }
}

fn solo(plan: &Plan<'_>, unit: &Unit<'_>) -> Value {
    Container {
        name: "cellmesh".into(),
        args: vec!["run".into(), file()],
        ports: vec![HTTP_PORT, ADMIN_PORT],
        resources: unit.resources.clone(),
        mounts: vec![mount("cache", CACHE_FOLDER.into(), false), mount("tmp", "/tmp".into(), false)],
        ..Container::new(plan)
    }
    .value()
}

fn dpu(plan: &Plan<'_>) -> Value {
    Container {
        name: "dpu".into(),
        args: vec!["dpu".into(), file(), "--admin".into(), format!("0.0.0.0:{}", ADMIN_PORT.1)],
        ports: vec![HTTP_PORT, ADMIN_PORT],
        resources: Resources::of("200m", &Deploy::default()),
        mounts: vec![mount("run", RUN_FOLDER.into(), true)],
        ..Container::new(plan)
    }
    .value()
}

/// The DPA, and a worker for each service.
fn sidecars(plan: &Plan<'_>) -> Vec<Value> {
    let ports = admin_ports(plan);
    let mut ports = ports.iter().skip(1).map(|(name, port)| (name.as_str(), *port));
    let port = ports.next().expect("the DPA's");
    let folders =
        plan.services.iter().map(|unit| mount(&volume_of(unit.name), run_folder_of(unit.name), false));
    let dpa = Container {
        name: "dpa".into(),
        args: vec!["dpa".into(), file(), "--admin".into(), format!("0.0.0.0:{}", port.1)],
        ports: vec![port],
        resources: Resources::of("100m", &Deploy::default()),
        mounts: std::iter::once(mount("run", RUN_FOLDER.into(), false)).chain(folders).collect(),
        is_sidecar: true,
        ..Container::new(plan)
    };
    let workers = plan.services.iter().zip(ports).map(|(unit, port)| {
        let worker = Container {
            name: worker_of(unit.name),
            args: worker_args(unit.name, port.1),
            // A folder for each: what is compiled by one is not to be trusted by another.
            env: Some(("CELLMESH_CACHE_DIR", format!("{CACHE_FOLDER}/{}", unit.name))),
            ports: vec![port],
            resources: unit.resources.clone(),
            mounts: mounts_of_worker(unit.name, &volume_of(unit.name)),
            is_sidecar: true,
            ..Container::new(plan)
        };
        worker.value()
    });
    std::iter::once(dpa.value()).chain(workers).collect()
}

/// A worker in a pod of its own.
fn worker(plan: &Plan<'_>, unit: &Unit<'_>) -> Value {
    Container {
        name: "worker".into(),
        args: worker_args(unit.name, ADMIN_PORT.1),
        ports: vec![ADMIN_PORT],
        resources: unit.resources.clone(),
        mounts: mounts_of_worker(unit.name, "run"),
        ..Container::new(plan)
    }
    .value()
}

fn worker_args(service: &str, admin: u16) -> Vec<String> {
    let admin = format!("0.0.0.0:{admin}");
    ["worker", &file(), "--service", service, "--socket", &socket_of(service), "--admin", &admin]
        .map(str::to_owned)
        .to_vec()
}

fn file() -> String {
    format!("{CONFIG_FOLDER}/{FILE}")
}

/// A container of any mode.
struct Container<'a> {
    plan: &'a Plan<'a>,
    name: String,
    args: Vec<String>,
    env: Option<(&'static str, String)>,
    ports: Vec<(&'a str, u16)>,
    resources: Resources,
    mounts: Vec<Value>,
    is_sidecar: bool,
}

impl<'a> Container<'a> {
    fn new(plan: &'a Plan<'a>) -> Self {
        Self {
            plan,
            name: String::new(),
            args: Vec::new(),
            env: None,
            ports: Vec::new(),
            resources: Resources::of_whole(),
            mounts: Vec::new(),
            is_sidecar: false,
        }
    }

    fn value(self) -> Value {
        let (admin, _) = self.ports.last().copied().unwrap_or(ADMIN_PORT);
        let ports = self.ports.iter().map(|(name, port)| json!({ "name": name, "containerPort": port }));
        let config = mount("config", CONFIG_FOLDER.into(), true);
        let Resources { cpu, memory } = &self.resources;
        let mut container = json!({
            "name": self.name,
            "image": self.plan.image,
            "imagePullPolicy": "IfNotPresent",
            "args": self.args,
            "ports": ports.collect::<Vec<_>>(),
            // Cells are compiled at the first start.
            "startupProbe": probe("/livez", admin, 1, 6, 180),
            "livenessProbe": probe("/livez", admin, 10, 6, 3),
            "readinessProbe": probe("/readyz", admin, 2, 2, 1),
            "resources": {
                "requests": { "cpu": cpu.requests.to_string(), "memory": memory.requests.to_string() },
                "limits": { "cpu": cpu.limits.to_string(), "memory": memory.limits.to_string() },
            },
            "securityContext": {
                "allowPrivilegeEscalation": false,
                "readOnlyRootFilesystem": true,
                "runAsNonRoot": true,
                "capabilities": { "drop": ["ALL"] },
            },
            "volumeMounts": std::iter::once(config).chain(self.mounts).collect::<Vec<_>>(),
        });
        if self.is_sidecar {
            container["restartPolicy"] = "Always".into();
        }
        let own = self.env.map(|(name, value)| json!({ "name": name, "value": value }));
        container["env"] = own.into_iter().chain(resource()).collect();
        container
    }
}

/// What traces say of where they come from. Names of Kubernetes need no escapes.
fn resource() -> impl Iterator<Item = Value> {
    const FIELDS: [(&str, &str); 3] = [
        ("K8S_POD_NAME", "metadata.name"),
        ("K8S_NAMESPACE_NAME", "metadata.namespace"),
        ("K8S_NODE_NAME", "spec.nodeName"),
    ];
    let fields = FIELDS
        .map(|(name, path)| json!({ "name": name, "valueFrom": { "fieldRef": { "fieldPath": path } } }));
    let list = json!({
        "name": "OTEL_RESOURCE_ATTRIBUTES",
        "value": "k8s.pod.name=$(K8S_POD_NAME),k8s.namespace.name=$(K8S_NAMESPACE_NAME),k8s.node.name=$(K8S_NODE_NAME)",
    });
    fields.into_iter().chain([list])
}

fn probe(path: &str, port: &str, period: u32, timeout: u32, failures: u32) -> Value {
    json!({
        "httpGet": { "path": path, "port": port },
        "periodSeconds": period,
        "timeoutSeconds": timeout,
        "failureThreshold": failures,
    })
}

/// Folder of compiled cells, or of folders of them.
const CACHE_FOLDER: &str = "/var/cache/cellmesh";

fn mount(volume: &str, path: String, read_only: bool) -> Value {
    let mut mount = json!({ "name": volume, "mountPath": path });
    if read_only {
        mount["readOnly"] = true.into();
    }
    mount
}

fn mounts_of_worker(service: &str, run: &str) -> Vec<Value> {
    vec![
        mount(run, run_folder_of(service), true),
        mount("cache", CACHE_FOLDER.into(), false),
        mount("tmp", "/tmp".into(), false),
    ]
}

fn volume_of(service: &str) -> String {
    format!("run-{service}")
}

fn empty(name: &str, size: &str) -> Value {
    json!({ "name": name, "emptyDir": { "sizeLimit": size } })
}

/// Compiled cells: a container that is restarted finds them.
fn cache() -> Value {
    empty("cache", "256Mi")
}

/// Temporary folders of cells.
fn tmp() -> Value {
    empty("tmp", "256Mi")
}

/// Where processes meet: a folder for each worker, so that none can get at another's, nor pose as a DPU.
fn volumes_of_pod(plan: &Plan<'_>) -> Vec<Value> {
    let own = plan.services.iter().map(|unit| empty(&volume_of(unit.name), "1Mi"));
    std::iter::once(empty("run", "1Mi")).chain(own).chain([cache(), tmp()]).collect()
}

/// The socket of this service, on whichever node the pod is.
fn volumes_of_worker(unit: &Unit<'_>) -> Vec<Value> {
    let claim = json!({ "claimName": claim_of(unit.name) });
    vec![json!({ "name": "run", "persistentVolumeClaim": claim }), cache(), tmp()]
}
