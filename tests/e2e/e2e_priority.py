#!/usr/bin/env python3
"""Priorities over HTTP: who gives way to whom, that nobody loses a token by it, and that hints without the flag change nothing.

Everything is counted, nothing is timed: what a request says alone on the worker is what it must say under preemption.
"""
import json
import sys
import threading
import time

import worker

LOW, HIGH = {"priority": 0}, {"priority": 10, "latency_sensitivity": 1.0}


def ask(w, seed, n_prompt, max_tokens, hints):
    prompt = [1000 + (seed * 7919 + i * 104729) % 40000 for i in range(n_prompt)]
    body = {"prompt": prompt, "max_tokens": max_tokens, "temperature": 0, "ignore_eos": True, "nvext": {"agent_hints": hints}}
    status, _, raw = w.request("POST", "/v1/completions", body)
    reply = json.loads(raw)
    assert status == 200, (status, reply)
    assert reply["usage"]["completion_tokens"] == max_tokens, reply["usage"]
    return reply["choices"][0]["text"]


class Call(threading.Thread):
    """One request in the background; order collects labels as they end."""

    def __init__(self, w, label, order, *what):
        super().__init__()
        self.w, self.label, self.order, self.what, self.text = w, label, order, what, None
        self.start()

    def run(self):
        self.text = ask(self.w, *self.what)
        self.order.append(self.label)


def view(w):
    return json.loads(w.request("GET", "/v1/stator/queue")[2])


def wait_for(what, condition, seconds=30):
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        got = condition()
        if got:
            return got
    raise AssertionError(f"never seen: {what}")


def states(w, cls):
    return sorted(r["state"] for r in view(w)["requests"] if r["class"] == cls)


def flood(w, calls, texts):
    """LOW calls of which two fill both places and one waits; then a HIGH one, which ends before all of them."""
    order = []
    low = []
    for what, want in zip(calls, (["decode"], ["decode", "decode"], ["decode", "decode", "queued"])):
        low.append(Call(w, "low", order, *what))  # one after the other, or they could arrive in another order
        wait_for(f"LOW requests: {want}", lambda want=want: states(w, "normal") == want)
    high = Call(w, "high", order, *calls[-1])
    seen = wait_for("a request that gave way, and to whom", lambda: [
        v for v in [view(w)] if any(r["state"] == "preempted" for r in v["requests"]) and v["classes"]["high"]["decode"] == 1])[0]
    for call in [high] + low:
        call.join()
    victims = [r for r in seen["requests"] if r["state"] == "preempted"]
    assert all(v["class"] == "normal" and v["n_preempted"] == 1 for v in victims), seen
    assert seen["classes"]["normal"]["decode"] == 1 and seen["classes"]["normal"]["preempted"] == len(victims), seen
    assert order[0] == "high", order
    assert [c.text for c in low + [high]] == texts, "preemption changed what a request says"
    return victims


def case_high_takes_a_place_and_nobody_loses_a_token():
    with worker.Worker("--max-num-seqs", "2", "--enable-priority-scheduling", "--no-prefix-caching") as w:
        calls = [(1, 40, 900, LOW), (2, 50, 900, LOW), (3, 60, 60, LOW), (4, 100, 120, HIGH)]
        texts = [ask(w, *c) for c in calls]
        assert w.metric("stator_preemptions_total") == 0
        victims = flood(w, calls, texts)
        assert len(victims) == 1 and victims[0]["n_blocks"] > 0, "for a place alone it keeps its blocks"
        w.wait_idle()
        for resource, n in (("slot", 1), ("blocks", 0), ("growth", 0)):
            labels = {"class": "normal", "for_class": "high", "resource": resource}
            assert w.metric("stator_preemptions_total", **labels) == n, resource
        assert w.metric("stator_resumed_tokens_total", **{"class": "normal"}) > victims[0]["n_prompt"]
        assert w.metric("stator_recomputed_tokens_total") == 0


def case_a_victim_of_blocks_comes_back_from_the_host_tier():
    with worker.Worker("--max-num-seqs", "2", "--enable-priority-scheduling", "--context-length", "1024", "--kv-bytes", "31M",
                       "--host-kv-bytes", "64M") as w:
        # 88 blocks: two LOW fit (25 to 35 each), one LOW and HIGH fit (44 to 48), all three never do
        calls = [(1, 400, 150, LOW), (2, 400, 150, LOW), (3, 60, 60, LOW), (4, 700, 60, HIGH)]
        texts = [ask(w, *c) for c in calls]
        victims = flood(w, calls, texts)
        assert any(v["n_blocks"] == 0 for v in victims), victims
        w.wait_idle()
        assert w.metric("stator_preemptions_total", **{"class": "normal", "for_class": "high"}) == len(victims)
        assert w.metric("stator_kv_blocks_loaded_total") > 0
        assert w.metric("stator_resumed_tokens_total", **{"class": "normal"}) > victims[0]["n_prompt"]
        assert w.metric("stator_recomputed_tokens_total") == 0


def order_of_three(*flags):
    with worker.Worker("--max-num-seqs", "1", *flags) as w:
        order = []
        calls = [Call(w, "first", order, 1, 30, 300, LOW)]
        wait_for("the first runs", lambda: states(w, "normal") == ["decode"])
        calls.append(Call(w, "second", order, 2, 30, 30, LOW))
        wait_for("the second waits", lambda: states(w, "normal") == ["decode", "queued"])
        calls.append(Call(w, "high", order, 3, 30, 10, HIGH))
        for c in calls:
            c.join()
        w.wait_idle()
        return order, w.metric("stator_preemptions_total")


def case_hints_order_the_queue_with_the_flag_only():
    assert order_of_three() == (["first", "second", "high"], 0)
    order, preemptions = order_of_three("--enable-priority-scheduling")
    assert order == ["high", "first", "second"] and preemptions == 1, (order, preemptions)


def main():
    try:
        import prometheus_client  # noqa: F401
    except ImportError:
        worker.skip("prometheus_client is not installed")
    worker.finish(worker.run_cases(sys.modules[__name__]))


main()
