"""One worker process as the parent holds it: started, greeted, listened to, and ended with all its offspring."""

from __future__ import annotations

import os
import queue
import shlex
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

import msgspec
import psutil

from archbench import __version__
from archbench.model.errors import UnfitError
from archbench.model.messages import MESSAGE_VERSION, FromParent, Ready, Reply, decode_reply, encode
from archbench.model.protocol import PROTOCOL_VERSION
from archbench.model.record import Status
from archbench.worker.death import LAST_WORDS_BYTES, explain, oom_kill_count

START_PATIENCE_S = 600.0
"""For the greeting: torch from a cold network disk takes minutes."""

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


class _Versions(msgspec.Struct):
    """The part of a greeting that every version has."""

    message_version: int
    protocol_version: int
    archbench_version: str


class WorkerProcess:
    """A started and greeted worker.

    It leads a session of its own, which keeps the terminal's Ctrl-C from it and lets its whole offspring be killed
    even after its own death. Raises `UnfitError` when it does not start or does not speak this version's messages.
    """

    def __init__(
        self, command: Sequence[str], env: Mapping[str, str] | None, log: Path | None, cwd: Path | None = None
    ) -> None:
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
        try:
            self.ready = self._greeting()
        except BaseException:
            self.kill()
            raise

    def send(self, message: FromParent) -> None:
        """Hand it a task, or a word for its child. A worker that has died meanwhile is noticed by `receive`."""
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):
            self._process.stdin.write(encode(message) + b"\n")
            self._process.stdin.flush()

    def receive(self, patience_s: float) -> Reply:
        """Wait for its next message. Raises `WorkerLostError` when there will be none, or none within `patience_s`."""
        line = self._next_line(patience_s)
        try:
            return decode_reply(line)
        except msgspec.MsgspecError as error:
            self.kill()
            raise WorkerLostError("crashed", f"the worker said what is no message ({error}): {line[:80]!r}") from None

    def stop(self) -> None:
        """Have it end itself and its child, which takes milliseconds, and kill whatever is left of them."""
        try:
            self._close_input()
            self._reader.join(_STOP_PATIENCE_S)
        finally:
            self.kill()

    def kill(self) -> int:
        """End it and all its offspring at once; return its exit code, which is its own if it was dead already."""
        kill_session(self._process)
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


def kill_session(process: subprocess.Popen[bytes]) -> None:
    """End a process that leads a session, and all that it has started; nothing happens where it has been waited for."""
    if process.returncode is not None:
        return  # it has been waited for: its number may be someone else's by now
    if sys.platform == "win32":
        for relative in psutil.Process(process.pid).children(recursive=True):
            relative.kill()
        process.kill()
        return
    # The number of a process that has not been waited for, and so that of its group, is not given to anyone else.
    with suppress(ProcessLookupError, PermissionError):  # what macOS says of a group of the dead
        os.killpg(process.pid, signal.SIGKILL)
