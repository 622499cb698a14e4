#!/usr/bin/env python3
"""The OpenAI API as the official `openai` client, Prometheus' parser and a bare HTTP client see it."""
import json
import re
import sys
import threading
import time

import worker

try:
    import openai
    import prometheus_client  # noqa: F401 (worker.metric uses its parser)
except ImportError as missing:
    worker.skip(f"{missing.name} is not installed")

PARIS = [{"role": "user", "content": "Name the capital city of France."}]
PROMPT_IDS = [504, 3575, 282, 4649, 314]  # "The capital of France is"


def client_of(w, key="none"):
    return openai.OpenAI(base_url=w.url + "/v1", api_key=key, max_retries=0, timeout=120)


def model_of(w):
    return client_of(w).models.list().data[0].id


def refused(kind, call, *words):
    try:
        call()
    except kind as e:
        body = e.body if isinstance(e.body, dict) else {}
        assert body.get("message") and body.get("type"), f"not OpenAI's error form: {e.body}"
        for word in words:
            assert word in body["message"], f"{word!r} is not in {body['message']!r}"
        return body
    raise AssertionError(f"{kind.__name__} expected")


def case_models(w):
    card = client_of(w).models.list().data[0]
    assert card.object == "model" and card.max_model_len == 8192, card
    assert client_of(w).models.retrieve(card.id).id == card.id


def case_health_and_version(w):
    for path in ("/v1/health/live", "/v1/health/ready", "/health", "/version"):
        status, _, body = w.request("GET", path)
        assert status == 200, (path, status, body)
    assert "version" in json.loads(w.request("GET", "/version")[2])


def case_chat_greedy_is_english(w):
    reply = client_of(w).chat.completions.create(model=model_of(w), messages=PARIS, temperature=0, max_tokens=40)
    choice = reply.choices[0]
    assert "Paris" in choice.message.content, choice
    assert choice.message.role == "assistant" and choice.finish_reason == "stop"
    assert reply.object == "chat.completion" and reply.id and abs(reply.created - time.time()) < 60
    usage = reply.usage
    assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens and usage.completion_tokens > 3


def case_chat_streamed_equals_unstreamed(w):
    c, model = client_of(w), model_of(w)
    args = dict(model=model, messages=PARIS, temperature=0, max_tokens=40)
    whole = c.chat.completions.create(**args)
    text, finish, usage, ids = "", None, None, set()
    for chunk in c.chat.completions.create(stream=True, stream_options={"include_usage": True}, **args):
        ids.add(chunk.id)
        assert chunk.object == "chat.completion.chunk"
        if chunk.choices:
            text += chunk.choices[0].delta.content or ""
            finish = chunk.choices[0].finish_reason or finish
        usage = chunk.usage or usage
    assert text == whole.choices[0].message.content and finish == "stop" and len(ids) == 1
    assert usage.completion_tokens == whole.usage.completion_tokens
    assert usage.prompt_tokens == whole.usage.prompt_tokens


def case_completion_streamed_equals_unstreamed(w):
    c, model = client_of(w), model_of(w)
    args = dict(model=model, prompt="The capital of France is", temperature=0, max_tokens=24)
    whole = c.completions.create(**args)
    assert "Paris" in whole.choices[0].text and whole.usage.completion_tokens == 24
    assert whole.choices[0].finish_reason == "length" and whole.object == "text_completion"
    text = "".join(ch.choices[0].text for ch in c.completions.create(stream=True, **args) if ch.choices)
    assert text == whole.choices[0].text


def case_prompt_forms_agree(w):
    c, model = client_of(w), model_of(w)
    args = dict(model=model, temperature=0, max_tokens=12)
    text = c.completions.create(prompt="The capital of France is", **args)
    ids = c.completions.create(prompt=PROMPT_IDS, **args)
    both = c.completions.create(prompt=["The capital of France is", "1, 2, 3, 4,"], **args)
    id_lists = c.completions.create(prompt=[PROMPT_IDS, PROMPT_IDS], **args)
    want = text.choices[0].text
    assert ids.choices[0].text == want and text.usage.prompt_tokens == ids.usage.prompt_tokens == 5
    assert [ch.index for ch in sorted(both.choices, key=lambda x: x.index)] == [0, 1]
    assert min(both.choices, key=lambda x: x.index).text == want
    assert [ch.text for ch in id_lists.choices] == [want, want]


