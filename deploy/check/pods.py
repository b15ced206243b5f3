#!/usr/bin/env python3
"""Runs the pods of an overlay with podman and plays the kubelet's part: probes, requests, kills, restarts, a rollout, the order of the end.

    kubectl kustomize OVERLAY | pods.py        as root, with podman, nsenter, and the image in podman's storage

What podman cannot do with the shipped objects is rewritten, and nothing else (`Rewritten`): probes are asked from here, and native
sidecars, DaemonSets and `local` PersistentVolumes become what podman knows. No network is needed: each pod has one of its own, and
clients come in through it.
"""

import copy
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import tomllib

import yaml

from restricted import containers_of, pod_of

PATIENCE_SECONDS = 120
CLIENT = pathlib.Path(__file__).with_name("client.py")
CROWD = CLIENT.with_name("crowd.py")
CROWD_COUNT = 8
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

    def __init__(self, manifest, claims, folder):
        metadata, spec = copy.deepcopy(pod_of(manifest))
        self.kind, self.name = manifest["kind"], manifest["metadata"]["name"]
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
            for variable in container["env"]:
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


class Pod:
    def __init__(self, rewritten, config, folder):
        self.about, self.config, self.folder = rewritten, config, folder
        self.file = folder / f"{rewritten.name}.yaml"
        self.file.write_text(yaml.safe_dump_all([config, rewritten.pod]))

    def start(self):
        run("podman", "play", "kube", "--network", "none", self.file)
        return self

    def down(self):
        subprocess.run(["podman", "play", "kube", "--down", str(self.file)], capture_output=True)

    def successor(self):
        """Another one of the same workload, as a rollout makes it."""
        about = copy.deepcopy(self.about)
        about.name = about.pod["metadata"]["name"] = f"{about.name}-next"
        return Pod(about, self.config, self.folder)

    def inspect(self, container):
        return json.loads(run("podman", "inspect", f"{self.about.name}-{container}"))[0]

    def pid(self, container):
        return self.inspect(container)["State"]["Pid"]

    def inside(self, *args):
        """A command of this machine in the network of the pod."""
        infra = json.loads(run("podman", "pod", "inspect", self.about.name))["InfraContainerID"]
        pid = run("podman", "inspect", "-f", "{{.State.Pid}}", infra).strip()
        return ["nsenter", f"--net=/proc/{pid}/ns/net", *map(str, args)]

    def get(self, port, path):
        script = ("import sys,urllib.request as r,urllib.error as e\n"
                  "try:\n a=r.urlopen(sys.argv[1],timeout=6); print(a.status,a.read().decode())\n"
                  "except e.HTTPError as x: print(x.code,x.read().decode())\n"
                  "except OSError as x: print(0,x)\n")
        text = run(*self.inside(sys.executable, "-c", script, f"http://127.0.0.1:{port}{path}"))
        status, _, body = text.partition(" ")
        return int(status), body.strip()

    def probe(self, container, kind="readinessProbe"):
        port, path = self.about.probes[container][kind]
        return self.get(port, path)

    def is_ready(self):
        return all(self.probe(container)[0] == 200 for container in self.about.containers)

    def check_confinement(self):
        """What securityContext promises, read from the processes."""
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
    def __init__(self, manifests, folder):
        claims = {(v["spec"]["claimRef"]["namespace"], v["spec"]["claimRef"]["name"]): v["spec"]["local"]["path"]
                  for v in manifests if v["kind"] == "PersistentVolume"}
        configs = {m["metadata"]["namespace"]: m for m in manifests if m["kind"] == "ConfigMap" and "app.toml" in m["data"]}
        workloads = [Rewritten(m, claims, folder) for m in manifests if pod_of(m)]
        # The daemon of a node makes the folders of the sockets, which a kubelet waits for before it starts a worker.
        workloads.sort(key=lambda workload: workload.kind != "DaemonSet")
        self.folder = folder
        self.pods = [Pod(w, configs[w.namespace], folder) for w in workloads]
        self.entrance = next(pod for pod in self.pods if "http" in pod.about.ports)
        self.http = self.entrance.about.ports["http"]
        self.runtime = tomllib.loads(next(iter(configs.values()))["data"]["app.toml"])["runtime"]

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

    def kill_each(self):
        for pod in self.pods:
            for container in pod.about.containers:
                self.kill(pod, container)

    def replace(self, pod, container, sent):
        """Sends a signal to a container's process beside a client, and waits until all are ready again. What the client got,
        and the seconds that it took."""
        before = pod.pid(container)
        client = Client(self.entrance, self.http, "fresh")
        time.sleep(0.5)
        start = time.monotonic()
        os.kill(before, sent)
        eventually("a new process", lambda: pod.pid(container) not in (0, before))
        eventually("ready again", lambda: all(p.is_ready() for p in self.pods))
        took = time.monotonic() - start
        time.sleep(0.5)
        counts = client.end()
        assert counts["last"] == "200", counts
        return counts, took

    def kill(self, pod, container):
        counts, took = self.replace(pod, container, signal.SIGKILL)
        # Only who has the client's connection can cut it.
        has_clients = pod is self.entrance and container == pod.about.entrance
        assert has_clients or "cut" not in counts["answers"], counts
        say(f"  kill -9 of {pod.about.name}/{container}: all ready again after {took:.1f} s; answers {counts['answers']}, "
            f"none right for {counts['longest_gap_s']:.2f} s")

    def restart_each(self):
        for pod in self.pods:
            for container in pod.about.containers:
                self.restart(pod, container)

    def restart(self, pod, container):
        """A graceful one in its place. While it is away nobody answers for it, but nothing that was in flight is lost.

        Told by a signal: `podman restart` of a pod's only container is at odds with podman's own end of such a pod."""
        counts, took = self.replace(pod, container, signal.SIGTERM)
        lost = {answer: n for answer, n in counts["answers"].items() if answer == "cut" or answer.startswith("502")}
        assert not lost, counts
        say(f"  restart of {pod.about.name}/{container}: all ready again after {took:.1f} s; answers {counts['answers']}, "
            f"none right for {counts['longest_gap_s']:.2f} s")

    def kill_one_of_two(self):
        """Of pods that have a twin: what is in flight on the one that dies may fail, and nothing else."""
        for pod in self.pods:
            if pod is self.entrance:
                continue
            twin = pod.successor().start()
            eventually(f"{twin.about.name} is ready", twin.is_ready)
            crowd = Client(self.entrance, self.http, "/?item=tea", "offers", CROWD_COUNT, program=CROWD)
            time.sleep(1)
            [container] = pod.about.containers
            before = pod.pid(container)
            os.kill(before, signal.SIGKILL)
            eventually("a new process", lambda: pod.pid(container) not in (0, before))
            eventually("ready again", pod.is_ready)
            time.sleep(1)
            counts = crowd.end()
            failed = {answer: n for answer, n in counts["answers"].items() if answer != "200"}
            # `egress`: the call of a cell was on it.
            assert failed.keys() <= {"502 worker-lost", "502 egress"} and sum(failed.values()) <= CROWD_COUNT, counts
            run("podman", "stop", "-t", twin.about.grace, f"{twin.about.name}-{container}")
            twin.down()
            say(f"  kill -9 of {pod.about.name} beside its twin, {CROWD_COUNT} clients: answers {counts['answers']}, slowest {counts['slowest_s']:.2f} s")

    def roll_workers(self):
        """As a Deployment that may have one pod more: the new one is ready before the old one ends. Only of pods that no client asks:
        to lead clients from pod to pod takes a Service."""
        for index, pod in enumerate(self.pods):
            if pod is self.entrance:
                continue
            client = Client(self.entrance, self.http, "kept")
            time.sleep(0.5)
            new = pod.successor().start()
            eventually(f"{new.about.name} is ready", new.is_ready)
            for container in reversed(pod.about.containers):
                run("podman", "stop", "-t", pod.about.grace, f"{pod.about.name}-{container}")
            time.sleep(0.5)
            counts = client.end()
            assert set(counts["answers"]) == {"200"}, counts
            say(f"  rollout of {pod.about.name}: answers {counts['answers']}, none right for {counts['longest_gap_s']:.2f} s")
            pod.down()
            self.pods[index] = new

    def end_gracefully(self):
        """As the kubelet does: containers, then sidecars from the last to the first, each when the one before has ended."""
        client = Client(self.entrance, self.http, "kept")
        time.sleep(0.5)
        start = time.monotonic()
        # A rollout of the workers' pods takes the ingress last; within a pod the order is that of the containers.
        pods = sorted(self.pods, key=lambda pod: pod is not self.entrance)
        for pod in pods:
            for container in reversed(pod.about.containers):
                pid = pod.pid(container)
                threading.Thread(target=run, args=("podman", "stop", "-t", pod.about.grace, f"{pod.about.name}-{container}")).start()
                if pod is self.entrance and container == pod.about.containers[-1]:
                    time.sleep(1)
                    status, body = pod.probe(container)
                    say(f"  after SIGTERM /readyz of {container} says {status} {body}")
                    assert status == 503
                eventually(f"{container} ends", lambda: not pathlib.Path(f"/proc/{pid}").exists())
                eventually("podman notices", lambda: pod.inspect(container)["State"]["Status"] == "exited")
                status = pod.inspect(container)["State"]["ExitCode"]
                assert status == 0, f"{container} ended with status {status}"
            took = time.monotonic() - start
            assert took < pod.about.grace, f"{took:.1f} s: longer than terminationGracePeriodSeconds"
            say(f"  {pod.about.name}: all ended with status 0 in {took:.1f} of {pod.about.grace} s")
            start = time.monotonic()
        counts = client.end()
        # This client stays when a balancer would long have sent it elsewhere: after drain_delay it may be refused.
        expected = ("200", "503 draining", "not connected")
        wrong = {answer: n for answer, n in counts["answers"].items() if answer not in expected}
        say(f"  meanwhile on kept connections: {counts['answers']}, told to close {counts['closed']} times")
        assert not wrong, wrong

    def down(self):
        for pod in self.pods:
            pod.down()


def main():
    manifests = [m for m in yaml.safe_load_all(sys.stdin) if m]
    folder = pathlib.Path(tempfile.mkdtemp(prefix="cellmesh-pods-"))
    layout = Layout(manifests, folder)
    try:
        layout.start()
        layout.ask()
        layout.kill_each()
        layout.restart_each()
        layout.kill_one_of_two()
        layout.roll_workers()
        layout.ask()
        layout.end_gracefully()
    finally:
        layout.down()
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
