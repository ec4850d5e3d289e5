"""Locks against a second run: in the same directory it would mix up the rows, on the same device the times.

They belong to the kernel, which releases them when their process dies in whatever way. A file beside each lock names
the holder, for the message alone.
"""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import filelock

from archbench.model.errors import UnfitError


@contextmanager
def run_lock(directory: Path) -> Iterator[None]:
    """Hold the run directory, which must exist. Raises `UnfitError`, naming the holder, when it is held already."""
    remedy = "wait for it to end, or give this run another directory with --out"
    with _held(directory / ".lock", f"{directory} is being written by another archbench run", remedy):
        yield


@contextmanager
def device_lock(device: str) -> Iterator[None]:
    """Hold a device, by the UUID of an accelerator or as `cpu`, against this user's other runs on this machine.

    Raises `UnfitError`, naming the holder, when it is held already.
    """
    remedy = "two runs at a time would spoil each other's figures: wait for it to end"
    with _held(_lock_file(device, ".lock"), f"another archbench run is measuring on {device}", remedy):
        yield


@contextmanager
def search_lock(device: str) -> Iterator[None]:
    """Wait for the device, and hold it, among the processes of a wave: what one of them times none disturbs."""
    with filelock.FileLock(_lock_file(device, ".search.lock")):
        yield


@contextmanager
def _held(path: Path, complaint: str, remedy: str) -> Iterator[None]:
    lock = filelock.FileLock(path, timeout=0)
    holder = path.with_name(f"{path.name}.holder")
    try:
        lock.acquire()
    except filelock.Timeout:
        raise UnfitError(f"{complaint} (pid {_holder_pid(holder)}); {remedy}") from None
    except OSError as error:
        raise UnfitError(f"cannot lock {path}: {error.strerror}") from None
    try:
        with suppress(OSError):  # the lock holds all the same; only its message will not name us
            holder.write_text(f"{os.getpid()}\n")
        yield
    finally:
        holder.unlink(missing_ok=True)
        lock.release()


def _holder_pid(holder: Path) -> str:
    try:
        return holder.read_text().strip() or "unknown"
    except OSError:
        return "unknown"  # it is about to write it, or about to release the lock


def _lock_file(device: str, ending: str) -> Path:
    """In a directory of this user's in the system's temporary one: the same for every session, unlike XDG's."""
    try:
        directory = Path(tempfile.gettempdir()) / f"archbench-{os.getuid()}"
        directory.mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise UnfitError(f"no place for a lock: {error}; set TMPDIR to a directory that can be written to") from None
    if directory.stat().st_uid != os.getuid():
        raise UnfitError(f"{directory} belongs to someone else; set TMPDIR to a directory of your own")
    return directory / (re.sub(r"[^A-Za-z0-9.-]", "_", device) + ending)