def case_text_parts_equal_string(w):
    c, model = client_of(w), model_of(w)
    parts = [{"role": "user", "content": [{"type": "text", "text": PARIS[0]["content"]}]}]
    one, two = (c.chat.completions.create(model=model, messages=m, temperature=0, max_tokens=20) for m in (PARIS, parts))
    assert one.choices[0].message.content == two.choices[0].message.content
    assert one.usage.prompt_tokens == two.usage.prompt_tokens


def case_n_choices(w):
    reply = client_of(w).completions.create(model=model_of(w), prompt="Once upon a time", n=4, seed=7, temperature=1.0,
                                            max_tokens=16, extra_body={"ignore_eos": True})
    assert sorted(ch.index for ch in reply.choices) == [0, 1, 2, 3]
    assert len({ch.text for ch in reply.choices}) > 1 and reply.usage.completion_tokens == 64


def case_seed_reproduces(w):
    c, model = client_of(w), model_of(w)

    def draw(seed):
        return c.completions.create(model=model, prompt="Once upon a time", temperature=1.0, top_p=0.95, seed=seed,
                                    max_tokens=32).choices[0].text
    assert draw(11) == draw(11)
    assert len({draw(s) for s in range(4)}) > 1


def case_stop_string_is_cut(w):
    c, model = client_of(w), model_of(w)
    args = dict(model=model, prompt="1, 2, 3, 4, 5, 6,", temperature=0, max_tokens=40)
    free = c.completions.create(**args).choices[0].text
    assert "9" in free, free
    cut = c.completions.create(stop=["never there", "9"], **args).choices[0]
    assert cut.text == free[:free.index("9")] and cut.finish_reason == "stop", (cut, free)
    streamed = "".join(ch.choices[0].text for ch in c.completions.create(stop="9", stream=True, **args) if ch.choices)
    assert streamed == cut.text


def case_logit_bias_forces_and_bans(w):
    c, model = client_of(w), model_of(w)
    args = dict(model=model, prompt=PROMPT_IDS, temperature=0, max_tokens=4)
    paris = 7042
    forced = c.completions.create(logit_bias={str(paris): 100}, **args).choices[0].text
    assert forced == " Paris" * 4, forced
    banned = c.completions.create(logit_bias={str(paris): -100}, **args).choices[0].text
    assert "Paris" not in banned, banned


def case_penalties_change_repetition(w):
    c, model = client_of(w), model_of(w)
    args = dict(model=model, prompt="la la la la la la la la", temperature=0, max_tokens=24)
    plain = c.completions.create(**args).choices[0].text
    for extra in (dict(frequency_penalty=2.0, presence_penalty=2.0), dict(extra_body={"repetition_penalty": 1.8})):
        assert c.completions.create(**args, **extra).choices[0].text != plain


def case_max_completion_tokens_and_ignore_eos(w):
    c, model = client_of(w), model_of(w)
    reply = c.chat.completions.create(model=model, messages=PARIS, temperature=0, max_completion_tokens=5)
    assert reply.usage.completion_tokens == 5 and reply.choices[0].finish_reason == "length"
    reply = c.chat.completions.create(model=model, messages=PARIS, temperature=0, max_tokens=64,
                                      extra_body={"ignore_eos": True})
    assert reply.usage.completion_tokens == 64 and reply.choices[0].finish_reason == "length"


def case_prefix_hit_is_told_and_changes_nothing(w):
    c, model = client_of(w), model_of(w)
    args = dict(model=model, prompt="The tide went out and the boats lay on the sand. " * 20, temperature=0, max_tokens=16)
    first, second = c.completions.create(**args), c.completions.create(**args)
    assert first.choices[0].text == second.choices[0].text
    assert second.usage.prompt_tokens_details.cached_tokens >= 128, second.usage
    assert second.usage.prompt_tokens_details.cached_tokens % 16 == 0


