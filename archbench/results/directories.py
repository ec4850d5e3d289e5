"""Directories of runs, gates and duels: begun whole, named, and found again by the command that goes on with them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from archbench.model.cell import Shard
from archbench.model.environment import Environment
from archbench.model.errors import UsageError
from archbench.model.protocol import PROTOCOL_VERSION, Protocol, protocol_for
from archbench.model.record import SCHEMA_VERSION
from archbench.model.suite import Suite
from archbench.results.files import sync_directory, write_bytes, write_json


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
