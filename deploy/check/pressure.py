#!/usr/bin/env python3
"""More load than memory: workers of a service run into the memory limit of their container, and nothing else does.

    cellmesh k8s pressure.json --mode pod|node | pressure.py    as root, with what pods.py needs

`hungry` holds 12 MB for each request, and its container may have 64 MiB; DPA and DPU may have 128 MiB. One client at a time fits. Then
four times as many requests as fit come in, and then more than the node takes at all. `front` is another service, asked all the while.
"""

import json
import os
import pathlib
import re
import shutil
import sys
import tempfile
import time

import yaml

from podman import CROWD, Client, Layout, USER, eventually, run, say
from restricted import containers_of, pod_of

TARGET = "/api/v1"
DAEMON_LIMIT = "128Mi"
# A cell is compiled in the container of its worker, which takes more than it is given here.
COMPILER_LIMIT = "512Mi"
PHASE_SECONDS = 20
KILLED = 137
# Of the cell; of a worker that was killed; of one that is not back, or of a mesh that takes no more; and of one that takes too long.
ALLOWED = re.compile("200|502 worker-lost|503 .+|504 .+")


def limited(manifests, worker_limit, cache):
    """The same objects: daemons with their limit, hungry's worker with this one if any, compiled cells in a folder that outlives pods."""
    for _, spec in filter(None, map(pod_of, manifests)):
        for container in containers_of(spec):
            limits = container["resources"]["limits"]
            if container["args"][0] != "worker":
                limits["memory"] = DAEMON_LIMIT
            elif worker_limit and "hungry" in container["args"]:
                limits["memory"] = worker_limit
        for volume in spec["volumes"]:
            if volume["name"] == "cache":
                del volume["emptyDir"]
                volume["hostPath"] = {"path": str(cache), "type": "Directory"}
    return manifests


class Deaths:
    """Containers that end: name and exit status, from podman's own record."""

    def __init__(self):
        self.since = f"{time.time():.0f}"

    def seen(self):
        text = run("podman", "events", "--stream=false", "--format", "json", "--filter", "event=died", "--since", self.since)
        events = [json.loads(line) for line in text.splitlines()]
        return [(event["Name"], event.get("ContainerExitCode", 0)) for event in events]


def oom_kills():
    """Of this machine's kernel, ever."""
    lines = pathlib.Path("/proc/vmstat").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("oom_kill "))


class Pressure:
    def __init__(self, layout):
        self.layout = layout
        self.door = layout.entrance
        self.deaths = Deaths()

    def others(self):
        """Process ids of everything that is not to be killed."""
        return {f"{pod.about.name}/{container}": pod.pid(container) for pod in self.layout.pods
                for container in pod.about.containers if "hungry" not in f"{pod.about.name}{container}"}

    def phase(self, what, count):
        before, kills, deaths = self.others(), oom_kills(), len(self.deaths.seen())
        front = Client(self.door, self.layout.http, "kept", TARGET, "front")
        crowd = Client(self.door, self.layout.http, TARGET, "hungry", count, program=CROWD)
        time.sleep(PHASE_SECONDS)
        hungry, front = crowd.end(), front.end()
        kills = oom_kills() - kills
        assert self.others() == before, f"{what}: something else was killed: {before} before, {self.others()} after"
        dead = self.deaths.seen()[deaths:]
        unexpected = [death for death in dead if "hungry" not in death[0] or death[1] != KILLED]
        assert not unexpected, f"{what}: {unexpected}"
        for who, answers in (("hungry", hungry["answers"]), ("front", front["answers"])):
            assert all(map(ALLOWED.fullmatch, answers)), f"{what}: {who} was answered {answers}"
        say(f"  {what}, {count} clients of hungry: {hungry['answers']}, slowest {hungry['slowest_s']:.1f} s; "
            f"worker killed {len(dead)} times, out of memory says the kernel {kills} times")
        say(f"    front meanwhile: {front['answers']}, none right for {front['longest_gap_s']:.2f} s")
        return len(dead), kills, hungry["answers"], front["answers"]

    def daemons(self):
        for pod in self.layout.pods:
            for container in pod.about.containers:
                if "worker" not in f"{pod.about.name}{container}":
                    yield f"{pod.about.name}/{container}", pathlib.Path(f"/proc/{pod.pid(container)}")

    def held(self):
        """Of each daemon: descriptors, and segments that it has mapped."""
        count = lambda proc: (len(list((proc / "fd").iterdir())), (proc / "maps").read_text().count("/memfd:"))
        return {name: count(proc) for name, proc in self.daemons()}

    def check_held(self, before):
        """What was killed has left nothing in those that live."""
        eventually(f"descriptors and segments as before ({before})", lambda: self.held() == before)
        say(f"  descriptors and segments as before the first kill: {before}")
        for name, proc in self.daemons():
            status = dict(line.split(":", 1) for line in (proc / "status").read_text().splitlines())
            now, most = (int(status[key].split()[0]) // 1024 for key in ("VmRSS", "VmHWM"))
            say(f"  {name}: {now} MiB resident, {most} MiB at most, of {DAEMON_LIMIT}")

    def check(self):
        deaths, _, answers, _ = self.phase("what fits", 1)
        assert deaths == 0 and set(answers) == {"200"}, "one client at a time was to fit"
        held = self.held()
        deaths, kills, answers, front = self.phase("four times as much", 16)
        assert 0 < deaths <= kills, "the worker was to run into its limit"
        assert set(front) == {"200"}, f"another service noticed: {front}"
        self.recover()
        deaths, kills, answers, front = self.phase("more than the node takes", 1400)
        assert 0 < deaths <= kills and answers.get("503 overloaded", 0) > 0, "requests were to be shed"
        self.recover()
        self.check_held(held)

    def recover(self):
        """Without anybody's help, as soon as there is less to do."""
        _, took = eventually("ready again", lambda: all(pod.is_ready() for pod in self.layout.pods))
        deaths, _, answers, _ = self.phase(f"what fits, ready {took:.1f} s later", 1)
        assert deaths == 0 and set(answers) == {"200"}, "it was to be as before"


def main():
    text = sys.stdin.read()
    folder = pathlib.Path(tempfile.mkdtemp(prefix="cellmesh-pressure-"))
    os.chmod(folder, 0o755)
    cache = folder / "cache"
    cache.mkdir()
    os.chown(cache, USER, USER)

    def layout(name, worker_limit):
        own = folder / name
        own.mkdir()
        return Layout(limited([m for m in yaml.safe_load_all(text) if m], worker_limit, cache), own)

    running = layout("compile", COMPILER_LIMIT)
    try:
        running.start()
        running.down()
        running = layout("run", None)
        running.start()
        Pressure(running).check()
    finally:
        running.down()
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
