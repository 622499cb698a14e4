"""Two workers behind NVIDIA Dynamo's own frontend: everything that a client sees through it, and what happens when parts go.

Once with the file store and once with etcd. A client's view: answers() asks streamed and not, own() asks the worker's own endpoint.
Beside it e2e_dynamo_worker.py has what a worker shows to its peers, e2e_dynamo_events.py the router's view of the blocks, and
e2e_langchain.py a client of many forms.
"""
import json
import random
import shutil
import signal
import sys
import threading
import time

import dynamo
from dynamo import Deployment, in_threads, until, worker_of
from worker import finish, run_cases

CHAT, TEXT = "/v1/chat/completions", "/v1/completions"
LONG = "The history of the steam engine, told once more and at length, from the first pumps to the last locomotives. " * 12
FORECAST = {"type": "object", "properties": {"sky": {"enum": ["clear", "grey"]}, "degrees": {"type": "integer", "minimum": 0, "maximum": 40}},
            "required": ["sky", "degrees"]}
SLOTS = 4


def ask(path, text):
    return {"messages": [{"role": "user", "content": text}]} if path == CHAT else {"prompt": text}


def text_of(choice):
    """Of a whole choice or of a chunk's, of chat or of a completion."""
    return (choice.get("message") or choice.get("delta") or choice).get("content", choice.get("text")) or ""


def told(choices, usage):
    return {"text": "".join(map(text_of, choices)), "finish": [c["finish_reason"] for c in choices if c.get("finish_reason")],
            "prompt_tokens": usage["prompt_tokens"], "completion_tokens": usage["completion_tokens"]}


def joined(events):
    assert not any("error" in e for e in events), events[-1]
    assert len({e["id"] for e in events}) == 1
    return told([c for e in events for c in e["choices"]], events[-1]["usage"])


def answers(d, path, **body):
    """What the frontend answers, the same streamed and not."""
    status, reply = d.post(path, **body)
    assert status == 200, reply
    whole = told(reply["choices"], reply["usage"])
    streamed = joined(d.stream(path, stream_options={"include_usage": True}, **body))
    assert streamed == whole, (streamed, whole)
    return whole


def own(worker, path, **body):
    status, _, raw = worker.request("POST", path, body)
    assert status == 200, raw
    reply = json.loads(raw)
    return told(reply["choices"], reply["usage"])


def total(d, metric):
    return sum(w.metric("stator_" + metric) for w in d.workers)


def case_greedy_text_and_usage_are_the_worker_s_own(d):
    for w, path, text in zip(d.workers * 2, (CHAT, TEXT, CHAT), ("What is gravity?", "Gravity is", "Three colours. ✓ Grüße")):
        body = {**ask(path, text), "temperature": 0, "max_tokens": 16}
        assert answers(d, path, **body) == own(w, path, **body), text


def case_stop_strings_and_tokens(d):
    for path in (CHAT, TEXT):
        body = {**ask(path, "Gravity is"), "temperature": 0, "max_tokens": 24}
        whole = own(d.workers[0], path, **body)["text"]
        word = whole.split()[3]
        cut = answers(d, path, stop=["never there", word], **body)
        assert cut["text"] == whole[:whole.index(word)] and cut["finish"] == ["stop"], (cut, whole)
        for w in d.workers:
            w.wait_idle()  # the frontend cuts; it must have told the worker
        longer = answers(d, path, min_tokens=20, ignore_eos=True, **body)
        assert longer["completion_tokens"] == 24 and longer["finish"] == ["length"], longer


def case_seeds_repeat_and_are_the_worker_s_own(d):
    for path in (CHAT, TEXT):
        body = {**ask(path, "Tell me a story."), "temperature": 1.0, "top_p": 0.875, "max_tokens": 12}
        first, other = (answers(d, path, seed=s, **body) for s in (7, 8))
        assert first == own(d.workers[0], path, seed=7, **body) and first["text"] != other["text"], (first, other)


def case_penalties_and_filters_are_the_worker_s_own(d):
    base = {**ask(CHAT, "Tell me a story."), "temperature": 0, "max_tokens": 14}
    plain = own(d.workers[0], CHAT, **base)
    for settings in ({"frequency_penalty": 1.5}, {"presence_penalty": 1.5}, {"repetition_penalty": 1.5},
                     {"temperature": 1.0, "seed": 5, "top_k": 3}, {"temperature": 1.0, "seed": 5, "min_p": 0.25}):
        body = {**base, **settings}
        got = answers(d, CHAT, **body)
        assert got == own(d.workers[1], CHAT, **body) and got["text"] != plain["text"], settings


