"""How soon the command line answers: medians of whole processes.

    python benchmarks/startup.py [--runs 7]

Goals: --help within 0.3 s; list, show and plan within 0.8 s.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from statistics import median

COMMANDS = (
    (("--help",), 0.3),
    (("list",), 0.8),
    (("show", "densenet121"), 0.8),
    (("plan", "suites/imagenet_backbones.yaml", "--device", "cuda"), 0.8),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=7)
    runs = parser.parse_args().runs
    print(f"{'command':54}{'median s':>10}{'least s':>10}{'goal s':>8}")
    for words, goal in COMMANDS:
        seconds = []
        for _ in range(runs):
            start = time.perf_counter()
            subprocess.run([sys.executable, "-m", "archbench", *words], check=True, stdout=subprocess.DEVNULL)
            seconds.append(time.perf_counter() - start)
        print(f"{' '.join(words):54}{median(seconds):10.2f}{min(seconds):10.2f}{goal:8.1f}")


if __name__ == "__main__":
    main()
