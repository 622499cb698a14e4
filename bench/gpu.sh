#!/bin/sh
# bench/gpu.sh [PART...]   everything that only a GPU can tell, in under ten minutes
#
# Needs an NVIDIA GPU, the CUDA toolkit (nvcc, cuBLASLt) and a C compiler; no CMake, no library of the worker's. Builds the
# backend, the engine and bench_gpu into build/gpu, runs the parts, prints a table for each and writes them to
# bench/results/<gpu>/*.csv; parts.csv there says which ran, which were skipped, and why.
#
#   parity     every op against the CPU backend, with tolerances        linear     the models' products, and their ceilings
#   attention  decode and prompts over block tables                     rows       norm, rotation, sampler
#   invariance does a row's result depend on how many rows there are    decode     tokens/s and gaps by batch, bf16 and fp8
#   prefill    prompts of 512, 2k, 8k                                   requests   200 at 200/200, 38 at 20000/2000, fp8
#   copies     blocks between GPU and host                              torch      the same decode in PyTorch
#   sanitizer  compute-sanitizer over small parity cases                build      only builds
set -eu
cd "$(dirname "$0")/.."
root=$PWD
started=$(date +%s)
limit=${STATOR_GPU_SECONDS:-585}
parts=${*:-parity linear attention rows invariance decode prefill requests copies torch sanitizer}

die() { echo "gpu.sh: $*" >&2; exit 1; }
for p in $parts; do
    case $p in
    parity|linear|attention|rows|invariance|decode|prefill|requests|copies|torch|sanitizer|build) ;;
    *) sed -n 's/^#   //p' "$0" >&2; die "'$p' is no part" ;;
    esac
done
wants() { case " $parts " in *" $1 "*) ;; *) return 1 ;; esac; }

# ---- build -------------------------------------------------------------------------------------------------------------

nvcc=$(command -v nvcc || echo "${CUDA_HOME:-/usr/local/cuda}/bin/nvcc")
[ -x "$nvcc" ] || die "no nvcc: install the CUDA toolkit or set CUDA_HOME"
cuda=$(dirname "$(dirname "$(readlink -f "$nvcc")")")
jobs=${JOBS:-$(nproc)}

# Only for the GPU that is there; without one for A100 and H100, to see that it builds.
capability=$(nvidia-smi --query-gpu=compute_cap --format=csv,noheader 2>/dev/null | head -n 1 || :)
case $capability in
9.0) arch="-gencode arch=compute_90a,code=sm_90a" ;;
8.*) arch="-gencode arch=compute_80,code=sm_80" ;;
[0-9]*) arch="-gencode arch=compute_80,code=compute_80" ;;
*) arch="-gencode arch=compute_80,code=sm_80 -gencode arch=compute_90a,code=sm_90a" capability=none ;;
esac
out=$root/build/gpu/$capability
mkdir -p "$out"
log=$out/build.log

include="-Ibase -Ikernels -Ikernels/cpu -Ikernels/cuda -Ikvcache -Iworker/model -Iworker/grammar -Iworker/engine -Ibench/gpu"
cflags="-std=c17 -O2 -g -ffp-contract=off -fno-strict-aliasing -fvisibility=hidden $include -isystem $cuda/include"
nvflags="-std=c++17 -O3 -fmad=false -Xcompiler -fno-strict-aliasing,-fno-threadsafe-statics $arch $include"

isa_flags() { # by the file's suffix, as in CMakeLists.txt
    avx2="-mavx2 -mfma -mf16c"
    avx512="$avx2 -mavx512f -mavx512bw -mavx512vl -mavx512dq -mavx512vnni -mprefer-vector-width=512"
    case $1 in
    *_avx2.c) echo "$avx2" ;;
    *_avxvnni.c) echo "$avx2 -mavxvnni" ;;
    *_avx512.c) echo "$avx512" ;;
    *_avx512bf16.c) echo "$avx512 -mavx512bf16" ;;
    *_amx.c) echo "$avx512 -mavx512bf16 -mamx-tile -mamx-int8 -mamx-bf16" ;;
    esac
}

