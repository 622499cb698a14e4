#!/usr/bin/env python3
"""Writes worker/text/tok_nfc_table.c: the canonical compositions of Unicode, from Python's own unicodedata, less what
the tokenizers library (PyPI, 0.23.3) does not know yet: ids must equal the library's, whose tables are older.

Usage: make_nfc.py > worker/text/tok_nfc_table.c
"""
import unicodedata as u

from tokenizers.normalizers import NFC

TOP = 0x110000


def hangul(c):
    return 0xAC00 <= c <= 0xD7A3


def rows(items):
    line = "   "
    for i in items:
        if len(line) + 1 + len(i) > 110:
            print(line)
            line = "   "
        line += " " + i
    print(line)


def known_class(c, nfc):
    """A mark of class 240 in front of `c` moves behind it if the library knows that `c` combines."""
    k = u.combining(chr(c))
    return k if k == 240 or nfc.normalize_str("q\u0345" + chr(c)) == "q" + chr(c) + "\u0345" else 0


def table(name, width, items):
    print("const size_t tok_nfc_%s_n = %d;" % (name, len(items)))
    print("const uint32_t tok_nfc_%s[][%d] = {" % (name, width))
    rows(items)
    print("};")


def main():
    nfc = NFC()
    decomp = {}
    for c in range(TOP):
        d = u.decomposition(chr(c))
        if d and not d.startswith("<"):
            parts = [int(x, 16) for x in d.split()]
            alone, apart = nfc.normalize_str(chr(c)), nfc.normalize_str("".join(map(chr, parts)))
            if alone == u.normalize("NFC", chr(c)) and apart == u.normalize("NFC", "".join(map(chr, parts))):
                decomp[c] = parts
    composes = {c for c, d in decomp.items()
                if len(d) == 2 and u.normalize("NFC", u.normalize("NFD", chr(c))) == chr(c)}
    seconds = {decomp[c][1] for c in composes}
    pairs = sorted((decomp[c][0], decomp[c][1], c) for c in composes)
    classes, suspects = [], []
    for c in range(TOP):
        k = 0 if 0xD800 <= c <= 0xDFFF or not u.combining(chr(c)) else known_class(c, nfc)
        if k:
            if classes and classes[-1][1] == c - 1 and classes[-1][2] == k:
                classes[-1][1] = c
            else:
                classes.append([c, c, k])
        odd = k or c in seconds or 0x1161 <= c <= 0x1175 or 0x11A8 <= c <= 0x11C2 or \
            (c in decomp and u.normalize("NFC", chr(c)) != chr(c))
        if odd:
            if suspects and suspects[-1][1] == c - 1:
                suspects[-1][1] = c
            else:
                suspects.append([c, c])
    print("/* Made by tests/golden/tok/make_nfc.py; do not edit. */")
    print('#include "tok_nfc_table.h"\n')
    print("/* clang-format off */")
    table("decomp", 3, ["{%d,%d,%d}," % (c, d[0], d[1] if len(d) == 2 else 0) for c, d in sorted(decomp.items())])
    table("pair", 3, ["{%d,%d,%d}," % p for p in pairs])
    table("class", 3, ["{%d,%d,%d}," % tuple(c) for c in classes])
    table("suspect", 2, ["{%d,%d}," % tuple(c) for c in suspects])


main()
