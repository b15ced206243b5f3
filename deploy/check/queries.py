#!/usr/bin/env python3
"""Runs every query of the dashboard and of the alerts against a live node: a Prometheus that scrapes it must answer each with data.

    queries.py PROGRAM CELLS        cellmesh, and the folder that `cargo xtask cells` puts components into

Needs prometheus and promtool. An alert's query is asked without its threshold, since nothing is wrong here.
"""

import http.server
import json
import pathlib
import re
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.parse
import urllib.request

import yaml

KUSTOMIZE = pathlib.Path(__file__).resolve().parent.parent / "kustomize"
MONITORING = KUSTOMIZE / "monitoring"
TRAFFIC_SECONDS = 20
# The cell that fails is noticed.
EXPECTED_ALERTS = {"CellmeshServerErrors", "CellmeshCellFaults"}


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def get(url, headers={}):
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()
    except OSError as error:
        return 0, str(error)


def wait_for(what, url, seconds=60):
    deadline = time.monotonic() + seconds
    while get(url)[0] != 200:
        if time.monotonic() > deadline:
            sys.exit(f"{what} is not ready after {seconds} s: {get(url)}")
        time.sleep(0.2)


class Collector(http.server.ThreadingHTTPServer):
    """Takes traces and forgets them: what became of them is counted only where there is a collector."""

    class Answer(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            self.rfile.read(int(self.headers["content-length"]))
            self.send_response(200)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_):
            pass

    def __init__(self):
        super().__init__(("127.0.0.1", 0), self.Answer)
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def end(self):
        self.shutdown()
        self.server_close()


class Node:
    """The shipped config, as `cellmesh node` and a worker for each service."""

    def __init__(self, program, cells, folder, collector):
        text = (KUSTOMIZE / "base/app.toml").read_text()
        for path, here in (("/cells/", f"{cells}/"), ("/run/cellmesh", f"{folder}/run"),
                           ("/var/cache/cellmesh/cells", f"{folder}/cache")):
            text = text.replace(f'"{path}', f'"{here}')
        config = folder / "app.toml"
        # A cell that fails when it is told to: some series begin with the first failure.
        text += f'[[cell]]\ncomponent = "{cells}/unruly.wasm"\nservices = ["unruly"]\n'
        config.write_text(text + f'[trace]\nendpoint = "http://127.0.0.1:{collector.server_port}"\n')
        self.http, self.admin = free_port(), free_port()
        # Where Prometheus finds each process: the name of its pod, and its port.
        self.targets = {"cellmesh-node": self.admin}
        self.log = open(folder / "log", "w+")
        start = lambda *args: subprocess.Popen([program, *args], stdout=self.log, stderr=self.log)
        self.processes = [start("node", config, "--listen", f"127.0.0.1:{self.http}", "--admin", f"127.0.0.1:{self.admin}")]
        for service, socket in (("offers", "offers/dpa.sock"), ("hello", "hello/dpa.sock"), ("unruly", "dpa.sock")):
            socket, admin = folder / "run" / socket, free_port()
            self.targets[f"worker-{service}"] = admin
            self.processes.append(start("worker", config, "--service", service, "--socket", socket, "--admin", f"127.0.0.1:{admin}"))

    def wait(self):
        try:
            wait_for("the node", f"http://127.0.0.1:{self.admin}/readyz")
        except SystemExit:
            self.log.seek(0)
            print(self.log.read())
            raise

    def ask(self, service, path):
        return get(f"http://127.0.0.1:{self.http}{path}", {"x-cellmesh-service": service})

    def be_refused(self, service):
        """Asks for more than a body may have: some series begin with the first request that is refused."""
        with socket.create_connection(("127.0.0.1", self.http), timeout=10) as client:
            client.sendall(f"POST / HTTP/1.1\r\nhost: x\r\nx-cellmesh-service: {service}\r\ncontent-length: 1000000000000\r\n\r\n".encode())
            return client.recv(4096).decode()

    def end(self):
        for process in self.processes:
            process.kill()
            process.wait()


