"""What toggles do: what each contributes, which setting is best, when compiling pays, which networks change places.

Compared are cells of one run that differ in nothing but their toggles: same network, phase, batch and image size.
"""

from __future__ import annotations

import math
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np
from msgspec import Struct
from msgspec.structs import replace

from archbench.choose.cell_summary import CellSummary, Estimate
from archbench.model.axes import PLAIN, Toggles

if TYPE_CHECKING:
    from numpy.typing import NDArray

_BLOCK = 256
"""Networks held against all others at a time: thousands of networks have millions of pairs."""
_MOST_NAMED = 200
"""Flips of one comparison that are named; all are counted."""
NEVER = math.inf
_MOST = math.log(sys.float_info.max) - 1
"""Above this log a ratio is no float any more."""
Alike = dict[Toggles, CellSummary]
"""Cells of one network, phase, batch and image size, by their toggles."""
Measure = Literal["latency", "throughput"]


class Gain(Struct, frozen=True, kw_only=True, gc=False):
    """How many times faster, with its 95 % interval where both sides have one."""

    ratio: float
    low: float | None = None
    high: float | None = None

    @property
    def told(self) -> bool:
        """Whether it is told from 1: outside its interval. A bare ratio proves nothing."""
        return self.low is not None and self.high is not None and not self.low <= 1 <= self.high


class Step(Struct, frozen=True, kw_only=True, gc=False):
    """One toggle turned on, everything else equal."""

    toggle: str
    """`tf32`, `amp-bf16`, `channels_last`, `compile=default`, ..."""
    before: CellSummary
    after: CellSummary
    gain: Gain

    @property
    def alone(self) -> bool:
        """Against plain fp32, not on top of other toggles."""
        return self.before.is_plain

    @property
    def suspect(self) -> bool:
        """One of its sides is suspect."""
        return "suspect" in (self.before.verdict, self.after.verdict)


class Best(Struct, frozen=True, kw_only=True):
    """The setting under which one network does best at one batch size, and how sure that is."""

    cell: CellSummary
    gain: Gain | None
    """Over plain fp32; `None` where that was not measured, or is the best."""
    tied: tuple[CellSummary, ...]
    """Other settings that cannot be told from it, nearest first."""


class Cost(Struct, frozen=True, kw_only=True):
    """What a setting does to the output of a network, beside what it gains over plain fp32."""

    cell: CellSummary
    gain: Gain | None


def gain(base: CellSummary, head: CellSummary, measure: Measure = "latency") -> Gain | None:
    """How many times faster `head` is than `base`; `None` where either was not measured.

    Their intervals add up as those of independent logs do.
    """
    return _gain(base.timed(measure), head.timed(measure))


def alike(cells: Iterable[CellSummary]) -> list[Alike]:
    """The cells that differ in nothing but toggles together, by toggles; smallest batch first, then by name."""
    together: dict[tuple[str, int, str, int, int], Alike] = {}
    for one in cells:
        key = (one.phase, one.batch_size, one.variant, one.input_size or 0, one.threads or 0)
        together.setdefault(key, {})[one.toggles] = one
    return [together[key] for key in sorted(together)]


def steps(groups: Sequence[Alike], order: Sequence[str] = ()) -> list[Step]:
    """Every single toggle's gain that the groups show, of cells that are fit to be compared.

    A setting is held against the same setting with one of its toggles off, for each of them that was measured; and
    against the setting before it in `order` (labels, as the suite has them), where one toggle takes another's place:
    on a ladder fp32, tf32, amp, the last two differ in precision alone.
    """
    toggles_of = {one.setting_label: one.toggles for group in groups for one in group.values()}
    ladder = list(dict.fromkeys(toggles_of[name] for name in order if name in toggles_of))
    plans: dict[tuple[Toggles, ...], list[tuple[Toggles, Toggles, str]]] = {}
    found = []
    for group in groups:
        settings = _usable(group)
        measured = tuple(settings)
        if measured not in plans:
            plans[measured] = _planned(measured, ladder)
        times = {toggles: one.timed() for toggles, one in settings.items()}
        for before, after, toggle in plans[measured]:
            ratio = _gain(times[before], times[after])
            if ratio is not None:
                found.append(Step(toggle=toggle, before=settings[before], after=settings[after], gain=ratio))
    return found


