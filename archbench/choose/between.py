"""How sure a figure is that several processes measured: about the difference between processes, not within one."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

CONFIDENCE = 0.95


def process_interval(
    value: NDArray[np.float64],
    below: NDArray[np.float64],
    above: NDArray[np.float64],
    group: NDArray[np.int64],
    middle: NDArray[np.float64],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Both ends of the 95 % interval of each group's figure, shape (groups,); NaN where nothing gives one.

    `value`, `below`, `above`, `group`: shape (processes,): the log of each process's own median, the ends of its own
    interval relative to that (logs, NaN where it has none), and its group's number. `middle`: shape (groups,), the log
    of the group's figure, the median over its processes.

    With two processes or more: Student's t about the mean of the logs, at least as wide as their own intervals would
    make that of a mean, and widened where need be to hold the figure. With one process: its own interval, which knows
    nothing of how processes differ.
    """
    from scipy.special import stdtrit

    cells = len(middle)
    keep = np.isfinite(value)
    value, below, above, group = value[keep], below[keep], above[keep], group[keep]

    def mean(of: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.bincount(group, weights=of, minlength=cells) / np.maximum(count, 1)

    count = np.bincount(group, minlength=cells)
    centre, own_below, own_above = mean(value), mean(below), mean(above)
    several = count > 1
    freedom = np.where(several, count - 1, 1)
    variance = np.bincount(group, weights=(value - centre[group]) ** 2, minlength=cells) / freedom
    half = stdtrit(freedom, 0.5 + CONFIDENCE / 2) * np.sqrt(variance / np.maximum(count, 1))
    half = np.fmax(half, (own_above - own_below) / 2 / np.sqrt(np.maximum(count, 1)))
    low = np.where(several, np.minimum(centre - half, middle), middle + own_below)
    high = np.where(several, np.maximum(centre + half, middle), middle + own_above)
    low[count == 0] = high[count == 0] = np.nan
    with np.errstate(over="ignore"):  # two wild processes have an endless interval
        return np.exp(low), np.exp(high)
