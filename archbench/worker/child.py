"""What a process does between its birth and its end when it measures one group."""

from __future__ import annotations

import faulthandler
import gc
import os
import resource
import signal
import sys
import traceback
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from archbench.model.messages import ChildEvent, Request, TurnWord, decode_request
from archbench.worker import processes
from archbench.worker.wire import LineReader, Wire, write_message

Send = Callable[[ChildEvent], None]
Receive = Callable[[], TurnWord | None]
"""Sleeps until the parent says the next word to a child that takes turns; `None` when there will be none."""
Measure = Callable[[Request, Send, Receive], None]
"""Measures one group, takes turns or profiles; tells of all by `Send`, failures that are Python exceptions included."""

_OOM_SCORE = "600"
"""Of 1000: where memory runs out, the kernel should end the child that filled it, not its host or the user's shell."""


class Child:
    """A forked process that measures one group, as its host sees it.

    `messages` is the reading end of a pipe of its own for what it says, `noise` of one for all that it prints.
    """

    def __init__(self, request: Request, measure: Measure, wire: Wire) -> None:
        self.messages, messages = os.pipe()
        self.noise, noise = os.pipe()
        words, self._words = os.pipe()
        sys.stdout.flush()  # or the child would write what is left in these buffers a second time
        sys.stderr.flush()
        host = os.getpid()
        self.pid = os.fork()
        if self.pid == 0:
            try:
                os.close(self.messages)
                os.close(self.noise)
                os.close(self._words)
                _settle_in(host, wire, noise)
                heard = LineReader(words)

                def receive() -> TurnWord | None:
                    return _decode(heard.next_line())

                os._exit(_run(request, measure, lambda event: write_message(messages, event), receive))
            finally:
                os._exit(1)  # never into the host's code
        os.close(messages)
        os.close(noise)
        os.close(words)

    def tell(self, line: bytes) -> None:
        """Pass on one of the parent's words; a child that has died meanwhile is noticed elsewhere."""
        with suppress(BrokenPipeError):
            os.write(self._words, line + b"\n")

    def close(self) -> None:
        """Let go of the pipes."""
        os.close(self.messages)
        os.close(self.noise)
        os.close(self._words)


def _decode(line: bytes | None) -> TurnWord | None:
    """The word in a line. Raises `ValueError` for what is none."""
    if line is None:
        return None
    word = decode_request(line)
    if isinstance(word, Request):
        raise ValueError(f"told to begin {type(word).__name__} in the middle of another")
    return word


def _run(request: Request, measure: Measure, send: Send, receive: Receive) -> int:
    """Do what is asked; return the exit code, 0 or 1. What escapes from `measure` is printed with its traceback."""
    _expect_the_worst()
    gc.enable()
    try:
        measure(request, send, receive)
        return 0
    except BaseException:
        # `SystemExit` of a user's network too: only the exit code, and the cells left over, tell of it.
        traceback.print_exc()
        return 1
    finally:
        for stream in (sys.stdout, sys.stderr):
            with suppress(AttributeError, OSError, ValueError):  # a user's network may have replaced or closed it
                stream.flush()


def _settle_in(host: int, wire: Wire, noise: int) -> None:
    """Cut what a fork inherits and a child must not share: the host's life line, its output, its signals."""
    processes.die_with(host)
    wire.close()
    os.dup2(noise, 1)
    os.dup2(noise, 2)
    os.close(noise)
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)


def _expect_the_worst() -> None:
    """Prepare for a death by memory or by signal: be the one that goes, leave a traceback but no core file."""
    faulthandler.enable()
    # A core file of a process with a network in it takes longer to write than the group would have taken.
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
    with suppress(OSError):  # read-only in some containers, where the host then runs the same risk as the child
        Path("/proc/self/oom_score_adj").write_text(_OOM_SCORE)
