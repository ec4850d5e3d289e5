"""Where a series changed: binary segmentation by the likelihood-ratio test, for histories of a few to hundreds of runs.

Worsley, "On the Likelihood Ratio Test for a Shift in Location of Normal Populations" (1979): the split that leaves the
least variance within its two sides is a change point if noise without a change seldom has one as good, and both sides
are searched in turn. From `ENOUGH` runs on, what noise does is seen in other orders of the same runs, and nothing is
assumed of its shape. Fewer runs have too few orders: of 3 + 3 there are 20, none of which is one in a hundred. There it
is seen in normal noise, since the statistic depends neither on the noise's level nor on its size.

Beside it votes a second detector that knows no shape of noise, and from which single wild runs, which widen every
variance, hide less: the same search over the ranks of the runs, as Pettitt's (1979), but each split by its own
variance, so that a change in the last runs of many is seen, too. Ranks of few runs come to no level of 1 %, whatever
the runs are; then it does not vote. Error rates of both: benchmarks/simulated_history.py.
"""

from __future__ import annotations

from functools import cache
from itertools import pairwise

import numpy as np
from msgspec import Struct
from numpy.typing import ArrayLike, NDArray

LEVEL = 0.01
ENOUGH = 20
"""Runs from which their own orders tell what noise does."""
SERIES = 1999
"""Series of noise, simulated or reordered; the smallest p is 1/2000."""
SHORTEST_SEGMENT = 3
"""Fewer runs than this are no level of their own, but outliers."""


class ChangePoint(Struct, frozen=True, kw_only=True):
    """A place where the series changed level."""

    index: int
    """First position at the new level."""
    before: float
    """Median from the previous change point (or the start) up to here."""
    after: float
    """Median from here up to the next change point (or the end)."""
    p: float
    """Share of series of noise of this length that split at least as well."""
    p_ranks: float
    """Share of orders of the runs in which their ranks split at least as well."""
    votes: int
    """How many of the detectors show it ..."""
    voters: int
    """... and how many could: 1 where there are too few runs for ranks to show anything."""


def change_points(
    values: ArrayLike, *, level: float = LEVEL, shortest: int = SHORTEST_SEGMENT
) -> tuple[ChangePoint, ...]:
    """The change points of a series, in order; the same series gives the same answer.

    Give logarithms where ratios matter. Where something known changed (a driver, say), split the series there and
    search each part. Two tests per segment, each at `level`: each gives a false change to that share of the series
    without one, if its values are independent and, for the first in a segment below `ENOUGH`, about normal (up to 1.5
    times as often where they are exponential). What either shows is a change, where the first sees it if it does.
    Raises `ValueError` for values that are not finite or a `shortest` below 1.
    """
    series = np.asarray(values, dtype=np.float64).ravel()
    if not np.isfinite(series).all():
        raise ValueError("a value is not finite")
    if shortest < 1:
        raise ValueError(f"a segment of {shortest} values is none")
    found: dict[int, tuple[float, float, int]] = {}
    open_segments = [(0, series.size)]
    while open_segments:
        start, end = open_segments.pop()
        segment = series[start:end]
        if end - start < 2 * shortest or np.ptp(segment) == 0:
            continue
        enough = end - start >= ENOUGH
        noise = _reordered(segment, shortest) if enough else _normal(end - start, shortest)
        orders = _ranked(end - start, shortest)
        shares, of_ranks = explained(segment, shortest), explained(_ranks(segment), shortest)
        p, p_ranks = _p(float(shares.max()), noise), _p(float(of_ranks.max()), orders)
        if min(p, p_ranks) <= level:
            place = int((shares if p <= level else of_ranks).argmax())
            # As far apart as ranks can be: all on one side above all on the other.
            best = explained(np.arange(end - start, dtype=np.float64), shortest)[place]
            split = start + shortest + place
            found[split] = (p, p_ranks, 2 if _p(float(best), orders) <= level else 1)
            open_segments += [(start, split), (split, end)]
    edges = [0, *sorted(found), series.size]
    levels = [float(np.median(series[a:b])) for a, b in pairwise(edges) if b > a]
    return tuple(
        ChangePoint(
            index=index,
            before=levels[order],
            after=levels[order + 1],
            p=found[index][0],
            p_ranks=found[index][1],
            votes=sum(p <= level for p in found[index][:2]),
            voters=found[index][2],
        )
        for order, index in enumerate(sorted(found))
    )


def explained(series: NDArray[np.float64], shortest: int) -> NDArray[np.float64]:
    """Of the variance along the last axis, the share between the sides of every split; shape (..., n - 2 shortest + 1).

    For a share R, Student's t of the two sides is sqrt((n - 2) R / (1 - R)). The series must not be constant.
    """
    size = series.shape[-1]
    centred = series - series.mean(axis=-1, keepdims=True)
    before = np.cumsum(centred, axis=-1)[..., shortest - 1 : size - shortest]
    m = np.arange(shortest, size - shortest + 1, dtype=np.float64)
    # Both sums of a centred series are each other's negative: m (s/m)^2 + (n - m) (s/(n - m))^2.
    between = before**2 * size / (m * (size - m))
    return np.asarray(between / (centred**2).sum(axis=-1, keepdims=True))


def _reordered(segment: NDArray[np.float64], shortest: int) -> NDArray[np.float64]:
    orders = np.random.default_rng(segment.size).permuted(np.tile(segment, (SERIES, 1)), axis=-1)
    return np.asarray(explained(orders, shortest).max(axis=-1))


@cache
def _normal(size: int, shortest: int) -> NDArray[np.float64]:
    """The best splits of independent normal noise."""
    noise = np.random.default_rng(size).normal(size=(SERIES, size))
    return np.asarray(explained(noise, shortest).max(axis=-1))


@cache
def _ranked(size: int, shortest: int) -> NDArray[np.float64]:
    """The best splits of so many ranks, none of them equal, in any order."""
    return _reordered(np.arange(size, dtype=np.float64), shortest)


def _ranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """From 1; of equal values the mean of theirs."""
    _, place, count = np.unique(values, return_inverse=True, return_counts=True)
    return np.asarray((np.cumsum(count) - (count - 1) / 2)[place])


def _p(share: float, noise: NDArray[np.float64]) -> float:
    """How often noise splits as well; an order as good as the series' own is so up to rounding."""
    return (1 + int((noise >= share - 1e-12).sum())) / (1 + SERIES)
