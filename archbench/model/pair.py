"""What processes that took turns have measured together."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import median

from msgspec import Struct

from archbench.model.record import Record


class Turn(Struct, frozen=True, kw_only=True):
    """Each process held the device once, for one block."""

    seconds: tuple[float, ...]
    """Of one step, by process in their fixed order."""
    first: int
    """Which of them began."""
    kept: bool = True
    """False where the device's monitor rejected a block of it."""


class Frozen(Struct, frozen=True, kw_only=True):
    """What the first pair finds out, by process, and all later pairs keep to.

    The sides of a gate have equal numbers; the cells of a duel each have their own.
    """

    warmup_steps: tuple[int, ...]
    steps: tuple[int, ...]
    """Steps in a block."""
    alternate: bool = False
    """The processes do not fit in memory together: whole processes alternate."""


class ProcessPair(Struct, frozen=True, kw_only=True):
    """Fresh processes, one a side (base, head) or one a cell of a duel, and what they measured in turns."""

    rows: tuple[Record, ...]
    turns: tuple[Turn, ...] = ()
    """Empty where a process failed. Where whole processes alternated, turn number n of each is put together."""
    frozen: Frozen | None = None
    """`None` where a process failed before it was known."""
    origins: tuple[str | None, ...] = ()
    """The file of the package or module that each network came from."""
    started_at: str
    """UTC, ISO 8601."""
    duration_s: float

    @property
    def failed(self) -> tuple[int, ...]:
        """The processes that gave no time."""
        return tuple(index for index, row in enumerate(self.rows) if row.status != "ok")

    @property
    def fit(self) -> bool:
        """Whether the times may enter a test: all ended well, none was throttled or shared, a turn was kept."""
        return not self.failed and self.log_ratio() is not None and all(row.verdict != "invalid" for row in self.rows)

    def failure(self) -> tuple[int, str] | None:
        """Which process failed, and how; `None` where none did. One that was sent away since another failed is none."""
        for index in self.failed:
            if self.rows[index].status != "skipped":
                return index, self.rows[index].failure
        return None

    def log_ratio(self, of: int = 1, to: int = 0) -> float | None:
        """Median over the turns of log(time of one process / time of another); `None` where one failed."""
        kept = [turn for turn in self.turns if turn.kept]
        if not kept or self.frozen is None:
            return None
        if self.frozen.alternate:
            return math.log(self._median_s(kept, of) / self._median_s(kept, to))
        return median(math.log(turn.seconds[of] / turn.seconds[to]) for turn in kept)

    def latency_s(self, of: int = 0) -> float:
        """Median time of one process's step over the turns that were kept, in seconds. Raises where there are none."""
        return self._median_s([turn for turn in self.turns if turn.kept], of)

    @staticmethod
    def _median_s(turns: Sequence[Turn], index: int) -> float:
        return median(turn.seconds[index] for turn in turns)


class PairDone(Struct, frozen=True, kw_only=True):
    """What is told after each pair."""

    cell_id: str
    """Whose it is; of a duel, the cell that the first is held against."""
    pair: ProcessPair
    pairs_done: int
    pairs_left: int
    """At the least: cells that are still to be flagged will need more."""
    cells_open: int
    seconds_left: float
