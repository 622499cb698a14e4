#!/usr/bin/env python3
"""ChatNVIDIADynamo of langchain-nvidia-ai-endpoints, in all its call forms: straight against a worker, and through Dynamo's frontend.

Each form is compared with what the worker's own endpoint says to a bare HTTP client. The 1.6.1 frontend answers 400 to two of the hints
that this client sends with each call (prefix_id and iat); through it they are left out, as a subclass of an application would. The model's
own chat template knows no tools, so it is given that of a relative with the same marks.
"""
import asyncio
import enum
import json
import os
import sys
import warnings
from typing import Literal

os.environ.update(NVIDIA_USAGE_TELEMETRY_ENABLED="0", LANGCHAIN_TRACING_V2="false", NO_PROXY="127.0.0.1")

import dynamo  # noqa: E402
import environment  # noqa: E402
from worker import CACHE, finish, run_cases, skip  # noqa: E402

try:
    from langchain_core.messages import AIMessage, HumanMessage, SystemMessage, ToolMessage
    from langchain_core.utils.function_calling import convert_to_openai_tool
    from langchain_nvidia_ai_endpoints import ChatNVIDIADynamo, Model, register_model
    from pydantic import BaseModel
except ImportError:
    ChatNVIDIADynamo = BaseModel = object  # main() starts this file again where they are

PACKAGES = ["langchain-nvidia-ai-endpoints==1.5.0", "langchain-core==1.7.2", "prometheus-client==0.26.0"]
TEMPLATE = os.path.join(CACHE, "corpus", "models", "templates", "Qwen-Qwen2.5-7B-Instruct.jinja")
QUESTION = "Tell me about the sea."
FOREVER = {"max_tokens": 4000, "ignore_eos": True}


class WithoutRefusedHints(ChatNVIDIADynamo):
    def _get_payload(self, inputs, **kwargs):
        payload = super()._get_payload(inputs, **kwargs)
        for hint in ("prefix_id", "iat"):
            del payload["nvext"]["agent_hints"][hint]
        return payload


class Door:
    """One way to the worker: a client class and an address."""
    answers = {}  # of the worker itself, by request: the same at all doors

    def __init__(self, deployment, client, port):
        self.worker, self.model = deployment.workers[0], deployment.model
        self.client, self.url = client, f"http://127.0.0.1:{port}/v1"
        self.through_frontend = port == deployment.port

    def llm(self, **settings):
        return self.client(model=self.model, base_url=self.url, api_key="any", **{"temperature": 0, "max_completion_tokens": 16, **settings})

    def plain(self, messages=QUESTION, **body):
        """The worker's own answer to a bare client."""
        if isinstance(messages, str):
            messages = [{"role": "user", "content": messages}]
        body = json.dumps({"model": self.model, "messages": messages, "temperature": 0, "max_tokens": 16, **body})
        if body not in self.answers:
            status, _, raw = self.worker.request("POST", "/v1/chat/completions", body)
            assert status == 200, raw
            self.answers[body] = json.loads(raw)
        return self.answers[body]

    def plain_text(self, *args, **body):
        return self.plain(*args, **body)["choices"][0]["message"]["content"]

    def wait_running(self):
        dynamo.until("a request runs", 10, lambda: self.worker.metric("stator_num_requests_running"))


class Stage(enum.Enum):
    SKETCH = "sketch"
    FINAL = "final version"


class Forecast(BaseModel):
    """A weather forecast"""
    sky: Literal["clear", "grey"]
    rain: bool
    degrees: Literal[10, 20, 30]


def get_weather(city: Literal["Rome", "Oslo"], days: Literal[1, 3, 7]) -> str:
    """Get the weather in a city"""
    return f"{city} {days}"


def call_is_valid(call):
    assert call["name"] == "get_weather" and call["id"], call
    assert call["args"]["city"] in ("Rome", "Oslo") and call["args"]["days"] in (1, 3, 7), call
    assert get_weather(**call["args"])


def joined(chunks):
    whole = None
    for chunk in chunks:
        whole = chunk if whole is None else whole + chunk
    return whole


