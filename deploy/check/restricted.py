#!/usr/bin/env python3
"""Holds manifests against the Pod Security level `restricted`.

    kubectl kustomize OVERLAY | restricted.py      what a namespace that enforces `restricted` would refuse
    restricted.py --self-test                      that each rule refuses what it is there for

A namespace that enforces `privileged` is held against `restricted` too: of its pods nothing but hostPath may need more.
Source of the rules: Kubernetes, "Pod Security Standards".
"""

import copy
import sys

import yaml

ENFORCE = "pod-security.kubernetes.io/enforce"
VOLUMES = {"configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret"}
SECCOMP = {"RuntimeDefault", "Localhost"}
SYSCTLS = {
    "kernel.shm_rmid_forced", "net.ipv4.ip_local_port_range", "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.tcp_syncookies", "net.ipv4.ping_group_range", "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.tcp_keepalive_time", "net.ipv4.tcp_fin_timeout", "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_probes",
}
SELINUX = {None, "", "container_t", "container_init_t", "container_kvm_t", "container_engine_t"}


def pod_of(manifest):
    """The metadata and spec of the pods that an object makes, or None."""
    kind, spec = manifest.get("kind"), manifest.get("spec") or {}
    if kind == "Pod":
        return manifest.get("metadata") or {}, spec
    if kind == "CronJob":
        spec = spec["jobTemplate"]["spec"]
    template = spec.get("template") if isinstance(spec, dict) else None
    if template and "spec" in template:
        return template.get("metadata") or {}, template["spec"]
    return None


def containers_of(spec):
    return [c for key in ("initContainers", "containers", "ephemeralContainers") for c in spec.get(key) or []]


def findings(metadata, spec):
    """Yields (rule, where) for everything that `restricted` refuses."""
    pod = spec.get("securityContext") or {}
    for key in ("hostNetwork", "hostPID", "hostIPC"):
        if spec.get(key):
            yield key, "pod"
    for volume in spec.get("volumes") or []:
        for kind in set(volume) - {"name"} - VOLUMES:
            yield ("hostPath" if kind == "hostPath" else "volume type"), f"volume {volume['name']}: {kind}"
    for sysctl in pod.get("sysctls") or []:
        if sysctl["name"] not in SYSCTLS:
            yield "sysctl", sysctl["name"]
    for key, value in (metadata.get("annotations") or {}).items():
        if key.startswith("container.apparmor.security.beta.kubernetes.io/") and value == "unconfined":
            yield "AppArmor", key
    yield from shared_findings(pod, "pod")
    for container in containers_of(spec):
        yield from container_findings(container, pod)


def shared_findings(context, where):
    """Fields that pods and containers have both."""
    if (context.get("windowsOptions") or {}).get("hostProcess"):
        yield "hostProcess", where
    if (context.get("appArmorProfile") or {}).get("type", "RuntimeDefault") not in SECCOMP:
        yield "AppArmor", where
    selinux = context.get("seLinuxOptions") or {}
    if selinux.get("type") not in SELINUX or selinux.get("user") or selinux.get("role"):
        yield "SELinux", where
    if context.get("runAsUser") == 0:
        yield "runAsUser", where
    if (context.get("seccompProfile") or {}).get("type", "RuntimeDefault") not in SECCOMP:
        yield "seccomp", where


def container_findings(container, pod):
    where, context = f"container {container['name']}", container.get("securityContext") or {}
    yield from shared_findings(context, where)
    if context.get("privileged"):
        yield "privileged", where
    if context.get("allowPrivilegeEscalation") is not False:
        yield "allowPrivilegeEscalation", where
    if context.get("runAsNonRoot", pod.get("runAsNonRoot")) is not True:
        yield "runAsNonRoot", where
    if not (context.get("seccompProfile") or pod.get("seccompProfile")):
        yield "seccomp", where
    if context.get("procMount", "Default") != "Default":
        yield "procMount", where
    capabilities = context.get("capabilities") or {}
    if "ALL" not in (capabilities.get("drop") or []):
        yield "drop ALL", where
    if set(capabilities.get("add") or []) - {"NET_BIND_SERVICE"}:
        yield "capabilities", where
    if any(port.get("hostPort") for port in container.get("ports") or []):
        yield "hostPort", where
    handlers = [container.get(name) for name in ("livenessProbe", "readinessProbe", "startupProbe")]
    handlers += (container.get("lifecycle") or {}).values()
    for handler in filter(None, handlers):
        if any((handler.get(kind) or {}).get("host") for kind in ("httpGet", "tcpSocket")):
            yield "probe host", where


