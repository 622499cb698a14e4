#!/usr/bin/env python3
"""Writes the tokenizer of a byte-level-BPE GGUF as a Hugging Face folder, for clients that want `--tokenizer DIR`.

usage: gguf_to_hf.py MODEL.gguf DIR      needs the packages gguf and tokenizers
"""
import json
import os
import sys

from gguf import GGUFReader
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

CONTROL, USER_DEFINED = 3, 4  # token types of the GGUF specification


def main():
    source, folder = sys.argv[1:3]
    fields = GGUFReader(source).fields

    def get(name, default=None):
        return fields[name].contents() if name in fields else default
    if get("tokenizer.ggml.model") != "gpt2":
        sys.exit(f"{source}: tokenizer.ggml.model is {get('tokenizer.ggml.model')}, only gpt2 (byte-level BPE) is handled")
    tokens, arch = get("tokenizer.ggml.tokens"), get("general.architecture")
    special = [t for t, kind in zip(tokens, get("tokenizer.ggml.token_type")) if kind in (CONTROL, USER_DEFINED)]
    bpe = models.BPE(vocab={t: i for i, t in enumerate(tokens)},
                     merges=[tuple(m.split(" ", 1)) for m in get("tokenizer.ggml.merges")])
    tokenizer = Tokenizer(bpe)
    steps = [pre_tokenizers.ByteLevel(add_prefix_space=False)]
    if get("tokenizer.ggml.pre") == "smollm":
        steps.insert(0, pre_tokenizers.Digits(individual_digits=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(steps)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in special])

    os.makedirs(folder, exist_ok=True)
    tokenizer.save(os.path.join(folder, "tokenizer.json"))
    bos, eos = (tokens[get(f"tokenizer.ggml.{end}_token_id")] for end in ("bos", "eos"))
    files = {
        "tokenizer_config.json": {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": bos, "eos_token": eos,
                                  "chat_template": get("tokenizer.chat_template"), "clean_up_tokenization_spaces": False,
                                  "model_max_length": get(arch + ".context_length")},
        "config.json": {"model_type": arch, "vocab_size": len(tokens),
                        "max_position_embeddings": get(arch + ".context_length")},
    }
    for name, content in files.items():
        with open(os.path.join(folder, name), "w", encoding="utf-8") as f:
            json.dump(content, f, indent=1)


main()
