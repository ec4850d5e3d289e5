"""Groups dealt to several devices as each becomes free: the cards of one box, or the devices of a cluster.

A device is whatever measures a task and tells its events (`FleetDevice`); one thread here follows each. What a device
that is lost had not finished goes to another one. Each device measures the suite's twin too, spread over its time: that
is its reference.
"""

from __future__ import annotations

import logging
import queue
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Protocol, TypeAlias

from msgspec import Struct, structs

from archbench.model.cell import Group
from archbench.model.environment import Calibration, Environment
from archbench.model.errors import UnfitError
from archbench.model.messages import Calibrated, CellFinished, Event, Task
from archbench.model.record import failed_record
from archbench.worker.client import WorkerClient, catalogue_facts
from archbench.worker.sweep import run_tasks

log = logging.getLogger(__name__)

LOSSES = 3
"""Devices that a group may be lost with before it is taken for what loses them."""


class DeviceLostError(Exception):
    """A device is gone, or cannot be used any more; the message says which and why."""


class FleetDevice(Protocol):
    """One whole device, held for this run."""

    environment: Environment

    def measure(self, task: Task) -> Iterator[Event]:
        """Measure a group; every cell gets its row. Raises `DeviceLostError` where the device is gone before."""

    def close(self) -> None:
        """Let go of it, and end what it is doing."""


class Work(Struct, frozen=True):
    """A group to measure, and in which round."""

    round: int
    group: Group
    losses: int = 0
    """Devices that were lost over it."""


class LocalDevice:
    """A device of this machine, behind a worker of its own."""

    def __init__(self, environment: Environment, *, env: Mapping[str, str] | None, log: Path) -> None:
        self.environment = environment
        self._worker = WorkerClient(device=environment.device, env=env, log=log)

    def measure(self, task: Task) -> Iterator[Event]:
        try:
            yield from run_tasks(self._worker, [task])
        except UnfitError as error:
            raise DeviceLostError(str(error)) from error

    def close(self) -> None:
        self._worker.close()


Heard: TypeAlias = Event | BaseException | None
"""What is told of devices: what happens, that one is lost or something else is wrong, that a thread has ended."""
MakeTask = Callable[[Environment, Work, Calibration | None], Task]
"""What a device is told, with its ceilings; `None` where it has to find them out."""


def measured(
    devices: Sequence[FleetDevice],
    shared: Sequence[Work],
    own: Callable[[Environment], Sequence[Work]],
    make_task: MakeTask,
    heard: queue.SimpleQueue[Heard],
) -> Generator[Event, None, None]:
    """Measure all of `shared` on whichever device is free, and on each device its `own`; give what happens.

    Every cell gets exactly one `CellFinished`. Closing the iterator, or an exception in here, lets go of all devices;
    so does one that somebody puts into `heard`, where all that happens comes from. Raises `UnfitError` where no device
    is left.
    """
    fleet = _Fleet(shared, make_task, heard)
    threads = [
        threading.Thread(target=fleet.follow, args=(device, deque(own(device.environment))), daemon=True)
        for device in devices
    ]
    try:
        for thread in threads:
            thread.start()
        yield from fleet.events(len(threads))
    finally:
        fleet.stop()
        for device in devices:
            with suppress(DeviceLostError):
                device.close()


class _Fleet:
    """What the threads share: work that nobody has begun, and what has happened and nobody has heard of."""

    def __init__(self, shared: Sequence[Work], make_task: MakeTask, heard: queue.SimpleQueue[Heard]) -> None:
        self._waiting = deque(shared)
        self._total = max(len(shared), 1)
        self._busy = 0
        """Devices at something of the shared work, which may come back."""
        self._stopped = False
        self._changed = threading.Condition()
        self._heard = heard
        self._make_task = make_task

    def events(self, devices: int) -> Iterator[Event]:
        """What the devices tell, until all have ended."""
        lost = None
        while devices:
            heard = self._heard.get()
            match heard:
                case None:
                    devices -= 1
                case DeviceLostError():
                    lost = heard
                    log.warning("%s; what it had not finished is measured elsewhere", heard)
                case BaseException():
                    raise heard
                case _:
                    yield heard
        if self._waiting:
            raise UnfitError(f"no device is left: {lost}; the same command goes on once there are some")

    def stop(self) -> None:
        """Nobody begins anything new."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()

    def follow(self, device: FleetDevice, own: deque[Work]) -> None:
        """One device's thread: work until there is none, or the device is lost."""
        calibration: Calibration | None = None
        visits = len(own)
        try:
            while (taken := self._next(own, visits)) is not None:
                work, is_shared = taken
                done: set[str] = set()
                try:
                    for event in device.measure(self._make_task(device.environment, work, calibration)):
                        if isinstance(event, Calibrated):
                            calibration = event.calibration
                        elif isinstance(event, CellFinished):
                            done.add(event.record.cell_id)
                        self._heard.put(event)
                except DeviceLostError as lost:
                    self._lost(device, work, done, lost, is_shared=is_shared)
                    return
                finally:
                    if is_shared:
                        self._settle()
        except BaseException as error:  # told where it can be seen
            self._heard.put(error)
        finally:
            self._heard.put(None)

    def _next(self, own: deque[Work], visits: int) -> tuple[Work, bool] | None:
        """The next thing for a device, and whether others could do it; waits while something may still come back."""
        with self._changed:
            while not self._stopped:
                begun = 1 - len(self._waiting) / self._total
                if own and begun >= (visits - len(own)) / max(visits - 1, 1):
                    return own.popleft(), False
                if self._waiting:
                    self._busy += 1
                    return self._waiting.popleft(), True
                if not self._busy:
                    return None
                self._changed.wait()
        return None

    def _settle(self) -> None:
        with self._changed:
            self._busy -= 1
            self._changed.notify_all()

    def _lost(self, device: FleetDevice, work: Work, done: set[str], lost: DeviceLostError, *, is_shared: bool) -> None:
        """Hand back what a lost device has not finished; its own reference goes with it."""
        self._heard.put(lost)
        cells = tuple(cell for cell in work.group.cells if cell.cell_id not in done)
        if is_shared and cells and work.losses + 1 >= LOSSES:
            context = self._make_task(device.environment, work, None).context
            for cell in cells:
                message = f"{work.losses + 1} devices were lost over it, the last time: {lost}"
                facts = catalogue_facts(cell.network)
                self._heard.put(CellFinished(record=failed_record(cell, context, facts, "crashed", message)))
        elif is_shared and cells:
            left = Work(work.round, structs.replace(work.group, cells=cells), work.losses + 1)
            with self._changed:
                self._waiting.appendleft(left)
