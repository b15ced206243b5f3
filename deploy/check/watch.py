"""What is seen from outside while something is done to a pod: what clients get, and what processes hold."""

import collections
import json
import math
import os
import pathlib
import statistics
import subprocess
import sys
import time

TRAFFIC = pathlib.Path(__file__).with_name("traffic.py")
# After the last request traffic.py waits for answers for up to 20 s.
END_SECONDS = 60
RIGHT = "200"
# A share of what is due, and the time until traffic.py runs: with less load than that nothing is shown.
LOAD_LEAST, START_SECONDS = 0.8, 2


class Traffic:
    """`traffic.py`: the Service of the entrance, and its clients."""

    def __init__(self, rate, port):
        self.rate, self.port, self.since = rate, port, time.monotonic()
        self.process = subprocess.Popen([sys.executable, str(TRAFFIC), str(rate)], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        text=True)

    def lead(self, pods):
        """From now on new connections go to these."""
        return self.tell({"to": [[pod.about.name, pod.network(), self.port] for pod in pods]})

    def note_kill(self, at):
        """What is in flight now was so when something was killed, at this monotonic time."""
        return self.tell({"killed": at})

    def tell(self, order):
        self.process.stdin.write(json.dumps(order) + "\n")
        self.process.stdin.flush()
        return self

    def end(self):
        seconds = time.monotonic() - self.since
        out, _ = self.process.communicate(timeout=END_SECONDS)
        assert self.process.returncode == 0, f"traffic.py ended with {self.process.returncode}"
        seen = Seen(json.loads(out))
        least = LOAD_LEAST * self.rate * (seconds - START_SECONDS)
        assert seen.report["started"] >= least, f"{seen.report['started']} requests in {seconds:.0f} s, at least {least:.0f} were to be sent"
        return seen


class Seen:
    """What became of all requests. Each has exactly one outcome."""

    def __init__(self, report):
        self.report, self.errors = report, report["errors"]
        self.answers = collections.Counter()
        for answers in report["answers"].values():
            self.answers.update(answers)
        self.right_seconds = [ms / 1000 for ms in report["right_ms"]]
        done = sum(self.answers.values())
        assert done == report["started"], f"{report['started']} requests were begun, {done} have an outcome"
        assert not self.answers["hung"], f"requests without an answer: {self.answers}"
        assert not report["unasked"], f"answers that nobody asked for: {report['unasked']}"

    @property
    def wrong(self):
        return {answer: n for answer, n in self.answers.items() if answer != RIGHT and n}

    def longest_gap(self, since, until):
        """Seconds without a right answer."""
        times = [since, *(at for at in self.right_seconds if since < at < until), until]
        return max(after - before for before, after in zip(times, times[1:]))

    def first_right(self, since):
        return next((at - since for at in self.right_seconds if at > since), None)

    def by_kind(self):
        return ", ".join(f"{sum(answers.values())} {kind}" for kind, answers in self.report["answers"].items())


def percentile(seconds, share):
    """The least of them that so many, as a share of 1, are not above: nearest rank."""
    return sorted(seconds)[math.ceil(share * len(seconds)) - 1]


def median_and_most(seconds):
    return f"{statistics.median(seconds):.2f} (most {max(seconds):.2f}) s" if seconds else "-"


class Process:
    """One in a container."""

    def __init__(self, pid):
        self.pid, self.proc = pid, pathlib.Path(f"/proc/{pid}")

    def lives(self):
        return self.proc.exists()

    def is_ours(self):
        """The runtime of containers has given way to the program."""
        try:
            return (self.proc / "comm").read_text().strip() == "cellmesh"
        except OSError:
            return False

    def held(self):
        """Descriptors, mappings and segments of shared memory, and KiB resident."""
        maps = (self.proc / "maps").read_text()
        status = dict(line.split(":", 1) for line in (self.proc / "status").read_text().splitlines())
        return {"descriptors": len(os.listdir(self.proc / "fd")), "mappings": maps.count("\n"), "segments": maps.count("/memfd:cellmesh-segment"),
                "KiB": int(status["VmRSS"].split()[0])}

    def files(self):
        """Sockets and shared memory with a name, as the process sees its folders."""
        root = self.proc / "root"
        return sorted(f"/{path.relative_to(root)}" for folder in ("run/cellmesh", "dev/shm") for path in (root / folder).rglob("*"))


class Reborn:
    """The next process of a container, from podman's own file: asking podman takes processor time that the pods need."""

    def __init__(self, pod, container):
        about = pod.inspect(container)
        self.before, self.file = about["State"]["Pid"], pathlib.Path(about["PidFile"])

    def pid(self):
        try:
            return int(self.file.read_text())
        except (OSError, ValueError):
            return 0

    def wait(self, seconds):
        """Until there is one and it has begun; when that was."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            pid = self.pid()
            if pid not in (0, self.before) and Process(pid).is_ours():
                return time.monotonic()
            time.sleep(0.002)
        sys.exit(f"no new process: not within {seconds} s")
