#!/usr/bin/env python3
"""Writes worker/text/tok_nfc_table.h: the canonical compositions of Unicode, from Python's own unicodedata.

Usage: make_nfc.py > worker/text/tok_nfc_table.h
"""
import unicodedata as u

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


def main():
    decomp = {}
    for c in range(TOP):
        d = u.decomposition(chr(c))
        if d and not d.startswith("<"):
            decomp[c] = [int(x, 16) for x in d.split()]
    composes = {c for c, d in decomp.items()
                if len(d) == 2 and u.normalize("NFC", u.normalize("NFD", chr(c))) == chr(c)}
    seconds = {decomp[c][1] for c in composes}
    pairs = sorted((decomp[c][0], decomp[c][1], c) for c in composes)
    classes, suspects = [], []
    for c in range(TOP):
        k = u.combining(chr(c))
        if k:
            if classes and classes[-1][1] == c - 1 and classes[-1][2] == k:
                classes[-1][1] = c
            else:
                classes.append([c, c, k])
        odd = k or c in seconds or 0x1161 <= c <= 0x1175 or 0x11A8 <= c <= 0x11C2 or \
            (not 0xD800 <= c <= 0xDFFF and u.normalize("NFC", chr(c)) != chr(c))
        if odd:
            if suspects and suspects[-1][1] == c - 1:
                suspects[-1][1] = c
            else:
                suspects.append([c, c])
    print("/* Made by tests/golden/tok/make_nfc.py from Unicode %s; do not edit. */" % u.unidata_version)
    print("/* {code point, first, second or 0}: canonical decompositions, by code point */")
    print("/* clang-format off */")
    print("static const uint32_t nfc_decomp[][3] = {")
    rows(["{%d,%d,%d}," % (c, d[0], d[1] if len(d) == 2 else 0) for c, d in sorted(decomp.items())])
    print("};\n/* {first, second, composed}: primary composites, by (first, second) */")
    print("static const uint32_t nfc_pair[][3] = {")
    rows(["{%d,%d,%d}," % p for p in pairs])
    print("};\n/* {from, to, canonical combining class} */")
    print("static const uint32_t nfc_class[][3] = {")
    rows(["{%d,%d,%d}," % tuple(c) for c in classes])
    print("};\n/* {from, to}: what may change under NFC */")
    print("static const uint32_t nfc_suspect[][2] = {")
    rows(["{%d,%d}," % tuple(c) for c in suspects])
    print("};")


main()
