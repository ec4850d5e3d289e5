"""What makes two runs, gates or duels the same, so that a command goes on with what it began, and their names."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
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
