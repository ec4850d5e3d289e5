"""Files that are either there in full or not at all, whatever dies meanwhile, and that tell when a byte has changed.

A stored file carries the CRC-32 of all its other bytes, in a place that its readers skip: JSON in a last key of its
own, parquet between its last page and its footer (where the format allows anything). Whoever rewrites a parquet file
with another program drops it; a file without one is taken as it is, as those of older versions are.

Directories of runs, gates and duels are made of them: begun whole, named, and found again by the command that goes on.
"""

from __future__ import annotations

import hashlib
import os
import re
import zlib
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO, TypeVar

import msgspec
import psutil

from archbench.model.cell import Shard
from archbench.model.environment import Environment
from archbench.model.errors import UnfitError, UsageError
from archbench.model.protocol import PROTOCOL_VERSION, Protocol, protocol_for
from archbench.model.record import SCHEMA_VERSION
from archbench.model.suite import Suite
from archbench.model.units import indented_json

_T = TypeVar("_T")

_SEAL = re.compile(rb'"archbench\.crc32": ?"([0-9a-f]{8})"')
_OPEN_SEAL = b'"archbench.crc32": "00000000"'
_WORD = b"archbench.crc32"


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


def remove_leftovers(folder: Path) -> None:
    """Remove what `atomic_write` left in `folder`, which need not be there, where its process was killed meanwhile."""
    for leftover in folder.glob(".*.tmp"):
        pid = leftover.name.split(".")[-2]
        if pid.isdecimal() and not psutil.pid_exists(int(pid)):
            leftover.unlink(missing_ok=True)


def write_bytes(path: Path, content: bytes) -> None:
    """Put `content` at `path`, at once and durably; errors as for `atomic_write`."""
    with atomic_write(path) as file:
        file.write(content)


def write_json(path: Path, about: object) -> None:
    """Put `about` at `path` as JSON for people and programs, with its checksum; errors as for `atomic_write`."""
    write_bytes(path, sealed_json(about))


def sealed_json(about: object) -> bytes:
    """A struct as `write_json` stores it."""
    text = indented_json(about).encode().rstrip().removesuffix(b"}").rstrip()
    return _sealed(text + b",\n  " + _OPEN_SEAL + b"\n}\n")


def sealed_parquet(content: bytes) -> bytes:
    """A parquet file with its checksum."""
    footer = footer_start(content)
    return _sealed(content[:footer] + _OPEN_SEAL + content[footer:])


def footer_start(content: bytes) -> int:
    """Where the footer begins of a parquet file, which ends in the footer's length in four bytes and `PAR1`."""
    return len(content) - 8 - int.from_bytes(content[-8:-4], "little")


def is_whole(content: bytes) -> bool:
    """Whether a stored file is what was written, as far as its checksum tells; true of one that has none."""
    place = content.rfind(_WORD)  # the last: a text inside may look like it
    seal = _SEAL.match(content, place - 1)
    return place < 0 or (seal is not None and int(seal[1], 16) == _checksum(content, seal))


def _sealed(content: bytes) -> bytes:
    seal = _SEAL.match(content, content.rfind(_WORD) - 1)
    assert seal is not None
    return content[: seal.start(1)] + b"%08x" % _checksum(content, seal) + content[seal.end(1) :]


def _checksum(content: bytes, seal: re.Match[bytes]) -> int:
    return zlib.crc32(content[seal.end(1) :], zlib.crc32(content[: seal.start(1)]))


def read_struct(path: Path, kind: type[_T]) -> _T:
    """What a JSON file holds.

    Raises `UsageError` where it is missing, cannot be read, is damaged, or is of another version.
    """
    try:
        content = path.read_bytes()
        if not is_whole(content):
            raise UsageError(f"{path} is damaged (its checksum does not match); restore it from a copy")
        # Some structs refuse keys that they do not know.
        return msgspec.json.decode(re.sub(rb",\s*" + _SEAL.pattern, b"", content), type=kind)
    except FileNotFoundError:
        raise UsageError(f"{path.parent}: has no {path.name}, so it is not whole, or something else") from None
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {error.strerror}") from error
    except msgspec.ValidationError as error:
        raise UsageError(f"{path}: cannot be read by this version of archbench: {error}") from error
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} is damaged ({error}); restore it from a copy") from error


def sync_directory(path: Path) -> None:
    """Make renames in a directory survive a power cut."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


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
    write_json(path / marker, about)
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


def dated(identity: str) -> str:
    """A name for a directory that begins now: sorts by time, ends in the identity of what it is about."""
    return f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{identity[:8]}"


def alike(root: Path, marker: str, same: Callable[[Path], bool]) -> Iterator[Path]:
    """The directories in `root` that the same command began, as `same` says, by name the latest first."""
    for found in sorted(root.glob(f"*/{marker}"), reverse=True):
        with suppress(UsageError):  # of another version, so not one to continue
            if same(found.parent):
                yield found.parent


def identity_of(*parts: object) -> str:
    """The same for the same parts, in every process."""
    return _hash(repr(parts))


def suite_hash(suite: Suite) -> str:
    """Hash of all that decides which rows a suite asks for: not of its description, decisions and stated accuracies."""
    # Read back, a whole number of the protocol is a float: 5 and 5.0 are one constant.
    constants = {name: float(value) for name, value in suite.protocol.items()}
    networks = tuple(msgspec.structs.replace(network, accuracy=None) for network in suite.architectures)
    asked = msgspec.structs.replace(suite, description="", decisions=(), protocol=constants, architectures=networks)
    return _hash(msgspec.json.encode(asked, order="deterministic").decode())


def run_identity(
    suite: Suite, environment: Environment, shard: Shard | None = None, protocol: Protocol | None = None
) -> str:
    """Equal for two runs that may be continued by each other: same suite, environment, protocol and columns.

    A shard may be continued on any device of the class with the same libraries: its rows say which measured them.
    `protocol`: that of a stored run; by default the one that a run has which begins now.
    """
    constants = msgspec.json.encode(protocol or protocol_for(environment.kind, suite.protocol), order="deterministic")
    here = environment if shard is None else environment.anywhere
    parts = f"{suite_hash(suite)} {here.fingerprint} {constants.decode()} {PROTOCOL_VERSION} {SCHEMA_VERSION}"
    return _hash(parts if shard is None else f"{parts} {shard.word} {shard.split}")


def new_run_id(suite: Suite, environment: Environment, shard: Shard | None = None) -> str:
    """A name for a run that begins now: sorts by time, ends in the run's identity."""
    return dated(run_identity(suite, environment, shard))


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]
