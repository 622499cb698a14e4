#!/usr/bin/env python3
"""Asks the real library whether tokenizers written by Stator give Stator's ids.

usage: test_tok_write SEED DIR && check_written.py DIR      needs the package tokenizers
"""
import glob
import json
import os
import sys

from tokenizers import Tokenizer

bad = 0
for path in sorted(glob.glob(os.path.join(sys.argv[1], "*.json"))):
    tokenizer = Tokenizer.from_file(path)
    cases = [json.loads(line) for line in open(path[:-5] + ".ids", encoding="utf-8")]
    wrong = [c for c in cases if tokenizer.encode(c[0], add_special_tokens=False).ids != c[1]]
    print(f"{os.path.basename(path)}: {len(cases)} texts, {len(wrong)} differ")
    for text, ids in wrong[:3]:
        print(f"  {text!r}\n    ours   {ids}\n    theirs {tokenizer.encode(text, add_special_tokens=False).ids}")
    bad += len(wrong)
sys.exit(1 if bad else 0)
