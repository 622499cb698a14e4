#!/usr/bin/env python3
"""Records what llama.cpp says greedily, and how sure it was, for 20 prompts: margins.json.

usage: make_margins.py URL OUT     URL of a llama-server that serves the default model (SmolLM2-135M-Instruct Q4_1)

For each prompt: its token ids (no BOS is added), the first 48 greedy tokens, the text up to the end of each of them (byte
offsets), and the margin of each choice: log-probability of the first minus that of the second candidate, in nats. A
greedy continuation is comparable between two implementations only as long as the margin is larger than their numeric
noise; check_margins.py needs the margins for that.
"""
import json
import sys
import urllib.request

TOKENS = 48
PROMPTS = [
    "The capital of France is",
    "Water boils at a temperature of",
    "Once upon a time, in a small village by the sea, there lived",
    "The three primary colors are",
    "def fibonacci(n):\n    \"\"\"Return the n-th Fibonacci number.\"\"\"\n",
    "#include <stdio.h>\n\nint main(void)\n{\n",
    "Q: What is 12 + 30?\nA:",
    "Photosynthesis is the process by which",
    "Dear Sir or Madam,\n\nI am writing to",
    "1, 2, 3, 4, 5, 6,",
    "The first president of the United States was",
    "SELECT name, age FROM users WHERE",
    "In the beginning God created",
    "La tour Eiffel se trouve à",
    "Ingredients:\n- 2 cups of flour\n- 1 cup of sugar\n-",
    "<|im_start|>user\nWhat is the capital of France?<|im_end|>\n<|im_start|>assistant\n",
    "<|im_start|>user\nWrite a short poem about the sea.<|im_end|>\n<|im_start|>assistant\n",
    "Machine learning is a field of",
    "The quick brown fox",
    "{\"name\": \"Alice\", \"age\": 30, \"city\":",
]


def post(url, body):
    request = urllib.request.Request(url, json.dumps(body).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=600) as reply:
        return json.load(reply)


def record(url, prompt):
    ids = post(url + "/tokenize", {"content": prompt, "add_special": False, "parse_special": True})["tokens"]
    reply = post(url + "/completion", {"prompt": ids, "n_predict": TOKENS, "temperature": 0, "n_probs": 2,
                                       "return_tokens": True, "cache_prompt": False, "repeat_penalty": 1.0})
    steps = reply["completion_probabilities"]
    margins, text, ends = [], b"", []
    for step in steps:
        first, second = step["top_logprobs"][:2]
        if first["id"] != step["id"]:
            sys.exit(f"{prompt!r}: the sampled token is not the most likely one")
        margins.append(round(first["logprob"] - second["logprob"], 4))
        text += bytes(step["bytes"])
        ends.append(len(text))
    return {"prompt": prompt, "prompt_ids": ids, "tokens": [step["id"] for step in steps], "margins": margins,
            "text": text.decode("utf-8", "surrogateescape"), "ends": ends,
            "stopped": reply["stop_type"] == "eos"}


def main():
    url, out = sys.argv[1].rstrip("/"), sys.argv[2]
    version = json.load(urllib.request.urlopen(url + "/props"))["build_info"]
    rows = [record(url, prompt) for prompt in PROMPTS]
    head = {"model": "SmolLM2-135M-Instruct Q4_1", "made_by": "make_margins.py with llama.cpp " + version}
    with open(out, "w", encoding="utf-8") as f:
        f.write(json.dumps(head)[:-1] + ', "prompts": [\n')
        f.write(",\n".join(json.dumps(row, ensure_ascii=True) for row in rows))
        f.write("\n]}\n")
    flat = sorted(m for row in rows for m in row["margins"])
    print(f"{len(rows)} prompts, {len(flat)} tokens; margins below 0.1/0.3/0.5/1.0 nat:",
          [sum(m < limit for m in flat) for limit in (0.1, 0.3, 0.5, 1.0)])


main()
