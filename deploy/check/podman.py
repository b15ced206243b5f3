"""The pods of an overlay, run with podman as root. What is asked of them is in `pods` and `pressure`.

What podman cannot do with the shipped objects is rewritten, and nothing else (`Rewritten`): probes are asked from here, and native
sidecars, DaemonSets and `local` PersistentVolumes become what podman knows. No network is needed: each pod has one of its own, and
clients come in through it.
"""

import copy
import http.client
import json
import os
import pathlib
import socket
import subprocess
import sys
import time
import tomllib

import yaml

from network import network_of
from restricted import pod_of

PATIENCE_SECONDS = 120
PROBE_SECONDS = 6
CLIENT = pathlib.Path(__file__).with_name("client.py")
CROWD = CLIENT.with_name("crowd.py")
USER = 65532


def run(*args, **options):
    done = subprocess.run([str(arg) for arg in args], text=True, capture_output=True, **options)
    if done.returncode:
        sys.exit(f"{' '.join(map(str, args))}: {done.stdout}{done.stderr}")
    return done.stdout


def say(text):
    print(text, flush=True)


def eventually(what, test, seconds=PATIENCE_SECONDS):
    """The first true value of `test`, and how long it took."""
    start = time.monotonic()
    while not (found := test()):
        if time.monotonic() - start > seconds:
            sys.exit(f"{what}: not within {seconds} s")
        time.sleep(0.05)
    return found, time.monotonic() - start


class Rewritten:
    """A workload as a Pod that podman runs, and what the kubelet would know of it."""

    def __init__(self, manifest, claims, folder, node):
        metadata, spec = copy.deepcopy(pod_of(manifest))
        self.kind, self.workload = manifest["kind"], manifest["metadata"]["name"] + node
        self.name, self.generation = self.workload, 1
        self.namespace = manifest["metadata"]["namespace"]
        self.grace = spec["terminationGracePeriodSeconds"]
        sidecars = spec.pop("initContainers", [])
        assert all(c.pop("restartPolicy") == "Always" for c in sidecars), "an init container that ends"
        # The order of the start; the end comes the other way round.
        spec["containers"] = sidecars + spec["containers"]
        self.containers = [c["name"] for c in spec["containers"]]
        self.entrance = next((c["name"] for c in spec["containers"] if any(p["name"] == "http" for p in c["ports"])), None)
        self.probes, self.ports = {}, {}
        for container in spec["containers"]:
            numbers = {p["name"]: p["containerPort"] for p in container.pop("ports")}
            self.ports.update(numbers)
            self.probes[container["name"]] = {
                kind: (numbers[probe["httpGet"]["port"]], probe["httpGet"]["path"])
                for kind in ("startupProbe", "livenessProbe", "readinessProbe")
                if (probe := container.pop(kind, None))}
            container["imagePullPolicy"] = "Never"
            for variable in container.get("env", []):
                if variable.pop("valueFrom", None):
                    variable["value"] = self.name  # podman knows no namespaces and no nodes
        for volume in spec["volumes"]:
            claim = volume.pop("persistentVolumeClaim", None)
            if claim:
                path = claims[self.namespace, claim["claimName"]]
                volume["hostPath"] = {"path": path, "type": "Directory"}
            if "hostPath" in volume:
                volume["hostPath"]["path"] = volume["hostPath"]["path"].replace("/run/cellmesh", f"{folder}/run", 1)
        for field in ("topologySpreadConstraints", "nodeSelector", "serviceAccountName", "terminationGracePeriodSeconds"):
            spec.pop(field, None)
        metadata["name"] = self.name
        spec["restartPolicy"] = "Always"
        self.pod = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}

    def apart(self):
        """An emptyDir of podman's is one for all pods that have a volume of that name: here each pod has its own."""
        pod = copy.deepcopy(self.pod)
        spec = pod["spec"]
        own = {volume["name"] for volume in spec["volumes"] if "emptyDir" in volume}
        for named in [*spec["volumes"], *(mount for container in spec["containers"] for mount in container["volumeMounts"])]:
            if named["name"] in own:
                named["name"] = f"{self.name}-{named['name']}"
        return pod


