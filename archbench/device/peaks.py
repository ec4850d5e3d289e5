"""What the vendor says a GPU can do at most, for `mfu`. Figures and sources: `peaks.csv` beside this file."""

from __future__ import annotations

import csv
from fnmatch import fnmatchcase
from functools import cache
from importlib.resources import files

from msgspec import Struct

from archbench.model.axes import Precision

_TERA = 1e12


class Peak(Struct, frozen=True, kw_only=True):
    """A row of the table: dense peaks at the boost clock in FLOP/s (2 x MAC/s), `None` = no such unit."""

    pattern: str
    """Shell pattern over the whole of NVML's name: a laptop's `RTX 4090 Laptop GPU` is no RTX 4090."""
    fp32: float | None
    tf32: float | None
    bf16: float | None
    fp16: float | None
    source: str


def peak_flops(gpu: str, precision: Precision) -> float | None:
    """Dense peak FLOP/s of a GPU by NVML's name; `None` where the table does not know it, and for a MIG slice.

    fp32 is the plain cores' peak; tf32, bf16 and fp16 the matrix units' with fp32 accumulation and without sparsity.
    Mixed precision counts as its lower one, in which its matrix work is done.
    """
    row = None if " MIG " in gpu else next((peak for peak in peaks() if fnmatchcase(gpu, peak.pattern)), None)
    return None if row is None else getattr(row, precision.removeprefix("amp-"))


@cache
def peaks() -> tuple[Peak, ...]:
    """The whole table."""
    lines = (files("archbench.device") / "peaks.csv").read_text().splitlines()
    return tuple(
        Peak(
            pattern=row["pattern"],
            source=row["source"],
            **{name: float(row[name]) * _TERA if row[name] else None for name in ("fp32", "tf32", "bf16", "fp16")},
        )
        for row in csv.DictReader(lines)
    )
