"""Runs tasks in processes that may die, and gives a row for every cell all the same. Never imports torch."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Protocol

from archbench.execute.local import LocalExecutor
from archbench.execute.locks import device_lock, run_lock
from archbench.model.messages import Event, Task

__all__ = ["Executor", "LocalExecutor", "device_lock", "run_lock"]


class Executor(Protocol):
    """Whoever can measure tasks: on this machine, or on others."""

    def run(self, tasks: Iterable[Task]) -> Iterator[Event]:
        """Measure the tasks; give what happens while it happens.

        Every cell of every task gets exactly one `CellFinished`, whether it was measured, failed, or took its process
        with it. Closing the iterator ends what it started. Raises `UnfitError` when nothing can be measured at all.
        """
        ...
