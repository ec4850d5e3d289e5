"""How far apart two measurements of one thing lie, told from a few repeats of it."""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np
from numpy.typing import ArrayLike

from archbench.stats.intervals import finite


def repeatability_limit(groups: Iterable[ArrayLike], confidence: float = 0.95) -> float | None:
    """What the distance of two further values of one group stays within, with this confidence; `None` for no repeat.

    `groups`: repeats of one thing each, all with the same scatter. The repeatability limit of ISO 5725-6, which is
    2.8 standard deviations where these are known well. They are not after a handful of repeats, so Student's t takes
    the place of the normal: after three repeats 6.1 standard deviations. The largest distance between these three
    would be exceeded by 31 % of further pairs. Raises `ValueError` for a value that is not finite.
    """
    from scipy.special import stdtrit

    squares, freedom = 0.0, 0
    for values in map(finite, groups):
        if np.ptp(values) > 0:  # equal values can differ from their own mean by rounding
            squares += float(((values - values.mean()) ** 2).sum())
        freedom += values.size - 1
    if freedom == 0:
        return None
    return float(stdtrit(freedom, (1 + confidence) / 2)) * math.sqrt(2 * squares / freedom)
