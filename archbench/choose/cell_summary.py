"""What became of one cell, as a value: a row of the summary with the few things derived from it.

And of two: by how much one loses against the other, when they are too close to call, and which no other beats.
"""

from __future__ import annotations

import math
import re
import shlex
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from msgspec import Struct

from archbench.model.axes import PLAIN, Toggled
from archbench.model.cell import is_passed, is_user_code, short_id
from archbench.model.derived import judged_columns, ranked_by
from archbench.model.reasons import LOWER_BOUND, having
from archbench.model.units import AT_LEAST, GIGA, counted, fixed, shortened

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

TIMED_UNITS = ("s", "img/s", "J/img")
"""Of figures that scatter from process to process at least as the latency does."""
EXACT = frozenset(
    {
        "params", "macs", "flops", "activations", "weight_bytes", "predicted_peak_bytes", "top1", "top5",
        "feature_width", "input_size", "batch_size", "threads", "settings_ok", "settings_failed", "graph_breaks",
    }
)  # fmt: skip
"""Figures that are counted or published: equal or not, whatever the machine does."""
BYTES_TOLERANCE = 0.005
"""Peaks that differ by less are one: as much as a comparison of two runs lets memory grow."""
INTERVALS = {
    "rank_latency_s": ("rank_latency_low_s", "rank_latency_high_s"),
    "rank_throughput_img_s": ("rank_throughput_low_img_s", "rank_throughput_high_img_s"),
}
"""Columns that have an interval, and the columns of its ends."""
WIDEST = 2.0
"""Upper end of an interval over the lower from which a time or rate is no evidence of what is faster."""


class Estimate(Struct, frozen=True):
    """One number of one cell in stored units, with its 95 % interval where it has one."""

    column: str
    value: float | None
    low: float | None = None
    high: float | None = None
    scatter: float = 0.0
    """Half the interval of the log of the cell's latency, where this is a time that has no interval of its own."""
    at_least: bool = False
    """A lower bound: operators with products were not counted."""

    @property
    def half(self) -> float:
        """Half the interval of the figure's log, or what it scatters by at least; 0 for what does not scatter."""
        return math.log(self.high / self.low) / 2 if self.low and self.high else self.scatter

    @property
    def evidence(self) -> bool:
        """It has a value, and no interval so wide that it says nothing of what is faster."""
        return bool(self.value) and self.half <= math.log(WIDEST) / 2


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


class Margin(Struct, frozen=True, kw_only=True):
    """By how much one cell loses against another: the ratio of the worse figure to the better, 1 or more."""

    ratio: float
    low: float | None
    high: float | None
    """The ratio's 95 % interval; `None` where neither side has one."""
    tie: bool
    """Too close to call: within the interval."""
    within: float
    """What a ratio has to exceed to be told from 1, less 1."""


def margin(better: Estimate, worse: Estimate) -> Margin | None:
    """How far `worse` is behind `better`, two figures of one column; `None` where no ratio can be formed.

    Figures tie within their intervals together, which add up as those of independent logs do; counted and published
    ones, which have none, only where they are equal, bytes within `BYTES_TOLERANCE`.
    """
    if better.value is None or worse.value is None:
        return None
    if better.value == worse.value:
        return Margin(ratio=1.0, low=None, high=None, tie=True, within=0.0)
    if better.value <= 0 or worse.value <= 0:
        return None
    distance = abs(math.log(worse.value / better.value))
    half = math.hypot(better.half, worse.half)
    within = math.log1p(BYTES_TOLERANCE) if judged_columns()[better.column].unit == "B" else half
    within = 0.0 if better.column in EXACT else within
    ratio = math.exp(distance)
    return Margin(
        ratio=ratio,
        low=ratio * math.exp(-half) if half else None,
        high=ratio * math.exp(half) if half else None,
        tie=distance <= within,
        within=math.expm1(within),
    )


def settled_by(column: str, one: str, other: str) -> str | None:
    """The command that settles a tie in `column`; `None` where no duel can.

    Duels are about times and rates, and the command line cannot name a network that was passed as an object.
    """
    passed = any(is_passed(_architecture(cell_id)) for cell_id in (one, other))
    return duel(one, other) if ranked_by(column) in INTERVALS and not passed else None


def duel(one: str, other: str) -> str:
    """The duel of two cells, given by their ids; what is usual in both is left out."""
    allowed = ["--allow-code"] if any(is_user_code(_architecture(cell_id)) for cell_id in (one, other)) else []
    return shlex.join(["archbench", "duel", short_id(one), short_id(other), *allowed])


def _architecture(cell_id: str) -> str:
    return cell_id.rpartition("@")[0].partition("[")[0]


def pareto_front(costs: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Which rows of `costs`, shape (rows, figures), smaller is better, no row dominates; a mask of shape (rows,).

    A row dominates another that is nowhere better and somewhere worse; equal rows stay together. A row with a NaN is
    on no front and dominates nothing.
    """
    front = np.zeros(len(costs), dtype=bool)
    left = np.flatnonzero(~np.isnan(costs).any(axis=1))
    # In lexical order no row is dominated by a later one, so the first of what is left always belongs to the front.
    left = left[np.lexsort(costs[left].T[::-1])]
    while left.size:
        first = costs[left[0]]
        equal = (costs[left] == first).all(axis=1)
        front[left[equal]] = True
        left = left[~equal & (costs[left] < first).any(axis=1)]
    return front


def dominating(costs: NDArray[np.float64], row: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Which rows of `costs` dominate `row`, shape (figures,)."""
    nowhere_worse: NDArray[np.bool_] = np.all(costs <= row, axis=1)
    somewhere_better: NDArray[np.bool_] = np.any(costs < row, axis=1)
    return nowhere_worse & somewhere_better
