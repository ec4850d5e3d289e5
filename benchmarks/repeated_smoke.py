"""Do the figures hold? Runs the smoke suite several times and compares the runs with each other.

    python benchmarks/repeated_smoke.py [--runs 10] [--out DIR]

Prints wall time of each run and its share outside measuring, building and compiling (goal: at most 10 %), and for every
pair of runs the share of cells whose medians disagree beyond the wider of the runs' noise floor and the cells' own
intervals, for the rows that archbench calls ok and for the suspect ones.
"""

from __future__ import annotations

import argparse
import itertools
import math
import subprocess
import sys
import tempfile
import time
from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Any

import archbench
from archbench.choose.summary import noise_floor


def one_run(path: Path) -> None:
    start = time.perf_counter()
    words = ["run", "suites/smoke.yaml", "--device", "cpu", "--out", str(path), "--force"]
    subprocess.run([sys.executable, "-m", "archbench", *words], check=True, stdout=subprocess.DEVNULL)
    wall = time.perf_counter() - start
    frame = archbench.load(path)
    inside = float(frame["duration_s"].sum())
    verdicts = dict(frame["verdict"].value_counts())
    print(f"{path.name}: {wall:.0f} s, {100 * (1 - inside / wall):.1f} % outside the cells, {verdicts}", flush=True)


def disagreement(paths: list[Path]) -> dict[str, list[bool]]:
    """For each pair of runs and cell: whether the two medians lie further apart than the runs say they may."""
    found: dict[str, list[bool]] = {"ok": [], "suspect": []}
    frames = [archbench.load(path) for path in paths]
    floors = [floor.spread if (floor := noise_floor(frame)) else 0.0 for frame in frames]
    for (one, floor_one), (other, floor_other) in itertools.combinations(zip(frames, floors, strict=True), 2):
        pairs = one.merge(other, on=["cell_id", "visit"], suffixes=("_a", "_b"))
        for row in pairs.to_dict("records"):
            distance = abs(math.log(row["latency_median_corrected_s_a"] / row["latency_median_corrected_s_b"]))
            allowed = max(floor_one, floor_other, _half_width(row, "a"), _half_width(row, "b"))
            suspect = "suspect" in (row["verdict_a"], row["verdict_b"])
            found["suspect" if suspect else "ok"].append(distance > allowed)
    return found


def _half_width(row: Mapping[Hashable, Any], side: str) -> float:
    low, high, median = (float(row[f"latency_{name}_s_{side}"]) for name in ("ci_low", "ci_high", "median"))
    return (high - low) / 2 / median


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=10)
    parser.add_argument("--out", type=Path, help="Keep the runs here; those that are there are not measured again.")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        paths = [(arguments.out or Path(folder)) / f"run{number}" for number in range(arguments.runs)]
        for path in paths:
            if not (path / "report.md").exists():
                one_run(path)
        for verdict, beyond in disagreement(paths).items():
            share = f"{100 * sum(beyond) / len(beyond):.1f} %" if beyond else "-"
            print(f"pairs of {verdict} rows: {len(beyond)}, beyond the noise floor: {share}")


if __name__ == "__main__":
    main()
