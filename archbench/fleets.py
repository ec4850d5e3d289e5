"""Runs on several devices: which they are, and how a plan is dealt to them.

    --device cuda:0,cuda:1      cards of this machine; `cuda:*` for all of them
    --executor ray              the devices of a Ray cluster

A fleet is of one class of hardware and one set of libraries, and so is its run, which may go on with other devices of
that class. Of devices of several classes each class is a fleet, and all measure at once.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from queue import SimpleQueue
from typing import TYPE_CHECKING, Protocol, TypeVar

import msgspec

from archbench.model.axes import DEVICE_KINDS
from archbench.model.cell import Group, Plan, Shard, is_user_code
from archbench.model.environment import Calibration, Environment
from archbench.model.errors import UsageError, did_you_mean
from archbench.model.messages import Event, Task
from archbench.model.suite import Suite
from archbench.options import RunOptions
from archbench.session import CarriedFigures, describe, held, task_for
from archbench.suite.plan import TWIN_VISITS, CellVisit, remaining, twin_again
from archbench.worker.fleet import FleetDevice, Heard, LocalDevice, Work, measured

if TYPE_CHECKING:
    from archbench.catalog.passed import Packed
    from archbench.worker.on_ray import Cluster, RayDevice

_D = TypeVar("_D")
EXECUTORS = ("local", "ray")
"""What `--executor` takes."""
WHOLE = Shard(number=1, of=1)
"""What a fleet's run is unless it is told another shard: so it may go on with any device of its class."""


class Fleet(Protocol):
    """The devices of a run, known and not yet held."""

    environments: tuple[Environment, ...]
    heard: SimpleQueue[Heard]
    """What its devices tell; an exception that is put in ends the measuring."""

    def held(self, *, force: bool, timed: bool) -> AbstractContextManager[None]:
        """Hold all of them for the block, fit as they are."""

    def devices(self, env: Mapping[str, str] | None, place: Path) -> Sequence[FleetDevice]:
        """What measures on them; logs go to `place`."""


class LocalFleet:
    """Several cards of this machine: one worker and one lock each."""

    def __init__(self, environments: Sequence[Environment]) -> None:
        self.environments = tuple(environments)
        self.heard: SimpleQueue[Heard] = SimpleQueue()

    @contextmanager
    def held(self, *, force: bool, timed: bool) -> Iterator[None]:
        """As of `Fleet`. Raises `UnfitError` where one is unfit or busy."""
        with ExitStack() as stack:
            for environment in self.environments:
                stack.enter_context(held(environment, force=force, timed=timed))
            yield

    def devices(self, env: Mapping[str, str] | None, place: Path) -> list[LocalDevice]:
        """As of `Fleet`."""
        return [
            LocalDevice(one, env=env, log=place / f"worker-{one.device.replace(':', '-')}.log")
            for one in self.environments
        ]


class RayFleet:
    """Devices of a cluster, which their actors hold from now on."""

    def __init__(self, devices: Sequence[RayDevice]) -> None:
        self._devices = list(devices)
        self.environments = tuple(one.environment for one in self._devices)
        self.heard: SimpleQueue[Heard] = SimpleQueue()

    @contextmanager
    def held(self, *, force: bool, timed: bool) -> Iterator[None]:
        """As of `Fleet`; the nodes hold them."""
        try:
            yield
        finally:
            for device in self._devices:
                device.close()

    def devices(self, env: Mapping[str, str] | None, place: Path) -> list[RayDevice]:
        """As of `Fleet`."""
        return self._devices


def fleets_of(options: RunOptions, suite: Suite, networks: Sequence[Packed]) -> list[Fleet]:
    """The devices that were asked for, by class; none for one of this machine. Raises `UsageError` and `UnfitError`."""
    executor, device, timed = options.executor, options.device, not options.static
    if executor not in EXECUTORS:
        raise UsageError(f"--executor {executor}: there are {', '.join(EXECUTORS)}{did_you_mean(executor, EXECUTORS)}")
    several = "," in device or device.endswith(":*")
    if not timed and (several or executor == "ray"):
        raise UsageError("--static measures nothing that a device decides; leave --executor and further devices out")
    if executor == "local":
        if options.address != "auto" or options.resource is not None:
            raise UsageError("--address and --resource are of a Ray cluster; add --executor ray")
        return local_fleets(device) if several else []
    if device not in ("auto", *DEVICE_KINDS):
        raise UsageError(f"--device {device}: the cluster has its own numbers; give a kind, cpu or cuda")
    from archbench.worker.on_ray import Cluster

    kind = "cpu" if device == "cpu" else "cuda"
    cluster = Cluster(options.address, device=kind, resource=options.resource)
    return ray_fleets(cluster, suite, networks, timed=timed, force=options.force)


