"""A gate on disk: what it is about, and every finished pair in a file of its own, so that a killed gate resumes.

results/gate/<suite>/<id>/
    gate.json          what is compared, with what care; written last, so a directory that has it is a gate
    suite.yaml         the suite as given
    pairs/             one file a pair: both rows and the times of every turn
    comparison.json, report.md   what they say together
    worker-*.log       what workers and networks printed
"""

from __future__ import annotations

import hashlib
import itertools
import logging
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import msgspec
from msgspec import Struct

from archbench.comparison.gate.sides import SideSpec
from archbench.model.cell import Cell, file_stem
from archbench.model.environment import Environment
from archbench.model.errors import UnfitError, UsageError
from archbench.model.pair import Frozen, Pair
from archbench.model.record import Record
from archbench.results.files import sync_directory, write_bytes

log = logging.getLogger(__name__)

Stage = Literal["screen", "confirm"]
GATES = Path("results") / "gate"
_GATE = "gate.json"
MOST_WASTED = 2
"""One failed or unfit pair is an accident; with this many, it is asked whether the next would be any better."""


class GateSpec(Struct, frozen=True, kw_only=True):
    """All that decides what a gate measures: gates that share it may be continued by each other."""

    suite: str
    suite_hash: str
    cells: tuple[str, ...]
    device: str
    base: SideSpec
    head: SideSpec
    base_environment: Environment
    head_environment: Environment
    turns: int
    turn_s: float
    seed: int
    learning: bool = False
    """`--aa`: base against itself."""
    allow_code: bool = False

    @property
    def identity(self) -> str:
        """Equal for gates that may be continued by each other."""
        parts = (
            *(self.suite_hash, self.device, *self.cells, self.turns, self.turn_s, self.seed, self.learning),
            *(self.base.identity, self.head.identity),
            *(self.base_environment.fingerprint, self.head_environment.fingerprint),
        )
        return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]

    @property
    def subject(self) -> str:
        """Equal for gates whose bases' pairs may stand together: one code, one set of libraries, the same turns."""
        parts = (self.base.identity, self.base_environment.fingerprint, self.turns, self.turn_s)
        return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]


class StoredPair(Struct, frozen=True, kw_only=True):
    """One pair of one cell, screening or confirming it."""

    cell_id: str
    stage: Stage
    number: int
    pair: Pair


class CellLog:
    """The pairs of one cell so far."""

    def __init__(self, cell: Cell) -> None:
        self.cell = cell
        self.pairs: dict[Stage, list[Pair]] = {"screen": [], "confirm": []}
        self._taken: dict[Stage, set[int]] = {"screen": set(), "confirm": set()}

    def add(self, stage: Stage, pair: Pair, number: int | None = None) -> None:
        """Add a finished pair, under the next free number unless it has one."""
        self._taken[stage].add(self.next_number(stage) if number is None else number)
        self.pairs[stage].append(pair)

    def next_number(self, stage: Stage) -> int:
        """The smallest that no pair has: that of a damaged file first, so that no whole one is written over."""
        return next(number for number in itertools.count() if number not in self._taken[stage])

    @property
    def everything(self) -> list[Pair]:
        """All pairs, in the order of their stages."""
        return [*self.pairs["screen"], *self.pairs["confirm"]]

    def ratios(self, stage: Stage) -> list[float]:
        """log(head / base) of the pairs that are fit to be used, in order."""
        return [ratio for pair in self.pairs[stage] if fit(pair) and (ratio := pair.log_ratio()) is not None]

    @property
    def wasted(self) -> int:
        """Pairs that failed or were unfit."""
        return sum(not fit(pair) for pair in self.everything)

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


def fit(pair: Pair) -> bool:
    """Whether a pair's times may enter a test: both ended well, neither was throttled or shared, a turn was kept."""
    return not pair.failed and pair.log_ratio() is not None and all(row.verdict != "invalid" for row in pair.rows)


