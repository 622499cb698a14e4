#!/usr/bin/env python3
"""Golden renderings of chat templates, made with the real Jinja2 in the set-up that transformers uses.

    make_goldens.py                              rewrites features.json beside this script from snippets.py
    make_goldens.py --templates DIR --out FILE   renders every DIR/*.jinja over the conversations below

Needs: pip install jinja2==3.1.6. The files are JSON: {"templates": {name: source}, "cases": [{"t": name, "in": {...},
"out": text} or {..., "error": text}]}; an "in" at the top serves cases without their own. An error says that Jinja2 raised; its words are for readers only.
"""
import argparse
import datetime
import functools
import glob
import json
import os

import jinja2
import jinja2.ext
import jinja2.sandbox

HERE = os.path.dirname(os.path.abspath(__file__))
NOW_S = 1771891445  # 2026-02-24 00:04:05 UTC


class Generation(jinja2.ext.Extension):
    """The block that marks what the assistant generated; it renders as its body."""

    tags = {"generation"}

    def parse(self, parser):
        line = next(parser.stream).lineno
        body = parser.parse_statements(["name:endgeneration"], drop_needle=True)
        return jinja2.nodes.CallBlock(self.call_method("_body"), [], [], body).set_lineno(line)

    def _body(self, caller):
        return caller()


def environment():
    env = jinja2.sandbox.ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, jinja2.ext.loopcontrols])

    def raise_exception(message):
        raise jinja2.exceptions.TemplateError(message)

    def tojson(x, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
        return json.dumps(x, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)

    def strftime_now(form):
        return datetime.datetime.fromtimestamp(NOW_S, datetime.timezone.utc).replace(tzinfo=None).strftime(form)

    env.filters["tojson"] = tojson
    env.globals["raise_exception"] = raise_exception
    env.globals["strftime_now"] = strftime_now
    return env


@functools.lru_cache(maxsize=4)
def compiled(env, source):
    return env.from_string(source)


def render(env, source, given):
    """The case's outcome as {"out": ...} or {"error": ...}."""
    variables = {k: given[k] for k in ("bos_token", "eos_token", "unk_token", "pad_token") if given.get(k)}
    variables.update(given.get("kwargs") or {})
    variables.update(messages=given["messages"], tools=given.get("tools"), documents=given.get("documents"),
                     add_generation_prompt=given.get("add_generation_prompt", False))
    try:
        return {"out": compiled(env, source).render(**variables)}
    except Exception as e:  # whatever Python raises inside a template counts as a refusal
        return {"error": f"{type(e).__name__}: {e}"[:200]}


def weather_tool(name="get_weather"):
    return {"type": "function", "function": {
        "name": name, "description": "Current weather in a city, e.g. \"Zürich\" <b>&</b> it's fine",
        "parameters": {"type": "object", "properties": {
            "city": {"type": "string", "description": "The city"},
            "unit": {"type": "string", "enum": ["celsius", "fahrenheit"], "default": "celsius"},
            "days": {"type": "integer", "minimum": 1}, "exact": {"type": "boolean"},
            "stops": {"type": "array", "items": {"type": "string"}},
            "where": {"type": "object", "properties": {"lat": {"type": "number"}, "lon": {"type": "number"}}}},
            "required": ["city"]}}}


def call(arguments, ident="call_1", name="get_weather"):
    return {"id": ident, "type": "function", "function": {"name": name, "arguments": arguments}}


def conversations():
    user = {"role": "user", "content": "Hello, how are you?"}
    system = {"role": "system", "content": "You are a helpful assistant."}
    bot = {"role": "assistant", "content": "Fine, thanks.\nAnd you?"}
    more = {"role": "user", "content": "  Tell me about 'quotes' & \"more\" — ünï ✓ 😀\n"}
    asks = {"role": "user", "content": "Weather in Paris?"}
    args, text_args = {"city": "Paris", "days": 2, "exact": True, "note": None, "f": 1.5}, '{"city": "Paris"}'
    tools = [weather_tool(), weather_tool("second_tool")]

    def results(extra=None):
        return {"role": "tool", "tool_call_id": "call_1", "name": "get_weather", "content": "sunny, 21°C", **(extra or {})}

    def turn(arguments, **extra):
        return {"role": "assistant", "content": "", "tool_calls": [call(arguments)], **extra}

    parts = {"role": "user", "content": [{"type": "text", "text": "What is"}, {"type": "text", "text": " this?"}]}
    image = {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "Describe."}]}
    thought = {"role": "assistant", "content": "42", "reasoning_content": "The user asks; I think."}
    inline = {"role": "assistant", "content": "<think>\nhmm\n</think>\n\nThe answer"}
    out = {
        "plain": {"messages": [user]},
        "system": {"messages": [system, user]},
        "turns": {"messages": [system, user, bot, more]},
        "no_system_turns": {"messages": [user, bot, more, bot, user]},
        "ends_assistant": {"messages": [user, bot]},
        "tools": {"messages": [system, asks], "tools": tools},
        "tools_no_system": {"messages": [asks], "tools": tools[:1]},
        "call_object": {"messages": [system, asks, turn(args), results()], "tools": tools},
        "call_text": {"messages": [asks, turn(text_args), results(), bot, more], "tools": tools},
        "call_null_content": {"messages": [asks, turn(args, content=None), results(), bot], "tools": tools},
        "calls_two": {"messages": [asks, {"role": "assistant", "content": None, "tool_calls": [
            call(args, "call_aaa1"), call(args, "call_bbb2", "second_tool")]}, results(), results({"content": "rain"})],
            "tools": tools},
        "call_mistral": {"messages": [asks, {"role": "assistant", "content": "", "tool_calls": [
            call(args, "abcdefghi")]}, {"role": "tool", "tool_call_id": "abcdefghi", "content": "{\"t\": 21}"}], "tools": tools},
        "call_bare": {"messages": [asks, turn(args), results()]},
        "call_reasoned": {"messages": [asks, turn(args, reasoning_content="need a tool"), results()], "tools": tools},
        "parts": {"messages": [system, parts]},
        "system_parts": {"messages": [{"role": "system", "content": [{"type": "text", "text": "Be brief."}]}, parts]},
        "image": {"messages": [image]},
        "reasoning": {"messages": [user, thought, more]},
        "reasoning_last": {"messages": [user, thought]},
        "inline_think": {"messages": [user, inline, more, inline]},
        "thinking_field": {"messages": [user, {"role": "assistant", "content": "x", "thinking": "deep"}, more]},
        "developer": {"messages": [{"role": "developer", "content": "Rules."}, user]},
        "result_parts": {"messages": [asks, turn(args), results({"content": [{"type": "text", "text": "ok"}]})], "tools": tools},
        "documents": {"messages": [user], "documents": [{"title": "T", "text": "body", "id": "d1"}]},
        "unknown_role": {"messages": [user, {"role": "critic", "content": "no"}]},
        "two_users": {"messages": [user, more]},
        "late_system": {"messages": [user, bot, system, more]},
        "no_content": {"messages": [{"role": "user"}]},
        "null_content": {"messages": [{"role": "user", "content": None}]},
        "number_content": {"messages": [{"role": "user", "content": 7}]},
        "empty": {"messages": []},
        "empty_text": {"messages": [{"role": "user", "content": ""}, {"role": "assistant", "content": ""}]},
        "spaces": {"messages": [{"role": "user", "content": " \n\t x \u00a0\n"}, {"role": "assistant", "content": "\n\ny\n\n"}, user]},
        "strange_tool": {"messages": [asks], "tools": [{"name": "flat", "description": "d", "parameters": {}}]},
        "custom_kwargs": {"messages": [system, user, thought, more], "kwargs": {
            "enable_thinking": False, "thinking": False, "reasoning_effort": "high", "custom_tools": None,
            "date_string": "01 Jan 2025", "builtin_tools": ["code_interpreter"], "keep_past_thinking": True}},
        "thinking_on": {"messages": [system, user, thought, more], "kwargs": {"enable_thinking": True, "thinking": True}},
        "builtin": {"messages": [system, asks], "tools": tools, "kwargs": {"builtin_tools": ["browser", "python", "wolfram_alpha"]}},
    }
    for name, given in out.items():
        for prompt in (False, True):
            for tokens in (True, False):
                if not tokens and name not in ("plain", "system", "call_object"):
                    continue
                case = dict(given, add_generation_prompt=prompt)
                if tokens:
                    case.update(bos_token="<s>", eos_token="</s>")
                yield case


