"""When a compilation has paid for itself: after how many images the time it saves adds up to the time it took."""

from __future__ import annotations

import math
from collections.abc import Iterable

from msgspec import Struct

from archbench.choose.cell_summary import CellSummary
from archbench.choose.toggles import Alike, Gain, gain

NEVER = math.inf


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
        for (precision, memory_format, compile_mode), compiled in settings.items():
            eager = settings.get((precision, memory_format, "off"))
            if compile_mode == "off" or eager is None or not (eager.is_usable and compiled.is_usable):
                continue
            ratio = gain(eager, compiled, "throughput")
            if ratio is not None:
                found.append(
                    BreakEven(
                        eager=eager,
                        compiled=compiled,
                        gain=ratio,
                        cold=_images(compiled.compile_cold_s, eager, compiled),
                        warm=_images(compiled.compile_warm_s, eager, compiled),
                    )
                )
    return found


def _images(seconds: float | None, eager: CellSummary, compiled: CellSummary) -> Images | None:
    """The images that repay `seconds`, the interval from those of both rates as independent ones add up."""
    if seconds is None or not eager.rank_throughput_img_s or not compiled.rank_throughput_img_s:
        return None
    saved = 1 / eager.rank_throughput_img_s - 1 / compiled.rank_throughput_img_s
    halves = (_half(eager), _half(compiled))
    value = seconds / saved if saved > 0 else NEVER
    if halves[0] is None or halves[1] is None:
        return Images(value=value)
    half = math.hypot(halves[0], halves[1])
    most, least = saved + half, saved - half
    return Images(value=value, low=seconds / most if most > 0 else NEVER, high=seconds / least if least > 0 else NEVER)


def _half(one: CellSummary) -> float | None:
    """Half the interval of the seconds per image."""
    low, high = one.rank_throughput_low_img_s, one.rank_throughput_high_img_s
    return (1 / low - 1 / high) / 2 if low and high else None
