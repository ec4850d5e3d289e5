"""The pairs of a cell so far, and which pair to play next: pure rules over what the pairs have said.

In order: a first look at every cell (three pairs), which mostly suffices where pairs scatter little; the fresh pairs of
cells that have been flagged as slower, since they decide whether the gate passes; the remaining pairs of cells that may
still be flagged; the fresh pairs of those flagged as faster; the remaining pairs of the others; and, where time was
given to be used up, further pairs of cells that are neither shown to differ nor to be the same, the nearest to a
decision first. A budget cuts this order where it runs out, so it is spent where it decides most.
"""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Literal

from msgspec import Struct

from archbench.comparison.noise import Threshold
from archbench.model.cell import Cell
from archbench.model.comparison import Frozen, ProcessPair
from archbench.model.record import Record
from archbench.stats.paired import EQUIVALENCE_MARGIN
from archbench.stats.twostage import (
    CONFIRM_MORE,
    CONFIRM_PAIRS,
    FIRST_LOOK,
    SCREEN_PAIRS,
    cleared,
    confirmed_enough,
    screen,
    trimmed,
    usual_scatter,
)
from archbench.stats.variance import Pool

Stage = Literal["screen", "confirm"]
Leaning = Literal["slower", "faster", "same", "level", "open"]
MOST_WASTED = 2
"""One failed or unfit pair is an accident; with this many, it is asked whether the next would be any better."""


class PairLog:
    """The pairs of one cell so far, or of the cells of a duel."""

    def __init__(self, *cells: Cell) -> None:
        self.cells = cells
        self.cell = cells[0]
        self.threshold = Threshold()
        """By how much the cell must differ."""
        self.pairs: dict[Stage, list[ProcessPair]] = {"screen": [], "confirm": []}
        self._taken: dict[Stage, set[int]] = {"screen": set(), "confirm": set()}

    @property
    def key(self) -> str:
        """The cell's id, or those of a duel's cells."""
        return " ".join(cell.cell_id for cell in self.cells)

    def add(self, stage: Stage, pair: ProcessPair, number: int | None = None) -> None:
        """Add a finished pair, under the next free number unless it has one."""
        self._taken[stage].add(self.next_number(stage) if number is None else number)
        self.pairs[stage].append(pair)

    def next_number(self, stage: Stage) -> int:
        """The smallest that no pair has: that of a damaged file first, so that no whole one is written over."""
        return next(number for number in itertools.count() if number not in self._taken[stage])

    @property
    def everything(self) -> list[ProcessPair]:
        """All pairs, in the order of their stages."""
        return [*self.pairs["screen"], *self.pairs["confirm"]]

    def ratios(self, stage: Stage, of: int = 1) -> list[float]:
        """log(head / base) of the pairs that are fit to be used, in order; or of another process to the first."""
        return [ratio for pair in self.pairs[stage] if pair.fit and (ratio := pair.log_ratio(of)) is not None]

    def forget_failures(self) -> None:
        """Leave out pairs that are not fit to be used: another day, the machine may be."""
        for stage, pairs in self.pairs.items():
            self.pairs[stage] = [pair for pair in pairs if pair.fit]

    @property
    def wasted(self) -> int:
        """Pairs that failed or were unfit."""
        return sum(not pair.fit for pair in self.everything)

    @property
    def failing(self) -> bool:
        """Whether so many pairs failed that this is no accident."""
        return sum(bool(pair.failed) for pair in self.everything) >= MOST_WASTED

    @property
    def given_up(self) -> bool:
        """Whether the next pair would be no better: it fails, or the device's monitor rejects every other pair."""
        wasted = self.wasted
        return self.failing or (wasted >= MOST_WASTED and 2 * wasted >= len(self.everything))

    @property
    def surveyed(self) -> bool:
        """Whether what is counted, and the memory, are known of both sides."""
        return all(any(_counted(pair.rows[side]) for pair in self.everything) for side in (0, 1))

    def standing_for(self, side: int) -> Record:
        """The side's row that was surveyed, or the one that says why the cell was given up.

        One bad process beside others that went well is told with the pairs; a cell given up is one that fails.
        """
        rows = [pair.rows[side] for pair in self.everything]
        surveyed = [row for row in rows if _counted(row)]
        failed = [row for row in rows if row.status != "ok"]
        if failed and (self.failing or not surveyed):
            return failed[-1]
        return surveyed[0] if surveyed else rows[-1]

    @property
    def frozen(self) -> Frozen | None:
        """The numbers that the first pair found out."""
        return next((pair.frozen for pair in self.everything if pair.frozen is not None and not pair.failed), None)

    @property
    def pair_s(self) -> float | None:
        """How long a pair of this cell takes: the longest, but for the first, which surveys, where there are others."""
        seconds = [pair.duration_s for pair in self.everything]
        return max(seconds[1:] or seconds, default=None)


def _counted(row: Record) -> bool:
    return row.status == "ok" and row.params is not None


class NextPair(Struct, frozen=True, order=True):
    """One pair that could be played: the smaller, the sooner."""

    rank: int
    distance: float
    """Pairs of this kind played already; of cells to be settled, the pairs that a decision may still take."""
    place: int
    """The cell's place in a seeded order of its own each round."""
    cell_id: str
    stage: Stage


