"""The loops that take timings: warm-up, latency, throughput. They know steps, clocks and rules, but no networks."""

from __future__ import annotations

import contextlib
import gc
import math
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from statistics import fmean, median
from typing import Protocol as Interface

from msgspec import Struct

from archbench.device.kind import Clock, Step, Timing
from archbench.model.protocol import WATCHED_S, Protocol
from archbench.stats.intervals import Interval, blocked_interval, interval_over_blocks, median_interval
from archbench.stats.sampling import Stop, StoppingRule, WarmupDetector

STRETCH_S = 0.2
"""Between two looks at the monitor at least this much is timed: a look takes a few milliseconds of NVML calls."""
MOST_REPEATS = 2.0
"""Rejected stretches are repeated until the accepted and rejected ones together took this many times the cap."""
PERSISTENT = 3
"""So many stretches rejected in a row for one cause end the sampling: whatever it is will not go away by waiting."""
FEWEST_IN_BLOCK = 2
"""A block of one step has no scatter of its own to tell noise from movement."""
FIRST_GLIMPSE = 2
"""Steps of the warm-up, beside the one before it, after which whoever waits for a first figure is shown one."""
STALLED = "stalled"
STALL = 3.0
"""Times its usual one: so long does a step take where OpenMP threads wait for each other at the end of every loop, and
one of them for a neighbour's time slice. Seen at 20 and 50; a core that is shared evenly makes it 2."""
WARMUP_ROOM = 1.5
"""A slow step gets this many times the steps that the warm-up rule needs to see, whatever the cap in seconds."""


class Monitor(Interface):
    """What is asked at the edges of a stretch, never inside one."""

    def begin(self) -> None:
        """A stretch follows."""

    def end(self, *, slow: bool = False) -> str | None:
        """A stretch has ended; None if it may be kept, else the code of the reason why not.

        A `slow` one took many times what others of the cell took: a stall if other work held the cores.
        """


class Stretch(Struct, frozen=True, kw_only=True):
    """Consecutive timings between two looks at the monitor."""

    timings: tuple[Timing, ...]
    rejected: str | None = None
    """Code of the reason why it does not count."""

    @property
    def kept(self) -> bool:
        """It counts."""
        return self.rejected is None


class WarmUp(Struct, frozen=True, kw_only=True):
    """How the warm-up went."""

    calls: int
    step_s: float
    """Median step on the host's clock over the last blocks: the loops plan with it, since they pay the host's time."""
    level: bool
    """False: the cap was reached while step times still moved."""
    stretches: tuple[Stretch, ...] = ()
    """The last of these steps, where they were timed under a monitor: as level as any sample, and so the first ones."""

    @property
    def unsampled(self) -> int:
        """Steps of these that are no samples."""
        return self.calls - sum(len(stretch.timings) for stretch in self.stretches)


class Sampled(Struct, frozen=True, kw_only=True):
    """What one experiment yielded."""

    stretches: tuple[Stretch, ...]
    steps: int
    """Steps in each timing."""
    interval: Interval
    """Median and 95 % interval of one step on the host's clock (latency) or the device's (throughput), in seconds."""
    stop: Stop | None
    """Why sampling ended; None if nothing acceptable was left to take."""

    def kept(self) -> list[Timing]:
        """The timings that count."""
        return [timing for stretch in self.stretches if stretch.kept for timing in stretch.timings]

    @property
    def given_up(self) -> str | None:
        """Code of the cause for which sampling was given up."""
        stalled = self.stop is None and self.stretches[-1].rejected == STALLED
        return STALLED if stalled else persistent_cause(self.stretches)


