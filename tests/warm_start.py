"""Starts the interpreters that measure as forks of one that has torch: its import takes longer than most tests measure.

Such a process is what a host is once it has served a task: nothing has run in it, and it has the libraries. It is a
child of the test's process like any other, in a session of its own. How a host starts from nothing, and what it imports
for which task, has tests of its own; `ARCHBENCH_COLD=1` gives every test a host that does.
"""

from __future__ import annotations

import ctypes
import importlib
import json
import multiprocessing.util
import os
import runpy
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from contextlib import closing
from types import TracebackType
from typing import IO, Any, NoReturn, Self

LIBRARIES = ("archbench.measure", "torchvision", "torch._dynamo")
"""Beside torch: what hosts import before they fork, or leave to each child of a first task."""
FREE = {"COLUMNS", "HOME", "LINES", "NO_COLOR", "PATH", "PWD", "PYTHONPATH", "PY_COLORS", "TMPDIR", "USERPROFILE"}
"""Variables that may differ: neither Python nor a library has read them when it has been imported. `PYTHONPATH` is seen
to; as may those of pytest and archbench. With any other difference the interpreter starts from nothing."""
FAKE = "turn_taking_worker.py"
"""Needs no torch, but a gate starts two of it for every pair, and a fork is there at once."""
_LONGEST = 1 << 17
_PR_SET_CHILD_SUBREAPER = 36
_LIBC = ctypes.CDLL(None)
_one_at_a_time = threading.Lock()


class Nursery:
    """The process that has torch, in `env`; started when it is first needed, and gone with this one."""

    def __init__(self, env: Mapping[str, str]) -> None:
        self._line, line = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._env = env
        words, fd = [sys.executable, "-P", __file__], line.fileno()
        with line:
            self._process = subprocess.Popen([*words, str(fd)], env=env, pass_fds=[fd], stdin=subprocess.DEVNULL)

    def start(self, words: Sequence[str], env: Mapping[str, str], cwd: str, fds: Mapping[int, int]) -> int:
        """Fork one that runs `words` with `fds`, by the numbers that they will have there; its process's number."""
        asked = json.dumps([list(words), dict(env), cwd, list(fds)]).encode()
        with _one_at_a_time:  # threads start workers side by side
            # The one between, which ends at once, leaves its child to this process instead of to the system's first.
            _LIBC.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
            try:
                socket.send_fds(self._line, [asked], list(fds.values()))
                return int(self._line.recv(_LONGEST))
            finally:
                _LIBC.prctl(_PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)

    def close(self) -> None:
        self._line.close()
        self._process.wait()

    def can(self, command: Sequence[str], env: Mapping[str, str]) -> bool:
        """Whether a fork does what the command would do in this environment."""
        differ = {name for name in {*env, *self._env} if env.get(name) != self._env.get(name)}
        known = command[1:4] == ("-P", "-m", "archbench.worker") or command[1] == "-c" or command[1].endswith(FAKE)
        ours = command[0] == sys.executable and known
        return ours and all(name in FREE or name.startswith(("ARCHBENCH_", "PYTEST_")) for name in differ)


environment: dict[str, str] = {}
"""Of the tests, before any of them changes it."""


_nursery: list[Nursery] = []


def nursery() -> Nursery:
    with _one_at_a_time:
        if not _nursery:
            _nursery.append(Nursery(environment))
    return _nursery[0]


def end() -> None:
    """Let the process go that has torch, if there is one."""
    for one in _nursery:
        one.close()


