"""What to measure next where time is short: pure rules over what visits cost, and what they could still decide.

First one cell of every network, at the point that the suite asks for of most networks, so that all of them can be
ranked; then whatever could change most answers in the time that it takes. What does not fit into the time that is left
is passed over; of what is left at the end one can say what it would have cost.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator

from msgspec import Struct
from msgspec.structs import replace

from archbench.model.axes import TIMED
from archbench.model.cell import Cell, Group, Network, Plan
from archbench.model.errors import UsageError
from archbench.model.record import Record
from archbench.model.suite import Suite
from archbench.suite.duration import Prediction
from archbench.suite.plan import CellVisit

PRIOR_S = 15.0
"""Seconds of a run after which what its cells took weighs as much as what was predicted of them."""
PROCESS_S = 1.0
"""A process for cells that were predicted to share one with others."""
SAFETY = 1.1
"""A piece is begun only where this much more than it is likely to take is left: a budget must not be overrun."""
LATE = 0.02
"""Share of a budget by which the measuring may pass its time: a cell that is not done by then is given up, and gets no
row."""

Worth = Callable[[int, Cell], float]
"""How many answers a visit (round, cell) could still change; 0 where the cell's place is clear."""


class Piece(Struct, frozen=True, kw_only=True):
    """What one process is to measure next."""

    round: int
    group: Group
    seconds: float
    """That it will take, by the prediction and by how the run has gone so far."""


class Spending:
    """A budget of `seconds` from the command to its report, and what of a plan it is spent on."""

    def __init__(self, left: Plan, prediction: Prediction, seconds: float) -> None:
        """Raises `UsageError` where the time is too short for any cell."""
        self._ends_s = seconds - prediction.phases["report"]
        self.until_s = self._ends_s + LATE * seconds
        """When whatever is still being measured is given up."""
        self._prediction = prediction
        self._left = {
            (number, group.visit, group.group_id): group
            for number, groups in enumerate(left.rounds)
            for group in groups
        }
        self._first = {cell.cell_id for cell in asked_first(left)}
        self._begun: dict[CellVisit, tuple[Cell, float]] = {}
        self._took = self._expected = PRIOR_S
        if self._left and self._best(self._ends_s / SAFETY, lambda _, cell: 0.0) is None:
            shortest = min(self._piece(key[0], group, group.cells[:1]).seconds for key, group in self._left.items())
            least = shortest * SAFETY + prediction.phases["report"]
            raise UsageError(
                f"--budget: not one cell fits into {seconds:.0f} s; the shortest takes about {math.ceil(least):.0f} s "
                "with its report"
            )

    def note(self, record: Record) -> None:
        """A row more: how long its cell took corrects what is expected of the others."""
        visit = record.cell_id, record.round, record.visit
        self._begun.pop(visit, None)
        expected = self._prediction.visits.get(visit)
        if expected is not None and record.duration_s is not None:
            self._took += record.duration_s
            self._expected += expected

    def next(self, spent_s: float, worth: Worth) -> Piece | None:
        """What to measure when this much of the time has been spent; `None` where nothing that is left fits."""
        room = (self._ends_s - spent_s) / SAFETY
        piece = self._one_of_each(room) or self._best(room, worth)
        if piece is not None:
            self._take(piece)
        return piece

    @property
    def left_out(self) -> tuple[int, float]:
        """Visits that were not made, and the seconds that they would take."""
        left = [
            self._cell_s(number, group.visit, cell)
            for (number, _, _), group in self._left.items()
            for cell in group.cells
        ]
        left += [seconds for _, seconds in self._begun.values()]
        return len(left), sum(left)

    @property
    def given_up(self) -> Cell | None:
        """What was being measured when the time was up."""
        return next((cell for cell, _ in self._begun.values()), None)

    def _one_of_each(self, room: float) -> Piece | None:
        """The next network's first cell, in the plan's order; where not all fit, of those that do the most."""
        pieces = [
            self._piece(number, group, [cell])
            for (number, visit, _), group in self._left.items()
            for cell in group.cells
            if number == visit == 0 and cell.cell_id in self._first
        ]
        spent, fitting = 0.0, []
        for piece in sorted(pieces, key=lambda one: one.seconds):
            spent += piece.seconds
            if spent <= room:
                fitting.append(piece)
        return next((piece for piece in pieces if piece in fitting), None)

    def _best(self, room: float, worth: Worth) -> Piece | None:
        """What decides most in the time that it takes; what decides nothing comes last, the cheapest first."""
        best, most = None, -1.0
        soonest = self._soonest()
        for (number, _, _), group in self._left.items():
            worths = {cell: worth(number, cell) for cell in group.cells if soonest[cell.cell_id] == number}
            cells = [cell for cell in worths if worths[cell] > 0] or list(worths)
            while cells and (piece := self._piece(number, group, cells)).seconds > room:
                cells.pop()
            if cells:
                deciding = (1e-6 + sum(worths[cell] for cell in cells)) / piece.seconds
                if deciding > most:
                    best, most = piece, deciding
        return best

    def _soonest(self) -> dict[str, int]:
        """The first round in which each cell is still to be visited: later ones only add to what it gives."""
        rounds: dict[str, int] = {}
        for (number, _, _), group in self._left.items():
            for cell in group.cells:
                rounds[cell.cell_id] = min(number, rounds.get(cell.cell_id, number))
        return rounds

    def _piece(self, number: int, group: Group, cells: Iterable[Cell]) -> Piece:
        part = replace(group, cells=tuple(cells))
        seconds = sum(self._cell_s(number, group.visit, cell) for cell in part.cells)
        if part.cells[0] != group.cells[0]:
            seconds += PROCESS_S
        return Piece(round=number, group=part, seconds=seconds)

    def _cell_s(self, number: int, visit: int, cell: Cell) -> float:
        expected: float = self._prediction.visits[cell.cell_id, number, visit]
        return expected * self._took / self._expected

    def _take(self, piece: Piece) -> None:
        for cell in piece.group.cells:
            seconds = self._cell_s(piece.round, piece.group.visit, cell)
            self._begun[cell.cell_id, piece.round, piece.group.visit] = cell, seconds
        key = piece.round, piece.group.visit, piece.group.group_id
        cells = tuple(cell for cell in self._left[key].cells if cell not in piece.group.cells)
        if cells:
            self._left[key] = replace(self._left[key], cells=cells)
        else:
            del self._left[key]


def asked_first(plan: Plan) -> Iterator[Cell]:
    """One cell of every network: at the point that most of them have, else wherever it has one.

    A point is everything about a cell but its network; of equals the one of the smallest batch and the fewest toggles.
    """
    points: dict[Cell, dict[str, Cell]] = defaultdict(dict)
    for group in plan.rounds[0] if plan.rounds else ():
        for cell in group.cells:
            points[replace(cell, network=Network(name=""))].setdefault(cell.network.label, cell)

    def order(point: Cell) -> tuple[int, int, int]:
        return -len(points[point]), point.batch_size, len(point.toggles.less_one())

    found: dict[str, Cell] = {}
    for point in sorted(points, key=order):
        found = {**points[point], **found}
    yield from found.values()


def refuse_unrankable(suite: Suite) -> None:
    """Raise `UsageError` where no figure of a suite could tell which cell is worth measuring next."""
    if set(TIMED).isdisjoint(suite.metrics):
        raise UsageError(
            f"--budget: suite {suite.suite} times nothing (its metrics are {', '.join(suite.metrics)}), "
            "so that no cell is worth more than another; leave it out"
        )
