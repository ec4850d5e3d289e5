"""The parent's end of a worker: started when first needed, greeted, listened to, and ended with all its offspring."""

from __future__ import annotations

import copy
import os
import queue
import shlex
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import BinaryIO, Self

import msgspec

from archbench import __version__
from archbench.model.cell import Network
from archbench.model.errors import UnfitError
from archbench.model.messages import MESSAGE_VERSION, FromParent, Ready, Reply, decode_reply, encode
from archbench.model.protocol import PROTOCOL_VERSION
from archbench.model.record import Facts, Status
from archbench.worker.processes import LAST_WORDS_BYTES, explain, oom_kill_count

WORKER = ("-P", "-m", "archbench.worker")
"""What an interpreter is to run. `-P`: not a file `random.py` that happens to lie in the current directory."""

START_PATIENCE_S = 600.0
"""For the greeting: torch from a cold network disk takes minutes."""

HOST_GRACE_S = 60.0
"""On top of a child's deadline, which its host enforces; only then is the host itself taken for hung."""

_STOP_PATIENCE_S = 3.0
"""For a worker to end by itself, its child killed, before it is killed too."""

_WAKE_UP_S = 1.0
"""After a suspended parent (Ctrl-Z) has come back, its reader needs a moment to fetch what is waiting in the pipe."""


class WorkerLostError(Exception):
    """The worker died, fell silent or is out of its mind; it has been ended, with all that it had started."""

    def __init__(self, status: Status, message: str) -> None:
        super().__init__(message)
        self.status: Status = status
        self.message = message


class WorkerClient:
    """A worker of one interpreter and environment, kept running from one task to the next.

    A context manager: leaving it ends every process that it started.

    - `python`, `arguments`: the interpreter that measures, any with archbench installed, and what it is to run.
    - `device`: `cpu` or `cuda:N`; what the worker's greeting describes.
    - `env`: its environment variables, by default those of this process; `cwd`: where it runs.
    - `log`: file to append to what workers and networks print; by default only the end of it is kept for messages.
    - `facts`: what is known of a network without building it, for the rows of the dead.
    """

    def __init__(
        self,
        python: str = sys.executable,
        *,
        device: str = "cpu",
        arguments: Sequence[str] = WORKER,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        log: Path | None = None,
        facts: Callable[[Network], Facts] | None = None,
    ) -> None:
        self.facts = facts or catalogue_facts
        self._command = (python, *arguments, "--device", device)
        self._env = env
        self._cwd = cwd
        self._log = log
        self._worker: _Worker | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def another(self) -> WorkerClient:
        """One more of the kind, not started yet."""
        other = copy.copy(self)
        other._worker = None
        return other

    def launch(self) -> None:
        """Start a worker unless there is one, and do not wait for it: it imports torch. Raises `UnfitError`."""
        if self._worker is None:
            self._worker = _Worker(self._command, self._env, self._log, self._cwd)

    def start(self) -> Ready:
        """Start a worker unless one is waiting, and return its greeting.

        Raises `UnfitError` when it does not start or its archbench is not compatible with this one.
        """
        return self._running().ready

    def send(self, message: FromParent) -> None:
        """Hand it a task, or a word for its child, starting a worker if there is none: errors as for `start`.

        A worker that has died meanwhile is noticed by `receive`.
        """
        self._running().send(message)

    def receive(self, patience_s: float) -> Reply:
        """Its next message. Raises `WorkerLostError`, and has ended the worker, when there is none within that time."""
        assert self._worker is not None, "nothing was sent"
        try:
            return self._worker.receive(patience_s)
        except WorkerLostError:
            self._worker = None
            raise

    def kill(self) -> None:
        """End the worker and its child at once."""
        worker, self._worker = self._worker, None
        if worker is not None:
            worker.kill()

    def close(self) -> None:
        """End the worker, and what it is doing."""
        worker, self._worker = self._worker, None
        if worker is not None:
            worker.stop()

    def _running(self) -> _Worker:
        try:
            return self._greeted()
        except WorkerLostError:  # a second one may be spared what killed the first
            try:
                return self._greeted()
            except WorkerLostError as lost:
                raise UnfitError(f"the worker is killed while it starts: {lost.message}") from None

    def _greeted(self) -> _Worker:
        self.launch()
        worker, self._worker = self._worker, None  # one that does not greet is none
        assert worker is not None, "it has been launched"
        worker.ready  # noqa: B018 - waited for where it has not come yet
        self._worker = worker
        return worker


