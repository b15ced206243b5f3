#!/usr/bin/env python3
"""Runs the pods of an overlay with podman, with the kubelet's part played: kills, restarts, rollouts, the order of the end, each under load.

    kubectl kustomize OVERLAY | pods.py [--kills N] [--kills-beside-twins N] [--kill-rate N] [--restarts N] [--rollouts N] [--report FILE]

as root, with podman, nsenter, and the image in podman's storage; Python with requirements.txt. N times each container is killed and
restarted, each pod of workers is killed beside two like it, and each workload is rolled out. FILE gets what was counted, as Markdown, behind what it has.
"""

import argparse
import collections
import datetime
import itertools
import json
import os
import pathlib
import re
import shutil
import signal
import sys
import tempfile
import threading
import time

import yaml

from podman import Client, Layout, eventually, run, say
from watch import Process, Reborn, Traffic, median_and_most, percentile

# Requests a second. Traffic, pods and podman share the processors: during kills podman takes most of one.
KILL_RATE, ROLLOUT_RATE = 1000, 2000
SETTLE_SECONDS = 0.7
RESTART_SECONDS = RIGHT_SECONDS = 60
HELD_SECONDS = 20
# Pods of workers like the one that is killed beside them.
TWINS = 2
# What those who send clients to pods may take to hear that one ends: less than `drain_delay`.
LAG_SECONDS = (0, 1.5, 3, 4.5)
TORN = {"cut", "truncated", "not connected"}
# An allocator keeps what the most requests at once have needed, which one kill more may raise.
GROWTH_KIB = 4096
# More than after the first kills. A lane makes the instance of a cell when it needs one, which is a few mappings.
MORE_MAX = {"descriptors": 0, "segments": 0, "mappings": 16}


def is_told(answer):
    """Whether a client that gets this while a container is restarted in good order has lost nothing but time: it was served, told that
    nobody is there, or found nobody."""
    return answer in ("200", "not connected") or answer.startswith("503 ")


EXPLAINED = f"""`deploy/check.sh pods`: pods of the shipped overlays, run with podman, beside an open load: {KILL_RATE} requests a second during kills and
restarts unless it says otherwise, {ROLLOUT_RATE} during rollouts, each with a number that has to come back. Each request had exactly one outcome; none hung, and no
answer came that nobody had asked for (the check fails otherwise). In columns with two figures the first is the median, the one in brackets
the most. How long a container was away is podman's time; from the new process, which is seen within some ms, it is ours."""


class Deeds:
    """What was done to one container, how often, and what came of it."""

    def __init__(self, what):
        self.what, self.requests, self.answers = what, 0, collections.Counter()
        self.gaps, self.ready, self.own = [], [], []
        self.slowest, self.after_kill = 0.0, []
        # When, by the monotonic clock.
        self.killed = []

    def add(self, seen, rounds):
        self.requests += seen.report["started"]
        self.answers.update(seen.answers)
        self.slowest = max(self.slowest, seen.report["slowest_s"])
        self.after_kill += seen.report["after_kill_s"]
        for since, begun, ready, right in rounds:
            self.gaps.append(seen.longest_gap(since, right + SETTLE_SECONDS / 2))
            self.ready.append(ready - since)
            self.own.append(seen.first_right(begun) or float("inf"))

    def say(self):
        say(f"  {self.what}, {len(self.ready)} times: {self.requests} requests, {dict(self.answers)}")
        say(f"    none right for {median_and_most(self.gaps)}; from the new process to the first right answer "
            f"{median_and_most(self.own)}; all ready again after {median_and_most(self.ready)}; in flight at that moment {self.in_flight()}")

    def in_flight(self):
        """How many requests were, and how long after it they had their outcome."""
        if not self.after_kill:
            return "-"
        return f"{len(self.after_kill)}: p99 {percentile(self.after_kill, 0.99):.3f} (most {max(self.after_kill):.3f}) s"


