"""What is due to a group, without any process: whatever is said in whatever order, each cell gets one row."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs
from worker_fakes import FACTS, make_task

from archbench.model.cell import Cell
from archbench.model.environment import Calibration
from archbench.model.messages import (
    Calibrated,
    CellFinished,
    CellStarted,
    ChildDied,
    Event,
    PhaseStarted,
    Ready,
    Reply,
    Task,
)
from archbench.model.record import Status, empty_record
from archbench.worker.group_tracker import GroupTracker, OutOfTurnError

TASK = make_task("ok", "ok", "ok", "ok")
CELLS = TASK.group.cells


def finished(cell: Cell, status: Status = "ok") -> CellFinished:
    row = structs.replace(empty_record(cell, TASK.context, FACTS), status=status)
    return CellFinished(record=row)


def open_tracker(task: Task = TASK) -> GroupTracker:
    tracker = GroupTracker(task, lambda network: FACTS)
    assert tracker.begin() is not None
    return tracker


REPLIES: st.SearchStrategy[Reply] = st.one_of(
    st.builds(CellStarted, cell_id=st.sampled_from([*(c.cell_id for c in CELLS), "stranger"]), deadline_s=st.just(5.0)),
    st.builds(PhaseStarted, cell_id=st.sampled_from([c.cell_id for c in CELLS]), phase=st.just("warmup")),
    st.builds(finished, st.sampled_from(CELLS), st.sampled_from(["ok", "oom", "error"])),
    st.builds(ChildDied, cell_id=st.none(), phase=st.none(), status=st.sampled_from(["oom", "crashed", "timeout"]),
              message=st.just("gone")),
)  # fmt: skip


@given(attempts=st.lists(st.lists(REPLIES, max_size=8)))
def test_each_cell_gets_one_row_whatever_is_said(attempts: list[list[Reply]]) -> None:
    tracker = GroupTracker(TASK, lambda network: FACTS)
    rows: Counter[str] = Counter()
    tried = 0
    said = iter(attempts)
    while (rest := tracker.begin()) is not None:
        tried += 1
        assert tried <= len(CELLS), "an attempt settled nothing"
        assert not rows.keys() & {cell.cell_id for cell in rest.group.cells}
        events: list[Event] = []
        for reply in next(said, []):
            try:
                events += tracker.accept(reply)
            except OutOfTurnError:
                events += tracker.record_failure("crashed", "out of turn")
                break
        events += tracker.settle()
        rows.update(event.record.cell_id for event in events if isinstance(event, CellFinished))
    assert rows == Counter(cell.cell_id for cell in CELLS)


def test_the_dead_are_blamed_for_the_cell_and_phase_they_were_in() -> None:
    tracker = open_tracker()
    list(tracker.accept(finished(CELLS[0])))
    list(tracker.accept(CellStarted(cell_id=CELLS[2].cell_id, deadline_s=5.0)))
    list(tracker.accept(PhaseStarted(cell_id=CELLS[2].cell_id, phase="warmup")))
    (row,) = list(tracker.accept(ChildDied(cell_id=CELLS[2].cell_id, phase="warmup", status="timeout", message="late")))
    assert isinstance(row, CellFinished)
    assert (row.record.cell_id, row.record.status) == (CELLS[2].cell_id, "timeout")
    assert (row.record.error_phase, row.record.error_message) == ("warmup", "late")
    rest = tracker.begin()
    assert rest is not None
    assert rest.group.cells == (CELLS[1], CELLS[3])


def test_death_before_the_first_cell_is_blamed_on_it() -> None:
    (row,) = open_tracker().record_failure("crashed", "gone")
    assert (row.record.cell_id, row.record.error_phase) == (CELLS[0].cell_id, "start")


def test_only_batches_larger_than_the_one_that_ran_out_of_memory_are_given_up() -> None:
    tracker = open_tracker()
    list(tracker.accept(finished(CELLS[2], "oom")))
    assert [row.record.cell_id for row in tracker.settle()] == [CELLS[3].cell_id]
    rest = tracker.begin()
    assert rest is not None
    assert rest.group.cells == CELLS[:2]


@pytest.mark.parametrize(
    "reply",
    [
        finished(make_task("ok", name="stranger").group.cells[0]),
        CellStarted(cell_id="stranger", deadline_s=1.0),
        Ready(archbench_version="1", pid=1, environment=TASK.context.environment),
    ],
    ids=["row", "start", "greeting"],
)
def test_what_cannot_have_been_meant_is_refused(reply: Reply) -> None:
    with pytest.raises(OutOfTurnError):
        list(open_tracker().accept(reply))


def test_second_attempt_does_not_calibrate_again() -> None:
    tracker = GroupTracker(structs.replace(TASK, calibrate=True), lambda network: FACTS)
    first = tracker.begin()
    calibrated = Calibrated(calibration=Calibration(matmul_flops={"fp32": 1e12}, copy_bytes_per_s=1e10))
    assert list(tracker.accept(calibrated)) == [calibrated]
    list(tracker.record_failure("crashed", "gone"))
    second = tracker.begin()
    assert first is not None
    assert second is not None
    assert (first.calibrate, second.calibrate) == (True, False)
