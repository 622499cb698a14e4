#!/usr/bin/env python3
"""What NVIDIA Dynamo's request plane costs beside the worker's own endpoint: bench/results/<cpu>_dynamo.{csv,md}.

One worker and the real frontend; the same load three ways, alternated over rounds:

  own        the worker's OpenAI endpoint, streams over HTTP (bench_serve)
  plane      its request plane, by a client that speaks it as a frontend does (bench_plane)
  frontend   the frontend's OpenAI endpoint, in KV mode (bench_serve)

On each device in turn: the CPU with the default model, where the forward pass is nearly all there is; and a plug-in whose steps
take a fixed time and no processor (bench/device), which shows the host's side at the rates of a GPU.

CPU time is read from the kernel's account of each thread, so work per token tells what tokens/s on few cores cannot: which part
grew. All parts share the machine's cores; the report says for each row which of them, if any, was the limit.
"""
import argparse
import csv
import datetime
import glob
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile

from machine import ROOT, commit, cpu_name, file_name, table, take_priority

sys.path.insert(0, os.path.join(ROOT, "tests", "e2e"))
import dynamo  # noqa: E402  the frontend
import worker  # noqa: E402

BUILD = os.path.dirname(worker.BINARY)
WAYS = ("own", "plane", "frontend")
TOKEN_IDS = 40000  # below this all are words in the default model's vocabulary


def thread_seconds(pid):
    """{name: CPU seconds} of a process' threads, those of one name together."""
    spent = {}
    for task in glob.glob(f"/proc/{pid}/task/*"):
        try:
            name = open(task + "/comm", encoding="utf-8").read().strip()
            ns = int(open(task + "/schedstat", encoding="ascii").read().split()[0])
        except OSError:  # it ended meanwhile
            continue
        spent[name] = spent.get(name, 0) + ns / 1e9
    return spent


def process_seconds(pid):
    """Those of ended threads among them; in ticks of the kernel's clock."""
    fields = open(f"/proc/{pid}/stat", encoding="utf-8").read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def plane_address(deployment):
    """HOST:PORT/PATH of the generate endpoint, from the worker's own record."""
    for path in glob.glob(os.path.join(deployment.folder, "store/v1/instances/*")):
        record = json.load(open(path, encoding="utf-8"))
        if record["endpoint"] == "generate":
            return record["transport"]["tcp"]
    raise AssertionError("the worker has no record of its endpoint")


