"""Which pair to play next: pure rules over what the pairs so far have said.

In order: a first look at every cell (three pairs); the fresh pairs of cells that have been flagged as slower, since
they decide whether the gate passes; the remaining pairs of cells that may still be flagged; the fresh pairs of those
flagged as faster; the remaining pairs of the others; and, where time was given to be used up, further pairs of cells
that are neither shown to differ nor to be the same, the nearest to a decision first. A budget cuts this order where it
runs out, so it is spent where it decides most.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Literal

from msgspec import Struct

from archbench.comparison.noise import Threshold
from archbench.comparison.pair_store import PairLog, Stage
from archbench.stats.paired import EQUIVALENCE_MARGIN, paired
from archbench.stats.twostage import CONFIRM_PAIRS, SCREEN_PAIRS, screen

FIRST_LOOK = SCREEN_PAIRS // 2 + 1
"""Pairs that can settle what the median of all screening pairs will say: three of five."""

Leaning = Literal["slower", "faster", "level", "open"]


class NextPair(Struct, frozen=True, order=True):
    """One pair that could be played: the smaller, the sooner."""

    rank: int
    distance: float
    """Pairs of this kind played already; of cells to be settled, the pairs that a decision may still take."""
    place: int
    """The cell's place in a seeded order of its own each round."""
    cell_id: str
    stage: Stage


def leaning(ratios: Sequence[float], effect: float) -> Leaning:
    """What the screen says of `SCREEN_PAIRS` log ratios, or is bound to say: `slower` is what `screen` flags.

    Three pairs beyond `effect` on one side settle the median; `open` as long as pairs to come can change it. Pairs
    after the screen's do not count: they would be looks at a cell that has been judged already.
    """
    seen = ratios[:SCREEN_PAIRS]
    above = sum(ratio > effect for ratio in seen)
    below = sum(ratio < -effect for ratio in seen)
    left = SCREEN_PAIRS - len(seen)
    if above >= FIRST_LOOK:
        return "slower"
    if below >= FIRST_LOOK:
        return "faster"
    if max(above, below) + left >= FIRST_LOOK:
        return "open"
    return "slower" if left == 0 and screen(seen, effect) else "level"


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
    found = []
    for cell_id, log in logs.items():
        urgent = _urgency(log, thresholds[cell_id], screen_pairs, settle)
        if urgent is not None:
            rank, distance, stage = urgent
            orders = places[cell_id]
            found.append(NextPair(rank, distance, orders[len(log.everything) % len(orders)], cell_id, stage))
    return sorted(found)


def outlook(
    logs: Mapping[str, PairLog], thresholds: Mapping[str, Threshold], *, screen_pairs: int = SCREEN_PAIRS
) -> dict[str, int]:
    """Pairs that each open cell will still need, going by how it leans so far; cells that need none are left out."""
    needed = {}
    for cell_id, log in logs.items():
        if log.given_up:
            continue
        seen = log.ratios("screen")
        lean = leaning(seen, thresholds[cell_id].screen)
        screening = max(0, (FIRST_LOOK if lean in ("slower", "faster") else screen_pairs) - len(seen))
        if lean in ("slower", "faster") and screen_pairs > SCREEN_PAIRS:
            screening = max(0, screen_pairs - len(seen))
        confirming = CONFIRM_PAIRS - len(log.ratios("confirm")) if lean in ("slower", "faster") else 0
        if screening + confirming > 0:
            needed[cell_id] = screening + max(0, confirming)
    return needed


def _urgency(log: PairLog, threshold: Threshold, screen_pairs: int, settle: bool) -> tuple[int, float, Stage] | None:
    if log.given_up:
        return None
    screened, confirmed = log.ratios("screen"), log.ratios("confirm")
    seen = len(screened)
    leans = leaning(screened, threshold.screen)
    unconfirmed = len(confirmed) < CONFIRM_PAIRS
    if seen < FIRST_LOOK:
        return 0, seen, "screen"
    if leans == "slower" and unconfirmed:
        return 1, len(confirmed), "confirm"
    if leans == "open":
        return 2, seen, "screen"
    if leans == "faster" and unconfirmed:
        return 3, len(confirmed), "confirm"
    if seen < screen_pairs and (leans == "level" or screen_pairs > SCREEN_PAIRS):
        return 4, seen, "screen"
    if settle and leans == "level" and seen < CONFIRM_PAIRS:
        needed = _pairs_to_settle(screened)
        return None if needed is None else (5, needed, "screen")
    return None


def _pairs_to_settle(ratios: Sequence[float]) -> float | None:
    """Roughly how many more pairs show that the cell is the same, going by the scatter so far; `None` if none need to.

    The interval shrinks with the root of the pairs; what it must come inside of is what the mean leaves of the margin.
    """
    estimate = paired(ratios)
    if estimate.equivalent():
        return None
    room = math.log1p(EQUIVALENCE_MARGIN) - abs(estimate.mean)
    if room <= 0 or estimate.error is None:
        return math.inf
    ends = estimate.interval(0.9)
    assert ends is not None
    reach = math.log(ends[1]) - estimate.mean if math.isfinite(ends[1]) else math.inf
    return len(ratios) * ((reach / room) ** 2 - 1)
