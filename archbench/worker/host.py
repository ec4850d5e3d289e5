"""The host: it has torch imported and, for every task, forks a child that measures the group and is watched.

It stays a process of one thread that runs no tensor operation and never touches an accelerator: after either, a
forked child hangs (OpenMP's threads do not survive a fork) or cannot use the device (nor does CUDA).
"""

from __future__ import annotations

import os
import selectors
import signal
import sys
from collections.abc import Callable
from typing import NoReturn

import msgspec

from archbench import __version__
from archbench.model.environment import Environment
from archbench.model.messages import (
    ChildDied,
    GroupFinished,
    Ready,
    Request,
    Task,
    TurnTask,
    decode_event,
    decode_request,
)
from archbench.model.record import Status
from archbench.worker import processes
from archbench.worker.child import Child, LineReader, Measure, Wire
from archbench.worker.group_tracker import Progress
from archbench.worker.processes import LAST_WORDS_BYTES, explain, oom_kill_count

_LOGGED_BYTES = 16 << 20
"""A child that prints without end must not fill the disk."""

_NOISE_BYTES = 64 << 10


def serve(
    wire: Wire,
    measure: Measure,
    *,
    environment: Environment,
    before_fork: Callable[[Request], None] = lambda request: None,
) -> NoReturn:
    """Greet the parent, serve it until it closes its end, and end this process.

    `before_fork` imports what the child will need, where that is safe and worth sharing.
    """
    wire.send(Ready(archbench_version=__version__, pid=os.getpid(), environment=environment))
    processes.adopt_orphans()
    ended = _ended_children()
    try:
        while (line := wire.requests.next_line()) is not None:
            request = decode_request(line)
            if not isinstance(request, Request):
                continue  # a word to a child that has died meanwhile
            before_fork(request)
            if not _measure_in_child(request, measure, wire, ended):
                break
    except BrokenPipeError:
        pass  # the parent died while it was being told something
    finally:
        processes.kill_descendants()
    sys.stderr.flush()
    os._exit(0)  # taking torch down in good order takes half a second, and frees nothing that an end does not


def _ended_children() -> int:
    """A pipe that can be read from whenever a child has ended: `pidfd_open` needs a newer kernel than torch does."""
    read, write = os.pipe()
    os.set_blocking(write, False)
    signal.set_wakeup_fd(write, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda number, frame: None)  # without a handler there is no wake-up
    return read


def _measure_in_child(request: Request, measure: Measure, wire: Wire, ended: int) -> bool:
    """Fork, watch, clean up; return false when the parent has gone meanwhile."""
    child = Child(request, measure, wire)
    takes_turns = isinstance(request, TurnTask) or (isinstance(request, Task) and request.wave > 0)
    try:
        watch = Watch(child, wire)
        with selectors.DefaultSelector() as selector:
            selector.register(wire.requests.fd, selectors.EVENT_READ, wire.requests.read)
            selector.register(ended, selectors.EVENT_READ, lambda: bool(os.read(ended, 1024)))
            selector.register(child.messages, selectors.EVENT_READ, watch.read_messages)
            selector.register(child.noise, selectors.EVENT_READ, watch.read_noise)
            exit_code = None
            while exit_code is None:
                for key, _ in selector.select(watch.timeout_s):
                    if key.data() is False:
                        selector.unregister(key.fileobj)
                if wire.requests.ended:
                    return False
                while takes_turns and wire.requests.lines:
                    child.tell(wire.requests.lines.popleft())
                watch.kill_if_overdue()
                exit_code = watch.exit_code()
        # Only now, with compile workers and all other offspring gone, may the next group be measured.
        processes.kill_descendants()
        watch.record_end(exit_code)
    finally:
        child.close()
    wire.send(GroupFinished())
    return True


class Watch:
    """What the host knows of its child. The `read_` methods return false when there is nothing more to read."""

    def __init__(self, child: Child, wire: Wire) -> None:
        self._child = child
        self._wire = wire
        self._messages = LineReader(child.messages)
        self._progress = Progress()
        self._last_words = b""
        self._logged = 0
        self._oom_kills = oom_kill_count()
        self._garbled = False
        self._killed_for: tuple[Status, str] | None = None
        self._killed_in: str | None = None

    @property
    def timeout_s(self) -> float | None:
        """How long to sleep until the child is overdue; `None` once it has been killed and only its end is awaited."""
        return None if self._killed_for else max(0.0, self._progress.left_s)

    def read_messages(self) -> bool:
        """Pass on what the child says. Half a line, from a child that died over it, is never passed on."""
        self._messages.read()
        while self._messages.lines:
            line = self._messages.lines.popleft()
            try:
                event = decode_event(line)
            except msgspec.MsgspecError as error:
                self._garbled = True
                self._kill("crashed", f"said what is no message ({error}): {line[:80]!r}")
                return False
            self._progress.note(event)
            self._wire.send(event)
        return not self._messages.ended

    def read_noise(self) -> bool:
        """Keep the end of what the child prints, and log it."""
        chunk = os.read(self._child.noise, _NOISE_BYTES)
        self._last_words = (self._last_words + chunk)[-LAST_WORDS_BYTES:]
        if self._logged < _LOGGED_BYTES:
            self._logged += os.write(2, chunk)
        return bool(chunk)

    def kill_if_overdue(self) -> None:
        """Kill the child that has let its deadline pass."""
        if self._killed_for is None and self._progress.left_s <= 0:
            self._kill("timeout", f"killed: not finished within {self._progress.allowed_s:g} s")

    def exit_code(self) -> int | None:
        """The child's exit code, negative for a signal; `None` while it lives."""
        pid, status = os.waitpid(self._child.pid, os.WNOHANG)
        return os.waitstatus_to_exitcode(status) if pid else None

    def record_end(self, exit_code: int) -> None:
        """Pass on what the dead child had still written, and say so if it did not end in peace.

        Every writer must be dead, or this would wait for the living.
        """
        while not self._garbled and self.read_messages():
            pass
        while self.read_noise():
            pass
        cell_id, phase = self._progress.cell_id, self._progress.phase
        if self._killed_for is None:
            if exit_code == 0 and cell_id is None:
                return
            self._killed_for = explain(exit_code, self._last_words, oom_kill_count() - self._oom_kills)
        elif cell_id != self._killed_in:
            return  # it finished its cell in the very moment of its deadline; what is left of the group runs again
        status, message = self._killed_for
        self._wire.send(ChildDied(cell_id=cell_id, phase=phase, status=status, message=message))

    def _kill(self, status: Status, message: str) -> None:
        self._killed_for = (status, message)
        self._killed_in = self._progress.cell_id
        os.kill(self._child.pid, signal.SIGKILL)
