#!/usr/bin/env python3
"""Checks the house rules that a compiler does not: file and function sizes, line length, header contracts,
self-contained headers, include direction, unique and harmless header names, file = prefix.

Prints one line per finding and a count; exit status 1 when there is any. `ratchet.txt` lists functions that are
longer than the limit for a stated reason: the list may shrink, never grow by accident (an entry that is no
longer needed is a finding too).
"""
import os
import re
import subprocess
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
FILE_MAX, FUNCTION_MAX, KERNEL_MAX, LINE_MAX = 800, 70, 110, 130
CONTRACT = ["Owns", "Units", "States", "Threads", "Errors", "Bounds"]

# room -> rooms whose headers it may include (beside its own and base)
ALLOWED = {
    "base": [],
    "kernels": [],
    "kernels/cpu": ["kernels"],
    "kernels/cuda": ["kernels"],
    "kvcache": [],
    "transport": [],
    "worker/text": [],
    "worker/grammar": [],
    "worker/model": ["kernels"],
    "worker/engine": ["worker/grammar", "worker/model", "kvcache", "kernels"],
    "worker/sim": ["worker/engine", "worker/model", "kernels"],
    "worker/openai": ["worker/text"],
    "worker/ledger": ["worker/openai", "worker/engine", "kernels"],
    "worker/http": ["worker/ledger", "worker/openai", "worker/engine", "worker/grammar", "worker/text", "kernels"],
    "worker/dynamo": ["worker/ledger", "worker/openai", "worker/engine", "worker/grammar", "worker/text", "worker/model", "kvcache", "kernels"],
    "worker": ["worker/ledger", "worker/dynamo", "worker/grammar", "kvcache", "worker/http", "worker/openai", "worker/engine", "worker/sim", "worker/model", "worker/text", "kernels"],
}
ALLOWED["kernels"] = ["kernels/cpu"]  # the registry names its backends

# What a kernel must not contain, because tests/simt could not run it: ptx.h has a wrapper for each.
NOT_IN_KERNELS = re.compile(r"\basm\b|\b__(shfl|sync|ballot|any|all|ldg|ldcg|expf|logf|fmaf_rn)\w*\s*\(|\batomic[A-Z]\w*\s*\(|\bprintf\s*\(|"
                            r"__CUDA_ARCH__|__constant__|__shared__|\bclock(64)?\s*\(")

CUDA_TOOLKIT = {"gpu_cuda.c", "cu_lt.c", "ptx.h", "launch.h"}

findings = []


def find(path, line, text):
    findings.append(f"{path}:{line}: {text}")


def sources():
    out = subprocess.run(["git", "ls-files", "-co", "--exclude-standard", "*.c", "*.h", "*.inl", "*.cu", "*.cuh", "*.cc"], cwd=ROOT, capture_output=True,
                         text=True, check=True)
    return [p for p in out.stdout.split() if os.path.exists(os.path.join(ROOT, p))]


def room_of(path):
    return os.path.dirname(path)


def functions(text):
    """(name, first line, length) of each function definition: a `{` alone in column 0 opens, a `}` in column 0 closes."""
    lines = text.split("\n")
    start = None
    for i, line in enumerate(lines):
        if line == "{":
            start = i
        elif line == "}" and start is not None:
            head = " ".join(lines[max(0, start - 6):start])
            names = re.findall(r"(\w+)\s*\(", head.split(";")[-1].split("}")[-1])
            yield (names[0] if names else "?"), start + 1, i - start - 1
            start = None


