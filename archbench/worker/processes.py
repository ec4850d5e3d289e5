"""Processes on one Linux machine: bound to each other, a child to its host and orphans to an heir; kept apart by locks.

Why one of them died is told from what it left behind: its exit code, its last words and the kernel's own count.
"""

from __future__ import annotations

import ctypes
import os
import re
import signal
import tempfile
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path

import filelock
import psutil

from archbench.device.environment import ROOT, control_groups, read_small
from archbench.model.errors import UnfitError, escaped
from archbench.model.record import Status

# From <linux/prctl.h>.
_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36

_LIBC = ctypes.CDLL(None, use_errno=True)

KILL_PATIENCE_S = 10.0
"""A killed process that still has not gone by then is stuck inside the kernel, in a driver most likely."""

LAST_WORDS_BYTES = 64 << 10
"""How much of a process's output is kept to explain its death."""

_MESSAGE_CHARACTERS = 500
_LINES_KEPT = 3
_FRAME = re.compile(r'^ {2}File "(?P<file>[^"]+)", line (?P<line>\d+) in (?P<function>\S+)', re.MULTILINE)
"""A line of `faulthandler`'s traceback, innermost frame first."""


def die_with(host: int) -> None:
    """Have the kernel kill this process when its parent, `host`, dies; end at once where it already has."""
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != host:
        os._exit(1)


def adopt_orphans() -> None:
    """Make this process the parent of every descendant whose own parent dies, so that none of them escapes."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def kill_descendants() -> None:
    """Kill and reap every descendant: a child, its compile workers, and whatever else it started.

    Needs `adopt_orphans`, before any of them was born. Killing makes new orphans, hence the loop. Raises
    `TimeoutError`, naming them, when some do not die.
    """
    give_up = time.monotonic() + KILL_PATIENCE_S
    while not _reaped_all():
        left = psutil.Process().children(recursive=True)
        for process in left:
            with suppress(psutil.NoSuchProcess):  # it went by itself
                process.kill()
        if time.monotonic() > give_up:
            raise TimeoutError(f"killed, but still there: processes {', '.join(str(process.pid) for process in left)}")
        time.sleep(0.002)


def _reaped_all() -> bool:
    """Reap what has ended; true when no child is left."""
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        return True
    return False


def _prctl(option: int, value: int) -> None:
    if _LIBC.prctl(option, ctypes.c_ulong(value), 0, 0, 0) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def explain(exit_code: int, output: bytes, oom_kills: int) -> tuple[Status, str]:
    """Return the status and the one-line message of a row whose process ended without being told to.

    `exit_code` is negative for a signal, as in `subprocess`; `output` the end of what the process wrote to stdout
    and stderr; `oom_kills` by how much `oom_kill_count` grew during its life.
    """
    text = output.decode(errors="replace")
    # A traceback underlines with ^ and ~.
    lines = [line.strip() for line in text.splitlines() if line.strip(" \t^~")][-_LINES_KEPT:]
    if exit_code == -signal.SIGKILL and oom_kills > 0:
        return "oom", "killed by the kernel's out-of-memory killer"
    out_of_memory = any("std::bad_alloc" in line or line.startswith("MemoryError") for line in lines)
    cause, details = f"exited with code {exit_code}", " | ".join(lines)
    if exit_code < 0:
        names = {one.value: one.name for one in signal.Signals}
        cause = f"killed by {names.get(-exit_code, f'signal {-exit_code}')}"
        # `faulthandler` lists every thread; the one that was hit comes last.
        frame = _FRAME.search(text, max(text.rfind("Fatal Python error"), text.rfind("\nCurrent thread"), 0))
        if frame:
            details = f"in {frame['function']} ({frame['file']}:{frame['line']})"
    message = escaped(f"{cause}: {details}" if details else cause)
    if len(message) > _MESSAGE_CHARACTERS:
        message = message[: _MESSAGE_CHARACTERS - 3] + "..."
    return "oom" if out_of_memory else "crashed", message


def oom_kill_count(root: Path = ROOT) -> int:
    """Processes that the kernel's OOM killer has ended so far: in this control group, or on the whole machine.

    Only its growth means anything. 0 where the kernel does not tell. A container without a namespace for control groups
    reads the host's path, and finds its own group at the root.
    """
    names = ("memory.events", "memory.oom_control")  # of the memory controller's second version, and its first
    books = [folder / name for folder in control_groups(root, "memory") for name in names]
    for book in (*books, root / "proc/vmstat"):
        if found := re.search(r"^oom_kill (\d+)$", read_small(book) or "", re.MULTILINE):
            return int(found[1])
    return 0


# Locks against a second run: in the same directory it would mix up the rows, on the same device the times. They belong
# to the kernel, which releases them when their process dies in whatever way. A file beside each lock names the holder,
# for the message alone.


def run_lock(directory: Path) -> AbstractContextManager[None]:
    """Hold the run directory, which must exist. Raises `UnfitError`, naming the holder, when it is held already."""
    remedy = "wait for it to end, or give this run another directory with --out"
    return _held(directory / ".lock", f"{directory} is being written by another archbench run", remedy)


def device_lock(device: str) -> AbstractContextManager[None]:
    """Hold a device, by the UUID of an accelerator or as `cpu`, against this user's other runs on this machine.

    Raises `UnfitError`, naming the holder, when it is held already.
    """
    remedy = "two runs at a time would spoil each other's figures: wait for it to end"
    return _held(_lock_file(device, ".lock"), f"another archbench run is measuring on {device}", remedy)


def search_lock(device: str) -> AbstractContextManager[object]:
    """Wait for the device, and hold it, among the processes of a wave: what one of them times none disturbs."""
    return filelock.FileLock(_lock_file(device, ".search.lock"))


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
