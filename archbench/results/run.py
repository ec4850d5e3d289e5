"""One run on disk: every finished cell at once, whatever is killed; the same run found again and continued.

    results/<suite>/<run id>/
        suite.yaml, suite.json   the suite as run: for people and `archbench run`, and for reading back exactly
        protocol.json            the constants of measuring, defaults of that day included
        environment.json         machine and libraries; written last, so a directory that has it is a run
        shard.json               of a shard: which part of the suite it is, and how many rows that has
        merged.json              of merged runs: which they were
        machines.json            where others than that of environment.json had a part: their environments
        sessions.json            of each call that measured, how long it was expected to take, and took
        cells/                   the journal: one file of one row for each cell, round and visit
        samples/                 the raw timings of each of these, under the same name, written before the row
        profile/                 where the metric `profile` is asked for: a table of stages each, as JSON, likewise
        results.parquet          rows folded in from the journal, which `merge` then empties
        samples.parquet          their timings
        summary.parquet, .csv    what the last report printed of each cell, made from the rows
        replaced/                of cells that were measured again, the row that does not count, with its timings

Rows in the journal win over rows in `results.parquet`, so a death anywhere inside `merge` loses and doubles nothing.
Readers never write. Whoever appends or merges holds the run's lock, which is not this room's business.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import TypeVar

import msgspec
import pyarrow as pa

from archbench.model.cell import Shard, file_stem
from archbench.model.environment import Calibration, Environment
from archbench.model.errors import UsageError
from archbench.model.profile import PROFILE_VERSION, StageProfile
from archbench.model.protocol import Protocol, protocol_for
from archbench.model.record import FAILED, VERDICTS, Record, Sample
from archbench.model.suite import Suite
from archbench.model.units import indented_json
from archbench.results.files import (
    alike,
    begin,
    read_struct,
    refuse_occupied,
    run_identity,
    sealed_json,
    write_bytes,
    write_json,
)
from archbench.results.journal import KEY_COLUMNS, RECORDS, SAMPLES, Journal
from archbench.results.rows import JUDGED_BY, drift_limit, judge, sound

log = logging.getLogger(__name__)

RESULTS = "results.parquet"
_ROW_ORDER = ("round", "started_at", "cell_id", "visit")
_SAMPLE_ORDER = ("round", "visit", "cell_id", "experiment", "block")
_ENVIRONMENT = "environment.json"
_SUITE = "suite.json"
_CALIBRATION = "calibration.json"
_SUITE_TEXT = "suite.yaml"
_PROTOCOL = "protocol.json"
_SESSIONS = "sessions.json"
_SHARD = "shard.json"
_MERGED = "merged.json"
_MACHINES = "machines.json"
_FOLDERS = ("cells", "samples")
PROFILES = "profile"

Key = tuple[str, int, int]
_T = TypeVar("_T")
_U = TypeVar("_U")


class Session(msgspec.Struct, frozen=True, kw_only=True):
    """One call that measured for a run, to its report: what was expected of it, and what it took."""

    measurements: int
    """Cells, each as often as it was visited."""
    predicted_s: float
    predicted_from: str
    took_s: float


class _Version(msgspec.Struct):
    """The part of a table of stages that says whether the rest can be read."""

    profile_version: int


class Part(msgspec.Struct, frozen=True, kw_only=True):
    """One of the runs that were merged into another."""

    run_id: str
    shard: Shard | None = None
    rows: int


class RunStore:
    """The rows and raw timings of one run. `create` a new one or `open` one; both check the place."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._rows = Journal(path / "cells", path / RESULTS, RECORDS, order=_ROW_ORDER)
        self._timings = Journal(path / "samples", path / "samples.parquet", SAMPLES, order=_SAMPLE_ORDER)
        self._kept: dict[Key, tuple[Record, list[Sample]]] = {}

    @classmethod
    def create(
        cls, path: Path, suite: Suite, environment: Environment, suite_text: str, shard: Shard | None = None
    ) -> RunStore:
        """Begin a run in `path`, an empty or new directory. `suite_text` is YAML that gives `suite` again.

        Raises `UsageError` where the directory cannot be made or holds something else.
        """
        cls.check(path)
        files = {
            _SUITE_TEXT: suite_text.encode(),
            _SUITE: sealed_json(suite),
            _PROTOCOL: sealed_json(protocol_for(environment.kind, suite.protocol)),
            **({} if shard is None else {_SHARD: sealed_json(shard)}),
        }
        begin(path, _ENVIRONMENT, files, environment, folders=_FOLDERS, what="results")
        return cls(path)

    @staticmethod
    def is_run(path: Path) -> bool:
        """Whether a directory is one that `create` has finished making."""
        return (path / _ENVIRONMENT).exists()

    @staticmethod
    def check(path: Path) -> None:
        """Raise `UsageError` where `create` would; nothing is made."""
        if RunStore.is_run(path):
            suite = RunStore(path).suite.suite
            raise UsageError(f"{path}: already holds a run, of suite {suite!r}; give another directory")
        refuse_occupied(path, _ENVIRONMENT, (_SUITE_TEXT, _SUITE, _PROTOCOL, _SHARD, *_FOLDERS), "results")

    @classmethod
    def open(cls, path: Path) -> RunStore:
        """The run in a directory: finished, running or killed. Its `results.parquet` stands for its directory, too.

        Raises `UsageError` for what is not a run.
        """
        directory = path.parent if path.name == RESULTS and path.is_file() else path
        if not directory.exists():
            raise UsageError(f"{path}: no such file or directory")
        if not directory.is_dir():
            raise UsageError(f"{path}: is a file; name a run's directory or its {RESULTS}")
        if not (directory / _ENVIRONMENT).exists() and not (directory / RESULTS).exists():
            runs = sorted(found.parent for found in directory.glob(f"*/{_ENVIRONMENT}"))
            newest = max(runs, key=lambda run: cls(run).started_at or "", default=None)
            named = f"name one of its {len(runs)} runs, such as {newest}, the newest"
            raise UsageError(f"{path}: is not a run; {named if runs else f'it has no {_ENVIRONMENT}'}")
        return cls(directory)

    @property
    def run_id(self) -> str:
        """The directory's name."""
        return self.path.resolve().name

    @property
    def started_at(self) -> str | None:
        """When its first cell was begun: UTC, ISO 8601; `None` before. Directories are named as anybody likes."""
        begun = self._rows.read((*KEY_COLUMNS, "started_at"))["started_at"].to_pylist()
        return min(filter(None, begun), default=None)

    @cached_property
    def suite(self) -> Suite:
        """The suite as run; its text is read where the exact one is damaged, and that is told in a warning.

        Raises `UsageError` where both are missing, damaged or from another version.
        """
        try:
            return read_struct(self.path / _SUITE, Suite)
        except UsageError as error:
            from archbench.suite import load_suite

            with suppress(UsageError):
                suite = load_suite(self.path / _SUITE_TEXT, allow_code=True)
                log.warning("%s; until then %s is read in its place", error, self.path / _SUITE_TEXT)
                return suite
            raise

    @cached_property
    def environment(self) -> Environment:
        """Where the run happened. Raises `UsageError` where that is missing or from another version."""
        return read_struct(self.path / _ENVIRONMENT, Environment)

    @cached_property
    def protocol(self) -> Protocol:
        """The constants of measuring. Raises `UsageError` where they are missing or from another version."""
        return read_struct(self.path / _PROTOCOL, Protocol)

    @cached_property
    def shard(self) -> Shard | None:
        """The part of the suite that this is; `None`: all of it, or what `--only` left."""
        return self._noted(_SHARD, Shard, None)

    @property
    def parts(self) -> list[Part]:
        """The runs that were merged into this one, by shard; none for one that was measured."""
        return self._noted(_MERGED, list[Part], [])

    def note_parts(self, parts: Sequence[Part]) -> None:
        write_bytes(self.path / _MERGED, indented_json(parts).encode())

    @property
    def machines(self) -> dict[str, Environment]:
        """Each device that measured a row, by its name (`Environment.machine`), the first one first."""
        others = self._noted(_MACHINES, list[Environment], [])
        return {one.machine or one.device: one for one in (self.environment, *others)}

    def note_machines(self, environments: Iterable[Environment]) -> None:
        """Keep the descriptions of devices that have a part in the run."""
        known = self.machines
        new = {name: one for one in environments if (name := one.machine or one.device) not in known}
        if new:
            write_bytes(self.path / _MACHINES, indented_json([*known.values(), *new.values()][1:]).encode())

    @property
    def identity(self) -> str:
        """`run_identity` of what was run. Raises `UsageError` where a part of that is missing."""
        return run_identity(self.suite, self.environment, self.shard, self.protocol)

    def adopt(self, suite: Suite, suite_text: str) -> None:
        """Go on with the run, by a suite that asks for the same rows: what it says and decides may be newer."""
        write_bytes(self.path / _SUITE_TEXT, suite_text.encode())
        write_json(self.path / _SUITE, suite)
        for folder in _FOLDERS:  # empty ones do not travel with git, nor does a user think much of them
            (self.path / folder).mkdir(exist_ok=True)
        self.__dict__.pop("suite", None)

    @property
    def calibration(self) -> Calibration | None:
        """The device's measured ceilings; `None` until a session has measured them."""
        return self._known(_CALIBRATION, Calibration, None)

    def calibrate(self, calibration: Calibration) -> None:
        """Store the device's ceilings; those of the last session stand."""
        write_json(self.path / _CALIBRATION, calibration)

    @property
    def sessions(self) -> list[Session]:
        """The calls that measured for this run and were not interrupted, in their order."""
        return self._known(_SESSIONS, list[Session], [])

    def note_session(self, session: Session) -> None:
        write_bytes(self.path / _SESSIONS, indented_json([*self.sessions, session]).encode())

    def append(self, record: Record, samples: Sequence[Sample] = (), profile: StageProfile | None = None) -> None:
        """Store one finished cell; on return it survives a kill and a power cut. Replaces the same cell, round, visit.

        Of one that is measured again (`measure_again`) the better counts, at a tie the newer, and the other is set
        aside in `replaced/`. Raises `UnfitError` where the disk is full; what was stored before is kept.
        """
        key = _key(record)
        if (earlier := self._kept.pop(key, None)) is not None:
            is_worse = _rank(record) > _rank(earlier[0])
            self._set_aside(*((record, samples) if is_worse else earlier))
            if is_worse:
                return
        if samples:
            self._timings.add(_file_name(key), samples)
        if profile is not None:
            with suppress(OSError):  # of which the file says more
                (self.path / PROFILES).mkdir(exist_ok=True)
            write_json((self.path / PROFILES / _file_name(key)).with_suffix(".json"), profile)
        self._rows.add(_file_name(key), [record])

    def measure_again(self, keys: Collection[Key]) -> None:
        """From now on an `append` of one of `keys` is a second try at a row that is there."""
        samples: dict[Key, list[Sample]] = defaultdict(list)
        for sample in msgspec.convert(self.samples().to_pylist(), list[Sample]) if keys else ():
            samples[_key(sample)].append(sample)
        self._kept = {_key(row): (row, samples[_key(row)]) for row in self.judged_records() if _key(row) in keys}

    def _set_aside(self, record: Record, samples: Sequence[Sample]) -> None:
        if record.status == "ok":
            stamp = f"{record.started_at or ''}-".replace(":", "")
            for rows, folder, schema in (([record], "cells", RECORDS), (samples, "samples", SAMPLES)):
                place = self.path / "replaced" / folder
                place.mkdir(parents=True, exist_ok=True)
                Journal(place, place, schema, ()).add(stamp + _file_name(_key(record)), rows)  # type: ignore[arg-type]

    def finished(self, *, retry_failed: bool = False, retry_suspect: bool = False) -> set[Key]:
        """What a resumed run need not do again: (cell_id, round, visit) of every row, whatever became of the cell.

        With `retry_failed` the rows that failed (`oom`, `error`, `timeout`, `crashed`) or are invalid are left out,
        with `retry_suspect` those that are suspect.
        """
        table = sound(self._rows.read(tuple(dict.fromkeys((*KEY_COLUMNS, *JUDGED_BY)))), self.path)
        keys = zip(*(table[name].to_pylist() for name in KEY_COLUMNS), strict=True)
        rows = zip(keys, table["status"].to_pylist(), judge(table, drift_limit(self.path)), strict=True)
        return {
            key
            for key, status, row in rows
            if not (retry_failed and (status in FAILED or row.verdict == "invalid"))
            and not (retry_suspect and row.verdict == "suspect")
        }

    def table(self) -> pa.Table:
        """All rows so far that can be, by round and in the order in which they were measured; see `sound`."""
        return sound(self._rows.read(), self.path)

    def records(self) -> list[Record]:
        """All rows so far as they were stored, in the order of `table`."""
        return msgspec.convert(self.table().to_pylist(), list[Record])

    def judged_records(self) -> list[Record]:
        """All rows so far, with verdicts and reasons as the report has them: seen beside all others of the run."""
        table = self.table()
        seen = zip(msgspec.convert(table.to_pylist(), list[Record]), judge(table, drift_limit(self.path)), strict=True)
        return [msgspec.structs.replace(row, verdict=one.verdict, reasons=one.reasons) for row, one in seen]

    def samples(self) -> pa.Table:
        """The raw timings of all rows so far, columns as in `archbench.model.record.Sample`."""
        # Fresh timings without a fresh row belong to a cell that was being stored when the run died.
        return sound(self._timings.read(only=set(self._rows.names())), self.path)

    def fill(self, rows: pa.Table, samples: pa.Table) -> None:
        """Store all rows and timings of a run that has none yet. Raises `UnfitError` where the disk is full."""
        self._timings.fill(samples)
        self._rows.fill(rows)

    def file_of(self, cell_id: str, round: int, visit: int) -> Path:
        fresh = self.path / "cells" / _file_name((cell_id, round, visit))
        return fresh if fresh.exists() else self.path / RESULTS

    @property
    def suite_text(self) -> str:
        """The suite as its author wrote it, or as JSON, which is YAML. Raises `OSError` where it cannot be read."""
        return (self.path / _SUITE_TEXT).read_text()

    def profiles(self) -> list[StageProfile]:
        """The stored tables of stages, by cell, round and visit; none for a run that did not ask for them.

        Damaged ones are named in a warning and left out. Raises `UsageError` for one of a newer version.
        """
        found: list[StageProfile] = []
        for path in sorted((self.path / PROFILES).glob("*.json")):
            try:
                if (version := read_struct(path, _Version).profile_version) <= PROFILE_VERSION:
                    found.append(read_struct(path, StageProfile))
            except UsageError as error:
                log.warning("%s; it is left out", error)
            else:
                if version > PROFILE_VERSION:
                    raise UsageError(
                        f"{path}: has profile version {version}, and this archbench reads 1 to {PROFILE_VERSION}; "
                        "use the archbench that wrote it, or a newer one"
                    )
        return sorted(found, key=lambda one: (one.cell_id, one.round, one.visit))

    def merge(self) -> None:
        """Fold all finished cells into the large files. Raises `UnfitError` where the disk is full; nothing is lost."""
        self._timings.fold(only=set(self._rows.names()))
        self._rows.fold()

    def _known(self, name: str, kind: type[_T], without: _U) -> _T | _U:
        """What can be done without: where it is damaged, a warning says so."""
        try:
            return self._noted(name, kind, without)
        except UsageError as error:
            log.warning("%s; it is done without", error)
            return without

    def _noted(self, name: str, kind: type[_T], without: _U) -> _T | _U:
        return read_struct(self.path / name, kind) if (self.path / name).exists() else without


def runs_alike(root: Path, suite: Suite, environment: Environment, shard: Shard | None = None) -> list[Path]:
    """The runs under `root`/<suite>/ that the same command would continue, the one begun last first.

    By the clock of its first cell, as directories are named as anybody likes; one without a cell by its making.
    """

    def begun(path: Path) -> str:
        made = (path / _ENVIRONMENT).stat().st_mtime
        return RunStore(path).started_at or datetime.fromtimestamp(made, UTC).isoformat()

    identity = run_identity(suite, environment, shard)
    found = alike(root / suite.suite, _ENVIRONMENT, lambda path: RunStore(path).identity == identity)
    return sorted(found, key=begun, reverse=True)


def _key(row: Record | Sample) -> Key:
    return row.cell_id, row.round, row.visit


def _rank(record: Record) -> int:
    """0 for the best: a row that is `ok`; what failed comes last."""
    return VERDICTS.index(record.verdict or "ok") if record.status == "ok" else len(VERDICTS)


def _file_name(key: Key) -> str:
    return f"{file_stem(key[0])}-r{key[1]}-v{key[2]}.parquet"