class _Worker:
    """A started worker.

    It leads a session of its own, which keeps the terminal's Ctrl-C from it and lets its whole offspring be killed
    even after its own death. Raises `UnfitError` when it does not start.
    """

    def __init__(
        self, command: Sequence[str], env: Mapping[str, str] | None, log: Path | None, cwd: Path | None
    ) -> None:
        if sys.platform != "linux":
            raise UnfitError(f"archbench measures on Linux alone, and this is {sys.platform}")
        self._command = command
        self._oom_kills = oom_kill_count()
        self._log: BinaryIO = open(log, "a+b") if log else tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as we
        self._log_start = self._log.seek(0, os.SEEK_END)
        try:
            self._process = subprocess.Popen(
                command,
                env=env,
                cwd=cwd,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._log,
                start_new_session=True,
            )
        except OSError as error:
            raise UnfitError(f"cannot start {command[0]}: {error.strerror}; is it a Python interpreter?") from None
        self._lines: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    @cached_property
    def ready(self) -> Ready:
        """Its greeting, waited for.

        Raises `UnfitError` when it does not come or does not speak this version's messages, and `WorkerLostError` when
        it is killed before it has said anything; then it has been ended.
        """
        try:
            return self._greeting()
        except BaseException:
            self.kill()
            raise

    def send(self, message: FromParent) -> None:
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):
            self._process.stdin.write(encode(message) + b"\n")
            self._process.stdin.flush()

    def receive(self, patience_s: float) -> Reply:
        line = self._next_line(patience_s)
        try:
            return decode_reply(line)
        except msgspec.MsgspecError as error:
            self.kill()
            raise WorkerLostError("crashed", f"the worker said what is no message ({error}): {line[:80]!r}") from None

    def stop(self) -> None:
        """Have it end itself and its child, which takes milliseconds, and kill whatever is left of them."""
        try:
            if "ready" in self.__dict__:  # before, it has no child, and hears nothing while it imports torch
                self._close_input()
                self._reader.join(_STOP_PATIENCE_S)
        finally:
            self.kill()

    def kill(self) -> int:
        """End it and all its offspring at once; return its exit code, which is its own if it was dead already."""
        # The number of a process that has not been waited for, and so that of its group, is not given to anyone else.
        if self._process.returncode is None:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
        exit_code = self._process.wait()
        self._reader.join()
        self._close_input()
        if not self._log.closed:
            size = self._log.seek(0, os.SEEK_END)
            self._log.seek(max(self._log_start, size - LAST_WORDS_BYTES))
            self._last_words = self._log.read()
            self._log.close()
        return exit_code

    def _greeting(self) -> Ready:
        try:
            line = self._next_line(START_PATIENCE_S)
        except WorkerLostError as lost:
            if "No module named 'archbench'" in lost.message:
                raise UnfitError(f"{self._command[0]} has no archbench; install this version there") from None
            if (self._process.returncode or 0) < 0 and lost.status != "timeout":
                raise  # killed from outside, as likely as not
            raise UnfitError(f"the worker does not start ({shlex.join(self._command)}): {lost.message}") from None
        try:
            theirs = msgspec.json.decode(line, type=_Versions)
        except msgspec.MsgspecError:
            raise UnfitError(f"this is no archbench worker: {shlex.join(self._command)}") from None
        if (theirs.message_version, theirs.protocol_version) != (MESSAGE_VERSION, PROTOCOL_VERSION):
            raise UnfitError(
                f"{self._command[0]} has archbench {theirs.archbench_version} (messages {theirs.message_version}, "
                f"protocol {theirs.protocol_version}), this is archbench {__version__} (messages {MESSAGE_VERSION}, "
                f"protocol {PROTOCOL_VERSION}); install the same version there"
            )
        return msgspec.json.decode(line, type=Ready)

    def _next_line(self, patience_s: float) -> bytes:
        for patience in (max(0.0, patience_s), _WAKE_UP_S):
            try:
                line = self._lines.get(timeout=patience)
            except queue.Empty:
                continue
            if line is not None:
                return line
            exit_code = self.kill()
            status, message = explain(exit_code, self._last_words, oom_kill_count() - self._oom_kills)
            raise WorkerLostError(status, f"worker {message}")
        self.kill()
        raise WorkerLostError("timeout", "no word from the worker within the time allowed; it was killed")

    def _read(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as replies:
            for line in replies:
                if line.endswith(b"\n"):  # else it died over it
                    self._lines.put(line)
        self._lines.put(None)

    def _close_input(self) -> None:
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):  # a task that it did not live to read
            self._process.stdin.close()


class _Versions(msgspec.Struct):
    """The part of a greeting that every version has."""

    message_version: int
    protocol_version: int
    archbench_version: str


def catalogue_facts(network: Network) -> Facts:
    """What the catalogue knows of a network without building it."""
    from archbench.catalog import facts

    return facts(network)
