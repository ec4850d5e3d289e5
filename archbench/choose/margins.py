"""By how much one cell loses against another, when two are too close to call, and which no other beats."""

from __future__ import annotations

import math
import shlex

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from archbench.model.cell import is_passed, is_user_code, short_id
from archbench.model.derived import judged_columns, ranked_by

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
