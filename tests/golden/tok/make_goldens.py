#!/usr/bin/env python3
"""Makes the tokenizer goldens with the real library (PyPI: tokenizers; made with 0.23.3).

Usage: make_goldens.py OUT_DIR                 the committed set: small tokenizers trained here on the text below
       make_goldens.py OUT_DIR --tokv DIR      full-size ones from DIR/*.tokv (see gguf_vectors.py); not committed

Writes OUT_DIR/texts.hex (one text per line) and per tokenizer NAME.json and NAME.vec. Line i of a .vec belongs to text i:
  ids with special tokens added | the same with special tokens taken as plain text, or = | decode(ids), skipping
  special tokens, in hex, or = when it is the text | decode(ids) with special tokens shown, or = when as the one before;
  - where it was left out to keep the files small
"""
import argparse
import json
import os
import random
import struct
import sys
import unicodedata

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

CORPUS = """
The river had been rising since Tuesday, and by the time the ferry stopped nobody in the town was surprised.
She counted the boxes twice: 14 in the hall, 27 in the kitchen, and 1,305 letters that she'd never opened.
"I can't say I've seen one," he said, "but we'll look, and they're sure it's there; you'd better wait."
Programming is understanding. Every step of the loop reads a token, writes a token, and forgets the rest.
def encode(text: str, limit: int = 512) -> list[int]:\n    ids = []\n    for piece in split(text):\n        ids.extend(merge(piece))\n    return ids[:limit]
int main(void)\n{\n\tfor (size_t i = 0; i < n; i++)\n\t\tsum += values[i] * 3.14159;\n\treturn sum > 0 ? 0 : 1;\n}
{"name": "value", "items": [1, 2, 3, 40, 500], "ok": true, "none": null}
Der Fluss stieg seit Dienstag, und als die Faehre stillstand, war in der Stadt niemand überrascht. Größe, Straße, Äpfel.
La rivière montait depuis mardi ; personne n'était étonné quand le bac s'est arrêté. Où êtes-vous, garçon ?
El río subía desde el martes y nadie en el pueblo se sorprendió. ¿Cuántos años tienes? ¡Mañana será otro día!
Река поднималась со вторника, и никто в городе не удивился, когда паром остановился. Сколько это стоит?
川は火曜日から増水していて、渡し船が止まっても町の誰も驚かなかった。カタカナとひらがな。
河水从星期二开始上涨，渡船停航时镇上没有人感到惊讶。我们今天学习新的词语。
강물은 화요일부터 불어나고 있었고 나룻배가 멈췄을 때 아무도 놀라지 않았다.
كان النهر يرتفع منذ يوم الثلاثاء ولم يتفاجأ أحد في المدينة.
हम आज नदी के किनारे गए और वहाँ किसी को आश्चर्य नहीं हुआ।
Ο ποταμός ανέβαινε από την Τρίτη και κανείς δεν ξαφνιάστηκε.
Dòng sông dâng lên từ thứ Ba và không ai trong thị trấn ngạc nhiên.
"""

GPT4ISH = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
           r"|\s+(?!\S)|\s+")
CASED = (r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?"
         r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+")
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]


def byte_level(vocab, pre, ignore_merges=False):
    t = Tokenizer(models.BPE(ignore_merges=ignore_merges))
    t.pre_tokenizer = pre
    t.decoder = decoders.ByteLevel()
    t.post_processor = processors.ByteLevel(trim_offsets=False)
    lines = corpus()
    t.train_from_iterator(lines, trainers.BpeTrainer(vocab_size=vocab, special_tokens=SPECIAL, show_progress=False,
                                                     initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))
    return t


def corpus():
    """The lines above, and word salad of them so that pairs have counts to differ by."""
    rnd = random.Random(7)
    lines = CORPUS.strip().split("\n")
    words = [w for x in lines for w in x.split(" ")]
    for _ in range(200):
        lines.append(" ".join(rnd.choice(words) for _ in range(rnd.randint(3, 20))))
    return lines


