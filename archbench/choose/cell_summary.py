"""What became of one cell, as a value: a row of the summary with the few things derived from it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from archbench.choose.margins import Estimate
from archbench.model.axes import PLAIN, Toggled
from archbench.model.reasons import LOWER_BOUND, having
from archbench.model.units import AT_LEAST, GIGA, counted, fixed, shortened

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray


class CellSummary(Toggled, frozen=True, kw_only=True, gc=False):
    """What became of one cell: a row of the summary, as far as a report needs it. `None` = not measured.

    Latency and throughput are the figures to rank by, percentiles in the same terms: corrected for drift where
    those are. Without the collector's bookkeeping (it holds no cycle): a large run has a hundred thousand.
    """

    cell_id: str
    architecture: str
    variant: str
    family: str | None
    setting: str | None
    device: str
    hardware_class: str
    phase: str
    threads: int | None
    batch_size: int
    input_size: int | None
    params: int | None
    macs: int | None
    activations: int | None
    weight_bytes: int | None
    top1: float | None
    accuracy_source: str | None
    accuracy_dataset: str | None
    status: str
    verdict: str | None
    reasons: tuple[str, ...]
    processes: int
    processes_used: int
    error_phase: str | None
    error_message: str | None
    rank_latency_s: float | None
    rank_latency_low_s: float | None
    rank_latency_high_s: float | None
    rank_latency_p90_s: float | None
    rank_latency_p95_s: float | None
    rank_latency_p99_s: float | None
    rank_throughput_img_s: float | None
    rank_throughput_low_img_s: float | None
    rank_throughput_high_img_s: float | None
    peak_allocated_bytes: int | None
    peak_reserved_bytes: int | None
    process_bytes: int | None
    predicted_peak_bytes: int | None
    predicted_peak_lines: str | None
    sm_clock_mhz: float | None
    compile_cold_s: float | None
    compile_warm_s: float | None
    artifact_bytes: int | None
    quantized_share: float | None
    output_rel_error: float | None
    output_cosine: float | None
    output_top1_agreement: float | None
    output_finite: bool | None
    compile_error_ratio: float | None
    top1_measured: float | None
    top1_measured_low: float | None
    top1_measured_high: float | None
    top1_drop: float | None

    shared: str = ""
    """What every network of the run has in its brackets, `input_size=192`: said once, and left out of `network`."""

    @property
    def network(self) -> str:
        """The network's name, short enough for a table."""
        return shortened(without_options(self.variant, self.shared))

    def percentile_s(self, percent: int) -> float | None:
        """The latency's 90th, 95th or 99th percentile in the terms of `rank_latency_s`, in seconds."""
        return {90: self.rank_latency_p90_s, 95: self.rank_latency_p95_s, 99: self.rank_latency_p99_s}[percent]

    @property
    def setting_label(self) -> str:
        """The suite's name for the cell's toggles, or the toggles themselves where it has none."""
        label = self.setting or self.toggles.label
        return label if self.threads is None else f"{label}, {counted(self.threads, 'thread')}"

    @property
    def is_plain(self) -> bool:
        """Measured under the setting that others are held against: fp32, contiguous, not compiled."""
        return self.toggles == PLAIN

    def timed(self, measure: Literal["latency", "throughput"] = "latency") -> Estimate:
        """The figure to rank by, with its interval."""
        if measure == "latency":
            ends = self.rank_latency_s, self.rank_latency_low_s, self.rank_latency_high_s
            return Estimate("rank_latency_s", *ends)
        ends = self.rank_throughput_img_s, self.rank_throughput_low_img_s, self.rank_throughput_high_img_s
        return Estimate("rank_throughput_img_s", *ends)

    @property
    def gmacs(self) -> str:
        """`4.09`, or `≥ 4.09` where operators with products were not counted."""
        bound = AT_LEAST if self.macs is not None and LOWER_BOUND in self.reasons else ""
        return bound + fixed(self.macs, GIGA, 2)

    @property
    def is_usable(self) -> bool:
        """Measured, and fit to be held against others: neither failed nor invalid."""
        return self.status == "ok" and self.verdict != "invalid"

    @property
    def asked_size(self) -> int | None:
        """The image size where the suite asked for another than the network's own; networks at their own compare."""
        return self.input_size if "input_size=" in self.variant else None

    @property
    def peak_bytes(self) -> int | None:
        """Peak memory of a step: what the caching allocator held, or live tensors where there is no such allocator."""
        return self.peak_allocated_bytes if self.peak_reserved_bytes is None else self.peak_reserved_bytes

    @property
    def verdict_label(self) -> str:
        """`ok`, `suspect: contended`, `oom`: the status of a cell that failed, else its verdict with its reasons."""
        if self.status != "ok":
            return self.status
        labels = having("label", self.reasons)
        # A code that this version does not know still has to be seen; those behind a column explain nulls.
        codes = [code for code in self.reasons if ":" not in code and code not in labels]
        if self.processes_used < self.processes:
            codes.append(f"{self.processes_used} of {self.processes} processes")
        return "; ".join([f"{self.verdict}: {', '.join(codes)}" if codes else str(self.verdict), *labels])


