"""The decision over many cells: a look at all, further pairs where they decide something, fresh ones to confirm.

Screening alone would alarm in most suites of hundreds of cells; confirming all of them would take a night. A cell is
cleared as soon as it is shown to be the same, for which what the other cells scatter by is used as well: where pairs
scatter by 0.7 %, three mostly do. Confirming on fresh pairs undoes the screen's selection, Holm's correction the number
of cells confirmed, and the least effect keeps a tiny but certain slowdown from failing anybody's build. Error rates:
benchmarks/simulated_gate.py.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache

import numpy as np
from msgspec import Struct
from numpy.typing import ArrayLike, NDArray

from archbench.stats.paired import EQUIVALENCE_MARGIN, VISIBLE_EFFECT, LogRatio, holm, inefficiency, paired
from archbench.stats.variance import Pool, moderated, pooled, t_quantile

SCREEN_PAIRS = 5
FIRST_LOOK = SCREEN_PAIRS // 2 + 1
"""Pairs that can settle what the median of all screening pairs will say: three of five."""
SCREEN_EFFECT = 0.01
"""A cell whose median log ratio over the screening pairs exceeds this is confirmed. The mean would let one bad process
in five pairs decide: with 3 % of processes 5 % slow, 19 of 300 innocent cells are confirmed by means, 3 by medians."""
CONFIRM_PAIRS = 12
CONFIRM_MORE = 20
"""Fresh pairs of a cell that 12 of them leave open: where pairs scatter by 1.1 %, 12 find 3 % in 92 suites of 100."""
CONFIRM_TRIM = 0.2
"""Share of the fresh pairs left out at each end: 2 of 12. With 3 % of processes bad, means and untrimmed tests find a
true slowdown of 3 % in nine suites of ten where bad means 5 % slow, and in one of two where it means 10 %; medians and
trimmed tests in 99 % of both, with no false alarm in 1000 suites. Trimming 3 of 12 costs power where noise is wide."""
TRIM_FROM = 8
"""From so many pairs on an estimate is a trimmed mean; of fewer, trimming would leave too little."""
CONFIRM_LEVEL = 0.01
"""Chance of blaming any cell wrongly, over all cells confirmed together and both looks at their fresh pairs."""
CONFIRM_EFFECT = 0.015
"""A slowdown below this fails nobody, however certain it is."""
FEWEST_POOLED = 5
"""Cells from which it is told what a cell usually scatters by; of fewer, each one goes by its own pairs."""


class Confirmation(Struct, frozen=True, kw_only=True):
    """What the fresh pairs of one flagged cell say."""

    regressed: bool
    p: float
    """One-sided trimmed t, the smaller of two looks and doubled for that: chance of pairs at least this slow, were
    there no slowdown. 1 for a single pair."""
    p_adjusted: float
    """`p` after Holm's correction over the cells confirmed together."""
    median: float
    """Median log ratio."""


def usual_scatter(first_looks: Sequence[Sequence[float]]) -> Pool | None:
    """What a pair's log ratio usually scatters by, from the first pairs of all cells; `None` for too few cells.

    From `FIRST_LOOK` pairs of each, whatever was played later: cells that scatter widely are given more.
    """
    looks = [np.asarray(look[:FIRST_LOOK]) for look in first_looks if len(look) >= FIRST_LOOK]
    if len(looks) < FEWEST_POOLED:
        return None
    return pooled([0.0 if np.ptp(look) == 0 else look.var(ddof=1) for look in looks], [FIRST_LOOK - 1.0] * len(looks))


def screen(log_ratios: ArrayLike, effect: ArrayLike = SCREEN_EFFECT, pool: Pool | None = None) -> NDArray[np.bool_]:
    """Which cells call for confirmation: those whose median log(head / base) exceeds `effect`, or that `may_hide` one.

    `log_ratios`: shape (..., pairs); the answer has the shape before the pairs, as has `effect` where cells have
    their own. Raises `ValueError` for no pairs or a log ratio that is not finite.
    """
    array = np.asarray(log_ratios, dtype=np.float64)
    if array.ndim == 0 or array.shape[-1] == 0 or not np.isfinite(array).all():
        raise ValueError("needs at least one pair, all of them finite")
    exceeds = np.greater(np.median(array, axis=-1), np.asarray(effect, dtype=np.float64))
    return np.asarray(exceeds | may_hide(array, pool=pool))


def cleared(log_ratios: ArrayLike, pool: Pool | None = None) -> NDArray[np.bool_]:
    """Whether the pairs so far show that a cell takes the same time; shapes as for `screen`.

    The moderated 90 % interval lies within the margin of equivalence. Looked at after three, four and five pairs, it
    is said of a cell that is 1.5 % off in up to 8 cases of 100 and not in 5, and of one that is 3 % off practically
    never.
    """
    array = np.asarray(log_ratios, dtype=np.float64)
    pairs = array.shape[-1]
    if pairs < FIRST_LOOK:
        return np.zeros(array.shape[:-1], dtype=np.bool_)
    mean, reach = _reach(array, 0, pool, 0.95)
    return np.asarray(np.abs(mean) + reach < math.log1p(EQUIVALENCE_MARGIN))


def trimmed(log_ratios: ArrayLike) -> LogRatio:
    """What a cell's pairs say together, with `CONFIRM_TRIM` of them left out at each end where there are enough."""
    return paired(log_ratios, CONFIRM_TRIM if np.size(log_ratios) >= TRIM_FROM else 0.0)


