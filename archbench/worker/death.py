"""Why a process died, told from what it left behind: its exit code, its last words and the kernel's own count."""

from __future__ import annotations

import re
import signal
from pathlib import Path

from archbench.model.errors import escaped
from archbench.model.record import Status

LAST_WORDS_BYTES = 64 << 10
"""How much of a process's output is kept to explain its death."""

_MESSAGE_CHARACTERS = 500
_LINES_KEPT = 3
_FRAME = re.compile(r'^ {2}File "(?P<file>[^"]+)", line (?P<line>\d+) in (?P<function>\S+)', re.MULTILINE)
"""A line of `faulthandler`'s traceback, innermost frame first."""


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
