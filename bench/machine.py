"""What the reports of this folder say of the machine and the build, and how a program gets more of the machine than its neighbours."""
import os
import re
import subprocess
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


def cpu_name():
    """Hypervisors may hide the model's name: family and model number then tell CPUs apart."""
    text = open("/proc/cpuinfo", encoding="utf-8").read()
    fields = {k: re.search(rf"^{k}\s*:\s*(.*)$", text, re.M) for k in ("model name", "cpu family", "model", "stepping")}
    fields = {k: m.group(1) if m else "unknown" for k, m in fields.items()}
    name = " ".join(re.sub(r"\(R\)|\(TM\)", "", fields["model name"]).split())
    return f"{name} (family {fields['cpu family']}, model {fields['model']}, stepping {fields['stepping']})"


def file_name():
    return re.sub(r"[^a-z0-9]+", "_", cpu_name().lower()).strip("_")


def commit():
    said = subprocess.run(["git", "describe", "--always", "--dirty"], capture_output=True, text=True, check=False, cwd=ROOT)
    return said.stdout.strip()


def take_priority(nice):
    """The whole program again in a session of its own with this nice value: where the kernel groups processes by session, a
    process's own value weighs only within."""
    if not nice:
        return
    if os.getsid(0) != os.getpid():
        sys.exit(subprocess.call([sys.executable] + sys.argv, start_new_session=True))
    with open("/proc/self/autogroup", "w", encoding="ascii") as f:
        f.write(str(nice))


def table(head, rows):
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return "\n".join(lines + ["| " + " | ".join(str(c) for c in row) + " |" for row in rows])
