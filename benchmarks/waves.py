"""Compiled cells in waves against one after the other: how much sooner, and whether any figure changes.

    python benchmarks/waves.py [--pairs 2] [NETWORKS...]

Runs of the same compiled cells take turns, with waves and without, each with an empty compile cache of its own. Prints
wall times, their ratio, and how each cell's latency with waves compares: their geometric mean must be within 1 %.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from math import exp, log
from statistics import mean

NETWORKS = ("resnet18", "mobilenet_v2")
WITHOUT = "import archbench.suite.waves as w; w.MOST = 1; "
RUN = "import sys; from archbench.cli import main; sys.exit(main())"


def run(networks: list[str], *, waves: bool) -> tuple[float, list[dict[str, object]]]:
    with tempfile.TemporaryDirectory() as folder:
        words = ["run", *networks, "--batch-size", "1", "--compile-mode", "default", "--metrics", "latency"]
        begun = time.perf_counter()
        words += ["--rounds", "1", "--device", "cpu", "--json", "--out", f"{folder}/run"]
        done = subprocess.run(
            [sys.executable, "-c", ("" if waves else WITHOUT) + RUN, *words],
            env={**os.environ, "TORCHINDUCTOR_CACHE_DIR": f"{folder}/cache"},
            check=True,
            stdout=subprocess.PIPE,
        )
        return time.perf_counter() - begun, json.loads(done.stdout)["rows"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("networks", nargs="*", default=list(NETWORKS))
    parser.add_argument("--pairs", type=int, default=2)
    arguments = parser.parse_args()
    ratios: list[float] = []
    for number in range(arguments.pairs):
        took: dict[bool, float] = {}
        medians: dict[bool, dict[object, float]] = {}
        for waves in (True, False) if number % 2 else (False, True):
            took[waves], rows = run(arguments.networks, waves=waves)
            medians[waves] = {row["cell_id"]: float(str(row["latency_median_s"])) for row in rows}
            print(f"waves={waves}: {took[waves]:.1f} s, neighbours {[row['compile_neighbours'] for row in rows]}")
        ratios += [log(medians[True][cell] / medians[False][cell]) for cell in medians[True]]
        print(f"with waves {took[True] / took[False]:.2f} of the time without")
    print(f"latency with waves over without: {exp(mean(ratios)):.4f} (cells {[round(exp(one), 3) for one in ratios]})")


if __name__ == "__main__":
    main()
