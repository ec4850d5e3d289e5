"""Whether the usual advice holds on this machine: a rule over a ranking, with the reason in one word."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from msgspec import Struct

from archbench.choose.exclusion import LeftOut
from archbench.choose.pick import Choice, Ranking

Holds = Literal["holds", "holds in part", "does not hold", "cannot be judged"]
Reason = Literal[
    "first", "tie", "some fail", "close", "behind", "none satisfies", "not measurable", "none measured", "no rival",
]  # fmt: skip
IN_PART_WITHIN = 1.25
"""An advised network that is behind the best by no more than a quarter still does the job: the advice holds in part.
Neighbouring depths of one family (ResNet-50 and 101) differ by more, and so do the networks that tutorials choose from.
"""


class Advised(Struct, frozen=True, kw_only=True):
    """One network that the usual advice names."""

    name: str
    choice: Choice | None = None
    """Its place in the ranking."""
    left_out: LeftOut | None = None
    """Why it has none, though it was measured; neither is set where it was not measured under these circumstances."""

    @property
    def measured(self) -> bool:
        """Whether there is anything to judge it by."""
        return self.choice is not None or (self.left_out is not None and not self.left_out.elsewhere)


class Opinion(Struct, frozen=True, kw_only=True):
    """What has become of the advice."""

    holds: Holds
    reason: Reason


def advised_in(ranking: Ranking, names: Sequence[str]) -> tuple[Advised, ...]:
    """Each name's place in a ranking or why it has none. Of several variants of a network, the best one."""
    out = {one.cell_id.partition("@")[0].partition("[")[0]: one for one in reversed(ranking.left_out)}
    found = []
    for name in names:
        choice = next((one for one in ranking.choices if one.architecture == name), None)
        found.append(Advised(name=name, choice=choice, left_out=None if choice else out.get(name)))
    return tuple(found)


def opinion(ranking: Ranking, advised: Sequence[Advised]) -> Opinion:
    """Judge the advice by a ranking.

    It holds where an advised network comes first or ties with the first, and every advised one that was measured
    satisfies the conditions; in part where others of them do not, or where the best of them is behind by at most
    `IN_PART_WITHIN`; it does not where none satisfies the conditions, or the best is further behind. It cannot be
    judged where none of them was measured, or nothing else was.
    """
    measured = [one for one in advised if one.measured]
    placed = [one.choice for one in measured if one.choice is not None]
    if not measured:
        return Opinion(holds="cannot be judged", reason="none measured")
    looked_at = {one.network for one in ranking.choices} | {o.network for o in ranking.left_out if not o.elsewhere}
    if len(looked_at) < 2:
        return Opinion(holds="cannot be judged", reason="no rival")
    if not placed:
        return Opinion(holds="does not hold", reason="none satisfies")
    best = min(placed, key=lambda one: (one.rank, one.behind.ratio if one.behind else 1.0))
    if best.rank == 1:
        if len(placed) < len(measured):
            return Opinion(holds="holds in part", reason="some fail")
        return Opinion(holds="holds", reason="tie" if best.behind else "first")
    if best.behind is not None and best.behind.ratio <= IN_PART_WITHIN:
        return Opinion(holds="holds in part", reason="close")
    return Opinion(holds="does not hold", reason="behind")