def _planned(measured: Sequence[Toggles], ladder: Sequence[Toggles]) -> list[tuple[Toggles, Toggles, str]]:
    """The steps between these settings: toggles before, toggles after, and the one that is turned on, in words."""
    rungs = [toggles for toggles in ladder if toggles in measured]
    under = dict(zip(rungs[1:], rungs, strict=False))
    planned = []
    for after in sorted(measured, key=lambda toggles: toggles.order):
        befores = [toggles for toggles in after.less_one() if toggles in measured]
        previous = under.get(after)
        if previous is not None and previous not in befores and len(after.added_to(previous)) == 1:
            befores.append(previous)
        planned += [(before, after, after.added_to(before)[0]) for before in befores]
    return planned


def best_setting(group: Alike, measure: Measure = "latency") -> Best | None:
    """The setting under which the network of a group does best; `None` below two settings that were measured.

    A suspect one comes before those that are `ok` only where it can be told from the best of them. Settings within the
    intervals are tied.
    """
    settings = _usable(group)
    timed = [one for one in settings.values() if one.timed(measure).evidence]
    if len(timed) < 2:
        return None
    timed.sort(key=lambda one: one.timed(measure).value or 0.0, reverse=measure == "throughput")
    fine = next((one for one in timed if one.verdict == "ok"), None)

    def told(one: CellSummary) -> bool:
        lead = None if fine is None else gain(fine, one, measure)
        return lead is not None and lead.told

    first = next(one for one in timed if one is fine or fine is None or told(one))
    others = [one for one in timed if one is not first]
    leads = ((other, gain(other, first, measure)) for other in others)
    plain = settings.get(PLAIN)
    return Best(
        cell=first,
        gain=None if plain is None or first is plain else gain(plain, first, measure),
        tied=tuple(other for other, lead in leads if lead is not None and not lead.told),
    )


def costs(groups: Iterable[Alike]) -> list[Cost]:
    """Every cell whose output was held against plain fp32's, with its gain at the same batch size."""
    found = []
    for group in groups:
        plain = _usable(group).get(PLAIN)
        for one in group.values():
            if one.output_rel_error is not None or one.output_finite is not None:
                fit = plain is not None and one.is_usable
                found.append(Cost(cell=one, gain=gain(plain, one) if fit and plain is not None else None))
    return found


def _usable(group: Alike) -> Alike:
    return {toggles: one for toggles, one in group.items() if one.is_usable}


def _gain(base: Estimate, head: Estimate) -> Gain | None:
    """Of times or of rates; `None` where either is no evidence."""
    if not (base.evidence and head.evidence and base.value and head.value):
        return None
    larger, smaller = (head, base) if base.column == "rank_throughput_img_s" else (base, head)
    log = math.log(larger.value or 1.0) - math.log(smaller.value or 1.0)
    if not (base.half and head.half):
        return Gain(ratio=_ratio(log))
    half = math.hypot(base.half, head.half)
    return Gain(ratio=_ratio(log), low=_ratio(log - half), high=_ratio(log + half))


def _ratio(log: float) -> float:
    return math.exp(min(log, _MOST))


class Images(Struct, frozen=True, kw_only=True):
    """A number of images with its 95 % interval, whose upper end may be never; no interval where a side has none."""

    value: float
    """`NEVER` where compiled is not faster."""
    low: float | None = None
    high: float | None = None


class BreakEven(Struct, frozen=True, kw_only=True):
    """One compiled cell against the same cell in eager mode."""

    eager: CellSummary
    compiled: CellSummary
    gain: Gain
    """By throughput, of which the saved time is the difference."""
    cold: Images | None
    """With an empty compile cache; `None` where that compilation was not timed."""
    warm: Images | None
    """With a cache filled by an earlier process."""


def break_evens(groups: Iterable[Alike]) -> list[BreakEven]:
    """Every compiled cell that has its eager counterpart, the same in all other toggles; both fit to be compared.

    images = compile time / (time per image eager - time per image compiled), with the time per image of the pipelined
    rate: images by the thousand are not waited for one by one. The first step's own time is part of the compile time.
    """
    found = []
    for settings in groups:
        for toggles, compiled in settings.items():
            eager = settings.get(replace(toggles, compile_mode="off", runtime="torch", quantize="off"))
            if toggles.is_eager or eager is None or not (eager.is_usable and compiled.is_usable):
                continue
            ratio = gain(eager, compiled, "throughput")
            if ratio is not None:
                cold, warm = (
                    _images(one, eager, compiled) for one in (compiled.compile_cold_s, compiled.compile_warm_s)
                )
                found.append(BreakEven(eager=eager, compiled=compiled, gain=ratio, cold=cold, warm=warm))
    return found


