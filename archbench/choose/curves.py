"""What depends on the batch: where throughput saturates and what fits into a memory; and what predicts time."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Literal

from msgspec import Struct

from archbench.choose.cell_summary import CellSummary
from archbench.model.axes import Toggles
from archbench.model.counts import largest_batch, read_lines

KNEE = 0.05
"""How far below the best throughput the knee may lie: less is not worth a larger batch's latency and memory."""
GIB = 2**30
BUDGETS = tuple(size * GIB for size in (4, 8, 16, 24, 80))
"""Bytes of the GPUs that people have."""
FEWEST_BATCHES = 3
"""Below, one of the two ends is the knee whatever the curve is like between them."""
FEWEST_NETWORKS = 5
"""Below, a rank correlation says nothing: four networks are in perfect order by chance once in 24."""
_ROUNDING = 1e-12
"""How far perfect order may come out from 1; one swap among thousands of networks is a hundred times as far."""
Predictor = Literal["macs", "activations", "params"]
PREDICTORS: tuple[Predictor, ...] = ("macs", "activations", "params")


class Curve(Struct, frozen=True, kw_only=True):
    """One network under one setting in one phase, over batch sizes."""

    points: tuple[CellSummary, ...]
    """Ascending in batch size; those that were measured and are not invalid."""
    failed: tuple[CellSummary, ...]
    """Batch sizes that ran out of memory."""

    @property
    def best(self) -> CellSummary | None:
        """The batch size with the highest throughput."""
        rated = [one for one in self.points if one.rank_throughput_img_s]
        return max(rated, key=lambda one: one.rank_throughput_img_s or 0.0, default=None)

    @property
    def knee(self) -> CellSummary | None:
        """The smallest batch size whose throughput is not shown to be more than `KNEE` below the best."""
        best = self.best
        return next((one for one in self.points if best is not None and _reaches(one, best)), None)

    @property
    def rising(self) -> bool | None:
        """The largest batch size is the knee: a larger one may be faster still. `None` below `FEWEST_BATCHES`."""
        rated = [one for one in self.points if one.rank_throughput_img_s]
        return None if len(rated) < FEWEST_BATCHES else self.knee is rated[-1]


def _reaches(one: CellSummary, best: CellSummary) -> bool:
    """Whether a rate is within `KNEE` of the best, or may be: by no more beyond than their intervals together."""
    rate, most = one.timed("throughput"), best.timed("throughput")
    if one is best or not rate.value or not most.value:
        return one is best
    allowed = math.hypot(rate.half, most.half) if rate.evidence and most.evidence else 0.0
    return math.log(most.value / rate.value) <= allowed - math.log1p(-KNEE)


class Fit(Struct, frozen=True, kw_only=True):
    """The largest batch of one curve that fits into one memory."""

    predicted: int | None
    """From predicted peaks, 0 where not even one image fits; `None` where they do not tell."""
    at_most: bool
    """`predicted` is beyond all that was predicted in a run of an older version: no more than so many fit."""
    measured: int | None
    """The largest batch measured whose peak is within the budget; `None` where none is."""
    exceeded: int | None
    """The smallest batch measured that is not: its peak is over the budget, or it ran out of no less memory."""


class Correlation(Struct, frozen=True, kw_only=True):
    """How well one count orders the networks' times under one setting: Spearman's rank correlation."""

    phase: str
    setting: str
    batch_size: int
    predictor: Predictor
    networks: int
    rho: float
    low: float | None
    """95 % interval; `None` in perfect order, where the transformation that gives it has no width."""
    high: float | None


def curves(cells: Iterable[CellSummary]) -> list[Curve]:
    """A curve for each network, image size, phase and setting in `cells`, in the order of first cells."""
    together: dict[tuple[str, int | None, str, Toggles, int | None], list[CellSummary]] = {}
    for one in cells:
        if one.is_usable or one.status == "oom":
            key = (one.variant, one.input_size, one.phase, one.toggles, one.threads)
            together.setdefault(key, []).append(one)
    found = []
    for members in together.values():
        members.sort(key=lambda one: one.batch_size)
        failed = tuple(one for one in members if one.status == "oom")
        found.append(Curve(points=tuple(one for one in members if one.status == "ok"), failed=failed))
    return found


