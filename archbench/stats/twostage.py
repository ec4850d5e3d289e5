"""The two-stage decision over many cells: screen all with few pairs, confirm the flagged ones with fresh pairs.

Screening alone would alarm in most suites of hundreds of cells; confirming all of them would take a night. Confirming
on fresh pairs undoes the screen's selection, Holm's correction the number of cells confirmed, and the least effect
keeps a tiny but certain slowdown from failing anybody's build. Error rates: benchmarks/simulated_gate.py.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from msgspec import Struct
from numpy.typing import ArrayLike, NDArray

from archbench.stats.paired import VISIBLE_EFFECT, LogRatio, holm, paired

SCREEN_PAIRS = 5
SCREEN_EFFECT = 0.01
"""A cell whose median log ratio over the screening pairs exceeds this is confirmed. The mean would let one bad process
in five pairs decide: with 3 % of processes 5 % slow, 19 of 300 innocent cells are confirmed by means, 3 by medians."""
CONFIRM_PAIRS = 12
CONFIRM_TRIM = 0.2
"""Share of the fresh pairs left out at each end: 2 of 12. With 3 % of processes bad, means and untrimmed tests find a
true slowdown of 3 % in nine suites of ten where bad means 5 % slow, and in one of two where it means 10 %; medians and
trimmed tests in 99 % of both, with no false alarm in 1000 suites. Trimming 3 of 12 costs power where noise is wide."""
TRIM_FROM = 8
"""From so many pairs on an estimate is a trimmed mean; of fewer, trimming would leave too little."""
CONFIRM_LEVEL = 0.01
"""Chance of blaming any cell wrongly, over all cells confirmed together."""
CONFIRM_EFFECT = 0.015
"""A slowdown below this fails nobody, however certain it is."""


class Confirmation(Struct, frozen=True, kw_only=True):
    """What the fresh pairs of one flagged cell say."""

    regressed: bool
    p: float
    """One-sided trimmed t: chance of pairs at least this slow, were there no slowdown. 1 for a single pair."""
    p_adjusted: float
    """`p` after Holm's correction over the cells confirmed together."""
    median: float
    """Median log ratio."""


def screen(log_ratios: ArrayLike, effect: ArrayLike = SCREEN_EFFECT) -> NDArray[np.bool_]:
    """Which cells call for confirmation: those whose median log(head / base) exceeds `effect`, or that `may_hide` one.

    `log_ratios`: shape (..., pairs); the answer has the shape before the pairs, as has `effect` where cells have
    their own. Raises `ValueError` for no pairs or a log ratio that is not finite.
    """
    array = np.asarray(log_ratios, dtype=np.float64)
    if array.ndim == 0 or array.shape[-1] == 0 or not np.isfinite(array).all():
        raise ValueError("needs at least one pair, all of them finite")
    exceeds = np.greater(np.median(array, axis=-1), np.asarray(effect, dtype=np.float64))
    return np.asarray(exceeds | may_hide(array))


def trimmed(log_ratios: ArrayLike) -> LogRatio:
    """What a cell's pairs say together, with `CONFIRM_TRIM` of them left out at each end where there are enough."""
    return paired(log_ratios, CONFIRM_TRIM if np.size(log_ratios) >= TRIM_FROM else 0.0)


def may_hide(log_ratios: ArrayLike, slowdown: float = VISIBLE_EFFECT) -> NDArray[np.bool_]:
    """Whether pairs that lean to the slow side scatter too widely to rule out a slowdown of this size.

    That is, where the trimmed mean is above half of `SCREEN_EFFECT`, and its one-sided 90 % bound (Yuen's, see
    `paired`) beyond log(1 + slowdown). Trimmed, because one bad process in five pairs widens the plain one in 14 cells
    of 100. Simulated with normal pairs that scatter by 4 %: the median of five alone passes 3.5 % of slowdowns of 5 %,
    the screen with this 1.4 %, and has 39 % of the unchanged cells confirmed instead of 32 %. Shapes as for `screen`;
    never for fewer pairs than trimming needs.
    """
    from scipy.special import stdtrit

    ordered = np.sort(np.asarray(log_ratios, dtype=np.float64), axis=-1)
    pairs = ordered.shape[-1]
    cut = int(CONFIRM_TRIM * pairs)
    left = pairs - 2 * cut
    if cut == 0:
        return np.zeros(ordered.shape[:-1], dtype=np.bool_)
    kept = ordered[..., cut : pairs - cut]
    winsorised = np.clip(ordered, kept[..., :1], kept[..., -1:]).std(axis=-1, ddof=1)
    error = winsorised * math.sqrt((pairs - 1) / (left * (left - 1)))
    mean = kept.mean(axis=-1)
    return np.asarray((mean > SCREEN_EFFECT / 2) & (mean + stdtrit(left - 1, 0.9) * error > math.log1p(slowdown)))


def confirm(
    cells: Sequence[ArrayLike],
    *,
    effects: Sequence[float] | None = None,
    level: float = CONFIRM_LEVEL,
) -> tuple[Confirmation, ...]:
    """Judge all flagged cells together by fresh pairs of theirs; one answer a cell, in order.

    Regressed = the adjusted p is at most `level` and the median log ratio at least the cell's effect
    (`CONFIRM_EFFECT` unless `effects` gives each its own, for cells known to be noisy). Pairs that the screen has
    already seen must not be among them. Raises `ValueError` for a cell without pairs or with ones not finite.
    """
    needed = [CONFIRM_EFFECT] * len(cells) if effects is None else effects
    estimates = [paired(cell, CONFIRM_TRIM) for cell in cells]
    p_values = [1.0 if (p := estimate.p_slower()) is None else p for estimate in estimates]
    return tuple(
        Confirmation(
            regressed=bool(adjusted <= level and estimate.median >= effect),
            p=p,
            p_adjusted=float(adjusted),
            median=estimate.median,
        )
        for estimate, p, adjusted, effect in zip(estimates, p_values, holm(p_values), needed, strict=True)
    )
