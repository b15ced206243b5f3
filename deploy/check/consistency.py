#!/usr/bin/env python3
"""Holds the objects of an overlay against each other and against the application's config: names that no schema can check.

    kubectl kustomize OVERLAY | consistency.py
"""

import json
import re
import sys
import tomllib

import yaml

from restricted import containers_of, pod_of

LABELS = {f"app.kubernetes.io/{name}" for name in
          ("name", "instance", "version", "component", "part-of", "managed-by")}
# Where app.toml does not say it. docs/config.md.
DRAIN_TIMEOUT = "30s"


def seconds(text):
    number, unit = re.fullmatch(r"(\d+)(ms|s|m|h)", text).groups()
    return int(number) * {"ms": 0.001, "s": 1, "m": 60, "h": 3600}[unit]


class Overlay:
    def __init__(self, manifests):
        self.manifests, self.problems = manifests, []
        self.workloads = [(m, *pod_of(m)) for m in manifests if pod_of(m)]

    def say(self, manifest, problem):
        meta = manifest["metadata"]
        self.problems.append(f"{manifest['kind']} {meta.get('namespace', '')}/{meta['name']}: {problem}")

    def of(self, *kinds):
        return [m for m in self.manifests if m["kind"] in kinds]

    def selected(self, by, labels):
        """Workloads of the same namespace whose pods have these labels."""
        return [(m, spec) for m, meta, spec in self.workloads
                if m["metadata"]["namespace"] == by["metadata"]["namespace"]
                and (labels or {}).items() <= meta["labels"].items()]

    def config_of(self, manifest):
        for config in self.of("ConfigMap"):
            if config["metadata"]["namespace"] == manifest["metadata"]["namespace"] and "app.toml" in config["data"]:
                return tomllib.loads(config["data"]["app.toml"])

    def check(self):
        for manifest, meta, spec in self.workloads:
            self.check_pod(manifest, meta, spec)
        for service in self.of("Service"):
            self.check_ports(service, service["spec"]["selector"], [p["targetPort"] for p in service["spec"]["ports"]])
        for policy in self.of("NetworkPolicy"):
            ports = [p["port"] for rule in policy["spec"].get("ingress") or [] for p in rule.get("ports") or []]
            if policy["spec"]["podSelector"] or ports:
                self.check_ports(policy, policy["spec"]["podSelector"].get("matchLabels"), ports)
        for budget in self.of("PodDisruptionBudget"):
            if len(self.selected(budget, budget["spec"]["selector"]["matchLabels"])) != 1:
                self.say(budget, "does not select the pods of one workload")
        for scaler in self.of("HorizontalPodAutoscaler"):
            target = scaler["spec"]["scaleTargetRef"]
            if (target["kind"], target["name"]) not in {(m["kind"], m["metadata"]["name"]) for m, _, _ in self.workloads}:
                self.say(scaler, f"there is no {target['kind']} {target['name']}")
        self.check_namespaces()
        self.check_services()
        return self.problems

    def check_pod(self, manifest, meta, spec):
        config, runtime = self.config_of(manifest), {}
        if config is None:
            return self.say(manifest, "no ConfigMap with an app.toml")
        runtime = config["runtime"]
        if missing := LABELS - meta["labels"].keys():
            self.say(manifest, f"its pods lack the labels {sorted(missing)}")
        if not manifest["spec"]["selector"]["matchLabels"].items() <= meta["labels"].items():
            self.say(manifest, "does not select its own pods")
        if spec.get("automountServiceAccountToken") is not False:
            self.say(manifest, "its pods get a token")
        needed = seconds(runtime["drain_delay"]) + seconds(runtime.get("drain_timeout", DRAIN_TIMEOUT))
        needed += seconds(runtime["drain_delay"]) * len(spec.get("initContainers") or [])
        if spec["terminationGracePeriodSeconds"] <= needed:
            self.say(manifest, f"terminationGracePeriodSeconds must be longer than {needed} s")
        volumes = {volume["name"] for volume in spec["volumes"]}
        for container in containers_of(spec):
            self.check_container(manifest, container, config)
            for mount in container["volumeMounts"]:
                if mount["name"] not in volumes:
                    self.say(manifest, f"there is no volume {mount['name']}")
        claims = {c["metadata"]["name"] for c in self.of("PersistentVolumeClaim")}
        for volume in spec["volumes"]:
            claim = (volume.get("persistentVolumeClaim") or {}).get("claimName")
            if claim and claim not in claims:
                self.say(manifest, f"there is no PersistentVolumeClaim {claim}")

    def check_container(self, manifest, container, config):
        name, args = container["name"], container["args"]
        ports = {port["name"]: port["containerPort"] for port in container["ports"]}
        option = lambda flag: args[args.index(flag) + 1] if flag in args else None
        admin = int((option("--admin") or config["admin"]["listen"]).rsplit(":", 1)[1])
        listens = {admin} | ({int(config["listen"].rsplit(":", 1)[1])} if args[0] in ("run", "node", "dpu") else set())
        if set(ports.values()) != listens:
            self.say(manifest, f"{name} listens on {sorted(listens)} and declares {sorted(ports.values())}")
        for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
            get = (container.get(probe) or {}).get("httpGet") or {}
            if ports.get(get.get("port")) != admin:
                self.say(manifest, f"{name}: {probe} does not ask the admin port")
            if get.get("path") != ("/readyz" if probe == "readinessProbe" else "/livez"):
                self.say(manifest, f"{name}: {probe} asks {get.get('path')}")
        for kind in ("requests", "limits"):
            if {"cpu", "memory"} - ((container.get("resources") or {}).get(kind) or {}).keys():
                self.say(manifest, f"{name}: resources.{kind} are not complete")
        if not (container.get("securityContext") or {}).get("readOnlyRootFilesystem"):
            self.say(manifest, f"{name}: its root can be written")
        if args[0] == "worker":
            service, socket = option("--service"), option("--socket")
            sockets = {s["path"]: s["services"] for s in config["dpa"]["worker_socket"]}
            if service not in sockets.get(socket, []):
                self.say(manifest, f"{name}: {socket} admits no worker of {service}")
            if not any(socket.startswith(m["mountPath"] + "/") for m in container["volumeMounts"]):
                self.say(manifest, f"{name}: no volume has {socket}")

    def check_ports(self, by, labels, ports):
        pods = self.selected(by, labels)
        if not pods:
            self.say(by, "selects no pods")
        for manifest, spec in pods:
            names = {port["name"] for c in containers_of(spec) for port in c["ports"]}
            for port in set(ports) - names:
                self.say(by, f"{manifest['metadata']['name']} has no port {port}")

    def check_namespaces(self):
        for namespace in self.of("Namespace"):
            name = namespace["metadata"]["name"]
            denies = [p for p in self.of("NetworkPolicy") if p["metadata"]["namespace"] == name
                      and not p["spec"]["podSelector"] and set(p["spec"]["policyTypes"]) == {"Ingress", "Egress"}
                      and not p["spec"].get("ingress") and not p["spec"].get("egress")]
            if not denies:
                self.say(namespace, "no NetworkPolicy denies what none allows")

    def check_services(self):
        """Each service of the application is reachable by its name, and hosted by a worker where there are workers."""
        config = next(filter(None, (self.config_of(m) for m, _, _ in self.workloads)))
        if model := config.get("workmodel"):
            names = set(json.loads(next(m["data"][model] for m in self.of("ConfigMap"))))
        else:
            names = {name for cell in config["cell"] for name in cell["services"]}
        named = {m["metadata"]["name"] for m in self.of("Service")}
        for name in names - named:
            self.problems.append(f"service {name} of app.toml has no Service")
        args = [c["args"] for _, _, spec in self.workloads for c in containers_of(spec)]
        hosted = {a[a.index("--service") + 1] for a in args if a[0] == "worker"}
        if hosted and hosted != names:
            self.problems.append(f"workers host {sorted(hosted)}, app.toml has {sorted(names)}")


if __name__ == "__main__":
    overlay = Overlay([m for m in yaml.safe_load_all(sys.stdin) if m])
    problems = overlay.check()
    print("\n".join(problems) or f"{len(overlay.manifests)} objects fit together")
    sys.exit(1 if problems else 0)
