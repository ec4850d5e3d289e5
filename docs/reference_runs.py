"""The reference runs: those under `results/` that git tracks, and not the reader's own, which lie beside them."""

from __future__ import annotations

import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[1]


def reference_runs(suite: str = "*", root: Path = ROOT) -> list[Path]:
    """The directories of the reference runs of a suite (by default of all), oldest first.

    Outside a checkout (an unpacked archive) these are all runs that lie there.
    """
    pattern = f"results/{suite}/*/results.parquet"
    listed = subprocess.run(["git", "ls-files", pattern], cwd=root, capture_output=True, text=True, check=False)
    tracked = [root / line for line in listed.stdout.splitlines()]
    return sorted(path.parent for path in (tracked if listed.returncode == 0 else root.glob(pattern)))