def fit_within(budget: int, curve: Curve, memory_bytes: int | None = None) -> Fit:
    """The largest batch for a budget of bytes. `memory_bytes`: of the device on which the curve was measured.

    Predicted: at each moment of a step the live bytes are a line over the batch, and the peak is the largest of these
    lines, which rows store. Rows of older versions store the peak alone: between two batches the line through them is
    never below it; beyond the largest it is never above, so the batch is a bound; one gives no line. These are live
    tensors: an allocator rounds up, and CUDA's context takes some hundred MiB more.
    """
    every = (*curve.points, *curve.failed)
    lines = next((read_lines(one.predicted_peak_lines) for one in every if one.predicted_peak_lines), ())
    known = sorted({one.batch_size: one.predicted_peak_bytes for one in every}.items())
    peaks = [(batch, peak) for batch, peak in known if peak is not None]
    over = [one.batch_size for one in curve.points if one.peak_bytes is not None and one.peak_bytes > budget]
    if memory_bytes is not None and memory_bytes >= budget:
        over += [one.batch_size for one in curve.failed]
    within = [one.batch_size for one in curve.points if one.peak_bytes is not None and one.peak_bytes <= budget]
    return Fit(
        predicted=largest_batch(lines, budget) if lines else _largest(peaks, budget),
        at_most=not lines and bool(peaks) and budget > peaks[-1][1],
        measured=max(within, default=None),
        exceeded=min(over, default=None),
    )


def correlations(cells: Iterable[CellSummary]) -> list[Correlation]:
    """Latency against each of `PREDICTORS` over the networks of each phase, setting and batch size.

    Of networks for which all are known, at least `FEWEST_NETWORKS`. Ties share their mean rank. The interval is
    Fisher's on atanh(rho) with the variance of Bonett and Wright (2000), (1 + rho^2 / 2) / (n - 3).
    """
    import pandas as pd

    together: dict[tuple[str, str, int], list[CellSummary]] = {}
    for one in cells:
        if one.is_usable and one.rank_latency_s and None not in (one.macs, one.activations, one.params):
            together.setdefault((one.phase, one.setting_label, one.batch_size), []).append(one)
    found = []
    for (phase, setting, batch_size), members in together.items():
        if len(members) < FEWEST_NETWORKS:
            continue
        figures = [[one.rank_latency_s, *(getattr(one, name) for name in PREDICTORS)] for one in members]
        ranked = pd.DataFrame(figures, columns=["time", *PREDICTORS], dtype=float).corr(method="spearman")["time"]
        for predictor in PREDICTORS:
            rho = float(ranked[predictor])
            if math.isnan(rho):
                continue  # all alike, so there is no order
            low = high = None
            if abs(rho) <= 1 - _ROUNDING:
                half = 1.959964 * math.sqrt((1 + rho**2 / 2) / (len(members) - 3))
                low, high = math.tanh(math.atanh(rho) - half), math.tanh(math.atanh(rho) + half)
            found.append(
                Correlation(
                    phase=phase,
                    setting=setting,
                    batch_size=batch_size,
                    predictor=predictor,
                    networks=len(members),
                    rho=rho,
                    low=low,
                    high=high,
                )
            )
    return found


def _largest(known: Sequence[tuple[int, int]], budget: int) -> int | None:
    """The largest batch whose peak is within the budget, by lines through neighbours among (batch, bytes)."""
    lines = list(pairwise(known))
    if not lines:
        return None
    (small, less), (large, more) = next((line for line in lines if line[1][1] >= budget), lines[-1])
    slope = (more - less) / (large - small)
    return max(0, math.floor(large + (budget - more) / slope)) if slope > 0 else None
