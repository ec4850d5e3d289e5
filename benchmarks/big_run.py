"""What reading a run of 100,000 rows costs: seconds, peak memory and size of every way to look at it.

    python benchmarks/big_run.py [--rows 100000] [--rounds 1] [--keep DIR]

Goals: pick within 2 s, markdown within 5 s, HTML within 10 s and 15 MiB, each below 2 GiB. Each command is a process of
its own, so seconds hold its imports, and memory is the peak of that process. One round is the hardest case: as many
cells as rows. The rows are made up (`tests/builders.py`): 500 times five networks, each with a speed of its own.
"""

from __future__ import annotations

import argparse
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from builders import NETWORKS, make_rows, make_run, make_suite

from archbench.model.cell import Network
from archbench.model.record import Record
from archbench.model.suite import Axes, Suite

GIB = 2**30
BATCHES = (1, 4, 8, 16, 32)
QUESTION = ("{run}", "--where", "batch_size == 1", "--where", "phase == inference", "--where", "setting == amp")
COMMANDS: tuple[tuple[str, tuple[str, ...], str | None, float], ...] = (
    ("pick", ("pick", *QUESTION, "--minimize", "latency_median", "--maximize", "top1"), None, 2.0),
    ("pick --json", ("pick", *QUESTION, "--maximize", "top1", "--json"), None, 2.0),
    ("report --format md", ("report", "{run}", "--format", "md"), "report.md", 5.0),
    ("report --format html", ("report", "{run}", "--format", "html"), "report.html", 10.0),
)
"""Name, words, the file that it leaves, and the seconds that it may take."""
HTML_BYTES = 15 * 2**20
MEMORY_BYTES = 2 * GIB


def big_suite(rows: int, rounds: int) -> Suite:
    """As many networks as give about this many rows."""
    example = make_suite(twin=None, rounds=rounds, axes=Axes(batch_size=BATCHES, phase=("inference", "training")))
    per_network = len(BATCHES) * 2 * len(example.settings) * rounds
    copies = max(1, round(rows / per_network / len(NETWORKS)))
    names = tuple(Network(name=f"{name}_{copy:04d}") for copy in range(copies) for name in NETWORKS)
    return msgspec.structs.replace(example, architectures=names)


def big_rows(suite: Suite) -> Iterator[Record]:
    """The rows of `big_suite`: five networks again and again, under other names, faster or slower, better or worse."""
    rng = random.Random(0)
    pattern = list(make_rows(suite))
    for first in range(0, len(suite.architectures), len(NETWORKS)):
        pace, gained = rng.lognormvariate(0, 0.5), rng.gauss(0, 4)
        for row in pattern:
            yield _other(row, first // len(NETWORKS), pace, gained)


def _other(row: Record, copy: int, pace: float, gained: float) -> Record:
    name = f"{row.architecture}_{copy:04d}"
    latency = row.latency_median_s

    def slower(seconds: float | None) -> float | None:
        return None if seconds is None else seconds * pace

    def faster(rate: float | None) -> float | None:
        return None if rate is None else rate / pace

    return msgspec.structs.replace(
        row,
        architecture=name,
        variant=name,
        family=f"{row.family}{copy % 6}",
        cell_id=row.cell_id.replace(row.architecture, name, 1),
        group_id=row.group_id.replace(row.architecture, name, 1),
        top1=None if row.top1 is None else min(row.top1 + gained, 90.0),
        macs=None if row.macs is None else round(row.macs * pace),
        latency_median_s=slower(latency),
        latency_ci_low_s=slower(row.latency_ci_low_s),
        latency_ci_high_s=slower(row.latency_ci_high_s),
        latency_p95_s=slower(row.latency_p95_s),
        throughput_img_s=faster(row.throughput_img_s),
        throughput_ci_low_img_s=faster(row.throughput_ci_low_img_s),
        throughput_ci_high_img_s=faster(row.throughput_ci_high_img_s),
    )


def measure(words: list[str]) -> tuple[float, int, int]:
    """Seconds, peak resident bytes and exit code of one archbench process."""
    start = time.perf_counter()
    process = subprocess.Popen([sys.executable, "-m", "archbench", *words], stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    return time.perf_counter() - start, usage.ru_maxrss * 1024, process.returncode


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--keep", type=Path, help="make the run here and leave it")
    parser.add_argument("--only-make", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    suite = big_suite(options.rows, options.rounds)
    if options.only_make:
        print(make_run(options.keep, list(big_rows(suite)), suite=suite, timings=False))
        return
    with tempfile.TemporaryDirectory() as scratch:
        # In a process of its own: a child's peak memory begins at that of its parent.
        making = [sys.executable, __file__, "--only-make", "--keep", str(options.keep or scratch)]
        making += ["--rows", str(options.rows), "--rounds", str(options.rounds)]
        run = Path(subprocess.run(making, check=True, text=True, stdout=subprocess.PIPE).stdout.strip())
        size = (run / "results.parquet").stat().st_size
        print(f"{options.rows:,} rows, {len(suite.architectures):,} networks: {size / 2**20:.1f} MiB of parquet")
        print(f"{'command':22}{'seconds':>9}{'goal':>6}{'memory MiB':>12}{'goal':>6}{'file MiB':>10}{'goal':>6}")
        good = True
        for name, words, left, goal in COMMANDS:
            seconds, memory, code = measure([word.format(run=run) for word in words])
            written = (run / left).stat().st_size if left and (run / left).exists() else None
            most = HTML_BYTES if left == "report.html" else None
            good &= code == 0 and seconds <= goal and memory <= MEMORY_BYTES and (not most or (written or 0) <= most)
            print(
                f"{name:22}{seconds:9.2f}{goal:6.0f}{memory / 2**20:12.0f}{MEMORY_BYTES / 2**20:6.0f}"
                f"{'' if written is None else f'{written / 2**20:.1f}':>10}{'' if most is None else most / 2**20:>6}"
                f"{f'  exit code {code}' if code else ''}"
            )
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