def template(t, bos):
    i = t.token_to_id(bos)
    return processors.TemplateProcessing(single=bos + " $A", pair=bos + " $A " + bos + ":1 $B:1",
                                         special_tokens=[(bos, i)])


def make_gpt2():
    return byte_level(900, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True))


def make_smollm():
    t = byte_level(900, pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True),
                                                 pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)]))
    t.add_special_tokens([AddedToken("<left>", lstrip=True), AddedToken("<right>", rstrip=True),
                          AddedToken("<both>", lstrip=True, rstrip=True)])
    t.add_tokens([AddedToken("word", single_word=True), AddedToken("<tool_call>", normalized=False),
                  AddedToken("<tool", normalized=False)])
    return t


def make_llama3():
    t = byte_level(900, pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(GPT4ISH), "isolated"),
                                                 pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]),
                   ignore_merges=True)
    t.add_special_tokens(["<|begin_of_text|>"])
    t.post_processor = processors.Sequence([processors.ByteLevel(trim_offsets=False), template(t, "<|begin_of_text|>")])
    return t


def make_qwen2():
    t = byte_level(800, pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(GPT4ISH.replace("{1,3}", "")), "isolated"),
                                                 pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]))
    t.normalizer = normalizers.NFC()
    t.add_tokens([AddedToken("\u00e9t\u00e9", normalized=True)])
    return t


def make_cased():
    return byte_level(700, pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(CASED), "removed", invert=True),
                                                    pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]))


def make_mixed():
    """Every splitting behaviour, a prefix space, and a regex normaliser."""
    t = byte_level(700, pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(r"\s+"), "merged_with_next"), pre_tokenizers.Split(",", "merged_with_previous"),
        pre_tokenizers.Split(Regex(r"[=+*-]"), "contiguous"), pre_tokenizers.Split("(", "removed"),
        pre_tokenizers.Punctuation("isolated"), pre_tokenizers.Digits(individual_digits=False),
        pre_tokenizers.ByteLevel(add_prefix_space=True, use_regex=False)]))
    t.normalizer = normalizers.Sequence([normalizers.Replace(Regex(r"\t+"), "    "), normalizers.Replace("\u00a0", " ")])
    return t


def characters(vocab, merges):
    t = Tokenizer(models.BPE(vocab=vocab, merges=merges, byte_fallback=True, fuse_unk=True, unk_token="<unk>"))
    t.add_special_tokens(["<unk>", "<s>", "</s>"])
    return t


def train_characters():
    t = Tokenizer(models.BPE())
    t.pre_tokenizer = pre_tokenizers.Metaspace()
    t.train_from_iterator(corpus(), trainers.BpeTrainer(vocab_size=900, show_progress=False, limit_alphabet=300))
    m = json.loads(t.to_str())["model"]
    vocab = {"<unk>": 0, "<s>": 1, "</s>": 2}
    for b in range(256):
        vocab["<0x%02X>" % b] = len(vocab)
    for w, _ in sorted(m["vocab"].items(), key=lambda x: x[1]):
        vocab.setdefault(w, len(vocab))
    return characters(vocab, [tuple(x) for x in m["merges"]])


