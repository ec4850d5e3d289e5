"""Both sides as files of pytest-benchmark: `pytest-benchmark compare base.json head.json` reads them.

A round there is a process here: each value is one process's median, so its mean and deviation are between processes.
"""

from __future__ import annotations

import statistics
from typing import Any

import msgspec

from archbench.model.cell import short_id
from archbench.model.comparison import CellComparison, Comparison, Figures, Side
from archbench.rendering.comparison.document import Document

_NEVER = "1970-01-01T00:00:00"


def pytest_benchmark(comparison: Comparison) -> tuple[Document, ...]:
    """`base` and `head`, with every cell that was timed on that side."""
    return tuple(
        Document(
            suffix=name,
            text=msgspec.json.format(msgspec.json.encode(_file(comparison, side, name)), indent=2).decode() + "\n",
        )
        for name, side in (("base", comparison.base), ("head", comparison.head))
    )


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
