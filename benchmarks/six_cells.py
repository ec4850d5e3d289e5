"""Six networks at batch 1 in fp32 on the CPU: `archbench run` against a fresh interpreter a network.

    python benchmarks/six_cells.py [--pairs 2]

The rival is what people write by hand: import torch, build, 10 warm-up steps, 40 timed ones. Prints whole-process wall
times, their ratio, and each cell's median with its interval. Goal: at most half.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time

NETWORKS = ("resnet18", "mobilenet_v2", "efficientnet_b0", "resnet50", "densenet121", "vgg16")

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


def fresh_interpreters() -> float:
    start = time.perf_counter()
    for name in NETWORKS:
        subprocess.run([sys.executable, "-c", FRESH, name], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


def archbench_run() -> tuple[float, list[dict[str, object]]]:
    with tempfile.TemporaryDirectory() as folder:
        words = ["run", *NETWORKS, "--batch-size", "1", "--metrics", "static,latency", "--device", "cpu"]
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
    for _ in range(parser.parse_args().pairs):
        fresh_s = fresh_interpreters()
        archbench_s, rows = archbench_run()
        print(f"fresh interpreters {fresh_s:.1f} s, archbench {archbench_s:.1f} s, ratio {archbench_s / fresh_s:.2f}")
    for row in rows:
        low, high = row["latency_ci_low_s"], row["latency_ci_high_s"]
        print(
            f"{row['architecture']:18}{row['latency_median_s'] * 1e3:8.1f} ms  95 % {low * 1e3:.1f} to {high * 1e3:.1f}"
        )


if __name__ == "__main__":
    main()