class Prometheus:
    def __init__(self, folder, targets):
        monitor = yaml.safe_load((MONITORING / "servicemonitor.yaml").read_text())
        rules = yaml.safe_load((MONITORING / "alerts.yaml").read_text())["spec"]
        (folder / "alerts.rules.yaml").write_text(yaml.safe_dump(rules))
        # The labels that the operator gives a target of this ServiceMonitor, and then its relabelings.
        labels = {"namespace": "cellmesh", "service": "cellmesh-metrics", "endpoint": "admin"}
        scrape = {
            "job_name": "cellmesh-metrics",
            "static_configs": [{"targets": [f"127.0.0.1:{port}"], "labels": labels | {"pod": pod}}
                               for pod, port in targets.items()],
            "relabel_configs": monitor["spec"]["endpoints"][0]["relabelings"],
        }
        config = {"global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
                  "rule_files": ["alerts.rules.yaml"], "scrape_configs": [scrape]}
        (folder / "prometheus.yaml").write_text(yaml.safe_dump(config))
        self.base = f"http://127.0.0.1:{free_port()}"
        self.process = subprocess.Popen(
            ["prometheus", f"--config.file={folder}/prometheus.yaml", f"--storage.tsdb.path={folder}/tsdb",
             f"--web.listen-address={self.base.removeprefix('http://')}", "--log.level=error"])
        wait_for("prometheus", f"{self.base}/-/ready")

    def query(self, expression):
        """Values of an instant query; an error is no list."""
        status, text = get(f"{self.base}/api/v1/query?" + urllib.parse.urlencode({"query": expression}))
        return json.loads(text)["data"]["result"] if status == 200 else text

    def rules(self):
        groups = json.loads(get(f"{self.base}/api/v1/rules")[1])["data"]["groups"]
        return [rule for group in groups for rule in group["rules"]]

    def end(self):
        self.process.kill()
        self.process.wait()


def dashboard_queries():
    dashboard = json.loads((MONITORING / "dashboard.json").read_text())
    for panel in dashboard["panels"]:
        for target in panel.get("targets", []):
            expression = target["expr"].replace("$__rate_interval", "10s")
            yield f"dashboard, {panel['title']}", re.sub(r"\$\w+", ".*", expression)
    for variable in dashboard["templating"]["list"]:
        if variable["type"] == "query":
            metric, label = re.fullmatch(r"label_values\((.*), (\w+)\)", variable["definition"]).groups()
            metric = re.sub(r"\$\w+", ".*", metric)
            yield f"dashboard, variable {variable['name']}", f"count by ({label}) ({metric})"


def alert_queries():
    rules = yaml.safe_load((MONITORING / "alerts.yaml").read_text())["spec"]["groups"][0]["rules"]
    for rule in rules:
        left = re.sub(r"\s*(==|>|<)\s*[\d.]+\s*$", "", rule["expr"])
        # What it misses is there.
        left = re.sub(r"^absent\((.*)\)$", r"\1", left)
        yield f"alert {rule['alert']}", left.replace("[5m]", "[10s]").replace("[10m]", "[10s]")


def check(node, prometheus):
    deadline = time.monotonic() + TRAFFIC_SECONDS
    asked = 0
    refused = node.be_refused("unruly")
    if " 413 " not in refused:
        sys.exit(f"a body that is too long: {refused}")
    while time.monotonic() < deadline:
        for service, path, right in (
            ("offers", "/?item=tea", 200), ("hello", "/", 200), ("unruly", "/do/trap", 500),
            ("unruly", "/order?url=http://hello/&prepared=ready", 201),
        ):
            status, body = node.ask(service, path)
            if status != right:
                sys.exit(f"{service}{path}: {status} {body}")
            asked += 1
        time.sleep(0.05)
    print(f"{asked} requests answered")
    bad, count = False, 0
    for pod, port in node.targets.items():
        scrape = get(f"http://127.0.0.1:{port}/metrics")[1]
        linted = subprocess.run(["promtool", "check", "metrics"], input=scrape, text=True, capture_output=True)
        bad = bad or linted.returncode != 0 or not scrape
        families = sum(line.startswith("# TYPE") for line in scrape.splitlines())
        print(f"{pod}: promtool check metrics: {linted.stdout}{linted.stderr or f'{families} families are fine'}")
    for name, expression in [*dashboard_queries(), *alert_queries()]:
        count += 1
        found = prometheus.query(expression)
        if not found or isinstance(found, str):
            bad = True
            print(f"{name}: no data: {expression}: {found}")
    for rule in prometheus.rules():
        is_expected = rule["state"] == "inactive" or rule["name"] in EXPECTED_ALERTS
        if rule["health"] != "ok" or not is_expected:
            bad = True
            print(f"alert {rule['name']}: {rule['health']}, {rule['state']}: {rule.get('lastError', '')}")
    print(f"{count} queries asked, {len(prometheus.rules())} rules evaluated")
    return bad


def main(program, cells):
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        running = []
        try:
            collector = Collector()
            running.append(collector)
            node = Node(program, pathlib.Path(cells).resolve(), folder, collector)
            running.append(node)
            node.wait()
            prometheus = Prometheus(folder, node.targets)
            running.append(prometheus)
            return check(node, prometheus)
        finally:
            for each in running:
                each.end()


if __name__ == "__main__":
    sys.exit(1 if main(*sys.argv[1:]) else 0)