class Check:
    def __init__(self, layout, counts):
        self.layout, self.counts = layout, counts
        # Of rollouts: the others are told at once.
        self.failures = []
        self.rows, self.lines = [], []

    def traffic(self, rate):
        return Traffic(rate, self.layout.http).lead([self.layout.entrance])

    def processes(self):
        return {f"{pod.about.name}/{container}": Process(pod.pid(container))
                for pod in self.layout.pods for container in pod.about.containers}

    def is_right(self):
        return self.layout.entrance.get(self.layout.http, "/?item=tea")[0] == 200

    def each(self):
        return [(pod, container) for pod in self.layout.pods for container in pod.about.containers]

    # Kills and restarts in place.

    def round(self, traffic, pod, container, sent):
        """Sends a signal to a container's process, and waits until all are ready and right again. When that was, when the new process
        began, when all were ready, and when an answer was right."""
        reborn = Reborn(pod, container)
        since = time.monotonic()
        os.kill(reborn.before, sent)
        traffic.note_kill(since)
        begun = reborn.wait(RESTART_SECONDS)
        eventually("ready again", self.layout.is_ready)
        ready = time.monotonic()
        # A circuit that has opened meanwhile stays open for a while.
        eventually("answers are right again", self.is_right, RIGHT_SECONDS)
        right = time.monotonic()
        time.sleep(SETTLE_SECONDS)
        return since, begun, ready, right

    def rounds(self, deeds, pod, container, sent, count):
        traffic = self.traffic(self.counts.kill_rate)
        time.sleep(SETTLE_SECONDS)
        rounds = [self.round(traffic, pod, container, sent) for _ in range(count)]
        seen = traffic.end()
        deeds.add(seen, rounds)
        deeds.killed += [since for since, *_ in rounds]
        return seen

    def kill_each(self):
        for pod, container in self.each() if self.counts.kills else ():
            deeds = Deeds(f"kill -9 of {pod.about.name}/{container}")
            # Some to begin with: a process that has not met it yet has touched little of its memory.
            first = min(self.counts.kills, max(1, self.counts.kills // 4))
            counts = [first, self.counts.kills - first] if first < self.counts.kills else [first]
            self.rounds(deeds, pod, container, signal.SIGKILL, counts[0])
            time.sleep(SETTLE_SECONDS)
            held = self.held_by_others(pod, container)
            if counts[1:]:
                self.rounds(deeds, pod, container, signal.SIGKILL, counts[1])
            self.check_kill(deeds, pod, container)
            deeds.say()
            if counts[1:]:
                self.check_held(deeds.what, first, held)
            self.rows.append(deeds)

    def check_kill(self, deeds, pod, container):
        # Only who has the client's connection can cut it.
        has_clients = pod is self.layout.entrance and container == pod.about.entrance
        torn = {answer for answer, n in deeds.answers.items() if n and (answer in TORN or answer.startswith("reset"))}
        assert has_clients or not torn, deeds.answers
        assert not deeds.answers["200 with another body"], deeds.answers

    def held_by_others(self, pod, container):
        name = f"{pod.about.name}/{container}"
        return {who: (process, process.held(), process.files()) for who, process in self.processes().items() if who != name}

    def check_held(self, what, first, before):
        """What was killed has left nothing with those that live, nor in their folders."""
        grown = []
        for who, (process, held, files) in before.items():
            as_before = lambda: all((now := process.held())[place] <= held[place] + more for place, more in MORE_MAX.items()) and now
            now, _ = eventually(f"{who} holds as much as before ({held}; {process.held()})", as_before, HELD_SECONDS)
            assert process.files() == files, f"{who}: {files} before, {process.files()} now"
            grown.append((who, held, now))
        if grown:
            text = "; ".join(f"{who} mappings {held['mappings']} to {now['mappings']}, KiB {held['KiB']} to {now['KiB']} "
                             f"({(now['KiB'] / held['KiB'] - 1) * 100:+.1f} %)" for who, held, now in grown)
            self.note(f"    {what}, from the first {first} to the last: others hold no more descriptors, segments and files; {text}")
        for who, held, now in grown:
            assert now["KiB"] <= held["KiB"] + GROWTH_KIB, f"{who} has grown: {held} to {now}"

    def note(self, text):
        self.lines.append(text.strip())
        say(text)

    def restart_each(self):
        """A graceful one in its place. While it is away nobody answers for it, but nothing that was in flight is lost.

        Told by a signal: `podman restart` of a pod's only container is at odds with podman's own end of such a pod."""
        for pod, container in self.each() if self.counts.restarts else ():
            deeds = Deeds(f"restart of {pod.about.name}/{container}")
            for _ in range(self.counts.restarts):
                self.rounds(deeds, pod, container, signal.SIGTERM, 1)
            lost = {answer: n for answer, n in deeds.answers.items() if n and not is_told(answer)}
            deeds.say()
            self.rows.append(deeds)
            assert not lost, lost

    def kill_one_of_three(self):
        """Of pods that have two like them: what is in flight on the one that dies may fail, and nothing else."""
        for pod in self.layout.pods if self.counts.kills_beside_twins else ():
            if pod is self.layout.entrance:
                continue
            replicas = [pod]
            for _ in range(TWINS):
                replicas.append(self.start_next(replicas))
            deeds = Deeds(f"kill -9 of {pod.about.name} beside {TWINS} like it")
            [container] = pod.about.containers
            seen = self.rounds(deeds, pod, container, signal.SIGKILL, self.counts.kills_beside_twins)
            deeds.say()
            noticed = noticed_after(self.layout.entrance, deeds.killed)
            self.note(f"    {deeds.what}: the daemon's log says so after {median_and_most(noticed)}, p99 {percentile(noticed, 0.99):.3f} s")
            self.rows.append(deeds)
            # `egress`: the call of a cell was on it.
            assert seen.wrong.keys() <= {"502 worker-lost", "502 egress"}, seen.wrong
            for twin in replicas[1:]:
                end_pod(twin)
                twin.down()

    # Rollouts.

    def roll(self):
        if not self.counts.rollouts:
            return
        for index, pod in enumerate(list(self.layout.pods)):
            if pod is not self.layout.entrance:
                self.roll_workers(index)
            elif pod.about.kind == "Deployment":
                self.roll_entrance(index)
            else:
                self.roll_daemons()

    def roll_entrance(self, index):
        """As a Deployment of two pods that may have one more: when the new one is ready, the oldest is told to end; clients go on coming
        to it until their Service has heard of that."""
        running, leaving = [self.layout.entrance], Leaving()
        running.append(self.start_next(running))
        traffic = Traffic(ROLLOUT_RATE, self.layout.http).lead(running)
        for lag in itertools.islice(itertools.cycle(LAG_SECONDS), self.counts.rollouts):
            running.append(self.start_next(running))
            traffic.lead(running)
            old = running.pop(0)
            leaving.begin(old)
            time.sleep(lag)
            traffic.lead(running)
            leaving.wait_for_entrance(old)
        time.sleep(SETTLE_SECONDS)
        self.report_rollout(f"rollout of {self.layout.entrance.about.workload}, its pods replaced one by one", traffic.end())
        leaving.wait()
        extra = running.pop(0)
        end_pod(extra)
        extra.down()
        [self.layout.pods[index]] = running
        self.layout.entrance = running[0]

    def roll_daemons(self):
        """As a DaemonSet of two nodes: the old one ends, then the new one begins, while the Service has the other node."""
        nodes = [self.layout, self.layout.another_node()]
        nodes[1].start()
        traffic = Traffic(ROLLOUT_RATE, self.layout.http).lead([node.entrance for node in nodes])
        time.sleep(SETTLE_SECONDS)
        for turn, lag in zip(range(self.counts.rollouts), itertools.cycle(LAG_SECONDS)):
            self.replace_daemon(traffic, nodes[turn % 2], nodes[1 - turn % 2], lag)
            traffic.lead([node.entrance for node in nodes])
        time.sleep(SETTLE_SECONDS)
        self.report_rollout(f"rollout of {self.layout.entrance.about.workload}, the daemons of two nodes in turn", traffic.end())
        for pod in nodes[1].pods:
            end_pod(pod)
            pod.down()

    def replace_daemon(self, traffic, node, other, lag):
        old, leaving = node.entrance, Leaving()
        leaving.begin(old)
        time.sleep(lag)
        traffic.lead([other.entrance])
        leaving.wait()
        new = old.successor()
        self.layout.others.append(new)
        node.pods[node.pods.index(old)] = node.entrance = new.start()
        eventually(f"{new.about.name} and its workers are ready", node.is_ready)

    def start_next(self, running):
        # Down again, whatever comes of it.
        new = running[-1].successor()
        self.layout.others.append(new)
        new.start()
        eventually(f"{new.about.name} is ready", new.is_ready)
        return new

    def roll_workers(self, index):
        """The same of pods that no client asks."""
        traffic = self.traffic(ROLLOUT_RATE)
        time.sleep(SETTLE_SECONDS)
        for _ in range(self.counts.rollouts):
            old = self.layout.pods[index]
            self.layout.pods[index] = self.start_next([old])
            end_pod(old)
            old.down()
        time.sleep(SETTLE_SECONDS)
        self.report_rollout(f"rollout of {self.layout.pods[index].about.workload}", traffic.end())

    def report_rollout(self, what, seen):
        self.note(f"  {what}, {self.counts.rollouts} times: {seen.report['started']} requests ({seen.by_kind()}), answers "
                  f"{dict(seen.answers)}, slowest answer {seen.report['slowest_s']:.2f} s, {seen.report['told_to_go']} times told to go elsewhere, "
                  f"{seen.report['moved']} streams sent again")
        if seen.wrong:
            self.failures.append(f"{what}: {seen.wrong}, of these {seen.errors[:10]}")

    # The end.

    def end_gracefully(self):
        """As the kubelet does: containers, then sidecars from the last to the first, each when the one before has ended."""
        layout = self.layout
        client = Client(layout.entrance, layout.http, "kept")
        time.sleep(0.5)
        # A rollout of the workers' pods takes the ingress last; within a pod the order is that of the containers.
        for pod in sorted(layout.pods, key=lambda pod: pod is not layout.entrance):
            ending = threading.Thread(target=end_pod, args=(pod,))
            start = time.monotonic()
            ending.start()
            if pod is layout.entrance:
                time.sleep(1)
                status, body = pod.probe(pod.about.entrance)
                say(f"  after SIGTERM /readyz of {pod.about.entrance} says {status} {body}")
                assert status == 503
            ending.join()
            took = time.monotonic() - start
            check_ended(pod)
            assert took < pod.about.grace, f"{took:.1f} s: longer than terminationGracePeriodSeconds"
            say(f"  {pod.about.name}: all ended with status 0 in {took:.1f} of {pod.about.grace} s")
        counts = client.end()
        # This client stays when a balancer would long have sent it elsewhere: after drain_delay it may be refused.
        expected = ("200", "503 draining", "not connected")
        wrong = {answer: n for answer, n in counts["answers"].items() if answer not in expected}
        say(f"  meanwhile on kept connections: {counts['answers']}, told to close {counts['closed']} times")
        assert not wrong, wrong

    def write(self, file, name):
        counts = self.counts
        circuits = "; `--without-circuits`" if counts.without_circuits else ""
        heading = "" if file.exists() else f"# Pods\n\n{machine()}\n\n{EXPLAINED}\n\n"
        with file.open("a") as out:
            print(f"{heading}## {name}\n\n{counts.kills} kills, {counts.kills_beside_twins} beside {TWINS} like it, {counts.restarts} restarts, "
                  f"{counts.rollouts} rollouts{circuits}\n", file=out)
            if self.rows:
                print("| done, times | requests | answers | none right for, s | from the new process to a right answer, s | "
                      "all ready again, s | slowest answer, s | in flight at that moment: outcome after |\n|---|---|---|---|---|---|---|---|", file=out)
            for row in self.rows:
                answers = ", ".join(f"{n} {answer}" for answer, n in row.answers.most_common() if n)
                figures = [median_and_most(seconds).removesuffix(" s") for seconds in (row.gaps, row.own, row.ready)]
                print(f"| {row.what}, {len(row.ready)} | {row.requests} | {answers} | {' | '.join(figures)} | {row.slowest:.2f} | {row.in_flight()} |", file=out)
            print("", *(f"- {line}" for line in self.lines), "", sep="\n", file=out)


def machine():
    """What it ran on."""
    model = next(line.split(":", 1)[1].strip() for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line)
    tools = [run(tool, "--version").splitlines()[0] for tool in ("podman", "runc")]
    return f"{model}, {os.cpu_count()} cores, Linux {os.uname().release}; {', '.join(tools)}"


def noticed_after(pod, killed):
    """Seconds from each kill of a worker to the line about it in the daemon's log."""
    offset = time.time() - time.monotonic()
    lines = (json.loads(line) for line in pod.log(pod.about.entrance) if line.startswith("{"))
    times = [datetime.datetime.fromisoformat(line["timestamp"].replace("Z", "+00:00")).timestamp() - offset
             for line in lines if line["message"].startswith("detached")]
    return [next(at for at in times if at >= since) - since for since in killed]


def end_pod(pod, ended=lambda container: None):
    """As the kubelet: SIGTERM to one container after the other. `ended` is called with each that is gone."""
    for container in reversed(pod.about.containers):
        run("podman", "stop", "-t", pod.about.grace, f"{pod.about.name}-{container}")
        ended(container)


def check_ended(pod):
    for container in pod.about.containers:
        status = pod.inspect(container)["State"]["ExitCode"]
        assert status == 0, f"{pod.about.name}/{container} ended with status {status}"


class Leaving:
    """Pods that have been told to end, while others take over."""

    def __init__(self):
        self.threads, self.failures = [], []
        # Names of pods whose entrance is gone.
        self.closed = set()

    def begin(self, pod):
        thread = threading.Thread(target=self.see_off, args=(pod,))
        thread.start()
        self.threads.append(thread)

    def see_off(self, pod):
        def ended(container):
            if container == pod.about.entrance:
                self.closed.add(pod.about.name)

        try:
            end_pod(pod, ended)
            check_ended(pod)
            pod.down()
        # `run` ends the thread only.
        except (SystemExit, AssertionError) as failure:
            self.failures.append(failure)

    def wait_for_entrance(self, pod):
        """Until nobody listens there any more: in `pod` the other containers end after it. Who ends them says so: the pod may be away as
        a whole before it could be asked."""
        eventually(f"{pod.about.name} serves nobody", lambda: pod.about.name in self.closed or self.failures)

    def wait(self):
        for thread in self.threads:
            thread.join()
        assert not self.failures, self.failures


def remove_circuits(manifests):
    for manifest in manifests:
        if manifest["kind"] == "ConfigMap" and "app.toml" in manifest["data"]:
            text = manifest["data"]["app.toml"]
            manifest["data"]["app.toml"] = re.sub(r"\[service\.[^]]*\.breaker\]\n([^[\n]+\n)*", "", text)


def options():
    parser = argparse.ArgumentParser(allow_abbrev=False)
    parser.add_argument("--kills", type=int, default=3)
    parser.add_argument("--kills-beside-twins", type=int, default=3)
    parser.add_argument("--kill-rate", type=int, default=KILL_RATE, help="requests a second during kills and restarts")
    parser.add_argument("--restarts", type=int, default=1)
    parser.add_argument("--rollouts", type=int, default=3)
    parser.add_argument("--without-circuits", action="store_true", help="no breakers: they leave a service alone for longer than it is away")
    parser.add_argument("--report", type=pathlib.Path)
    parser.add_argument("--name", default="pods")
    return parser.parse_args()


def main():
    counts = options()
    manifests = [m for m in yaml.safe_load_all(sys.stdin) if m]
    if counts.without_circuits:
        remove_circuits(manifests)
    folder = pathlib.Path(tempfile.mkdtemp(prefix="cellmesh-pods-"))
    layout = Layout(manifests, folder)
    check = Check(layout, counts)
    try:
        layout.start()
        layout.ask()
        check.kill_each()
        check.restart_each()
        check.kill_one_of_three()
        check.roll()
        layout.ask()
        check.end_gracefully()
        if counts.report:
            check.write(counts.report, counts.name)
        if check.failures:
            sys.exit("\n".join(check.failures))
    finally:
        layout.down()
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
