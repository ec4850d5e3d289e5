"""What binds processes together on Linux, a child to its host and orphans to an heir; and why one of them died.

A death is told from what it left behind: its exit code, its last words and the kernel's own count.
"""

from __future__ import annotations

import ctypes
import os
import re
import signal
import time
from contextlib import suppress
from pathlib import Path

import psutil

from archbench.model.errors import escaped
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
    lines = [line.strip() for line in text.splitlines() if line.strip(" \t^~")]  # a traceback underlines with ^ and ~
    if exit_code == -signal.SIGKILL and oom_kills > 0:
        return "oom", "killed by the kernel's out-of-memory killer"
    status: Status = "oom" if _says_out_of_memory(lines) else "crashed"
    if exit_code >= 0:
        return status, _clip(f"exited with code {exit_code}", " | ".join(lines[-_LINES_KEPT:]))
    cause = f"killed by {_signal_name(-exit_code)}"
    # `faulthandler` lists every thread; the one that was hit comes last.
    frame = _FRAME.search(text, max(text.rfind("Fatal Python error"), text.rfind("\nCurrent thread"), 0))
    if frame:
        return status, _clip(cause, f"in {frame['function']} ({frame['file']}:{frame['line']})")
    return status, _clip(cause, " | ".join(lines[-_LINES_KEPT:]))


def oom_kill_count() -> int:
    """Processes that the kernel's OOM killer has ended so far: in this control group, or on the whole machine.

    Only its growth means anything. 0 where the kernel does not tell.
    """
    for books in (*_control_group_books(), Path("/proc/vmstat")):
        try:
            found = re.search(r"^oom_kill (\d+)$", books.read_text(), re.MULTILINE)
        except OSError:
            continue  # this kernel, or this container, keeps its books elsewhere
        if found:
            return int(found[1])
    return 0


def _control_group_books() -> list[Path]:
    """Where the memory controller (version 2, then 1) may count kills: at our group's path, or at the mount's root.

    A container without a namespace for control groups reads the host's path and sees its own group at the root.
    """
    try:
        groups = Path("/proc/self/cgroup").read_text().splitlines()
    except OSError:
        return []  # not Linux
    books: list[Path] = []
    for group in groups:
        _, controllers, path = group.split(":", 2)
        if not controllers:
            root, name = Path("/sys/fs/cgroup"), "memory.events"
        elif "memory" in controllers.split(","):
            root, name = Path("/sys/fs/cgroup/memory"), "memory.oom_control"
        else:
            continue
        books += [root / path.lstrip("/") / name, root / name]
    return books


def _says_out_of_memory(lines: list[str]) -> bool:
    return any("std::bad_alloc" in line or line.startswith("MemoryError") for line in lines[-_LINES_KEPT:])


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _clip(cause: str, details: str) -> str:
    message = escaped(f"{cause}: {details}" if details else cause)
    return message if len(message) <= _MESSAGE_CHARACTERS else message[: _MESSAGE_CHARACTERS - 3] + "..."
