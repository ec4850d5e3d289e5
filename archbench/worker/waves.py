"""Waves: several processes prepare at once, then are measured one after the other while the others sleep.

A process stays what it was: nothing is compiled twice, and nothing comes from a cache. Two things never happen at a
time: to prepare and to measure. Who prepares is told so together; once all of them sleep again, each in turn is told to
measure, and answers when it has its row and sleeps before its next cell, or, where no cell of its own has to be
prepared any more, when it has all its rows.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from msgspec import structs

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
from archbench.worker.client import HOST_GRACE_S, WorkerClient, WorkerLostError
from archbench.worker.group_tracker import GroupTracker, OutOfTurnError


class Wave:
    """The groups of some trackers, each with a worker of its own.

    A process that runs out of memory, or dies before it is measured, may have done so for its neighbours' sake: it gets
    no row here. Its tracker still has the cells that are left, to be measured by a process that is alone.
    """

    def __init__(self, workers: Sequence[WorkerClient], trackers: Sequence[GroupTracker]) -> None:
        self._members = [_Member(worker, tracker) for worker, tracker in zip(workers, trackers, strict=True)]

    @property
    def crowded(self) -> bool:
        """Whether one of them got no row that might have got one alone."""
        return any(member.crowded for member in self._members)

    def run(self) -> Iterator[Event]:
        """Have all cells prepared, all processes at once, and measured, one at a time; give what happens meanwhile."""
        for member in self._members:
            member.begin()
        for member in self._members:
            yield from member.follow()
        while asleep := [member for member in self._members if not member.over]:
            to_prepare = [member for member in asleep if not member.prepared]
            for member in to_prepare:
                member.proceed(neighbours=len(to_prepare) - 1, rivals=asleep)
            for member in to_prepare:
                yield from member.follow()
            for place, member in enumerate([one for one in asleep if one.prepared and not one.over]):
                member.proceed(neighbours=0, rivals=[one for one in asleep if not one.over], follows=place > 0)
                yield from member.follow()


class _Member:
    """One process of a wave, as its parent knows it."""

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
            while not isinstance(reply := self._worker.receive(self._patience_s), GroupFinished):
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

    @property
    def _patience_s(self) -> float:
        return self._tracker.progress.left_s + HOST_GRACE_S

    def _needs_room(self, reply: Reply) -> bool:
        """Whether it tells of a failure that its neighbours may have caused."""
        if isinstance(reply, ChildDied):
            return reply.status == "oom" or not self._measures
        return isinstance(reply, CellFinished) and reply.record.status == "oom"


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
