"""How far a process has come with its group, which cells still lack their row, and which rows the dead leave behind."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime

from msgspec import structs

from archbench.model.cell import Cell, Network
from archbench.model.messages import (
    Calibrated,
    CellFinished,
    CellStarted,
    ChildDied,
    ChildEvent,
    Event,
    PhaseStarted,
    ProfileDone,
    ProfileFailed,
    Reply,
    StepGlimpsed,
    Task,
    Waiting,
)
from archbench.model.record import Facts, Status, failed_record

SILENCE_S = 300.0
"""Allowed outside any cell: forking, importing from a slow disk, and ending."""
WAITING_S = 86_400.0
"""Allowed to a process that sleeps until it is told to go on."""

FactsOf = Callable[[Network], Facts]


class Progress:
    """Follows one child by what it says. Times are those of `time.monotonic`."""

    def __init__(self) -> None:
        self.cell_id: str | None = None
        self.phase: str | None = None
        self._allow(SILENCE_S)

    def note(self, event: ChildEvent) -> None:
        """Take account of something that the child said."""
        match event:
            case CellStarted():
                self.cell_id, self.phase = event.cell_id, None
                self._allow(event.deadline_s)
            case PhaseStarted():
                self.cell_id, self.phase = event.cell_id, event.phase
            case Waiting():
                self._allow(WAITING_S)
            case CellFinished() | ProfileDone() | ProfileFailed():
                self.cell_id = self.phase = None
                self._allow(SILENCE_S)

    @property
    def left_s(self) -> float:
        """Time until the child is overdue; negative once it is."""
        return self._due - time.monotonic()

    def _allow(self, seconds: float) -> None:
        self.allowed_s = seconds
        self._due = time.monotonic() + seconds


class OutOfTurnError(Exception):
    """A worker said something that it could not have meant: it, or its line, is broken."""


class GroupTracker:
    """Sees to it that every cell of a task gets exactly one row, whatever becomes of the processes that measure it.

    Between `begin` and `settle` lies one attempt at the cells that are left, by one process. Every attempt settles at
    least one cell, so that the attempts come to an end.
    """

    def __init__(self, task: Task, facts: FactsOf) -> None:
        self.progress = Progress()
        self._task = task
        self._facts = facts
        self._pending = list(task.group.cells)
        self._pending_at_begin = 0
        self._smallest_oom: dict[str, int] = {}
        """By `Cell.group_id`: what does not fit in fp32 may fit under AMP."""
        self._started = datetime.now(UTC)

    def begin(self) -> Task | None:
        """Return the task with the cells that still lack their row, for a new attempt; `None` when all have one."""
        if not self._pending:
            return None
        self.progress = Progress()
        self._pending_at_begin = len(self._pending)
        self._started = datetime.now(UTC)
        return structs.replace(self._task, group=structs.replace(self._task.group, cells=tuple(self._pending)))

    def accept(self, reply: Reply) -> Iterator[Event]:
        """Enter what a worker says; give what the executor's caller should see of it.

        Raises `OutOfTurnError` where the reply is about a cell that was not asked for or has its row already.
        """
        match reply:
            case Calibrated():
                self._task = structs.replace(self._task, calibrate=False)  # a second attempt need not do it again
                yield reply
            case CellStarted() | PhaseStarted() | StepGlimpsed():
                self._cell(reply.cell_id)
                if isinstance(reply, CellStarted):
                    self._started = datetime.now(UTC)
                self.progress.note(reply)
                yield reply
            case CellFinished():
                self._settle(self._cell(reply.record.cell_id), reply.record.status)
                self.progress.note(reply)
                yield reply
            case ChildDied():
                yield from self.record_failure(reply.status, reply.message)
            case _:
                raise OutOfTurnError(f"{type(reply).__name__} in the middle of a group")

    def record_failure(self, status: Status, message: str) -> Iterator[CellFinished]:
        """The process died: give the row of the cell that it was at, or about to begin; none if it was through."""
        if not self._pending:
            return
        cell = self._cell(self.progress.cell_id) if self.progress.cell_id else self._pending[0]
        phase = self.progress.phase or "start"
        finished = self._failed(cell, status, message, phase)
        self._settle(cell, status)
        self.progress.note(finished)
        yield finished

    def settle(self) -> Iterator[CellFinished]:
        """The attempt is over: give the rows of cells that need no further one, or that it passed over in silence."""
        for cell in list(self._pending):
            smallest = self._smallest_oom.get(cell.group_id, cell.batch_size)
            if cell.batch_size > smallest:
                reason = f"not tried: batch size {smallest} of this group already ran out of memory"
                yield self._failed(cell, "skipped", reason, None)
                self._settle(cell, "skipped")
        if len(self._pending) == self._pending_at_begin:
            yield from self.record_failure("crashed", "the worker ended the group without a word about this cell")

    def _cell(self, cell_id: str) -> Cell:
        for cell in self._pending:
            if cell.cell_id == cell_id:
                return cell
        raise OutOfTurnError(f"a message about {cell_id}, which it was not asked to measure now")

    def _settle(self, cell: Cell, status: Status) -> None:
        self._pending.remove(cell)
        if status == "oom":
            smallest = self._smallest_oom.get(cell.group_id, cell.batch_size)
            self._smallest_oom[cell.group_id] = min(cell.batch_size, smallest)

    def _failed(self, cell: Cell, status: Status, message: str, phase: str | None) -> CellFinished:
        began = None if status == "skipped" else self._started
        facts = self._facts(cell.network)
        return CellFinished(
            record=failed_record(cell, self._task.context, facts, status, message, phase=phase, began=began)
        )
