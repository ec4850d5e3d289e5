"""Tasks one after the other, each in a child that a worker forks for it: the way of `archbench run`."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

from msgspec import structs

from archbench.device.kind import kind_named
from archbench.model.errors import UnfitError
from archbench.model.messages import CellFinished, Event, GroupFinished, Task
from archbench.model.record import DEVICE_PHASE, FAILED
from archbench.worker.client import HOST_GRACE_S, WorkerClient, WorkerLostError
from archbench.worker.group_tracker import GroupTracker, OutOfTurnError
from archbench.worker.waves import Wave, in_waves

HOST_DEATHS_IN_A_ROW = 3
"""A host runs nothing that could kill it. If it dies this often before one cell is measured, the machine is sick."""


def run_tasks(worker: WorkerClient, tasks: Iterable[Task], *, company: int = 0) -> Generator[Event, None, None]:
    """Measure the tasks one after the other; give what happens while it happens.

    With `company`, up to so many tasks of a wave compile at the same time as a first one, each in a worker of its own
    (see `waves`). What ran out of memory beside others is done again alone, and waves get smaller.
    Every cell of every task gets exactly one `CellFinished`, whether it was measured, failed, or took its process with
    it. `KeyboardInterrupt` in here, or closing the iterator, ends the workers and their children at once. If this
    process is killed instead, they end by themselves. Raises `UnfitError` when no worker starts, hosts keep dying, or a
    cell has failed because the device cannot be had or is gone.
    """
    sweep = _Sweep(worker, company)
    try:
        for wave in in_waves(tasks):
            yield from sweep.measure(wave)
    except BaseException:
        worker.close()
        raise
    finally:
        sweep.dismiss()


class _Sweep:
    """The workers of a run, and what they have shown so far: how many fit, how many died."""

    def __init__(self, worker: WorkerClient, company: int) -> None:
        self._worker = worker
        self._others: list[WorkerClient] = []
        self._company = company
        self._deaths = 0

    def measure(self, tasks: Sequence[Task]) -> Iterator[Event]:
        """Measure tasks of one wave, in pieces as large as have turned out to fit."""
        while tasks:
            wave, tasks = tasks[: 1 + self._company], tasks[1 + self._company :]
            trackers = [GroupTracker(structs.replace(task, wave=0), self._worker.facts) for task in wave]
            if len(wave) > 1:
                yield from self._together(wave[0], trackers)
            for task, tracker in zip(wave, trackers, strict=True):
                yield from self._alone(task, tracker)

    def dismiss(self) -> None:
        """End the workers that were added."""
        for other in self._others:
            other.close()

    def _together(self, task: Task, trackers: Sequence[GroupTracker]) -> Iterator[Event]:
        self._others += [self._worker.another() for _ in range(len(trackers) - 1 - len(self._others))]
        crew = [self._worker, *self._others[: len(trackers) - 1]]
        with ThreadPoolExecutor(len(crew)) as pool:
            list(pool.map(WorkerClient.start, crew))
        wave = Wave(crew, trackers)
        for event in wave.run():
            yield event
            if isinstance(event, CellFinished):
                _stop_without_device(task, event)
        if wave.crowded:
            self._company //= 2

    def _alone(self, task: Task, tracker: GroupTracker) -> Iterator[Event]:
        while (rest := tracker.begin()) is not None:
            try:
                for event in _attempt(self._worker, rest, tracker):
                    yield event
                    if isinstance(event, CellFinished):
                        self._deaths = 0
                        _stop_without_device(task, event)
            except WorkerLostError as lost:
                yield from tracker.record_failure(lost.status, lost.message)
                self._deaths += 1
                if self._deaths >= HOST_DEATHS_IN_A_ROW:
                    raise UnfitError(
                        f"the worker host died {self._deaths} times in a row, the last time: {lost.message}; "
                        "what is finished is kept"
                    ) from None
            yield from tracker.settle()


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
