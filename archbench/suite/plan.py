"""Plans: every cell of a suite on one device, in groups, in the order in which a run measures them.

And which groups of a round are prepared side by side, in waves: as many as the machine has cores and memory for.
"""

from __future__ import annotations

import random
from collections.abc import Collection, Iterable, Iterator, Sequence
from itertools import takewhile
from typing import Self

import msgspec
from msgspec import Struct

from archbench.device.kind import kind_named
from archbench.model.axes import PRECISIONS, TIMED, DeviceKind, Metric
from archbench.model.cell import Cell, Group, Plan, Shard, Skip, process_key
from archbench.model.environment import Environment
from archbench.model.errors import UsageError
from archbench.model.suite import MAX_ROUNDS, Suite
from archbench.suite.cells import expand, select_only, size_of, unsupported

TWIN_VISITS = 3
"""First, in between and last: the least that tells a drift (first to last) from noise."""

CellVisit = tuple[str, int, int]
"""What one row of results stands for: cell id, round, visit."""


def make_plan(
    suite: Suite, device: DeviceKind, *, only: Sequence[str] = (), rounds: int | None = None, shard: Shard | None = None
) -> Plan:
    """Plan a run of `suite` on `device`: its cells in groups, the groups in an order of their own each round.

    `only` keeps the cells that match any pattern (`resnet*`, `resnet50@batch_size=1`); `rounds` goes before the
    suite's. Where neither names any, there are `Kind.short_rounds` of them if anything is timed: the first measures
    everything, the later ones only the times of each eager group's smallest cell (`Plan.short`).
    A cell that cannot be what it says on this device is in `skipped` with the reason. `shard`: only that part of it.
    Raises `UsageError` for a pattern that matches nothing, for rounds out of range, for more shards than groups, and
    where no cell is left.
    """
    named = suite.rounds if rounds is None else rounds
    short = named is None and not set(TIMED).isdisjoint(suite.metrics)
    count = named if named is not None else kind_named(device).short_rounds if short else 1
    if not 1 <= count <= MAX_ROUNDS:
        raise UsageError(f"--rounds {count} is out of range; give 1 to {MAX_ROUNDS}")
    cells = expand(suite, device)
    if not cells:
        raise UsageError(f"suite {suite.suite} has no cell for {device}; see its `devices:` and `exclude:`")
    if only:
        cells = select_only(cells, only)
    if shard is not None:
        from archbench.suite.shards import share_of

        cells, shard = share_of(cells, suite, device, count, short=short, shard=shard)
    told = [(cell, unsupported(cell)) for cell in cells]
    skipped = tuple(Skip(cell=cell, reason=reason) for cell, reason in told if reason is not None)
    groups = grouped(cell for cell, reason in told if reason is None)
    twin = twin_group(groups, suite.twin)
    planned = msgspec.structs.replace(
        in_rounds(suite, device, groups, twin, count, short=short, shard=shard), skipped=skipped
    )
    if shard is not None:
        whole = msgspec.structs.replace(shard, rows=len(skipped) + planned.visits)
        planned = msgspec.structs.replace(planned, shard=whole)
    return planned


def in_rounds(
    suite: Suite,
    device: DeviceKind,
    groups: Sequence[Group],
    twin: Group | None,
    count: int,
    *,
    short: bool,
    shard: Shard | None = None,
) -> Plan:
    """The plan of these groups, of which `twin` is one; parameters as of `make_plan`."""
    visit = TWIN_VISITS * (shard.number - 1) if shard else 0
    again = [
        Group(cells=group.cells[:1], visit=visit if group is twin else 0) for group in groups if group.cells[0].is_eager
    ]
    rounds = (
        ordered(*((again, None) if short and number else (groups, twin)), suite.seed, number, visit)
        for number in range(count)
    )
    return Plan(suite=suite.suite, device=device, seed=suite.seed, rounds=tuple(rounds), short=short)


def grouped(cells: Iterable[Cell]) -> list[Group]:
    """Cells that one process measures, batch sizes ascending: growing allocations reuse the smaller ones."""
    members: dict[str, list[Cell]] = {}
    for cell in cells:
        members.setdefault(process_key(cell), []).append(cell)
    for group in members.values():
        # fp32 first: where its output is the reference for another precision, cuDNN keeps the plan of its own cell.
        group.sort(key=lambda cell: (cell.batch_size, PRECISIONS.index(cell.precision)))
    return [Group(cells=tuple(group)) for group in members.values()]


