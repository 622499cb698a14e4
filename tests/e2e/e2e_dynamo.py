"""Two workers behind NVIDIA Dynamo's own frontend: everything that a client sees through it, and what happens when parts go."""
import http.client
import json
import random
import shutil
import signal
import sys
import time

import dynamo
from dynamo import Deployment, in_threads, until, worker_of
from worker import finish, run_cases

CHAT, TEXT = "/v1/chat/completions", "/v1/completions"
LONG = "The history of the steam engine, told once more and at length, from the first pumps to the last locomotives. " * 20


def chat(text):
    return [{"role": "user", "content": text}]


def content(reply):
    return reply["choices"][0]["message"]["content"]


def text_of(events):
    return "".join(e["choices"][0]["delta"].get("content") or "" for e in events if e["choices"])


def case_greedy_text_is_the_worker_s_own(d):
    for question in ("What is gravity?", "Name three colours. ✓ Grüße"):
        body = {"messages": chat(question), "temperature": 0, "max_tokens": 24}
        own = json.loads(d.workers[0].request("POST", CHAT, body)[2])
        status, reply = d.post(CHAT, **body)
        assert status == 200 and content(reply) == content(own), (reply, own)
        assert text_of(d.stream(CHAT, **body)) == content(own)
    body = {"prompt": "Gravity is", "temperature": 0, "max_tokens": 12}
    own = json.loads(d.workers[1].request("POST", TEXT, body)[2])
    assert d.post(TEXT, **body)[1]["choices"][0]["text"] == own["choices"][0]["text"]


def case_usage_counts(d):
    body = {"messages": chat("Count to ten."), "temperature": 0, "max_tokens": 7}
    usage = d.post(CHAT, **body)[1]["usage"]
    assert usage["completion_tokens"] == 7 and usage["total_tokens"] == usage["prompt_tokens"] + 7, usage
    last = d.stream(CHAT, stream_options={"include_usage": True}, **body)[-1]
    assert last["choices"] == [] and last["usage"]["completion_tokens"] == 7, last


def case_stop_strings_and_tokens(d):
    body = {"messages": chat("What is gravity?"), "temperature": 0, "max_tokens": 24}
    whole = content(d.post(CHAT, **body)[1])
    word = whole.split()[3]
    reply = d.post(CHAT, stop=[word], **body)[1]
    assert content(reply) == whole[:whole.index(word)] and reply["choices"][0]["finish_reason"] == "stop", reply
    d.workers[0].wait_idle(), d.workers[1].wait_idle()
    reply = d.post(CHAT, min_tokens=20, ignore_eos=True, **body)[1]
    assert reply["usage"]["completion_tokens"] == 24, reply


def case_seeds_repeat(d):
    body = {"messages": chat("Tell me a story."), "temperature": 1.0, "max_tokens": 16}
    texts = [content(d.post(CHAT, seed=s, **body)[1]) for s in (7, 7, 8)]
    assert texts[0] == texts[1] != texts[2], texts


def case_choices_have_indexes(d):
    reply = d.post(CHAT, messages=chat("Tell me a story."), temperature=1.0, seed=7, n=2, max_tokens=8)[1]
    assert sorted(c["index"] for c in reply["choices"]) == [0, 1], reply
    assert content(reply) != reply["choices"][1]["message"]["content"]
    assert reply["usage"]["completion_tokens"] == 16, reply["usage"]


def case_logprobs_are_the_worker_s_own(d):
    body = {"messages": chat("What is gravity?"), "temperature": 0, "max_tokens": 5, "logprobs": True, "top_logprobs": 3}
    own = json.loads(d.workers[0].request("POST", CHAT, body)[2])["choices"][0]["logprobs"]["content"]
    got = d.post(CHAT, **body)[1]["choices"][0]["logprobs"]["content"]
    assert len(got) == len(own) == 5
    for a, b in zip(got, own):
        assert a["token"] == b["token"] and abs(a["logprob"] - b["logprob"]) < 1e-3, (a, b)
        assert [t["token"] for t in a["top_logprobs"]][:3] == [t["token"] for t in b["top_logprobs"]], (a, b)


def case_hints_are_taken(d):
    for hints in ({"priority": 5}, {"strict_priority": 2}, {"osl": 4}, {"latency_sensitivity": 0.9}, {"priority": -3, "osl": 100000}):
        status, reply = d.post(CHAT, messages=chat("hi"), max_tokens=2, nvext={"agent_hints": hints})
        assert status == 200, (hints, reply)
    status, reply = d.post(CHAT, messages=chat("hello"), max_tokens=4, nvext={"agent_hints": {"speculative_prefill": True}})
    assert status == 200, reply


def case_bad_requests_are_the_client_s(d):
    for body in ({"max_tokens": 100000}, {"messages": chat("word " * 9000)}):
        status, reply = d.post(CHAT, **{"messages": chat("hi"), "max_tokens": 5, **body})
        assert status == 400, (status, reply)
    assert d.post(CHAT, messages=chat("hi"), max_tokens=2)[0] == 200  # nobody was inhibited


