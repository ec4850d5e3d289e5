"""The process that measures one group: its birth, its end, and the pipes between it, its host and the parent."""

from __future__ import annotations

import faulthandler
import gc
import os
import resource
import signal
import sys
import traceback
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path

from archbench.model.messages import ChildEvent, Reply, Request, TurnWord, decode_request, encode
from archbench.worker import processes

Send = Callable[[ChildEvent], None]
Receive = Callable[[], TurnWord]
"""Sleeps until the parent says the next word to a child that takes turns; ends the process when there will be none."""
Measure = Callable[[Request, Send, Receive], None]
"""Measures one group, takes turns or profiles; tells of all by `Send`, failures that are Python exceptions included."""

_OOM_SCORE = "600"
"""Of 1000: where memory runs out, the kernel should end the child that filled it, not its host or the user's shell."""
_CHUNK_BYTES = 1 << 20


class LineReader:
    """Whole lines out of a pipe. What follows the last newline is kept until the rest of it comes."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self.lines: deque[bytes] = deque()
        """Read, but not yet taken."""
        self.ended = False
        """No more will come: every writer has closed its end."""
        self._partial: list[bytes] = []

    def read(self) -> bool:
        """Wait for data and add to `lines` what it completes; return false at the end of the stream."""
        chunk = os.read(self.fd, _CHUNK_BYTES)
        self.ended = not chunk
        first, *others = chunk.split(b"\n")
        self._partial.append(first)
        if others:
            self.lines += [b"".join(self._partial), *others[:-1]]
            self._partial = [others[-1]]
        return not self.ended

    def next_line(self) -> bytes | None:
        """Wait for the next whole line and take it; `None` when there will be none."""
        while not self.lines and not self.ended:
            self.read()
        return self.lines.popleft() if self.lines else None


def write_message(fd: int, reply: Reply) -> None:
    """Write one message and its newline, waiting for the reader as often as the pipe is full."""
    rest = memoryview(encode(reply) + b"\n")
    while rest:
        rest = rest[os.write(fd, rest) :]


class Wire:
    """This process's standard input and output, taken away from everybody else in it.

    Afterwards fd 0 reads nothing and fd 1 is stderr, so that a C library, a user's network or a subprocess that
    prints, or reads, cannot corrupt the messages.
    """

    def __init__(self) -> None:
        self.requests = LineReader(os.dup(0))
        self.replies = os.dup(1)
        nothing = os.open(os.devnull, os.O_RDONLY)
        os.dup2(nothing, 0)
        os.close(nothing)
        os.dup2(2, 1)

    def send(self, reply: Reply) -> None:
        """Write one message to the parent. Raises `BrokenPipeError` when it has gone."""
        write_message(self.replies, reply)

    def close(self) -> None:
        """Let go of both ends: for the child, which must not keep its host's line open."""
        os.close(self.requests.fd)
        os.close(self.replies)


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
                self.close()
                _settle_in(host, wire, noise)
                hear = partial(_next_word, LineReader(words))
                os._exit(_run(request, measure, partial(write_message, messages), hear))
            finally:
                os._exit(1)  # never into the host's code
        for fd in (messages, noise, words):
            os.close(fd)

    def tell(self, line: bytes) -> None:
        """Pass on one of the parent's words; a child that has died meanwhile is noticed elsewhere."""
        with suppress(BrokenPipeError):
            os.write(self._words, line + b"\n")

    def close(self) -> None:
        """Let go of the pipes."""
        for fd in (self.messages, self.noise, self._words):
            os.close(fd)


def _next_word(heard: LineReader) -> TurnWord:
    """Wait for it. Raises `ValueError` for what is none."""
    line = heard.next_line()
    if line is None:
        sys.exit("the parent has gone")  # nobody is left to read a row
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