def case_choices_have_indexes(d):
    reply = d.post(CHAT, **ask(CHAT, "Tell me a story."), temperature=1.0, seed=7, n=2, max_tokens=8)[1]
    assert sorted(c["index"] for c in reply["choices"]) == [0, 1], reply
    assert len({text_of(c) for c in reply["choices"]}) == 2 and reply["usage"]["completion_tokens"] == 16, reply


def case_logprobs_are_the_worker_s_own(d):
    def numbers(choice):
        found = choice["logprobs"]
        if "content" in found:
            return [(t["token"], t["logprob"], [a["token"] for a in t["top_logprobs"]]) for t in found["content"]]
        return [(t, p, list(top)) for t, p, top in zip(found["tokens"], found["token_logprobs"], found["top_logprobs"])]

    for path, wish in ((CHAT, {"logprobs": True, "top_logprobs": 3}), (TEXT, {"logprobs": 3})):
        body = {**ask(path, "Gravity is"), "temperature": 0, "max_tokens": 5, **wish}
        want = numbers(json.loads(d.workers[0].request("POST", path, body)[2])["choices"][0])
        whole = numbers(d.post(path, **body)[1]["choices"][0])
        chunks = [c for e in d.stream(path, **body) for c in e["choices"]]
        streamed = [n for c in chunks if c.get("logprobs") for n in numbers(c)]
        assert len(want) == 5 and [n[0] for n in whole] == [n[0] for n in streamed] == [n[0] for n in want], (whole, streamed, want)
        for got in (whole, streamed):
            assert all(abs(a[1] - b[1]) < 1e-3 and a[2][:3] == b[2][:3] for a, b in zip(got, want)), (got, want)


def case_guided_answers_have_their_form(d):
    """The frontend takes response_format for chat only, and guided_* beside the prompt; within nvext it refuses them."""
    strict = {"type": "json_schema", "json_schema": {"name": "forecast", "schema": FORECAST, "strict": True}}
    for path, wishes in ((CHAT, ({"response_format": strict}, {"guided_json": FORECAST})), (TEXT, ({"guided_json": FORECAST},))):
        for wish in wishes:
            body = {**ask(path, "The weather today, please."), "temperature": 0, "max_tokens": 40, **wish}
            got = answers(d, path, **body)
            value = json.loads(got["text"])
            assert value["sky"] in ("clear", "grey") and 0 <= value["degrees"] <= 40 and got["finish"] == ["stop"], got
            assert got["text"] == own(d.workers[0], path, **body)["text"]
    for path in (CHAT, TEXT):
        got = answers(d, path, **ask(path, "Red or blue?"), temperature=0, max_tokens=10, guided_choice=["red", "blue"])
        assert got["text"] in ("red", "blue"), got
    got = answers(d, CHAT, **ask(CHAT, "Anything."), temperature=0, max_tokens=40, response_format={"type": "json_object"})
    assert isinstance(json.loads(got["text"]), dict), got
    assert d.post(TEXT, prompt="x", max_tokens=2, guided_regex="[ab]+")[0] == 501
    assert d.post(TEXT, prompt="x", max_tokens=2, nvext={"guided_json": FORECAST})[0] == 400


def requests(d):
    return [r for w in d.workers for r in json.loads(w.request("GET", "/v1/stator/queue")[2])["requests"]]


def case_hints_reach_the_worker(d):
    for hints, session in (({"priority": 5, "osl": 4}, None), ({"strict_priority": 2}, "agent-7"), ({"priority": -3, "osl": 100000}, None)):
        headers = {"x-dynamo-session-id": session} if session else {}
        connection = d.send(CHAT, headers, **ask(CHAT, "hi"), max_tokens=4000, ignore_eos=True, nvext={"agent_hints": hints})
        seen = until("it is there", 10, lambda: requests(d))
        connection.close()
        assert len(seen) == 1 and seen[0]["via"] == "dynamo" and seen[0]["session_id"] == session, seen
        assert all(seen[0][name] == value for name, value in hints.items()), (hints, seen)
        until("it is gone", 10, lambda: not requests(d))
    status, reply = d.post(CHAT, **ask(CHAT, "hi"), max_tokens=2, nvext={"agent_hints": {"latency_sensitivity": 0.9}})
    assert status == 200, reply


def case_the_next_turn_is_computed_ahead(d):
    before = total(d, "request_success_total")
    status, reply = d.post(CHAT, **ask(CHAT, "hello"), max_tokens=4, nvext={"agent_hints": {"speculative_prefill": True}})
    assert status == 200, reply
    until("the frontend's own request", 10, lambda: total(d, "request_success_total") == before + 2)


