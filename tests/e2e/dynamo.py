"""NVIDIA Dynamo's own frontend on loopback, with workers of ours behind it, for the end-to-end programs of this folder.

The frontend comes from PyPI, pinned, into an environment of its own in the cache; where that cannot be had the tests skip.
"""
import http.client
import json
import os
import shutil
import subprocess
import tempfile
import threading
import time

import environment
from worker import Worker, free_port, metric_in

WHEELS = ["--no-deps", "ai-dynamo==1.6.1", "ai-dynamo-runtime==1.6.1"]  # one package that they name cannot be installed
NEEDS = ["aiohttp>=3.14.3,<4", "certifi", "kubernetes>=32.0.1,<33", "msgspec>=0.19", "prometheus-client>=0.23.1,<1", "pyzmq>=26",
         "redis>=6.2,<9", "tqdm", "transformers>=4.56", "zstandard>=0.23,<1", "pydantic>=2.10.6,<=2.13.5", "uvloop>=0.21", "msgpack",
         "xxhash", "blake3", "tokenizers"]


def python():
    return environment.python("dynamo", WHEELS, NEEDS)


def until(what, seconds, check):
    """The first true value of check(), which may raise OSError meanwhile."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            value = check()
            if value:
                return value
        except OSError:
            pass
        time.sleep(0.02)
    raise AssertionError(f"not within {seconds} s: {what}")


class Etcd:
    """One server on loopback with an empty store."""

    def __enter__(self):
        self.folder = tempfile.mkdtemp(prefix="stator-etcd-")
        self.url, peer = (f"http://127.0.0.1:{free_port()}" for _ in range(2))
        self.process = subprocess.Popen(["etcd", "--data-dir", self.folder, "--listen-client-urls", self.url, "--advertise-client-urls",
                                         self.url, "--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer,
                                         "--initial-cluster", "default=" + peer], stdout=subprocess.DEVNULL,
                                        stderr=subprocess.DEVNULL)

        def healthy():
            connection = http.client.HTTPConnection(self.url[7:], timeout=2)
            connection.request("GET", "/health")
            return connection.getresponse().status == 200
        until("etcd's /health", 20, healthy)
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)


class Deployment:
    """A store, a frontend in KV mode and so many workers. `etcd`, `store`: the address, the folder of one that is there already."""

    def __init__(self, workers=2, etcd=None, store=None, worker_flags=(), frontend_flags=("--migration-limit", "3")):
        self.folder = tempfile.mkdtemp(prefix="stator-dynamo-")
        self.env = {"DYN_REQUEST_PLANE": "tcp", "DYN_EVENT_PLANE": "zmq", "DYN_TCP_RPC_HOST": "127.0.0.1",
                    "DYN_TCP_RESPONSE_STREAM_HOST": "127.0.0.1", "DYN_EVENT_PLANE_HOST": "127.0.0.1", "HF_HUB_OFFLINE": "1",
                    "TRANSFORMERS_OFFLINE": "1", "HOME": self.folder}
        if etcd:
            self.store = ["--dyn-discovery-backend", "etcd", "--etcd-endpoints", etcd]
            self.env.update(DYN_DISCOVERY_BACKEND="etcd", ETCD_ENDPOINTS=etcd)
        else:
            store = store or os.path.join(self.folder, "store")
            self.store = ["--dyn-file-kv", store]
            self.env.update(DYN_DISCOVERY_BACKEND="file", DYN_FILE_KV=store)
        self.frontend_flags, self.worker_flags = list(frontend_flags), list(worker_flags)
        self.port, self.frontend, self.workers = free_port(), None, []
        try:
            self.start_frontend()
            for _ in range(workers):
                self.add_worker()
            self.model = until("a model in /v1/models", 20, lambda: self.models() and self.models()[0])
            until("all workers answer", 20, lambda: len(self.seen_workers()) >= workers)
        except BaseException as e:
            self.__exit__(type(e))
            raise

    def start_frontend(self):
        self.log = open(os.path.join(self.folder, "frontend.log"), "a")
        self.frontend = subprocess.Popen([python(), "-m", "dynamo.frontend", "--http-host", "127.0.0.1", "--http-port", str(self.port),
                                          "--router-mode", "kv", *self.frontend_flags], stdout=self.log, stderr=self.log,
                                         env={**os.environ, **self.env})
        until("the frontend's /health", 30, lambda: self.get("/health")[0] == 200)

    def kill_frontend(self):
        self.frontend.kill()
        self.frontend.wait()

    def add_worker(self):
        self.workers.append(Worker("--dynamo", *self.store, *self.worker_flags))
        return self.workers[-1]

    def get(self, path):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.request("GET", path)
            reply = connection.getresponse()
            return reply.status, reply.read()
        finally:
            connection.close()

    def metric(self, name, **labels):
        """Of the frontend."""
        return metric_in(self.get("/metrics")[1], name, labels)

    def models(self):
        return [m["id"] for m in json.loads(self.get("/v1/models")[1])["data"]]

    def seen_workers(self):
        """Ids of those that answer: several requests at once, as the router takes the idler one."""
        def ask(i):
            status, reply = self.post("/v1/completions", prompt=f"{i} {time.monotonic()} " + "and so on " * 20, max_tokens=8,
                                      nvext={"extra_fields": ["worker_id"]})
            return worker_of(reply) if status == 200 else None
        return set(in_threads(8, ask)) - {None}

    def send(self, path, headers=None, **body):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=120)
        connection.request("POST", path, json.dumps({"model": self.model, **body}), {"Content-Type": "application/json", **(headers or {})})
        return connection

    def open(self, path, **body):
        connection = self.send(path, **body)
        return connection, connection.getresponse()

    def post(self, path, **body):
        connection, reply = self.open(path, **body)
        try:
            text = reply.read()
            return reply.status, json.loads(text)
        finally:
            connection.close()

    def stream(self, path, **body):
        """All events of a stream."""
        connection, reply = self.open(path, stream=True, **body)
        try:
            assert reply.status == 200, (reply.status, reply.read())
            return events_of(reply)
        finally:
            connection.close()

    def close(self):
        for w in self.workers:
            w.stop()
        self.frontend.terminate()
        try:
            self.frontend.wait(10)
        except subprocess.TimeoutExpired:
            self.frontend.kill()
        self.log.close()

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        self.close()
        if kind:
            print(open(os.path.join(self.folder, "frontend.log")).read()[-4000:])
            for w in self.workers:
                print(w.log()[-2000:])
        shutil.rmtree(self.folder, ignore_errors=True)


def events_of(lines):
    data = [line[5:].strip() for line in lines if line.startswith(b"data:")]
    assert data[-1] == b"[DONE]", data[-1]
    return [json.loads(d) for d in data[:-1]]


def worker_of(reply):
    return reply["nvext"]["worker_id"]["decode_worker_id"]


def in_threads(n, work):
    """work(i) in n threads; the results, or the first exception."""
    results, errors = [None] * n, []

    def run(i):
        try:
            results[i] = work(i)
        except Exception as e:  # told by the caller's thread
            errors.append(e)
    threads = [threading.Thread(target=run, args=(i,)) for i in range(n)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    if errors:
        raise errors[0]
    return results
