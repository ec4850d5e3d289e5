"""When enough samples have been taken: a pure object that is fed floats."""

from __future__ import annotations

import math
from typing import Literal

from archbench.stats.intervals import Interval, blocked_interval, odd_block

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


class StoppingRule:
    """Decides after each sample whether to take more, from the blocked interval of the median.

    It stops when the interval's half-width has come down to `target_half_width` of the median (`converged`), when
    doubling the samples no longer narrows it (`plateau`: drift or slow noise, more samples would not help), or at
    `max_samples` or `max_seconds` (`capped`). It never stops before `min_samples` (`min_samples_slow` where a sample
    takes more than `slow_step_s`), `min_blocks` blocks and `min_seconds`, not even at a cap.
    It looks only at the ends of blocks and at growing distances; `add` costs about two microseconds on average.
    """

    def __init__(
        self,
        *,
        step_s: float,
        min_samples: int = 30,
        min_samples_slow: int = 12,
        slow_step_s: float = 0.1,
        min_blocks: int = 6,
        min_seconds: float = 0.5,
        max_samples: int = 1000,
        max_seconds: float = 5.0,
        target_half_width: float = 0.005,
    ) -> None:
        """`step_s`: what one sample is expected to take, from the warm-up. Raises `ValueError` unless above 0."""
        if not (math.isfinite(step_s) and step_s > 0):
            raise ValueError(f"a step takes more than 0 s, not {step_s}")
        least = min_samples_slow if step_s > slow_step_s else min_samples
        # As long as the samples that will be taken anyway allow: a longer block costs nothing up to there.
        longest = max(least, min_seconds / step_s) // min_blocks
        self.block_length = odd_block(int(min(max(longest, SHORTEST_BLOCK), LONGEST_BLOCK)))
        """Samples in a block: 2 for slow steps to 9 for fast ones."""
        self._least = max(least, min_blocks * self.block_length)
        self._min_seconds = min_seconds
        self._max_samples = max_samples
        self._max_seconds = max_seconds
        self._target = target_half_width
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
        if self._done or count < self._least or self._seconds < self._min_seconds:
            return
        capped = count >= self._max_samples or self._seconds >= self._max_seconds
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
        if self._converged():
            return "converged"
        earlier = [then for size, then in self._widths if 2 * size <= count]
        if not earlier or width < PLATEAU_SHRINK * earlier[-1]:
            self._shrinking_until = count
        return "plateau" if count >= PLATEAU_SPAN * self._shrinking_until else None

    def _converged(self) -> bool:
        latest = self._widths[-1][1]
        if len(self._widths) == 1:
            return latest <= FIRST_LOOK_SHARE * self._target
        return max(latest, self._widths[-2][1]) <= self._target