def case_prompts_go_where_their_blocks_are(d):
    prompts = [f"Number {i} of {time.monotonic()}. {LONG}" for i in range(8)]

    def ask(i):
        status, reply = d.post(CHAT, messages=chat(prompts[i]), max_tokens=2, temperature=0,
                               nvext={"extra_fields": ["worker_id", "timing"]})
        assert status == 200, reply
        return reply
    home = [worker_of(reply) for reply in in_threads(8, ask)]  # at once: the router shares them out
    time.sleep(0.2)
    for i in random.Random(1).sample(range(8), 8):
        reply = ask(i)
        usage, rate = reply["usage"], reply["nvext"]["timing"]["kv_hit_rate"]
        cached = usage["prompt_tokens_details"]["cached_tokens"]
        assert worker_of(reply) == home[i] and rate > 0.9, (rate, reply["nvext"])
        assert abs(rate * -(-usage["prompt_tokens"] // 16) * 16 - cached) <= 16, (rate, cached, usage)
    assert len(set(home)) == 2, "one worker got all"


def case_salts_part_the_cache(d):
    text = f"{time.monotonic()} {LONG}"

    def rate(salt):
        reply = d.post(CHAT, messages=chat(text), max_tokens=1, nvext={"cache_salt": salt, "extra_fields": ["timing"]})[1]
        time.sleep(0.1)
        return reply["nvext"]["timing"]["kv_hit_rate"], reply["usage"]["prompt_tokens_details"]["cached_tokens"]
    assert rate("a") == (0, 0)
    router, cached = rate("a")
    assert router > 0.9 and cached > 300, (router, cached)
    assert rate("b") == (0, 0)


def case_a_client_that_leaves_cancels_on_the_worker(d):
    for streams in (True, False):
        if streams:
            connection, reply = d.open(CHAT, messages=chat("Tell me everything."), max_tokens=4000, ignore_eos=True, stream=True)
            reply.readline()
            reply.close()
        else:
            connection = http.client.HTTPConnection("127.0.0.1", d.port)
            connection.request("POST", CHAT, json.dumps({"model": d.model, "messages": chat("Tell me everything."), "max_tokens": 4000,
                                                         "ignore_eos": True}), {"Content-Type": "application/json"})
            until("it runs", 10, lambda: sum(w.metric("stator_num_requests_running") for w in d.workers))
        connection.close()
        until("nothing runs", 2, lambda: not sum(w.metric("stator_num_requests_running") for w in d.workers))


def case_a_restarted_frontend_knows_the_blocks(d):
    body = {"messages": chat(f"{time.monotonic()} {LONG}"), "max_tokens": 1, "nvext": {"extra_fields": ["worker_id", "timing"]}}
    first = d.post(CHAT, **body)[1]
    d.kill_frontend()
    d.start_frontend()
    until("the model is back", 20, lambda: d.models())
    until("it answers", 10, lambda: d.post(CHAT, messages=chat("hi"), max_tokens=1)[0] == 200)
    again = d.post(CHAT, **body)[1]
    assert again["nvext"]["timing"]["kv_hit_rate"] > 0.9 and worker_of(again) == worker_of(first), again["nvext"]


def case_sigterm_fails_no_request(d):
    w = d.add_worker()
    until("three workers", 20, lambda: len(d.seen_workers()) == 3)
    stop_at = time.monotonic() + 6

    def load(i):
        statuses = []
        while time.monotonic() < stop_at:
            status, reply = d.post(CHAT, messages=chat(f"{i} {len(statuses)} Tell me."), max_tokens=12, temperature=0)
            assert status == 200, (status, reply)
            statuses.append(status)
            if i == 0 and len(statuses) == 2:
                w.process.send_signal(signal.SIGTERM)
        return len(statuses)
    assert min(in_threads(8, load)) >= 2
    assert w.process.wait(30) == 0, w.log()
    d.workers.remove(w)


def case_kill_mid_stream_is_one_seamless_answer(d):
    body = {"messages": chat(f"Tell me a long story about {time.monotonic()}."), "temperature": 0, "max_tokens": 120, "ignore_eos": True}
    undisturbed = text_of(d.stream(CHAT, **body))
    w = d.add_worker()
    until("three workers", 20, lambda: len(d.seen_workers()) == 3)
    for attempt in range(12):  # until the one that will be killed has it
        connection, reply = d.open(CHAT, stream=True, **body, nvext={"cache_salt": str(attempt)})
        lines = [reply.readline() for _ in range(3)]
        if w.metric("stator_num_requests_running"):
            w.process.kill()
            break
        reply.read()
        connection.close()
    else:
        raise AssertionError("the third worker was never chosen")
    reply_lines = lines + list(reply)
    events = [json.loads(x[5:]) for x in reply_lines if x.startswith(b"data:") and b"[DONE]" not in x]
    assert not [e for e in events if "error" in e], events[-1]
    assert text_of(events) == undisturbed
    d.workers.remove(w)
    w.process.wait()


def main():
    dynamo.python()
    with Deployment() as d:
        failed = run_cases(sys.modules[__name__], d)
    if shutil.which("etcd"):
        print("with etcd:", flush=True)
        with dynamo.Etcd() as etcd, Deployment(etcd=etcd.url) as d:
            failed += run_cases(sys.modules[__name__], d)
    else:
        print("without etcd: etcd-server is not installed")
    finish(failed)


if __name__ == "__main__":
    main()
