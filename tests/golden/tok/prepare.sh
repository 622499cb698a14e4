#!/bin/sh
# prepare.sh CACHE: what the tokenizer tests read, made once from what ./test fetched into CACHE. Quiet and quick when
# it is there already; leaves out what its sources are missing for.
#   CACHE/tok/*.tokv    vocabularies with their vectors, from CACHE/corpus/models (or the source package itself)
#   CACHE/tok/hf/       the same as tokenizer.json with the ids of the real library, where CACHE/venv has it
set -eu
here=$(cd "$(dirname "$0")" && pwd)
cache=$1

vectors() {
    set --
    for f in "$cache"/corpus/models/ggml-vocab-*.gguf "$cache"/llama_cpp_python-0.3.36.tar.gz "$cache"/SmolLM2*.gguf \
        "$cache"/models/SmolLM2*.gguf; do
        [ ! -f "$f" ] || set -- "$@" "$f"
    done
    [ $# -gt 0 ] && [ "$(cat "$cache/tok/stamp" 2>/dev/null)" != "$*" ] || return 0
    python3 "$here/gguf_vectors.py" "$cache/tok" "$@"
    rm -rf "$cache/tok/hf"
    echo "$*" >"$cache/tok/stamp"
}

library() {
    python=$cache/venv/bin/python
    [ ! -d "$cache/tok/hf" ] && [ -f "$cache/tok/stamp" ] && [ -x "$python" ] || return 0
    "$python" -c 'import tokenizers' 2>/dev/null || return 0
    part=$cache/tok/hf.$$
    rm -rf "$part"
    "$python" "$here/make_goldens.py" "$part" --tokv "$cache/tok"
    mv "$part" "$cache/tok/hf"
}

vectors
library
