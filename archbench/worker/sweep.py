"""Tasks one after the other, each in a child that a worker forks for it, or several in a wave: `archbench run`'s way.

In a wave several processes prepare at once, then are measured one after the other while the others sleep. A process
stays what it was: nothing is compiled twice, and nothing comes from a cache. Two things never happen at a time: to
prepare and to measure. Who prepares is told so together; once all of them sleep again, each in turn is told to measure,
and answers when it has its row and sleeps before its next cell, or, where no cell of its own has to be prepared any
more, when it has all its rows.
"""

from __future__ import annotations

import math
import time
from collections.abc import Generator, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

from msgspec import structs

from archbench.device.kind import kind_named
from archbench.model.errors import UnfitError
from archbench.model.messages import (
    CellFinished,
    CellStarted,
    ChildDied,
    Event,
    GroupFinished,
    Proceed,
    Reply,
    Task,
    Waiting,
)
from archbench.model.record import DEVICE_PHASE, FAILED
from archbench.worker.client import HOST_GRACE_S, WorkerClient, WorkerLostError
from archbench.worker.group_tracker import GroupTracker, OutOfTurnError

HOST_DEATHS_IN_A_ROW = 3
"""A host runs nothing that could kill it. If it dies this often before one cell is measured, the machine is sick."""


def run_tasks(
    worker: WorkerClient, tasks: Iterable[Task], *, company: int = 0, until: float = math.inf
) -> Generator[Event, None, None]:
    """Measure the tasks one after the other; give what happens while it happens.

    With `company`, up to so many tasks of a wave compile at the same time as a first one, each in a worker of its own.
    What ran out of memory beside others is done again alone, and waves get smaller.
    Every cell of every task gets exactly one `CellFinished`, whether it was measured, failed, or took its process with
    it. Only what is not finished `until` then, by `time.monotonic`, is given up without one; of tasks in a wave this is
    seen when they have ended. `KeyboardInterrupt` in here, or closing the iterator, ends the workers and their children
    at once. If this process is killed instead, they end by themselves. Raises `UnfitError` when no worker starts, hosts
    keep dying, or a cell has failed because the device cannot be had or is gone.
    """
    sweep = _Sweep(worker, company, until)
    try:
        for wave in in_waves(tasks):
            yield from sweep.measure(wave)
            if time.monotonic() >= until:
                break
    except BaseException:
        worker.close()
        raise
    finally:
        for other in sweep.others:
            other.close()


def in_waves(tasks: Iterable[Task]) -> Iterator[list[Task]]:
    """The tasks by their waves; those of none each by itself, as soon as it is made."""
    wave: list[Task] = []
    for task in tasks:
        if wave and (task.context.round, task.wave) != (wave[0].context.round, wave[0].wave):
            yield wave
            wave = []
        wave.append(task)
        if not task.wave or task.calibrate:
            yield wave
            wave = []
    if wave:
        yield wave


class _Sweep:
    """The workers of a run, and what they have shown so far: how many fit, how many died."""

    def __init__(self, worker: WorkerClient, company: int, until: float) -> None:
        self._worker = worker
        self._until = until
        self.others: list[WorkerClient] = []
        """Those that were added for waves."""
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

    def _together(self, task: Task, trackers: Sequence[GroupTracker]) -> Iterator[Event]:
        self.others += [self._worker.another() for _ in range(len(trackers) - 1 - len(self.others))]
        crew = [self._worker, *self.others[: len(trackers) - 1]]
        with ThreadPoolExecutor(len(crew)) as pool:
            list(pool.map(WorkerClient.start, crew))
        members = [_Member(worker, tracker) for worker, tracker in zip(crew, trackers, strict=True)]
        for event in _wave(members):
            yield event
            if isinstance(event, CellFinished):
                _stop_without_device(task, event)
        if any(member.crowded for member in members):
            self._company //= 2

    def _alone(self, task: Task, tracker: GroupTracker) -> Iterator[Event]:
        while (rest := tracker.begin()) is not None:
            try:
                for event in _attempt(self._worker, rest, tracker, self._until):
                    yield event
                    if isinstance(event, CellFinished):
                        self._deaths = 0
                        _stop_without_device(task, event)
            except WorkerLostError as lost:
                if time.monotonic() >= self._until:
                    return
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


