"""Processes in which nothing has run yet, for what must not meet, or must not leave, a trace in the measuring one.

A process that has used CUDA cannot be forked for more of it, and a new interpreter takes seconds to import torch. So a
process is set aside while the measuring one is still untouched, and forked each time that a fresh one is needed.
"""

from __future__ import annotations

import os
import pickle
import select
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from typing import Any, ParamSpec, TypeVar

from msgspec import Struct

from archbench.model.errors import ArchbenchError, in_one_line
from archbench.worker.processes import die_with

COUNTING_S, PREDICTING_S = 60.0, 15.0
"""What a user's network is given for one image, and for the probe of its memory. The usual ones take a second."""

_FORKED_TOO_LATE = "Unable to handle autograd's threading in combination with fork"
"""What torch says in a process that was forked from one where a backward pass had run, as in a notebook."""
_ENDING_S = 5.0
"""For a process that no longer writes to end by itself."""
_IMPORTS_S = 60.0
"""For a new interpreter to import torch."""

P = ParamSpec("P")
T = TypeVar("T")


class FreshProcessError(RuntimeError):
    """A fresh process raised, or died, before it could answer. The message is one line."""


class DiedError(FreshProcessError):
    """A fresh process died before it could answer: so will any other that does the same."""


class NoMemoryError(FreshProcessError, MemoryError):
    """A fresh process ran out of memory."""


class TooLongError(FreshProcessError):
    """A fresh process was ended since it took longer than it was given."""


class FreshProcesses:
    """Runs functions in processes of their own, which have everything imported and have done nothing.

    To be made before this process computes anything or touches a device: OpenMP's threads and CUDA's context do not
    survive a fork. They end with this process.
    """

    def __init__(self) -> None:
        self._line, line = Pipe()
        if os.fork() == 0:
            try:
                self._line.close()
                _serve(line)
            finally:
                os._exit(0)
        line.close()

    def call(self, deadline_s: float | None, function: Callable[P, T], *arguments: P.args, **options: P.kwargs) -> T:
        """Call `function` in a fresh process and return what it returns; both ways by pickle.

        Raises `FreshProcessError` where it raises, or dies, and `TooLongError` where it is not done after `deadline_s`,
        if there is one; an `ArchbenchError` comes as it is.
        """
        try:
            asked = pickle.dumps((function, arguments, options))
            self._line.send((deadline_s, asked))
            answer = pickle.loads(self._line.recv_bytes())
            if isinstance(answer, _Raised) and _FORKED_TOO_LATE in str(answer.error):
                answer = pickle.loads(_answer_of_an_interpreter(deadline_s, asked))
        except (EOFError, OSError, pickle.UnpicklingError) as error:
            raise FreshProcessError(f"the process set aside has died ({error})") from None
        if isinstance(answer, _Raised):
            raise answer.error
        return answer  # type: ignore[no-any-return]


def call_apart(
    aside: FreshProcesses | None, deadline_s: float, function: Callable[P, T], *arguments: P.args, **options: P.kwargs
) -> T:
    """Call a function that runs a network without data: in a process of its own where one was set `aside`, else here.

    One is for users' networks: they may keep a tensor from one call to the next, which without its data breaks the
    real step, or go through the batch image by image, of which the probe for memory has a thousand million.
    """
    if aside is None:
        return function(*arguments, **options)
    return aside.call(deadline_s, function, *arguments, **options)


class _Raised(Struct, frozen=True):
    error: Exception


def _serve(line: Connection) -> None:
    while True:
        try:
            deadline_s, asked = line.recv()
        except EOFError:
            return  # nobody is left to ask
        line.send_bytes(_answer(deadline_s, asked))


def _answer(deadline_s: float | None, asked: bytes) -> bytes:
    """What a child says before it ends; of one that dies over it, or is too slow, how it ended."""
    reading, writing = os.pipe()
    server = os.getpid()
    child = os.fork()
    if child == 0:
        try:
            die_with(server)  # in a group of its own, a signal to the server's does not reach it
            os.setpgid(0, 0)
            os.close(reading)
            said = pickle.dumps(_call(*pickle.loads(asked)))
            with os.fdopen(writing, "wb") as out:
                out.write(len(said).to_bytes(8, "big") + said)
        finally:
            os._exit(0)
    os.close(writing)
    try:
        with suppress(OSError):  # it may have come first, and be gone
            os.setpgid(child, child)
        told, in_time = _read(reading, deadline_s)
        if told is None and in_time:  # it is ending, and how is told by its own exit code
            end = time.monotonic() + _ENDING_S
            while os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None and time.monotonic() < end:
                time.sleep(0.01)
    finally:
        os.close(reading)
        for kill in (os.killpg, os.kill):  # what it has forked, too
            with suppress(ProcessLookupError):
                kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
    if told is not None:
        return told
    if not in_time:
        return pickle.dumps(_Raised(TooLongError(f"not done within {deadline_s:g} s")))
    code = os.waitstatus_to_exitcode(status)
    return pickle.dumps(_Raised(DiedError(f"the fresh process ended with {code} and without an answer")))


def _read(reading: int, deadline_s: float | None) -> tuple[bytes | None, bool]:
    """A whole answer, behind its length, if there is one; and whether the time sufficed.

    Nobody waits for the end of the pipe, which whatever the network has forked keeps open.
    """
    end = None if deadline_s is None else time.monotonic() + deadline_s
    said = b""
    while len(said) < 8 or len(said) < 8 + int.from_bytes(said[:8], "big"):
        if not select.select([reading], [], [], None if end is None else max(0.0, end - time.monotonic()))[0]:
            return None, False
        if not (chunk := os.read(reading, 1 << 16)):
            return None, True
        said += chunk
    return said[8:], True


def _answer_of_an_interpreter(deadline_s: float | None, asked: bytes) -> bytes:
    """The same, of an interpreter of its own: seconds later, and free of everything that was done in this one."""
    reading, writing = os.pipe()
    code = f"import sys; sys.path[:] = {sys.path!r}; from archbench.analyze.fresh import answer; answer({writing})"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, pass_fds=[writing]) as process:
        os.close(writing)
        with os.fdopen(reading, "rb") as back:
            assert process.stdin is not None
            with suppress(BrokenPipeError), process.stdin:
                process.stdin.write(asked)
            if not select.select([back], [], [], None if deadline_s is None else deadline_s + _IMPORTS_S)[0]:
                process.kill()
                return pickle.dumps(_Raised(TooLongError(f"not done within {deadline_s:g} s")))
            said = back.read()
    return said or pickle.dumps(_Raised(DiedError(f"the fresh process ended with {process.returncode}")))


def answer(line: int) -> None:
    """What an interpreter made for one question does: read it from standard input, and write to a descriptor."""
    import torch  # noqa: F401 - first, as in every process that measures

    done = pickle.dumps(_call(*pickle.load(sys.stdin.buffer)))
    with os.fdopen(line, "wb") as back:
        back.write(done)


def _call(function: Callable[..., Any], arguments: tuple[Any, ...], options: dict[str, Any]) -> Any:
    try:
        return function(*arguments, **options)
    except ArchbenchError as error:
        return _Raised(NoMemoryError(str(error)) if isinstance(error.__cause__, MemoryError) else error)
    except MemoryError:
        return _Raised(NoMemoryError("out of memory"))
    except Exception as error:  # whatever it runs: it is told to whoever asked
        traceback.print_exc()
        return _Raised(FreshProcessError(in_one_line(error)))
