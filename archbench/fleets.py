"""Runs on several devices: which they are, and how a plan is dealt to them.

    --device cuda:0,cuda:1      cards of this machine; `cuda:*` for all of them
    --executor ray              the devices of a Ray cluster

A fleet is of one class of hardware and one set of libraries, and so is its run, which may go on with other devices of
that class. Of devices of several classes each class is a fleet, and all measure at once.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from queue import SimpleQueue
from typing import TYPE_CHECKING

import msgspec

from archbench.model.axes import DEVICE_KINDS
from archbench.model.cell import Group, Plan, Shard, is_user_code
from archbench.model.environment import Calibration, Environment
from archbench.model.errors import UsageError, did_you_mean
from archbench.model.messages import Event, Task
from archbench.model.suite import Suite
from archbench.options import RunOptions
from archbench.session import Tasks, describe, held
from archbench.suite.plan import TWIN_VISITS, CellVisit, remaining, twin_again
from archbench.worker.fleet import FleetDevice, Heard, LocalDevice, Work, measured

if TYPE_CHECKING:
    from archbench.catalog.user_code import Packed
    from archbench.worker.on_ray import Cluster, RayDevice

EXECUTORS = ("local", "ray")
"""What `--executor` takes."""
WHOLE = Shard(number=1, of=1)
"""What a fleet's run is unless it is told another shard: so it may go on with any device of its class."""


class Fleet:
    """The devices of a run: cards of this machine, or those of a cluster, which their actors hold already (`taken`)."""

    def __init__(self, environments: Sequence[Environment], taken: Sequence[RayDevice] = ()) -> None:
        self.environments = tuple(environments)
        self.heard: SimpleQueue[Heard] = SimpleQueue()
        """What its devices tell; an exception that is put in ends the measuring."""
        self._taken = taken

    @contextmanager
    def held(self, *, force: bool, timed: bool) -> Iterator[None]:
        """Hold all of them for the block, fit as they are. Raises `UnfitError` where one is unfit or busy."""
        with ExitStack() as stack:
            for device in self._taken:
                stack.callback(device.close)
            for environment in () if self._taken else self.environments:
                stack.enter_context(held(environment, force=force, timed=timed))
            yield

    def events(
        self,
        tasks: Tasks,
        plan: Plan,
        finished: Collection[CellVisit],
        machines: Sequence[str],
        *,
        place: Path,
        env: Mapping[str, str] | None,
    ) -> Iterator[Event]:
        """Measure what is left of a plan. `machines`: all that had a part in the run, in a lasting order.

        Workers of this machine get the variables `env`, and write their logs to `place`.
        """
        twin = next((group.group_id for groups in plan.rounds for group in groups if group.visit), None)
        shards = plan.shard.of if plan.shard else 1
        left = remaining(plan, finished)
        if not any(left.rounds):
            return

        def works(plan: Plan, *, own: bool) -> list[Work]:
            each = ((number, group) for number, groups in enumerate(plan.rounds) for group in groups)
            return [Work(number, group) for number, group in each if (group.group_id == twin) == own]

        def visits(environment: Environment) -> list[Work]:
            """The twin, as the plan visits it; each device counts its visits by itself."""
            behind = shards * machines.index(environment.machine or environment.device)
            rounds = (
                tuple(_of_device(group, behind) if group.group_id == twin else group for group in groups)
                for groups in plan.rounds
            )
            return works(remaining(msgspec.structs.replace(plan, rounds=tuple(rounds)), finished), own=True)

        def told(environment: Environment, work: Work, calibration: Calibration | None) -> Task:
            return tasks.of(work.group, environment, work.round, calibration)

        devices: Sequence[FleetDevice] = self._taken or [
            LocalDevice(one, env=env, log=place / f"worker-{one.device.replace(':', '-')}.log")
            for one in self.environments
        ]
        for event in measured(devices, works(left, own=False), visits, told, self.heard):
            tasks.note(event)
            yield event


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
    return _by_class([describe(word) for word in _each(words)])


def ray_fleets(cluster: Cluster, suite: Suite, networks: Sequence[Packed], *, timed: bool, force: bool) -> list[Fleet]:
    """The devices of a cluster, held, with the user's code beside them; by class. Raises `UsageError`, `UnfitError`."""
    from archbench.worker.on_ray import travelling

    named = [one.name.partition(":")[0] for one in suite.architectures if is_user_code(one.name)]
    files = travelling([*named, *(module for one in networks for module in one.modules)])
    files |= {f"networks/{one.name}.pickle": one.content for one in networks}
    devices = cluster.hold(named, files, images=suite.images, timed=timed, force=force)
    return _by_class([one.environment for one in devices], devices)


def _by_class(environments: Sequence[Environment], taken: Sequence[RayDevice] = ()) -> list[Fleet]:
    """Raises `UsageError` for nodes of one class with other libraries: a run is of one set."""
    found: dict[str, list[Environment]] = {}
    for other in environments:
        alike = found.setdefault(other.hardware_class, [])
        alike.append(other)
        for name in ("torch_version", "driver_version", "archbench_version"):
            ours, theirs = getattr(alike[0], name), getattr(other, name)
            if ours != theirs:
                raise UsageError(
                    f"{alike[0].machine} and {other.machine} differ in {name} ({ours}, {theirs}), and a run is of "
                    "one; measure them one after the other, and put the runs side by side with `archbench report`"
                )
    return [
        Fleet(alike, [one for one in taken if one.environment.hardware_class == hardware])
        for hardware, alike in found.items()
    ]


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
