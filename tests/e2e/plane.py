"""A frontend of the request plane made of sockets: frames go to the worker, and answers come home to a listening socket."""
import glob
import json
import os
import queue
import socket
import struct
import threading
import time


def frame(path, control, body):
    control = json.dumps(control).encode()
    payload = struct.pack(">QQQ", len(control), len(body), 0) + control + body
    return struct.pack(">H", len(path)) + path + struct.pack(">H", 2) + b"{}" + struct.pack(">I", len(payload)) + payload


def control_of(address, subject, codec="json"):
    info = {"address": address, "subject": subject, "context": subject, "stream_type": "response"}
    return {"id": subject, "payload_codec": codec, "connection_info": {"transport": "tcp_server", "info": json.dumps(info)}}


def message(text):
    """What a frontend may say on a response stream."""
    return struct.pack(">QQQ", len(text), 0, 0) + text


def read(s, n):
    got = b""
    while len(got) < n:
        part = s.recv(n - len(got))
        if not part:
            raise ConnectionError(f"closed after {len(got)} of {n} bytes")
        got += part
    return got


def read_ack(s):
    return read(s, struct.unpack(">I", read(s, 4))[0]).decode()


def read_message(s):
    head, data, _ = struct.unpack(">QQQ", read(s, 24))
    return json.loads(read(s, head + data))


def record(store, bucket, part):
    """The one whose key holds this, in a file store; records come a moment after the worker is ready."""
    part, end = part.replace("/", "%2F").replace("-", "%2D").replace("_", "%5F"), time.monotonic() + 20
    while True:
        paths = [p for p in glob.glob(os.path.join(store, "v1", bucket, "*")) if part in os.path.basename(p)]
        if paths or time.monotonic() > end:
            break
        time.sleep(0.02)
    assert len(paths) == 1, (bucket, part, paths)
    with open(paths[0]) as f:
        return json.load(f)


class Instance:
    """A worker as the file store shows it: (host, port) and path of one of its endpoints."""

    def __init__(self, store, endpoint):
        where, _, path = record(store, "instances", "/" + endpoint)["transport"]["tcp"].partition("/")
        self.host, self.port = where.rsplit(":", 1)
        self.port, self.path = int(self.port), path.encode()

    def connect(self, timeout=30):
        return socket.create_connection((self.host, self.port), timeout=timeout)


class Call:
    """One request with connections of its own. Iterating gives its items, until the final one."""

    def __init__(self, instance, request):
        with socket.create_server(("127.0.0.1", 0)) as home:
            home.settimeout(60)
            self.request = instance.connect(60)
            self.request.sendall(frame(instance.path, control_of("127.0.0.1:%d" % home.getsockname()[1], "call"),
                                       json.dumps(request).encode()))
            refusal = read_ack(self.request)
            assert refusal == "", refusal
            self.response = home.accept()[0]
        assert read_message(self.response)["subject"] == "call"
        assert read_message(self.response) == {"error": None}

    def __iter__(self):
        while True:
            item = read_message(self.response)
            if item == {"complete_final": True}:
                assert read_message(self.response) == "sentinel"
                return
            yield item["data"]

    def say(self, word):
        """kill or stop"""
        self.response.sendall(message(json.dumps(word).encode()))

    def close(self):
        self.response.close()
        self.request.close()


class Frontend:
    """One connection to the worker, and the place that answers come home to."""

    def __init__(self, instance):
        self.instance, self.asked = instance, 0
        self.home = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.address = "127.0.0.1:%d" % self.home.getsockname()[1]
        self.plane = instance.connect()
        self.streams, self.waiting = {}, threading.Lock()
        threading.Thread(target=self._come_home, daemon=True).start()

    def _come_home(self):
        while True:
            try:
                s, _ = self.home.accept()
            except OSError:
                return
            s.settimeout(60)
            self.streams[read_message(s)["subject"]].put(s)

    def ask(self, request):
        """The token ids of a request's answer, one after the other, and its finish reason."""
        with self.waiting:
            self.asked += 1
            subject = f"good-{self.asked}"
            self.streams[subject] = queue.Queue()
            self.plane.sendall(frame(self.instance.path, control_of(self.address, subject), json.dumps(request).encode()))
            refusal = read_ack(self.plane)
        assert refusal == "", refusal
        with self.streams[subject].get(timeout=60) as s:
            assert read_message(s) == {"error": None}
            tokens, finish = [], None
            while True:
                item = read_message(s)
                if item == {"complete_final": True}:
                    assert read_message(s) == "sentinel"
                    return tokens, finish
                data = item["data"]["data"]
                tokens += data["token_ids"]
                finish = data.get("finish_reason", finish)

    def close(self):
        self.plane.close()
        self.home.close()