def _said(worker: WorkerClient, tracker: GroupTracker, until: float = math.inf) -> Iterator[Reply]:
    """What the worker tells of the group that it has begun, or goes on with, until its end.

    Raises `WorkerLostError`, also when the time is up; then the worker has been ended.
    """
    while (left_s := until - time.monotonic()) > 0:
        reply = worker.receive(min(tracker.progress.left_s + HOST_GRACE_S, left_s))
        if isinstance(reply, GroupFinished):
            return
        yield reply
    worker.kill()
    raise WorkerLostError("timeout", "its time is up")


def _attempt(worker: WorkerClient, rest: Task, tracker: GroupTracker, until: float) -> Iterator[Event]:
    """Have the worker measure `rest` and follow it to the end of the group."""
    worker.send(rest)
    for reply in _said(worker, tracker, until):
        try:
            yield from tracker.accept(reply)
        except OutOfTurnError as error:
            worker.kill()
            raise WorkerLostError("crashed", f"worker killed: {error}") from None


def _wave(members: Sequence[_Member]) -> Iterator[Event]:
    """Have all cells prepared, all processes at once, and measured, one at a time; give what happens meanwhile."""
    for member in members:
        member.begin()
    for member in members:
        yield from member.follow()
    while asleep := [member for member in members if not member.over]:
        to_prepare = [member for member in asleep if not member.prepared]
        for member in to_prepare:
            member.proceed(neighbours=len(to_prepare) - 1, rivals=asleep)
        for member in to_prepare:
            yield from member.follow()
        for place, member in enumerate([one for one in asleep if one.prepared and not one.over]):
            member.proceed(neighbours=0, rivals=[one for one in asleep if not one.over], follows=place > 0)
            yield from member.follow()


class _Member:
    """One process of a wave, as its parent knows it.

    One that runs out of memory, or dies before it is measured, may have done so for its neighbours' sake: it gets no
    row here. Its tracker still has the cells that are left, to be measured by a process that is alone.
    """

    def __init__(self, worker: WorkerClient, tracker: GroupTracker) -> None:
        self._worker = worker
        self._tracker = tracker
        self._measures = False
        self.crowded = False
        """It failed in a way in which it may not fail alone."""
        self.pid = 0
        self.prepared = False
        """It sleeps with a cell that only needs to be measured."""
        self.over = False
        """It has ended, in whatever way."""

    def begin(self) -> None:
        """Start it."""
        task = self._tracker.begin()
        assert task is not None, "a group has cells"
        self._worker.send(structs.replace(task, wave=1))

    def proceed(self, *, neighbours: int, rivals: Sequence[_Member], follows: bool = False) -> None:
        """Wake it up."""
        self._measures = False
        pids = tuple(other.pid for other in rivals if other is not self)
        self._worker.send(Proceed(neighbours=neighbours, rivals=pids, follows=follows))

    def follow(self) -> Iterator[Event]:
        """What it says until it sleeps, or has ended."""
        try:
            for reply in _said(self._worker, self._tracker):
                if isinstance(reply, Waiting):
                    self._tracker.progress.note(reply)
                    self.pid, self.prepared = reply.pid, reply.prepared
                    return
                if isinstance(reply, CellStarted):  # not before: it may have died in its sleep
                    self._measures = self.prepared
                if self._needs_room(reply):
                    self.crowded = True
                else:
                    yield from self._tracker.accept(reply)
        except OutOfTurnError:
            self._worker.kill()
        except WorkerLostError:
            self.crowded = True  # alone the group shows whether the fault is its own
        self.over = True

    def _needs_room(self, reply: Reply) -> bool:
        """Whether it tells of a failure that its neighbours may have caused."""
        if isinstance(reply, ChildDied):
            return reply.status == "oom" or not self._measures
        return isinstance(reply, CellFinished) and reply.record.status == "oom"