def write(path, doc):
    with open(path, "w", encoding="utf-8") as f:
        json.dump(doc, f, ensure_ascii=True, indent=0, separators=(",", ":"))
        f.write("\n")


def corpus(folder, out):
    env = environment()
    doc = {"now_s": NOW_S, "templates": {}, "cases": []}
    cases = list(conversations())
    for path in sorted(glob.glob(os.path.join(folder, "*.jinja"))):
        with open(path, encoding="utf-8", newline="") as f:
            source = f.read()
        name = os.path.basename(path)
        doc["templates"][name] = source
        for given in cases:
            doc["cases"].append({"t": name, "in": given, **render(env, source, given)})
    write(out, doc)
    raised = sum("error" in c for c in doc["cases"])
    print(f"{len(doc['templates'])} templates, {len(doc['cases'])} cases, {raised} of them raise")


def features():
    import snippets
    env = environment()
    doc = {"now_s": NOW_S, "in": snippets.INPUT, "templates": {}, "cases": []}
    for i, source in enumerate(snippets.SNIPPETS):
        name = f"{i:03d}"
        doc["templates"][name] = source
        outcome = render(env, source, snippets.INPUT)
        assert " at 0x" not in outcome.get("out", ""), source
        doc["cases"].append({"t": name, **outcome})
    write(os.path.join(HERE, "features.json"), doc)
    raised = sum("error" in c for c in doc["cases"])
    print(f"{len(doc['cases'])} snippets, {raised} of them raise")


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--templates")
    p.add_argument("--out")
    a = p.parse_args()
    if a.templates:
        corpus(a.templates, a.out)
    else:
        features()


if __name__ == "__main__":
    main()