def may_hide(log_ratios: ArrayLike, slowdown: float = VISIBLE_EFFECT, pool: Pool | None = None) -> NDArray[np.bool_]:
    """Whether pairs that lean to the slow side scatter too widely to rule out a slowdown of this size.

    That is, where the trimmed mean is above half of `SCREEN_EFFECT`, and its one-sided 90 % bound (Yuen's, see
    `paired`, moderated) beyond log(1 + slowdown). Trimmed, because one bad process in five pairs widens the plain one
    in 14 cells of 100. Shapes as for `screen`; never for fewer pairs than trimming needs.
    """
    array = np.asarray(log_ratios, dtype=np.float64)
    cut = int(CONFIRM_TRIM * array.shape[-1])
    if cut == 0:
        return np.zeros(array.shape[:-1], dtype=np.bool_)
    mean, reach = _reach(array, cut, pool, 0.9)
    return np.asarray((mean > SCREEN_EFFECT / 2) & (mean + reach > math.log1p(slowdown)))


def _reach(
    log_ratios: NDArray[np.float64], cut: int, pool: Pool | None, probability: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Trimmed means of the last axis, and how far above them their one-sided bounds lie."""
    ordered = np.sort(log_ratios, axis=-1)
    pairs = ordered.shape[-1]
    kept = ordered[..., cut : pairs - cut]
    left = pairs - 2 * cut
    squares = np.clip(ordered, kept[..., :1], kept[..., -1:]).var(axis=-1, ddof=1) * (pairs - 1) / (left * (left - 1))
    freedom = np.full_like(squares, left - 1.0)
    if pool is not None:
        scale = inefficiency(pairs, left) / pairs
        variance, freedom = moderated(pool, squares / scale, freedom)
        squares = variance * scale
    return kept.mean(axis=-1), np.asarray(t_quantile(freedom, probability) * np.sqrt(squares))


def confirm(
    cells: Sequence[ArrayLike],
    *,
    effects: Sequence[float] | None = None,
    level: float = CONFIRM_LEVEL,
    pool: Pool | None = None,
) -> tuple[Confirmation, ...]:
    """Judge all flagged cells together by fresh pairs of theirs; one answer a cell, in order.

    Regressed = the adjusted p is at most `level` and the median log ratio at least the cell's effect
    (`CONFIRM_EFFECT` unless `effects` gives each its own, for cells known to be noisy). Pairs that the screen has
    already seen must not be among them. The error is moderated towards the `pool`, and never below the cell's own: it
    was chosen by its pairs, and what scatters widely is chosen oftener (shrinking it blames an innocent cell in 2.5
    suites of 100 whose standard deviations are log-normal, 0.6). Raises `ValueError` for a cell without pairs or with
    ones not finite.
    """
    needed = [CONFIRM_EFFECT] * len(cells) if effects is None else effects
    p_values = [_p(np.asarray(cell, dtype=np.float64), pool) for cell in cells]
    medians = [float(np.median(np.asarray(cell, dtype=np.float64))) for cell in cells]
    return tuple(
        Confirmation(
            regressed=bool(adjusted <= level and median >= effect), p=p, p_adjusted=float(adjusted), median=median
        )
        for p, adjusted, median, effect in zip(p_values, holm(p_values), medians, needed, strict=True)
    )


def _p(pairs: NDArray[np.float64], pool: Pool | None) -> float:
    """Of both looks: after `CONFIRM_PAIRS`, and at what there is."""
    looks = {CONFIRM_PAIRS, pairs.size} if pairs.size > CONFIRM_PAIRS else {pairs.size}
    estimates = [paired(pairs[:count], CONFIRM_TRIM).moderated(pool, cautious=True) for count in looks]
    return min(1.0, *(2 * (1.0 if (p := one.p_slower()) is None else p) for one in estimates))


def confirmed_enough(log_ratios: Sequence[float], flagged: int, effect: float, pool: Pool | None = None) -> bool:
    """Whether further fresh pairs of a cell (slower = above 0) would change nothing.

    There are all of them; or, after `CONFIRM_PAIRS`, it is regressed among `flagged` cells whatever the others say, or
    its one-sided 95 % bound lies below the effect.
    """
    count = len(log_ratios)
    if count < CONFIRM_PAIRS or count >= CONFIRM_MORE:
        return count >= CONFIRM_MORE
    (answer,) = confirm([log_ratios], effects=[effect], level=CONFIRM_LEVEL / flagged, pool=pool)
    ends = paired(log_ratios, CONFIRM_TRIM).moderated(pool, cautious=True).interval(0.9)
    return answer.regressed or (ends is not None and ends[1] < math.exp(effect))


@cache
def power(
    sd: float, slowdown: float = VISIBLE_EFFECT, effect: float = CONFIRM_EFFECT, screened: float = SCREEN_EFFECT
) -> float:
    """The chance that a true slowdown of a single cell is found, of which a pair's log ratio scatters by `sd`.

    The screen's (three pairs of five beyond `screened`) times the confirmation's (the trimmed t of 20 pairs, by the
    noncentral t distribution, and their median beyond `effect`), of normal pairs and one cell confirmed alone.
    """
    from scipy.special import bdtrc, nctdtr, ndtr

    true = math.log1p(slowdown)
    if sd == 0:
        return float(true > max(screened, effect))
    seen = bdtrc(FIRST_LOOK - 1, SCREEN_PAIRS, ndtr((true - screened) / sd))
    kept = CONFIRM_MORE - 2 * int(CONFIRM_TRIM * CONFIRM_MORE)
    error = sd * math.sqrt(inefficiency(CONFIRM_MORE, kept) / CONFIRM_MORE)
    shown = 1 - nctdtr(kept - 1, true / error, float(t_quantile(kept - 1, 1 - CONFIRM_LEVEL / 2)))
    large = ndtr((true - effect) / (sd * math.sqrt(math.pi / 2 / CONFIRM_MORE)))
    return float(seen * shown * large)
