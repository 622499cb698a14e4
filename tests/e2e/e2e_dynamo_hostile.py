"""Hostile peers on every door that --dynamo opens, while a frontend streams: it does not notice, and nothing is left of them.

Afterwards, with another worker: etcd that speaks TLS and asks who we are.
"""
import base64
import json
import os
import random
import shutil
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import time
import types
import urllib.request

import plane
from dynamo import until
from plane import control_of, frame, message
from worker import Worker, finish, free_port, run_cases

SECONDS = 3  # of each case
PATIENCE_S = 2  # an answer takes 0.1 s by itself, and a frontend gives up when it has not heard of its request for 5
PROMPTS = [[1, 9690 + i, 198, 504 + i, 253] for i in range(4)]


class Stage:
    """One worker with a file store and a status server, a frontend that asks all the time, and what it should hear."""

    def __init__(self):
        self.store = tempfile.mkdtemp(prefix="stator-hostile-")
        self.status_port = free_port()
        self.worker = Worker("--dynamo", "--dyn-file-kv", self.store, "--dyn-system-port", str(self.status_port),
                             "--client-timeout", "2", "--log-level", "warn")
        self.generate = plane.Instance(self.store, "generate")
        self.recovery = plane.Instance(self.store, "worker_kv_query_source_")
        folder = os.path.join(self.store, "v1", "event_channels")
        record = json.load(open(os.path.join(folder, sorted(os.listdir(folder))[0])))
        self.events = record["transport"]["config"]["endpoint"][len("tcp://"):].rsplit(":", 1)
        self.frontend = plane.Frontend(self.generate)
        self.expected = [self.ask(i) for i in range(len(PROMPTS))]
        assert all(len(tokens) == 24 and how == "length" for tokens, how in self.expected), self.expected
        self.files, self.rss = self.open_files(), self.rss_mib()
        self.slowest_s = 0

    def ask(self, i):
        return self.frontend.ask({"token_ids": PROMPTS[i % len(PROMPTS)], "sampling_options": {"temperature": 0},
                                  "stop_conditions": {"max_tokens": 24, "ignore_eos": True}})

    def open_files(self):
        return len(os.listdir(f"/proc/{self.worker.process.pid}/fd"))

    def rss_mib(self):
        with open(f"/proc/{self.worker.process.pid}/status") as f:
            return next(int(line.split()[1]) for line in f if line.startswith("VmRSS")) / 1024

    def health(self):
        with urllib.request.urlopen(f"http://127.0.0.1:{self.status_port}/health", timeout=10) as reply:
            return reply.status

    def ask_again(self, i):
        """The same answer as undisturbed, in about the same time."""
        began = time.monotonic()
        assert self.ask(i) == self.expected[i % len(PROMPTS)], "an answer has changed"
        took = time.monotonic() - began
        self.slowest_s = max(self.slowest_s, took)
        assert took < PATIENCE_S, f"an answer took {took:.1f} s"

    def while_asked(self, *attacks):
        """Runs attack(end) in threads of its own; meanwhile each answer must be what it was undisturbed, and come in time."""
        end = time.monotonic() + SECONDS
        failures = []

        def run(attack):
            try:
                attack(end)
            except OSError:
                pass  # it is expected to be cut off
            except Exception as e:  # told by the case
                failures.append(e)
        threads = [threading.Thread(target=run, args=(a,)) for a in attacks]
        for t in threads:
            t.start()
        asked = 0
        while time.monotonic() < end or asked < len(PROMPTS):
            self.ask_again(asked)
            asked += 1
            if asked % 4 == 0:
                assert self.health() == 200
        for t in threads:
            t.join(30)
            assert not t.is_alive(), "an attack does not end"
        assert not failures, failures
        self.worker.alive()

    def settle(self):
        """All that was opened for hostile peers is closed again, and what was kept for them is given back."""
        until("no more descriptors than before", 40, lambda: self.open_files() <= self.files)
        assert self.rss_mib() < self.rss + 64, (self.rss_mib(), self.rss)
        self.worker.wait_idle()

    def close(self):
        self.frontend.close()
        code = self.worker.stop()
        shutil.rmtree(self.store, ignore_errors=True)
        assert code == 0, code


def crowd(connect, count, first_words=b""):
    """Many connections that say this and no more; they stay until the end of the case."""
    def attack(end):
        held = []
        for _ in range(count):
            try:
                s = connect()
                held.append(s)
                s.sendall(first_words)
            except OSError:
                pass
        time.sleep(max(0, end - time.monotonic()))
        for s in held:
            s.close()
    return attack


