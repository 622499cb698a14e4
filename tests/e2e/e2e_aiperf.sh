#!/bin/sh
# AIPerf (the field's own load generator) runs against the worker, unmodified. It lives in an environment of its own in
# the cache, because it pins many packages. Skips (77) where the environment cannot be had.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
cache=${STATOR_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/stator}
model=${STATOR_MODEL_FILE:-$cache/models/SmolLM2-135M-Instruct.Q4_1.gguf}
binary=$(realpath "${STATOR_BIN:-$root/build/release/stator}")
venv=$cache/venv-aiperf
package='aiperf>=0.13,<0.14'

skip() { echo "skipped: $*"; exit 77; }
[ -f "$model" ] || skip "no model at $model"
[ -x "$binary" ] || skip "no binary at $binary"
if [ "$(cat "$venv/stamp" 2>/dev/null)" != "$package" ]; then
    rm -rf "$venv"
    python3 -m venv "$venv"
    "$venv/bin/pip" install -q --disable-pip-version-check "$package" gguf tokenizers >"$venv/pip.log" 2>&1 ||
        skip "aiperf did not install: $(tail -n 1 "$venv/pip.log")"
    printf '%s' "$package" >"$venv/stamp"
fi

work=$(mktemp -d)
pid=
trap '[ -z "$pid" ] || kill "$pid" 2>/dev/null || :; rm -rf "$work"' EXIT
"$venv/bin/python" "$here/gguf_to_hf.py" "$model" "$work/hf"
"$binary" --model "$model" --port 0 --threads 2 --context-length 8192 >"$work/log" 2>&1 &
pid=$!
port=
for _ in $(seq 600); do
    port=$(sed -n 's#.*http://127\.0\.0\.1:\([0-9][0-9]*\).*#\1#p' "$work/log" | head -n 1)
    [ -z "$port" ] || break
    kill -0 "$pid" 2>/dev/null || { cat "$work/log"; exit 1; }
    sleep 0.1
done
[ -n "$port" ] || { cat "$work/log"; echo "the worker names no port"; exit 1; }
name=$(curl -sf "http://127.0.0.1:$port/v1/models" | "$venv/bin/python" -c 'import json, sys; print(json.load(sys.stdin)["data"][0]["id"])')

run() { # run ENDPOINT: 12 streamed requests, 3 at a time
    (cd "$work" && "$venv/bin/aiperf" profile --model "$name" --url "http://127.0.0.1:$port" --endpoint-type "$1" \
        --streaming --tokenizer ./hf --concurrency 3 --request-count 12 --synthetic-input-tokens-mean 64 \
        --output-tokens-mean 24 --extra-inputs ignore_eos:true --random-seed 1 --ui none \
        --artifact-dir "$work/out-$1" >"$work/aiperf-$1" 2>&1) || { tail -n 40 "$work/aiperf-$1"; cat "$work/log"; exit 1; }
    find "$work/out-$1" -name 'profile_export_aiperf.json' | grep -q . || { tail -n 40 "$work/aiperf-$1"; exit 1; }
    "$venv/bin/python" - "$(find "$work/out-$1" -name 'profile_export_aiperf.json' | head -n 1)" "$1" <<'PY'
import json, sys
report = json.load(open(sys.argv[1]))
count = report["request_count"]["avg"]
errors = (report.get("error_request_count") or {}).get("avg") or 0
length = report["output_sequence_length"]["avg"]
assert count == 12 and not errors, (count, errors)
assert length >= 12, length
print(f"aiperf {sys.argv[2]}: {count:.0f} requests, {length:.1f} tokens each, "
      f"TTFT {report['time_to_first_token']['avg']:.0f} ms, no errors")
PY
}
run chat
run completions
kill "$pid"
code=0
wait "$pid" || code=$?
pid=
[ "$code" = 0 ] || { cat "$work/log"; echo "the worker ended with $code"; exit 1; }