def ordered(
    groups: Sequence[Group], twin: Group | None, seed: int, round_number: int, visit: int = 0
) -> tuple[Group, ...]:
    """One round: the groups shuffled, the twin's first, in the middle and last; these count their visits from `visit`.

    The order depends on the groups and the seed alone, not on the order of the suite's file; every round has its own,
    so that a drift of the machine does not favour the same networks each time.
    """
    rest = sorted((group for group in groups if group is not twin), key=lambda group: group.group_id)
    random.Random(f"{seed}-{round_number}").shuffle(rest)
    if twin is None:
        return tuple(rest)
    first, middle, last = (
        Group(cells=twin_again(twin) if number else twin.cells, visit=visit + number) for number in range(TWIN_VISITS)
    )
    half = len(rest) // 2
    return (first, *rest[:half], middle, *rest[half:], last)


def twin_again(twin: Group) -> tuple[Cell, ...]:
    """The cells that are measured at every visit of the twin; at its first all are."""
    return tuple(cell for cell in twin.cells if cell.precision == twin.cells[0].precision)


def twin_group(groups: Sequence[Group], twin: str | None) -> Group | None:
    """The group that stands for the twin: its first in the suite's order. One is enough to show the noise floor."""
    by_label = (group for group in groups if group.cells[0].network.label == twin)
    by_name = (group for group in groups if group.cells[0].network.name == twin)
    return next(by_label, None) or next(by_name, None)


def reference_of(suite: Suite, device: DeviceKind) -> str | None:
    """The id of the cell that each device measures, first, in between and last: of the twin; `None` without one."""
    twin = twin_group(grouped(cell for cell in expand(suite, device) if unsupported(cell) is None), suite.twin)
    return None if twin is None else twin.cells[0].cell_id


def remaining(plan: Plan, finished: Collection[CellVisit]) -> Plan:
    """What a resumed run still has to do: `plan` without the cells that are finished.

    Rounds keep their numbers; one with nothing left stays as an empty tuple, so that `rounds[2]` is round 2 still.
    """
    done = frozenset(finished)

    def left(group: Group, number: int) -> Group:
        cells = (cell for cell in group.cells if (cell.cell_id, number, group.visit) not in done)
        return msgspec.structs.replace(group, cells=tuple(cells))

    each = ([left(group, number) for group in groups] for number, groups in enumerate(plan.rounds))
    return msgspec.structs.replace(plan, rounds=tuple(tuple(one for one in groups if one.cells) for groups in each))


MOST_IN_WAVE = 8
"""Processes: each holds its network until it is measured."""
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
        return min(MOST_IN_WAVE, self.cores)

    def holds(self, groups: Sequence[Group]) -> bool:
        """Whether there are cores and memory for all of them: compiled ones have run when they fall asleep."""
        kind = kind_named(self.kind)
        if len(groups) > self.processes:
            return False
        asleep = sum(kind.process_bytes + _bytes(group.cells[-1], ran=_compiles(group)) for group in groups)
        awake = max(_bytes(group.cells[-1], ran=True) for group in groups)
        return self.memory_bytes is None or asleep + awake <= MEMORY_SHARE * self.memory_bytes


def arranged(groups: Sequence[Group], room: Room | None, metrics: Collection[Metric]) -> Iterator[tuple[int, Group]]:
    """The groups of a round with the number of their wave, 0 for those that are prepared alone: all, without a room.

    In the place of the first compiled group come those that compile longest, so that those of a wave take about as
    long. Alone are those that time kernels as they compile (max-autotune), and those that another runtime prepares.
    Where the suite asks for `compile` the first group of each network, phase and runtime compiles undisturbed: alone.
    Eager groups keep their order; on a device of its own, where to start a process and load its libraries takes
    seconds, those that follow each other start together.
    """
    if room is None:
        yield from ((0, group) for group in groups)
        return
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

    def work(group: Group) -> int:  # in operators: a training step has a backward pass, too
        cell = group.cells[0]
        return size_of(cell.network).operators * (2 if cell.phase == "training" else 1)

    return sorted(filter(joins, left), key=work, reverse=True) if joins(first) else [first]


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