def case_invoke_is_the_greedy_answer(door):
    reply = door.llm().invoke(QUESTION)
    own = door.plain()
    assert reply.content == own["choices"][0]["message"]["content"] and reply.content, (reply, own)
    assert reply.usage_metadata["input_tokens"] == own["usage"]["prompt_tokens"], reply.usage_metadata
    assert reply.usage_metadata["output_tokens"] == own["usage"]["completion_tokens"] == 16, reply.usage_metadata
    assert reply.response_metadata["finish_reason"] == "length", reply.response_metadata


def case_parameters_of_a_call_act(door):
    base = door.plain_text()
    word = base.split()[3]
    drawn = {"temperature": 1.0, "seed": 3}
    for settings in ({"max_tokens": 9}, {"stop": [word]}, {"frequency_penalty": 2.0}, drawn, {**drawn, "seed": 4},
                     {**drawn, "top_p": 0.5}):
        own = door.plain_text(**settings)
        assert own != base, settings  # or it shows nothing
        assert door.llm().invoke(QUESTION, **settings).content == own, settings
    assert len({door.plain_text(**s) for s in (drawn, {**drawn, "seed": 4}, {**drawn, "top_p": 0.5})}) == 3
    # the newer name, which this client sends beside the older one, wins
    assert door.llm().invoke(QUESTION, max_completion_tokens=11).usage_metadata["output_tokens"] == 11
    # the constructor's are those of each call
    llm = door.llm(temperature=1.0, seed=3, top_p=0.5)
    assert llm.invoke(QUESTION).content == door.plain_text(**drawn, top_p=0.5)


def case_hints_reach_the_worker(door):
    def seen(**overrides):
        stream = door.llm().stream(QUESTION, **FOREVER, **overrides)
        next(stream)
        requests = json.loads(door.worker.request("GET", "/v1/stator/queue")[2])["requests"]
        stream.close()
        door.worker.wait_idle()
        assert len(requests) == 1, requests
        return requests[0]

    def check(request, **wanted):
        for name, value in wanted.items():
            assert request[name] == value, (name, value, request)

    default, other = seen(), seen(osl=2048, iat=50, latency_sensitivity=0.25, priority=7)
    check(default, priority=1, osl=512, via="dynamo" if door.through_frontend else "http")
    check(other, priority=7, osl=2048)
    if not door.through_frontend:
        check(default, iat=250, latency_sensitivity=1.0)
        check(other, iat=50, latency_sensitivity=0.25)
        assert other["prefix_id"].startswith("langchain-dynamo-") and other["prefix_id"] != default["prefix_id"]
    check(seen(nvext={"agent_hints": {"strict_priority": 2}}), priority=1, osl=512, strict_priority=2)


def case_nvext_is_merged(door):
    long = "The history of the steam engine, told once more and at length. " * 8

    def cached(salt):
        before = door.worker.metric("stator_prefix_cache_hits_total")
        assert door.llm().invoke(long, nvext={"cache_salt": salt + door.url}, max_tokens=2).content == own
        return door.worker.metric("stator_prefix_cache_hits_total") - before

    own = door.plain_text(long, max_tokens=2)
    assert cached("tenant a") == 0
    assert cached("tenant a") > 64
    assert cached("tenant b") == 0


def case_stream_joins_to_the_answer(door):
    own = door.plain()
    chunks = list(door.llm().stream(QUESTION))
    assert "".join(c.content for c in chunks) == own["choices"][0]["message"]["content"] and len(chunks) > 8
    whole = joined(chunks)
    assert whole.usage_metadata["output_tokens"] == own["usage"]["completion_tokens"], whole.usage_metadata
    assert whole.usage_metadata["input_tokens"] == own["usage"]["prompt_tokens"], whole.usage_metadata
    assert whole.response_metadata["finish_reason"] == "length", whole.response_metadata


def case_batch_answers_each(door):
    """The threads of this client's batch share the body that is sent next (last_inputs): under load one question at times goes out twice
    and another not at all. So what was sent is compared with what came back, and the batch as a whole when the client sent all of it."""
    questions = [f"{QUESTION} Part {i}." for i in range(3)]
    own = {q: door.plain_text(q) for q in questions}
    for attempt in range(10):
        llm, exchanges = door.llm(), []
        create = llm._client.get_session_fn

        def recording(create=create, exchanges=exchanges):
            session = create()
            session.hooks["response"].append(lambda reply, *_, **__: exchanges.append((json.loads(reply.request.body), reply.json())))
            return session
        llm._client.get_session_fn = recording
        answers = [m.content for m in llm.batch(questions)]
        sent = [body["messages"][-1]["content"] for body, _ in exchanges]
        assert [reply["choices"][0]["message"]["content"] for _, reply in exchanges] == [own[q] for q in sent], (sent, exchanges)
        if sorted(sent) == questions:
            assert answers == list(own.values()), (answers, own)
            return
        print(f"the client sent {sent}: once more", flush=True)
    raise AssertionError("the client never sent all of its batch")


