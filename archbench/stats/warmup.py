"""Whether times are level: when a process has warmed up, and whether its samples drifted while they were taken."""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import Literal

import numpy as np
from msgspec import Struct
from numpy.typing import ArrayLike, NDArray

from archbench.stats.intervals import block_length_for, block_medians, finite, stretch

LEVEL_STANDARD_ERRORS = 2.0
"""Medians of a level process move by this many standard errors of their difference, whatever `level_change` says."""
LONGEST_SHARE = 3
"""The longest blocks span this share of the warm-up (its last third). Blocks of a fixed count see too little of time
where steps are short: three blocks of 10 steps of 4 ms let a drift of 4 % a second pass as level."""
SCALE_STEP = 4
"""Blocks of one length see swings of 2.5 to 16 of their lengths, so lengths a factor of 4 apart miss none between."""
LOOK_GROWTH = 1.1
"""Each look waits for a tenth more steps."""
DRIFT_LIMIT = 0.005
"""A change between the halves below this is not worth a flag, however certain it is."""
DRIFT_LEVEL = 0.01
"""Chance of a change as certain as this where nothing drifts, before the limit is applied."""
FEWEST_SAMPLES = 12
"""Fewer say nothing of drift: a line through each half leaves too little to judge the noise by."""
FEWEST_BLOCKS = 10


class WarmupDetector:
    """Decides whether step times have become level: the medians of consecutive blocks no longer move.

    Level = the last `level_blocks` block medians lie within `level_change` of each other, or within two standard
    errors of the difference of two of them where the steps are so noisy that this is more. That must hold for blocks
    that span the last third of all steps, for ones a quarter as long, and so on down to `block` steps: long blocks
    catch slow ramps, short ones fast swings and what has just moved. A swing within one block is part of the noise.
    """

    def __init__(
        self,
        *,
        block: int = 10,
        level_blocks: int = 3,
        level_change: float = 0.005,
        min_calls: int = 1,
        min_seconds: float = 0.0,
        cap_seconds: float = math.inf,
    ) -> None:
        """`block` is the shortest one. `min_calls` and `min_seconds` hold back `done`, `cap_seconds` ends it; `level`
        knows of none of them. Raises `ValueError` for fewer than two blocks, or blocks of no step."""
        if block < 1 or level_blocks < 2:
            raise ValueError(f"cannot tell a level from {level_blocks} blocks of {block} steps")
        self._shortest = block
        self._blocks = level_blocks
        self._level_change = level_change
        self._min_calls = min_calls
        self._min_seconds = min_seconds
        self._cap_seconds = cap_seconds
        self._steps: list[float] = []
        self._seconds = 0.0
        self._next_look = block * level_blocks
        self._level = False

    def add(self, seconds: float) -> None:
        """Take one step's duration; keep the process's very first call out. Raises `ValueError` unless above 0."""
        if not 0 < seconds < math.inf:
            raise ValueError(f"a step takes more than 0 s, not {seconds}")
        self._steps.append(seconds)
        self._seconds += seconds
        if self.calls >= self._next_look:
            self._level = self._is_level()
            self._next_look = max(self.calls + self._shortest, math.ceil(self.calls * LOOK_GROWTH))

    @property
    def level(self) -> bool:
        """Whether the last look found the steps level."""
        return self._level

    @property
    def done(self) -> Literal["level", "capped"] | None:
        """`level` once level after the minimum of calls and seconds, `capped` past the cap, else `None`."""
        if self._level and self.calls >= self._min_calls and self._seconds >= self._min_seconds:
            return "level"
        return "capped" if self._seconds >= self._cap_seconds and self.calls >= self._min_calls else None

    @property
    def calls(self) -> int:
        """Steps seen."""
        return len(self._steps)

    def _is_level(self) -> bool:
        length = self.calls // (LONGEST_SHARE * self._blocks)
        while length > self._shortest:
            if not self._is_level_over(length):
                return False
            length //= SCALE_STEP
        return self._is_level_over(self._shortest)

    def _is_level_over(self, length: int) -> bool:
        steps = np.array(self._steps[-self._blocks * length :])
        medians = block_medians(steps, length)
        moved = float(np.ptp(medians))
        noise = LEVEL_STANDARD_ERRORS * math.sqrt(2) * _standard_error(steps.reshape(-1, length), medians)
        return moved <= max(self._level_change * float(np.median(medians)), noise)


def _standard_error(blocks: NDArray[np.float64], medians: NDArray[np.float64]) -> float:
    """Standard error of one block's median, from the scatter of the steps around their own block's median.

    1.4826 MAD estimates the standard deviation and shrugs off single slow steps; b/(b - 1) repays the degree of
    freedom that each block's median takes; the variance of a median of b normal values is near
    (pi/2) / (b + pi/2 - 1) of theirs.
    """
    length = blocks.shape[1]
    if length == 1:
        return 0.0
    deviation = 1.4826 * float(np.median(np.abs(blocks - medians[:, None]))) * math.sqrt(length / (length - 1))
    return deviation * math.sqrt(math.pi / 2 / (length + math.pi / 2 - 1))


class Drift(Struct, frozen=True, kw_only=True):
    """How much the second half of the samples departs from the first."""

    change: float
    """Mean block median of the second half over that of the first, less 1."""
    noise: float | None
    """Changes up to this size come from noise alone; `None` where there are too few samples to say."""
    drifting: bool
    """The change exceeds both its noise and the limit."""


def drifting(values: ArrayLike, limit: float = DRIFT_LIMIT) -> Drift:
    """Compare the halves of consecutive positive samples, allowing for their autocorrelation.

    A t-test at `DRIFT_LEVEL` between the halves' block medians. Their noise is what a straight line through each half
    leaves, so that a ramp, or one that sets in half-way, does not hide in the scatter that it makes itself; it is
    stretched for correlation between blocks as an interval is. In simulation it flags 0 to 2 % of level series at any
    length, independent or AR(1) with rho 0.5, before the limit. Under 12 samples nothing is ever flagged.
    Raises `ValueError` for fewer than two samples, or ones not finite.
    """
    array = finite(values)
    if array.size < 2:
        raise ValueError("halves need two samples")
    length = block_length_for(array.size, FEWEST_BLOCKS)
    blocks = block_medians(array, length)
    halves = blocks[blocks.size % 2 :].reshape(2, -1)
    means = halves.mean(axis=1, keepdims=True)
    change = float(means[1, 0] / means[0, 0]) - 1
    if array.size < FEWEST_SAMPLES:
        return Drift(change=change, noise=None, drifting=False)
    time = np.arange(halves.shape[1]) - (halves.shape[1] - 1) / 2
    slopes = (halves * time).sum(axis=1, keepdims=True) / (time * time).sum()
    freedom = halves.size - 4
    variance = float(np.square(halves - means - slopes * time).sum()) / freedom
    error = math.sqrt(variance * 4 / halves.size) * stretch(length)
    noise = _t_quantile(freedom, 1 - DRIFT_LEVEL / 2) * error / float(means[0, 0])
    return Drift(change=change, noise=noise, drifting=abs(change) > max(noise, limit))


def _t_quantile(freedom: int, probability: float) -> float:
    """Student's t quantile by its expansion in 1/freedom: within 0.3 % from 6 degrees on, without loading scipy.

    Abramowitz & Stegun, 26.7.5.
    """
    z = NormalDist().inv_cdf(probability)
    terms = (
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
    )
    return float(z + sum(term / freedom**power for power, term in enumerate(terms, start=1)))
