"""A comparison for programs: all that is known as JSON, and the files that two other benchmark tools read."""

from __future__ import annotations

import statistics
from typing import Any, Literal

from msgspec import Struct

from archbench.model.cell import short_id
from archbench.model.comparison import (
    CELL_VERDICTS,
    CellComparison,
    Comparison,
    CountedDifference,
    Figures,
    Floor,
    Kind,
    Side,
    Whole,
)
from archbench.model.units import MIB, MS, indented_json, percent
from archbench.rendering.comparison.report import headline

VERSION = 1
"""Raised when a field changes its meaning or goes; new ones may come at any time."""
VERDICTS: dict[int, Literal["passed", "regressed", "unfit"]] = {0: "passed", 1: "regressed", 3: "unfit"}
_NEVER = "1970-01-01T00:00:00"


class _Structured(Struct, frozen=True, kw_only=True):
    """The document: times in seconds, sizes in bytes, ratios as head over base; what is unknown or infinite is null."""

    comparison_version: int = VERSION
    kind: Kind
    verdict: Literal["passed", "regressed", "unfit"]
    """What `exit_code` means."""
    headline: str
    """All of it in one line."""
    regressed: bool
    exit_code: int
    exit_code_strict: int
    counts: dict[str, int]
    base: Side
    head: Side
    floor: Floor | None
    whole: Whole | None
    comparable: int | None
    duration_s: float | None
    notes: tuple[str, ...]
    findings: tuple[CountedDifference, ...]
    cells: tuple[CellComparison, ...]


def structured(comparison: Comparison) -> str:
    """One object; `cells` in the order of the base."""
    document = _Structured(
        kind=comparison.kind,
        verdict=VERDICTS[comparison.exit_code()],
        headline=headline(comparison),
        regressed=comparison.regressed,
        exit_code=comparison.exit_code(),
        exit_code_strict=comparison.exit_code(strict=True),
        counts={verdict: sum(cell.verdict == verdict for cell in comparison.cells) for verdict in CELL_VERDICTS},
        base=comparison.base,
        head=comparison.head,
        floor=comparison.floor,
        whole=comparison.whole,
        comparable=None if comparison.compared is None else len(comparison.compared),
        duration_s=comparison.duration_s,
        notes=comparison.notes,
        findings=comparison.findings,
        cells=comparison.cells,
    )
    return indented_json(document)


class _Entry(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One line of its charts."""

    name: str
    unit: str
    value: float
    range: str = ""
    extra: str = ""


def action_benchmark(comparison: Comparison) -> dict[str, str]:
    """The head for github-action-benchmark, `customSmallerIsBetter` and `customBiggerIsBetter`, by suffix.

    `smaller`: latency and peak memory; `bigger`: throughput. One without entries is none: the action refuses it. It
    alarms at a fixed percentage of one figure against the last, so its chart is what to take from it.
    """
    smaller, bigger = [], []
    for cell in comparison.cells:
        name, head, extra = short_id(cell.cell_id), cell.head, _extra(cell)
        if head.latency_s is not None:
            spread = _range(head.latency_s, head.latency_low_s, head.latency_high_s)
            smaller.append(
                _Entry(name=f"{name} latency", unit="ms", value=head.latency_s / MS.size, range=spread, extra=extra)
            )
        if head.peak_bytes is not None:
            smaller.append(_Entry(name=f"{name} peak memory", unit="MiB", value=head.peak_bytes / MIB.size))
        if head.throughput_img_s is not None:
            spread = _range(head.throughput_img_s, head.throughput_low_img_s, head.throughput_high_img_s)
            bigger.append(_Entry(name=f"{name} throughput", unit="img/s", value=head.throughput_img_s, range=spread))
    return {name: indented_json(entries) for name, entries in (("smaller", smaller), ("bigger", bigger)) if entries}


def _extra(cell: CellComparison) -> str:
    return f"against the base: {cell.verdict} ({cell.why.sentence})".replace("`", "")


def _range(value: float, low: float | None, high: float | None) -> str:
    return "" if low is None or high is None else f"± {percent(max(high - value, value - low) / value)}"


def pytest_benchmark(comparison: Comparison) -> dict[str, str]:
    """Both sides as files that `pytest-benchmark compare` reads, with every cell that was timed there, by suffix.

    A round there is a process here: each value is one process's median, so its deviation is between processes.
    """
    sides = {"base": comparison.base, "head": comparison.head}
    return {name: indented_json(_file(comparison, side, name)) for name, side in sides.items()}


def _file(comparison: Comparison, side: Side, name: str) -> dict[str, Any]:
    timed = [(cell, getattr(cell, name)) for cell in comparison.cells]
    return {
        "machine_info": {
            "node": "",
            "processor": side.hardware_class,
            "machine": side.hardware_class,
            "python_version": side.python_version or "",
            "cpu": {"brand_raw": side.hardware_class},
            "torch_version": side.torch_version or "",
            "driver_version": side.driver_version or "",
        },
        "commit_info": {"id": side.label, "time": side.started_at or _NEVER, "dirty": False, "branch": side.label},
        "benchmarks": [_benchmark(cell, figures) for cell, figures in timed if figures.process_times_s],
        "datetime": side.started_at or _NEVER,
        "version": "5.0.0",  # of the format
    }


def _benchmark(cell: CellComparison, figures: Figures) -> dict[str, Any]:
    name = short_id(cell.cell_id)
    return {
        "group": None,
        "name": name,
        "fullname": f"archbench::{name}",
        "params": None,
        "param": None,
        "extra_info": {
            "cell_id": cell.cell_id,
            "params": figures.params,
            "macs": figures.macs,
            "peak_bytes": figures.peak_bytes,
            "throughput_img_s": figures.throughput_img_s,
            "archbench_verdict": cell.verdict,
        },
        "options": {"timer": "archbench", "warmup": True, "disable_gc": True},
        "stats": _stats(figures.process_times_s),
    }


def _stats(times: tuple[float, ...]) -> dict[str, Any]:
    """The fields that pytest-benchmark stores of its rounds, as it defines them."""
    mean, median = statistics.mean(times), statistics.median(times)
    deviation = statistics.stdev(times) if len(times) > 1 else 0.0
    q1, _, q3 = statistics.quantiles(times, n=4, method="inclusive") if len(times) > 1 else (median, median, median)
    low, high = q1 - 1.5 * (q3 - q1), q3 + 1.5 * (q3 - q1)
    beyond = sum(abs(time - mean) > deviation for time in times)
    outside = sum(not low <= time <= high for time in times)
    return {
        "min": min(times),
        "max": max(times),
        "mean": mean,
        "stddev": deviation,
        "rounds": len(times),
        "median": median,
        "iqr": q3 - q1,
        "q1": q1,
        "q3": q3,
        "iqr_outliers": outside,
        "stddev_outliers": beyond,
        "outliers": f"{beyond};{outside}",
        "ld15iqr": min(time for time in times if time >= low),
        "hd15iqr": max(time for time in times if time <= high),
        "ops": 1 / mean,
        "total": sum(times),
        "data": list(times),
        "iterations": 1,
    }
