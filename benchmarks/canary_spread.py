"""How much the same network differs between processes, raw and divided by the canary.

    python benchmarks/canary_spread.py [--processes 10] [--out DIR]

Six networks at batch 1, the processes of all networks in random order, as in a suite of ten rounds. Prints the
standard deviation of the processes' median latencies, as a share of their mean: of all processes, and of those that
archbench calls `ok`. Goal: at most 4 % where raw is 15-20 %.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd

import archbench

NETWORKS = ("resnet18", "mobilenet_v2", "efficientnet_b0", "resnet50", "densenet121", "convnext_tiny")


def measure(folder: Path, processes: int) -> pd.DataFrame:
    """The rows of as many processes of each network; a run that is there already goes on."""
    folder.mkdir(parents=True, exist_ok=True)
    suite = folder / "canary_spread.yaml"
    suite.write_text(
        f"suite: canary_spread\narchitectures: [{', '.join(NETWORKS)}]\naxes: {{batch_size: [1]}}\n"
        f"metrics: [latency]\nrounds: {processes}\n"
    )
    words = ["run", str(suite), "--device", "cpu", "--out", str(folder / "run"), "--force"]
    subprocess.run([sys.executable, "-m", "archbench", *words], check=True, stdout=subprocess.DEVNULL)
    return archbench.load(folder / "run")


def spread(rows: pd.DataFrame) -> list[float]:
    """In per cent: raw, corrected."""
    figures = (rows[name].to_numpy(dtype=float) for name in ("latency_median_s", "latency_median_corrected_s"))
    return [100 * float(np.std(np.log(values), ddof=1)) for values in figures]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--processes", type=int, default=10)
    parser.add_argument("--out", type=Path, help="Keep the run here.")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        frame = measure(arguments.out or Path(folder), arguments.processes)
    print(f"{'':18}{'all processes':>22}{'those called ok':>24}")
    print(f"{'sd in %':18}{'raw':>10}{'corrected':>12}{'':>4}{'raw':>8}{'corrected':>12}")
    every = []
    for name, rows in frame.groupby("architecture"):
        fit = rows[rows["verdict"] == "ok"]
        figures = [*spread(rows), *spread(fit)]
        every.append(figures)
        print(f"{name:18}{_columns(figures)}   {len(fit)} of {len(rows)}")
    print(f"{'median':18}{_columns(np.nanmedian(every, axis=0).tolist())}")


def _columns(figures: list[float]) -> str:
    raw, corrected, raw_ok, corrected_ok = figures
    return f"{raw:10.1f}{corrected:12.1f}{raw_ok:12.1f}{corrected_ok:12.1f}"


if __name__ == "__main__":
    main()
