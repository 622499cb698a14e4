#!/usr/bin/env python3
"""What a worker shows to the parts of a Dynamo deployment beside its answers: its status server, its load, its files; and how soon
it lets go of a request. No frontend is needed for most of it: plane.py plays one."""
import contextlib
import json
import os
import signal
import struct
import sys
import tempfile
import urllib.request

import dynamo
import environment
from dynamo import until
from plane import Call, Instance, record
from worker import Worker, finish, free_port, metric_in, run_cases

try:
    import blake3
    import msgpack
    import zmq
except ImportError:
    pass  # main() starts this file again where they are

LABELS = {"dynamo_namespace": "dynamo", "dynamo_component": "backend", "dynamo_endpoint": "generate"}


class Joined(Worker):
    """A worker with a file store and a status server."""

    def __init__(self, folder, *flags):
        self.store, self.status_port = os.path.join(folder, "store"), free_port()
        super().__init__("--dynamo", "--dyn-file-kv", self.store, "--dyn-system-port", str(self.status_port), *flags)
        until("its records", 20, lambda: self.status("/health")[0] == 200)

    def status(self, path):
        """(code, body) of the status server."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.status_port}{path}", timeout=20) as reply:
                return reply.status, reply.read()
        except urllib.error.HTTPError as e:
            return e.code, e.read()

    def health(self, path="/health"):
        code, body = self.status(path)
        return code, json.loads(body)

    def component(self, name, **labels):
        return metric_in(self.status("/metrics")[1], "dynamo_component_" + name, {**LABELS, "worker_id": self.instance(), **labels})

    def call(self, tokens, max_tokens, **more):
        return Call(Instance(self.store, "generate"), {"token_ids": tokens, "sampling_options": {"temperature": 0},
                                                       "stop_conditions": {"max_tokens": max_tokens, "ignore_eos": True}, **more})

    def instance(self):
        return format(record(self.store, "instances", "/generate/")["instance_id"], "x")


def tokens_of(items):
    return sum(len(item["data"]["token_ids"]) for item in items)


def case_metadata_and_metrics_tell_of_the_plane(w):
    metadata = json.loads(w.status("/metadata")[1])
    assert f"{metadata['instance_id']:x}" == w.instance() and metadata["namespace"] == "dynamo", metadata
    assert metadata["model"] == record(w.store, "mdc", "")["card_json"]["display_name"], metadata
    for tokens in ([504, 3575], [504, 3575, 282]):
        call = w.call(tokens, 4)
        assert tokens_of(call) == 4
        call.close()
    call = w.call([504], 4, stop_conditions="wrong")
    assert next(iter(call))["event"] == "error", "a body of the wrong shape"
    call.close()
    call = w.call([504], 4000)
    assert next(iter(call)) and w.component("inflight_requests") == 1
    call.say("kill")
    until("it is over", 10, lambda: w.component("inflight_requests") == 0)
    call.close()
    assert w.component("requests_total") == 4 and w.component("cancellation_total") == 1
    assert w.component("errors_total") == w.component("errors_total", error_type="invalid_message") == 1
    assert w.component("request_duration_seconds_count") >= 3 and w.component("uptime_seconds") > 0
    assert min(w.component(f"{way}_bytes_total") for way in ("request", "response")) >= 300
    blocks = record(w.store, "mdc", "")["card_json"]["runtime_config"]["total_kv_blocks"]
    assert w.component("total_blocks") == blocks and 0 <= w.component("gpu_cache_usage_percent") <= 1
    assert w.component("model_load_time_seconds") > 0


def case_health_says_whether_the_worker_can_be_found(w):
    code, body = w.health()
    assert code == 200 and body["status"] == "ready" and body["endpoints"] == {"generate": "ready"}, body
    assert body["uptime"]["secs"] >= 0 and 0 <= body["uptime"]["nanos"] < 10**9, body
    before = record(w.store, "instances", "/generate/")
    os.rename(w.store, w.store + "-away")
    with open(w.store, "w"):  # in its place: nothing can be written there
        until("it is seen to be lost", 20, lambda: w.health()[0] == 503)
    code, body = w.health()
    assert body["status"] == "notready" and body["endpoints"] == {"generate": "notready"}, body
    assert w.health("/live")[0] == 200, "the process itself is well"
    os.remove(w.store)
    until("it is back", 20, lambda: w.health()[0] == 200)
    assert record(w.store, "instances", "/generate/") == before
    assert w.status("/nothing")[0] == 404


def case_a_killed_request_draws_nothing_that_is_not_sent(w):
    """What is sent while the word is on its way depends on who reads when; what is drawn beyond that is the step under way."""
    for word in ("kill", "stop"):
        before = w.metric("stator_generation_tokens_total")
        call = w.call([504, 3575, 282], 4000)
        items = iter(call)
        sent = tokens_of(next(items) for _ in range(20))
        call.say(word)
        with contextlib.suppress(ConnectionError):
            for item in items:
                sent += tokens_of([item])
        call.close()
        w.wait_idle()
        drawn = w.metric("stator_generation_tokens_total") - before
        assert sent <= drawn <= sent + 2 and drawn < 1000, (word, sent, drawn)


def case_a_request_that_nobody_waits_for_ends_within_a_step(w):
    """Counted in steps of a prompt that needs many: the one under way, and one that begins while the word is read."""
    def steps(leave):
        before = w.metric("stator_engine_steps_total")
        call = w.call([1000 + (i * 7919 + int(before)) % 40000 for i in range(1600)], 1)
        leave(call)
        call.close()
        w.wait_idle()
        return w.metric("stator_engine_steps_total") - before

    assert steps(list) >= 12
    for word in ("kill", "stop"):
        assert steps(lambda call, word=word: call.say(word)) <= 4, word
    assert steps(Call.close) <= 4


class Ear:
    """Hears one topic of a worker's event socket."""

    def __init__(self, w, topic):
        self.channel = record(w.store, "event_channels", topic)
        self.topic, self.sequence = topic.encode(), None
        self.socket = zmq.Context.instance().socket(zmq.SUB)
        self.socket.setsockopt(zmq.SUBSCRIBE, self.topic)
        self.socket.connect(self.channel["transport"]["config"]["endpoint"])

    def next(self):
        assert self.socket.poll(20000), "nothing is said"
        topic, publisher, sequence, envelope = self.socket.recv_multipart()
        assert topic == self.topic and struct.unpack(">Q", publisher)[0] == self.channel["instance_id"]
        assert envelope[0] == 1 and struct.unpack(">I", envelope[1:5])[0] == len(envelope) - 5
        outer = msgpack.unpackb(envelope[5:])
        assert outer["topic"] == topic.decode() and outer["sequence"] == struct.unpack(">Q", sequence)[0]
        assert self.sequence is None or outer["sequence"] == self.sequence + 1, "a message is missing"
        self.sequence = outer["sequence"]
        return msgpack.unpackb(outer["payload"])


