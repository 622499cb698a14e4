#!/usr/bin/env python3
"""Do the tests of the kernels fail when a kernel is wrong? Breaks a kernel in one place, builds it for the emulation with the
race detector on, runs its family's tests and expects a failure; the next place then.

    mutate.py [--build DIR] [--seconds S] [--seed N] [--jobs N] [--only TEXT] [--list]

DIR is a configured CMake tree (Unix Makefiles) whose simt tests are built: build/release. Places are drawn in a random order
until S seconds are over (0: all of them). A place is named `file:line kind: its line of source`; --only takes those that
contain TEXT. Exit status 1 when a mutant survives that EQUIVALENT does not name.
"""
import argparse
import concurrent.futures
import glob
import os
import random
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import threading
import time

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
KERNELS = os.path.join(ROOT, "kernels", "cuda")
FLAGS = ["-std=c++17", "-O1", "-g", "-w", "-ffp-contract=off", "-fno-strict-aliasing", "-fvisibility=hidden", "-DSTATOR_SIMT",
         "-fsanitize=thread", "-fsanitize=alignment", "-fsanitize-undefined-trap-on-error"] # a GPU faults at an unaligned vector

LIMIT_S = 600 # of a test; the whole ones take a twentieth of it on a machine that does nothing else

# Mutants that change nothing that a test could see: (file, kind, pattern in the line and the three before it) -> why.
BEYOND = "loads beyond the row give what does not count"
EQUIVALENT = {
    ("rows.cu", "drop ptx_pdl_wait", r"embed_kernel.* ptx_pdl_wait\(\);$"): "the embedding is a plain launch",
    ("rows_norm.cu", "one round more", r"col < p\.k"): BEYOND,
    ("rows_norm.cuh", "one round more", r"col < p\.d"): BEYOND,
    ("sample_walk.cuh", "one round more", r"id < vocab"): BEYOND,
    ("lin_stream.cu", "one round more", r"tile < v\.tiles; [^;]*$"): "a tile beyond the matrix stores nothing: only time is lost",
    ("lin_tile.cu", "one round more", r"begin < span\.end; [^;]*$"): "the chain of an empty part is 0, and no sum is -0",
    ("attn.cuh", "without the last round", r"st\.l\[i\]|attn_zero\(st\.o\).* i < 4"): "the columns of l are equal: l[3] is never read",
    ("attn_io.cuh", "one round more", r"base < n; [^;]*$"): "what lies beyond n is looked at by none of its values: only time is lost",
    ("attn_io.cuh", "drop ptx_syncthreads", r"ptx_fence_gpu\(\); ptx_syncthreads\(\);$"):
        "orders records for other blocks, and here blocks run one after another",
    ("lin_tile.cu", "drop ptx_syncthreads", r"ptx_fence_gpu\(\); ptx_syncthreads\(\);$"): "the same, of slabs",
}


class Mutant:
    def __init__(self, path, text, start, end, new, kind):
        self.path, self.kind = path, kind
        self.text = text[:start] + new + text[end:]
        self.line = text.count("\n", 0, start) + 1
        lines = text.split("\n")
        self.source = lines[self.line - 1].strip()
        self.context = " ".join(line.strip() for line in lines[max(0, self.line - 4):self.line])

    def name(self):
        return f"{os.path.basename(self.path)}:{self.line} {self.kind}: {self.source}"

    def reason(self):
        """Why it may survive, or None."""
        for (file, kind, pattern), why in EQUIVALENT.items():
            if file == os.path.basename(self.path) and kind == self.kind and re.search(pattern, self.context):
                return why
        return None


def blank_comments(text):
    return re.sub(r"/\*.*?\*/|//[^\n]*", lambda m: re.sub(r"[^\n]", " ", m.group()), text, flags=re.S)


def arguments(text, start):
    """Spans of the arguments of the call whose '(' is at `start`, and the end of the call."""
    depth, spans, at = 0, [], start + 1
    for i in range(start, len(text)):
        if text[i] in "([{":
            depth += 1
        elif text[i] in ")]}":
            depth -= 1
        if (text[i] == "," and depth == 1) or depth == 0:
            spans.append((at, i))
            at = i + 1
        if depth == 0:
            return spans, i + 1
    return [], start


