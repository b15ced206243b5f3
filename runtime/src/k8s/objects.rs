//! The objects of all modes, in the order in which they are to be made. For what each is there for see `deploy/kustomize`.

use serde_json::{Value, json};

use super::plan::{Plan, Unit};
use super::{Mode, pods};

/// What pods that take requests in are called.
pub(super) const INGRESS: &str = "ingress";

/// Labels by which pods of an application are chosen.
pub(super) fn selector(plan: &Plan<'_>, component: Option<&str>) -> Value {
    let mut labels = json!({
        "app.kubernetes.io/name": "cellmesh",
        "app.kubernetes.io/instance": plan.name,
    });
    if let Some(component) = component {
        labels["app.kubernetes.io/component"] = component.into();
    }
    labels
}

/// Labels of every object and pod.
pub(super) fn labels(plan: &Plan<'_>, component: Option<&str>) -> Value {
    let mut labels = selector(plan, component);
    labels["app.kubernetes.io/part-of"] = plan.name.as_str().into();
    labels["app.kubernetes.io/version"] = env!("CARGO_PKG_VERSION").into();
    labels["app.kubernetes.io/managed-by"] = "cellmesh".into();
    labels
}

/// Everything.
pub(super) fn all(plan: &Plan<'_>) -> Vec<Value> {
    let workers = Place { plan, namespace: plan.namespace.clone() };
    let mut objects = workers.base("restricted");
    match plan.mode {
        Mode::Solo | Mode::Pod => {
            objects.extend(workers.ingress());
            objects.push(workers.deployment(&plan.whole));
            objects.push(workers.budget(&plan.whole));
        }
        Mode::Node => {
            let daemons = Place { plan, namespace: format!("{}-system", plan.namespace) };
            // Their hostPath needs it, and nothing else of them.
            objects.extend(daemons.base("privileged"));
            objects.extend(daemons.ingress());
            objects.push(daemons.daemons());
            objects.extend([workers.metrics_service(None), workers.allow_metrics(None)]);
            for unit in &plan.services {
                objects.extend(workers.volume(unit));
                objects.push(workers.deployment(unit));
                objects.push(workers.budget(unit));
            }
        }
    }
    objects
}

/// A namespace.
struct Place<'a> {
    plan: &'a Plan<'a>,
    namespace: String,
}

