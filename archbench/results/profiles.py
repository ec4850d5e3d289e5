"""Tables of stages beside a run's rows: one JSON file a cell, round and visit, written whole or not at all."""

from __future__ import annotations

import logging
from pathlib import Path

import msgspec

from archbench.model.errors import UnfitError, UsageError
from archbench.model.profile import PROFILE_VERSION, StageProfile
from archbench.results.files import read_struct, write_json

log = logging.getLogger(__name__)


class _Version(msgspec.Struct):
    """The part of a file that says whether the rest can be read."""

    profile_version: int


class ProfileFolder:
    """The folder, which is made with its first table. One writer at a time."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def add(self, row_file: str, profile: StageProfile) -> None:
        """Store a table durably beside the row in `row_file`. Raises `UnfitError` where the disk is full."""
        try:
            self._folder.mkdir(exist_ok=True)
        except OSError as error:
            raise UnfitError(
                f"cannot make {self._folder}: {error.strerror}; make room or give another place"
            ) from error
        write_json((self._folder / row_file).with_suffix(".json"), profile)

    def read(self) -> list[StageProfile]:
        """All tables, by cell, round and visit. Raises `UsageError` for one of a newer version."""
        found = []
        for path in sorted(self._folder.glob("*.json")):
            try:
                version = read_struct(path, _Version).profile_version
                if version <= PROFILE_VERSION:
                    found.append(read_struct(path, StageProfile))
                    continue
            except UsageError as error:
                log.warning("%s; it is left out", error)
                continue
            raise UsageError(
                f"{path}: has profile version {version}, and this archbench reads 1 to {PROFILE_VERSION}; "
                "use the archbench that wrote it, or a newer one"
            )
        return sorted(found, key=lambda one: (one.cell_id, one.round, one.visit))
