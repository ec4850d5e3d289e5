"""Plays pairs of fresh processes, in the order that decides most, each on disk before the next begins.

What is worth playing is for a gate or a duel to say; all else they have in common.
"""

from __future__ import annotations

import random
import time
from abc import ABC, abstractmethod
from collections.abc import Generator, Mapping, Sequence
from pathlib import Path
from typing import Any

from msgspec import structs

from archbench.comparison.pair_store import PairLog, PairStore, Stage, StoredPair
from archbench.comparison.schedule import NextPair
from archbench.comparison.sides import SideRun
from archbench.model.axes import Metric
from archbench.model.cell import Cell, Group, is_user_code
from archbench.model.comparison import PairDone, ProcessPair
from archbench.model.environment import Environment
from archbench.model.errors import UnfitError
from archbench.model.messages import Task, TurnTask
from archbench.model.protocol import Protocol
from archbench.model.record import RunContext
from archbench.worker.client import WorkerClient
from archbench.worker.turns import start_afresh, take_turns

_ROUND_OF: dict[Stage, int] = {"screen": 0, "confirm": 100}


class Interleave(ABC):
    """A gate or a duel while it is played. `logs` holds the pairs so far.

    `counted`: what the first pair of a log has to find out besides times; `alike`: all processes run one cell.
    """

    counted: tuple[Metric, ...] = ()
    alike = True

    def __init__(
        self, store: PairStore[Any], logs: Mapping[str, PairLog], protocol: Protocol, *, seed: int, allow_code: bool
    ) -> None:
        self._store = store
        self._protocol = protocol
        self._seed = seed
        self._allow_code = allow_code
        self.logs = logs

    @abstractmethod
    def next_pairs(self, *, settle: bool = False) -> Sequence[NextPair]:
        """What is still worth playing, the most deciding first. `settle`: time was given to be used up."""

    @abstractmethod
    def outlook(self) -> Mapping[str, int]:
        """Pairs that each log will still need; those that need none are left out."""

    @property
    def pairs_done(self) -> int:
        """Pairs so far, whatever became of them."""
        return sum(len(log.everything) for log in self.logs.values())

    def play(
        self, workers: Sequence[WorkerClient], sides: Sequence[SideRun] = (), *, max_time_s: float | None
    ) -> Generator[PairDone, None, None]:
        """Play until nothing is left to decide or the time is up; a pair that would not fit in is not begun.

        Each pair is stored before it is told of. Raises `UnfitError` where a worker does not start, where the workers
        see different hardware, or where user code does not come from its side's own tree.
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
            self._store.append(StoredPair(cell_id=move.cell_id, stage=move.stage, number=number, pair=pair))
            log.add(move.stage, pair, number)
            _refuse_foreign_code(log.cell, pair, sides)
            yield self._told(log, pair)

    def _next(self, left_s: float | None) -> NextPair | None:
        for move in self.next_pairs(settle=left_s is not None):
            if left_s is None or self._cost_s(move.cell_id) <= left_s:
                return move
        return None

    def _cost_s(self, key: str) -> float:
        """Seconds that a pair of this log will take: what it took before, else what pairs of others took."""
        known = self.logs[key].pair_s
        if known is not None:
            return known
        others = [seconds for log in self.logs.values() if (seconds := log.pair_s) is not None]
        return sum(others) / len(others) if others else 0.0

    def _play_one(
        self, move: NextPair, log: PairLog, workers: Sequence[WorkerClient], environments: Sequence[Environment]
    ) -> ProcessPair:
        number = log.next_number(move.stage)
        survey = not log.surveyed if self.counted else log.frozen is None
        cells = log.cells if len(log.cells) > 1 else log.cells * len(workers)
        requests = [
            TurnTask(
                task=Task(
                    group=Group(cells=(cell,)),
                    context=RunContext(
                        run_id=self._store.path.resolve().name,
                        round=_ROUND_OF[move.stage] + number,
                        environment=environment,
                    ),
                    protocol=self._protocol,
                    metrics=self.counted if survey else (),
                    percentiles=(),
                    seed=self._seed,
                    allow_code=self._allow_code,
                ),
                survey=survey,
            )
            for cell, environment in zip(cells, environments, strict=True)
        ]
        return take_turns(
            workers,
            requests,
            turns=self._protocol.turns,
            block_s=self._protocol.turn_s,
            rng=random.Random(f"{self._seed}-{move.cell_id}-{move.stage}-{number}"),
            frozen=log.frozen,
            alike=self.alike,
        )

    def _told(self, log: PairLog, pair: ProcessPair) -> PairDone:
        left = self.outlook()
        return PairDone(
            cell_id=log.cells[-1].cell_id,
            pair=pair,
            pairs_done=self.pairs_done,
            pairs_left=sum(left.values()),
            cells_open=len(left),
            seconds_left=sum(pairs * self._cost_s(key) for key, pairs in left.items()),
        )


def _refuse_unlike(environments: Sequence[Environment]) -> None:
    """Raise `UnfitError` where a pair would not be played on one device: two of one class differ by some percent."""
    for what in ("hardware_class", "machine"):
        seen = list(dict.fromkeys(getattr(environment, what) for environment in environments))
        if len(seen) > 1:
            raise UnfitError(
                f"the base's worker sees {seen[0]!r}, the head's {seen[1]!r}: both sides need the same device and "
                "the same number of threads"
            )


def _refuse_foreign_code(cell: Cell, pair: ProcessPair, sides: Sequence[SideRun]) -> None:
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
