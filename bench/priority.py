#!/usr/bin/env python3
"""The seed workload over real HTTP, with priorities and without: tables to read, and bench/results/<cpu>_priority.{csv,md}.

Two workers of one build stay loaded, one with --enable-priority-scheduling; both get the same requests with the same hints, and
only one is asked at a time, so "off" is the load with its hints ignored.

  idle       HIGH requests one at a time, and one triage pipeline, on the idle worker
  flood      LOW requests fill every place and a queue behind; HIGH ones arrive like Poisson on top; rounds alternate on, off
  pipelines  triage pipelines, all at once, on top of the same flood

Times are the client's, from when a request was due. Percentiles are of all rounds together. A step's mean is the window over
the worker's count of steps, its P99 comes from the times between bursts of the flood's tokens. Counts (steps waited, preemptions,
recomputed tokens) do not move with the machine's load; times do: run it on an idle machine, or with --nice.
"""
import argparse
import collections
import csv
import datetime
import json
import math
import os
import re
import statistics
import subprocess
import sys
import tempfile
import threading
import time

from machine import ROOT, commit, cpu_name, file_name, table, take_priority

sys.path.insert(0, os.path.join(ROOT, "tests", "e2e"))
import worker  # noqa: E402  what starts and stops a worker for the end-to-end tests

STAGES = ("classify", "research", "draft", "review")
PRIORITY_OF = {"classify": "HIGH", "research": "LOW", "draft": "MED", "review": "HIGH"}


def scrape(server):
    """{(name, labels as text): value} of the metrics page."""
    page = server.request("GET", "/metrics")[2].decode()
    found = re.findall(r'^stator_(\w+)(?:\{(.*)\})? ([-+.\deE]+)$', page, re.M)
    return collections.Counter({(name, labels): float(value) for name, labels, value in found})


def total(metrics, name, label=""):
    return sum(v for (n, labels), v in metrics.items() if n == name and label in labels)


def until_idle(server):
    while any(total(scrape(server), name) for name in ("num_requests_running", "num_requests_waiting")):
        time.sleep(0.05)


class Part:
    """One run of bench_priority: its report, the metrics at both ends of the window, and how full the worker was within."""

    def __init__(self, args, server, flags):
        self.fullness = []
        stop = threading.Event()

        def watch():
            while not stop.wait(0.25):
                m = scrape(server)
                self.fullness.append((total(m, "num_requests_running"), total(m, "num_requests_waiting")))
        watcher = threading.Thread(target=watch)
        at = {}
        with tempfile.NamedTemporaryFile(suffix=".json") as out:
            command = [args.client, "--url", server.url, "--json", out.name] + [str(f) for f in flags]
            with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as client:
                for line in client.stdout:
                    if line == "window begins\n":
                        watcher.start()
                    elif line == "window ends\n":
                        stop.set()
                    at[line.split()[1]] = scrape(server)
            if client.returncode != 0:
                sys.exit(f"bench_priority failed:\n{server.log()[-2000:]}")
            watcher.join()
            report = json.load(open(out.name, encoding="utf-8"))
        until_idle(server)
        at["drained"] = scrape(server)
        self.delta = collections.Counter({k: v - at["begins"][k] for k, v in at["ends"].items()})
        self.whole = collections.Counter({k: v - at["begins"][k] for k, v in at["drained"].items()})
        self.seconds = report["window_ms"] / 1000
        self.records = [r for r in report["records"] if r["done"] and (r["window"] or r["stage"] in STAGES)]
        self.low_tok_s = report["flood_events"] / self.seconds
        starts = [t for t in report["step_ms"] if 0 <= t <= report["window_ms"]]
        self.steps = [b - a for a, b in zip(starts, starts[1:])]

    def of(self, stage):
        return [r for r in self.records if r["stage"] == stage]

    def occupancy(self, places):
        """Mean share of places taken; 0 when there was a sample in which nobody waited. A place is seen empty for a step."""
        return statistics.mean(r for r, _ in self.fullness) / places if all(w > 0 for _, w in self.fullness) else 0

    def computed_tok_s(self):
        return (total(self.delta, "prompt_tokens_total") + total(self.delta, "generation_tokens_total")) / self.seconds


def ttft(r):
    return r["first_ms"] - r["start_ms"]


