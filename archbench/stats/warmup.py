"""When a process has warmed up: a pure object that is fed floats."""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from archbench.stats.intervals import block_medians

LEVEL_STANDARD_ERRORS = 2.0
"""Medians of a level process move by this many standard errors of their difference, whatever `level_change` says."""
LONGEST_SHARE = 3
"""The longest blocks span this share of the warm-up (its last third). Blocks of a fixed count see too little of time
where steps are short: three blocks of 10 steps of 4 ms let a drift of 4 % a second pass as level."""
SCALE_STEP = 4
"""Blocks of one length see swings of 2.5 to 16 of their lengths, so lengths a factor of 4 apart miss none between."""
LOOK_GROWTH = 1.1
"""Each look waits for a tenth more steps."""


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
