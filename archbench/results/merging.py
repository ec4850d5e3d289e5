"""Runs of one suite from many machines, united: one run for each class of hardware, each row with its machine.

A run is of one hardware class, so that no reader can rank what cannot be compared; parts of several classes become
several runs. All of an output is written beside its place and then renamed: it is there whole or not at all.
"""

from __future__ import annotations

import logging
import os
import shutil
from collections import defaultdict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
import pyarrow as pa
import pyarrow.compute as pc
from msgspec import Struct

from archbench.model.cell import Shard
from archbench.model.environment import Environment
from archbench.model.errors import UnfitError, UsageError
from archbench.model.suite import Suite
from archbench.model.units import counted
from archbench.results.files import dated, suite_hash
from archbench.results.journal import KEY_COLUMNS, keys_of
from archbench.results.places import is_here, located, url_of
from archbench.results.run import PROFILES, Part, RunStore

log = logging.getLogger(__name__)

_CONTENT = "suite's content"
_SHOWN = ("suite", "torch", "number of shards")
"""What is told of two runs that differ in it."""
_NAMED = 6
"""Missing shards and double rows that a message names."""


class _Read(Struct, frozen=True, kw_only=True):
    """One run that is to be merged."""

    label: str
    """As the user knows it; where it lies elsewhere, that is not where its copy is."""
    store: RunStore
    suite: str
    shard: Shard | None
    environment: Environment
    rows: pa.Table

    def file_of(self, cell_id: str, round: int, visit: int) -> str:
        """The file that holds a row, as the user knows it."""
        file = self.store.file_of(cell_id, round, visit)
        return str(file) if self.label == str(self.store.path) else self.label


def merge(places: Sequence[str | os.PathLike[str]], out: Path | None = None, *, partial: bool = False) -> list[Path]:
    """Unite runs (directories, exported files, URLs) into `out`, by default a new directory under `results/`.

    Returns the runs that came of it.

    Of several hardware classes there is one run each, in folders of `out` that are named after them. `partial`: a
    shard may be missing or unfinished, which a warning then says. Raises `UsageError` for what does not belong
    together (another suite, protocol, torch, split), for a row that two runs have, and for shards that are missing;
    `UnfitError` where the disk is full. Nothing of the runs is changed.
    """
    if not places:
        raise UsageError("nothing to merge; name the directories of runs")
    with ThreadPoolExecutor(min(8, (os.cpu_count() or 1) * 2)) as pool:  # files: most of the time is spent waiting
        parts = list(pool.map(_read, places))
    seen: dict[Path, _Read] = {}
    for part in parts:
        if seen.setdefault(part.store.path.resolve(), part) is not part:
            raise UsageError(f"{part.label}: this run is named twice; name it once")
    _refuse_strangers(parts)
    classes: dict[str, list[_Read]] = defaultdict(list)
    for part in parts:
        classes[part.environment.hardware_class].append(part)
    for alike in classes.values():
        _refuse_doubles(alike)
    _check_complete(classes, partial)
    place = out or Path("results") / parts[0].store.suite.suite / f"{dated(parts[0].suite)}-merged"
    if len(classes) == 1:
        return [_written(parts, place)]
    return [_written(alike, place / class_folder(name)) for name, alike in sorted(classes.items())]


def _read(place: str | os.PathLike[str]) -> _Read:
    store = RunStore.open(located(place))
    return _Read(
        label=str(store.path) if is_here(place) else url_of(place) or str(place),
        store=store,
        suite=suite_hash(store.suite),
        shard=store.shard,
        environment=store.environment,
        rows=store.table(),
    )


def _refuse_strangers(parts: Sequence[_Read]) -> None:
    """Raise `UsageError` where two runs do not belong together, naming both."""
    told: dict[str, Callable[[_Read], object]] = {
        "suite": lambda part: part.store.suite.suite,
        _CONTENT: lambda part: part.suite,
        # Besides the constants the versions under which rows were measured: these may be none yet, or one.
        "protocol": lambda part: (
            msgspec.json.encode(part.store.protocol, order="deterministic"),
            sorted(pc.unique(part.rows["protocol_version"]).to_pylist()) or [0],
        ),
        "torch": lambda part: part.environment.torch_version,
        "number of shards": lambda part: part.shard and part.shard.of,
        "split (by --only, --rounds or another archbench)": lambda part: part.shard and part.shard.split,
    }
    first = parts[0]
    for what, value in told.items():
        ours = value(first)
        for part in parts[1:]:
            if (theirs := value(part)) != ours:
                if what == _CONTENT:
                    fields = (name for name in Suite.__struct_fields__ if name not in ("description", "decisions"))
                    suites = first.store.suite, part.store.suite
                    unlike = [name for name in fields if getattr(suites[0], name) != getattr(suites[1], name)]
                    shown = f" ({', '.join(unlike)})"
                else:
                    shown = f": {ours or 'none'} and {theirs or 'none'}" if what in _SHOWN else ""
                raise UsageError(f"{first.label} and {part.label} differ in their {what}{shown}; they are not one run")


