"""Files that are either there in full or not at all, whatever dies meanwhile."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from archbench.model.errors import UnfitError


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
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
    """Put `content` at `path`, at once and durably; errors as for `replacing`."""
    with replacing(path) as file:
        file.write(content)


def sync_directory(path: Path) -> None:
    """Make renames in a directory survive a power cut; does nothing where directories cannot be opened (Windows)."""
    if os.name != "posix":
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