impl Place<'_> {
    fn meta(&self, name: &str, component: Option<&str>) -> Value {
        json!({
            "name": name,
            "namespace": self.namespace,
            "labels": labels(self.plan, component),
        })
    }

    fn selecting(&self, component: Option<&str>) -> Value {
        json!({ "matchLabels": selector(self.plan, component) })
    }

    /// What every namespace of ours has: config, and no way over the network until another object opens one.
    fn base(&self, level: &str) -> Vec<Value> {
        vec![
            self.own_namespace(level),
            json!({
                "apiVersion": "v1",
                "kind": "ServiceAccount",
                "metadata": self.meta("cellmesh", None),
                "automountServiceAccountToken": false,
            }),
            json!({
                "apiVersion": "v1",
                "kind": "ConfigMap",
                "metadata": self.meta("cellmesh", None),
                "data": self.plan.files,
            }),
            self.policy("default-deny", json!({ "podSelector": {}, "policyTypes": ["Ingress", "Egress"] })),
        ]
    }

    fn own_namespace(&self, level: &str) -> Value {
        let mut labels = labels(self.plan, None);
        labels["pod-security.kubernetes.io/enforce"] = level.into();
        if level == "restricted" {
            labels["pod-security.kubernetes.io/audit"] = level.into();
            labels["pod-security.kubernetes.io/warn"] = level.into();
        }
        json!({
            "apiVersion": "v1",
            "kind": "Namespace",
            "metadata": { "name": self.namespace, "labels": labels },
        })
    }

    /// How pods that take requests in are reached.
    fn ingress(&self) -> Vec<Value> {
        let names = self.plan.services.iter().map(|unit| unit.name);
        let mut objects: Vec<Value> =
            std::iter::once("cellmesh").chain(names).map(|name| self.service(name)).collect();
        objects.push(self.metrics_service(Some(INGRESS)));
        let requests = json!({
            "podSelector": self.selecting(Some(INGRESS)),
            "policyTypes": ["Ingress"],
            "ingress": [{ "ports": [{ "protocol": "TCP", "port": "http" }] }],
        });
        objects.push(self.policy("allow-requests", requests));
        objects.push(self.allow_metrics(Some(INGRESS)));
        objects.push(self.allow_dns());
        objects
    }

    /// The first label of `Host` says which service is meant.
    fn service(&self, name: &str) -> Value {
        json!({
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": self.meta(name, None),
            "spec": {
                "selector": selector(self.plan, Some(INGRESS)),
                "ports": [{ "name": "http", "port": 80, "targetPort": "http", "appProtocol": "http" }],
            },
        })
    }

    /// Where processes are asked for metrics.
    fn admin_ports(&self) -> Vec<(String, u16)> {
        match self.plan.mode {
            Mode::Pod => pods::admin_ports(self.plan),
            Mode::Solo | Mode::Node => vec![(pods::ADMIN_PORT.0.to_owned(), pods::ADMIN_PORT.1)],
        }
    }

    /// For Prometheus: each pod by itself, also while it is not ready.
    fn metrics_service(&self, component: Option<&str>) -> Value {
        let ports = self.admin_ports();
        let ports: Vec<Value> = ports
            .iter()
            .map(|(name, port)| json!({ "name": name, "port": port, "targetPort": name }))
            .collect();
        json!({
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": self.meta("cellmesh-metrics", Some("metrics")),
            "spec": {
                "clusterIP": "None",
                "publishNotReadyAddresses": true,
                "selector": selector(self.plan, component),
                "ports": ports,
            },
        })
    }

    fn policy(&self, name: &str, spec: Value) -> Value {
        json!({
            "apiVersion": "networking.k8s.io/v1",
            "kind": "NetworkPolicy",
            "metadata": self.meta(name, None),
            "spec": spec,
        })
    }

    /// Prometheus in the namespace `monitoring`.
    fn allow_metrics(&self, component: Option<&str>) -> Value {
        let ports = self.admin_ports();
        let ports: Vec<Value> =
            ports.iter().map(|(name, _)| json!({ "protocol": "TCP", "port": name })).collect();
        let from = json!({ "namespaceSelector": { "matchLabels": { "kubernetes.io/metadata.name": "monitoring" } } });
        let spec = json!({
            "podSelector": self.selecting(component),
            "policyTypes": ["Ingress"],
            "ingress": [{ "from": [from], "ports": ports }],
        });
        self.policy("allow-metrics", spec)
    }

    fn allow_dns(&self) -> Value {
        let dns = json!({
            "namespaceSelector": { "matchLabels": { "kubernetes.io/metadata.name": "kube-system" } },
            "podSelector": { "matchLabels": { "k8s-app": "kube-dns" } },
        });
        let ports = json!([{ "protocol": "UDP", "port": 53 }, { "protocol": "TCP", "port": 53 }]);
        let spec = json!({
            "podSelector": self.selecting(Some(INGRESS)),
            "policyTypes": ["Egress"],
            "egress": [{ "to": [dns], "ports": ports }],
        });
        self.policy("allow-dns", spec)
    }

    /// Pods of an application, or workers of a service.
    fn deployment(&self, unit: &Unit<'_>) -> Value {
        let (name, component) = pods::names(self.plan, unit);
        // A pod that must not be beside another of its kind may have nowhere to go until the other has.
        let (surge, unavailable) = if unit.pod_antiaffinity { (0, 1) } else { (1, 0) };
        json!({
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": self.meta(&name, Some(&component)),
            "spec": {
                "replicas": unit.replicas,
                "selector": self.selecting(Some(&component)),
                "strategy": { "rollingUpdate": { "maxSurge": surge, "maxUnavailable": unavailable } },
                "template": {
                    "metadata": { "labels": labels(self.plan, Some(&component)) },
                    "spec": pods::of_deployment(self.plan, unit),
                },
            },
        })
    }

    /// One at a time: a second daemon cannot have the first one's socket.
    fn daemons(&self) -> Value {
        json!({
            "apiVersion": "apps/v1",
            "kind": "DaemonSet",
            "metadata": self.meta("cellmesh-node", Some(INGRESS)),
            "spec": {
                "selector": self.selecting(Some(INGRESS)),
                "updateStrategy": { "rollingUpdate": { "maxSurge": 0, "maxUnavailable": 1 } },
                "template": {
                    "metadata": { "labels": labels(self.plan, Some(INGRESS)) },
                    "spec": pods::of_daemons(self.plan),
                },
            },
        })
    }

    fn budget(&self, unit: &Unit<'_>) -> Value {
        let (name, component) = pods::names(self.plan, unit);
        json!({
            "apiVersion": "policy/v1",
            "kind": "PodDisruptionBudget",
            "metadata": self.meta(&name, None),
            "spec": { "maxUnavailable": 1, "selector": self.selecting(Some(&component)) },
        })
    }

    /// A folder that every node has in the same place: `local` is allowed by `restricted`.
    fn volume(&self, unit: &Unit<'_>) -> [Value; 2] {
        let claim = pods::claim_of(unit.name);
        let term = json!({ "matchExpressions": [{ "key": pods::NODE_LABEL, "operator": "In", "values": ["true"] }] });
        let volume = json!({
            "apiVersion": "v1",
            "kind": "PersistentVolume",
            "metadata": {
                "name": format!("{}-{}", self.namespace, unit.name),
                "labels": labels(self.plan, None),
            },
            "spec": {
                "capacity": { "storage": "1Mi" },
                "accessModes": ["ReadWriteMany"],
                "persistentVolumeReclaimPolicy": "Retain",
                "storageClassName": "cellmesh",
                "claimRef": { "name": claim, "namespace": self.namespace },
                "local": { "path": pods::run_folder_of(unit.name) },
                "nodeAffinity": { "required": { "nodeSelectorTerms": [term] } },
            },
        });
        let claimed = json!({
            "apiVersion": "v1",
            "kind": "PersistentVolumeClaim",
            "metadata": self.meta(&claim, None),
            "spec": {
                "accessModes": ["ReadWriteMany"],
                "storageClassName": "cellmesh",
                "volumeName": format!("{}-{}", self.namespace, unit.name),
                "resources": { "requests": { "storage": "1Mi" } },
            },
        });
        [volume, claimed]
    }
}
