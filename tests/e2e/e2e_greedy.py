#!/usr/bin/env python3
"""Greedy output agrees with llama.cpp's recorded answers (tests/golden/greedy)."""
import os
import subprocess
import sys

import worker

with worker.Worker() as w:
    check = os.path.join(worker.ROOT, "tests", "golden", "greedy", "check_margins.py")
    code = subprocess.run([sys.executable, check, w.url], check=False).returncode
sys.exit(code)
