"""Measures tasks on this machine: a worker host that forks a child a group, or a fresh interpreter a group."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

from archbench.model.blank import Facts
from archbench.model.cell import Network
from archbench.model.errors import UnfitError
from archbench.model.messages import CellFinished, Event, GroupFinished, Ready, Task
from archbench.worker.ledger import FactsOf, Ledger, OutOfTurnError
from archbench.worker.worker_process import WorkerLostError, WorkerProcess

Isolation = Literal["fork", "spawn"]

DEFAULT_ISOLATION: Isolation = "fork" if sys.platform == "linux" else "spawn"
"""macOS has fork, but its system libraries do not survive one."""

HOST_DEATHS_IN_A_ROW = 3
"""A host runs nothing that could kill it. If it dies this often before one cell is measured, the machine is sick."""

HOST_GRACE_S = 60.0
"""On top of a child's deadline, which its host enforces; only then is the host itself taken for hung."""


class LocalExecutor:
    """Measures tasks on this machine. A context manager: leaving it ends every process that it started.

    - `device`: `cpu` or `cuda:N`; what the worker's greeting describes.
    - `python`, `arguments`: the interpreter that measures, any with archbench installed, and what it is to run.
    - `env`: its environment variables; by default those of this process.
    - `log`: file to append to what workers and networks print; by default only the end of it is kept for messages.
    - `isolation`: `fork` shares one import of torch among all groups; `spawn` pays for it again with every group.
    - `facts`: what is known of a network without building it, for the rows of the dead.
    """

    def __init__(
        self,
        *,
        device: str = "cpu",
        python: str = sys.executable,
        arguments: Sequence[str] = ("-m", "archbench.worker"),
        env: Mapping[str, str] | None = None,
        log: Path | None = None,
        isolation: Isolation = DEFAULT_ISOLATION,
        facts: FactsOf | None = None,
    ) -> None:
        self._command = worker_command(python, arguments, device, isolation)
        self._env = env
        self._log = log
        self._isolation = isolation
        self._facts = facts or catalogue_facts
        self._worker: WorkerProcess | None = None
        self._deaths_in_a_row = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def start(self) -> Ready:
        """Start a worker unless one is waiting, and return its greeting.

        Raises `UnfitError` when it does not start or its archbench is not compatible with this one.
        """
        if self._worker is None:
            self._worker = WorkerProcess(self._command, self._env, self._log)
        return self._worker.ready

    def run(self, tasks: Iterable[Task]) -> Iterator[Event]:
        """Measure the tasks one after the other; give what happens while it happens.

        Every cell of every task gets exactly one `CellFinished`, whether it was measured, failed, or took its process
        with it.
        `KeyboardInterrupt` in here, or closing the iterator, ends the worker and its child at once. If this process
        is killed instead, they end by themselves. Raises `UnfitError` when no worker starts, or hosts keep dying.
        """
        try:
            for task in tasks:
                yield from self._run(task)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """End the worker, and what it is doing."""
        worker, self._worker = self._worker, None
        if worker is not None:
            worker.stop()

    def _run(self, task: Task) -> Iterator[Event]:
        ledger = Ledger(task, self._facts)
        while (rest := ledger.begin()) is not None:
            self.start()
            try:
                yield from self._attempt(rest, ledger)
            except WorkerLostError as lost:
                self._worker = None
                yield from ledger.bury(lost.status, lost.message)
                self._count_death(lost)
            yield from ledger.settle()
            if self._isolation == "spawn":
                self.close()

    def _attempt(self, rest: Task, ledger: Ledger) -> Iterator[Event]:
        """Have the worker measure `rest` and follow it to the end of the group."""
        assert self._worker is not None
        self._worker.send(rest)
        grace_s = HOST_GRACE_S if self._isolation == "fork" else 0.0
        while not isinstance(reply := self._worker.receive(ledger.progress.left_s + grace_s), GroupFinished):
            try:
                for event in ledger.accept(reply):
                    yield event
                    if isinstance(event, CellFinished):
                        self._deaths_in_a_row = 0
            except OutOfTurnError as error:
                self._worker.kill()
                raise WorkerLostError("crashed", f"worker killed: {error}") from None

    def _count_death(self, lost: WorkerLostError) -> None:
        self._deaths_in_a_row += 1
        if self._isolation == "fork" and self._deaths_in_a_row >= HOST_DEATHS_IN_A_ROW:
            raise UnfitError(
                f"the worker host died {self._deaths_in_a_row} times in a row, the last time: {lost.message}; "
                "what is finished is kept"
            )


def worker_command(python: str, arguments: Sequence[str], device: str, isolation: Isolation) -> tuple[str, ...]:
    """The command line of a worker: a host that forks, or one that measures a single group itself."""
    alone = () if isolation == "fork" else ("--alone",)
    return (python, *arguments, "--device", device, *alone)


def catalogue_facts(network: Network) -> Facts:
    """What the catalogue knows of a network without building it."""
    from archbench.catalog import facts

    return facts(network)
