"""How much the same network differs between processes, raw and divided by the canary.

    python tests/benchmarks/canary_spread.py [--processes 10]

Six networks at batch 1, the processes of all networks in random order, as in a suite of ten rounds. Prints the
standard deviation of the processes' median latencies, as a share of their mean. Goal: at most 4 % where raw is 15-20 %.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np

import archbench
from archbench.cli import main as archbench_main


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--processes", type=int, default=10)
    processes = parser.parse_args().processes
    names = ["resnet18", "mobilenet_v2", "efficientnet_b0", "resnet50", "densenet121", "convnext_tiny"]
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        words = ["run", *names, "--batch-size", "1", "--metrics", "latency", "--device", "cpu", "--out", str(run)]
        try:
            archbench_main([*words, "--rounds", str(processes), "--force"])
        except SystemExit as exit_:
            if exit_.code:
                raise
        frame = archbench.load(run)
    print(f"{'network':18}{'sd raw %':>10}{'sd corrected %':>16}{'contended':>11}")
    spreads = []
    for name, rows in frame.groupby("architecture"):
        raw = rows["latency_median_s"].to_numpy(dtype=float)
        corrected = rows["latency_median_corrected_s"].to_numpy(dtype=float)
        spread = [100 * np.std(np.log(values), ddof=1) for values in (raw, corrected)]
        spreads.append(spread)
        contended = sum("contended" in reasons for reasons in rows["reasons"])
        print(f"{name:18}{spread[0]:10.1f}{spread[1]:16.1f}{contended:>8}/{len(rows)}")
    print(f"{'median':18}{np.median([s[0] for s in spreads]):10.1f}{np.median([s[1] for s in spreads]):16.1f}")


if __name__ == "__main__":
    main()