def _refuse_doubles(parts: Sequence[_Read]) -> None:
    """Raise `UsageError` where a row is in two runs, naming the files."""
    keys = pa.concat_tables([part.rows.select(KEY_COLUMNS) for part in parts])
    counts = pc.value_counts(keys_of(keys).combine_chunks())
    doubles = counts.filter(pc.greater(counts.field("counts"), 1)).field("values").to_pylist()
    if not doubles:
        return
    holders = [part for part in parts if pc.any(pc.equal(keys_of(part.rows), doubles[0])).as_py()]
    cell, number, visit = doubles[0].split("\n")
    files = " and ".join(part.file_of(cell, int(number), int(visit)) for part in holders)
    more = f", and {counted(len(doubles) - 1, 'further row')}" if len(doubles) > 1 else ""
    raise UsageError(
        f"{cell} (round {number}, visit {visit}) is in {files}{more}; leave one of these runs out, "
        "or measure the suite in shards"
    )


def _check_complete(classes: dict[str, list[_Read]], partial: bool) -> None:
    """Raise `UsageError`, or warn where `partial`, for shards that are missing or unfinished.

    Classes that share no shard have divided one suite among themselves; else each has to have all of it.
    """
    numbers = {name: [part.shard.number for part in parts if part.shard] for name, parts in classes.items()}
    every = [number for held in numbers.values() for number in held]
    first = next((part.shard for parts in classes.values() for part in parts if part.shard), None)
    problems = []
    if first is not None:
        divided = len(every) == len(set(every))
        groups = {"": every} if divided or len(classes) == 1 else numbers
        for name, held in groups.items():
            missing = [f"{number}/{first.of}" for number in range(1, first.of + 1) if number not in held]
            if missing:
                of = f" of {name}" if name else ""
                more = f" and {len(missing) - _NAMED} more" if len(missing) > _NAMED else ""
                verb = "is" if len(missing) == 1 else "are"
                problems.append(f"shard {', '.join(missing[:_NAMED])}{more}{of} {verb} missing")
    for part in (part for parts in classes.values() for part in parts):
        if part.shard is not None and part.rows.num_rows < part.shard.rows:
            problems.append(
                f"shard {part.shard.word} ({part.label}) is unfinished: {part.rows.num_rows} of {part.shard.rows} rows"
            )
    if problems and not partial:
        raise UsageError(
            f"{'; '.join(problems)}: run it, `archbench run SUITE --shard NUMBER/OF`, or merge without it by --partial"
        )
    if problems:
        log.warning("merged all the same: %s", "; ".join(problems))


def _written(parts: Sequence[_Read], place: Path) -> Path:
    RunStore.check(place)
    parts = sorted(parts, key=lambda part: (part.shard.number if part.shard else 0, part.label))
    first = parts[0]
    place.parent.mkdir(parents=True, exist_ok=True)
    beside = place.with_name(f".{place.name}.{os.getpid()}.tmp")
    try:
        store = RunStore.create(beside, first.store.suite, first.environment, first.store.suite_text)
        store.fill(
            pa.concat_tables([_of_run(part, place.resolve().name) for part in parts]),
            pa.concat_tables([part.store.samples() for part in parts]),
        )
        for part in parts:
            if (part.store.path / PROFILES).exists():
                shutil.copytree(part.store.path / PROFILES, beside / PROFILES, dirs_exist_ok=True)
        store.note_machines(environment for part in parts for environment in part.store.machines.values())
        store.note_parts([Part(run_id=p.store.run_id, shard=p.shard, rows=p.rows.num_rows) for p in parts])
        if place.exists():
            place.rmdir()  # `check` has found it empty
        beside.rename(place)
    except OSError as error:
        raise UnfitError(f"cannot write {place}: {error.strerror or error}; the runs are as they were") from error
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    return place


def _of_run(part: _Read, run_id: str) -> pa.Table:
    """The part's rows under their new run; those stored before machines had names get that of their old one."""
    rows = part.rows
    named = pc.fill_null(rows["machine"], part.environment.machine or part.store.run_id)
    for name, values in (("run_id", pa.repeat(run_id, rows.num_rows)), ("machine", named)):
        rows = rows.set_column(rows.schema.get_field_index(name), rows.schema.field(name), values)
    return rows


def class_folder(hardware_class: str) -> str:
    """The folder of the class's run where there is one for each class: `nvidia-h200`."""
    return "-".join("".join(char if char.isalnum() else " " for char in hardware_class.lower()).split())