# All but what reads JSON: bench_gpu describes its models in C.
sources() {
    ls kernels/cuda/*.cu
    ls base/*.c kernels/*.c kernels/cpu/*.c kernels/cuda/*.c kvcache/*.c worker/model/*.c worker/grammar/*.c worker/engine/*.c \
        bench/gpu.c bench/gpu/*.c |
        grep -v -e /json.c -e '/grammar_\(keyword\|number\|object\|schema\).c' \
            -e /hparams_hf.c -e /safetensors.c -e /source_hf.c -e /model_open.c -e /cu_plugin.c
}

build() {
    newest=$(find base kernels kvcache worker bench -name '*.h' -o -name '*.inl' -o -name '*.cuh' | xargs ls -t | head -n 1)
    objects=
    : >"$out/jobs"
    for source in $(sources); do
        object=$out/$(echo "$source" | tr / _).o
        objects="$objects $object"
        [ "$object" -nt "$source" ] && [ "$object" -nt "$newest" ] && continue
        case $source in
        *.cu) echo "$nvcc $nvflags -c $source -o $object" ;;
        *) echo "${CC:-cc} $cflags $(isa_flags "$source") -c $source -o $object" ;;
        esac >>"$out/jobs"
    done
    echo "gpu.sh: $(wc -l <"$out/jobs") files to compile with $jobs jobs, $nvcc, GPU $capability"
    xargs -r -d '\n' -P "$jobs" -n 1 sh -c <"$out/jobs" >"$log" 2>&1 || { tail -n 30 "$log"; die "the build failed: $log"; }
    # shellcheck disable=SC2086
    ${CC:-cc} -o "$out/bench_gpu" $objects -Wl,--wrap=gpu_graph_launch -L"$cuda/lib64" -Wl,-rpath,"$cuda/lib64" \
        -lcublasLt -lcudart_static -lpthread -lrt -ldl -lm >"$log" 2>&1 || { tail -n 30 "$log"; die "linking failed: $log"; }
    echo "gpu.sh: built in $(($(date +%s) - started)) s"
}

build
bench=$out/bench_gpu
[ "$parts" != build ] || exit 0

# ---- run ---------------------------------------------------------------------------------------------------------------

st=0
gpu=$("$bench" name 2>"$out/why") || st=$?
if [ $st != 0 ]; then
    echo "gpu.sh: all parts skipped: $(cat "$out/why")"
    exit $st
fi
results=$root/bench/results/$gpu
mkdir -p "$results"
echo "part,status,seconds,note" >"$results/parts.csv"
{
    nvidia-smi --query-gpu=name,driver_version,clocks.max.sm,clocks.max.mem,power.limit,memory.total --format=csv 2>/dev/null || :
    "$nvcc" --version | tail -n 2 | head -n 1
    git log -1 --format='commit %h of %cd' 2>/dev/null || :
} >"$results/machine.txt"

failed=0
say() { # say PART STATUS SECONDS NOTE
    echo "$1,$2,$3,$4" >>"$results/parts.csv"
    echo "gpu.sh: $1: $2${4:+: $4}"
}

part() { # part NAME SECONDS COMMAND...: within its own time and what is left of all
    name=$1 seconds=$2
    shift 2
    left=$((started + limit - $(date +%s)))
    [ "$left" -lt "$seconds" ] && seconds=$left
    if [ "$seconds" -lt 10 ]; then
        say "$name" skipped 0 "no time is left"
        return
    fi
    began=$(date +%s)
    st=0
    timeout -k 5 "$seconds" "$@" 2>"$out/stderr" || st=$?
    cat "$out/stderr" >&2
    took=$(($(date +%s) - began))
    note=$(tail -n 1 "$out/stderr" | tr ',\n' '; ' | cut -c 1-200)
    case $st in
    0) say "$name" ok $took "" ;;
    77) say "$name" skipped $took "${note:-see above}" ;;
    124|137) say "$name" "cut short" $took "its limit of $seconds s" ;;
    *) failed=1; say "$name" FAILED $took "${note:-status $st}" ;;
    esac
}

engine_parts() { # engine_parts FORM NAME...: those that were asked for, on one load of the weights
    form=$1 list=
    shift
    for p in "$@"; do
        wants "$p" && list="$list $p"
    done
    [ -z "$list" ] && return
    flag=
    [ "$form" = fp8 ] && flag=--fp8
    # shellcheck disable=SC2086
    part "$(echo $list | tr ' ' +) $form" 260 "$bench" --out "$results" $flag $list
}

for p in parity linear attention rows invariance copies; do
    wants $p && part $p 120 "$bench" --out "$results" $p
done
engine_parts bf16 decode prefill
engine_parts fp8 decode prefill requests
if wants torch && ! command -v python3 >/dev/null; then
    say torch skipped 0 "there is no python3"
elif wants torch; then
    left=$((started + limit - $(date +%s)))
    [ $left -gt 130 ] && left=130
    part torch 135 python3 bench/peers/torch_decode.py --out "$results" --limit $((left > 20 ? left - 15 : 5))
fi
if wants sanitizer; then
    PATH=$PATH:$cuda/bin:$cuda/compute-sanitizer
    if command -v compute-sanitizer >/dev/null; then
        part sanitizer 120 compute-sanitizer --tool memcheck --error-exitcode 9 "$bench" parity-small
    else
        say sanitizer skipped 0 "the toolkit has no compute-sanitizer"
    fi
fi
echo "gpu.sh: $(($(date +%s) - started)) s; tables in $results"
exit $failed