def flood(connect, data):
    """The same bytes over and over, with nobody who reads what comes back."""
    def attack(end):
        while time.monotonic() < end:
            s = connect()
            s.settimeout(0.2)
            try:
                while time.monotonic() < end:
                    s.sendall(data)
            except OSError:
                time.sleep(0.02)
            finally:
                s.close()
    return attack


def case_connections_that_say_nothing_or_half(d):
    d.while_asked(crowd(d.generate.connect, 1500), crowd(d.generate.connect, 300, b"\0\5abc"),
                  crowd(d.generate.connect, 8, b"\0\1x\0\0\1\xff\0\0" + b"x" * 500000))


def case_bytes_that_drip(d):
    def drip(end):
        data, held = frame(d.generate.path, control_of("127.0.0.1:1", "drip"), b"{}"), [d.generate.connect() for _ in range(50)]
        for i in range(len(data)):
            for s in held:
                s.sendall(data[i:i + 1])
            if time.monotonic() > end:
                break
            time.sleep(0.02)
        for s in held:
            s.close()
    d.while_asked(drip)


def case_lengths_that_lie_and_garbage(d):
    noise = random.Random(7)

    def lie(end):
        while time.monotonic() < end:
            s = d.generate.connect()
            s.sendall(noise.choice([b"GET / HTTP/1.1\r\n\r\n", b"\xff" * 64, b"\0\1x\0\0\xff\xff\xff\xff", noise.randbytes(200)]))
            s.close()
            time.sleep(0.002)
    d.while_asked(lie, lie)


def case_floods_of_refused_requests(d):
    refused = frame(b"no/such/path", {}, b"") * 2000
    broken = frame(d.generate.path, {"id": 5}, b"") * 2000
    overloaded = frame(d.generate.path, control_of("127.0.0.1:1", "s"), b"{}") * 500
    d.while_asked(flood(d.generate.connect, refused), flood(d.generate.connect, broken), flood(d.generate.connect, overloaded))


def case_bodies_that_are_large_or_deep(d):
    bodies = [("json", b'{"token_ids":' + b"[" * 3_000_000), ("json", b'{"x":[' + b"1.5," * 1_900_000 + b"0]}"),
              ("json", b'{"x":[' + b"1," * 5_000_000 + b"0]}"), ("msgpack", b"\x81\xa1x\xdd\x00\x7f\xff\xff" + b"\xc0" * 0x7fffff),
              ("msgpack", b"\xdf\xff\xff\xff\xff"), ("msgpack", b"\x91" * 3_000_000)]
    frames = [frame(d.generate.path, control_of("127.0.0.1:1", "s", codec), body) for codec, body in bodies]

    def send(end):
        for data in frames:
            if time.monotonic() < end:
                with d.generate.connect() as s:
                    s.sendall(data)
                    assert plane.read_ack(s) == ""
                time.sleep(0.1)
    d.while_asked(send)


def case_forms_that_are_dear(d):
    """Schemas that are long, and cost more than their length: names to look up, definitions to pass over."""
    names = {"properties": {f"p{i}": {"type": "null"} for i in range(1000)}, "required": ["p999"] * 100_000}
    references = {"$defs": {f"d{i}": {} for i in range(30_000)}, "prefixItems": [{"$ref": "#/$defs/d29999"}] * 8_000}
    many = {"choice": [f"{i:0200}" for i in range(4096)]}

    def flood_of(form):
        body = {"token_ids": [1], "sampling_options": {"guided_decoding": form}}
        data = frame(d.generate.path, control_of("127.0.0.1:1", "s"), json.dumps(body).encode())
        assert len(data) < 1 << 20
        return flood(d.generate.connect, data)
    d.while_asked(*(flood_of(form) for form in ({"json": names}, {"json": references}, many, {"json": names})))


def case_answers_that_nobody_takes(d):
    """The answer's address: a port where nobody is, one that never answers, the worker's own doors, one that is silent or lies."""
    silent = socket.create_server(("127.0.0.1", 0), backlog=1)
    taken = []
    for _ in range(2):  # its queue is full
        s = socket.socket()
        s.setblocking(False)
        s.connect_ex(silent.getsockname())
        taken.append(s)
    home = socket.create_server(("127.0.0.1", 0), backlog=512)
    home.settimeout(0.2)
    ports = [1, silent.getsockname()[1], d.generate.port, d.worker.port, d.status_port, home.getsockname()[1]]

    def ask(end):
        with d.generate.connect() as s:
            i = 0
            while time.monotonic() < end:
                i += 1
                s.sendall(frame(d.generate.path, control_of(f"127.0.0.1:{ports[i % len(ports)]}", "same id"), b"{}"))
                assert plane.read_ack(s) == ""
                time.sleep(0.002)

    def take(end):
        words = [b"HTTP/1.1 200 OK\r\n\r\n", message(b"{}") * 100, message(b'"stop"') * 3, b"\0" * 23, b""]
        held = []
        while time.monotonic() < end:
            try:
                s, _ = home.accept()
                s.sendall(words[len(held) % len(words)])
                held.append(s)
            except OSError:
                pass
        for s in held:
            s.close()
    d.while_asked(ask, take)
    for s in taken + [home, silent]:
        s.close()


