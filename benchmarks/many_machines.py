"""What many machines cost where their results meet: merging shards, and reading what came of it.

    python benchmarks/many_machines.py [--shards 500] [--rows 200]

Goals: 500 shards of 200 rows merged within 10 s; 100,000 rows from 500 parts read as fast as from one file, within a
factor of 2. The rows are made up (`tests/builders.py`), each shard's under a machine of its own.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from builders import make_environment, make_record, make_suite

from archbench.model.cell import Shard
from archbench.results import RunStore, load_frame, merge
from archbench.results.journal import RECORDS, SAMPLES, Journal, to_table

SUITE = make_suite()


def make_shard(folder: Path, number: int, of: int, rows: int) -> Path:
    """One shard's directory, finished."""
    environment = make_environment(node=f"node{number:04d}")
    shard = Shard(number=number, of=of, split="benchmark", rows=rows)
    store = RunStore.create(folder, SUITE, environment, f"suite: {SUITE.suite}\n", shard)
    record = make_record(run_id=store.run_id, machine=environment.machine)
    records = [
        msgspec.structs.replace(
            record, cell_id=f"resnet50_{number:04d}_{row:04d}@batch_size=1", latency_median_s=0.01 + 1e-6 * row
        )
        for row in range(rows)
    ]
    store.fill(to_table(records, RECORDS), SAMPLES.empty_table())
    return folder


def timed(what: str, do: Callable[[], Any]) -> Any:
    """Do it, and say how long it took."""
    begun = time.perf_counter()
    found = do()
    print(f"{what}: {time.perf_counter() - begun:.2f} s", flush=True)
    return found


def main() -> None:
    """Make shards, merge them, read them."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--shards", type=int, default=500)
    parser.add_argument("--rows", type=int, default=200)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        root = Path(place)
        shards = timed(
            f"{arguments.shards} shards made",
            lambda: [
                make_shard(root / f"s{number}", number, arguments.shards, arguments.rows)
                for number in range(1, arguments.shards + 1)
            ],
        )
        (run,) = timed("merged", lambda: merge(shards, root / "merged"))
        frame = timed("one file read", lambda: load_frame(run))
        print(f"{len(frame):,} rows of {frame['machine'].nunique()} machines")
        parts = root / "parts"
        parts.mkdir()
        for shard in shards:
            (shard / "results.parquet").rename(parts / f"{shard.name}.parquet")
        journal = Journal(parts, root / "none.parquet", RECORDS, ("round",))
        table = timed(f"{len(shards)} parts read", journal.read)
        whole = Journal(root / "no", run / "results.parquet", RECORDS, ("round",))
        timed("the same rows from one file", whole.read)
        assert table.num_rows == len(frame)


if __name__ == "__main__":
    main()