def case_the_load_is_told_on_change_and_each_second(w):
    ear = Ear(w, "kv_metrics")
    instance = int(w.instance(), 16)
    idle = {"worker_id": instance, "dp_rank": 0, "active_decode_blocks": None, "active_prefill_tokens": None, "kv_used_blocks": 0}
    while ear.next() != idle:  # what the cases before left
        pass
    heard = [ear.next() for _ in range(2)]
    assert heard == [idle] * 2, heard  # it repeats without a change
    call = w.call(list(range(1000, 1100)), 4000)
    items = iter(call)
    next(items)
    used = 0
    while used < 9:  # 100 tokens are 7 blocks; with what is drawn they grow
        used = ear.next()["kv_used_blocks"]
    call.close()
    while used:  # what is cached counts as free
        used = ear.next()["kv_used_blocks"]
    assert ear.next() == idle


def case_files_are_fetched_where_no_disk_is_shared(w):
    card = record(w.store, "mdc", "")["card_json"]
    files = [card["model_info"]["hf_config_json"], card["tokenizer"]["hf_tokenizer_json"], card["gen_config"]["hf_generation_config_json"],
             card["prompt_formatter"]["hf_tokenizer_config_json"]]
    for f in files:
        assert f["path"].startswith(f"http://127.0.0.1:{w.status_port}/"), f
        with urllib.request.urlopen(f["path"]) as reply:
            body = reply.read()
        assert len(body) == f["size"] and "blake3:" + blake3.blake3(body).hexdigest() == f["checksum"], f
    for path in ("/v1/stator/model/", "/v1/stator/model/../config.json", "/v1/stator/model/%2e%2e/%2e%2e/etc/passwd"):
        assert w.status(path)[0] == 404, path
    body = {"messages": [{"role": "user", "content": "What is gravity?"}], "temperature": 0, "max_tokens": 8}
    own = json.loads(w.request("POST", "/v1/chat/completions", body)[2])["choices"][0]["message"]["content"]
    for _ in range(2):  # two frontends, each with a home of its own
        with dynamo.Deployment(workers=0, store=w.store) as d:
            status, reply = d.post("/v1/chat/completions", **body)
            assert status == 200 and reply["choices"][0]["message"]["content"] == own, reply


def case_a_worker_that_goes_says_so_and_finishes(w):
    call = w.call([504, 3575, 282], 60)
    items = iter(call)
    next(items)
    w.process.send_signal(signal.SIGTERM)
    until("it is out", 10, lambda: w.health()[0] == 503)
    until("its records are gone", 10, lambda: not os.listdir(os.path.join(w.store, "v1", "instances")))
    last = list(items)[-1]["data"]
    assert last["finish_reason"] == "length" and last["completion_usage"]["completion_tokens"] == 60, last
    call.close()
    assert w.process.wait(30) == 0


def main():
    environment.again_in(dynamo.python())
    with tempfile.TemporaryDirectory() as folder, Joined(folder, "--dynamo-serve-files", "--max-num-batched-tokens", "128") as w:
        failed = run_cases(sys.modules[__name__], w)
    finish(failed)


if __name__ == "__main__":
    main()
