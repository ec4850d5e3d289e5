"""Tasks one after the other on a worker that forks a child for each: the way of `archbench run`."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator

from archbench.device.kind import kind_named
from archbench.model.errors import UnfitError
from archbench.model.messages import CellFinished, Event, GroupFinished, Task
from archbench.model.record import DEVICE_PHASE, FAILED
from archbench.worker.client import HOST_GRACE_S, WorkerClient, WorkerLostError
from archbench.worker.group_tracker import GroupTracker, OutOfTurnError

HOST_DEATHS_IN_A_ROW = 3
"""A host runs nothing that could kill it. If it dies this often before one cell is measured, the machine is sick."""


def run_tasks(worker: WorkerClient, tasks: Iterable[Task]) -> Generator[Event, None, None]:
    """Measure the tasks one after the other; give what happens while it happens.

    Every cell of every task gets exactly one `CellFinished`, whether it was measured, failed, or took its process with
    it. `KeyboardInterrupt` in here, or closing the iterator, ends the worker and its child at once. If this process is
    killed instead, they end by themselves. Raises `UnfitError` when no worker starts, hosts keep dying, or a cell has
    failed because the device cannot be had or is gone.
    """
    deaths = 0
    try:
        for task in tasks:
            tracker = GroupTracker(task, worker.facts)
            while (rest := tracker.begin()) is not None:
                try:
                    for event in _attempt(worker, rest, tracker):
                        yield event
                        if isinstance(event, CellFinished):
                            deaths = 0
                            _stop_without_device(task, event)
                except WorkerLostError as lost:
                    yield from tracker.record_failure(lost.status, lost.message)
                    deaths += 1
                    if deaths >= HOST_DEATHS_IN_A_ROW:
                        raise UnfitError(
                            f"the worker host died {deaths} times in a row, the last time: {lost.message}; "
                            "what is finished is kept"
                        ) from None
                yield from tracker.settle()
    except BaseException:
        worker.close()
        raise


def _stop_without_device(task: Task, finished: CellFinished) -> None:
    """A GPU that fell off its bus, or that CUDA does not show, would make a failed row of every cell that is left."""
    environment, row = task.context.environment, finished.record
    if row.status not in FAILED:
        return
    trouble = f"cannot be used: {row.error_message}" if row.error_phase == DEVICE_PHASE else None
    if kind_named(environment.kind).is_gone(environment):
        trouble = "is gone; see dmesg"
    if trouble is not None:
        raise UnfitError(
            f"{environment.device} ({environment.hardware_class}) {trouble}; the same command resumes once that is "
            "mended, with --retry-failed for the cells that it failed"
        )


def _attempt(worker: WorkerClient, rest: Task, tracker: GroupTracker) -> Iterator[Event]:
    """Have the worker measure `rest` and follow it to the end of the group."""
    worker.send(rest)
    while not isinstance(reply := worker.receive(tracker.progress.left_s + HOST_GRACE_S), GroupFinished):
        try:
            yield from tracker.accept(reply)
        except OutOfTurnError as error:
            worker.kill()
            raise WorkerLostError("crashed", f"worker killed: {error}") from None
