"""Processes in which nothing has run yet, for what must not meet, or must not leave, a trace in the measuring one.

A process that has used CUDA cannot be forked for more of it, and a new interpreter takes seconds to import torch. So a
process is set aside while the measuring one is still untouched, and forked each time that a fresh one is needed.
"""

from __future__ import annotations

import os
import pickle
import traceback
from collections.abc import Callable
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from typing import Any, ParamSpec, TypeVar

from archbench.model.errors import in_one_line

P = ParamSpec("P")
T = TypeVar("T")


class FreshProcessError(RuntimeError):
    """A fresh process raised, or died, before it could answer. The message is one line."""


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

    def call(self, function: Callable[P, T], *arguments: P.args, **options: P.kwargs) -> T:
        """Call `function` in a fresh process and return what it returns; both ways by pickle.

        Raises `FreshProcessError` where it raises, or dies.
        """
        try:
            self._line.send((function, arguments, options))
            done, answer = pickle.loads(self._line.recv_bytes())
        except (EOFError, OSError, pickle.UnpicklingError) as error:
            raise FreshProcessError(f"the process set aside has died ({error})") from None
        if not done:
            raise FreshProcessError(answer)
        return answer  # type: ignore[no-any-return]


def _serve(line: Connection) -> None:
    while True:
        try:
            asked = line.recv_bytes()
        except EOFError:
            return  # nobody is left to ask
        line.send_bytes(_answer(asked))


def _answer(asked: bytes) -> bytes:
    """What a child says before it ends; of one that dies over it, how it died."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.close(reading)
            with os.fdopen(writing, "wb") as out:
                out.write(pickle.dumps(_call(*pickle.loads(asked))))
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as back:
        said = back.read()
    _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    return said or pickle.dumps((False, f"the fresh process ended with {code} and without an answer"))


def _call(function: Callable[..., Any], arguments: tuple[Any, ...], options: dict[str, Any]) -> tuple[bool, Any]:
    try:
        return True, function(*arguments, **options)
    except Exception as error:  # whatever it runs: it is told to whoever asked
        traceback.print_exc()
        return False, in_one_line(error)
