"""Shards: a suite's groups dealt out to machines that measure side by side, and know nothing of each other.

The split follows from the suite and from constants alone, never from the machine or from what is stored there, so that
every machine makes the same one. Each shard measures the twin too: it is the reference of that shard's device.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import cache
from heapq import nsmallest
from itertools import product
from operator import add

from msgspec.structs import replace

from archbench.model.axes import DeviceKind
from archbench.model.cell import Cell, Group, Plan, Shard, process_key
from archbench.model.errors import UsageError
from archbench.model.suite import Suite
from archbench.suite.cells import unsupported
from archbench.suite.duration import predict
from archbench.suite.plan import Room, grouped, in_rounds, twin_again, twin_group

HOSTS = ((8, 1.0, 8), (2, 1.0, 1), (32, 1.0, 1))
"""Machines that measure on themselves, for which a split is to be even: their cores, their slowness (`Rates.speed`),
and how many processes prepare side by side there: as many as can, or each alone."""
CARDS = ((16, 1.0, 16), (16, 4.0, 16), (16, 1.0, 1))
"""The same of a card and its host."""
EVEN = 0.02
"""How far from the mean a shard's time may be without anything being done about it."""
_TRIES = 150
"""Shards that are predicted at most, in search of an even split: each takes milliseconds."""
_PARTNERS, _EXCHANGES = 4, 6
"""Shards that an uneven one may exchange groups with, and exchanges with each that are tried."""
MOST_SHARDS = 10_000

_Names = frozenset[str]
_Times = tuple[int, ...]
"""Of a shard or a group on each machine, in ms: whole numbers, which add up to the same on every computer."""


def parse_shard(text: str) -> Shard:
    """Read `3/16`. Raises `UsageError` for what is no part of a whole."""
    found = re.fullmatch(r"\s*(\d{1,6})\s*/\s*(\d{1,6})\s*", text)
    if found is None:
        raise UsageError(f"--shard {text}: is not NUMBER/OF; write for example --shard 3/16")
    number, of = int(found[1]), int(found[2])
    if not 1 <= of <= MOST_SHARDS:
        raise UsageError(f"--shard {text}: a suite has 1 to {MOST_SHARDS:,} shards")
    if not 1 <= number <= of:
        raise UsageError(f"--shard {text}: shards are counted from 1, so there are 1/{of} to {of}/{of}")
    return Shard(number=number, of=of)


def share_of(
    cells: Sequence[Cell], suite: Suite, device: DeviceKind, rounds: int, *, short: bool, shard: Shard
) -> tuple[list[Cell], Shard]:
    """The cells of one shard in their order, the twin's among them, and the shard with the hash of its split.

    What this machine lacks a package for is dealt out all the same. Raises `UsageError` for more shards than groups.
    """
    twin = twin_group(grouped(cell for cell in cells if unsupported(cell) is None), suite.twin)
    twins = process_key(twin.cells[0]) if twin else ""
    again = Group(cells=twin_again(twin)) if twin else None
    groups = {group.group_id: group for group in grouped(cells) if group.group_id != twins}
    if shard.of > max(len(groups), 1):
        raise UsageError(f"--shard {shard.word}: there are only {len(groups)} groups to share; give that many at most")

    def plan_of(names: Collection[str], first: bool) -> Plan:
        """What a shard with these groups does; the first has all cells of the twin."""
        own = twin if first else again
        members = [*map(groups.__getitem__, sorted(names)), *([own] if own else [])]
        return in_rounds(suite, device, members, own, rounds, short=short)

    split = _split(groups, shard.of, plan_of, suite)
    of_group = {name: number for number, names in enumerate(split, 1) for name in names}
    mine = [
        cell
        for cell in cells
        if ((key := process_key(cell)) in of_group and of_group[key] == shard.number)
        or (key == twins and (shard.number == 1 or (again is not None and cell in again.cells)))
    ]
    told = hashlib.sha256(repr((sorted(of_group.items()), twins, rounds, short)).encode()).hexdigest()[:16]
    return mine, replace(shard, split=told)


def _split(
    groups: Collection[str], shards: int, plan_of: Callable[[Collection[str], bool], Plan], suite: Suite
) -> list[_Names]:
    """The groups of each shard, so that all take equally long, by what `archbench plan` would say on each machine."""
    from archbench.device.kind import kind_named

    whole = plan_of(groups, True)
    kind = kind_named(whole.device)
    machines = [
        (replace(kind.rates(cores), speed=slow), room) for cores, slow, room in (HOSTS if kind.is_host else CARDS)
    ]

    def predictions(plan: Plan) -> Iterator[Mapping[tuple[str, int, int], float]]:
        for rates, cores in machines:
            room = Room(kind=plan.device, cores=cores, memory_bytes=rates.memory_bytes)
            yield predict(plan, suite, rates, room).visits

    @cache
    def takes(names: _Names, first: bool) -> _Times:
        return tuple(round(1000 * sum(visits.values())) for visits in predictions(plan_of(names, first)))

    of_cell = {cell.cell_id: group.group_id for group in whole.rounds[0] for cell in group.cells}
    weights = {name: [0.0] * len(machines) for name in groups}
    for machine, visits in enumerate(predictions(whole)):
        for (cell, _, _), seconds in visits.items():
            if (name := of_cell[cell]) in weights:
                weights[name][machine] += 1000 * seconds
    whole_ms = {name: tuple(map(round, each)) for name, each in weights.items()}
    return _Levelling(_dealt(whole_ms, shards), whole_ms, takes).done(_TRIES)


