"""A run as one file to hand on: its rows, raw timings and machines, with the hash of each part.

A zip file whose content, but for the version in its manifest, depends on the run alone: exported twice, it is the same
bytes. Networks that were passed as objects are left out (they are code), and so is what can be made again (reports).
"""

from __future__ import annotations

import hashlib
import io
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path, PurePosixPath

import msgspec
from msgspec import Struct

from archbench import __version__
from archbench.model.errors import UsageError
from archbench.model.units import indented_json
from archbench.results.files import write_bytes
from archbench.results.journal import parquet_bytes
from archbench.results.run import RunStore
from archbench.results.schema import RECORDS, SAMPLES

SUFFIX = ".archbench"
_MANIFEST = "manifest.json"
_FORMAT = 1
_EPOCH = (1980, 1, 1, 0, 0, 0)
_BROKEN = (zipfile.BadZipFile, zlib.error, msgspec.MsgspecError, KeyError, ValueError, EOFError, RuntimeError)
"""What reading a zip file of changed bytes may raise."""
_TAKEN = (
    *("suite.yaml", "suite.json", "protocol.json", "environment.json", "machines.json", "merged.json", "shard.json"),
    *("sessions.json", "calibration.json", "spread.json"),
)


class _Format(Struct):
    """The part of a manifest that says whether the rest can be read."""

    format: int


class _Spread(Struct):
    """The part of what earlier runs showed that says which may have a part in this one."""

    hardware_class: str
    begun: str


class Manifest(Struct, frozen=True, kw_only=True):
    """What an exported file says of itself."""

    format: int
    archbench_version: str
    run_id: str
    rows: int
    files: dict[str, str]
    """SHA-256 by name, of every other file in it."""


class Exported(Struct, frozen=True, kw_only=True):
    """What `export` made."""

    path: Path
    sha256: str
    """Of the whole file: what to publish beside it."""
    rows: int


def export(place: Path, out: Path | None = None) -> Exported:
    """Write a run, finished or not, as one file: `SUITE-RUN.archbench` here, or `out`.

    Raises `UsageError` for what is not a run and for an `out` that is not such a file's name, and `UnfitError` where
    it cannot be written.
    """
    store = RunStore.open(place)
    target = out or Path(f"{store.suite.suite}-{store.run_id}{SUFFIX}")
    if target.suffix != SUFFIX:
        raise UsageError(f"{target}: give it a name that ends in {SUFFIX}")
    rows = store.table().num_rows
    if not rows:
        raise UsageError(f"{place}: holds no finished cell yet")
    parts = dict(sorted(_parts(store)))
    hashes = {name: hashlib.sha256(content).hexdigest() for name, content in parts.items()}
    manifest = Manifest(format=_FORMAT, archbench_version=__version__, run_id=store.run_id, rows=rows, files=hashes)
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as file:
        for name, part in {_MANIFEST: indented_json(manifest).encode(), **parts}.items():
            file.writestr(zipfile.ZipInfo(name, _EPOCH), part, zipfile.ZIP_DEFLATED)
    write_bytes(target, content.getvalue())
    return Exported(path=target, sha256=hashlib.sha256(content.getvalue()).hexdigest(), rows=rows)


def is_exported(path: Path) -> bool:
    """Whether it is a file with the name of an exported one."""
    return path.suffix == SUFFIX and path.is_file()


def unpack(path: Path, folder: Path) -> Path:
    """The run's directory, made in `folder`, once every part is found to be what was written.

    Raises `UsageError` for a file that is damaged, changed, of a newer format or something else.
    """
    try:
        with zipfile.ZipFile(path) as file:
            about = file.read(_MANIFEST)
            if (format := msgspec.json.decode(about, type=_Format).format) != _FORMAT:
                newer = "; use the archbench that wrote it, or a newer one"
                raise UsageError(f"{path}: has format {format}, and this archbench reads {_FORMAT}{newer}")
            manifest = msgspec.json.decode(about, type=Manifest)
            if sorted(file.namelist()) != sorted([_MANIFEST, *manifest.files]):
                raise UsageError(f"{path} was changed: it does not hold the files that its manifest names")
            parts = {name: file.read(name) for name in manifest.files}
    except _BROKEN as error:
        raise UsageError(f"{path}: is damaged, or no file of `archbench export` ({error}); get it again") from error
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {error.strerror or error}") from error
    for name, content in parts.items():
        if hashlib.sha256(content).hexdigest() != manifest.files[name]:
            raise UsageError(f"{path} was changed: {name} is not what was exported (its hash does not match)")
        place = PurePosixPath(name)
        if place.is_absolute() or ".." in place.parts:
            raise UsageError(f"{path}: holds {name!r}, which lies outside of it; it is no file of `archbench export`")
        (folder / place).parent.mkdir(parents=True, exist_ok=True)
        (folder / place).write_bytes(content)
    return folder / manifest.run_id


def _parts(store: RunStore) -> Iterator[tuple[str, bytes]]:
    """Name and content of each file, as they lie in the folder of the suite's runs."""
    run, run_id = store.path, store.run_id
    for name, table, schema in (
        ("results.parquet", store.table(), RECORDS),
        ("samples.parquet", store.samples(), SAMPLES),
    ):
        yield f"{run_id}/{name}", parquet_bytes(table, schema, grouped=True, compression="zstd")
    for path in [run / name for name in _TAKEN] + sorted((run / "profile").glob("*.json")):
        if path.is_file():
            yield f"{run_id}/{path.relative_to(run).as_posix()}", path.read_bytes()
    # What earlier runs on such a machine showed of the noise has a part in this one's intervals.
    begun, hardware = store.started_at or "", store.environment.hardware_class
    for path in run.resolve().parent.glob("*/spread.json"):
        with suppress(OSError, msgspec.MsgspecError):
            content = path.read_bytes()
            told = msgspec.json.decode(content, type=_Spread)
            if told.hardware_class == hardware and told.begun < begun:
                yield f"{path.parent.name}/{path.name}", content
