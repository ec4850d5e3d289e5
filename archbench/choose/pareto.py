"""The Pareto front: rows that no other row beats in one figure without losing in another."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


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
