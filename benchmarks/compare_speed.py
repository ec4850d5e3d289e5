"""How long `archbench compare` takes for 2,000 cells of 17 processes on each side, whole process included.

    python benchmarks/compare_speed.py [--cells 2000] [--processes 17]

Goal: 5 s, in any format.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pyarrow.parquet as pq
import simulated_stored

from archbench.rendering.comparison_formats import FORMATS


def sides(place: Path, cells: int, processes: int) -> list[Path]:
    """Two parquet files of results; the second is 1 % slower throughout."""
    simulated_stored.PROCESSES = processes
    side = simulated_stored.rows(place, cells)
    rng = np.random.default_rng(1)
    paths = []
    for name, shift in (("base", 0.0), ("head", 0.01)):
        table = pq.read_table(place / "side.parquet")
        times = simulated_stored.drawn(side, rng, shift=shift, slowdown=0.0).frame["latency_median_s"]
        column = table.schema.get_field_index("latency_median_s")
        paths.append(place / f"{name}.parquet")
        pq.write_table(table.set_column(column, table.schema.field(column), [times.to_numpy()]), paths[-1])
    return paths


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", type=int, default=2000)
    parser.add_argument("--processes", type=int, default=17)
    given = parser.parse_args()
    with TemporaryDirectory() as folder:
        place = Path(folder)
        base, head = sides(place, given.cells, given.processes)
        print(f"{given.cells:,} cells x {given.processes} processes a side")
        for name in FORMATS:
            words = ["compare", str(base), str(head), "--format", name, "--out", str(place / "out.json")]
            start = time.perf_counter()
            done = subprocess.run(
                [sys.executable, "-m", "archbench", *words], capture_output=True, check=False, cwd=place
            )
            assert done.returncode in (0, 1), done.stderr
            print(f"{name:>24}: {time.perf_counter() - start:.2f} s", flush=True)


if __name__ == "__main__":
    main()
