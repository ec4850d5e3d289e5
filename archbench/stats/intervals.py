"""The median, how sure it is, and percentiles that are withheld where the sample cannot support them.

Intervals come from order statistics, so no shape of distribution is assumed. What is assumed is independence, which
consecutive timings lack: `blocked_interval` therefore works on medians of blocks, and allows for what is left.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from statistics import NormalDist

import numpy as np
from msgspec import Struct
from numpy.typing import ArrayLike, NDArray

FEWEST_BLOCKS = 6
"""Fewest independent values that give a 95 % interval of the median: 1 - 2/2^6 = 96.9 %; five give 93.8 %."""
LONG_BLOCK = 9
"""A block this long leaves little correlation between neighbours; beyond it, more blocks are worth more."""
MOST_BLOCKS = 24
"""Beyond this many blocks, longer ones are worth more: few long blocks keep their coverage under correlation."""
DESIGN_CORRELATION = 0.5
"""Correlation between consecutive samples that `blocked_interval` allows for (an AR(1) process)."""
SMALLEST_RATIO = 1e-100
"""Of an interval's end to its middle: beyond, reciprocals and ratios of times would leave a float's range."""


class Interval(Struct, frozen=True, kw_only=True):
    """A median and the interval that holds the true one, in the unit of the values."""

    median: float
    low: float | None = None
    """`None`: fewer values than any such interval needs."""
    high: float | None = None
    confidence: float | None = None
    """The interval's own confidence, at least what was asked for (order statistics come in steps)."""

    @property
    def half_width(self) -> float | None:
        """Half the interval over the median; `None` where there is no interval, or the median is 0."""
        if self.low is None or self.high is None or not self.median:
            return None
        return (self.high - self.low) / 2 / abs(self.median)


def median_interval(values: ArrayLike, confidence: float = 0.95) -> Interval:
    """The median of independent values, with its order-statistic interval.

    The interval runs from the r-th smallest to the r-th largest value, r the largest rank for which the binomial
    distribution gives at least `confidence` (David & Nagaraja, Order Statistics, 7.1). Exact for any continuous
    distribution. Raises `ValueError` for no values, for values that are not finite, or a confidence outside (0, 1).
    """
    ordered = np.sort(finite(values))
    rank, achieved = _rank(ordered.size, confidence)
    median = _middle(ordered)
    if rank == 0:
        return Interval(median=median)
    return Interval(median=median, low=float(ordered[rank - 1]), high=float(ordered[-rank]), confidence=achieved)


def blocked_interval(samples: ArrayLike, confidence: float = 0.95) -> Interval:
    """The median of consecutive, possibly correlated samples, with an interval over the medians of blocks.

    Blocks are as `block_length_for` says. The interval is stretched by what an AR(1) process with
    `DESIGN_CORRELATION` would need at that block length, and widened where need be to hold the samples' median. It is
    stretched on the log scale: however wide, it holds positive times only, and its reciprocal is that of the rates.
    Raises `ValueError` as `median_interval` does, and for a sample that is not above 0.
    """
    array = finite(samples)
    if array.min() <= 0:
        raise ValueError("a value is not above 0")
    length = block_length_for(array.size)
    blocks = interval_over_blocks(block_medians(array, length), length, confidence)
    median = _middle(np.sort(array))
    if blocks.low is None or blocks.high is None:
        return Interval(median=median)
    low, high = min(median, blocks.low), max(median, blocks.high)
    return Interval(median=median, low=low, high=high, confidence=blocks.confidence)


def interval_over_blocks(blocks: ArrayLike, length: int, confidence: float = 0.95) -> Interval:
    """The median of figures above 0, each of which stands for `length` consecutive samples, with a stretched interval.

    Raises `ValueError` as `median_interval` does.
    """
    found = median_interval(blocks, confidence)
    if found.low is None or found.high is None:
        return found
    factor, median = stretch(length), found.median
    low = median * max((found.low / median) ** factor, SMALLEST_RATIO)
    high = median * min((found.high / median) ** factor, 1 / SMALLEST_RATIO)
    return Interval(median=median, low=low, high=high, confidence=found.confidence)


