#!/usr/bin/env bash
# Everything that only a GPU can show, in one go: its tests, suites, an A/A gate, and a bare CUDA loop beside ours.
#
#     bash tests/gpu/session.sh [FOLDER] [SECONDS]
#
# FOLDER is where all of it goes (default: $OUT, else results/gpu-session): a log a step, summary.md, runs.tar.gz.
# SECONDS (default 600) is the time for all steps together. Exit code 0: all steps passed; 1: one did not; 3: no GPU.
# PYTHON names the interpreter (default python3); archbench need not be installed there, what it needs must be.
set -uo pipefail
out=$(realpath -m "${1:-${OUT:-results/gpu-session}}")
seconds=${2:-600}
python=${PYTHON:-python3}
cd "$(dirname "$0")/../.." || exit 3
export PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}"

if ! "$python" -c 'import sys, torch; sys.exit(not torch.cuda.is_available())' 2> /dev/null; then
    echo "session.sh: $python sees no CUDA device (or has no torch); run this on a machine with a GPU, or set PYTHON" >&2
    exit 3
fi
mkdir -p "$out"
runs=$(mktemp -d)
trap 'rm -rf "$runs"' EXIT
failed=0
{
    printf '# GPU session\n\n'
    "$python" -c 'import torch; print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}")'
    printf '\n| Step | Result | Seconds | It ends |\n| --- | --- | --: | --- |\n'
} > "$out/summary.md"

# step NAME SHARE ACCEPTED COMMAND...: SHARE is the per cent of all seconds that it may take (they make up 100), ACCEPTED the
# exit codes besides 0 that are no failure. It is interrupted, not killed, so that what is finished is kept.
step() {
    local name=$1 limit=$((seconds * $2 / 100)) accepted=$3 began=$SECONDS code=0 result=passed
    shift 3
    echo "== $name (at most $limit s)"
    timeout --signal=INT --kill-after=30 "$limit" "$@" 2>&1 | tee "$out/$name.txt" | tail -n 4
    code=${PIPESTATUS[0]}
    if [[ $code -ne 0 && " $accepted " != *" $code "* ]]; then
        result="failed ($code)"
        failed=1
    elif [[ $code -ne 0 ]]; then
        result="passed ($code)"
    fi
    printf '| %s | %s | %s | %s |\n' "$name" "$result" $((SECONDS - began)) \
        "$(tail -n 1 "$out/$name.txt" | tr '|' '/')" >> "$out/summary.md"
}

# 3: a shared machine is not fit to publish from, and still worth testing on. 124, 130: its time was up.
step doctor 5 "3" "$python" -m archbench doctor
step tests 35 "" "$python" -m pytest -q -m gpu -p no:cacheprovider tests/gpu
step smoke 10 "124 130" "$python" -m archbench run suites/smoke.yaml --device cuda --out "$runs/smoke" --force
step gate 15 "" "$python" -m archbench gate suites/smoke.yaml --device cuda --aa --base "$(command -v "$python")" \
    --only 'resnet18@batch_size=32,phase=inference' --max-time $((seconds / 10))s --out "$runs/gate" --force
step bare_loop 15 "" "$python" benchmarks/bare_loop.py --device cuda --limit 0.02
step imagenet 20 "124 130" "$python" -m archbench run suites/imagenet_backbones.yaml --device cuda \
    --out "$runs/imagenet" --force

tar -C "$runs" -czf "$out/runs.tar.gz" .
cat "$out/summary.md"
exit "$failed"
