"""Six networks at batch 1 in fp32 on the CPU: `archbench run` against a fresh interpreter a network, and timm's own.

    python benchmarks/six_cells.py [--pairs 2] [--timm benchmark.py]

One rival is what people write by hand: import torch, build, 10 warm-up steps, 40 timed ones. The other is timm's
`benchmark.py`, of which `--timm` names a copy (from the root of its repository), with the same steps and its counting.
Both measure each network in one process; so does archbench with `--rounds 1`, and in two by default. Prints
whole-process wall times, their ratios, and each row's median with its interval. Goals: at most 0.35 of the fresh
interpreters, and at most a quarter of timm's.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time

NETWORKS = ("resnet18", "mobilenet_v2", "efficientnet_b0", "resnet50", "densenet121", "vgg16")
TIMM_NAMES = {"mobilenet_v2": "mobilenetv2_100"}
TIMM_WORDS = ["--bench", "inference", "--device", "cpu", "--batch-size", "1", "--img-size", "224"]
TIMM_WORDS += ["--num-warm-iter", "10", "--num-bench-iter", "40"]

FRESH = """
import sys, time, torch, torchvision
model = torchvision.models.get_model(sys.argv[1]).eval()
image = torch.randn(1, 3, 224, 224)
with torch.inference_mode():
    for _ in range(10):
        model(image)
    start = time.perf_counter()
    for _ in range(40):
        model(image)
print((time.perf_counter() - start) / 40)
"""


def one_by_one(commands: list[list[str]]) -> float:
    start = time.perf_counter()
    for words in commands:
        subprocess.run([sys.executable, *words], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return time.perf_counter() - start


def archbench_run(rounds: int) -> tuple[float, list[dict[str, object]]]:
    with tempfile.TemporaryDirectory() as folder:
        words = ["run", *NETWORKS, "--batch-size", "1", "--metrics", "static,latency", "--device", "cpu"]
        words += ["--rounds", str(rounds)]
        start = time.perf_counter()
        done = subprocess.run(
            [sys.executable, "-m", "archbench", *words, "--out", f"{folder}/run", "--json"],
            check=True,
            stdout=subprocess.PIPE,
        )
        return time.perf_counter() - start, json.loads(done.stdout)["rows"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=2)
    parser.add_argument("--timm", metavar="FILE")
    arguments = parser.parse_args()
    rivals = {"fresh interpreters": [["-c", FRESH, name] for name in NETWORKS]}
    if arguments.timm:
        rivals["timm's benchmark.py"] = [
            [arguments.timm, "--model", TIMM_NAMES.get(name, name), *TIMM_WORDS] for name in NETWORKS
        ]
    for _ in range(arguments.pairs):
        once_s, _ = archbench_run(1)
        twice_s, rows = archbench_run(2)
        print(f"archbench {once_s:.1f} s with one process each, {twice_s:.1f} s with two")
        for what, commands in rivals.items():
            rival_s = one_by_one(commands)
            print(f"{what} {rival_s:.1f} s: of it {once_s / rival_s:.2f} and {twice_s / rival_s:.2f}", flush=True)
    for row in rows:
        low, high = row["latency_ci_low_s"], row["latency_ci_high_s"]
        print(
            f"{row['architecture']:18}{row['latency_median_s'] * 1e3:8.1f} ms  95 % {low * 1e3:.1f} to {high * 1e3:.1f}"
        )


if __name__ == "__main__":
    main()
