"""What a step costs the device itself, without the gaps in which it waits for the host; and who sets the pace.

Between two events on an idle stream stands every launch gap, so that the device's time can only be read where the
device never waited: behind a backlog of work that outlasts the issuing of the steps.
"""

from __future__ import annotations

import time
from statistics import median
from typing import Literal

from msgspec import Struct

from archbench.device.kind import Backlogged, Clock, Step
from archbench.measure.sampling import Sampled, gc_paused, usable

MOST_SAMPLES = 30
FEWEST_SAMPLES = 3
BUDGET_S = 0.3
"""After this long the fewest samples must do, for device time scatters little, and one lost backlog is enough."""
MOST_LOST = 3
"""After so many backlogs that did not hold and fewer that did, none will."""
LEAD = 1.5
LEAD_FLOOR_S = 200e-6
"""A backlog outlasts the issuing by half as much again, and by what the host may be held up for."""
Defeat = Literal["waits_inside", "backlog_lost"]
KEEPS_UP: dict[Defeat, float] = {"waits_inside": 1.01, "backlog_lost": 0.98}
"""Where no backlog held: up to this ratio of issue time to the time on the device the host has kept the device busy.

A wait inside the step makes the two equal. A full queue lets the host be done before the device, as long as the device
never waits."""


class DeviceTime(Struct, frozen=True, kw_only=True):
    """One step on the device, in seconds."""

    step_s: float | None
    """Median over the samples; None where no backlog held."""
    at_most_s: float
    """`step_s`, or where there is none, the time with as much of a lead as the step leaves the host."""
    defeat: Defeat | None
    """Code of the reason why there is no `step_s`."""
    steps: int
    """Steps in each sample."""
    samples: tuple[Backlogged, ...]
    """Those whose backlog held; where none did, those that show `at_most_s`."""


def sample_device_time(step: Step, clock: Clock, *, steps: int, issue_s: float) -> DeviceTime:
    """Time a step that takes `issue_s` to issue, `steps` of them at once, behind backlogs: a few dozen at most."""
    held: list[Backlogged] = []
    lost: list[Backlogged] = []
    lead_s = LEAD * issue_s
    defeat: Defeat = "backlog_lost"
    start = time.perf_counter()
    with gc_paused():
        while len(held) < MOST_SAMPLES:
            one = clock.backlogged(step, steps, LEAD_FLOOR_S + lead_s * steps)
            if one.held:
                held.append(one)
            elif steps > 1:  # several steps may be more than the queue holds, or wait for each other, where one is not
                steps = 1
                held.clear()
            else:
                lost.append(one)
                lead_s *= LEAD
                if len(lost) == 1 and clock.waits_inside(step):
                    defeat = "waits_inside"
            late = time.perf_counter() - start > BUDGET_S
            if late and (len(held) >= FEWEST_SAMPLES or (lost and not held)):
                break
            if len(lost) >= MOST_LOST and len(lost) > len(held):
                break
    if len(held) >= FEWEST_SAMPLES:
        step_s = median(one.device_s for one in held) / steps
        return DeviceTime(step_s=step_s, at_most_s=step_s, defeat=None, steps=steps, samples=tuple(held))
    at_most_s = median(one.device_s for one in lost)
    return DeviceTime(step_s=None, at_most_s=at_most_s, defeat=defeat, steps=1, samples=tuple(lost))


def issue_time(latency: Sampled) -> float | None:
    """Median time in which the host issues one step; None on a device that is done when a step returns."""
    issues = [timing.issue_s for timing in usable(latency.stretches) if timing.issue_s is not None]
    return median(issues) / latency.steps if issues else None


def host_bound(issue_s: float, device: DeviceTime, ratio: float) -> bool | None:
    """Whether the host sets the pace: issuing a step takes more than `ratio` times what the device needs for it.

    The device then waits for the host however many steps are under way. What the device needs at most suffices to
    say yes. To say no where no backlog held, the lead that the device was given must have bought nothing (`KEEPS_UP`);
    in between nothing is known.
    """
    if issue_s > ratio * device.at_most_s:
        return True
    return False if device.defeat is None or issue_s <= KEEPS_UP[device.defeat] * device.at_most_s else None


def repeated_s(work: Step, clock: Clock, repeats: int) -> float:
    """Seconds of one of `repeats` pieces of work in a row, on the device's own clock where it has one.

    Of work that is longer than its launches: where the backlog is lost, a burst of it has one launch gap in all.
    """
    timing = clock.burst(work, repeats)
    if timing.issue_s is not None:
        behind = clock.backlogged(work, repeats, LEAD_FLOOR_S + LEAD * timing.issue_s)
        if behind.held:
            return behind.device_s / repeats
    return timing.seconds / repeats
