"""Which pair to play next: pure rules over what the pairs so far have said.

In order: a first look at every cell (three pairs), which mostly suffices where pairs scatter little; the fresh pairs of
cells that have been flagged as slower, since they decide whether the gate passes; the remaining pairs of cells that may
still be flagged; the fresh pairs of those flagged as faster; the remaining pairs of the others; and, where time was
given to be used up, further pairs of cells that are neither shown to differ nor to be the same, the nearest to a
decision first. A budget cuts this order where it runs out, so it is spent where it decides most.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Literal

from msgspec import Struct

from archbench.comparison.noise import Threshold
from archbench.comparison.pair_store import PairLog, Stage
from archbench.stats.moderation import Pool
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

Leaning = Literal["slower", "faster", "same", "level", "open"]


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
    for count in range(FIRST_LOOK, len(seen) + 1):
        above, below = (sum(sign * ratio > effect for ratio in seen[:count]) for sign in (1, -1))
        if max(above, below) >= FIRST_LOOK:
            return "slower" if above > below else "faster"
        if cleared(seen[:count], pool):
            return "same"
    above, below = (sum(sign * ratio > effect for ratio in seen) for sign in (1, -1))
    left = SCREEN_PAIRS - len(seen)
    if max(above, below) + left >= FIRST_LOOK:
        return "open"
    return "slower" if left == 0 and screen(seen, effect, pool) else "level"


class Leanings:
    """How all cells of a gate lean, and what they are judged by: from the pairs so far, and from them alone."""

    def __init__(self, logs: Mapping[str, PairLog], thresholds: Mapping[str, Threshold]) -> None:
        screened = {cell_id: log.ratios("screen") for cell_id, log in logs.items()}
        self.pool = usual_scatter(list(screened.values()))
        self.of = {key: leaning(ratios, thresholds[key].screen, self.pool) for key, ratios in screened.items()}
        self.flagged = Counter(self.of.values())

    def unconfirmed(self, cell_id: str, ratios: Sequence[float], threshold: Threshold) -> int:
        """Fresh pairs that a cell with these ones still needs, if it is flagged; further ones are not foreseen."""
        lean = self.of[cell_id]
        sign = {"slower": 1.0, "faster": -1.0}.get(lean)
        if sign is None:
            return 0
        up = [sign * ratio for ratio in ratios]
        if confirmed_enough(up, self.flagged[lean], threshold.confirm, self.pool):
            return 0
        return (CONFIRM_PAIRS if len(up) < CONFIRM_PAIRS else CONFIRM_MORE) - len(up)


def next_pairs(
    logs: Mapping[str, PairLog],
    thresholds: Mapping[str, Threshold],
    places: Mapping[str, Sequence[int]],
    *,
    screen_pairs: int = SCREEN_PAIRS,
    settle: bool = False,
) -> list[NextPair]:
    """Every pair that is still worth playing, the most deciding first; at most one a cell.

    `places`: for each cell its place in the order of each round, used in turn. `screen_pairs`: more than the screen's
    where the spread itself is to be learnt. `settle`: there is time to decide what the screen leaves undecided.
    """
    leans, found = Leanings(logs, thresholds), []
    for cell_id, log in logs.items():
        urgent = None if log.given_up else _urgency(cell_id, log, thresholds[cell_id], leans, screen_pairs, settle)
        if urgent is not None:
            rank, distance, stage = urgent
            orders = places[cell_id]
            found.append(NextPair(rank, distance, orders[len(log.everything) % len(orders)], cell_id, stage))
    return sorted(found)


def outlook(
    logs: Mapping[str, PairLog], thresholds: Mapping[str, Threshold], *, screen_pairs: int = SCREEN_PAIRS
) -> dict[str, int]:
    """Pairs that each open cell will still need, going by how it leans so far; cells that need none are left out."""
    leans, needed = Leanings(logs, thresholds), {}
    for cell_id, log in logs.items():
        if log.given_up:
            continue
        lean, seen = leans.of[cell_id], len(log.ratios("screen"))
        enough = screen_pairs if screen_pairs > SCREEN_PAIRS or lean in ("level", "open") else FIRST_LOOK
        left = max(0, enough - seen) + leans.unconfirmed(cell_id, log.ratios("confirm"), thresholds[cell_id])
        if left:
            needed[cell_id] = left
    return needed


def _urgency(
    cell_id: str, log: PairLog, threshold: Threshold, leans: Leanings, screen_pairs: int, settle: bool
) -> tuple[int, float, Stage] | None:
    screened, confirmed = log.ratios("screen"), log.ratios("confirm")
    seen, lean = len(screened), leans.of[cell_id]
    unconfirmed = leans.unconfirmed(cell_id, confirmed, threshold) > 0
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
