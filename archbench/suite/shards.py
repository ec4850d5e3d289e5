"""Shards: a suite's groups dealt out to machines that measure side by side, and know nothing of each other.

The split follows from the suite and from constants alone, never from the machine or from what is stored there, so that
every machine makes the same one. Each shard measures the twin too: it is the reference of that shard's device.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Mapping, Sequence
from operator import add, le, sub

from msgspec.structs import replace

from archbench.model.axes import DeviceKind
from archbench.model.cell import Cell, Group, Plan, Shard, process_key
from archbench.model.errors import UsageError
from archbench.model.suite import Suite
from archbench.suite.cells import unsupported
from archbench.suite.duration import predict
from archbench.suite.plan import grouped, twin_again, twin_group

USUAL = (8, 1.0)
"""Cores, and slowness (`Rates.speed`), of the machine that groups are weighed for: the same one everywhere."""
MACHINES = (USUAL, (2, 1.0), (32, 1.0), (8, 4.0))
"""Others for which the same split is to be even as well, where that costs the usual one no more than `_UNEVEN`."""
_UNEVEN = 0.05
_WHOLE = 10**9
"""What all groups weigh together on a machine: whole numbers, which add up to the same on every computer."""
_FEW = 400
"""Groups up to which a deal is improved by swaps: many small ones are even without."""
MOST_SHARDS = 10_000


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
    groups = [group for group in grouped(cells) if group.group_id != twins]
    if shard.of > max(len(groups), 1):
        raise UsageError(f"--shard {shard.word}: there are only {len(groups)} groups to share; give that many at most")
    weights = {
        group.group_id: [_seconds(group, suite, device, rounds, machine, short=short) for machine in MACHINES]
        for group in groups
    }
    of_group = _dealt(weights, shard.of)
    if _unevenness(weights, of_group, shard.of) > _UNEVEN:  # few and large groups: nothing suits all
        of_group = _dealt({name: each[:1] for name, each in weights.items()}, shard.of)
    again = set(twin_again(twin)) if twin else set()
    mine = [
        cell
        for cell in cells
        if ((key := process_key(cell)) in of_group and of_group[key] == shard.number)
        or (key == twins and (shard.number == 1 or cell in again))
    ]
    split = hashlib.sha256(repr((sorted(of_group.items()), twins, rounds, short)).encode()).hexdigest()[:16]
    return mine, replace(shard, split=split)


def _dealt(weights: Mapping[str, Sequence[float]], shards: int) -> dict[str, int]:
    """The shard of each group, given its seconds on each of some machines: all shards take equally long on any of them.

    The heaviest first, each to the shard that has least (LPT: no shard is over the mean by more than one group); then
    a group moves, or two change places, as long as that brings the most uneven shards nearer to the mean.
    """
    totals = [math.fsum(column) or 1.0 for column in zip(*weights.values(), strict=True)]
    shares = {
        name: [round(_WHOLE * one / total) for one, total in zip(each, totals, strict=True)]
        for name, each in weights.items()
    }
    loads = [[0] * len(totals) for _ in range(shards)]
    found: dict[str, int] = {}
    for name in sorted(shares, key=lambda name: (-sum(shares[name]), name)):
        best = min(range(shards), key=lambda shard: (max(map(add, loads[shard], shares[name])), shard))
        loads[best] = list(map(add, loads[best], shares[name]))
        found[name] = best
    while len(shares) <= _FEW and (step := _better(shares, loads, found)) is not None:
        for name, shard in step.items():
            loads[found[name]] = list(map(sub, loads[found[name]], shares[name]))
            loads[shard] = list(map(add, loads[shard], shares[name]))
            found[name] = shard
    return {name: shard + 1 for name, shard in found.items()}


def _unevenness(weights: Mapping[str, Sequence[float]], dealt: Mapping[str, int], shards: int) -> float:
    """How far the fullest or emptiest shard is from the mean, as a share, on the usual machine."""
    loads = [0.0] * shards
    for name, shard in dealt.items():
        loads[shard - 1] += weights[name][0]
    mean = math.fsum(loads) / shards or 1.0
    return round(max(abs(load / mean - 1) for load in loads), 6)


def _better(
    shares: Mapping[str, Sequence[int]], loads: Sequence[Sequence[int]], found: Mapping[str, int]
) -> dict[str, int] | None:
    """The groups of the best move or swap, each with its new shard; `None` where no shard gains by any.

    The most uneven shard goes first, and neither becomes as uneven as it was, nor is the fullest on any machine.
    """
    mean = _WHOLE // len(loads)
    fullest = [max(column) for column in zip(*loads, strict=True)]
    nothing = [0] * len(fullest)

    def unevenness(load: Sequence[int]) -> int:
        return sum((one - mean) ** 4 for one in load)

    uneven = list(map(unevenness, loads))
    for worst in sorted(range(len(loads)), key=lambda shard: (-uneven[shard], shard)):
        own = [("", nothing), *((name, shares[name]) for name, shard in found.items() if shard == worst)]
        others = [(name, shard, shares[name]) for name, shard in found.items() if shard != worst]
        others += [("", shard, nothing) for shard in range(len(loads)) if shard != worst]
        best: tuple[int, str, str, int] | None = None
        for name, mine in own:
            rest = list(map(sub, loads[worst], mine))
            for other, shard, theirs in others:
                here = list(map(add, rest, theirs))
                there = list(map(add, map(sub, loads[shard], theirs), mine))
                after = (max(unevenness(here), unevenness(there)), name, other, shard)
                gains = after[0] < uneven[worst] and (best is None or after < best)
                if gains and all(map(le, here, fullest)) and all(map(le, there, fullest)):
                    best = after
        if best is not None:
            _, name, other, shard = best
            return {**({name: shard} if name else {}), **({other: worst} if other else {})}
    return None


def _seconds(
    group: Group, suite: Suite, device: DeviceKind, rounds: int, machine: tuple[int, float], *, short: bool
) -> float:
    """What a group takes over all rounds, as if it were measured alone."""
    from archbench.device.kind import kind_named

    cores, slowness = machine
    rates = replace(kind_named(device).rates(cores), speed=slowness)
    smallest = Group(cells=group.cells[:1])
    later = ((smallest,) if smallest.cells[0].is_eager else ()) if short else (group,)
    plan = Plan(suite=suite.suite, device=device, seed=0, rounds=((group,), *((later,) * (rounds - 1))), short=short)
    return math.fsum(predict(plan, suite, rates).visits.values())
