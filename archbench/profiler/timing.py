"""Times a step by module, and what watching it costs: plain and observed steps take turns."""

from __future__ import annotations

import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any

from msgspec import Struct

from archbench.device.clock import Clock
from archbench.device.kind import kind_of
from archbench.measure.workload import Workload
from archbench.profiler.boundaries import LOSS, OBSERVING, OPTIMIZER, OTHER, Boundaries, Owner, between

LEAST_PAIRS = 5
LEAST_SLOW_PAIRS = 3
SLOW_S = 1.0
"""A step from which three pairs must do: a training step of a transformer takes 15 s on one core."""
MOST_PAIRS = 40


class StepTimes(Struct, frozen=True, kw_only=True):
    """Means over the faster half of the steps: they add up as medians do not, and what disturbs a step slows it."""

    plain_s: float
    """On the host's clock, waited for: events on an idle stream would contain the same gaps between launches."""
    observed_s: float
    """Without the time that looking for the graph's nodes takes, which stands between forward and backward."""
    observing_cost: float
    """Whole observed step over plain step, less 1."""
    steps: int
    by_owner: dict[Owner, float]
    calls: dict[str, int]
    shapes: dict[str, tuple[int, ...]]
    kinds: dict[str, str]


def time_by_module(workload: Workload, clock: Clock, timing_s: float) -> StepTimes:
    """Time the eager step of a warmed-up `workload` for `timing_s`, or longer for the fewest pairs."""
    stopwatch = kind_of(workload.device).stopwatch()
    observed: list[dict[Owner, float]] = []
    boundaries = open_boundaries(workload, stopwatch.read)

    def watch() -> None:
        with boundaries:
            clock.synchronize()
            observe(workload, boundaries)
            clock.synchronize()
        observed.append(between(boundaries.marks, stopwatch.seconds))
        stopwatch.restart()

    plain_s = time_plain(workload, clock, timing_s, watch)
    fast = sorted(observed, key=lambda step: sum(step.values()))[: _half(observed)]
    by_owner: dict[Owner, float] = defaultdict(float)
    for step in fast:
        for owner, seconds in step.items():
            by_owner[owner] += seconds / len(fast)
    whole_s = sum(by_owner.values())
    own_work_s = sum(by_owner.pop(owner) for owner in list(by_owner) if owner.path == OBSERVING)
    return StepTimes(
        plain_s=plain_s,
        observed_s=whole_s - own_work_s,
        observing_cost=whole_s / plain_s - 1.0,
        steps=len(fast),
        by_owner=dict(by_owner),
        calls=dict(boundaries.calls),
        shapes=dict(boundaries.shapes),
        kinds=dict(boundaries.kinds),
    )


def time_plain(
    workload: Workload, clock: Clock, timing_s: float, between_steps: Callable[[], object] = lambda: None
) -> float:
    """Seconds of one step, as `StepTimes.plain_s`; of a workload that has been called."""
    plain: list[float] = []
    begin = time.perf_counter()
    while _more(len(plain), time.perf_counter() - begin, timing_s):
        plain.append(clock.latency(workload.step).host_s)
        between_steps()
    return statistics.fmean(sorted(plain)[: _half(plain)])


def _more(pairs: int, spent_s: float, timing_s: float) -> bool:
    slow = pairs >= LEAST_SLOW_PAIRS and spent_s > 2 * SLOW_S * pairs
    return (pairs < LEAST_PAIRS and not slow) or (pairs < MOST_PAIRS and spent_s < timing_s)


def open_boundaries(
    workload: Workload, read: Callable[[], Any], ranges: Callable[[str], AbstractContextManager[Any]] | None = None
) -> Boundaries[Any]:
    """Boundaries fit for `observe`."""
    afterwards = LOSS if workload.cell.phase == "training" else OTHER
    return Boundaries(workload.module, read, afterwards=afterwards, ranges=ranges)


def observe(workload: Workload, boundaries: Boundaries[Any]) -> None:
    """Do one step and tell `boundaries` of its parts; the same work as `workload.step`."""
    boundaries.start()
    if workload.cell.phase == "inference":
        workload.step()
    else:
        loss = workload.loss()
        boundaries.follow_backward(loss)
        workload.backward(loss)
        boundaries.hand_over(OPTIMIZER)
        workload.update()
    boundaries.end()


def _half(steps: Sequence[object]) -> int:
    return (len(steps) + 1) // 2
