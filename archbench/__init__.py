"""archbench: which network, with which settings, on my machine?"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import os

    import pandas as pd

__version__ = "0.1.0"
__all__ = ["load"]


def load(path: str | os.PathLike[str]) -> pd.DataFrame:
    """Read a run (finished, running or killed) or one parquet file of results into a pandas DataFrame.

    One row per cell and round, columns as in `docs/columns.md`, times in seconds and sizes in bytes, plus
    `speed_index` and the figures corrected by it. Raises `archbench.model.errors.UsageError` for what is not a run.
    """
    from archbench.results import load_frame

    return load_frame(path)