def _images(seconds: float | None, eager: CellSummary, compiled: CellSummary) -> Images | None:
    """The images that repay `seconds`, the interval from those of both times per image as independent ones add up."""
    rates = [one.timed("throughput") for one in (eager, compiled)]
    if seconds is None or not rates[0].value or not rates[1].value:
        return None
    saved = 1 / rates[0].value - 1 / rates[1].value
    value = seconds / saved if saved > 0 else NEVER
    if not (rates[0].half and rates[1].half):
        return Images(value=value)
    half = math.hypot(*(math.sinh(one.half) / (one.value or 1.0) for one in rates))
    most, least = saved + half, saved - half
    return Images(value=value, low=seconds / most if most > 0 else NEVER, high=seconds / least if least > 0 else NEVER)


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


def rank_flips(cells: Iterable[CellSummary], changes: Sequence[tuple[str, str]]) -> list[Flips]:
    """The flips for each phase, batch size and change of setting (labels, before and after) that has two networks.

    A pair counts as flipped where its latencies differ under both settings, in opposite directions, by more than their
    intervals together.
    """
    by_place: dict[tuple[str, int, int], dict[str, dict[str, _Timed]]] = {}
    for one in cells:
        time = one.timed()
        if one.is_usable and time.evidence and time.value:
            place = by_place.setdefault((one.phase, one.batch_size, one.asked_size or 0), {})
            place.setdefault(one.setting_label, {})[one.variant] = (one, math.log(time.value), time.half or math.nan)
    found: dict[tuple[str, int, str, str], list[tuple[int, int, list[Flip]]]] = defaultdict(list)
    for (phase, batch_size, _), settings in sorted(by_place.items()):  # image sizes of one batch count together
        for before, after in changes:
            then, now = settings.get(before, {}), settings.get(after, {})
            ranked = sorted((then[name][1], name) for name in then.keys() & now.keys())
            if len(ranked) > 1:
                count, named = _flips([then[name] for _, name in ranked], [now[name] for _, name in ranked])
                found[phase, batch_size, before, after].append((math.comb(len(ranked), 2), count, named))
    return [
        Flips(
            phase=phase,
            batch_size=batch_size,
            before=before,
            after=after,
            pairs=sum(pairs for pairs, _, _ in each),
            flipped=sum(count for _, count, _ in each),
            named=tuple(sorted((flip for *_, named in each for flip in named), key=_weakness)[:_MOST_NAMED]),
        )
        for (phase, batch_size, before, after), each in found.items()
    ]


def _weakness(flip: Flip) -> float:
    return -min(flip.before.ratio, flip.after.ratio)


def _flips(then: list[_Timed], now: list[_Timed]) -> tuple[int, list[Flip]]:
    """How many pairs flip, and the strongest of them. Both lists: the same networks, fastest before first."""
    before, after = (np.array([(log, half) for _, log, half in cells]) for cells in (then, now))
    found = np.concatenate([np.empty((0, 3)), *_inversions(before, after)])
    flips = []
    for fast, slow, _ in found[np.argsort(-found[:, 2], kind="stable")[:_MOST_NAMED]]:
        i, j = int(fast), int(slow)
        lead, loss = gain(then[j][0], then[i][0]), gain(now[i][0], now[j][0])
        if lead is not None and loss is not None:
            flips.append(Flip(faster_before=then[i][0], faster_after=then[j][0], before=lead, after=loss))
    return len(found), flips


def _inversions(before: NDArray[np.float64], after: NDArray[np.float64]) -> Iterator[NDArray[np.float64]]:
    """Rows (i, j, strength): i is faster before and j after, both by more than the intervals together.

    `before`, `after`: log time and half its interval (NaN for none, which tells nothing), shape (networks, 2),
    ascending in `before[:, 0]`. The strength is the smaller of the two differences of logs.
    """
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
        told = (lead > np.hypot(half[i], half[j])) & (loss > np.hypot(after[i, 1], after[j, 1]))
        yield np.column_stack([i, j, np.minimum(lead, loss)])[told]
