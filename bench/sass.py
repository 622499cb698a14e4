#!/usr/bin/env python3
"""What the compiler made of each kernel: registers, spills, shared memory, and the instructions meant.

  bench/sass.py DIR [--write] [--venv DIR]

reads DIR/<file>.o and DIR/<file>.ptxas (build/release/cuda: the kernel objects and what `nvcc -Xptxas -v` said of them),
disassembles them, and checks every kernel for each architecture:
  - no spills, no local memory (LDL, STL);
  - streaming kernels (linears, attention) load by 16-byte cp.async and multiply on tensor cores;
  - registers grew by no more than 8 over bench/results/resources.csv, no kernel is missing there, none has gone.
--write replaces that file instead of comparing with it. The disassembler is looked for on PATH, beside nvcc and in --venv,
which is made from two PyPI packages when it is not there. Status 0: all holds, 1: findings, 77: no disassembler or no objects.
"""
import argparse
import csv
import glob
import os
import re
import shutil
import subprocess
import sys
import venv

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
TABLE = os.path.join(ROOT, "bench", "results", "resources.csv")
PACKAGES = ["nvidia-cuda-cuobjdump==13.5.37", "nvidia-cuda-nvdisasm==13.5.37"]
STREAMING = re.compile(r"^(lin|attn)_")
SLACK = 8
COLUMNS = ["kernel", "arch", "registers", "stack", "spill_bytes", "smem_static", "instructions", "ldgsts_128", "ldg_128", "ldsm",
           "hmma", "local"]
COUNTED = {"ldgsts_128": re.compile(r"^LDGSTS\..*\b128$"), "ldg_128": re.compile(r"^LDG\..*\b128\b"),
           "ldsm": re.compile(r"^LDSM"), "hmma": re.compile(r"^[HQ]G?MMA"), "local": re.compile(r"^(LDL|STL)\b")}


def tool_path(venv_dir):
    """A PATH on which cuobjdump and nvdisasm are found, or None."""
    def found(path):
        return all(shutil.which(t, path=path) for t in ("cuobjdump", "nvdisasm"))

    nvcc = shutil.which("nvcc") or "/usr/local/cuda/bin/nvcc"
    paths = [os.environ.get("PATH", ""), os.path.dirname(os.path.realpath(nvcc))]
    if any(found(p) for p in paths):
        return next(p for p in paths if found(p))
    if not venv_dir:
        return None
    bins = os.path.join(venv_dir, "lib", "python*", "site-packages", "nvidia", "*", "bin")
    if not glob.glob(bins):
        venv.create(venv_dir, with_pip=True)
        pip = subprocess.run([os.path.join(venv_dir, "bin", "pip"), "install", "-q", "--disable-pip-version-check", *PACKAGES])
        if pip.returncode:
            return None
    return next((p for p in glob.glob(bins) if found(p)), None)


def plain_names(mangled):
    """lin_stream<lin_e4m3, 2, 2> for _Z10lin_streamI8lin_e4m3Li2ELi2EEv6cu_lin."""
    out = subprocess.run(["c++filt"], input="\n".join(mangled), capture_output=True, text=True, check=True).stdout
    names = {}
    for raw, name in zip(mangled, out.split("\n")):
        name = re.sub(r"\((anonymous namespace|unsigned int|int|bool|enum \w+)\)(::)?", "", name)
        names[raw] = re.sub(r"^void ", "", name).split("(")[0].strip()
    return names