def case_async_forms_say_the_same(door):
    async def all_forms():
        llm = door.llm()
        whole, *two = await asyncio.gather(llm.ainvoke(QUESTION), *(llm.ainvoke(q) for q in ("one", "two")))
        pieces = [chunk.content async for chunk in llm.astream(QUESTION)]
        return whole.content, [m.content for m in two], "".join(pieces)
    own = door.plain_text()
    assert asyncio.run(all_forms()) == (own, [door.plain_text("one"), door.plain_text("two")], own)


def case_messages_of_all_roles(door):
    calls = [{"id": "call-1", "type": "function", "function": {"name": "get_weather", "arguments": '{"city": "Rome", "days": 1}'}}]
    messages = [SystemMessage("You answer in one line."), HumanMessage("Hello."), AIMessage("Hello, you."), HumanMessage("Weather?"),
                AIMessage("", additional_kwargs={"tool_calls": calls}), ToolMessage("sunny", tool_call_id="call-1"),
                HumanMessage("Thanks. And tomorrow?")]
    own = door.plain_text([
        {"role": "system", "content": "You answer in one line."}, {"role": "user", "content": "Hello."},
        {"role": "assistant", "content": "Hello, you."}, {"role": "user", "content": "Weather?"},
        {"role": "assistant", "content": "", "tool_calls": calls}, {"role": "tool", "content": "sunny", "tool_call_id": "call-1"},
        {"role": "user", "content": "Thanks. And tomorrow?"}])
    assert door.llm().invoke(messages).content == own


def case_tools_of_free_choice(door):
    llm = door.llm().bind_tools([get_weather])
    first = llm.invoke("Weather in Rome?")
    own = door.plain("Weather in Rome?", tools=[convert_to_openai_tool(get_weather)])
    assert first.content == own["choices"][0]["message"]["content"], (first, own)
    assert first.usage_metadata["input_tokens"] == own["usage"]["prompt_tokens"] > 100, first  # the tools are in the prompt
    called = AIMessage("", tool_calls=[{"name": "get_weather", "args": {"city": "Rome", "days": 1}, "id": "t1"}])
    second = llm.invoke([HumanMessage("Weather in Rome?"), called, ToolMessage(get_weather("Rome", 1), tool_call_id="t1")])
    assert second.content or second.tool_calls, second


def case_calls_of_free_choice_are_read_from_the_text(door):
    """Which so small a model writes only where it can copy most of one."""
    turns = []
    for i, (city, days) in enumerate((("Rome", 3), ("Oslo", 1), ("Rome", 7), ("Oslo", 3))):
        call = {"id": f"t{i}", "type": "function", "function": {"name": "get_weather", "arguments": json.dumps({"city": city, "days": days})}}
        turns += [HumanMessage(f"Weather in {city}, days: {days}"), AIMessage("", additional_kwargs={"tool_calls": [call]}),
                  ToolMessage(get_weather(city, days), tool_call_id=call["id"]), AIMessage(get_weather(city, days))]
    turns.append(HumanMessage("Weather in Rome, days: 1"))
    llm = door.llm(max_completion_tokens=80).bind_tools([get_weather])
    for reply in (llm.invoke(turns), joined(llm.stream(turns))):
        assert [(c["name"], c["args"]) for c in reply.tool_calls] == [("get_weather", {"city": "Rome", "days": 1})], reply
        assert reply.tool_calls[0]["id"] and not reply.content, reply
        assert reply.response_metadata["finish_reason"] == "tool_calls", reply


def case_tools_that_must_be_called(door):
    question = "Weather in Rome, the next three days?"
    for choice in ("any", "required", "get_weather", True, {"type": "function", "function": {"name": "get_weather"}}):
        llm = door.llm(max_completion_tokens=120).bind_tools([get_weather], tool_choice=choice, parallel_tool_calls=False)
        reply = llm.invoke(question)
        assert reply.tool_calls and not reply.invalid_tool_calls, (choice, reply)
        for call in reply.tool_calls:
            call_is_valid(call)
    whole = joined(llm.stream(question))
    assert [(c["name"], c["args"]) for c in whole.tool_calls] == [(c["name"], c["args"]) for c in reply.tool_calls], (whole, reply)
    assert whole.response_metadata["finish_reason"] == reply.response_metadata["finish_reason"], (whole, reply)


