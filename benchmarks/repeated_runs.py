"""Do the figures of a suite hold from run to run, and does each run say truly how well?

    python benchmarks/repeated_runs.py RUN RUN ...               # stored runs of one suite on one machine
    python benchmarks/repeated_runs.py --measure 10 --out DIR    # measures the smoke suite so often first

Prints what each run states (`Two networks that differ by more than X differ`), then the real spread between the runs:
of pairs of runs the median and 95th percentile of how far apart one cell's two times lie, the share of them beyond the
statement (of each pair of runs the root mean square of theirs) and beyond the cells' own ±. One cell in two runs stands
for two equal networks. `less shift`: what all cells of a pair of runs have in common is taken out, as it is no matter
between networks of one run. Goal: 2 to 8 % beyond, less shift, for a nominal 5 %. Runs that were measured here have
their wall time, and its share outside measuring, building and compiling (goal: at most 10 %).
"""

from __future__ import annotations

import argparse
import itertools
import math
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

import archbench
from archbench.model.units import percent
from archbench.rendering.run_data import RunData, read_run


class Agreement(NamedTuple):
    """Over all pairs of runs and their common cells."""

    median: float
    most: float
    """95th percentile of the distances, both as ratios less 1."""
    beyond: float
    """Share beyond the statement."""
    beyond_own: float
    """Share beyond the two cells' own intervals together."""


def measure(path: Path) -> None:
    """One run of the smoke suite."""
    start = time.perf_counter()
    words = ["run", "suites/smoke.yaml", "--device", "cpu", "--out", str(path), "--force"]
    subprocess.run([sys.executable, "-m", "archbench", *words], check=True, stdout=subprocess.DEVNULL)
    wall = time.perf_counter() - start
    inside = float(archbench.load(path)["duration_s"].sum())
    print(f"{path.name}: {wall:.0f} s, {percent(1 - inside / wall)} of it outside the cells", flush=True)


def agreement(runs: Sequence[RunData], *, less_shift: bool) -> Agreement:
    """How far the runs' figures lie apart, and how often further than they say."""
    distances, statements, own = [], [], []
    timed = [{one.cell_id: one.timed() for one in run.cells if one.is_usable and one.rank_latency_s} for run in runs]
    for (run, one), (with_, other) in itertools.combinations(zip(runs, timed, strict=True), 2):
        both = sorted(one.keys() & other.keys())
        logs = np.array([math.log((one[name].value or 0.0) / (other[name].value or 1.0)) for name in both])
        distances += np.abs(logs - np.median(logs) if less_shift else logs).tolist()
        own += [math.hypot(one[name].half, other[name].half) for name in both]
        stated = [math.log1p(each.trust.apart) if each.trust.apart is not None else 0.0 for each in (run, with_)]
        statements += [math.hypot(*stated) / math.sqrt(2)] * len(both)
    apart = np.array(distances)
    return Agreement(
        median=float(np.expm1(np.median(apart))),
        most=float(np.expm1(np.quantile(apart, 0.95))),
        beyond=float((apart > np.array(statements)).mean()),
        beyond_own=float((apart > np.array(own)).mean()),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="*", type=Path)
    parser.add_argument("--measure", type=int, default=0, help="Runs to measure; those that are there are kept.")
    parser.add_argument("--out", type=Path, default=Path("results") / "repeated")
    arguments = parser.parse_args()
    made = [arguments.out / f"run{number}" for number in range(arguments.measure)]
    for path in made:
        if not (path / "report.md").exists():
            measure(path)
    runs = [read_run(path) for path in (*arguments.runs, *made)]
    if len(runs) < 2:
        parser.error("give two runs or more, or have them measured with --measure")
    for run in runs:
        verdicts = [one.verdict for one in run.cells if one.status == "ok"]
        print(f"{run.path.name}: {verdicts.count('ok')} of {len(verdicts)} cells ok. {run.trust.statement}")
    for name, less_shift in (("as they are", False), ("less shift", True)):
        found = agreement(runs, less_shift=less_shift)
        print(
            f"{name}: one cell's times in two runs lie {percent(found.median)} apart in the median, 95 % of them "
            f"within {percent(found.most)}; beyond the statement {percent(found.beyond)}, beyond their own ± "
            f"{percent(found.beyond_own)}"
        )


if __name__ == "__main__":
    main()
