"""Pairs of processes on disk, every finished one at once, so that a killed gate or duel resumes."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import ClassVar, Generic, Literal, Protocol, TypeVar

import msgspec
from msgspec import Struct, structs

from archbench.model.cell import Cell, file_stem
from archbench.model.comparison import Frozen, ProcessPair
from archbench.model.errors import UsageError
from archbench.model.record import Record
from archbench.results.directories import alike, begin
from archbench.results.files import read_struct
from archbench.results.journal import Journal
from archbench.results.schema import schema_of

log = logging.getLogger(__name__)

Stage = Literal["screen", "confirm"]
MOST_WASTED = 2
"""One failed or unfit pair is an accident; with this many, it is asked whether the next would be any better."""


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


class PairLog:
    """The pairs of one cell so far, or of the cells of a duel."""

    def __init__(self, *cells: Cell) -> None:
        self.cells = cells
        self.cell = cells[0]
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


class Spec(Protocol):
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