def rank(values, p):
    """Nearest rank: a value that was measured."""
    return sorted(values)[max(0, math.ceil(p / 100 * len(values)) - 1)] if values else float("nan")


def gaps_ms(records):
    return [g / 1000 for r in records for g in r["gap_us"]]


def merge(parts, stage):
    return [r for p in parts for r in p.of(stage)]


def steps_text(records):
    counts = collections.Counter(r["steps"] for r in records)
    return ", ".join(f"{n} waited {k}" for k, n in sorted(counts.items()))


# ---- the tables ---------------------------------------------------------------------------------------------------------

def step_ms(parts):
    """Mean, by the worker's own count."""
    return 1000 * sum(p.seconds for p in parts) / sum(total(p.delta, "engine_steps_total") for p in parts)


def step_p99(parts):
    return rank([s for p in parts for s in p.steps], 99)


def flood_table(idle, on, off):
    columns = [[idle], on, off]
    highs = [merge(c, "high") for c in columns]
    rows = [["HIGH requests"] + [str(len(h)) for h in highs]]
    for name, p in (("P50", 50), ("P90", 90), ("P99", 99), ("max", 100)):
        rows.append([f"HIGH TTFT {name}, ms"] + [f"{rank([ttft(r) for r in h], p):.0f}" for h in highs])
    rows.append(["HIGH ITL P50 / P99, ms"] + [f"{rank(gaps_ms(h), 50):.1f} / {rank(gaps_ms(h), 99):.1f}" for h in highs])
    rows.append(["step mean / P99, ms", ""] + [f"{step_ms(c):.1f} / {step_p99(c):.1f}" for c in (on, off)])
    rows.append(["HIGH TTFT P50 / P99 in mean steps", ""] + [
        " / ".join(f"{rank([ttft(r) for r in merge(c, 'high')], p) / step_ms(c):.1f}" for p in (50, 99)) for c in (on, off)])
    rows.append(["LOW tokens/s (median round)", ""] + [f"{statistics.median(p.low_tok_s for p in c):.0f}" for c in (on, off)])
    rows.append(["all computed tokens/s", ""] + [f"{statistics.median(p.computed_tok_s() for p in c):.0f}" for c in (on, off)])
    return table(["", "idle", "flood, on", "flood, off (hints ignored)"], rows)


def counts_table(on, off):
    rows = []
    for name, metric in (("preemptions", "preemptions_total"), ("resumed tokens", "resumed_tokens_total"),
                         ("recomputed tokens", "recomputed_tokens_total"),
                         ("ran before a higher class by age", "aged_ahead_total")):
        for cls in ("normal", "high"):
            rows.append([f"{name}, class {cls}"] + [
                f"{sum(total(p.whole, metric, f',class={chr(34)}{cls}{chr(34)}') for p in parts):.0f}" for parts in (on, off)])
    return table(["since the window began, all rounds", "on", "off"], rows)


def critical_path(records):
    """Per pipeline: what each stage adds to the way from the first request to the last answer (research: its slowest)."""
    ways = {}
    for p in sorted({r["pipeline"] for r in records}):
        own = [r for r in records if r["pipeline"] == p]
        ends = {s: max(r["done_ms"] for r in own if r["stage"] == s) for s in STAGES}
        starts = {s: min(r["start_ms"] for r in own if r["stage"] == s) for s in STAGES}
        ways[p] = {s: ends[s] - starts[s] for s in STAGES}
        ways[p]["total"] = ends["review"] - starts["classify"]
    return ways


def pipeline_table(idle, on, off):
    alone = {s: statistics.median(ttft(r) for r in idle.of(s)) for s in STAGES}
    ways = [critical_path([r for r in p.records if r["stage"] in STAGES]) for p in (idle, on, off)]
    rows = []
    for s in STAGES:
        cells = [f"{s} ({PRIORITY_OF[s]})", f"{alone[s]:.0f}"]
        for part in (on, off):
            waits = [ttft(r) for r in part.of(s)]
            cells += [f"{statistics.median(max(0, w - alone[s]) for w in waits):.0f}",
                      f"{statistics.median(waits):.0f} / {max(waits):.0f}",
                      f"{statistics.median(r['done_ms'] - r['start_ms'] for r in part.of(s)):.0f}"]
        rows.append(cells)
    one = table(["stage", "TTFT idle", "on: waits", "TTFT P50 / max", "total", "off: waits", "TTFT P50 / max", "total"], rows)
    rows = []
    for s in STAGES + ("total",):
        name = f"**{s}**" if s == "total" else s
        rows.append([name] + [f"{statistics.median(w[s] for w in way.values()):.0f}" for way in ways])
    two = table(["critical path, ms (median of the pipelines)", "idle, one pipeline", "on", "off"], rows)
    return one + "\n\n" + two