def _dealt(weights: Mapping[str, _Times], shards: int) -> list[_Names]:
    """The heaviest first, each to the shard that has least (LPT): none is over the mean by more than one group."""
    totals = [sum(column) or 1 for column in zip(*weights.values(), strict=True)]
    shares = {name: [one / total for one, total in zip(each, totals, strict=True)] for name, each in weights.items()}
    loads = [[0.0] * len(totals) for _ in range(shards)]
    found: list[set[str]] = [set() for _ in range(shards)]
    for name in sorted(shares, key=lambda name: (-sum(shares[name]), name)):
        best = min(range(shards), key=lambda shard: (max(map(add, loads[shard], shares[name])), shard))
        loads[best] = list(map(add, loads[best], shares[name]))
        found[best].add(name)
    return list(map(frozenset, found))


class _Levelling:
    """A split that gets more even by groups that move, or change places.

    `takes`: the times of a shard that has these groups, and is the first or not. They are no sum over its groups, as
    these compile side by side, and count a network for each other; `weights` only say what is worth trying.
    """

    def __init__(
        self, dealt: Sequence[_Names], weights: Mapping[str, _Times], takes: Callable[[_Names, bool], _Times]
    ) -> None:
        self._takes = takes
        self._split = list(dealt)
        self._loads = [takes(names, not number) for number, names in enumerate(dealt)]
        self._weights = {**weights, "": (0,) * len(self._loads[0])}
        """Of no group, too: a move is an exchange with it."""

    def done(self, tries: int) -> list[_Names]:
        """The split, once nothing is uneven, or nothing helps, or so many shards were tried."""
        stuck: set[int] = set()
        self._tries = tries
        while self._tries > 0:
            self._means = [sum(column) / len(self._loads) or 1.0 for column in zip(*self._loads, strict=True)]
            self._far = [max(self._off(load), key=abs) for load in self._loads]
            uneven = [shard for shard, far in enumerate(self._far) if abs(far) > EVEN and shard not in stuck]
            if not uneven:
                break
            worst = max(uneven, key=lambda shard: (abs(self._far[shard]), -shard))
            stuck = set() if self._helped(worst) else {*stuck, worst}
        return self._split

    def _off(self, times: _Times) -> list[float]:
        """Shares by which times are over the mean; of each machine."""
        return [one / mean - 1 for one, mean in zip(times, self._means, strict=True)]

    def _helped(self, worst: int) -> bool:
        """Make the best found change of a shard and another one, neither of which is as uneven then as it was."""
        sign = 1 if self._far[worst] > 0 else -1
        others = (shard for shard in range(len(self._split)) if shard != worst)
        for other in nsmallest(_PARTNERS, others, key=lambda shard: (sign * self._far[shard], shard)):
            for given, taken in self._exchanges(worst, other):
                here = (self._split[worst] - {given}) | ({taken} - {""})
                there = (self._split[other] - {taken}) | ({given} - {""})
                times = self._takes(here, not worst), self._takes(there, not other)
                self._tries -= 2
                if max(map(self._unevenness, times)) < 0.98 * self._unevenness(self._loads[worst]):
                    self._split[worst], self._split[other] = here, there
                    self._loads[worst], self._loads[other] = times
                    return True
        return False

    def _unevenness(self, times: _Times) -> float:
        return sum(off * off * off * off for off in self._off(times))

    def _exchanges(self, one: int, other: int) -> list[tuple[str, str]]:
        """Groups of one shard and of the other whose exchange would make both about equal, the best first."""
        half = [(here - there) / 2 for here, there in zip(self._loads[one], self._loads[other], strict=True)]

        def misses(pair: tuple[str, str]) -> tuple[float, tuple[str, str]]:
            given, taken = (self._weights[name] for name in pair)
            off = (
                (less - more - wanted) / mean
                for less, more, wanted, mean in zip(given, taken, half, self._means, strict=True)
            )
            return sum(each * each for each in off), pair

        names = product(("", *self._split[one]), ("", *self._split[other]))
        return nsmallest(_EXCHANGES, (pair for pair in names if any(pair)), key=misses)