def block_length_for(samples: int, fewest: int = FEWEST_BLOCKS) -> int:
    """How long blocks should be: `fewest` blocks until they are long enough, then up to 24, then longer ones.

    Odd above 2: the median of an odd number of values has the same median as the values, however skewed they are.
    """
    long_enough = min(samples // fewest, LONG_BLOCK)
    return odd_block(max(long_enough, samples // MOST_BLOCKS, 1))


def odd_block(length: int) -> int:
    """The largest block length up to `length` that is odd, 1 or 2."""
    return length if length <= 2 or length % 2 else length - 1


def block_medians(samples: ArrayLike, block_length: int) -> NDArray[np.float64]:
    """Median of each run of `block_length` consecutive samples, shape (n // block_length,).

    Samples that fill no block are left out at the beginning, where a process is least settled.
    """
    array = np.asarray(samples, dtype=np.float64)
    blocks = array.size // block_length
    used = array[array.size - blocks * block_length :].reshape(blocks, block_length)
    ordered = np.sort(used, axis=1)
    return np.asarray((ordered[:, (block_length - 1) // 2] + ordered[:, block_length // 2]) / 2)


def stretch(block_length: int, correlation: float = DESIGN_CORRELATION) -> float:
    """How much too short an interval over blocks is when neighbouring samples correlate, as a factor >= 1.

    For block means of an AR(1) process: the square root of the long-run variance over the variance that blocks taken
    for independent suggest, (1 + rho)/(1 - rho) / (1 + 2 sum over k < b of (1 - k/b) rho^k). It tends to 1 as
    blocks grow. (Law & Kelton, Simulation Modeling and Analysis, 9.5, on batch means.)
    """
    within = 1 + 2 * sum((1 - k / block_length) * correlation**k for k in range(1, block_length))
    return math.sqrt((1 + correlation) / (1 - correlation) / within)


def wilson_interval(successes: int, trials: int, confidence: float = 0.95) -> tuple[float, float]:
    """The interval of a share of `trials` (Wilson 1927), both ends within 0 and 1; `trials` is at least 1."""
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    share, over = successes / trials, z * z / trials
    middle = (share + over / 2) / (1 + over)
    half = z / (1 + over) * math.sqrt(share * (1 - share) / trials + over / (4 * trials))
    return max(0.0, middle - half), min(1.0, middle + half)


def minimum_samples(percent: float, confidence: float = 0.95) -> int:
    """Fewest samples for which a one-sided bound on this percentile exists: the smallest n with q^n <= 1 - confidence.

    With q = percent/100, the largest of n values lies above the percentile with probability 1 - q^n (below 50 the
    smallest value takes its part). 90, 95, 99 need 29, 59, 299. Raises `ValueError` outside (0, 100).
    """
    if not 0 < percent < 100:
        raise ValueError(f"a percentile lies between 0 and 100, not at {percent}")
    share = max(percent, 100 - percent) / 100
    return math.ceil(math.log(1 - confidence) / math.log(share))


def percentile(values: ArrayLike, percent: float) -> float | None:
    """The percentile, interpolated between order statistics; `None` below `minimum_samples`."""
    enough = np.size(values) >= minimum_samples(percent)
    return float(np.percentile(finite(values), percent)) if enough else None


def finite(values: ArrayLike) -> NDArray[np.float64]:
    """The values as a flat array of floats. Raises `ValueError` where there are none, or one is not finite."""
    array = np.asarray(values, dtype=np.float64).ravel()
    if not array.size:
        raise ValueError("no values")
    if not np.isfinite(array).all():
        raise ValueError("a value is not finite")
    return array


def _middle(ordered: Sequence[float] | NDArray[np.float64]) -> float:
    low, high = float(ordered[(len(ordered) - 1) // 2]), float(ordered[len(ordered) // 2])
    return low + (high - low) / 2


@cache
def _rank(count: int, confidence: float) -> tuple[int, float]:
    """Largest r with 1 - 2 P(Binomial(count, 1/2) < r) >= confidence, and that probability; (0, 0.0) for none."""
    if not 0 < confidence < 1:
        raise ValueError(f"a confidence lies between 0 and 1, not at {confidence}")
    tail, rank, achieved = 0.0, 0, 0.0
    # Twenty standard deviations below the middle nothing is left of the distribution.
    for below in range(max(0, int(count / 2 - 10 * math.sqrt(count))), count // 2):
        log_term = math.lgamma(count + 1) - math.lgamma(below + 1) - math.lgamma(count - below + 1)
        tail += math.exp(log_term - count * math.log(2))
        if 1 - 2 * tail < confidence:
            break
        rank, achieved = below + 1, 1 - 2 * tail
    return rank, achieved
