"""Where a series changed: E-divisive means, for histories of tens to hundreds of runs.

Matteson & James, "A Nonparametric Approach for Multiple Change Point Analysis of Multivariate Data" (2014), for one
variable and exponent 1: the split that maximises the energy distance between what lies before and after it is a change
point if a permutation test says so, and both sides are searched in turn. Nothing is assumed of the noise's shape.
Written here since the libraries that have it bring a database client each or are held at an old numpy.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from msgspec import Struct
from numpy.typing import ArrayLike, NDArray

LEVEL = 0.01
PERMUTATIONS = 499
"""Enough to tell 1 % from 2 %; the smallest p is 1/500."""
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
    """Share of permutations that split at least as well as the series itself."""


def change_points(
    values: ArrayLike,
    *,
    level: float = LEVEL,
    permutations: int = PERMUTATIONS,
    shortest: int = SHORTEST_SEGMENT,
    seed: int = 0,
) -> tuple[ChangePoint, ...]:
    """The change points of a series, in order; the same series and seed give the same answer.

    Give logarithms where ratios matter. Where something known changed (a driver, say), split the series there and
    search each part. One test per segment, each at `level`: a series without change gives a false one with that
    probability, if its values are independent. Takes O(permutations n^2) for each change point found.
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
        if end - start < 2 * shortest:
            continue
        # The stream depends on the segment alone, so that the order of the search does not matter.
        rng = np.random.default_rng((seed, start, end))
        split, p = _best_split(series[start:end], level, permutations, shortest, rng)
        if p is not None:
            found[start + split] = p
            open_segments += [(start, start + split), (start + split, end)]
    edges = [0, *sorted(found), series.size]
    levels = [float(np.median(series[a:b])) for a, b in pairwise(edges) if b > a]
    return tuple(
        ChangePoint(index=index, before=levels[order], after=levels[order + 1], p=found[index])
        for order, index in enumerate(sorted(found))
    )


def _best_split(
    segment: NDArray[np.float64], level: float, permutations: int, shortest: int, rng: np.random.Generator
) -> tuple[int, float | None]:
    """Where the segment splits best, and the permutation p of a split as good; `None` for a p above `level`."""
    distances = np.abs(segment[:, None] - segment[None, :])
    scores = _split_scores(distances, shortest)
    # A permutation of equal values equals the series up to rounding, and must count as at least as good.
    bar = float(scores.max()) * (1 - 1e-9)
    as_good = 1
    for _ in range(permutations):
        order = rng.permutation(segment.size)
        as_good += bool(_split_scores(distances[np.ix_(order, order)], shortest).max() >= bar)
        if as_good > level * (permutations + 1):
            # p can only be above the level now; a series without change ends here after a few permutations.
            return shortest + int(scores.argmax()), None
    return shortest + int(scores.argmax()), as_good / (permutations + 1)


def _split_scores(distances: NDArray[np.float64], shortest: int) -> NDArray[np.float64]:
    """Scaled energy distance of every split into at least `shortest` values a side; shape (n - 2 shortest + 1,).

    For m values before and n after: mn/(m + n) times (2 x mean distance between the sides - mean distance within
    each), equations 5 and 6 of the paper.
    """
    size = len(distances)
    to_earlier = np.tril(distances, -1).sum(axis=1)
    to_later = distances.sum(axis=1) - to_earlier
    m = np.arange(shortest, size - shortest + 1, dtype=np.float64)
    n = size - m
    splits = slice(shortest - 1, size - shortest)
    within_before = np.cumsum(to_earlier)[splits]
    within_after = to_later.sum() - np.cumsum(to_later)[splits]
    between = to_earlier.sum() - within_before - within_after
    pairs_before = np.maximum(m * (m - 1) / 2, 1)
    pairs_after = np.maximum(n * (n - 1) / 2, 1)
    energy = 2 * between / (m * n) - within_before / pairs_before - within_after / pairs_after
    return np.asarray(m * n / (m + n) * energy)