def case_a_high_priority_overtakes_a_queue_of_low_ones(d):
    home = worker_of(d.post(TEXT, prompt="x", max_tokens=1, nvext={"extra_fields": ["worker_id"]})[1])
    order, threads = [], []

    def run(label, priority, n):
        status, reply = d.post(TEXT, prompt=f"{label} {len(threads)}", temperature=0, max_tokens=n, ignore_eos=True,
                               nvext={"backend_instance_id": home, "agent_hints": {"priority": priority}})
        order.append(label if status == 200 and reply["usage"]["completion_tokens"] == n else (status, reply))

    def start(*what):
        threads.append(threading.Thread(target=run, args=what))
        threads[-1].start()

    for n in range(1, SLOTS + 3):  # one after the other, or they could arrive in another order
        start("low", 0, 80)
        until("it is there", 10, lambda n=n: len(requests(d)) == n)
    until("two wait", 10, lambda: sorted(r["state"] for r in requests(d)) == ["decode"] * SLOTS + ["queued"] * 2)
    assert {(r["via"], r["priority"]) for r in requests(d)} == {("dynamo", 0)}
    start("high", 10, 4)
    for t in threads:
        t.join()
    assert order == ["high"] + ["low"] * (SLOTS + 2), order
    assert total(d, "preemptions_total") == 1


def case_bad_requests_are_the_client_s(d):
    for body in ({"max_tokens": 100000}, ask(CHAT, "word " * 9000)):
        status, reply = d.post(CHAT, **{**ask(CHAT, "hi"), "max_tokens": 5, **body})
        assert status == 400, (status, reply)
    assert d.post(CHAT, **ask(CHAT, "hi"), max_tokens=2)[0] == 200  # nobody was inhibited


