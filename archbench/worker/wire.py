"""Whole lines over pipes, and a private pair of them where nobody else's `print` can get in between."""

from __future__ import annotations

import os
from collections import deque

from archbench.model.messages import Reply, encode

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