def numbers(series: pd.Series[Any]) -> NDArray[np.float64]:
    """A column of numbers or flags as floats, NaN where it is null."""
    return series.to_numpy(dtype=np.float64, na_value=np.nan)


def plain_values(series: pd.Series[Any]) -> list[Any]:
    """A column as Python's own values, `None` for pandas' several kinds of nothing."""
    known = series.notna()
    return series.tolist() if known.all() else series.astype(object).where(known, None).tolist()


def cell_summaries(cells: pd.DataFrame) -> tuple[CellSummary, ...]:
    """The rows of a summary, in its order."""
    fields = [field for field in CellSummary.__struct_fields__ if field != "shared"]
    shared = shared_options(cells["variant"].unique().tolist())
    columns = (plain_values(cells[field]) for field in fields)
    return tuple(
        CellSummary(**dict(zip(fields, values, strict=True)), shared=shared) for values in zip(*columns, strict=True)
    )


_OPTION = re.compile(r"\w+=[\w.+-]+")
"""One that is a single word: only such a one can be told apart from its neighbours by the comma."""


def shared_options(variants: Sequence[str]) -> str:
    """The options that all variants have in their square brackets, `input_size=192,num_classes=10`."""
    each = [[one for one in _inside(variant) if _OPTION.fullmatch(one)] for variant in variants]
    return ",".join(one for one in each[0] if all(one in options for options in each)) if each else ""


def without_options(variant: str, shared: str) -> str:
    """`resnet50` of `resnet50[input_size=192]` where that is shared."""
    if not shared:
        return variant
    kept = ",".join(one for one in _inside(variant) if one not in shared.split(","))
    name = variant.partition("[")[0]
    return f"{name}[{kept}]" if kept else name


def _inside(variant: str) -> list[str]:
    return variant.partition("[")[2].removesuffix("]").split(",")


def setting_labels(cells: Iterable[CellSummary], named: Iterable[str]) -> list[str]:
    """Every setting among `cells`: those `named` in that order, then the others as their axes are ordered."""
    labels = {one.setting_label: one for one in cells}
    place = {name: number for number, name in enumerate(named)}

    def order(label: str) -> tuple[int, tuple[int, ...], int]:
        one = labels[label]
        return (place.get(one.setting or "", len(place)), one.toggles.order, one.threads or 0)

    return sorted(labels, key=order)


def failure_line(status: str, verdict: str | None, message: str | None, reasons: Iterable[str]) -> str | None:
    """Why a cell has no figures to be compared by, `oom: out of memory` or `invalid: drift`; `None` where it has."""
    if status != "ok":
        return f"{status}: {message}" if message else status
    if verdict != "invalid":
        return None
    codes = having("invalid", reasons)
    return f"invalid: {', '.join(codes)}" if codes else "invalid"