def mutants_of(path):
    text = open(path, encoding="utf-8").read()
    code = blank_comments(text)
    found = []

    def add(start, end, new, kind):
        found.append(Mutant(path, text, start, end, new, kind))

    for m in re.finditer(r"\bptx_(syncthreads|syncwarp|bar|cp_commit|pdl_wait|cp_wait)\b", code):
        template = re.match(r"<([^<>]*)>", code[m.end():])
        call = m.end() + (template.end() if template else 0)
        if code[call] != "(":
            continue
        _, end = arguments(code, call)
        add(m.start(), end, "(void)0", "drop " + m.group())
        if template:
            add(m.start(), end, f"ptx_cp_wait<({template.group(1)}) + 1>()", "wait for one less")
    for m in re.finditer(r"\bptx_cp16\(", code):
        spans, _ = arguments(code, m.end() - 1)
        if len(spans) == 3 and code[spans[2][0]:spans[2][1]].strip() != "16":
            add(spans[2][0], spans[2][1], " 16", "no zero fill")
    for m in re.finditer(r"\bptx_swizzle128\(", code):
        spans, end = arguments(code, m.end() - 1)
        row, chunk = (code[a:b] for a, b in spans)
        add(m.start(), end, f"(({row}) * 128 + (({chunk}) << 4))", "no swizzle")
    for m in re.finditer(r"\(\(size_t\)\w+ & 15\) == 0", code):
        add(m.start(), m.end(), "true", "no test of alignment")
    for m in re.finditer(r"\bfor \(([^;]*);\s*(\w+) < ([^;&|?]+); ?([^;{]*?)\)", code):
        name, bound = m.group(2), m.group(3)
        step = re.search(rf"\b{name} ([+*])= ([^,]+)", m.group(4))
        by = f"{step.group(1)} ({step.group(2)})" if step else "+ 1"
        add(m.start(2), m.end(3), f"{name} {by} < {bound}", "without the last round")
        if re.search(r"[a-z]", bound):  # a constant bound is that of an array: beyond it nothing is defined
            add(m.start(3), m.end(3), f"({bound}) {by}", "one round more")
    return found


def family_of(path):
    return re.split(r"[_.]", os.path.basename(path))[0]


def reached_by(path):
    """The names of the files of kernels/cuda that a change of `path` reaches."""
    reached, queue = set(), [os.path.basename(path)]
    while queue:
        name = queue.pop()
        reached.add(name)
        for user in glob.glob(os.path.join(KERNELS, "*.cu*")):
            if os.path.basename(user) not in reached and f'#include "{name}"' in open(user, encoding="utf-8").read():
                queue.append(os.path.basename(user))
    return reached


def sources_of(path):
    return sorted(os.path.join(KERNELS, name) for name in reached_by(path) if name.endswith(".cu"))


def tests_of(build, sources):
    families = {family_of(p) for p in sources}
    tests = []
    for family in sorted(families):
        for t in sorted(glob.glob(os.path.join(ROOT, "tests", "simt", f"test_simt_{family}*.cc"))):
            name = os.path.splitext(os.path.basename(t))[0]
            if os.path.exists(os.path.join(build, name)):
                tests.append(name)
    return tests


def compile_cc(source, out, flags):
    """'' or the compiler's first complaint."""
    r = subprocess.run(["c++", *FLAGS, *flags, "-x", "c++", "-c", source, "-o", out], capture_output=True, text=True)
    return r.stderr.strip().split("\n")[0] if r.returncode else ""


def compile_test(build, test, names, work):
    """The object of a test that includes one of `names`, made anew; None: it includes none."""
    source = os.path.join(ROOT, "tests", "simt", test + ".cc")
    if not any(f'#include "{name}"' in open(source, encoding="utf-8").read() for name in names):
        return None
    made = open(os.path.join(build, "CMakeFiles", test + ".dir", "flags.make"), encoding="utf-8").read()
    flags = [w for name in ("DEFINES", "INCLUDES") for w in shlex.split(re.search(rf"CXX_{name} =(.*)", made).group(1))]
    out = os.path.join(work, test + ".o")
    said = compile_cc(source, out, [f"-I{work}", *flags])
    return out if not said else sys.exit(f"{test}: {said}")


def link(build, test, objects, test_object, out):
    words = shlex.split(open(os.path.join(build, "CMakeFiles", test + ".dir", "link.txt"), encoding="utf-8").read())
    words[words.index("-o") + 1] = out
    if test_object:
        words[next(i for i, w in enumerate(words) if w.endswith(test + ".cc.o"))] = test_object
    first = next(i for i, w in enumerate(words) if w.endswith(".a"))
    return subprocess.run(words[:first] + objects + words[first:], cwd=build, capture_output=True, text=True)


