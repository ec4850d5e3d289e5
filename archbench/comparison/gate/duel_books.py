"""A duel on disk: every finished pair in a file of its own, so that a killed duel resumes and a close one goes on.

results/duel/<time>-<identity>/NN.json: the rows of a pair and the times of every turn.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from archbench.catalog import facts
from archbench.model.cell import Cell
from archbench.model.environment import Environment
from archbench.model.errors import UnfitError
from archbench.model.pair import Pair
from archbench.model.protocol import Protocol
from archbench.results.files import write_bytes

log = logging.getLogger(__name__)

DUELS = Path("results") / "duel"


class DuelBooks:
    """One duel's directory. One writer at a time, who holds the device's lock."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def of(
        cls,
        cells: Sequence[Cell],
        protocol: Protocol,
        environment: Environment,
        *,
        fresh: bool = False,
        root: Path = DUELS,
    ) -> DuelBooks:
        """The latest duel of these cells, in this order, with this care, libraries and machine; or a new one.

        A new one with `fresh`, and where a network is the user's code: that may have changed. Nothing is written yet.
        """
        parts = (*(cell.cell_id for cell in cells), protocol, environment.fingerprint)
        identity = hashlib.sha256(repr(parts).encode()).hexdigest()[:16]
        begun = sorted(root.glob(f"*-{identity}"))
        if begun and not fresh and not any(facts(cell.network).source == "user code" for cell in cells):
            return cls(begun[-1])
        return cls(root / f"{datetime.now(UTC):%Y%m%dT%H%M%S.%fZ}-{identity}")

    def pairs(self) -> list[Pair]:
        """The pairs so far; a damaged file is named in a warning and left out."""
        found = []
        for file in sorted(self.path.glob("*.json")):
            try:
                found.append(msgspec.json.decode(file.read_bytes(), type=Pair))
            except msgspec.MsgspecError as error:
                log.warning("%s is damaged (%s); its pair is played again", file, error)
                file.rename(f"{file}.damaged")
        return found

    def append(self, pair: Pair) -> None:
        """Store a finished pair; on return it survives a kill and a power cut. Raises `UnfitError` on a full disk."""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UnfitError(f"cannot store a duel in {self.path}: {error.strerror}") from error
        taken = {file.stem for file in self.path.glob("*.json")}
        number = next(number for number in range(len(taken) + 1) if f"{number:03d}" not in taken)
        write_bytes(self.path / f"{number:03d}.json", msgspec.json.encode(pair))
