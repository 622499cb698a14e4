#!/usr/bin/env python3
"""What each agent hint does, measured: small workloads with a hint and without it, replayed by `stator simulate`
(the real scheduler and cache, a modelled H100, Llama-3.1-8B). Prints the examples of docs/HINTS.md.

    bench/hints.py [--stator build/release/stator]
"""
import argparse
import csv
import json
import pathlib
import random
import subprocess
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent


def run(stator, requests, *flags):
    """Replays requests (dicts of the trace form); returns them in order of arrival, as rows of the CSV."""
    with tempfile.TemporaryDirectory() as tmp:
        trace, out = pathlib.Path(tmp, "trace.jsonl"), pathlib.Path(tmp, "out.csv")
        trace.write_text("".join(json.dumps(r) + "\n" for r in sorted(requests, key=lambda r: r["t_ms"])))
        command = [stator, "simulate", "--trace", str(trace), "--csv", str(out), "--model",
                   str(ROOT / "bench/configs/llama-3.1-8b"), *flags]
        table = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        with open(out) as f:
            return list(csv.DictReader(f)), table


def quantile(values, q):
    values = sorted(values)
    return values[min(len(values) - 1, int(q * len(values)))]


def flood(n=600, **hints):
    """Long answers that fill 64 places ten times over."""
    rng = random.Random(1)
    return [{"t_ms": i, "prompt_tokens": rng.randint(800, 1200), "output_tokens": 500, "l": 0.5, **hints} for i in range(n)]


def on_top(n=20, **hints):
    return [{"t_ms": 5000 + 500 * i, "prompt_tokens": 1000, "output_tokens": 10, **hints} for i in range(n)]


def ttft(rows, pick):
    got = [float(r["ttft_ms"]) for r in rows if pick(r)]
    return f"{quantile(got, 0.5):.0f} / {quantile(got, 0.99):.0f} ms"


def short(row):
    return int(row["output"]) == 10


def priority(stator):
    for p in (0, 10):
        rows, _ = run(stator, flood() + on_top(priority=p), "--max-num-seqs", "64")
        print(f"  20 requests of priority {p} on a flood of priority 0: TTFT P50 / P99 {ttft(rows, short)}")


def strict_priority(stator):
    for s in (0, 1):
        rows, _ = run(stator, flood(priority=100) + on_top(strict=s), "--max-num-seqs", "64")
        print(f"  20 requests of strict_priority {s}, priority 0, on a flood of priority 100: TTFT P50 / P99 {ttft(rows, short)}")


def osl(stator):
    for announced in (50, 500):
        rows, table = run(stator, flood(300, osl=announced), "--kv-bytes", "4G")
        head, total = (line.split() for line in table.splitlines() if line.startswith(("class", "all")))
        twice = total[-4]
        n = sum(int(r["preempted"]) for r in rows)
        print(f"  300 answers of 500 tokens announced as {announced}, cache for 20 of them: {n} preemptions, "
              f"{twice} tokens computed twice")


def latency_sensitivity(stator):
    rng = random.Random(2)
    prompts = [{"t_ms": 2000 + 400 * i, "prompt_tokens": 30000, "output_tokens": 20, "l": 0.5} for i in range(20)]
    for l in (0, 0.5, 1):
        chats = [{"t_ms": rng.randint(0, 500), "prompt_tokens": 300, "output_tokens": 1000, "l": l} for _ in range(16)]
        rows, _ = run(stator, chats + prompts, "--max-step-ms", "100")
        gaps = [(float(r["end_to_end_ms"]) - float(r["ttft_ms"])) / 999 for r in rows if int(r["output"]) == 1000]
        print(f"  16 streams of latency_sensitivity {l} beside prompts of 30,000 tokens: "
              f"{quantile(gaps, 0.5):.1f} ms a token; the prompts' TTFT P50 / P99 "
              f"{ttft(rows, lambda r: int(r['output']) == 20)}")


def iat(stator):
    """Agents that come back after 15 s; one-shot prompts push through a cache that would forget them in 10 s."""
    for gap in (0, 15000):
        rng = random.Random(3)
        agents = []
        for conv in range(15):
            t = rng.randint(0, 15000)
            for turn in range(6):
                agents.append({"t_ms": t, "prompt_tokens": 2000 + 600 * turn, "output_tokens": 100, "conv": conv, "l": 0.5,
                               **({"iat": gap} if gap else {})})
                t += 15000 + rng.randint(-1000, 1000)
        noise = [{"t_ms": 150 * i, "prompt_tokens": 2000, "output_tokens": 20, "l": 0.5} for i in range(700)]
        rows, _ = run(stator, agents + noise, "--kv-bytes", "20G")
        turns = [r for r in rows if int(r["output"]) == 100]
        hit = sum(int(r["cached"]) for r in turns) / sum(int(r["prompt"]) for r in turns)
        print(f"  15 conversations that come back after 15 s, iat {gap or 'not given'}: {100 * hit:.0f} % of their prompts "
              f"from the cache, TTFT P50 / P99 {ttft(turns, lambda r: True)}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stator", default=str(ROOT / "build/release/stator"))
    stator = parser.parse_args().stator
    for example in (priority, strict_priority, osl, latency_sensitivity, iat):
        print(example.__name__)
        example(stator)


if __name__ == "__main__":
    main()