def run(program, limit_s):
    """'' when all tests passed, else what was seen first: the program is stopped then."""
    p = subprocess.Popen([program], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace")
    timer = threading.Timer(limit_s, p.kill)
    timer.start()
    seen, last = "", ""
    for line in p.stdout:
        last = line.strip() or last
        if line.startswith("simt: ") or "[  FAILED  ]" in line:
            seen = last.replace("[  FAILED  ]", "test").replace("simt: ", "")
            p.kill()
            break
    p.stdout.close()
    rc = p.wait()
    timer.cancel()
    return seen or {0: "", -9: "too slow"}.get(rc, f"status {rc}: {last}")


def verdict(seen):
    if "Illegal instruction" in seen:
        return "unaligned"
    if ", race:0: " in seen:
        return "race"
    if seen.startswith(("test ", "gpu_close:")): # a test that failed left its gpu
        return "result"
    if any(t in seen for t in ("wait", "have left", "has left", "came to", "barrier")):
        return "collective"
    if seen == "too slow":
        return "hangs"
    return "guard" if not seen.startswith("status") else "crash"


def try_mutant(build, mutant):
    """(verdict, detail)"""
    work = tempfile.mkdtemp(prefix="mutate-")
    try:
        for f in os.listdir(KERNELS):
            shutil.copy(os.path.join(KERNELS, f), work)
        with open(os.path.join(work, os.path.basename(mutant.path)), "w", encoding="utf-8") as f:
            f.write(mutant.text)
        objects, sources = [], sources_of(mutant.path)
        include = [f"-I{d}" for d in (work, *(os.path.join(ROOT, d) for d in ("kernels", "base", "tests/simt")))]
        for source in sources:
            objects.append(os.path.join(work, os.path.basename(source) + ".o"))
            said = compile_cc(os.path.join(work, os.path.basename(source)), objects[-1], include)
            if said:
                return "compiler", said
        for test in tests_of(build, sources):
            program = os.path.join(work, test)
            r = link(build, test, objects, compile_test(build, test, reached_by(mutant.path), work), program)
            if r.returncode:
                return "broken", r.stderr.strip()[-300:]
            seen = run(program, LIMIT_S)
            if seen:
                return verdict(seen), seen
        return "SURVIVES", ""
    finally:
        shutil.rmtree(work)


def main():
    a = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    a.add_argument("--build", default=os.path.join(ROOT, "build", "release"))
    a.add_argument("--seconds", type=float, default=75)
    a.add_argument("--seed", type=int, default=None)
    a.add_argument("--jobs", type=int, default=os.cpu_count())
    a.add_argument("--only", default="")
    a.add_argument("--list", action="store_true")
    a = a.parse_args()
    build = os.path.abspath(a.build)
    seed = a.seed if a.seed is not None else int(time.time())
    begun = time.time()
    mutants = []
    for path in sorted(glob.glob(os.path.join(KERNELS, "*.cu")) + glob.glob(os.path.join(KERNELS, "*.cuh"))):
        if tests_of(build, sources_of(path)):
            mutants += mutants_of(path)
    mutants = [m for m in mutants if a.only in m.name()]
    if a.list:
        print("\n".join(m.name() for m in mutants))
        return 0
    random.Random(seed).shuffle(mutants)
    counts, survivors = {}, []

    def one(m):
        if a.seconds and time.time() - begun > a.seconds:
            return m, None, ""
        return (m, *try_mutant(build, m))

    with concurrent.futures.ThreadPoolExecutor(a.jobs) as pool:
        for m, kind, detail in pool.map(one, mutants):
            if kind is None:
                continue
            if kind == "SURVIVES" and m.reason():
                kind, detail = "equivalent", m.reason()
            counts[kind] = counts.get(kind, 0) + 1
            if kind in ("SURVIVES", "broken"):
                survivors.append(m.name())
            print(f"{kind:10} {m.name()[:90]:90}  {detail[:120]}", flush=True)
    tried = sum(counts.values())
    print(f"mutate: seed {seed}: {tried} of {len(mutants)} mutants in {time.time() - begun:.0f} s: " +
          ", ".join(f"{n} {k}" for k, n in sorted(counts.items())))
    for s in survivors:
        print("mutate: not caught: " + s)
    return 1 if survivors or not tried else 0


if __name__ == "__main__":
    sys.exit(main())