def local_fleets(words: str) -> list[Fleet]:
    """The cards of this machine that are named, by class. Raises `UsageError`."""
    environments = [describe(word) for word in _each(words)]
    return [LocalFleet(alike) for alike in _by_class(environments, lambda one: one)]


def ray_fleets(cluster: Cluster, suite: Suite, networks: Sequence[Packed], *, timed: bool, force: bool) -> list[Fleet]:
    """The devices of a cluster, held, with the user's code beside them; by class. Raises `UsageError`, `UnfitError`."""
    from archbench.worker.on_ray import travelling

    named = [one.name.partition(":")[0] for one in suite.architectures if is_user_code(one.name)]
    files = travelling([*named, *(module for one in networks for module in one.modules)])
    files |= {f"networks/{one.name}.pickle": one.content for one in networks}
    devices = cluster.hold(named, files, images=suite.images, timed=timed, force=force)
    return [RayFleet(alike) for alike in _by_class(devices, lambda one: one.environment)]


def _by_class(devices: Sequence[_D], of: Callable[[_D], Environment]) -> list[list[_D]]:
    """Raises `UsageError` for nodes of one class with other libraries: a run is of one set."""
    found: dict[str, list[_D]] = {}
    for device in devices:
        found.setdefault(of(device).hardware_class, []).append(device)
    for alike in found.values():
        first = of(alike[0])
        for other in map(of, alike[1:]):
            for name in ("torch_version", "driver_version", "archbench_version"):
                ours, theirs = getattr(first, name), getattr(other, name)
                if ours != theirs:
                    raise UsageError(
                        f"{first.machine} and {other.machine} differ in {name} ({ours}, {theirs}), and a run is of "
                        "one; measure them one after the other, and put the runs side by side with `archbench report`"
                    )
    return list(found.values())


def fleet_events(
    fleet: Fleet,
    place: Path,
    suite: Suite,
    plan: Plan,
    finished: Collection[CellVisit],
    machines: Sequence[str],
    carried: CarriedFigures,
    *,
    allow_code: bool,
    env: Mapping[str, str] | None,
) -> Iterator[Event]:
    """Measure what is left of a plan on a fleet. `machines`: all that had a part in the run, in a lasting order."""
    twin = next((group.group_id for groups in plan.rounds for group in groups if group.visit), None)
    left = remaining(plan, finished)
    if not any(left.rounds):
        return
    shared = [
        Work(number, group) for number, groups in enumerate(left.rounds) for group in groups if group.group_id != twin
    ]
    shards = plan.shard.of if plan.shard else 1

    def own(environment: Environment) -> list[Work]:
        """The twin, as the plan visits it; each device counts its visits by itself."""
        device = machines.index(environment.machine or environment.device)
        visits = [
            tuple(_of_device(group, device * shards) for group in groups if group.group_id == twin)
            for groups in plan.rounds
        ]
        mine = remaining(msgspec.structs.replace(plan, rounds=tuple(visits)), finished)
        return [Work(number, group) for number, groups in enumerate(mine.rounds) for group in groups]

    def make_task(environment: Environment, work: Work, calibration: Calibration | None) -> Task:
        return task_for(
            suite,
            work.group,
            environment,
            run_id=place.resolve().name,
            round=work.round,
            calibration=calibration,
            calibrate=carried.calibrates(environment),
            carried=carried.of(work.group),
            later=plan.short and work.round > 0,
            allow_code=allow_code,
        )

    for event in measured(fleet.devices(env, place), shared, own, make_task, fleet.heard):
        carried.note(event)
        yield event


def _of_device(group: Group, behind: int) -> Group:
    """The twin's visit on a device that comes after so many others."""
    cells = twin_again(group) if behind else group.cells
    return Group(cells=cells, visit=group.visit + TWIN_VISITS * behind)


def _each(words: str) -> list[str]:
    if words.endswith(":*"):
        from archbench.device.visible import known_gpus, what_exists

        visible = known_gpus(named=True)
        if not visible.gpus:
            raise UsageError(f"device {words!r} does not exist: {what_exists(visible)}")
        return [words.replace("*", str(number)) for number in range(len(visible.gpus))]
    names = [word.strip() for word in words.split(",")]
    if len(set(names)) < len(names):
        raise UsageError(f"--device {words}: names a device twice")
    return names
