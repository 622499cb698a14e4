#!/usr/bin/env python3
"""Turns GGUF vocabularies into flat files that tests/text/test_tok_gguf.c reads.

Usage: gguf_vectors.py OUT_DIR SOURCE...
A SOURCE is a .gguf file (with FILE.inp and FILE.out beside it for test vectors) or the source package
llama_cpp_python-0.3.36.tar.gz, whose vendor/llama.cpp/models/ggml-vocab-*.gguf are taken. Only vocabularies of model
"llama" (SentencePiece scores), "gpt2" and "gemma4" (merges) are written; the others are named and left out.

Layout of NAME.tokv, little endian, strings as u32 length + bytes:
  "TOKV0001", u32 kind (0 byte level, 1 scores), i32 bos, eos, unk, u32 flags (1 add_bos, 2 add_eos, 4 space prefix),
  str pre, u32 n_tokens, str[n], f32 score[n], i32 type[n], u32 n_merges, str[n],
  u32 n_cases, {str text, u32 n, i32 id[n]}[n_cases]
"""
import io
import os
import struct
import sys
import tarfile

SIZES = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
MARK = "\n__ggml_vocab_test__\n"


class Reader:
    def __init__(self, data):
        self.d, self.at = data, 0

    def num(self, fmt):
        v = struct.unpack_from("<" + fmt, self.d, self.at)[0]
        self.at += struct.calcsize("<" + fmt)
        return v

    def text(self):
        n = self.num("Q")
        self.at += n
        return bytes(self.d[self.at - n:self.at])

    def value(self, kind):
        if kind == 8:
            return self.text()
        if kind == 9:
            sub, n = self.num("I"), self.num("Q")
            if sub in (8, 9):
                return [self.value(sub) for _ in range(n)]
            v = struct.unpack_from("<%d%s" % (n, SIZES[sub]), self.d, self.at)
            self.at += struct.calcsize("<%d%s" % (n, SIZES[sub]))
            return list(v)
        return self.num(SIZES[kind])


def metadata(data):
    r = Reader(data)
    if bytes(data[:4]) != b"GGUF":
        raise ValueError("not a GGUF file")
    r.at = 4
    r.num("I")
    r.num("Q")
    out = {}
    for _ in range(r.num("Q")):
        key = r.text().decode()
        out[key] = r.value(r.num("I"))
    return out


def cases(inp, out):
    if inp is None or out is None:
        return []
    texts = inp.decode("utf-8").split(MARK)[:-1] if inp.decode("utf-8").endswith(MARK) else inp.decode().split(MARK)
    lines = out.decode().split("\n")
    return [(t.encode(), [int(x) for x in line.split()]) for t, line in zip(texts, lines)]


def pack(b):
    return struct.pack("<I", len(b)) + b


def write(path, name, data, inp, out):
    kv = metadata(data)
    g = lambda k, default=None: kv.get("tokenizer.ggml." + k, default)
    model = g("model", b"").decode()
    if model not in ("llama", "gpt2", "gemma4"):
        print("%s: model %r left out" % (name, model))
        return
    tokens, spm = g("tokens"), model == "llama"
    n, merges, vectors = len(tokens), g("merges", []), cases(inp, out)
    pre = b"gemma4" if model == "gemma4" else g("pre", b"")
    flags = (1 if g("add_bos_token", spm) else 0) | (2 if g("add_eos_token", False) else 0) | \
        (4 if spm and g("add_space_prefix", True) else 0)
    f = io.BytesIO()
    f.write(b"TOKV0001")
    f.write(struct.pack("<IiiiI", spm, g("bos_token_id", -1), g("eos_token_id", -1), g("unknown_token_id", -1), flags))
    f.write(pack(pre))
    f.write(struct.pack("<I", n))
    f.write(b"".join(pack(t) for t in tokens))
    f.write(struct.pack("<%df" % n, *g("scores", [0.0] * n)))
    f.write(struct.pack("<%di" % n, *g("token_type", [1] * n)))
    f.write(struct.pack("<I", len(merges)) + b"".join(pack(m) for m in merges))
    f.write(struct.pack("<I", len(vectors)))
    for text, ids in vectors:
        f.write(pack(text) + struct.pack("<I%di" % len(ids), len(ids), *ids))
    part = os.path.join(path, name + ".part")
    with open(part, "wb") as o:
        o.write(f.getvalue())
    os.replace(part, os.path.join(path, name + ".tokv"))
    print("%s: %s, pre %s, %d tokens, %d merges, %d vectors" % (name, model, pre.decode(), n, len(merges), len(vectors)))


def from_tar(path, source):
    found = {}
    with tarfile.open(source) as tar:
        for m in tar:
            base = os.path.basename(m.name)
            if "/vendor/llama.cpp/models/ggml-vocab-" in m.name and m.isfile():
                found[base] = tar.extractfile(m).read()
    for base in sorted(found):
        if base.endswith(".gguf"):
            write(path, base[:-5].replace("ggml-vocab-", ""), found[base], found.get(base + ".inp"),
                  found.get(base + ".out"))


def read(path):
    if not os.path.exists(path):
        return None
    with open(path, "rb") as f:
        return f.read(64 << 20) if path.endswith(".gguf") else f.read()


def main():
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    os.makedirs(sys.argv[1], exist_ok=True)
    for source in sys.argv[2:]:
        if source.endswith(".tar.gz"):
            from_tar(sys.argv[1], source)
        else:
            name = os.path.basename(source)[:-5].replace("ggml-vocab-", "")
            write(sys.argv[1], name, read(source), read(source + ".inp"), read(source + ".out"))


main()
