"""Plays pairs of fresh processes, in the order that decides most, each on disk before the next begins.

So a killed gate or duel resumes. What is worth playing is for these to say; all else they have in common.
"""

from __future__ import annotations

import logging
import math
import random
import time
import typing
from abc import ABC, abstractmethod
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

import msgspec
from msgspec import Struct, structs

from archbench.comparison.schedule import NextPair, PairLog, Stage
from archbench.comparison.sides import SideRun
from archbench.model.cell import Cell, Group, file_stem, is_user_code
from archbench.model.comparison import PairDone, ProcessPair
from archbench.model.environment import Environment
from archbench.model.errors import UnfitError, UsageError
from archbench.model.messages import Task, TurnTask
from archbench.model.protocol import Protocol
from archbench.model.record import RunContext
from archbench.results.files import alike, begin, read_struct
from archbench.results.journal import Journal, schema_of
from archbench.worker.client import WorkerClient
from archbench.worker.turns import start_afresh, take_turns

log = logging.getLogger(__name__)

_ROUND_OF: dict[Stage, int] = {"screen": 0, "confirm": 100}


class StoredPair(Struct, frozen=True, kw_only=True):
    """One pair of one cell, screening or confirming it."""

    cell_id: str
    """`PairLog.key`."""
    stage: Stage
    number: int
    pair: ProcessPair


class _Row(Struct, frozen=True, kw_only=True):
    """The same on disk: whole processes are text there, or there would be a column for each of theirs."""

    cell_id: str
    stage: Stage
    number: int
    pair: str
    """JSON."""


_KEY = ("cell_id", "stage", "number")


class Spec(typing.Protocol):
    """What a directory of pairs is about: a struct, stored as JSON under the name `MARKER`."""

    MARKER: ClassVar[str]

    @property
    def identity(self) -> str:
        """Equal for two that may be continued by each other."""
        ...


S = TypeVar("S", bound=Spec)


class PairStore(Generic[S]):
    """One directory of pairs. One writer at a time, who holds its lock.

    <directory>/
        gate.json, duel.json   what it is about; written last, so a directory that has it is one
        pairs/                 the journal: one file a pair, every process's row and the times of every turn
        pairs.parquet          pairs folded in from the journal, which `merge` then empties
    """

    def __init__(self, path: Path, kind: type[S]) -> None:
        self.path = path
        self._kind = kind
        self._pairs = Journal(path / "pairs", path / "pairs.parquet", schema_of(_Row), order=_KEY, key=_KEY)

    @classmethod
    def create(cls, path: Path, spec: S, **texts: str) -> PairStore[S]:
        """Begin in an empty or new directory, with the files `NAME.yaml`. Raises `UsageError` where that cannot be."""
        files = {f"{name}.yaml": text.encode() for name, text in texts.items()}
        begin(path, spec.MARKER, files, spec, folders=["pairs"], what=f"a {Path(spec.MARKER).stem}")
        return cls(path, type(spec))

    def holds(self) -> bool:
        """Whether the directory is one of this kind."""
        return (self.path / self._kind.MARKER).exists()

    def spec(self) -> S:
        """What it is about. Raises `UsageError` where that is missing or of another version."""
        return read_struct(self.path / self._kind.MARKER, self._kind)

    def append(self, stored: StoredPair) -> None:
        """Store a finished pair; on return it survives a kill and a power cut. Raises `UnfitError` on a full disk."""
        name = f"{file_stem(stored.cell_id)}-{stored.stage}-{stored.number:02d}.parquet"
        told = structs.asdict(stored) | {"pair": msgspec.json.encode(stored.pair).decode()}
        self._pairs.add(name, [_Row(**told)])

    def merge(self) -> None:
        """Fold all pairs into `pairs.parquet`. Raises `UnfitError` where the disk is full; nothing is lost then."""
        self._pairs.fold()

    def fill(self, logs: Iterable[PairLog]) -> dict[str, PairLog]:
        """The logs by key, with every pair so far; a damaged file is named in a warning, its pair is played again."""
        known = {log.key: log for log in logs}
        for stored in sorted(self.stored(), key=lambda one: (one.stage, one.number)):
            if stored.cell_id in known:
                known[stored.cell_id].add(stored.stage, stored.pair, stored.number)
        return known

    def stored(self) -> Iterator[StoredPair]:
        """Every pair that can be read; what cannot is named in a warning."""
        for row in self._pairs.read().to_pylist():
            try:
                yield msgspec.convert(row | {"pair": msgspec.json.decode(row["pair"])}, StoredPair)
            except msgspec.MsgspecError as error:
                place = f"{row['cell_id']} ({row['stage']} {row['number']})"
                log.warning("%s: %s cannot be read (%s); the pair is played again", self.path, place, error)
        for file in sorted(self._pairs.folder.glob("*.json")):  # as they were before there was a journal of them
            try:
                yield read_struct(file, StoredPair)
            except UsageError as error:
                log.warning("%s; its pair is played again", error)