def case_requests_that_are_killed(d):
    """At once, after a while, by word and by reset, four at a time: the engine's places come back."""
    request = {"token_ids": [1, 2, 3], "stop_conditions": {"max_tokens": 4000, "ignore_eos": True}}
    home = socket.create_server(("127.0.0.1", 0), backlog=64)
    home.settimeout(5)
    address = "127.0.0.1:%d" % home.getsockname()[1]

    def kill(end):
        i = 0
        with d.generate.connect() as s:
            while time.monotonic() < end:
                s.sendall(frame(d.generate.path, control_of(address, "k"), json.dumps(request).encode()) * 4)
                for _ in range(4):
                    if plane.read_ack(s):
                        continue
                    answer, _ = home.accept()
                    i += 1
                    if i % 4 == 0:
                        answer.sendall(message(b'"kill"'))
                    if i % 4 == 1:
                        answer.recv(100)
                        answer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
                    answer.close()
    d.while_asked(kill)
    home.close()


def case_questions_for_the_tree(d):
    """Of any range, many at once, and nobody reads the answers."""
    home = socket.create_server(("127.0.0.1", 0), backlog=512)
    address = "127.0.0.1:%d" % home.getsockname()[1]
    ranges = [(None, None), (0, 0), (1, 2**64 - 1), (2**64 - 1, 0), (2**64 - 1, 2**64 - 1), (-1, 5), ("x", [])]
    asked = b"".join(frame(d.recovery.path, control_of(address, "q"), json.dumps({"start_event_id": a, "end_event_id": b}).encode())
                     for a, b in ranges)
    d.while_asked(flood(d.recovery.connect, asked * 20))
    home.close()


def case_the_status_server(d):
    def connect():
        return socket.create_connection(("127.0.0.1", d.status_port), timeout=5)
    d.while_asked(crowd(connect, 300, b"GET /hea"), flood(connect, b"GET /" + b"a" * 60000),
                  flood(connect, b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n" * 50))


def case_the_event_socket(d):
    """Greetings that are none, and a subscriber's handshake that is followed by a subscription to everything there is."""
    def connect():
        return socket.create_connection((d.events[0], int(d.events[1])), timeout=5)
    greeting = b"\xff" + b"\0" * 8 + b"\x7f\x03\0NULL" + b"\0" * 16 + b"\0" + b"\0" * 31
    ready = b"\x04\x19\x05READY\x0bSocket-Type\0\0\0\x03SUB"
    d.while_asked(crowd(connect, 100, b"HTTP/1.1\r\n\r\n"), crowd(connect, 50, greeting + ready + b"\0\x01\x01"),
                  flood(connect, greeting + ready + b"\x02" + (1 << 40).to_bytes(8, "big") + b"\1" + b"a" * 60000))


def case_the_file_store(d):
    """Somebody with a hand in the folder: what is ours comes back as it was."""
    folder = os.path.join(d.store, "v1", "instances")
    before = {name: open(os.path.join(folder, name)).read() for name in os.listdir(folder)}

    def spoil(end):
        for i, name in enumerate(sorted(before)):
            path = os.path.join(folder, name)
            os.unlink(path)
            if i == 0:
                os.symlink("/etc/hostname", path)
        time.sleep(max(0, end - time.monotonic()))
    d.while_asked(spoil)
    until("the records as they were", 10,
          lambda: before == {name: open(os.path.join(folder, name)).read() for name in os.listdir(folder) if not name.startswith(".tmp_")})


def case_nothing_is_left_of_them(d):
    d.settle()
    for i in range(2 * len(PROMPTS)):
        d.ask_again(i)


# ---- etcd that asks who we are --------------------------------------------------------------------------------------------------

def make_certificates(folder):
    """A throw-away authority, and one certificate by it for each side."""
    def openssl(*arguments):
        subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)
    openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2", "-subj", "/CN=authority",
            "-keyout", "ca.key", "-out", "ca.pem")
    for name, usage in (("server", "serverAuth,clientAuth"), ("client", "clientAuth")):
        with open(os.path.join(folder, name + ".ext"), "w") as f:
            f.write(f"subjectAltName=IP:127.0.0.1\nextendedKeyUsage={usage}\n")
        openssl("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-subj", "/CN=" + name, "-keyout", name + ".key",
                "-out", name + ".csr")
        openssl("x509", "-req", "-in", name + ".csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-days", "2", "-extfile",
                name + ".ext", "-out", name + ".pem")


