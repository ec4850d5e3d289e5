"""Measures one group of cells, or one cell in turns with other processes, inside a worker's child process."""

from __future__ import annotations

import gc
import os
from collections.abc import Callable
from functools import partial

from archbench.measure.cell_run import CellRun, measure_cell
from archbench.measure.group import GroupContext
from archbench.measure.turns import take_turns
from archbench.model.cell import Cell
from archbench.model.messages import (
    Calibrated,
    CellStarted,
    ChildEvent,
    Event,
    Proceed,
    Task,
    TurnTask,
    TurnWord,
    Waiting,
)


def measure(request: Task | TurnTask, emit: Callable[[ChildEvent], None], hear: Callable[[], TurnWord]) -> None:
    """Do what a worker is asked to: measure a group, or take turns as `hear` says."""
    if isinstance(request, TurnTask):
        take_turns(request, emit, hear)
        return

    def await_turn(cell: Cell, prepared: bool) -> Proceed:
        emit(Waiting(cell_id=cell.cell_id, pid=os.getpid(), prepared=prepared))
        word = hear()
        if not isinstance(word, Proceed):
            raise ValueError(f"told to {type(word).__name__} in a wave")
        return word

    measure_group(request, emit, await_turn if request.wave else None)


def measure_group(
    task: Task, emit: Callable[[Event], None], await_turn: Callable[[Cell, bool], Proceed] | None = None
) -> None:
    """Measure the task's cells in order, telling `emit` of each start, phase and row.

    In a wave `await_turn` sleeps before each cell is prepared (False), and again before it is measured (True). Eager
    cells need no preparing once their process stands: it sleeps before the first of them alone.
    Returns early after a cell that failed: the process may be poisoned (a CUDA context after an error, memory after an
    OOM), so that whatever is left of the group belongs in a fresh one.
    """
    gc.freeze()  # everything imported stays: without this each collection before an experiment takes 0.3 s
    group = GroupContext(task, lambda found: emit(Calibrated(calibration=found)))
    if task.protocol.soak_s:
        group.calibration  # noqa: B018 - now: it lets the device settle; else no first figure waits for it

    def begin(cell: Cell, sleep: Callable[[Cell, bool], Proceed] | None, prepared: bool) -> Proceed:
        told = Proceed() if sleep is None else sleep(cell, prepared)
        if told.rivals:
            group.admit(told.rivals)
        compiling = 0.0 if cell.is_eager else task.protocol.compile_deadline_s
        # Anew after a sleep: the deadline is for what it does.
        emit(CellStarted(cell_id=cell.cell_id, deadline_s=task.protocol.cell_deadline_s + compiling))
        return told

    for position, cell in enumerate(task.group.cells):
        sleep = await_turn if position == 0 or not cell.is_eager else None
        told = begin(cell, sleep, False)
        woken = None if sleep is None else partial(begin, cell, sleep, True)
        run = CellRun(group, cell, first=position == 0, emit=emit, await_turn=woken, neighbours=told.neighbours)
        finished = run.finish(measure_cell)
        if not run.poisoned:
            group.calibration  # noqa: B018 - if nothing has asked for it
        emit(finished)
        if run.poisoned:
            return