class GateBooks:
    """One gate's directory. One writer at a time, who holds its lock."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def create(cls, path: Path, spec: GateSpec, suite_text: str) -> GateBooks:
        """Begin a gate in an empty or new directory. Raises `UsageError` where that cannot be."""
        try:
            path.mkdir(parents=True, exist_ok=True)
            foreign = sorted(entry.name for entry in path.iterdir() if not _may_precede_a_gate(entry.name))
            if foreign:
                raise UsageError(f"{path}: is not empty (it holds {foreign[0]!r}); give another directory with --out")
            (path / "pairs").mkdir(exist_ok=True)
        except OSError as error:
            raise UsageError(f"cannot store a gate in {path}: {error.strerror}; give another with --out") from error
        write_bytes(path / "suite.yaml", suite_text.encode())
        write_bytes(path / _GATE, msgspec.json.format(msgspec.json.encode(spec), indent=2) + b"\n")
        sync_directory(path.parent)
        return cls(path)

    @staticmethod
    def holds(path: Path) -> bool:
        """Whether a directory is a gate."""
        return (path / _GATE).exists()

    def spec(self) -> GateSpec:
        """What the gate is about. Raises `UsageError` where that is missing or of another version."""
        try:
            return msgspec.json.decode((self.path / _GATE).read_bytes(), type=GateSpec)
        except FileNotFoundError:
            raise UsageError(f"{self.path}: has no {_GATE}, so it is not a gate") from None
        except msgspec.MsgspecError as error:
            raise UsageError(f"{self.path / _GATE}: cannot be read by this version of archbench: {error}") from error

    def append(self, stored: StoredPair) -> None:
        """Store a finished pair; on return it survives a kill and a power cut. Raises `UnfitError` on a full disk."""
        stem = file_stem(stored.cell_id)
        write_bytes(
            self.path / "pairs" / f"{stem}-{stored.stage}-{stored.number:02d}.json", msgspec.json.encode(stored)
        )

    def logs(self, cells: Iterable[Cell]) -> dict[str, CellLog]:
        """Every cell's pairs so far; a damaged file is named in a warning, and its pair is played again."""
        logs = {cell.cell_id: CellLog(cell) for cell in cells}
        for file in sorted((self.path / "pairs").glob("*.json")):
            try:
                stored = msgspec.json.decode(file.read_bytes(), type=StoredPair)
            except msgspec.MsgspecError as error:
                log.warning("%s is damaged (%s); its pair is played again", file, error)
                continue
            if stored.cell_id in logs:
                logs[stored.cell_id].add(stored.stage, stored.pair, stored.number)
        return logs


def find_gates(root: Path, spec: GateSpec) -> Iterable[Path]:
    """The gates under `root`/<suite>/ that the same command began, the latest first."""
    for marker in sorted((root / spec.suite).glob(f"*/{_GATE}"), reverse=True):
        try:
            if GateBooks(marker.parent).spec().identity == spec.identity:
                yield marker.parent
        except UsageError:
            continue  # of another version


def new_gate_id(spec: GateSpec) -> str:
    """A name that sorts by time and ends in the gate's identity."""
    return f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{spec.identity[:8]}"


def refuse_other(path: Path, spec: GateSpec) -> None:
    """Raise `UsageError` where a directory's gate is about something else, `UnfitError` where of another machine."""
    theirs = GateBooks(path).spec()
    if theirs.identity == spec.identity:
        return
    for name in ("suite", "suite_hash", "device", "learning", "turns", "turn_s", "cells"):
        if getattr(theirs, name) != getattr(spec, name):
            raise UsageError(f"{path} holds a gate with another {name.replace('_', ' ')}; give another --out")
    for name, before, now in (("base", theirs.base, spec.base), ("head", theirs.head, spec.head)):
        if before.identity != now.identity:
            raise UsageError(
                f"{path} holds a gate whose {name} is {before.label} ({before.identity[:12]}), not {now.label} "
                f"({now.identity[:12]}); give another --out"
            )
    raise UnfitError(f"{path} holds a gate of another machine or other libraries; give another --out")


def _may_precede_a_gate(name: str) -> bool:
    return name.startswith(".") or name.endswith(".lock") or name in {"pairs", "suite.yaml", "trees"}
