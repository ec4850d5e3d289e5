#!/usr/bin/env bash
# Everything that only a GPU can show, in one go: its tests, the reference suite, the checks of the measuring itself.
# Usage: bash tests/gpu/session.sh OUTPUT_FOLDER [SECONDS_FOR_THE_SUITE]
set -uo pipefail
out=${1:?usage: session.sh OUTPUT_FOLDER [SECONDS_FOR_THE_SUITE]}
suite_s=${2:-400}
mkdir -p "$out"
cd "$(dirname "$0")/../.."

python3 -m archbench doctor | tee "$out/doctor.txt"
python3 -m pytest -q -m gpu tests 2>&1 | tee "$out/tests.txt" | tail -n 5
python3 -m archbench run suites/smoke.yaml --device cuda --out "$out/smoke" 2> "$out/smoke.err" | tail -n 2
# A run that is stopped keeps every finished cell, so a limit in time costs nothing but the rest.
timeout --signal=INT "$suite_s" python3 -m archbench run suites/imagenet_backbones.yaml --device cuda \
    --out "$out/imagenet" 2> "$out/imagenet.err" | tail -n 2
python3 tests/benchmarks/bare_loop.py --device cuda | tee "$out/bare_loop.txt"
