"""Whether samples drifted while they were taken: their first half against their second."""

from __future__ import annotations

import numpy as np
from msgspec import Struct
from numpy.typing import ArrayLike

from archbench.stats.intervals import FEWEST_BLOCKS, Interval, blocked_interval

DRIFT_LIMIT = 0.005
"""A change between the halves below this is not worth a flag, however certain it is."""


class Drift(Struct, frozen=True, kw_only=True):
    """How much the second half of the samples departs from the first."""

    change: float
    """Median of the second half over that of the first, less 1."""
    first: Interval
    second: Interval
    drifting: bool
    """The halves' 95 % intervals do not overlap, and the change exceeds the limit."""


def drifting(values: ArrayLike, limit: float = DRIFT_LIMIT) -> Drift:
    """Compare the halves of consecutive samples by their blocked intervals, which allow for autocorrelation.

    Two 95 % intervals that do not overlap are a test at about 1 % or less. Under 12 samples nothing is ever flagged:
    a half of fewer than six has no interval. Raises `ValueError` for fewer than two samples, or any not finite.
    """
    array = np.asarray(values, dtype=np.float64).ravel()
    middle = array.size // 2
    if not middle:
        raise ValueError("halves need two samples")
    first, second = blocked_interval(array[:middle]), blocked_interval(array[middle:])
    change = second.median / first.median - 1
    apart = array.size >= 2 * FEWEST_BLOCKS and first.overlaps(second) is False
    return Drift(change=change, first=first, second=second, drifting=apart and abs(change) > limit)