def verdicts(args, idle, on, off, everything):
    base = rank([ttft(r) for r in idle.of("high")], 99)
    worst = rank([ttft(r) for r in merge(on, "high")], 99)
    lone = rank([ttft(r) for r in merge(on, "high") if r["n_high"] == 0], 99)
    ratio = statistics.median(a.low_tok_s / b.low_tok_s for a, b in zip(on, off))
    lost = sum(total(p.whole, "recomputed_tokens_total") for p in everything)
    full = min(p.occupancy(args.max_num_seqs) for p in on + off)
    said = [(full >= 0.95, f"flood: {100 * full:.1f} % of the places taken in the least full round, somebody waiting in every sample")]
    for name, step in (("mean", step_ms(on)), ("P99", step_p99(on))):
        said.append((worst <= 1.3 * base + step,
                     f"HIGH TTFT P99 {worst:.0f} ms ({lone:.0f} of those that met no other HIGH one), at most 1.3 x idle P99 + one "
                     f"{name} step = 1.3 x {base:.0f} + {step:.0f} = {1.3 * base + step:.0f} ms"))
    said += [(ratio > 0.9, f"LOW keeps {100 * ratio:.1f} % of its tokens/s (median of {len(on)} pairs; hints ignored = 100 %)"),
             (lost == 0, f"tokens computed twice: {lost:.0f}")]
    return "\n".join(f"- {'holds' if ok else '**MISSED**'}: {text}" for ok, text in said)


# ---- the run ------------------------------------------------------------------------------------------------------------

def play(args, on, off):
    flood = ["--low", args.max_num_seqs + args.queue, "--low-isl", args.low_isl, "--low-osl", args.low_osl,
             "--settle", args.settle]
    high = ["--high-isl", args.high_isl]
    for server in (on, off):  # first touches of memory
        Part(args, server, high + ["--high", 3, "--pipelines", 1, "--seed", 999])
    result = {"idle": Part(args, on, high + ["--high", args.idle_requests, "--seed", 1]),
              "idle pipeline": Part(args, on, ["--pipelines", 1, "--seed", 2]), "on": [], "off": []}
    print(f"idle: HIGH TTFT P50 {rank([ttft(r) for r in result['idle'].of('high')], 50):.0f} ms", flush=True)
    for n in range(args.rounds):
        pair = [("on", on), ("off", off)]
        for name, server in pair if n % 2 == 0 else pair[::-1]:
            part = Part(args, server, flood + high + ["--high", 4096, "--high-rate", args.high_rate, "--seconds", args.seconds,
                                                      "--seed", 10 + n])
            result[name].append(part)
            print(f"round {n + 1} {name:3}: HIGH TTFT P50 {rank([ttft(r) for r in part.of('high')], 50):.0f} ms, "
                  f"LOW {part.low_tok_s:.0f} tok/s, step {step_ms([part]):.1f} ms", flush=True)
    for name, server in (("on", on), ("off", off)):
        result["pipelines " + name] = Part(args, server, flood + ["--pipelines", args.pipelines, "--seed", 3])
        print(f"pipelines {name}", flush=True)
    return result


def write_csv(path, result):
    with open(path, "w", newline="", encoding="utf-8") as f:
        w = csv.writer(f)
        w.writerow(["part", "round", "stage", "pipeline", "start_ms", "ttft_ms", "total_ms", "steps", "high_before", "prompt",
                    "output"])
        for name, parts in result.items():
            for n, part in enumerate(parts if isinstance(parts, list) else [parts]):
                for r in part.records:
                    if r["stage"] != "flood":
                        w.writerow([name, n + 1, r["stage"], r["pipeline"], round(r["start_ms"]), round(ttft(r), 1),
                                    round(r["done_ms"] - r["start_ms"], 1), r["steps"], r["n_high"], r["prompt"], r["output"]])