class Popen:
    """What archbench uses of `subprocess.Popen`, by a fork where that does as well."""

    def __new__(cls, command: Sequence[str], **options: Any) -> Any:
        if not nursery().can(tuple(command), options.get("env") or os.environ):
            return subprocess.Popen(command, **options)
        return super().__new__(cls)

    def __init__(
        self,
        command: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        cwd: object = None,
        stdin: int | None = None,
        stdout: int | None = None,
        stderr: IO[bytes] | None = None,
        pass_fds: Sequence[int] = (),
        start_new_session: bool = True,
    ) -> None:
        self.returncode: int | None = None
        self.stdin: IO[bytes] | None = None
        self.stdout: IO[bytes] | None = None
        theirs, fds = [], {0: 0, 1: 1, 2: stderr.fileno() if stderr else 2, **{fd: fd for fd in pass_fds}}
        if stdin is not None:
            fds[0], ours = os.pipe()
            theirs.append(fds[0])
            self.stdin = os.fdopen(ours, "wb")
        if stdout is not None:
            ours, fds[1] = os.pipe()
            theirs.append(fds[1])
            self.stdout = os.fdopen(ours, "rb")
        try:
            self.pid = nursery().start(command[1:], env or os.environ, str(cwd or os.getcwd()), fds)
        finally:
            for fd in theirs:
                os.close(fd)

    def wait(self) -> int:
        if self.returncode is None:
            self.returncode = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        return self.returncode

    def kill(self) -> None:
        if self.returncode is None:
            os.kill(self.pid, signal.SIGKILL)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type | None, error: object, traceback: TracebackType | None) -> None:
        for stream in (self.stdin, self.stdout):
            if stream:
                stream.close()
        self.wait()


PIPE = subprocess.PIPE
_spawn = multiprocessing.util.spawnv_passfds


def spawn(path: bytes, words: Sequence[str], fds: Sequence[int]) -> int:
    """What `multiprocessing` starts by: a process of a pool, which imports torch before its first task, is forked."""
    if "--multiprocessing-fork" not in words:
        return _spawn(path, words, fds)
    return int(Popen([os.fsdecode(path), *words[words.index("-c") :]], pass_fds=fds).pid)


def _serve(line: socket.socket) -> None:
    path = sys.path[len(_python_path(os.environ)) :]
    while True:
        asked, fds, _, _ = socket.recv_fds(line, _LONGEST, 16)
        if not asked:
            return
        words, env, cwd, numbers = json.loads(asked)
        reading, writing = os.pipe()
        if (between := os.fork()) == 0:
            if (child := os.fork()) == 0:
                line.close()
                os.close(reading)
                os.close(writing)
                _become(words, env, cwd, dict(zip(numbers, fds, strict=True)), path)
            os.write(writing, str(child).encode())
            os._exit(0)
        os.waitpid(between, 0)
        for fd in (writing, *fds):
            os.close(fd)
        line.send(os.read(reading, 100))
        os.close(reading)


def _python_path(env: Mapping[str, str]) -> list[str]:
    return [part for part in env.get("PYTHONPATH", "").split(os.pathsep) if part]


def _become(words: list[str], env: dict[str, str], cwd: str, fds: dict[int, int], path: list[str]) -> NoReturn:
    """Be the interpreter that was asked for, to its end."""
    code = 1
    try:
        os.setsid()
        # First out of the way of one another.
        kept = {number: os.dup2(fd, 200 + number, inheritable=False) for number, fd in fds.items()}
        for fd in fds.values():
            os.close(fd)
        for number, fd in kept.items():
            os.dup2(fd, number)
            os.close(fd)
        os.chdir(cwd)
        os.environ.clear()
        os.environ.update(env)
        tempfile.tempdir = None
        sys.path[:] = [*_python_path(env), *path]
        importlib.invalidate_caches()
        if words[0] == "-c":
            sys.argv = ["-c", *words[2:]]
            exec(compile(words[1], "<string>", "exec"), {"__name__": "__main__"})
        elif words[0].endswith(".py"):
            sys.argv = words
            sys.path.insert(0, os.path.dirname(words[0]))
            runpy.run_path(words[0], run_name="__main__")
        else:
            sys.argv = words[2:]
            runpy.run_module(words[2], run_name="__main__", alter_sys=True)
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        sys.excepthook(*sys.exc_info())  # type: ignore[arg-type]
    finally:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        os._exit(code)


if __name__ == "__main__":
    from archbench.worker import preload

    preload.import_torch()
    for name in LIBRARIES:
        preload._import_once(name)
    with closing(socket.socket(fileno=int(sys.argv[1]))) as asking:
        _serve(asking)