def case_unknown_fields_and_nvext_pass(w):
    c, model = client_of(w), model_of(w)
    reply = c.completions.create(model=model, prompt="Hi", max_tokens=2, user="someone", extra_body={
        "a_field_nobody_knows": {"x": [1]}, "nvext": {"agent_hints": {"priority": 3}, "unknown": 1},
        "top_k": 40, "min_p": 0.05})
    assert reply.usage.completion_tokens <= 2


def case_stream_ends_in_done(w):
    body = {"model": model_of(w), "prompt": "Hello", "max_tokens": 4, "stream": True}
    status, headers, raw = w.request("POST", "/v1/completions", body)
    assert status == 200 and headers["Content-Type"].startswith("text/event-stream")
    events = [e for e in raw.decode().split("\n\n") if e]
    assert events[-1] == "data: [DONE]", events[-1]
    for event in events[:-1]:
        assert event.startswith("data: ") or event.startswith(":"), event
        if event.startswith("data: "):
            json.loads(event[6:])


def case_keep_alive_serves_many(w):
    import http.client
    connection = http.client.HTTPConnection("127.0.0.1", w.port, timeout=60)
    connection.connect()
    port = connection.sock.getsockname()
    model = model_of(w)
    for i in range(20):
        body = json.dumps({"model": model, "prompt": "Hi", "max_tokens": 1, "stream": i % 2 == 1})
        connection.request("POST", "/v1/completions", body, {"Content-Type": "application/json"})
        reply = connection.getresponse()
        assert reply.status == 200 and reply.read()
        assert connection.sock and connection.sock.getsockname() == port, f"connection dropped after {i + 1} requests"
    connection.close()


