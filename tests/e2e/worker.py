"""Starts the real binary on a free port with the default model, for the end-to-end programs of this folder.

STATOR_E2E_URL (a server that already runs) and STATOR_BIN (another binary) are for work on the tests themselves.
"""
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import traceback

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
CACHE = os.environ.get("STATOR_CACHE") or os.path.join(
    os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "stator")
MODEL = os.environ.get("STATOR_MODEL_FILE") or os.path.join(CACHE, "models", "SmolLM2-135M-Instruct.Q4_1.gguf")
BINARY = os.environ.get("STATOR_BIN") or os.path.join(ROOT, "build", "release", "stator")
SKIP = 77


def skip(why):
    print("skipped:", why)
    sys.exit(SKIP)


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def metric_in(page, name, labels):
    """Sum of the samples of one metric that carry these labels, read by Prometheus' own parser."""
    from prometheus_client.parser import text_string_to_metric_families
    return sum(s.value for family in text_string_to_metric_families(page.decode()) for s in family.samples
               if s.name == name and all(s.labels.get(k) == v for k, v in labels.items()))


class Worker:
    """One server process. `with Worker("--max-queue", "1") as w:` ends with SIGTERM and checks that it exits 0."""

    def __init__(self, *flags):
        for path, what in ((BINARY, "the release binary"), (MODEL, "the default model")):
            if not os.path.exists(path):
                skip(f"{what} is not there: {path}")
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.started = time.monotonic()
        self.lines = []
        command = [BINARY, "--model", MODEL, "--port", str(self.port), "--threads", "2"]
        if "--context-length" not in flags:
            command += ["--context-length", "8192"]
        self.process = subprocess.Popen(command + list(flags), stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                                        errors="replace")
        for stream in (self.process.stderr, self.process.stdout):
            threading.Thread(target=self._collect, args=(stream,), daemon=True).start()
        self._wait_ready()

    def _collect(self, stream):
        for line in stream:
            self.lines.append(line)
            del self.lines[:-400]

    def _wait_ready(self):
        while time.monotonic() - self.started < 60:
            if self.process.poll() is not None:
                raise AssertionError(f"the worker ended with {self.process.returncode}:\n{self.log()}")
            try:
                if self.request("GET", "/v1/health/ready")[0] == 200:
                    self.ready_ms = 1000 * (time.monotonic() - self.started)
                    return
            except OSError:
                pass
            time.sleep(0.005)
        raise AssertionError("not ready within 60 s:\n" + self.log())

    def log(self):
        return "".join(self.lines)

    def request(self, method, path, body=None, headers=None, timeout=120):
        """(status, headers, body bytes) of one request on a fresh connection."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        try:
            if isinstance(body, (dict, list)):
                body = json.dumps(body)
            connection.request(method, path, body, {"Content-Type": "application/json", **(headers or {})})
            reply = connection.getresponse()
            return reply.status, reply.headers, reply.read()
        finally:
            connection.close()

    def metric(self, name, **labels):
        return metric_in(self.request("GET", "/metrics")[2], name, labels)

    def wait_idle(self, seconds=20):
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            if self.metric("stator_num_requests_running") + self.metric("stator_num_requests_waiting") == 0:
                return
            time.sleep(0.05)
        raise AssertionError("requests are still running:\n" + self.request("GET", "/metrics")[2].decode())

    def alive(self):
        assert self.process.poll() is None, f"the worker died with {self.process.returncode}:\n{self.log()}"
        assert self.request("GET", "/v1/health/live")[0] == 200

    def stop(self, seconds=60):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.process.wait(seconds)

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        try:
            code = self.stop()
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            code = "killed after 60 s"
        if kind is None:
            assert code == 0, f"the worker ended with {code}:\n{self.log()}"


def run_cases(module, *args):
    """Runs the case_* functions of a module in order; returns how many failed. Arguments that start the process pick cases."""
    picked = sys.argv[1:]
    cases = [(name, f) for name, f in vars(module).items() if name.startswith("case_")]
    failed = 0
    for name, f in cases:
        if picked and not any(re.search(p, name) for p in picked):
            continue
        at = time.monotonic()
        try:
            f(*args)
            print(f"ok      {name}  {time.monotonic() - at:.2f} s", flush=True)
        except Exception:  # a case reports and the next one runs
            failed += 1
            print(f"FAILED  {name}", flush=True)
            traceback.print_exc(file=sys.stdout)
    return failed


def finish(failed):
    print("all cases passed" if not failed else f"{failed} cases failed")
    sys.exit(1 if failed else 0)