def leaning(ratios: Sequence[float], effect: float, pool: Pool | None = None) -> Leaning:
    """What the screen says of `SCREEN_PAIRS` log ratios, or is bound to say: `slower` is what `screen` flags.

    Three pairs beyond `effect` on one side settle the median; `same` what is shown to be that (see `cleared`); `open`
    as long as pairs to come can change it. Pairs after the screen's do not count: they would be looks at a cell that
    has been judged already.
    """
    seen = ratios[:SCREEN_PAIRS]
    above = below = 0
    for count, ratio in enumerate(seen, start=1):
        above, below = above + (ratio > effect), below + (-ratio > effect)
        if max(above, below) >= FIRST_LOOK:
            return "slower" if above > below else "faster"
        if count >= FIRST_LOOK and cleared(seen[:count], pool):
            return "same"
    left = SCREEN_PAIRS - len(seen)
    if max(above, below) + left >= FIRST_LOOK:
        return "open"
    return "slower" if left == 0 and screen(seen, effect, pool) else "level"


class Leanings:
    """How all cells of a gate lean, and what they are judged by: from the pairs so far, and from them alone."""

    def __init__(self, logs: Mapping[str, PairLog]) -> None:
        screened = {key: log.ratios("screen") for key, log in logs.items()}
        self.pool = usual_scatter(list(screened.values()))
        self.of = {key: leaning(ratios, logs[key].threshold.screen, self.pool) for key, ratios in screened.items()}
        self._flagged = Counter(self.of.values())

    def unconfirmed(self, key: str, log: PairLog) -> int:
        """Fresh pairs that a cell still needs, if it is flagged; further ones are not foreseen."""
        lean = self.of[key]
        sign = {"slower": 1.0, "faster": -1.0}.get(lean)
        if sign is None:
            return 0
        up = [sign * ratio for ratio in log.ratios("confirm")]
        if confirmed_enough(up, self._flagged[lean], log.threshold.confirm, self.pool):
            return 0
        return (CONFIRM_PAIRS if len(up) < CONFIRM_PAIRS else CONFIRM_MORE) - len(up)


def next_pairs(
    logs: Mapping[str, PairLog],
    places: Mapping[str, Sequence[int]],
    *,
    screen_pairs: int = SCREEN_PAIRS,
    settle: bool = False,
) -> list[NextPair]:
    """Every pair that is still worth playing, the most deciding first; at most one a cell.

    `places`: for each cell its place in the order of each round, used in turn. `screen_pairs`: more than the screen's
    where the spread itself is to be learnt. `settle`: there is time to decide what the screen leaves undecided.
    """
    leans, found = Leanings(logs), []
    for key, log in logs.items():
        urgent = None if log.given_up else _urgency(key, log, leans, screen_pairs, settle)
        if urgent is not None:
            rank, distance, stage = urgent
            orders = places[key]
            found.append(NextPair(rank, distance, orders[len(log.everything) % len(orders)], key, stage))
    return sorted(found)


def outlook(logs: Mapping[str, PairLog], *, screen_pairs: int = SCREEN_PAIRS) -> dict[str, int]:
    """Pairs that each open cell will still need, going by how it leans so far; cells that need none are left out."""
    leans, needed = Leanings(logs), {}
    for key, log in logs.items():
        if log.given_up:
            continue
        more = screen_pairs > SCREEN_PAIRS or leans.of[key] in ("level", "open")
        left = max(0, (screen_pairs if more else FIRST_LOOK) - len(log.ratios("screen"))) + leans.unconfirmed(key, log)
        if left:
            needed[key] = left
    return needed


def _urgency(
    key: str, log: PairLog, leans: Leanings, screen_pairs: int, settle: bool
) -> tuple[int, float, Stage] | None:
    screened, confirmed = log.ratios("screen"), log.ratios("confirm")
    seen, lean = len(screened), leans.of[key]
    unconfirmed = leans.unconfirmed(key, log) > 0
    if seen < FIRST_LOOK:
        return 0, seen, "screen"
    if lean == "slower" and unconfirmed:
        return 1, len(confirmed), "confirm"
    if lean == "open":
        return 2, seen, "screen"
    if lean == "faster" and unconfirmed:
        return 3, len(confirmed), "confirm"
    if seen < screen_pairs and (lean == "level" or screen_pairs > SCREEN_PAIRS):
        return 4, seen, "screen"
    if settle and lean == "level" and seen < CONFIRM_PAIRS:
        needed = _pairs_to_settle(screened, leans.pool)
        return None if needed is None else (5, needed, "screen")
    return None


def _pairs_to_settle(ratios: Sequence[float], pool: Pool | None) -> float | None:
    """Roughly how many more pairs show that the cell is the same, going by the scatter so far; `None` if none need to.

    The interval shrinks with the root of the pairs; what it must come inside of is what the mean leaves of the margin.
    """
    estimate = trimmed(ratios).moderated(pool)
    if estimate.equivalent():
        return None
    room = math.log1p(EQUIVALENCE_MARGIN) - abs(estimate.mean)
    ends = estimate.interval(0.9)
    if room <= 0 or ends is None:
        return math.inf
    reach = math.log(ends[1]) - estimate.mean if math.isfinite(ends[1]) else math.inf
    return len(ratios) * ((reach / room) ** 2 - 1)
