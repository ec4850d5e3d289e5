"""Shards: a suite's groups dealt out to machines that measure side by side, and know nothing of each other.

The split follows from the suite and from constants alone, never from the machine or from what is stored there, so that
every machine makes the same one. Each shard measures the twin too: it is the reference of that shard's device.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence

from msgspec.structs import replace

from archbench.model.axes import DeviceKind
from archbench.model.cell import Cell, Group, Plan, Shard, process_key
from archbench.model.errors import UsageError
from archbench.model.suite import Suite
from archbench.suite.cells import unsupported
from archbench.suite.duration import predict
from archbench.suite.plan import grouped, twin_again, twin_group

CORES = 8
"""Of the machine that groups are weighed for: only how they compare matters, and it must be the same everywhere."""
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
    weights = {group.group_id: _seconds(group, suite, device, rounds, short=short) for group in groups}
    of_group = _dealt(weights, shard.of)
    again = set(twin_again(twin)) if twin else set()
    mine = [
        cell
        for cell in cells
        if ((key := process_key(cell)) in of_group and of_group[key] == shard.number)
        or (key == twins and (shard.number == 1 or cell in again))
    ]
    split = hashlib.sha256(repr((sorted(of_group.items()), twins, rounds, short)).encode()).hexdigest()[:16]
    return mine, replace(shard, split=split)


def _dealt(weights: Mapping[str, float], shards: int) -> dict[str, int]:
    """The shard of each group: the heaviest first, each to the shard that has least (LPT, within 4/3 of the best)."""
    loads = [0.0] * shards
    found: dict[str, int] = {}
    for group in sorted(weights, key=lambda name: (-round(weights[name], 6), name)):
        least = min(range(shards), key=lambda number: (round(loads[number], 6), number))
        loads[least] += weights[group]
        found[group] = least + 1
    return found


def _seconds(group: Group, suite: Suite, device: DeviceKind, rounds: int, *, short: bool) -> float:
    """What a group takes over all rounds, as if it were measured alone."""
    from archbench.device.kind import kind_named

    smallest = Group(cells=group.cells[:1])
    later = ((smallest,) if smallest.cells[0].is_eager else ()) if short else (group,)
    plan = Plan(suite=suite.suite, device=device, seed=0, rounds=((group,), *((later,) * (rounds - 1))), short=short)
    return sum(predict(plan, suite, kind_named(device).rates(CORES)).visits.values())
