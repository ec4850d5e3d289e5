"""Measures one group of cells, or one cell in turns with other processes, inside a worker's child process."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Callable

from archbench.measure.cell_run import CellRun, measure_cell
from archbench.measure.group import GroupContext
from archbench.measure.turns import TurnRun
from archbench.model.cell import Cell
from archbench.model.messages import (
    Calibrated,
    CellStarted,
    ChildEvent,
    Event,
    PhaseStarted,
    Proceed,
    StepGlimpsed,
    Task,
    TurnTask,
    TurnWord,
    Waiting,
)
from archbench.model.protocol import Protocol

WHOLE_DAY_S = 86_400.0
"""Deadline of a cell that waits for its turns: its parent, who knows whose turn it is, watches over it."""


def measure(request: Task | TurnTask, emit: Callable[[ChildEvent], None], hear: Callable[[], TurnWord | None]) -> None:
    """Do what a worker is asked to: measure a group, or take turns as `hear` says."""
    if isinstance(request, TurnTask):
        take_turns(request, emit, hear)
    else:

        def await_turn(cell: Cell, prepared: bool) -> Proceed:
            emit(Waiting(cell_id=cell.cell_id, pid=os.getpid(), prepared=prepared))
            word = hear()
            if not isinstance(word, Proceed):
                sys.exit("the parent has gone")  # nobody is left to read a row
            return word

        measure_group(request, emit, await_turn if request.wave else None)


def take_turns(request: TurnTask, emit: Callable[[ChildEvent], None], hear: Callable[[], TurnWord | None]) -> None:
    """Make the cell ready and time its blocks one by one; its row is the last thing that `emit` is told."""
    gc.freeze()
    cell = request.cell
    emit(CellStarted(cell_id=cell.cell_id, deadline_s=WHOLE_DAY_S))

    def enter(phase: str) -> None:
        emit(PhaseStarted(cell_id=cell.cell_id, phase=phase))

    metrics = (*request.task.metrics, "latency")
    run = CellRun(GroupContext(request.task), cell, first=True, enter=enter, metrics=metrics)
    emit(TurnRun(run, survey=request.survey, emit=emit, hear=hear).measure())


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
    for position, cell in enumerate(task.group.cells):

        def enter(phase: str, cell_id: str = cell.cell_id) -> None:
            emit(PhaseStarted(cell_id=cell_id, phase=phase))

        sleeps = await_turn is not None and (position == 0 or not cell.is_eager)

        def begin(prepared: bool, cell: Cell = cell, sleeps: bool = sleeps) -> Proceed:
            told = await_turn(cell, prepared) if await_turn is not None and sleeps else Proceed()
            if told.rivals:
                group.admit(told.rivals)
            # Anew after a sleep: the deadline is for what it does.
            emit(CellStarted(cell_id=cell.cell_id, deadline_s=_deadline(cell, task.protocol)))
            return told

        def glimpse(step_s: float, cell_id: str = cell.cell_id) -> None:
            emit(StepGlimpsed(cell_id=cell_id, step_s=step_s))

        told = begin(False)
        run = CellRun(group, cell, first=position == 0, enter=enter, glimpse=glimpse)
        if sleeps:
            run.in_wave(told.neighbours, lambda begin=begin: begin(True))  # type: ignore[misc]
        finished = measure_cell(run)
        if not run.poisoned:
            group.calibration  # noqa: B018 - if nothing has asked for it
        emit(finished)
        if run.poisoned:
            return


def _deadline(cell: Cell, protocol: Protocol) -> float:
    compiling = protocol.compile_deadline_s if not cell.is_eager else 0.0
    return protocol.cell_deadline_s + compiling
