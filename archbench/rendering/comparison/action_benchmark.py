"""The head's figures for github-action-benchmark: one file where smaller is better, one where bigger is.

For its tools `customSmallerIsBetter` and `customBiggerIsBetter`; that action alarms at a fixed percentage of one figure
against the last, so its chart is what to take from it, and the verdict from archbench.
"""

from __future__ import annotations

import msgspec

from archbench.model.cell import short_id
from archbench.model.comparison import CellComparison, Comparison
from archbench.model.units import MIB, MS, percent
from archbench.rendering.comparison.document import Document


class _Entry(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One line of its charts."""

    name: str
    unit: str
    value: float
    range: str = ""
    extra: str = ""


def action_benchmark(comparison: Comparison) -> tuple[Document, ...]:
    """`smaller`: latency and peak memory; `bigger`: throughput. One without entries is none: the action refuses it."""
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
    return tuple(
        Document(suffix=suffix, text=msgspec.json.format(msgspec.json.encode(entries), indent=2).decode() + "\n")
        for suffix, entries in (("smaller", smaller), ("bigger", bigger))
        if entries
    )


def _extra(cell: CellComparison) -> str:
    return f"against the base: {cell.verdict} ({cell.why.sentence})".replace("`", "")


def _range(value: float, low: float | None, high: float | None) -> str:
    return "" if low is None or high is None else f"± {percent(max(high - value, value - low) / value)}"