def as_llama2(t):
    t.normalizer = normalizers.Sequence([normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")])
    t.decoder = decoders.Sequence([decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse(),
                                   decoders.Strip(" ", 1, 0)])
    t.post_processor = template(t, "<s>")
    return t


def make_llama2():
    return as_llama2(train_characters())


def make_mistral():
    t = train_characters()
    t.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    t.decoder = decoders.Sequence([decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse(),
                                   decoders.Strip(" ", 1, 0)])
    t.post_processor = template(t, "<s>")
    t.add_special_tokens(["[INST]", "[/INST]"])
    return t


def make_meta():
    t = train_characters()
    t.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always", split=True)
    t.decoder = decoders.Metaspace(prepend_scheme="always")
    return t


SCRIPTS = [(0x21, 0x7E), (0xA1, 0xFF), (0x100, 0x17F), (0x370, 0x3FF), (0x400, 0x4FF), (0x531, 0x556), (0x5D0, 0x5EA),
           (0x620, 0x64A), (0x710, 0x74A), (0x780, 0x7B1), (0x904, 0x939), (0x985, 0x9B9), (0xA05, 0xA39),
           (0xA85, 0xAB9), (0xB05, 0xB39), (0xB85, 0xBB9), (0xC05, 0xC39), (0xC85, 0xCB9), (0xD05, 0xD39),
           (0xD85, 0xDC6), (0xE01, 0xE3A), (0xE81, 0xEAE), (0xF40, 0xF6C), (0x1000, 0x1049), (0x10A0, 0x10FF),
           (0x1100, 0x11FF), (0x1200, 0x1248), (0x13A0, 0x13F5), (0x1401, 0x1500), (0x1680, 0x169C), (0x16A0, 0x16EA),
           (0x1780, 0x17B3), (0x1800, 0x1842), (0x1E00, 0x1EFF), (0x1F00, 0x1FFC), (0x2000, 0x206F), (0x2070, 0x209C),
           (0x20A0, 0x20C0), (0x2100, 0x218B), (0x2190, 0x23FF), (0x2460, 0x24FF), (0x2581, 0x259F), (0x2600, 0x27BF),
           (0x2C00, 0x2C5F), (0x2D30, 0x2D67), (0x3000, 0x303F), (0x3041, 0x3096), (0x30A1, 0x30FA), (0x3105, 0x312F),
           (0x4E00, 0x4FFF), (0x9F00, 0x9FFF), (0xA000, 0xA48C), (0xAC00, 0xAD00), (0xD700, 0xD7A3), (0xE000, 0xE010),
           (0xF900, 0xFA20), (0xFB00, 0xFB4F), (0xFE70, 0xFEFC), (0xFF01, 0xFFEE), (0x10000, 0x1003F),
           (0x10330, 0x1034A), (0x10400, 0x1044F), (0x12000, 0x12040), (0x13000, 0x13040), (0x1D400, 0x1D4C0),
           (0x1F300, 0x1F5FF), (0x1F600, 0x1F64F), (0x1F680, 0x1F6FF), (0x1F900, 0x1F9FF), (0x20000, 0x20040),
           (0xE0020, 0xE007F)]
SPACES = " \t\n\r\x0b\x0c\x85\xa0\u1680\u180e\u2000\u2003\u2009\u200a\u200b\u2028\u2029\u202f\u205f\u2060\u3000\ufeff"
FIXED = ["", " ", "  ", "   ", "\n", "\n\n", "\n\n\n", "\t", "\t\n", " \n", "\r\n", "a", " a", "a ", "  a", "a  b", "a \n b",
         "Hello world", " Hello world", "Hello  world", "Hello   world  ", "HELLO'S don't DON'T we'LL I'D they'Re 's 'S '\u017f",
         "can't've I'm you'd'nt 'tis", "3", "33", "333", "3333", "33333", "333333", "3.14", "1,234,567.89", "0x7fff",
         "\u0663\u0664 \u2167 \u00bd \u00b2 \u2460", "\U0001F600", "\U0001F468\u200d\U0001F469\u200d\U0001F467\u200d\U0001F466",
         "\U0001F1E9\U0001F1EA\U0001F1FA\U0001F1F8", "\U0001F44D\U0001F3FD", "\u2764\ufe0f", "#\ufe0f\u20e3",
         "\U0001F3F4\U000E0067\U000E0062\U000E0073\U000E0063\U000E0074\U000E007F",
         "e\u0301te\u0301 \u00e9t\u00e9", "A\u030a \u212b \u2126 \u1e9b\u0323", "\u1100\u1161\u11a8 \uac01 \u1100\u1161",
         "a\u0323\u0307 a\u0307\u0323 q\u0307\u0323", "\u0958 \u0915\u093c \u2adc", "\u0301 leading mark",
         "a" * 100, "ab" * 60, " " * 70, "x " * 40, "\n" * 40, "-" * 80, "=" * 33 + " " + "." * 21, "e\u0301" * 30,
         "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n", "<|im_start|>", "x<|im_end|>y", "<|im_end|><|im_end|>",
         "<|im_end", "<|im_end|", "a <left> b", "a <right> b", "a  <both>  b", "<left><right><both>", " <left>", "<right> ",
         "\n<both>\t\u3000x", "word words a word, sword word", "word", "wordword", "(word)", "_word word_", "1word", "\u00e9word word\u00e9",
         "<tool_call>{\"a\": 1}</tool_call>", "<tool <tool_cal <tool_call>", "<s>a</s>", "<s> a </s> b", "<unk>", " <unk> ",
         "[INST] hi [/INST] there", "[INST]hi[/INST]", "<0x41>", "<0x0A>x", "\u2581", "\u2581\u2581a", "a\u2581b", " \u2581 ",
         "\x00", "a\x00b", "\x01\x02\x1f\x7f\x80\x9f", "\ufeffBOM", "\ufffd\ufffd", "\uffff\U0010ffff", "\u202eright\u202c",
         "a,b,,c , d", "x=y==z+-*w", "f(x)(y) (z", "tab\tTAB\t\tend", "a\u00a0b", "https://example.org/a?b=c&d=%20#e",
         "for (int i = 0; i < 10; ++i) {\n\tprintf(\"%d\\n\", i);\n}\n", "SELECT * FROM t WHERE a <> 'b''c';",
         "if x:\n    return [y for y in z if y != 3]\n\n\n", "$\\alpha^{2} + \\beta_{i}$", "C++/C#/F# .NET", "e-mail@host.example",
         "CamelCaseAndXMLHttpRequest_snake_case2Go", "ÀÉÎõü ÄÖÜß", "İstanbul ıIiİ", "ﬁne ﬂow", "²³¹ ½¾"]


def make_texts():
    rnd = random.Random(20251122)
    out = list(FIXED)
    for lo, hi in SCRIPTS:
        chars = [chr(c) for c in range(lo, hi + 1) if unicodedata.category(chr(c)) not in ("Cn", "Cs")]
        for k in range(6):
            n = rnd.randint(1, 14)
            sep = ["", " ", "  ", "1", ",", "\n"][k]
            out.append(sep.join("".join(rnd.choice(chars) for _ in range(rnd.randint(1, 4))) for _ in range(max(1, n // 3))))
    for line in corpus()[:60]:
        out.append(line)
    every = [chr(c) for lo, hi in SCRIPTS for c in range(lo, hi + 1) if unicodedata.category(chr(c)) not in ("Cn", "Cs")]
    for _ in range(140):
        out.append("".join(rnd.choice(SPACES if rnd.random() < 0.3 else every) for _ in range(rnd.randint(1, 12))))
    for _ in range(60):
        out.append("".join(rnd.choice(SPACES + "ab1.'") for _ in range(rnd.randint(1, 12))))
    for _ in range(140):
        out.append(bytes(rnd.randrange(256) for _ in range(rnd.randint(1, 24))).decode("utf-8", "replace"))
    for _ in range(60):
        out.append("".join(chr(rnd.randrange(0x20) if rnd.random() < 0.5 else rnd.randrange(0x20, 0x7F))
                           for _ in range(rnd.randint(1, 16))))
    for _ in range(60):
        out.append(" ".join(str(rnd.randrange(10 ** rnd.randint(1, 9))) for _ in range(rnd.randint(1, 4))))
    pieces = SPECIAL + ["<left>", "<right>", "<both>", "<tool", "<s>", "[INST]", " ", "  ", "\n", "word", "a", "\u00e9", "e\u0301"]
    for _ in range(80):
        out.append("".join(rnd.choice(pieces) for _ in range(rnd.randint(1, 8))))
    return out


def vectors(t, texts):
    lines = []
    for i, s in enumerate(texts):
        ids = t.encode(s).ids
        t.encode_special_tokens = True
        plain = t.encode(s).ids
        t.encode_special_tokens = False
        skip, show = t.decode(ids), t.decode(ids, skip_special_tokens=False)
        lines.append("|".join([" ".join(map(str, ids)), "=" if plain == ids else " ".join(map(str, plain)),
                               "=" if skip == s else skip.encode().hex(), "=" if show == skip else "-" if i % 4 else show.encode().hex()]))
    return lines


def save(out, name, t, texts, legacy_merges=False):
    j = json.loads(t.to_str())
    if legacy_merges:
        j["model"]["merges"] = [" ".join(m) for m in j["model"]["merges"]]
    with open(os.path.join(out, name + ".json"), "w", encoding="utf-8") as f:
        json.dump(j, f, ensure_ascii=False, separators=(",", ":"))
    with open(os.path.join(out, name + ".vec"), "w") as f:
        f.write("\n".join(vectors(t, texts)) + "\n")
    print("%s: %d tokens, %d texts" % (name, t.get_vocab_size(), len(texts)))


def tokv(path):
    d = open(path, "rb").read()
    at = 8

    def num(fmt):
        nonlocal at
        v = struct.unpack_from("<" + fmt, d, at)
        at += struct.calcsize("<" + fmt)
        return v

    def text():
        nonlocal at
        n, = num("I")
        at += n
        return d[at - n:at].decode("utf-8", "replace")

    r = {"kind": num("I")[0], "bos": num("i")[0], "eos": num("i")[0], "unk": num("i")[0], "flags": num("I")[0]}
    r["pre"] = text()
    r["tokens"] = [text() for _ in range(num("I")[0])]
    n = len(r["tokens"])
    r["scores"], r["types"] = num("%df" % n), num("%di" % n)
    r["merges"] = [text() for _ in range(num("I")[0])]
    return r


def full_size(out, folder, texts):
    gpt2 = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    bare = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    digits = pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), gpt2])
    kinds = {"gpt-2": gpt2, "smollm": digits, "starcoder": digits,
             "llama-bpe": pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(GPT4ISH), "isolated"), bare]),
             "qwen2": pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(GPT4ISH.replace("{1,3}", "")), "isolated"), bare])}
    for file in sorted(os.listdir(folder)):
        name = file[:-5]
        if not file.endswith(".tokv"):
            continue
        v = tokv(os.path.join(folder, file))
        special = [AddedToken(w, special=True, normalized=False) for w, k in zip(v["tokens"], v["types"]) if k == 3]
        user = [AddedToken(w, normalized=False) for w, k in zip(v["tokens"], v["types"]) if k == 4]
        vocab = {w: i for i, w in enumerate(v["tokens"])}
        if v["kind"] == 0 and v["pre"] in kinds:
            merges = [tuple(m.split(" ")) for m in v["merges"]]
            t = Tokenizer(models.BPE(vocab=vocab, merges=merges, ignore_merges=v["pre"] == "llama-bpe"))
            t.pre_tokenizer = kinds[v["pre"]]
            t.decoder = decoders.ByteLevel()
            t.add_special_tokens(special)
        elif v["kind"] == 1 and name == "llama-spm":
            normal = {w: i for w, i in vocab.items() if v["types"][i] == 1}
            merges = [(w[:k], w[k:], v["scores"][i]) for w, i in normal.items() for k in range(1, len(w))
                      if w[:k] in normal and w[k:] in normal]
            merges.sort(key=lambda m: (-m[2], vocab[m[0]], vocab[m[1]]))
            t = as_llama2(characters(vocab, [m[:2] for m in merges]))
        else:
            continue
        t.add_tokens(user)
        save(out, name, t, texts)


def main():
    p = argparse.ArgumentParser()
    p.add_argument("out")
    p.add_argument("--tokv")
    a = p.parse_args()
    os.makedirs(a.out, exist_ok=True)
    texts = make_texts()
    with open(os.path.join(a.out, "texts.hex"), "w") as f:
        f.write("".join(s.encode().hex() + "\n" for s in texts))
    if a.tokv:
        full_size(a.out, a.tokv, texts)
        return
    for name in ("gpt2", "smollm", "llama3", "qwen2", "cased", "mixed", "llama2", "mistral", "meta"):
        save(a.out, name, globals()["make_" + name](), texts, legacy_merges=name in ("gpt2", "llama2"))


main()