def case_sixteen_at_once_equal_one_at_a_time(w):
    c, model = client_of(w), model_of(w)

    def ask(i):
        return c.completions.create(model=model, prompt=f"A story about the number {i}:", temperature=0,
                                    max_tokens=24).choices[0].text
    want = [ask(i) for i in range(16)]
    got = [None] * 16

    def put(i):
        got[i] = ask(i)
    threads = [threading.Thread(target=put, args=(i,)) for i in range(16)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert got == want


def case_closing_a_stream_cancels_it(w):
    c, model = client_of(w), model_of(w)
    w.wait_idle()
    blocks = w.metric("stator_kv_cache_blocks", state="pinned")
    stream = c.completions.create(model=model, prompt="Count:", max_tokens=4000, stream=True, extra_body={"ignore_eos": True})
    for _, chunk in zip(range(3), stream):
        assert chunk.choices is not None
    assert w.metric("stator_num_requests_running") == 1
    stream.close()
    w.wait_idle(5)
    assert w.metric("stator_kv_cache_blocks", state="pinned") == blocks


def case_errors_in_openai_form(w):
    c, model = client_of(w), model_of(w)
    args = dict(model=model, prompt="Hi", max_tokens=2)
    refused(openai.NotFoundError, lambda: c.completions.create(**{**args, "model": "no-such-model"}), "no-such-model")
    refused(openai.NotFoundError, lambda: c.models.retrieve("no-such-model"))
    for field, value in (("max_tokens", -1), ("temperature", -0.5), ("temperature", 1e9), ("top_p", 2), ("n", 0),
                         ("n", 10**6), ("frequency_penalty", 99), ("stop", ["x"] * 5000), ("stop", [""]),
                         ("seed", "seven"), ("stream", "yes"), ("logit_bias", {"x": 1}), ("prompt", []),
                         ("prompt", {"a": 1}), ("prompt", [-1]), ("prompt", [10**7]), ("max_tokens", "many")):
        refused(openai.BadRequestError, lambda f=field, v=value: c.completions.create(**{**args, f: v}), field)
    for extra in ({"top_k": -7}, {"top_k": 10**13}, {"min_p": 3}, {"repetition_penalty": 0}):
        refused(openai.BadRequestError, lambda x=extra: c.completions.create(extra_body=x, **args), list(extra)[0])


def case_chat_errors(w):
    c, model = client_of(w), model_of(w)
    for messages, word in (([], "messages"), ([{"role": "wizard", "content": "x"}], "role"), ([{"role": "user"}], "content"),
                           ([{"content": "x"}], "role"), ([{"role": "user", "content": 5}], "content"), ("hello", "messages")):
        refused(openai.BadRequestError, lambda m=messages: c.chat.completions.create(model=model, messages=m), word)


def case_prompt_longer_than_context_names_both(w):
    c, model = client_of(w), model_of(w)
    body = refused(openai.BadRequestError, lambda: c.completions.create(model=model, prompt=[504] * 9000, max_tokens=4))
    assert "8192" in body["message"] and "9000" in body["message"], body


def case_metrics_parse_and_count(w):
    names = ("stator_num_requests_running", "stator_num_requests_waiting", "stator_prompt_tokens_total",
             "stator_generation_tokens_total", "stator_time_to_first_token_seconds_count",
             "stator_inter_token_latency_seconds_count", "stator_e2e_request_latency_seconds_count",
             "stator_request_queue_time_seconds_count", "stator_kv_cache_usage_perc")
    text = w.request("GET", "/v1/metrics")[2].decode()
    for name in names:
        assert re.search(rf"^{name}[ {{]", text, re.M), f"{name} is missing:\n{text}"
    before = {n: w.metric(n) for n in names}
    client_of(w).completions.create(model=model_of(w), prompt=PROMPT_IDS, max_tokens=9, extra_body={"ignore_eos": True})
    w.wait_idle()
    assert w.metric("stator_generation_tokens_total") - before["stator_generation_tokens_total"] == 9
    assert w.metric("stator_prompt_tokens_total") - before["stator_prompt_tokens_total"] == 5
    assert w.metric("stator_time_to_first_token_seconds_count") - before["stator_time_to_first_token_seconds_count"] == 1


def hinted(**hints):
    return {"ignore_eos": True, "nvext": {"agent_hints": hints}}


def case_hints_show_in_the_metrics(w):
    c, model = client_of(w), model_of(w)
    names = ("stator_e2e_request_latency_seconds_count", "stator_requests_good_total", "stator_request_success_total")
    before = {n: (w.metric(n), w.metric(n, **{"class": "high"})) for n in names}
    c.completions.create(model=model, prompt="Hi", max_tokens=3, extra_body=hinted(priority=10**12, osl=0))
    w.wait_idle()
    for name, (every, high) in before.items():
        assert w.metric(name) == every + 1 and w.metric(name, **{"class": "high"}) == high + 1, name
    assert w.metric("stator_hint_clamped_total", hint="priority") == 1 and w.metric("stator_hint_clamped_total", hint="osl") == 1
    refused(openai.BadRequestError, lambda: c.completions.create(model=model, prompt="Hi", extra_body=hinted(iat="soon")),
            "nvext.agent_hints.iat")


PERSON = {"type": "object", "properties": {"name": {"type": "string", "maxLength": 20}, "age": {"type": "integer", "minimum": 1,
          "maximum": 99}, "kind": {"enum": ["cat", "dog"]}}, "required": ["name", "age", "kind"], "additionalProperties": False}
WEATHER = {"type": "function", "function": {"name": "get_weather", "parameters": {"type": "object", "required": ["unit"],
           "properties": {"unit": {"enum": ["C", "F"]}}}}}
CLOCK = {"type": "function", "function": {"name": "get_time"}}


def is_person(text):
    p = json.loads(text)
    return list(p) == ["name", "age", "kind"] and len(p["name"]) <= 20 and 1 <= p["age"] <= 99 and p["kind"] in ("cat", "dog")


def case_answers_satisfy_their_schema(w):
    c, model = client_of(w), model_of(w)
    form = {"type": "json_schema", "json_schema": {"name": "person", "schema": PERSON, "strict": True}}
    for seed in range(6):
        r = c.chat.completions.create(model=model, messages=PARIS, seed=seed, temperature=1.5 if seed else 0, max_tokens=200,
                                      response_format=form)
        assert is_person(r.choices[0].message.content) and r.choices[0].finish_reason == "stop", r
    r = c.completions.create(model=model, prompt="A pet:", temperature=0, max_tokens=200, extra_body={"guided_json": PERSON})
    assert is_person(r.choices[0].text), r
    r = c.chat.completions.create(model=model, messages=PARIS, temperature=0, max_tokens=5, response_format=form, logprobs=True)
    assert r.choices[0].finish_reason == "length" and r.choices[0].message.content.startswith("{\"name\":"), r
    r = c.chat.completions.create(model=model, messages=PARIS, temperature=0, max_tokens=400,
                                  response_format={"type": "json_object"})
    assert r.choices[0].finish_reason == "length" or isinstance(json.loads(r.choices[0].message.content), dict), r


def case_answers_are_one_of_the_choices(w):
    c, model = client_of(w), model_of(w)
    for seed in range(4):
        r = c.chat.completions.create(model=model, messages=PARIS, seed=seed,
                                      extra_body={"guided_choice": ["Paris", "Rome, Italy"]})
        assert r.choices[0].message.content in ("Paris", "Rome, Italy") and r.choices[0].finish_reason == "stop", r


def case_guided_and_free_ones_do_not_disturb_each_other(w):
    c, model = client_of(w), model_of(w)

    def ask(i):
        extra = {"guided_json": PERSON} if i % 2 else {}
        r = c.chat.completions.create(model=model, messages=PARIS, temperature=0.8, seed=i, max_tokens=40, extra_body=extra)
        return r.choices[0].message.content

    alone = [ask(i) for i in range(6)]
    together = [None] * 6
    threads = [threading.Thread(target=lambda i=i: together.__setitem__(i, ask(i))) for i in range(6)]
    [t.start() for t in threads]
    [t.join() for t in threads]
    assert together == alone, (alone, together)


def case_a_forced_tool_is_called(w):
    c, model = client_of(w), model_of(w)
    for choice in ("required", {"type": "function", "function": {"name": "get_weather"}}):
        tools = [WEATHER, CLOCK] if choice != "required" else [WEATHER]
        args = dict(model=model, messages=PARIS, temperature=0, max_tokens=300, tools=tools, tool_choice=choice,
                    parallel_tool_calls=False)
        r = c.chat.completions.create(**args).choices[0]
        call = r.message.tool_calls[0]
        assert r.finish_reason == "tool_calls" and r.message.content is None and len(r.message.tool_calls) == 1, r
        assert call.function.name == "get_weather" and json.loads(call.function.arguments)["unit"] in ("C", "F"), r
        deltas = [e.choices[0] for e in c.chat.completions.create(stream=True, **args)]
        said = [d.delta.tool_calls[0] for d in deltas if d.delta.tool_calls]
        assert [s.function.arguments for s in said] == [call.function.arguments] and said[0].index == 0, deltas
        assert deltas[-1].finish_reason == "tool_calls", deltas


def case_a_schema_that_cannot_be_kept_is_refused(w):
    c, model = client_of(w), model_of(w)
    unkept = {"guided_json": {"properties": {"a": {"pattern": "x"}}}}
    refused(openai.BadRequestError, lambda: c.chat.completions.create(model=model, messages=PARIS, extra_body=unkept),
            "guided_json", "properties.a.pattern")
    refused(openai.BadRequestError, lambda: c.chat.completions.create(model=model, messages=PARIS, tool_choice="required"),
            "tool_choice")


def case_the_queue_view_shows_who_is_there(w):
    c, model = client_of(w), model_of(w)
    w.wait_idle()
    stream = c.completions.create(model=model, prompt=PROMPT_IDS, max_tokens=4000, stream=True,
                                  extra_body=hinted(priority=5, osl=4000, prefix_id="agent \"7\""))
    next(iter(stream))
    view = json.loads(w.request("GET", "/v1/stator/queue")[2])
    stream.close()
    assert len(view["requests"]) == 1 and view["truncated"] is False, view
    one = view["requests"][0]
    assert one["class"] == "elevated" and one["n_prompt"] == 5 and one["osl"] == 4000 and one["iat"] is None, view
    assert one["state"] in view["classes"]["elevated"] and sum(view["classes"]["elevated"].values()) == 1, view
    assert view["groups"] == [{"prefix_id": "agent \"7\"", "requests": 1}], view
    w.wait_idle(5)
    assert json.loads(w.request("GET", "/v1/stator/queue")[2])["requests"] == []


def main():
    with worker.Worker() as w:
        print(f"ready after {w.ready_ms:.0f} ms")
        failed = worker.run_cases(sys.modules[__name__], w)
    worker.finish(failed)


main()
