"""Plays a gate: pair after pair, in the order that decides most, each on disk before the next begins."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from msgspec import Struct, structs

from archbench.comparison.gate.books import CellLog, GateBooks, GateSpec, Stage, StoredPair
from archbench.comparison.gate.noise import Threshold
from archbench.comparison.gate.schedule import Move, moves, outlook
from archbench.comparison.gate.sides import SideRun
from archbench.model.cell import Cell, Group, is_user_code
from archbench.model.empty_record import RunContext
from archbench.model.environment import Environment
from archbench.model.errors import UnfitError
from archbench.model.messages import Task, TurnTask
from archbench.model.pair import Pair
from archbench.model.protocol import Protocol
from archbench.stats.twostage import CONFIRM_PAIRS, SCREEN_PAIRS
from archbench.worker.client import WorkerClient
from archbench.worker.interleaved import start_afresh
from archbench.worker.turns import take_turns

ORDERS = 32
"""Seeded orders of the cells, one a round of pairs; more rounds than any gate has."""
LEARNING_PAIRS = CONFIRM_PAIRS
"""Screening pairs of each cell where the spread itself is the question."""
_ROUND_OF: dict[Stage, int] = {"screen": 0, "confirm": 100}


class Played(Struct, frozen=True, kw_only=True):
    """What is told after each pair."""

    move: Move
    pair: Pair
    pairs_done: int
    pairs_left: int
    """At the least: cells that are still to be flagged will need more."""
    cells_open: int
    seconds_left: float


Tell = Callable[[Played], None]


class GatePlay:
    """A gate while it is played. `logs` holds the pairs so far, in the order of the cells given."""

    def __init__(
        self,
        spec: GateSpec,
        books: GateBooks,
        cells: Sequence[Cell],
        thresholds: Mapping[str, Threshold],
        protocol: Protocol,
    ) -> None:
        self._spec = spec
        self._books = books
        self._cells = {cell.cell_id: cell for cell in cells}
        self._protocol = protocol
        self._places = _places(list(self._cells), spec.seed)
        self.thresholds = thresholds
        self.logs = books.logs(cells)

    def moves(self, *, settle: bool = False) -> list[Move]:
        """What is still worth playing, the most deciding first."""
        wanted = LEARNING_PAIRS if self._spec.learning else SCREEN_PAIRS
        return moves(self.logs, self.thresholds, self._places, screen_pairs=wanted, settle=settle)

    def play(
        self, workers: Sequence[WorkerClient], sides: Sequence[SideRun], *, max_time_s: float | None, tell: Tell
    ) -> None:
        """Play until nothing is left to decide or the time is up; a pair that would not fit in is not begun.

        Raises `UnfitError` where a worker does not start, where the sides' workers see other hardware, or where user
        code does not come from the side's own tree.
        """
        began = time.monotonic()
        seen: set[str] | None = None
        while True:
            left = None if max_time_s is None else max_time_s - (time.monotonic() - began)
            move = self._next(left)
            if move is None:
                return
            log = self.logs[move.cell_id]
            pair_began = time.monotonic()
            if seen is None or move.cell_id in seen:
                # No two pairs of a cell from the same workers: see `start_afresh`. Cells may share them.
                environments, seen = [ready.environment for ready in start_afresh(workers)], set()
                _refuse_unlike(environments)
            seen.add(move.cell_id)
            pair = self._play_one(move, log, workers, environments)
            pair = structs.replace(pair, duration_s=time.monotonic() - pair_began)
            number = log.next_number(move.stage)
            self._books.append(StoredPair(cell_id=move.cell_id, stage=move.stage, number=number, pair=pair))
            log.add(move.stage, pair, number)
            _refuse_foreign_code(log.cell, pair, sides)
            tell(self._told(move, pair))

    def _next(self, left_s: float | None) -> Move | None:
        for move in self.moves(settle=left_s is not None):
            if left_s is None or self._cost_s(move.cell_id) <= left_s:
                return move
        return None

    def _cost_s(self, cell_id: str) -> float:
        """Seconds that a pair of this cell will take: what it took before, else what pairs of others took."""
        known = self.logs[cell_id].pair_s
        if known is not None:
            return known
        others = [seconds for log in self.logs.values() if (seconds := log.pair_s) is not None]
        return sum(others) / len(others) if others else 0.0

    def _play_one(
        self, move: Move, log: CellLog, workers: Sequence[WorkerClient], environments: Sequence[Environment]
    ) -> Pair:
        number = log.next_number(move.stage)
        survey = not log.surveyed
        requests = [
            TurnTask(
                task=Task(
                    group=Group(cells=(log.cell,)),
                    context=RunContext(
                        run_id=self._books.path.resolve().name,
                        round=_ROUND_OF[move.stage] + number,
                        environment=environment,
                    ),
                    protocol=self._protocol,
                    metrics=("static", "memory") if survey else (),
                    percentiles=(),
                    seed=self._spec.seed,
                    allow_code=self._spec.allow_code,
                ),
                survey=survey,
            )
            for environment in environments
        ]
        rng = random.Random(f"{self._spec.seed}-{move.cell_id}-{move.stage}-{number}")
        return take_turns(
            workers, requests, turns=self._spec.turns, block_s=self._spec.turn_s, rng=rng, frozen=log.frozen
        )

    def _told(self, move: Move, pair: Pair) -> Played:
        wanted = LEARNING_PAIRS if self._spec.learning else SCREEN_PAIRS
        left = outlook(self.logs, self.thresholds, screen_pairs=wanted)
        return Played(
            move=move,
            pair=pair,
            pairs_done=sum(len(log.everything) for log in self.logs.values()),
            pairs_left=sum(left.values()),
            cells_open=len(left),
            seconds_left=sum(pairs * self._cost_s(cell_id) for cell_id, pairs in left.items()),
        )


def _places(cell_ids: Sequence[str], seed: int) -> dict[str, list[int]]:
    """Each cell's place in each of the seeded orders; they depend on the cells and the seed alone."""
    places: dict[str, list[int]] = {cell_id: [] for cell_id in cell_ids}
    for number in range(ORDERS):
        order = sorted(cell_ids)
        random.Random(f"{seed}-{number}").shuffle(order)
        for place, cell_id in enumerate(order):
            places[cell_id].append(place)
    return places


def _refuse_unlike(environments: Sequence[Environment]) -> None:
    classes = list(dict.fromkeys(environment.hardware_class for environment in environments))
    if len(classes) > 1:
        raise UnfitError(
            f"the base's worker sees {classes[0]!r}, the head's {classes[1]!r}: both sides need the same device and "
            "the same number of threads"
        )


def _refuse_foreign_code(cell: Cell, pair: Pair, sides: Sequence[SideRun]) -> None:
    """A user's network must come from the side's own checkout, or both sides would be the same code."""
    if not is_user_code(cell.network.name):
        return
    module = cell.network.name.partition(":")[0]
    for side, origin in zip(sides, pair.origins, strict=True):
        if side.tree is not None and origin is not None and not from_tree(origin, side):
            raise UnfitError(
                f"{module} was imported from {origin}, not from the revision's checkout: is the package at the top of "
                "the repository, or under src/?"
            )


def from_tree(origin: str, side: SideRun) -> bool:
    """Whether a file lies in the side's checkout."""
    return side.tree is not None and Path(origin).resolve().is_relative_to(side.tree.resolve())
