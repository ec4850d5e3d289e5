"""Can this machine time at all: its clock's resolution and cost, and how much a fixed piece of work varies."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence

import numpy as np
from msgspec import Struct

from archbench.device.checks import Finding, ok, unfit, warn

COARSE_NS = 10_000
"""A step of the clock this long is 1 % of the shortest sample (1 ms): nothing short can be timed."""
COSTLY_NS = 2_000
"""A reading this dear goes through the kernel instead of the time-stamp counter."""
JITTERY = 0.10
"""Spread of fixed work above which a 3 % difference is out of reach in a single run."""
_READINGS = 5_000
_ELEMENTS = 32_768  # 256 KiB in and as much out: stays in the core's own cache.


class ClockQuality(Struct, frozen=True, kw_only=True):
    """What reading a clock over and over showed."""

    step_ns: int
    """Smallest difference between two readings that differ."""
    cost_ns: float
    """Mean time of one reading."""
    backwards: int
    """Readings that were before the one ahead of them."""


def read_clock(clock: Callable[[], int] = time.perf_counter_ns, readings: int = _READINGS) -> ClockQuality:
    """Read a clock of ns `readings` times in a row."""
    stamps = [clock() for _ in range(readings)]
    steps = np.diff(np.asarray(stamps, dtype=np.int64))
    forward = steps[steps > 0]
    return ClockQuality(
        step_ns=int(forward.min()) if forward.size else stamps[-1] - stamps[0],
        cost_ns=(stamps[-1] - stamps[0]) / (readings - 1),
        backwards=int((steps < 0).sum()),
    )


def judge_clock(clock: ClockQuality) -> Finding:
    """Whether short steps can be timed by it."""
    what = f"the clock steps by {clock.step_ns} ns and costs {clock.cost_ns:.0f} ns a reading"
    if clock.backwards:
        return unfit("clock", f"the clock went backwards {clock.backwards} times", "check the kernel's clock source")
    if clock.step_ns <= 0 or clock.step_ns > COARSE_NS:
        return unfit("clock", what, "no short step can be timed here; check the kernel's clock source")
    if clock.cost_ns > COSTLY_NS:
        return warn("clock", what, "check the kernel's clock source (tsc is the cheap one)")
    return ok("clock", what)


def time_fixed_work(duration_s: float) -> list[float]:
    """Seconds of each repetition of the same work (about 0.3 ms: sines of an array that stays in the cache)."""
    source = np.linspace(0.0, 1.0, _ELEMENTS)
    target = np.empty_like(source)
    times = []
    end = time.perf_counter() + duration_s
    now = time.perf_counter()
    while now < end:
        np.sin(source, out=target)
        after = time.perf_counter()
        times.append(after - now)
        now = after
    return times


def spread(times: Sequence[float]) -> float:
    """Distance between the 10th and the 90th percentile, over the median."""
    low, middle, high = np.percentile(times, (10, 50, 90))
    return float((high - low) / middle)


def judge_spread(share: float) -> Finding:
    """What a spread of equal work, as `spread` gives it, says of the machine."""
    what = f"the same work took times that spread by {share:.1%} (10th to 90th percentile)"
    if share > JITTERY:
        return warn("jitter", what, "stop other work and fix the clock, or measure several rounds")
    return ok("jitter", what)


def timing_findings(duration_s: float = 1.0) -> Iterator[Finding]:
    """Try the clock and a second of fixed work."""
    yield judge_clock(read_clock())
    yield judge_spread(spread(time_fixed_work(duration_s)))