def check(manifests):
    levels = {m["metadata"]["name"]: (m["metadata"].get("labels") or {}).get(ENFORCE)
              for m in manifests if m["kind"] == "Namespace"}
    pods, bad = 0, 0
    for manifest in manifests:
        found = pod_of(manifest)
        if not found:
            continue
        pods += 1
        namespace = manifest["metadata"].get("namespace", "default")
        name = f"{manifest['kind']} {namespace}/{manifest['metadata']['name']}"
        level, broken = levels.get(namespace), list(findings(*found))
        allowed = {"restricted": set(), "privileged": {"hostPath"}}.get(level)
        if allowed is None:
            bad += 1
            print(f"{name}: its namespace enforces no level")
            continue
        for rule, where in broken:
            bad += rule not in allowed
            print(f"{name}: {rule} ({where}): " + ("needs level privileged" if rule in allowed else "refused"))
        if not broken:
            print(f"{name}: meets restricted")
    if not pods:
        sys.exit("no pods among the manifests")
    return bad


def self_test():
    good = {
        "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [{"name": "c", "securityContext": {
            "allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}}],
        "volumes": [{"name": "v", "emptyDir": {}}],
    }
    assert list(findings({}, good)) == []
    pod, first = (lambda s: s["securityContext"]), (lambda s: s["containers"][0])
    context = lambda s: first(s)["securityContext"]
    changes = {
        "hostNetwork": lambda s: s.update(hostNetwork=True),
        "hostPID": lambda s: s.update(hostPID=True),
        "hostIPC": lambda s: s.update(hostIPC=True),
        "hostPath": lambda s: s["volumes"].append({"name": "h", "hostPath": {"path": "/"}}),
        "volume type": lambda s: s["volumes"].append({"name": "n", "nfs": {}}),
        "sysctl": lambda s: pod(s).update(sysctls=[{"name": "kernel.msgmax", "value": "1"}]),
        "AppArmor": lambda s: context(s).update(appArmorProfile={"type": "Unconfined"}),
        "hostProcess": lambda s: context(s).update(windowsOptions={"hostProcess": True}),
        "SELinux": lambda s: pod(s).update(seLinuxOptions={"type": "spc_t"}),
        "runAsUser": lambda s: context(s).update(runAsUser=0),
        "seccomp": lambda s: pod(s).pop("seccompProfile"),
        "privileged": lambda s: context(s).update(privileged=True),
        "allowPrivilegeEscalation": lambda s: context(s).pop("allowPrivilegeEscalation"),
        "runAsNonRoot": lambda s: context(s).update(runAsNonRoot=False),
        "procMount": lambda s: context(s).update(procMount="Unmasked"),
        "drop ALL": lambda s: context(s).pop("capabilities"),
        "capabilities": lambda s: context(s)["capabilities"].update(add=["NET_ADMIN"]),
        "hostPort": lambda s: first(s).update(ports=[{"containerPort": 1, "hostPort": 1}]),
        "probe host": lambda s: first(s).update(livenessProbe={"httpGet": {"host": "other", "port": 1}}),
    }
    for rule, change in changes.items():
        for place in ("containers", "initContainers"):
            spec = copy.deepcopy(good)
            change(spec)
            spec[place] = spec.pop("containers")
            assert [found for found, _ in findings({}, spec)] == [rule], (rule, list(findings({}, spec)))
    print(f"self-test: each of {len(changes)} rules refuses what it is there for")
    return 0


if __name__ == "__main__":
    if sys.argv[1:] == ["--self-test"]:
        sys.exit(self_test())
    sys.exit(1 if check([m for m in yaml.safe_load_all(sys.stdin) if m]) else 0)
