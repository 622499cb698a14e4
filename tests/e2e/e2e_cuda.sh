#!/bin/sh
# The program and its CUDA plug-in, on a machine with or without a GPU: no CUDA library in the program itself, a GPU that is not
# there is refused with the reason, auto then takes the CPU and says so.
set -eu
cd "$(dirname "$0")/../.."
bin=build/release/stator
die() { echo "e2e_cuda: $*"; exit 1; }

ldd "$bin" | grep -i -E 'cuda|cublas|nccl|nvrtc' && die "the program links a CUDA library"
plugin=build/release/libstator_cuda.so
if command -v nvcc >/dev/null || [ -x /usr/local/cuda/bin/nvcc ]; then
    [ -f "$plugin" ] || die "nvcc is here, but $plugin was not built"
    [ "$(nm -D --defined-only "$plugin" | grep -c ' [A-Z] stator')" = 1 ] || die "the plug-in shows more than its one symbol"
fi
if command -v nvidia-smi >/dev/null && nvidia-smi -L >/dev/null 2>&1; then
    echo "e2e_cuda: a GPU is here; its tests are bench/gpu.sh"
    exit 0
fi

model=bench/configs/smollm2-135m
st=0
out=$("$bin" --device cuda --load-format dummy --model $model --port 0 2>&1) || st=$?
[ $st != 0 ] || die "--device cuda started without a GPU"
echo "$out" | grep -q -- '--device cuda: ' || die "no reason given: $out"
echo "$out" | tail -n 1

log=$(mktemp)
"$bin" --device auto --load-format dummy --model $model --port 0 --max-num-seqs 2 >"$log" 2>&1 &
pid=$!
for _ in $(seq 200); do
    grep -q '^ready' "$log" && break
    kill -0 $pid 2>/dev/null || break
    sleep 0.1
done
kill $pid 2>/dev/null || :
wait $pid || :
grep -q '^ready' "$log" || { cat "$log"; die "--device auto did not start"; }
[ ! -f "$plugin" ] || grep -q 'using the CPU' "$log" || { cat "$log"; die "auto does not say why there is no GPU"; }
rm -f "$log"
echo "e2e_cuda: refused politely, fell back to the CPU"