def check_file(path, headers, ratchet, used):
    text = open(os.path.join(ROOT, path), encoding="utf-8").read()
    lines = text.split("\n")
    if len(lines) > FILE_MAX and not path.endswith("_table.h"):
        find(path, 1, f"{len(lines)} lines, limit {FILE_MAX}")
    for i, line in enumerate(lines, 1):
        if len(line) > LINE_MAX:
            find(path, i, f"{len(line)} columns, limit {LINE_MAX}")
        if re.search(r"\b(TODO|FIXME|XXX)\b", line):
            find(path, i, "unfinished work belongs in an issue")
    limit = KERNEL_MAX if path.endswith((".cu", ".cuh")) else FUNCTION_MAX
    for name, line, length in functions(text):
        if length > limit:
            key = f"{path} {name}"
            if key in ratchet and length <= ratchet[key]:
                used.add(key)
            else:
                find(path, line, f"function {name} has {length} lines, limit {ratchet.get(key, limit)}")
    room = room_of(path)
    if room in ALLOWED:
        check_includes(path, room, text, headers)
        if path.endswith(".h"):
            check_header(path, text)
        if path.endswith((".cu", ".cuh")):
            for m in NOT_IN_KERNELS.finditer(re.sub(r"/\*.*?\*/", lambda c: "\n" * c.group().count("\n"), text, flags=re.S)):
                find(path, 1, f"'{m.group()}' in a kernel: ptx.h has what may be used")
        if room == "kernels/cuda" and os.path.basename(path) not in CUDA_TOOLKIT and re.search(r"#include <(cuda|cublas)", text):
            find(path, 1, "includes the CUDA toolkit: gpu.h is the way to it")
        if re.search(r"\bgetenv\s*\(", text):
            find(path, 1, "getenv outside the configuration table")
        if path != "worker/main.c" and re.search(r"\b(exit|abort)\s*\(", text):
            find(path, 1, "exit or abort below main")


def check_includes(path, room, text, headers):
    allowed = set(ALLOWED[room]) | {room, "base"}
    for name in re.findall(r'#include "([^"]+)"', text):
        if name in headers and headers[name] not in allowed:
            find(path, 1, f"includes {name} of {headers[name]}: not below {room}")


def check_header(path, text):
    top = text[:4000]
    name = os.path.splitext(os.path.basename(path))[0]
    if not top.startswith(f"/* {name}: "):
        find(path, 1, f"header does not open with '/* {name}: ...'")
    public = not re.search(r"^/\* \w+: \(internal\)", top)
    if public:
        for field in CONTRACT:
            if not re.search(rf"^ \* {field}\b", top, re.M):
                find(path, 1, f"contract lacks '{field}'")
    if os.path.exists(f"/usr/include/{os.path.basename(path)}"):
        find(path, 1, "bears a system header's name")
    if path.endswith("_table.h"):
        return
    dirs = [d for d in ALLOWED] + ["/usr/include/cjson"]
    flags = [f"-I{os.path.join(ROOT, d)}" for d in dirs]
    if "cpu_vec" in name or "_isa" in name or name in ("ptx", "launch"):
        return  # compiled through the files that set its instruction set, or by nvcc
    r = subprocess.run(["gcc", "-std=c17", "-fsyntax-only", "-x", "c", *flags, "-"], input=f'#include "{os.path.basename(path)}"\n',
                       capture_output=True, text=True)
    if r.returncode:
        find(path, 1, "does not compile alone: " + r.stderr.split("\n")[0])


def main():
    paths = sources()
    product = [p for p in paths if room_of(p) in ALLOWED]
    headers, seen = {}, {}
    for p in product:
        base = os.path.basename(p)
        if p.endswith(".h"):
            headers[base] = room_of(p)
        if base in seen:
            find(p, 1, f"same file name as {seen[base]}")
        seen[base] = p
    ratchet, used = {}, set()
    for line in open(os.path.join(ROOT, "tests/tidy/ratchet.txt"), encoding="utf-8"):
        if line.strip() and not line.startswith("#"):
            path, name, limit = line.split()
            ratchet[f"{path} {name}"] = int(limit)
    for p in paths:
        check_file(p, headers, ratchet, used)
    for key in sorted(set(ratchet) - used):
        find("tests/tidy/ratchet.txt", 1, f"'{key}' is no longer needed: remove it")
    for f in findings:
        print(f)
    print(f"tidy: {len(paths)} files, {len(findings)} findings")
    return 1 if findings else 0


sys.exit(main())