@contextlib.contextmanager
def gc_paused() -> Iterator[None]:
    """Collect now, and not at all inside: a collection in the middle of a step shows up in p99.

    What was alive when measuring began should have been frozen (`gc.freeze`): each collection would walk all of torch.
    """
    was_enabled = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def warm_up(
    step: Step,
    clock: Clock,
    protocol: Protocol,
    *,
    first_cell: bool,
    crowded: bool = False,
    glimpse: Callable[[float], None] = lambda step_s: None,
    monitor: Monitor | None = None,
) -> WarmUp:
    """Call `step` until its time is level, or the cap is reached. The process's very first call must have been made.

    A slow step gets more time than the cap, but not where the device is `crowded`: it may be slow for that alone.
    `glimpse` is told the seconds of a step after the first few, and once more when it is warm. Past the least warm-up a
    `monitor` watches blocks of slow steps, so that those which are then found level need not be taken again.
    """
    guess = clock.latency(step).host_s
    room_s = 0.0 if crowded else WARMUP_ROOM * guess
    block = max(FEWEST_IN_BLOCK, min(protocol.warmup_block, int(protocol.warmup_block_s / guess)))
    needed = block * protocol.warmup_level_blocks
    least_s = protocol.warmup_first_cell_s if first_cell else protocol.warmup_later_cell_s
    detector = WarmupDetector(
        block=block,
        level_blocks=protocol.warmup_level_blocks,
        level_change=protocol.warmup_level_change,
        min_calls=protocol.warmup_min_calls,
        min_seconds=least_s,
        cap_seconds=max(protocol.warmup_cap_s, room_s * needed),
    )
    recent: deque[float] = deque([guess], maxlen=needed)
    spent_s = 0.0
    stretches: list[Stretch] = []

    def once() -> Timing:
        timing = clock.latency(step)
        recent.append(timing.host_s)
        detector.add(timing.host_s)
        if detector.calls == FIRST_GLIMPSE:
            glimpse(median(recent))
        return timing

    while detector.done is None:
        past_least = detector.calls + 1 >= protocol.warmup_min_calls and spent_s >= least_s
        if monitor and past_least and detector.calls % block == 0 and block * median(recent) >= WATCHED_S:
            with gc_paused():
                monitor.begin()
                timings = tuple(once() for _ in range(block))
                stretches.append(Stretch(timings=timings, rejected=monitor.end()))
            spent_s += sum(timing.host_s for timing in timings)
        else:
            spent_s += once().host_s
    step_s = median(recent)
    glimpse(step_s)
    level = detector.done == "level"
    are_samples = level and step_s >= protocol.sample_floor_s
    last = _last_kept(stretches, needed) if are_samples else ()
    return WarmUp(calls=detector.calls + 1, step_s=step_s, level=level, stretches=last)


def _last_kept(stretches: Sequence[Stretch], most: int) -> tuple[Stretch, ...]:
    """The last stretches that were kept, of so many timings at most."""
    kept: list[Stretch] = []
    for stretch in reversed(stretches):
        most -= len(stretch.timings)
        if not stretch.kept or most < 0:
            break
        kept.insert(0, stretch)
    return tuple(kept)


def sample_latency(
    step: Step,
    clock: Clock,
    protocol: Protocol,
    monitor: Monitor,
    *,
    step_s: float,
    min_samples: int,
    begun: Sequence[Stretch] = (),
) -> Sampled:
    """Time synchronised steps until the stopping rule is content.

    `min_samples` is what the requested percentiles need; steps slower than `slow_step_s` keep their own, lower minimum.
    `begun`: stretches of the warm-up that count, of one step a timing, the latest that `monitor` has seen; at least one
    more is taken.
    """
    steps = max(1, math.ceil(protocol.sample_floor_s / step_s))
    rule = StoppingRule(
        step_s=step_s * steps,
        min_samples=max(protocol.min_samples, min_samples),
        min_samples_slow=protocol.min_samples_slow,
        slow_step_s=protocol.slow_step_s,
        min_blocks=protocol.min_blocks,
        min_seconds=protocol.min_sampling_s,
        max_samples=max(protocol.max_samples, min_samples),
        max_seconds=protocol.max_sampling_s,
        target_half_width=protocol.target_half_width,
    )
    stretches = [*begun]
    for timing in usable(stretches) if stretches else ():
        rule.add(timing.host_s)
    patience = Patience(MOST_REPEATS * protocol.max_sampling_s, protocol.stall_wait_s, step_s * steps)
    with gc_paused():
        while (rule.done is None or len(stretches) == len(begun)) and not patience.exhausted(stretches):
            stretch = patience.take(lambda: clock.latency(step, steps), monitor, rule.block_length, rule.count)
            stretches.append(stretch)
            if stretch.kept:
                for timing in stretch.timings:
                    rule.add(timing.host_s)
    interval = blocked_interval([timing.host_s / steps for timing in usable(stretches)])
    return Sampled(stretches=tuple(stretches), steps=steps, interval=interval, stop=rule.done)


