"""Sides of a comparison with known times, as the store would give them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from builders import make_record

from archbench.comparison import Rows, read_rows
from archbench.model.comparison import CellComparison, CellVerdict, Comparison, CountedDifference, Figures, Side, Why
from archbench.model.record import Record
from archbench.results.journal import RECORDS, to_table

CELL = "resnet50@batch_size=1,phase=inference,precision=fp32,compile_mode=off,memory_format=contiguous,device=cpu"
_number = count()


def cell(network: str, batch_size: int = 1, **toggles: str | int) -> str:
    """The id of a cell that is plain but for `toggles`."""
    usual = {"phase": "inference", "precision": "fp32", "compile_mode": "off", "memory_format": "contiguous"}
    words = ",".join(f"{key}={value}" for key, value in {**usual, **toggles}.items())
    return f"{network}@batch_size={batch_size},{words},device=cpu"


def times(middle: float, processes: int, sd: float, seed: int) -> list[float]:
    """Process medians around `middle`, of which none is far off."""
    steps = np.random.default_rng(seed).permutation(np.linspace(-1.5, 1.5, processes))
    return [float(middle * np.exp(sd * step)) for step in steps]


def measured(seconds: Sequence[float], cell_id: str = CELL, **overrides: Any) -> list[Record]:
    """One row a process, without a canary unless one is given."""
    given = {"canary_s": None, **overrides}
    return [
        make_record(cell_id=cell_id, round=round_, latency_median_s=time, **given)
        for round_, time in enumerate(seconds)
    ]


def rows_of(place: Path, records: Sequence[Record]) -> Rows:
    """The rows as a file of `place` gives them back."""
    path = place / f"side{next(_number)}.parquet"
    pq.write_table(to_table(records, RECORDS), path)
    return read_rows(path)


def twin(spread: float, cell_id: str = "twin", **overrides: Any) -> list[Record]:
    """Two visits of one round, which lie so far apart that the run has this noise floor: t of one degree of freedom."""
    given = {"canary_s": None, **overrides}
    apart = math.log1p(spread) / math.tan(0.95 * math.pi / 2)
    return [
        make_record(cell_id=cell_id, visit=visit, latency_median_s=0.01 * math.exp(apart * visit), **given)
        for visit in (0, 1)
    ]


def compared(name: str, verdict: CellVerdict, ratio: float | None = 1.0, **overrides: Any) -> CellComparison:
    """One cell of a comparison, with figures that go with its ratio."""
    base = Figures(latency_s=0.01, latency_low_s=0.0099, latency_high_s=0.0101, throughput_img_s=104.0,
                   throughput_low_img_s=103.0, throughput_high_img_s=105.0, peak_bytes=2**27, params=7, macs=9,
                   processes=2, process_times_s=(0.0099, 0.0101))  # fmt: skip
    after = 0.01 * (ratio or 1)
    head = Figures(latency_s=after, latency_low_s=after * 0.99, latency_high_s=after * 1.01, throughput_img_s=100.0,
                   throughput_low_img_s=99.0, throughput_high_img_s=101.0, peak_bytes=2**27, params=7, macs=9,
                   processes=2, process_times_s=(after * 0.99, after * 1.01))  # fmt: skip
    fields: dict[str, Any] = {
        "cell_id": cell(name),
        "architecture": name,
        "variant": name,
        "why": Why("shown", f"{name} is {verdict}"),
        "base": base,
        "head": head,
        "ratio": ratio,
        "ci_low": None if ratio is None else ratio * 0.99,
        "ci_high": None if ratio is None else ratio * 1.01,
        "detectable": 0.02,
        "pairs": 2,
    }
    return CellComparison(verdict=verdict, **{**fields, **overrides})


def comparison(*cells: CellComparison, findings: Sequence[CountedDifference] = (), **overrides: Any) -> Comparison:
    """A comparison of two sides that differ in their torch."""
    sides = {
        name: Side(
            label=name,
            run_ids=(f"run-{name}",),
            hardware_class="AMD EPYC 9654 x2",
            protocol_version=1,
            suite="example",
            torch_version=torch,
            started_at="2025-01-02T03:04:05.000+00:00",
        )
        for name, torch in (("base", "2.14.0"), ("head", "2.15.0"))
    }
    fields: dict[str, Any] = {"kind": "turns", **sides, "notes": ("Mind the gap.",), "duration_s": 90.0}
    return Comparison(cells=cells, findings=tuple(findings), **{**fields, **overrides})


def finding(name: str, *, fails: bool, what: str = "params 1 → 2 (must be equal)") -> CountedDifference:
    return CountedDifference(cell_id=cell(name), column="params", base=1.0, head=2.0, what=what, fails=fails)
