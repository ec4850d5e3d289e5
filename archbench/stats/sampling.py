"""When to begin and when to end: whether steps are level yet, whether they drift, whether samples are enough."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist
from typing import Literal

import numpy as np
from msgspec import Struct
from numpy.typing import ArrayLike, NDArray

from archbench.stats.intervals import (
    Interval,
    block_length_for,
    block_medians,
    blocked_interval,
    finite,
    odd_block,
    stretch,
)

Stop = Literal["converged", "plateau", "capped"]

SHORTEST_BLOCK = 2
LONGEST_BLOCK = 10
LOOK_GROWTH = 1.1
"""Each look at the interval waits for a tenth more samples: looking more often only stops at chance lows."""
FIRST_LOOK_SHARE = 0.75
"""The first look converges only this far below the target; later ones take two in a row that meet it. In simulation
(benchmarks/simulated_coverage.py) stopping at any one look that meets the target leaves 90-92 % of the intervals
holding the median where the noise is 4 to 10 times the target: it picks the intervals that are short by chance."""
PLATEAU_SHRINK = 0.9
"""Twice the samples should shrink an interval to 0.71; one that stays above this share has stopped shrinking."""
PLATEAU_SPAN = 1.75
"""... when every look says so while the samples grow by this factor; the width of an interval is itself noisy."""


@dataclass(kw_only=True)
class StoppingRule:
    """Decides after each sample whether to take more, from the blocked interval of the median.

    It stops when the interval's half-width has come down to `target_half_width` of the median (`converged`), when
    doubling the samples no longer narrows it (`plateau`: drift or slow noise, more samples would not help), or at
    `max_samples` or `max_seconds` (`capped`). It never stops before `min_samples` (`min_samples_slow` where a sample
    takes more than `slow_step_s`), `min_blocks` blocks and `min_seconds`, not even at a cap.
    It looks only at the ends of blocks and at growing distances; `add` costs about two microseconds on average.
    """

    step_s: float
    """What one sample is expected to take, from the warm-up. Raises `ValueError` unless above 0."""
    min_samples: int = 30
    min_samples_slow: int = 12
    slow_step_s: float = 0.1
    min_blocks: int = 6
    min_seconds: float = 0.5
    max_samples: int = 1000
    max_seconds: float = 5.0
    target_half_width: float = 0.005

    def __post_init__(self) -> None:
        if not (math.isfinite(self.step_s) and self.step_s > 0):
            raise ValueError(f"a step takes more than 0 s, not {self.step_s}")
        least = self.min_samples_slow if self.step_s > self.slow_step_s else self.min_samples
        # As long as the samples that will be taken anyway allow: a longer block costs nothing up to there.
        longest = max(least, self.min_seconds / self.step_s) // self.min_blocks
        self.block_length = odd_block(int(min(max(longest, SHORTEST_BLOCK), LONGEST_BLOCK)))
        """Samples in a block: 2 for slow steps to 9 for fast ones."""
        self._least = max(least, self.min_blocks * self.block_length)
        self._samples: list[float] = []
        self._seconds = 0.0
        self._next_look = 0
        self._widths: list[tuple[int, float]] = []
        self._shrinking_until = 0
        self._done: Stop | None = None

    def add(self, seconds: float) -> None:
        """Take one sample: its whole duration, however many steps it holds. Raises `ValueError` unless above 0."""
        if not 0 < seconds < math.inf:
            raise ValueError(f"a sample takes more than 0 s, not {seconds}")
        self._samples.append(seconds)
        self._seconds += seconds
        count = len(self._samples)
        if self._done or count < self._least or self._seconds < self.min_seconds:
            return
        capped = count >= self.max_samples or self._seconds >= self.max_seconds
        if capped or (count >= self._next_look and count % self.block_length == 0):
            self._done = self._look(count) or ("capped" if capped else None)
            self._next_look = math.ceil(count * LOOK_GROWTH)

    @property
    def done(self) -> Stop | None:
        """Why sampling may stop; `None` while it should go on. Samples added later change the interval, not this."""
        return self._done

    @property
    def count(self) -> int:
        """Samples taken."""
        return len(self._samples)

    @property
    def interval(self) -> Interval:
        """The median of a sample and its 95 % interval so far, in seconds. Raises `ValueError` before any sample."""
        return blocked_interval(self._samples)

    def _look(self, count: int) -> Stop | None:
        width = self.interval.half_width
        if width is None:
            return None
        self._widths.append((count, width))
        if len(self._widths) == 1:
            converged = width <= FIRST_LOOK_SHARE * self.target_half_width
        else:
            converged = max(width, self._widths[-2][1]) <= self.target_half_width
        if converged:
            return "converged"
        earlier = [then for size, then in self._widths if 2 * size <= count]
        if not earlier or width < PLATEAU_SHRINK * earlier[-1]:
            self._shrinking_until = count
        return "plateau" if count >= PLATEAU_SPAN * self._shrinking_until else None


LEVEL_STANDARD_ERRORS = 2.0
"""Medians of a level process move by this many standard errors of their difference, whatever `level_change` says."""
LONGEST_SHARE = 3
"""The longest blocks span this share of the warm-up (its last third). Blocks of a fixed count see too little of time
where steps are short: three blocks of 10 steps of 4 ms let a drift of 4 % a second pass as level."""
SCALE_STEP = 4
"""Blocks of one length see swings of 2.5 to 16 of their lengths, so lengths a factor of 4 apart miss none between."""
DRIFT_LIMIT = 0.005
"""A change between the halves below this is not worth a flag, however certain it is."""
DRIFT_LEVEL = 0.01
"""Chance of a change as certain as this where nothing drifts, before the limit is applied."""
FEWEST_SAMPLES = 12
"""Fewer say nothing of drift: a line through each half leaves too little to judge the noise by."""
FEWEST_BLOCKS = 10


@dataclass(kw_only=True)
class WarmupDetector:
    """Decides whether step times have become level: the medians of consecutive blocks no longer move.

    Level = the last `level_blocks` block medians lie within `level_change` of each other, or within two standard
    errors of the difference of two of them where the steps are so noisy that this is more. That must hold for blocks
    that span the last third of all steps, for ones a quarter as long, and so on down to `block` steps: long blocks
    catch slow ramps, short ones fast swings and what has just moved. A swing within one block is part of the noise.
    `min_calls` and `min_seconds` hold back `done`, `cap_seconds` ends it; `level` knows of none of them.
    Raises `ValueError` for fewer than two blocks, or blocks of no step.
    """

    block: int = 10
    level_blocks: int = 3
    level_change: float = 0.005
    min_calls: int = 1
    min_seconds: float = 0.0
    cap_seconds: float = math.inf

    def __post_init__(self) -> None:
        if self.block < 1 or self.level_blocks < 2:
            raise ValueError(f"cannot tell a level from {self.level_blocks} blocks of {self.block} steps")
        self._steps: list[float] = []
        self._seconds = 0.0
        self._next_look = self.block * self.level_blocks
        self._level = False

    def add(self, seconds: float) -> None:
        """Take one step's duration; keep the process's very first call out. Raises `ValueError` unless above 0."""
        if not 0 < seconds < math.inf:
            raise ValueError(f"a step takes more than 0 s, not {seconds}")
        self._steps.append(seconds)
        self._seconds += seconds
        if self.calls >= self._next_look:
            self._level = self._is_level()
            self._next_look = max(self.calls + self.block, math.ceil(self.calls * LOOK_GROWTH))

    @property
    def level(self) -> bool:
        """Whether the last look found the steps level."""
        return self._level

    @property
    def done(self) -> Literal["level", "capped"] | None:
        """`level` once level after the minimum of calls and seconds, `capped` past the cap, else `None`."""
        if self._level and self.calls >= self.min_calls and self._seconds >= self.min_seconds:
            return "level"
        return "capped" if self._seconds >= self.cap_seconds and self.calls >= self.min_calls else None

    @property
    def calls(self) -> int:
        """Steps seen."""
        return len(self._steps)

    def _is_level(self) -> bool:
        length = self.calls // (LONGEST_SHARE * self.level_blocks)
        while length > self.block:
            if not self._is_level_over(length):
                return False
            length //= SCALE_STEP
        return self._is_level_over(self.block)

    def _is_level_over(self, length: int) -> bool:
        steps = np.array(self._steps[-self.level_blocks * length :])
        medians = block_medians(steps, length)
        moved = float(np.ptp(medians))
        noise = LEVEL_STANDARD_ERRORS * math.sqrt(2) * _standard_error(steps.reshape(-1, length), medians)
        return moved <= max(self.level_change * float(np.median(medians)), noise)


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