class SecretEtcd:
    def __init__(self):
        self.folder = tempfile.mkdtemp(prefix="stator-etcd-tls-")
        make_certificates(self.folder)
        self.url, peer = (f"https://127.0.0.1:{free_port()}" for _ in range(2))
        peer = peer.replace("https", "http")
        self.process = subprocess.Popen(
            ["etcd", "--data-dir", self.path("data"), "--listen-client-urls", self.url, "--advertise-client-urls", self.url,
             "--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer, "--initial-cluster", "default=" + peer, "--unsafe-no-fsync",
             "--client-cert-auth", "--trusted-ca-file", self.path("ca.pem"), "--cert-file", self.path("server.pem"), "--key-file",
             self.path("server.key")], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.context = ssl.create_default_context(cafile=self.path("ca.pem"))
        self.context.load_cert_chain(self.path("client.pem"), self.path("client.key"))
        until("etcd", 20, lambda: self.instances() == [])

    def path(self, name):
        return os.path.join(self.folder, name)

    def instances(self):
        prefix, after = (base64.b64encode(x).decode() for x in (b"v1/instances/", b"v1/instances0"))
        asked = urllib.request.Request(self.url + "/v3/kv/range", json.dumps({"key": prefix, "range_end": after}).encode())
        with urllib.request.urlopen(asked, timeout=5, context=self.context) as reply:
            return json.load(reply).get("kvs", [])

    def close(self):
        self.process.kill()
        self.process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)


def start_with(etcd, variables):
    os.environ.update(variables)
    try:
        return Worker("--dynamo", "--dyn-discovery-backend", "etcd", "--etcd-endpoints", etcd.url)
    finally:
        for name in variables:
            del os.environ[name]


def check_welcome(etcd, variables):
    """Found while it runs, and gone when it has ended."""
    with start_with(etcd, variables):
        until("both endpoints in etcd", 10, lambda: len(etcd.instances()) == 2)
    assert not etcd.instances()


def check_refused(worker):
    """It ends by itself and says what etcd, or the handshake with it, was about."""
    assert worker.process.wait(30) != 0
    until("its last words", 5, lambda: "stator: discovery (etcd): " in worker.log())
    assert "certificate" in worker.log().splitlines()[-1], worker.log()


def tls_cases(etcd):
    """By files, and by text in Dynamo's variables; without our certificate, or by another authority, no worker starts."""
    files = {"ETCD_AUTH_CA": etcd.path("ca.pem"), "ETCD_AUTH_CLIENT_CERT": etcd.path("client.pem"),
             "ETCD_AUTH_CLIENT_KEY": etcd.path("client.key")}
    refused = {"tls_no_certificate_of_ours": {"ETCD_AUTH_CA": files["ETCD_AUTH_CA"]},
               "tls_another_authority": {**files, "ETCD_AUTH_CA": etcd.path("client.pem")}}
    refused = {name: start_with(etcd, variables) for name, variables in refused.items()}  # both take 10 s, at once
    cases = {"case_tls_files": lambda: check_welcome(etcd, files),
             "case_tls_text": lambda: check_welcome(etcd, {name: open(path).read() for name, path in files.items()})}
    for name, worker in refused.items():
        cases["case_" + name] = lambda w=worker: check_refused(w)
    return run_cases(types.SimpleNamespace(**cases))


def main():
    stage = Stage()
    try:
        failed = run_cases(sys.modules[__name__], stage)
        print(f"descriptors {stage.open_files()} ({stage.files} before), resident {stage.rss_mib():.0f} MiB ({stage.rss:.0f} before), "
              f"{stage.frontend.asked} requests answered, the slowest in {stage.slowest_s:.2f} s")
    finally:
        stage.close()
    if shutil.which("etcd") and shutil.which("openssl"):
        etcd = SecretEtcd()
        try:
            failed += tls_cases(etcd)
        finally:
            etcd.close()
    else:
        print("without etcd: etcd-server or openssl is not installed")
    finish(failed)


if __name__ == "__main__":
    main()
