"""What each toggle contributes, alone and on top of others, and under which setting a network is best.

Compared are cells of one run that differ in nothing but their toggles: same network, phase, batch and image size.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Literal

from msgspec import Struct

from archbench.choose.cell_summary import PLAIN, CellSummary, axes_order
from archbench.choose.ties import LONGEST_LOG

Toggles = tuple[str, str, str]
"""Precision, memory format and mode of compilation."""
Alike = dict[Toggles, CellSummary]
"""Cells of one network, phase, batch and image size, by their toggles."""
Measure = Literal["latency", "throughput"]
_LogTime = tuple[float, float | None] | None
"""The log of a time, and half the interval of that; `None` where nothing was timed."""


class Gain(Struct, frozen=True, kw_only=True, gc=False):
    """How many times faster, with its 95 % interval where both sides have one."""

    ratio: float
    low: float | None = None
    high: float | None = None

    def exceeds(self, floor: float | None) -> bool:
        """Whether it is told from 1: by more than the noise floor (a ratio less 1), and outside its own interval.

        False where neither is known: a bare ratio proves nothing.
        """
        if self.low is None or self.high is None:
            return floor is not None and abs(math.log(self.ratio)) > math.log1p(floor)
        return not self.low <= 1 <= self.high and abs(math.log(self.ratio)) > math.log1p(floor or 0.0)


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
    return _gain(_log_time(base, measure), _log_time(head, measure))


def alike(cells: Iterable[CellSummary]) -> list[Alike]:
    """The cells that differ in nothing but toggles together, by toggles; smallest batch first, then by name."""
    together: dict[tuple[str, int, str, int], dict[tuple[str, str, str], CellSummary]] = {}
    for one in cells:
        together.setdefault((one.phase, one.batch_size, one.variant, one.input_size or 0), {})[one.toggles] = one
    return [together[key] for key in sorted(together)]


def steps(groups: Sequence[Alike], order: Sequence[str] = ()) -> list[Step]:
    """Every single toggle's gain that the groups show, of cells that are fit to be compared.

    A setting is held against the same setting with one of its toggles off, for each of them that was measured; and
    against the setting before it in `order` (labels, as the suite has them), where one toggle takes another's place:
    on a ladder fp32, tf32, amp, the last two differ in precision alone.
    """
    toggles_of = {one.setting_label: one.toggles for group in groups for one in group.values()}
    ladder = [toggles_of[name] for name in order if name in toggles_of]
    plans: dict[tuple[Toggles, ...], list[tuple[Toggles, Toggles, str]]] = {}
    found = []
    for group in groups:
        settings = _usable(group)
        measured = tuple(settings)
        if measured not in plans:
            plans[measured] = _planned(measured, ladder)
        times = {toggles: _log_time(one, "latency") for toggles, one in settings.items()}
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
    for after in sorted(measured, key=axes_order):
        befores = [toggles for toggles in _less_one(after) if toggles in measured]
        previous = under.get(after)
        if previous is not None and previous not in befores and len(_changed(previous, after)) == 1:
            befores.append(previous)
        planned += [(before, after, _changed(before, after)[0]) for before in befores]
    return planned


def best_setting(group: Alike, floor: float | None, measure: Measure = "latency") -> Best | None:
    """The setting under which the network of a group does best; `None` below two settings that were measured.

    `floor`: the run's noise floor, a ratio less 1. Settings within it, or within the intervals, are tied.
    """
    settings = _usable(group)
    timed = [(time[0], one) for one in settings.values() if (time := _log_time(one, measure)) is not None]
    if len(timed) < 2:
        return None
    first, *others = (one for _, one in sorted(timed, key=lambda pair: pair[0]))
    leads = ((other, gain(other, first, measure)) for other in others)
    plain = settings.get(PLAIN)
    return Best(
        cell=first,
        gain=None if plain is None or first is plain else gain(plain, first, measure),
        tied=tuple(other for other, lead in leads if lead is not None and not lead.exceeds(floor)),
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


def _gain(base: _LogTime, head: _LogTime) -> Gain | None:
    if base is None or head is None:
        return None
    (one, one_half), (other, other_half) = base, head
    ratio = math.exp(min(one - other, LONGEST_LOG))
    if one_half is None or other_half is None:
        return Gain(ratio=ratio)
    half = min(math.hypot(one_half, other_half), LONGEST_LOG)
    return Gain(ratio=ratio, low=ratio * math.exp(-half), high=ratio * math.exp(half))


def _log_time(one: CellSummary, measure: Measure) -> _LogTime:
    """Log of the time that a step or an image takes."""
    if measure == "latency":
        value, low, high = one.rank_latency_s, one.rank_latency_low_s, one.rank_latency_high_s
    else:
        value, low, high = one.rank_throughput_img_s, one.rank_throughput_low_img_s, one.rank_throughput_high_img_s
    if not value:
        return None
    half = math.log(high / low) / 2 if low and high else None
    return math.log(value) if measure == "latency" else -math.log(value), half


def _less_one(toggles: Toggles) -> list[Toggles]:
    """The same setting with one of its toggles off, for each that is on."""
    precision, memory_format, compile_mode = toggles
    less = [
        (PLAIN[0], memory_format, compile_mode),
        (precision, PLAIN[1], compile_mode),
        (precision, memory_format, PLAIN[2]),
    ]
    return [one for one in less if one != toggles]


def _changed(before: Toggles, after: Toggles) -> list[str]:
    """The toggles of `after` that `before` lacks, in words."""
    pairs = zip(before, after, ("{}", "{}", "compile={}"), strict=True)
    return [words.format(now) for then, now, words in pairs if then != now]