def sample_throughput(step: Step, clock: Clock, protocol: Protocol, monitor: Monitor, *, step_s: float) -> Sampled:
    """Time bursts of steps without waiting inside; a burst is one block, so the interval is over bursts."""
    steps = burst_steps(protocol, step_s)
    stretches: list[Stretch] = []
    patience = Patience(MOST_REPEATS * protocol.max_throughput_s, protocol.stall_wait_s, step_s * steps)
    seconds: list[float] = []
    stop: Stop | None = None
    with gc_paused():
        while stop is None and not patience.exhausted(stretches):
            stretch = patience.take(lambda: clock.burst(step, steps), monitor, 1)
            stretches.append(stretch)
            if stretch.kept:
                seconds += [timing.seconds for timing in stretch.timings]
                stop = _enough_bursts(seconds, protocol)
    interval = median_interval([timing.seconds / steps for timing in usable(stretches)])
    return Sampled(stretches=tuple(stretches), steps=steps, interval=interval, stop=stop)


def bursts_within(latency: Sampled, protocol: Protocol) -> Interval | None:
    """The interval of one step over the bursts, means of consecutive steps, that latency has timed already.

    `None` where steps back to back are something else than steps waited for one by one: on a device that queues them,
    unless one step is as long as a burst. On others bursts may be shorter, so that there are enough of them.
    """
    times = [timing.host_s / latency.steps for timing in usable(latency.stretches)]
    fill = math.ceil(burst_steps(protocol, median(times)) / latency.steps)
    if fill > 1 and any(timing.issue_s is not None for timing in usable(latency.stretches)):
        return None
    fill = min(fill, len(times) // protocol.min_bursts)
    if fill < 2:
        return latency.interval
    bursts = [fmean(times[start : start + fill]) for start in range(0, len(times) - fill + 1, fill)]
    return interval_over_blocks(bursts, fill)


def burst_steps(protocol: Protocol, step_s: float) -> int:
    """Steps of a burst."""
    return max(protocol.min_burst_steps, math.ceil(protocol.burst_s / step_s))


class Patience:
    """Takes stretches, and ends the repeating of rejected ones on a device that never gets better.

    `seconds` for all of them, and `stall_s` more where it is a stall that is waited for; `usual_s` is what a timing
    took so far.
    """

    def __init__(self, seconds: float, stall_s: float, usual_s: float) -> None:
        self._seconds = seconds
        self._stall_s = stall_s
        self._usual_s = usual_s
        self._started = time.perf_counter()

    def take(self, timing: Callable[[], Timing], monitor: Monitor, multiple: int, before: int = 0) -> Stretch:
        """Timings for `STRETCH_S`, a `multiple` with those `before`, or up to one as long that looks like a stall."""
        timings: list[Timing] = []
        taken_s = 0.0
        hung = False
        monitor.begin()
        while (taken_s < STRETCH_S or (before + len(timings)) % multiple) and not hung:
            timings.append(timing())
            taken_s += timings[-1].host_s
            hung = timings[-1].host_s > max(STRETCH_S, STALL * self._usual_s)
        middle_s = median(one.host_s for one in timings)
        rejected = monitor.end(slow=hung or middle_s > STALL * self._usual_s)
        if rejected is None:
            self._usual_s = min(self._usual_s, middle_s)
        return Stretch(timings=tuple(timings), rejected=rejected)

    def exhausted(self, stretches: Sequence[Stretch]) -> bool:
        """One cause persists, or time is up and a stretch was rejected; without rejections the rule alone decides."""
        if not stretches or all(stretch.kept for stretch in stretches):
            return False
        stalled = any(stretch.rejected == STALLED for stretch in stretches)
        late = time.perf_counter() - self._started > self._seconds + (self._stall_s if stalled else 0.0)
        return late or persistent_cause(stretches) is not None


def persistent_cause(stretches: Sequence[Stretch]) -> str | None:
    """The one cause for which the last `PERSISTENT` stretches were all rejected, if there is one.

    A stall is waited for instead: it has its own time.
    """
    last = {stretch.rejected for stretch in stretches[-PERSISTENT:]}
    return last.pop() if len(stretches) >= PERSISTENT and len(last) == 1 and last != {STALLED} else None


def _enough_bursts(seconds: list[float], protocol: Protocol) -> Stop | None:
    spent = sum(seconds)
    if len(seconds) < protocol.min_bursts or spent < protocol.min_throughput_s:
        return None
    width = median_interval(seconds).half_width
    if width is not None and width <= protocol.target_half_width:
        return "converged"
    return "capped" if spent >= protocol.max_throughput_s else None


def usable(stretches: Sequence[Stretch]) -> list[Timing]:
    """The accepted timings; where everything was rejected, all of them: the row is invalid, but shows what was seen."""
    kept = [timing for stretch in stretches if stretch.kept for timing in stretch.timings]
    return kept or [timing for stretch in stretches for timing in stretch.timings]
