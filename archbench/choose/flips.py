"""Which networks change order when toggles are turned on: the ranking under one setting is not that under another."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
from msgspec import Struct

from archbench.choose.cell_summary import CellSummary
from archbench.choose.toggles import Gain, gain

if TYPE_CHECKING:
    from numpy.typing import NDArray

_BLOCK = 256
"""Networks held against all others at a time: thousands of networks have millions of pairs."""
_MOST_NAMED = 200
"""Flips of one comparison that are named; all are counted."""


_Timed = tuple[CellSummary, float, float]
"""A cell, the log of its latency, and half the interval of that."""


class Flip(Struct, frozen=True, kw_only=True):
    """Two networks of which one is faster before, the other after."""

    faster_before: CellSummary
    faster_after: CellSummary
    """The other network, as measured before, too."""
    before: Gain
    """How many times faster the first is before."""
    after: Gain
    """How many times faster the other is after."""


class Flips(Struct, frozen=True, kw_only=True):
    """One setting's ranking held against another's, at one phase and batch size."""

    phase: str
    batch_size: int
    before: str
    """Labels of the two settings."""
    after: str
    pairs: int
    """Pairs of networks fit to be compared under both settings, each at its own image size or both at one asked for."""
    flipped: int
    named: tuple[Flip, ...]
    """The largest first: by the smaller of its two ratios."""


def rank_flips(cells: Iterable[CellSummary], changes: Sequence[tuple[str, str]], floor: float | None) -> list[Flips]:
    """The flips for each phase, batch size and change of setting (labels, before and after) that has two networks.

    A pair counts as flipped where its latencies differ under both settings, in opposite directions, by more than the
    noise floor (a ratio less 1) and by more than their intervals together.
    """
    by_place: dict[tuple[str, int, int], dict[str, dict[str, _Timed]]] = {}
    for one in cells:
        if one.is_usable and one.rank_latency_s:
            place = by_place.setdefault((one.phase, one.batch_size, one.asked_size or 0), {})
            place.setdefault(one.setting_label, {})[one.variant] = _timed(one)
    found: dict[tuple[str, int, str, str], Flips] = {}
    for (phase, batch_size, _), settings in sorted(by_place.items()):
        for before, after in changes:
            then, now = settings.get(before, {}), settings.get(after, {})
            ranked = sorted((then[name][1], name) for name in then.keys() & now.keys())
            if len(ranked) > 1:
                count, named = _flips([then[name] for _, name in ranked], [now[name] for _, name in ranked], floor)
                key = (phase, batch_size, before, after)
                found[key] = _added(found.get(key), key, math.comb(len(ranked), 2), count, named)
    return list(found.values())


def _added(
    sofar: Flips | None, key: tuple[str, int, str, str], pairs: int, flipped: int, named: Iterable[Flip]
) -> Flips:
    """The flips of one more image size with those of the others."""
    every = sorted(
        (*(sofar.named if sofar else ()), *named), key=lambda flip: -min(flip.before.ratio, flip.after.ratio)
    )
    phase, batch_size, before, after = key
    return Flips(
        phase=phase,
        batch_size=batch_size,
        before=before,
        after=after,
        pairs=pairs + (sofar.pairs if sofar else 0),
        flipped=flipped + (sofar.flipped if sofar else 0),
        named=tuple(every[:_MOST_NAMED]),
    )


def _flips(then: list[_Timed], now: list[_Timed], floor: float | None) -> tuple[int, list[Flip]]:
    """How many pairs flip, and the strongest of them. Both lists: the same networks, fastest before first."""
    before, after = (np.array([(log, half) for _, log, half in cells]) for cells in (then, now))
    found = np.concatenate([np.empty((0, 3)), *_inversions(before, after, floor)])
    flips = []
    for fast, slow, _ in found[np.argsort(-found[:, 2], kind="stable")[:_MOST_NAMED]]:
        i, j = int(fast), int(slow)
        lead, loss = gain(then[j][0], then[i][0]), gain(now[i][0], now[j][0])
        if lead is not None and loss is not None:
            flips.append(Flip(faster_before=then[i][0], faster_after=then[j][0], before=lead, after=loss))
    return len(found), flips


def _inversions(
    before: NDArray[np.float64], after: NDArray[np.float64], floor: float | None
) -> Iterator[NDArray[np.float64]]:
    """Rows (i, j, strength): i is faster before and j after, both by more than noise and intervals.

    `before`, `after`: log time and half its interval, shape (networks, 2), ascending in `before[:, 0]`. The strength is
    the smaller of the two differences of logs.
    """
    least = math.nan if floor is None else math.log1p(floor)
    time, half = before.T
    gained = time - after[:, 0]
    # A pair further apart before than any two gains differ cannot have changed places.
    reach = np.searchsorted(time, time + (gained.max(initial=-math.inf) - gained.min(initial=math.inf)), side="right")
    for start in range(0, len(time), _BLOCK):
        rows = slice(start, start + _BLOCK)
        columns = slice(start, int(reach[rows].max()))
        lead = time[None, columns] - time[rows, None]
        loss = after[rows, None, 0] - after[None, columns, 0]
        i, j = np.nonzero((lead > 0) & (loss > 0))
        lead, loss = lead[i, j], loss[i, j]
        i, j = i + start, j + start
        # fmax: without a noise floor the intervals decide, without intervals the floor, without either nothing.
        told = lead > np.fmax(least, np.hypot(half[i], half[j]))
        told &= loss > np.fmax(least, np.hypot(after[i, 1], after[j, 1]))
        yield np.column_stack([i, j, np.minimum(lead, loss)])[told]


def _timed(one: CellSummary) -> _Timed:
    low, high = one.rank_latency_low_s, one.rank_latency_high_s
    half = math.log(high / low) / 2 if low and high else math.nan
    return one, math.log(one.rank_latency_s or math.nan), half
