"""Where a run lies: a directory, one exported file, or a URL of fsspec (`s3://`, `gs://`, `memory://`, ...).

Readers get a directory on this machine, which is a copy of what lies elsewhere and goes when the process ends. Whoever
writes elsewhere (`Remote`) writes here first, and then copies: a network that fails loses nothing.

An exported run is a file to hand on: its rows, raw timings and machines, with the hash of each part. A zip file whose
content, but for the version in its manifest, depends on the run alone: exported twice, it is the same bytes. Networks
that were passed as objects are left out (they are code), and so is what can be made again (reports).
"""

from __future__ import annotations

import atexit
import hashlib
import io
import logging
import os
import re
import shutil
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path, PurePosixPath
from typing import Any

import msgspec
from msgspec import Struct

from archbench import __version__
from archbench.model.errors import UnfitError, UsageError, first_line
from archbench.model.units import indented_json
from archbench.results.files import write_bytes
from archbench.results.journal import RECORDS, SAMPLES, parquet_bytes
from archbench.results.run import RunStore

log = logging.getLogger(__name__)

_URL = re.compile(r"([a-z][a-z0-9+.-]+):/+(.*)", re.DOTALL)
"""One slash is enough: `Path` leaves no more of them."""
_ALL_THERE = ".copied"
_NEVER = (".lock", ".lock.holder", ".tmp", _ALL_THERE)
"""Endings of what belongs to this machine alone."""


def url_of(place: str | os.PathLike[str]) -> str | None:
    """The URL that a user gave, also through `Path`; `None` for a place on this machine."""
    text = os.fspath(place)
    found = _URL.fullmatch(text)
    if found is None or os.path.lexists(text):
        return None
    root = "/" if found[1] in ("file", "local") else ""
    return f"{found[1]}://{root}{found[2].rstrip('/')}"


def is_here(place: str | os.PathLike[str]) -> bool:
    """Whether it is a directory, or a file of one, that readers may write a report beside."""
    return url_of(place) is None and not is_exported(Path(place))


def located(place: str | os.PathLike[str]) -> Path:
    """The place itself, or the directory of a copy of it, made once.

    Raises `UsageError` for a URL that nothing is at, or no package can read, and for an exported file that is damaged.
    """
    url = url_of(place)
    if url is None:
        path = Path(place)
        return _unpacked(path.resolve(), path.stat().st_mtime_ns) if is_exported(path) else path
    return _fetched(url)


@contextmanager
def placed(out: str | os.PathLike[str] | None) -> Iterator[Path | None]:
    """Where the block is to write `out`; what it writes for a URL is copied there when it ends. Raises `UnfitError`."""
    url = None if out is None else url_of(out)
    if out is None or url is None:
        yield None if out is None else Path(out)
        return
    remote = Remote(url, _own_folder())
    yield remote.local
    remote.push()


@cache
def _unpacked(path: Path, changed: int) -> Path:
    return unpack(path, _own_folder())


@cache
def _fetched(url: str) -> Path:
    remote = Remote(url, _own_folder())
    if not remote.pull():
        raise UsageError(f"{url}: nothing is there")
    return located(remote.local)


@cache
def _root() -> Path:
    root = Path(tempfile.mkdtemp(prefix="archbench-"))
    atexit.register(shutil.rmtree, root, ignore_errors=True)
    return root


def _own_folder() -> Path:
    return Path(tempfile.mkdtemp(dir=_root()))


class Remote:
    """A run's directory, or one file, behind a URL, and its copy in `beside`. Raises `UsageError` for no known URL."""

    def __init__(self, url: str, beside: Path) -> None:
        self.url = url
        self.local = beside / (PurePosixPath(url.partition("://")[2]).name or "run")
        self._files, self._place = _filesystem(url)
        self._pushed: dict[str, tuple[int, int]] = {}
        """Size and time of change of each file that is there as it is here."""

    @classmethod
    def of_run(cls, url: str) -> Remote:
        """With a copy that outlives this process: what could not be copied is copied by the next one."""
        name = hashlib.sha256(url.encode()).hexdigest()[:12]
        return cls(url, Path("results") / "remote" / name)

    def pull(self) -> bool:
        """Copy what is there; whether there was anything. What is here and could not be copied there goes before it."""
        try:
            if self._files.isfile(self._place):
                self.local.parent.mkdir(parents=True, exist_ok=True)
                self._files.get_file(self._place, str(self.local))
                return True
            there = self._files.find(self._place) if self._files.exists(self._place) else []
            if there and self._has_all():
                shutil.rmtree(self.local)  # another machine may have gone on with it
            for path in sorted(there, key=lambda path: path.endswith("environment.json")):  # the last: it is the marker
                copy = self.local / path[len(self._stem(path)) :].lstrip("/")
                if not copy.exists():
                    copy.parent.mkdir(parents=True, exist_ok=True)
                    self._files.get_file(path, str(copy))
                    self._pushed[copy.relative_to(self.local).as_posix()] = _state(copy)
        except Exception as error:  # every file system raises what it likes
            raise UsageError(f"{self.url}: cannot be read: {first_line(error)}") from error
        return bool(there)

    def push(self) -> None:
        """Copy what is new here, rows after their timings; and take away what is gone. Raises `UnfitError`."""
        now = {"": _state(self.local)} if self.local.is_file() else self._here()
        try:
            # What is read last is copied last: a copy that is cut off lacks rows, never what belongs to them.
            for name in sorted(now, key=lambda name: (name.startswith("cells/"), name == "results.parquet")):
                if self._pushed.get(name) != now[name]:
                    place = f"{self._place}/{name}".rstrip("/")
                    self._files.makedirs(place.rpartition("/")[0], exist_ok=True)
                    self._files.put_file(str(self.local / name), place)
                    self._pushed[name] = now[name]
            for name in self._pushed.keys() - now.keys():
                self._files.rm_file(f"{self._place}/{name}")
                del self._pushed[name]
            if self.local.is_dir():
                (self.local / _ALL_THERE).touch()
        except Exception as error:
            raise UnfitError(
                f"{self.url}: cannot be written: {first_line(error)}; all is kept in {self.local}, and the same "
                "command copies it"
            ) from error

    def try_push(self) -> None:
        """As `push`, with a warning in place of an error: there will be another time."""
        try:
            self.push()
        except UnfitError as error:
            log.warning("%s", error)

    def _here(self) -> dict[str, tuple[int, int]]:
        files = (path for path in self.local.rglob("*") if path.is_file() and not path.name.endswith(_NEVER))
        return {path.relative_to(self.local).as_posix(): _state(path) for path in files}

    def _has_all(self) -> bool:
        """Whether nothing has been written here since all of it was copied there."""
        marker = self.local / _ALL_THERE
        if not marker.exists():
            return False
        copied = marker.stat().st_mtime_ns
        return all(path.stat().st_mtime_ns <= copied for path in self.local.rglob("*") if path.is_file())

    def _stem(self, path: str) -> str:
        """What comes before the name in the folder: file systems differ in how they begin a path."""
        return path[: path.index(self._place.lstrip("/")) + len(self._place.lstrip("/"))]


def _state(path: Path) -> tuple[int, int]:
    found = path.stat()
    return found.st_size, found.st_mtime_ns


def _filesystem(url: str) -> tuple[Any, str]:
    import fsspec

    try:
        files, place = fsspec.core.url_to_fs(url)
    except (ValueError, ImportError) as error:  # no such protocol; or the package that knows it is not there
        raise UsageError(f"{url}: {first_line(error)}") from error
    return files, str(place).rstrip("/")


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