def write(args, result, flags):
    idle, on, off = result["idle"], result["on"], result["off"]
    steps_off = [r["steps"] for r in merge(off, "high")]
    pairs = table(["round", "LOW tok/s on", "off", "ratio", "step on, ms", "off"],
                  [[n + 1, f"{a.low_tok_s:.0f}", f"{b.low_tok_s:.0f}", f"{a.low_tok_s / b.low_tok_s:.3f}", f"{step_ms([a]):.1f}",
                    f"{step_ms([b]):.1f}"] for n, (a, b) in enumerate(zip(on, off))])
    everything = on + off + [result["pipelines on"], result["pipelines off"]]
    text = f"""# Priorities: the seed workload over HTTP

{verdicts(args, idle, on, off, everything)}

## HIGH on top of a LOW flood

{flood_table(idle, on, off)}

Steps that ended between a HIGH request's sending and its first token, its own among them; the flood's own steps, with prompts in
some, are what it waits for: on: {steps_text(merge(on, "high"))}; off: {min(steps_off)} to {max(steps_off)}.

{counts_table(on, off)}

{pairs}

## {args.pipelines} triage pipelines at once on top of the flood, times in ms

{pipeline_table(result["idle pipeline"], result["pipelines on"], result["pipelines off"])}

"waits" is TTFT less the TTFT of the same stage of one pipeline on the idle worker.

- CPU: {cpu_name()}, {os.cpu_count()} cores; model {os.path.basename(worker.MODEL)}; {commit()}; {datetime.date.today()}
- machine load (1 min) while measuring: {min(args.loads):.1f} to {max(args.loads):.1f}{f', at nice {args.nice}' if args.nice else ''}
- worker: `{' '.join(flags)}`, with and without `--enable-priority-scheduling`
- flood: {args.max_num_seqs + args.queue} LOW in flight, prompts of {args.low_isl} and outputs of {args.low_osl} tokens; HIGH: prompts of {args.high_isl},
  outputs of 10, {args.high_rate} arrivals per second for {args.seconds} s a round, {args.rounds} rounds
"""
    if args.note:
        text += f"- note: {args.note}\n"
    base = os.path.join(args.out, file_name() + "_priority")
    os.makedirs(args.out, exist_ok=True)
    with open(base + ".md", "w", encoding="utf-8") as f:
        f.write(text)
    write_csv(base + ".csv", result)
    print("\n" + text + "\nwritten: " + base + ".{csv,md}")


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--client", default=os.path.join(os.path.dirname(worker.BINARY), "bench_priority"))
    p.add_argument("--out", default=os.path.join(ROOT, "bench", "results"))
    p.add_argument("--rounds", type=int, default=3, help="pairs of flood, on and off")
    p.add_argument("--seconds", type=float, default=20, help="of each flood")
    p.add_argument("--settle", type=float, default=8,
                   help="seconds of flood and arrivals before the window: longer than HIGH waits with hints ignored")
    p.add_argument("--max-num-seqs", type=int, default=16)
    p.add_argument("--queue", type=int, default=8, help="LOW requests beyond the places")
    p.add_argument("--low-isl", type=int, default=100)
    p.add_argument("--low-osl", type=int, default=500)
    p.add_argument("--high-isl", type=int, default=128)
    p.add_argument("--high-rate", type=float, default=1)
    p.add_argument("--idle-requests", type=int, default=60)
    p.add_argument("--pipelines", type=int, default=6)
    p.add_argument("--nice", type=int, default=0, help="-15, say: for a machine that does other work meanwhile")
    p.add_argument("--note", default="", help="a line for the report")
    p.add_argument("--worker", default="", help="more flags for both workers")
    args = p.parse_args()
    take_priority(args.nice)
    flags = ["--max-num-seqs", str(args.max_num_seqs), "--context-length", "2048"] + args.worker.split()
    args.loads = [os.getloadavg()[0]]
    with worker.Worker(*flags, "--enable-priority-scheduling") as on, worker.Worker(*flags) as off:
        result = play(args, on, off)
    args.loads.append(os.getloadavg()[0])
    write(args, result, flags)


main()