class Bench:
    """One device: a worker and a frontend that stay up for all its rounds."""

    def __init__(self, args, step_us):
        self.args, self.step_us, self.rows, self.seed = args, step_us, [], 0
        flags = ["--max-num-seqs", str(args.concurrency), "--context-length", "2048"]
        self.folder = tempfile.mkdtemp(prefix="stator-bench-")
        if step_us:  # the worker finds plug-ins beside itself
            for part in (os.path.join(BUILD, "stator"), os.path.join(BUILD, "bench_device", "libstator_cuda.so")):
                shutil.copy(part, self.folder)
            worker.BINARY = os.path.join(self.folder, "stator")
            os.environ["BENCH_STEP_US"] = str(step_us)
            flags += ["--device", "cuda"]
        else:
            worker.BINARY = os.path.join(BUILD, "stator")
            flags += ["--device", "cpu"]
        self.deployment = dynamo.Deployment(workers=1, worker_flags=flags)
        self.worker = self.deployment.workers[0]
        plane = plane_address(self.deployment)
        self.commands = {"own": ["bench_serve", "--url", self.worker.url],
                         "plane": ["bench_plane", "--url", plane, "--model", self.deployment.model],
                         "frontend": ["bench_serve", "--url", f"http://127.0.0.1:{self.deployment.port}"]}

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        self.deployment.__exit__(kind)
        shutil.rmtree(self.folder)

    def load(self, way, n, osl):
        """The client's report. No two loads send the same prompts."""
        self.seed += 1
        client, *where = self.commands[way]
        with tempfile.NamedTemporaryFile(suffix=".json") as out:
            subprocess.run([os.path.join(BUILD, client), *where, "--concurrency", str(self.args.concurrency), "--num-requests", str(n),
                            "--isl", str(self.args.isl), "--osl", str(osl), "--token-ids", str(TOKEN_IDS), "--warmup", "0",
                            "--seed", str(self.seed), "--quiet", "--json", out.name], check=True)
            report = json.load(open(out.name, encoding="utf-8"))
        assert report["failed"] == 0 and report["cached_tokens"] == 0, report
        return report

    def measure(self, way, round_, n):
        threads, other = thread_seconds(self.worker.process.pid), process_seconds(self.deployment.frontend.pid)
        report = self.load(way, n, self.args.osl)
        threads = {k: v - threads.get(k, 0) for k, v in thread_seconds(self.worker.process.pid).items()}
        frontend = process_seconds(self.deployment.frontend.pid) - other
        tokens, seconds = report["output_tokens"], report["seconds"]
        client = report["client_cpu_share"] * seconds
        row = {"step_us": self.step_us, "round": round_, "way": way, "tok_s": report["output_tok_s"]}
        for what in ("ttft", "itl"):
            row.update({f"{what}_{p}_ms": report[f"{what}_ms"][p] for p in ("p50", "p99")})
        row.update({"io_us": 1e6 * threads["io"] / tokens, "worker_us": 1e6 * sum(threads.values()) / tokens,
                    "frontend_us": 1e6 * frontend / tokens, "client_us": 1e6 * client / tokens,
                    "cores": (sum(threads.values()) + frontend + client) / seconds})
        self.rows.append({k: round(v, 3) if isinstance(v, float) else v for k, v in row.items()})
        print(f"{name_of(self.step_us)}, round {round_}, {way:8}: {row['tok_s']:.0f} tok/s, TTFT P50 {row['ttft_p50_ms']:.1f} ms, "
              f"us per token: io {row['io_us']:.2f}, worker {row['worker_us']:.2f}, frontend {row['frontend_us']:.2f}", flush=True)

    def play(self):
        """So many requests that the device would take --seconds, two for each stream at least; on the CPU one."""
        args = self.args
        waves = max(2, round(args.seconds * 1e6 / (self.step_us * args.osl))) if self.step_us else 1
        n = waves * args.concurrency
        for way in WAYS:
            self.load(way, args.concurrency, 16)
        for round_ in range(1, self.args.rounds + 1):
            for i in range(len(WAYS)):
                self.measure(WAYS[(i + round_) % len(WAYS)], round_, n)
        return self.rows


# ---- the report -----------------------------------------------------------------------------------------------------------

def name_of(step_us):
    return f"a device with steps of {step_us / 1000:g} ms" if step_us else "the CPU with the default model"


def middle(rows, way, key):
    return statistics.median(r[key] for r in rows if r["way"] == way)


def ratios(rows, way):
    """To the own endpoint, of the same round."""
    own = {r["round"]: r["tok_s"] for r in rows if r["way"] == "own"}
    return [r["tok_s"] / own[r["round"]] for r in rows if r["way"] == way]


def limit(args, rows, way):
    """What the load waited for, by what the row shows."""
    step_us, tok_s, cores = rows[0]["step_us"], middle(rows, way, "tok_s"), middle(rows, way, "cores")
    if step_us and tok_s >= 0.95 * args.concurrency * 1e6 / step_us:
        return "the device"
    spent = {part: middle(rows, way, part + "_us") for part in ("worker", "frontend", "client")}
    if cores >= 0.9 * os.cpu_count():
        return "all cores: " + ", ".join(f"{part} {100 * us / sum(spent.values()):.0f} %" for part, us in spent.items())
    return f"steps that wait for the {max(spent, key=spent.get)}, cores being idle"


