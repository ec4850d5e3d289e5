"""When a process has warmed up: a pure object that is fed floats."""

from __future__ import annotations

import math
from typing import Literal

import numpy as np

from archbench.stats.intervals import block_medians

LEVEL_STANDARD_ERRORS = 2.0
"""Medians of a level process move by this many standard errors of their difference, whatever `level_change` says."""


class WarmupDetector:
    """Decides whether step times have become level: the medians of consecutive blocks no longer move.

    Level = the last `level_blocks` block medians lie within `level_change` of each other, or within two standard
    errors of the difference of two of them where the steps are so noisy that this is more. A rise, a fall or a swing
    that is slower than a block shows as movement; one that is faster than a block is part of the steps' noise.
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
        """`min_calls` and `min_seconds` hold back `done`, `cap_seconds` ends it; `level` knows of none of them."""
        if block < 1 or level_blocks < 2:
            raise ValueError("a level needs two blocks of one step")
        self._block = block
        self._level_change = level_change
        self._window = block * level_blocks
        self._min_calls = min_calls
        self._min_seconds = min_seconds
        self._cap_seconds = cap_seconds
        self._recent: list[float] = []
        self._calls = 0
        self._seconds = 0.0
        self._level = False

    def add(self, seconds: float) -> None:
        """Take one step's duration; keep the process's very first call out. Raises `ValueError` unless above 0."""
        if not 0 < seconds < math.inf:
            raise ValueError(f"a step takes more than 0 s, not {seconds}")
        self._calls += 1
        self._seconds += seconds
        self._recent.append(seconds)
        del self._recent[: -self._window]
        if self._calls % self._block == 0 and len(self._recent) == self._window:
            self._level = self._is_level()

    @property
    def level(self) -> bool:
        """Whether the last complete blocks are level."""
        return self._level

    @property
    def done(self) -> Literal["level", "capped"] | None:
        """`level` once level after the minimum of calls and seconds, `capped` past the cap, else `None`."""
        if self._level and self._calls >= self._min_calls and self._seconds >= self._min_seconds:
            return "level"
        return "capped" if self._seconds >= self._cap_seconds and self._calls >= self._min_calls else None

    @property
    def calls(self) -> int:
        """Steps seen."""
        return self._calls

    @property
    def typical_s(self) -> float:
        """Median step over the last blocks: the step time to plan with. Raises `ValueError` before any step."""
        if not self._recent:
            raise ValueError("no steps yet")
        return float(np.median(self._recent))

    def _is_level(self) -> bool:
        steps = np.array(self._recent)
        medians = block_medians(steps, self._block)
        moved = float(np.ptp(medians))
        noise = LEVEL_STANDARD_ERRORS * math.sqrt(2) * self._standard_error(steps, medians)
        return moved <= max(self._level_change * float(np.median(medians)), noise)

    def _standard_error(self, steps: np.ndarray, medians: np.ndarray) -> float:
        """Standard error of one block median, from the scatter of the steps around their own block's median.

        1.4826 MAD estimates the standard deviation and shrugs off single slow steps; b/(b - 1) repays the degree of
        freedom that each block's median takes; the variance of a median of b normal values is near
        (pi/2) / (b + pi/2 - 1) of theirs.
        """
        if self._block == 1:
            return 0.0
        scatter = np.abs(steps.reshape(-1, self._block) - medians[:, None])
        deviation = 1.4826 * float(np.median(scatter)) * math.sqrt(self._block / (self._block - 1))
        return deviation * math.sqrt(math.pi / 2 / (self._block + math.pi / 2 - 1))
