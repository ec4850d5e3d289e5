"""Which groups of a round are prepared side by side: as many as the machine has cores and memory for."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from itertools import takewhile
from typing import Self

from msgspec import Struct

from archbench.device.kind import kind_named
from archbench.model.axes import DeviceKind, Metric
from archbench.model.cell import Cell, Group
from archbench.model.environment import Environment
from archbench.suite.duration import size_of

MOST = 8
"""Processes of a wave: each holds its network until it is measured."""
MEMORY_SHARE = 0.9
"""Of the device's memory that they may fill together."""
TRAINING_WEIGHTS = 3
"""Weights, gradients, momentum."""
LIVE = 0.25
"""Share of an inference step's activations that are alive at its peak, at most: a training step keeps all."""


class Room(Struct, frozen=True, kw_only=True):
    """What the processes of a wave share."""

    kind: DeviceKind
    cores: int
    memory_bytes: int | None
    """The device's; `None` where that is not known."""

    @classmethod
    def of(cls, environment: Environment) -> Self:
        """That of a machine."""
        memory_bytes = kind_named(environment.kind).room(environment)
        return cls(kind=environment.kind, cores=environment.cpu_count, memory_bytes=memory_bytes)

    @property
    def processes(self) -> int:
        """How many may prepare at the same time: each keeps one core busy, now and then more."""
        return min(MOST, self.cores)

    def holds(self, groups: Sequence[Group]) -> bool:
        """Whether there are cores and memory for all of them: compiled ones have run when they fall asleep."""
        kind = kind_named(self.kind)
        if len(groups) > self.processes:
            return False
        asleep = sum(kind.process_bytes + _bytes(group.cells[-1], ran=_compiles(group)) for group in groups)
        awake = max(_bytes(group.cells[-1], ran=True) for group in groups)
        return self.memory_bytes is None or asleep + awake <= MEMORY_SHARE * self.memory_bytes


def arranged(groups: Sequence[Group], room: Room, metrics: Collection[Metric]) -> Iterator[tuple[int, Group]]:
    """The groups of a round with the number of their wave, 0 for those that are prepared alone.

    In the place of the first compiled group come those that compile longest, so that those of a wave take about as
    long. Alone are those that time kernels as they compile (max-autotune), and those that another runtime prepares.
    Where the suite asks for `compile` the first group of each network, phase and runtime compiles undisturbed: alone.
    Eager groups keep their order; on a device of its own, where to start a process and load its libraries takes
    seconds, those that follow each other start together.
    """
    left = list(groups)
    seen: set[tuple[str, str, str]] = set()
    number = 0
    while left:
        first, *others = _company(left, room, metrics, seen)
        wave = [first]
        for other in others:
            if room.holds([*wave, other]):
                wave.append(other)
        number += len(wave) > 1
        for group in wave:
            left.remove(group)
            yield number if len(wave) > 1 else 0, group
        seen |= {_network(group) for group in wave if not group.cells[0].is_eager}


def _company(
    left: Sequence[Group], room: Room, metrics: Collection[Metric], seen: Collection[tuple[str, str, str]]
) -> Sequence[Group]:
    """Those of which the next wave is made, as many as fit, in this order."""
    first = left[0]
    if first.cells[0].is_eager:
        starts_slowly = kind_named(room.kind).own_clock
        return list(takewhile(lambda one: one.cells[0].is_eager, left)) if starts_slowly else [first]

    def joins(group: Group) -> bool:
        return _compiles(group) and ("compile" not in metrics or _network(group) in seen)

    return sorted(filter(joins, left), key=_work, reverse=True) if joins(first) else [first]


def _work(group: Group) -> int:
    """To compile it, in operators: a training step has a backward pass, too."""
    cell = group.cells[0]
    return size_of(cell.network).operators * (2 if cell.phase == "training" else 1)


def _compiles(group: Group) -> bool:
    cell = group.cells[0]
    return cell.runtime == "torch" and cell.compile_mode in ("default", "reduce-overhead")


def _network(group: Group) -> tuple[str, str, str]:
    cell = group.cells[0]
    return cell.network.label, cell.phase, cell.runtime


def _bytes(cell: Cell, *, ran: bool) -> float:
    """About what a cell's process holds in fp32: its weights, and at the peak of its step what else lives then."""
    size = size_of(cell.network)
    training = cell.phase == "training"
    weights = size.params * (TRAINING_WEIGHTS if training else 1)
    return 4.0 * (weights + size.activations * cell.batch_size * (1.0 if training else LIVE) * ran)