def device_table(args, rows):
    lines = []
    for way in WAYS:
        r = ratios(rows, way)
        lines.append([way, f"{middle(rows, way, 'tok_s'):.0f}",
                      "" if way == "own" else f"{100 * statistics.median(r):.1f} % ({100 * min(r):.1f} to {100 * max(r):.1f})"]
                     + [f"{middle(rows, way, f'{what}_p50_ms'):.1f} / {middle(rows, way, f'{what}_p99_ms'):.1f}" for what in ("ttft", "itl")]
                     + [f"{middle(rows, way, key):.2f}" for key in ("io_us", "worker_us", "frontend_us", "client_us", "cores")]
                     + [limit(args, rows, way)])
    return table(["way", "tokens/s", "of own", "TTFT P50 / P99, ms", "ITL P50 / P99, ms", "worker's io thread, us per token",
                  "whole worker", "frontend", "client", "cores busy", "limit"], lines)


def verdicts(args, everything):
    said = []
    for rows in everything:
        for way in WAYS[1:]:
            share = statistics.median(ratios(rows, way))
            said.append(f"- {'holds' if share >= 0.95 else '**below 95 %**'}: on {name_of(rows[0]['step_us'])}, {way}: {100 * share:.1f} % of the "
                        f"own endpoint's tokens/s, TTFT P50 {middle(rows, way, 'ttft_p50_ms'):.1f} ms "
                        f"(own {middle(rows, 'own', 'ttft_p50_ms'):.1f}); limit: {limit(args, rows, way)}")
    return "\n".join(said)


def write(args, everything):
    parts = "\n\n".join(f"## On {name_of(rows[0]['step_us'])}\n\n{device_table(args, rows)}" for rows in everything)
    text = f"""# Dynamo's request plane beside the worker's own endpoint, {args.concurrency} streams

{verdicts(args, everything)}

{parts}

Medians of the rounds; ratios are taken within a round. TTFT and ITL are the client's. The plane's client hands no text out and
parses no HTTP; so its own work per token is not to be compared with the other's. All outputs are equally long, so requests come
in waves as large as there are streams: TTFT is that of so many at once, and a device waits between two waves. What the frontend
spends beside `own` and `plane` it spends while nobody asks it for anything.

- CPU: {cpu_name()}, {os.cpu_count()} cores, shared by worker, frontend and client; {commit()}; {datetime.date.today()}
- model {os.path.basename(worker.MODEL)}; ai-dynamo 1.6.1, `--router-mode kv`; prompts of {args.isl} and outputs of {args.osl} tokens;
  {args.rounds} rounds
- machine load (1 min) while measuring: {min(args.loads):.1f} to {max(args.loads):.1f}{f', at nice {args.nice}' if args.nice else ''}
- worker: `--max-num-seqs {args.concurrency} --context-length 2048 --dynamo`
"""
    base = os.path.join(args.out, file_name() + "_dynamo")
    os.makedirs(args.out, exist_ok=True)
    with open(base + ".md", "w", encoding="utf-8") as f:
        f.write(text)
    with open(base + ".csv", "w", newline="", encoding="utf-8") as f:
        w = csv.DictWriter(f, everything[0][0].keys())
        w.writeheader()
        w.writerows(r for rows in everything for r in rows)
    print("\n" + text + "\nwritten: " + base + ".{csv,md}")


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--out", default=os.path.join(ROOT, "bench", "results"))
    p.add_argument("--rounds", type=int, default=3)
    p.add_argument("--concurrency", type=int, default=64)
    p.add_argument("--isl", type=int, default=64)
    p.add_argument("--osl", type=int, default=256)
    p.add_argument("--seconds", type=float, default=3, help="that a load takes on a device of fixed steps, if nothing else is the limit")
    p.add_argument("--steps", default="0,10000,2500,250", help="devices by the time of their step in us; 0 = the CPU")
    p.add_argument("--nice", type=int, default=0, help="-15, say: for a machine that does other work meanwhile")
    args = p.parse_args()
    take_priority(args.nice)
    args.loads, everything = [os.getloadavg()[0]], []
    for step_us in (int(s) for s in args.steps.split(",")):
        with Bench(args, step_us) as bench:
            everything.append(bench.play())
        args.loads.append(os.getloadavg()[0])
    write(args, everything)


main()