def read_ptxas(path):
    """(mangled, arch) -> registers, stack, spill_bytes, smem_static."""
    rows, key = {}, None
    for line in open(path):
        if m := re.search(r"Compiling entry function '(\w+)' for '(\w+)'", line):
            key = (m[1], m[2])
            rows[key] = {"stack": 0, "spill_bytes": 0}
        elif m := re.search(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads", line):
            if key:  # of the kernel, and of each function in it that was not inlined
                rows[key]["stack"] += int(m[1])
                rows[key]["spill_bytes"] += int(m[2]) + int(m[3])
        elif key and (m := re.search(r"Used (\d+) registers", line)):
            smem = re.search(r"(\d+) bytes smem", line)
            rows[key].update(registers=int(m[1]), smem_static=int(smem[1]) if smem else 0)
            key = None
    return rows


def read_sass(path, tools):
    """(mangled, arch) -> instruction counts."""
    text = subprocess.run([shutil.which("cuobjdump", path=tools), "-sass", path], capture_output=True, text=True, check=True,
                          env={**os.environ, "PATH": tools + ":" + os.environ.get("PATH", "")}).stdout
    rows, arch, row = {}, None, None
    for line in text.split("\n"):
        if m := re.match(r"\s*code for (\w+)", line):
            arch = m[1]
        elif m := re.match(r"\s*Function : (\S+)", line):
            row = rows[(m[1], arch)] = dict.fromkeys(["instructions", *COUNTED], 0)
        elif row and (m := re.match(r"\s*/\*[0-9a-f]{4,}\*/\s+(?:@!?\w+\s+)?([A-Z][\w.]*)", line)):
            row["instructions"] += 1
            for name, pattern in COUNTED.items():
                row[name] += bool(pattern.search(m[1]))
    return rows


def collect(folder, tools):
    rows = []
    for obj in sorted(glob.glob(os.path.join(folder, "*.o"))):
        said, made = read_ptxas(obj[:-2] + ".ptxas"), read_sass(obj, tools)
        if said.keys() != made.keys():
            sys.exit(f"{obj}: the compiler's report and the object hold different kernels")
        names = plain_names(sorted({raw for raw, _ in said}))
        rows += [{"kernel": names[raw], "arch": arch, **said[raw, arch], **made[raw, arch]} for raw, arch in said]
    return sorted(rows, key=lambda r: (r["kernel"], r["arch"]))


def check(rows):
    for r in rows:
        if r["spill_bytes"] or r["local"]:
            yield r, f"{r['spill_bytes']} bytes spilled, {r['local']} accesses to local memory"
        if STREAMING.match(r["kernel"]) and not r["ldgsts_128"]:
            yield r, "no 16-byte cp.async"
        if STREAMING.match(r["kernel"]) and not r["hmma"]:
            yield r, "no tensor core instruction"


def compare(rows):
    if not os.path.exists(TABLE):
        return
    old = {(r["kernel"], r["arch"]): int(r["registers"]) for r in csv.DictReader(open(TABLE))}
    for r in rows:
        before = old.pop((r["kernel"], r["arch"]), None)
        if before is None:
            yield r, "is not in resources.csv"
        elif r["registers"] > before + SLACK:
            yield r, f"{r['registers']} registers, {before} before"
    for kernel, arch in old:
        yield {"kernel": kernel, "arch": arch}, "is in resources.csv and no longer built"


def main():
    args = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    args.add_argument("folder")
    args.add_argument("--write", action="store_true")
    args.add_argument("--venv")
    a = args.parse_args()
    if not glob.glob(os.path.join(a.folder, "*.o")):
        print(f"sass: no kernel objects in {a.folder}")
        return 77
    tools = tool_path(a.venv)
    if not tools:
        print("sass: no cuobjdump and nvdisasm")
        return 77
    rows = collect(a.folder, tools)
    findings = list(check(rows)) + ([] if a.write else list(compare(rows)))
    for r, text in findings:
        print(f"{r['kernel']} ({r['arch']}): {text}")
    if a.write:
        with open(TABLE, "w", newline="") as f:
            out = csv.DictWriter(f, COLUMNS, lineterminator="\n")
            out.writeheader()
            out.writerows(rows)
    print(f"sass: {len(rows)} kernels, {max(r['registers'] for r in rows)} registers at most, {len(findings)} findings")
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