def case_a_turn_with_a_tool_s_result(door):
    llm = door.llm(max_completion_tokens=120).bind_tools([get_weather], tool_choice="any", parallel_tool_calls=False)
    turn = [HumanMessage("Weather in Rome?")]
    turn.append(llm.invoke(turn))
    turn += [ToolMessage(get_weather(**c["args"]), tool_call_id=c["id"]) for c in turn[-1].tool_calls]
    reply = door.llm().invoke(turn)
    own = door.plain([{"role": "user", "content": "Weather in Rome?"}, {"role": "assistant", "content": None, "tool_calls": [
        {"id": c["id"], "type": "function", "function": {"name": c["name"], "arguments": json.dumps(c["args"])}}
        for c in turn[1].tool_calls]}, *({"role": "tool", "content": t.content, "tool_call_id": t.tool_call_id} for t in turn[2:])])
    assert reply.content == own["choices"][0]["message"]["content"], (reply, own)
    assert reply.usage_metadata["input_tokens"] == own["usage"]["prompt_tokens"], (reply, own)


def case_structured_output_has_its_type(door):
    llm = door.llm(max_completion_tokens=120)
    forecast = llm.with_structured_output(Forecast).invoke("Forecast for Rome, please.")
    assert isinstance(forecast, Forecast), forecast
    raw = llm.with_structured_output(Forecast.model_json_schema()).invoke("Forecast for Rome, please.")
    assert isinstance(raw, dict) and Forecast.model_validate(raw) == forecast, (raw, forecast)
    assert isinstance(llm.with_structured_output(Stage).invoke("Is this a sketch?"), Stage)
    assert list(llm.with_structured_output(Forecast).stream("Forecast for Rome, please."))[-1] == forecast


def case_thinking_mode(door):
    for enabled, words in ((True, "detailed thinking on"), (False, "detailed thinking off")):
        own = door.plain_text([{"role": "system", "content": words}, {"role": "user", "content": QUESTION}])
        assert door.llm().with_thinking_mode(enabled=enabled).invoke(QUESTION).content == own, words
    asked = door.llm().invoke(QUESTION, chat_template_kwargs={"enable_thinking": True})
    assert asked.content == door.plain_text()  # this template does not look at it


def case_the_client_finds_the_model(door):
    assert door.client(base_url=door.url, api_key="any").model == door.model
    assert [m.id for m in door.llm().available_models] == [door.model]


def case_a_closed_stream_leaves_the_worker_idle(door):
    before = door.worker.metric("stator_generation_tokens_total")
    stream = door.llm().stream(QUESTION, **FOREVER)
    next(stream)
    door.wait_running()
    stream.close()
    door.worker.wait_idle()

    async def leave():
        stream = door.llm().astream(QUESTION, **FOREVER)
        await anext(stream)
        door.wait_running()
        await stream.aclose()
    asyncio.run(leave())
    door.worker.wait_idle()
    assert door.worker.metric("stator_generation_tokens_total") - before < 1000, "it went on without its client"


def main():
    dynamo.python()
    environment.again_in(environment.python("langchain", PACKAGES))
    if not os.path.exists(TEMPLATE):
        skip(f"the chat template is not there (./test fetches it): {TEMPLATE}")
    warnings.simplefilter("ignore")  # of the client, about models that it does not know
    with dynamo.Deployment(workers=1, worker_flags=["--chat-template", TEMPLATE], frontend_flags=()) as d:
        register_model(Model(id=d.model, model_type="chat", client="ChatNVIDIA", endpoint="not asked", supports_thinking=True,
                             thinking_prefix="detailed thinking on", no_thinking_prefix="detailed thinking off"))
        failed = run_cases(sys.modules[__name__], Door(d, ChatNVIDIADynamo, d.workers[0].port))
        print("through the frontend:", flush=True)
        failed += run_cases(sys.modules[__name__], Door(d, WithoutRefusedHints, d.port))
    finish(failed)


if __name__ == "__main__":
    main()
