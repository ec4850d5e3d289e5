"""Files that are either there in full or not at all, whatever dies meanwhile."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO, TypeVar

import msgspec

from archbench.model.errors import UnfitError, UsageError
from archbench.model.units import indented_json

_T = TypeVar("_T")


@contextmanager
def atomic_write(path: Path) -> Iterator[BinaryIO]:
    """A file to write that takes the place of `path` when the block ends, and never appears if the block raises.

    Durable on return: the content is synced before the rename, the directory after it. Raises `UnfitError` where the
    disk is full or the place cannot be written; `path` is then as it was.
    """
    # The process id keeps two writers of one path from sharing a temporary file; a leftover never has the final suffix.
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        try:
            with temporary.open("wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
            sync_directory(path.parent)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise UnfitError(
            f"cannot write {path}: {error.strerror or error}; what was stored before is kept. "
            "Make room or give another place, then run the same command again"
        ) from error


def write_bytes(path: Path, content: bytes) -> None:
    """Put `content` at `path`, at once and durably; errors as for `atomic_write`."""
    with atomic_write(path) as file:
        file.write(content)


def begin(
    path: Path, marker: str, files: Mapping[str, bytes], about: object, *, folders: Collection[str], what: str
) -> None:
    """Make a directory of results in an empty or new one: `files`, then `about` as JSON in `marker`, the last of all.

    So a directory that has its marker is whole, and one without is begun again: a lock, `files` and `folders` that lie
    there are of one that was killed while it was made. Raises `UsageError` where something else lies there.
    """
    refuse_occupied(path, marker, (*files, *folders), what)
    for folder in folders:
        (path / folder).mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        write_bytes(path / name, content)
    write_bytes(path / marker, indented_json(about).encode())
    sync_directory(path.parent)


def refuse_occupied(path: Path, marker: str, ours: Collection[str], what: str) -> None:
    """Raise `UsageError` where `begin` cannot make a directory, or something else lies there; leave all as it was."""
    made = [one for one in (path, *path.parents) if not one.exists()]
    try:
        path.mkdir(parents=True, exist_ok=True)
        ours = {*ours, "trees"}  # of a gate's checkouts
        foreign = sorted(
            entry.name
            for entry in path.iterdir()
            if not (entry.name.startswith(".") or entry.name.endswith(".lock") or entry.name in ours)
        )
    except OSError as error:
        raise UsageError(f"cannot store {what} in {path}: {error.strerror}; give another with --out") from error
    finally:
        for one in made:
            with suppress(OSError):
                one.rmdir()
    if marker in foreign:
        raise UsageError(f"{path}: already holds {what}; give another directory with --out")
    if foreign:
        raise UsageError(f"{path}: is not empty (it holds {foreign[0]!r}); give another directory with --out")


def read_struct(path: Path, kind: type[_T]) -> _T:
    """What a JSON file holds. Raises `UsageError` where it is missing, cannot be read, or is of another version."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=kind)
    except FileNotFoundError:
        raise UsageError(f"{path.parent}: has no {path.name}, so it is not whole, or something else") from None
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {error.strerror}") from error
    except msgspec.MsgspecError as error:
        raise UsageError(f"{path}: cannot be read by this version of archbench: {error}") from error


def dated(identity: str) -> str:
    """A name for a directory that begins now: sorts by time, ends in the identity of what it is about."""
    return f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{identity[:8]}"


def sync_directory(path: Path) -> None:
    """Make renames in a directory survive a power cut."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
