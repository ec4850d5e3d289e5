"""What binds processes together on Linux: a child that dies with its host, a host that inherits orphans."""

from __future__ import annotations

import ctypes
import os
import signal
import time
from contextlib import suppress

import psutil

# From <linux/prctl.h>.
_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36

_LIBC = ctypes.CDLL(None, use_errno=True)

KILL_PATIENCE_S = 10.0
"""A killed process that still has not gone by then is stuck inside the kernel, in a driver most likely."""


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