def case_prompts_go_where_their_blocks_are(d):
    """The router counts a prompt's blocks, the last part-filled one too, and of them those that it has seen stored. The worker
    counts tokens of blocks that it need not compute: all of those, but never the last token, whose logits the answer begins with;
    so of a prompt of whole blocks one block less. Beside that one the two must be equal."""
    prompts = [f"Number {i} of {time.monotonic()}. {LONG}" for i in range(6)]

    def visit(i):
        status, reply = d.post(CHAT, **ask(CHAT, prompts[i]), max_tokens=2, temperature=0,
                               nvext={"extra_fields": ["worker_id", "timing"]})
        assert status == 200, reply
        return reply
    home = [worker_of(reply) for reply in in_threads(6, visit)]  # at once: the router shares them out
    time.sleep(0.5)  # the events are on their way
    for i in random.Random(1).sample(range(6), 6):
        reply = visit(i)
        rate, n = reply["nvext"]["timing"]["kv_hit_rate"], reply["usage"]["prompt_tokens"]
        matched = rate * -(-n // 16)
        assert worker_of(reply) == home[i] and rate > 0.9 and abs(matched - round(matched)) < 1e-9, (rate, n, reply["nvext"])
        cached = reply["usage"]["prompt_tokens_details"]["cached_tokens"]
        assert cached == min(16 * round(matched), (n - 1) // 16 * 16), (rate, cached, n)
    assert len(set(home)) == 2, "one worker got all"


def case_salts_part_the_cache(d):
    text = f"{time.monotonic()} {LONG}"

    def rate(salt):
        reply = d.post(CHAT, **ask(CHAT, text), max_tokens=1, nvext={"cache_salt": salt, "extra_fields": ["timing"]})[1]
        time.sleep(0.3)
        return reply["nvext"]["timing"]["kv_hit_rate"], reply["usage"]["prompt_tokens_details"]["cached_tokens"]
    assert rate("a") == (0, 0)
    router, cached = rate("a")
    assert router > 0.9 and cached > 200, (router, cached)
    assert rate("b") == (0, 0)


def case_a_client_that_leaves_cancels_on_the_worker(d):
    """Within a step of the frontend's word (e2e_dynamo_worker.py counts from there); its own time to notice comes on top here."""
    for path in (CHAT, TEXT):
        for stream in (True, False):
            before = total(d, "generation_tokens_total")
            connection = d.send(path, **ask(path, "Tell me everything."), max_tokens=4000, ignore_eos=True, stream=stream)
            until("it runs", 10, lambda: total(d, "generation_tokens_total") - before > 3)
            seen = total(d, "generation_tokens_total")
            connection.close()
            until("nothing runs", 10, lambda: not total(d, "num_requests_running"))
            assert total(d, "generation_tokens_total") - seen < 100, (path, stream, before, seen)


def case_a_restarted_frontend_knows_the_blocks(d):
    body = {**ask(CHAT, f"{time.monotonic()} {LONG}"), "max_tokens": 1, "nvext": {"extra_fields": ["worker_id", "timing"]}}
    first = d.post(CHAT, **body)[1]
    orphan = d.send(CHAT, **ask(CHAT, "Tell me everything."), max_tokens=4000, ignore_eos=True, stream=True)
    until("it runs", 10, lambda: total(d, "num_requests_running"))
    d.kill_frontend()
    until("nobody waits for it", 10, lambda: not total(d, "num_requests_running"))
    orphan.close()
    d.start_frontend()
    until("the model is back", 20, lambda: d.models())
    until("it answers", 10, lambda: d.post(CHAT, **ask(CHAT, "hi"), max_tokens=1)[0] == 200)
    again = d.post(CHAT, **body)[1]
    assert again["nvext"]["timing"]["kv_hit_rate"] > 0.9 and worker_of(again) == worker_of(first), again["nvext"]


def case_sigterm_fails_no_request(d):
    w = d.add_worker()
    until("three workers", 20, lambda: len(d.seen_workers()) == 3)

    def load(i):
        done, after = 0, 0
        while after < 2:  # two more when it is gone
            after += w.process.poll() is not None
            path = (CHAT, TEXT)[i % 2]
            body = {**ask(path, f"{i} {done} Tell me."), "max_tokens": 8, "temperature": 0, "ignore_eos": True}
            got = joined(d.stream(path, stream_options={"include_usage": True}, **body)) if i % 4 < 2 else answers(d, path, **body)
            assert got["completion_tokens"] == 8 and got["finish"] == ["length"], got
            done += 1
            if i == 0 and done == 2:
                until("the one that goes has work", 10, lambda: w.metric("stator_num_requests_running"))
                w.process.send_signal(signal.SIGTERM)
        return done
    assert min(in_threads(6, load)) >= 2
    assert w.process.wait(30) == 0, w.log()
    d.workers.remove(w)


def case_kill_mid_stream_is_one_seamless_answer(d):
    """The frontend sends the tokens so far to another worker as its prompt. What is drawn depends on position and seed only, so
    answers go on as they would have, greedy or not. It does not do so for guided answers: they end with an error, if they were there."""
    kinds = [(CHAT, {"temperature": 0}), (CHAT, {"temperature": 1.0, "seed": 11}), (TEXT, {"temperature": 1.0, "seed": 12, "top_p": 0.875})]
    kinds = [(path, {**ask(path, f"Tell me a long story about {time.monotonic()}."), "max_tokens": 60, "ignore_eos": True, **settings})
             for path, settings in kinds]
    guided = (TEXT, {"prompt": "Numbers:", "temperature": 0, "max_tokens": 200, "guided_json": {
        "type": "array", "items": {"type": "integer", "minimum": 100, "maximum": 999}, "minItems": 20, "maxItems": 20}})
    undisturbed = [joined(d.stream(path, stream_options={"include_usage": True}, **body))["text"] for path, body in kinds + [guided]]
    w = d.add_worker()
    until("three workers", 20, lambda: len(d.seen_workers()) == 3)
    streams = [(i, d.open(path, stream=True, nvext={"cache_salt": str(copy)}, **body))  # salts: no worker is better than another
               for copy in range(2) for i, (path, body) in enumerate(kinds + [guided])]
    heads = [[reply.readline() for _ in range(3)] for _, (_, reply) in streams]
    w.process.kill()
    lost = 0
    for (i, (connection, reply)), head in zip(streams, heads):
        events = dynamo.events_of(head + list(reply))
        connection.close()
        failed = [e for e in events if "error" in e]
        if i == len(kinds) and failed:
            lost += 1
            continue
        assert not failed and "".join(text_of(c) for e in events for c in e["choices"]) == undisturbed[i], (i, failed)
    moved = d.metric("dynamo_frontend_model_migration_total", migration_type="ongoing_request")
    assert moved, "the third worker was not chosen"
    print(f"        {moved:g} answers went on elsewhere, {lost} guided ones ended with an error")
    d.workers.remove(w)
    w.process.wait()


def main():
    dynamo.python()
    flags = ["--max-num-seqs", str(SLOTS), "--enable-priority-scheduling"]
    with Deployment(worker_flags=flags) as d:
        failed = run_cases(sys.modules[__name__], d)
    if shutil.which("etcd"):
        print("with etcd:", flush=True)
        with dynamo.Etcd() as etcd, Deployment(etcd=etcd.url, worker_flags=flags) as d:
            failed += run_cases(sys.modules[__name__], d)
    else:
        print("without etcd: etcd-server is not installed")
    finish(failed)


if __name__ == "__main__":
    main()
