"""Where a series changed: binary segmentation by the likelihood-ratio test, for histories of a few to hundreds of runs.

Worsley, "On the Likelihood Ratio Test for a Shift in Location of Normal Populations" (1979): the split that leaves the
least variance within its two sides is a change point if noise without a change seldom has one as good, and both sides
are searched in turn. From `ENOUGH` runs on, what noise does is seen in other orders of the same runs, and nothing is
assumed of its shape. Fewer runs have too few orders: of 3 + 3 there are 20, none of which is one in a hundred. There it
is seen in normal noise, since the statistic depends neither on the noise's level nor on its size.
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


def change_points(
    values: ArrayLike, *, level: float = LEVEL, shortest: int = SHORTEST_SEGMENT
) -> tuple[ChangePoint, ...]:
    """The change points of a series, in order; the same series gives the same answer.

    Give logarithms where ratios matter. Where something known changed (a driver, say), split the series there and
    search each part. One test per segment, each at `level`: a series without change gives a false one with that
    probability, if its values are independent and, in a segment below `ENOUGH`, about normal (up to 1.5 times as often
    where they are exponential).
    Raises `ValueError` for values that are not finite or a `shortest` below 1.
    """
    series = np.asarray(values, dtype=np.float64).ravel()
    if not np.isfinite(series).all():
        raise ValueError("a value is not finite")
    if shortest < 1:
        raise ValueError(f"a segment of {shortest} values is none")
    found: dict[int, float] = {}
    open_segments = [(0, series.size)]
    while open_segments:
        start, end = open_segments.pop()
        if end - start < 2 * shortest or np.ptp(series[start:end]) == 0:
            continue
        shares = explained(series[start:end], shortest)
        noise = _reordered(series[start:end], shortest) if end - start >= ENOUGH else _normal(end - start, shortest)
        # An order as good as the series' own is so up to rounding.
        p = (1 + int((noise >= shares.max() - 1e-12).sum())) / (1 + SERIES)
        if p <= level:
            split = start + shortest + int(shares.argmax())
            found[split] = p
            open_segments += [(start, split), (split, end)]
    edges = [0, *sorted(found), series.size]
    levels = [float(np.median(series[a:b])) for a, b in pairwise(edges) if b > a]
    return tuple(
        ChangePoint(index=index, before=levels[order], after=levels[order + 1], p=found[index])
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