class Pod:
    def __init__(self, rewritten, config, folder):
        self.about, self.config, self.folder = rewritten, config, folder
        self.infra = None
        self.file = folder / f"{rewritten.name}.yaml"
        self.file.write_text(yaml.safe_dump_all([config, rewritten.apart()]))

    def start(self):
        run("podman", "play", "kube", "--network", "none", self.file)
        return self

    def down(self):
        subprocess.run(["podman", "play", "kube", "--down", str(self.file)], capture_output=True)

    def successor(self):
        """Another one of the same workload, as a rollout makes it."""
        about = copy.deepcopy(self.about)
        about.generation += 1
        about.name = about.pod["metadata"]["name"] = f"{about.workload}-{about.generation}"
        return Pod(about, self.config, self.folder)

    def inspect(self, container):
        return json.loads(run("podman", "inspect", f"{self.about.name}-{container}"))[0]

    def log(self, container):
        """Lines that it has written."""
        command = ["podman", "logs", f"{self.about.name}-{container}"]
        return subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=True).stdout.splitlines()

    def pid(self, container):
        return self.inspect(container)["State"]["Pid"]

    def network(self):
        """A process in the network of the pod, for as long as there is one."""
        if not self.infra or not pathlib.Path(f"/proc/{self.infra}").exists():
            infra = json.loads(run("podman", "pod", "inspect", self.about.name))["InfraContainerID"]
            self.infra = int(run("podman", "inspect", "-f", "{{.State.Pid}}", infra))
        return self.infra

    def inside(self, *args):
        """A command of this machine in the network of the pod."""
        return ["nsenter", f"--net=/proc/{self.network()}/ns/net", *map(str, args)]

    def get(self, port, path):
        """Status and body; 0 and why, if there is no answer."""
        connection = http.client.HTTPConnection("127.0.0.1", port)
        try:
            with network_of(self.network()):
                connection.sock = socket.create_connection((connection.host, port), timeout=PROBE_SECONDS)
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, answer.read().decode().strip()
        except (OSError, http.client.HTTPException) as error:
            return 0, str(error)
        finally:
            connection.close()

    def probe(self, container, kind="readinessProbe"):
        port, path = self.about.probes[container][kind]
        return self.get(port, path)

    def is_ready(self):
        return all(self.probe(container)[0] == 200 for container in self.about.containers)

    def check_confinement(self):
        """What securityContext promises, read from the processes."""
        own_processes = lambda pid: os.readlink(f"/proc/{pid}/ns/pid")
        namespaces = {own_processes("self")}
        for container in self.about.containers:
            pid = self.pid(container)
            status = dict(line.split(":\t", 1) for line in pathlib.Path(f"/proc/{pid}/status").read_text().splitlines())
            root = next(line.split() for line in pathlib.Path(f"/proc/{pid}/mountinfo").read_text().splitlines()
                        if line.split()[4] == "/")
            wrong = [what for what, holds in {
                f"user {USER}": status["Uid"].split() == [str(USER)] * 4,
                "no capability": int(status["CapBnd"], 16) == 0,
                "no new privileges": status["NoNewPrivs"] == "1",
                "seccomp": status["Seccomp"] == "2",
                "read-only root": "ro" in root[5].split(","),
            }.items() if not holds]
            if wrong:
                sys.exit(f"{self.about.name}/{container}: not confined: {wrong}")
            assert own_processes(pid) not in namespaces, f"{self.about.name}/{container} sees the processes of another container"
            namespaces.add(own_processes(pid))
            memory = int(status["VmRSS"].split()[0]) // 1024
            say(f"  {self.about.name}/{container}: user {USER}, read-only root, no capability, seccomp; {memory} MiB resident")


class Client:
    """Asks all the time, in the pod's network; says what came of it."""

    def __init__(self, pod, port, *args, program=CLIENT):
        self.process = subprocess.Popen(pod.inside(sys.executable, program, port, *args),
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def end(self):
        out, _ = self.process.communicate("\n", timeout=60)
        return json.loads(out)


class Layout:
    """Pods of a node. `node`: what names have at their end, of any node but the first."""

    def __init__(self, manifests, folder, node=""):
        self.manifests = manifests
        claims = {(v["spec"]["claimRef"]["namespace"], v["spec"]["claimRef"]["name"]): v["spec"]["local"]["path"]
                  for v in manifests if v["kind"] == "PersistentVolume"}
        configs = {m["metadata"]["namespace"]: m for m in manifests if m["kind"] == "ConfigMap" and "app.toml" in m["data"]}
        workloads = [Rewritten(m, claims, folder, node) for m in manifests if pod_of(m)]
        # The daemon of a node makes the folders of the sockets, which a kubelet waits for before it starts a worker.
        workloads.sort(key=lambda workload: workload.kind != "DaemonSet")
        self.folder = folder
        self.pods = [Pod(w, configs[w.namespace], folder) for w in workloads]
        # Of rollouts: to be taken away at the end.
        self.others = []
        self.entrance = next(pod for pod in self.pods if "http" in pod.about.ports)
        self.http = self.entrance.about.ports["http"]
        self.runtime = tomllib.loads(next(iter(configs.values()))["data"]["app.toml"])["runtime"]

    def another_node(self):
        folder = self.folder / "another"
        folder.mkdir()
        other = Layout(self.manifests, folder, "-another")
        self.others += other.pods
        return other

    def is_ready(self):
        return all(pod.is_ready() for pod in self.pods)

    def prepare_node(self):
        """cellmesh.tmpfiles.conf, by hand."""
        run_folder = self.folder / "run"
        run_folder.mkdir(mode=0o755)
        os.chown(run_folder, USER, USER)
        os.chmod(self.folder, 0o755)

    def start(self):
        self.prepare_node()
        for pod in self.pods:
            pod.start()
            if pod.about.kind == "DaemonSet":
                (status, body), _ = eventually("the daemon answers", lambda: (a := pod.probe("node"))[0] and a)
                say(f"  before there are workers, the daemon's /readyz: {status} {body}")
        start = time.monotonic()
        for pod in self.pods:
            eventually(f"{pod.about.name} is ready", pod.is_ready)
        say(f"  ready {time.monotonic() - start:.1f} s after the last pod was started, cells compiled")
        for pod in self.pods:
            pod.check_confinement()

    def ask(self):
        offer = self.entrance.get(self.http, "/?item=tea")
        assert offer[0] == 200 and '"stock":"hello"' in offer[1], offer
        say(f"  GET /?item=tea: {offer[0]} {offer[1]}")

    def down(self):
        for pod in [*self.pods, *self.others]:
            pod.down()