def find_stores(root: Path, spec: S) -> Iterator[PairStore[S]]:
    """The directories in `root` that the same command began, the latest first."""
    kind = type(spec)
    for path in alike(root, spec.MARKER, lambda path: PairStore(path, kind).spec().identity == spec.identity):
        yield PairStore(path, kind)


class Interleave(ABC):
    """A gate or a duel while it is played. `logs` holds the pairs so far."""

    def __init__(
        self, store: PairStore[Any], logs: Mapping[str, PairLog], protocol: Protocol, *, seed: int, allow_code: bool
    ) -> None:
        self.store = store
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
        ends = math.inf if max_time_s is None else time.monotonic() + max_time_s
        seen: set[str] | None = None
        while True:
            left_s = ends - time.monotonic()
            moves = self.next_pairs(settle=max_time_s is not None)
            move = next((one for one in moves if self._cost_s(one.cell_id) <= left_s), None)
            if move is None:
                return
            begun, log = time.monotonic(), self.logs[move.cell_id]
            if seen is None or move.cell_id in seen:
                # No two pairs of a cell from the same workers: see `start_afresh`. Cells may share them.
                environments, seen = [ready.environment for ready in start_afresh(workers)], set()
                _refuse_unlike(environments)
            seen.add(move.cell_id)
            number = log.next_number(move.stage)
            pair = self._play_one(move, number, log, workers, environments)
            pair = structs.replace(pair, duration_s=time.monotonic() - begun)
            self.store.append(StoredPair(cell_id=move.cell_id, stage=move.stage, number=number, pair=pair))
            log.add(move.stage, pair, number)
            _refuse_foreign_code(log.cell, pair, sides)
            left = self.outlook()
            yield PairDone(
                cell_id=log.cells[-1].cell_id,
                pair=pair,
                pairs_done=self.pairs_done,
                pairs_left=sum(left.values()),
                cells_open=len(left),
                seconds_left=sum(pairs * self._cost_s(key) for key, pairs in left.items()),
            )

    def _cost_s(self, key: str) -> float:
        """Seconds that a pair of this log will take: what it took before, else what pairs of others took."""
        known = self.logs[key].pair_s
        if known is not None:
            return known
        others = [seconds for log in self.logs.values() if (seconds := log.pair_s) is not None]
        return sum(others) / len(others) if others else 0.0

    def _play_one(
        self,
        move: NextPair,
        number: int,
        log: PairLog,
        workers: Sequence[WorkerClient],
        environments: Sequence[Environment],
    ) -> ProcessPair:
        """The first pair of a gate's cell finds out what is counted, too; a duel compares no counts."""
        one_cell = len(log.cells) == 1
        survey = not log.surveyed if one_cell else log.frozen is None
        requests = [
            TurnTask(
                task=Task(
                    group=Group(cells=(cell,)),
                    context=RunContext(
                        run_id=self.store.path.resolve().name,
                        round=_ROUND_OF[move.stage] + number,
                        environment=environment,
                    ),
                    protocol=self._protocol,
                    metrics=("static", "memory") if survey and one_cell else (),
                    percentiles=(),
                    seed=self._seed,
                    allow_code=self._allow_code,
                ),
                survey=survey,
            )
            for cell, environment in zip(log.cells * len(workers) if one_cell else log.cells, environments, strict=True)
        ]
        return take_turns(
            workers,
            requests,
            turns=self._protocol.turns,
            block_s=self._protocol.turn_s,
            rng=random.Random(f"{self._seed}-{move.cell_id}-{move.stage}-{number}"),
            frozen=log.frozen,
            alike=one_cell,
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
