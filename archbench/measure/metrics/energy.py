"""Joules an image, where the device counts them: over one long window, for its counter moves rarely."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from msgspec import Struct

from archbench.device.health import Probe, between
from archbench.device.kind import Clock, Step
from archbench.measure.metrics.metric import Metric
from archbench.model.protocol import Protocol

if TYPE_CHECKING:
    from archbench.measure.cell_run import CellRun

LONGER = 1.1
"""The window is this many times the shortest that the counter is trusted over."""


class Energy(Struct, frozen=True, kw_only=True):
    """What so many steps took."""

    steps: int
    joules: float
    mean_power_w: float | None


def measure_energy(step: Step, clock: Clock, probe: Probe, protocol: Protocol, *, step_s: float) -> Energy | str:
    """Run bursts of steps between two readings of the counter; where it cannot be read, the code of the reason why.

    `step_s` is the step's time when it is waited for; how many a burst holds follows from their time without waiting.
    """
    clock.synchronize()
    before = probe.read()
    if before.energy_mj is None:
        return before.missing.get("energy_mj", "not_on_device")
    start = time.perf_counter()
    steps = _burst_steps(protocol, step_s)
    burst = _burst_steps(protocol, clock.burst(step, steps).host_s / steps)
    while time.perf_counter() - start < protocol.energy_window_s * LONGER:
        clock.burst(step, burst)
        steps += burst
    health = between(before, probe.read(), energy_window_s=protocol.energy_window_s)
    if health.energy_j is None:
        return health.missing.get("energy_j", "monitor_gap")
    return Energy(steps=steps, joules=health.energy_j, mean_power_w=health.mean_power_w)


def _burst_steps(protocol: Protocol, step_s: float) -> int:
    return max(protocol.min_burst_steps, int(protocol.burst_s / step_s))


def _fill(run: CellRun) -> None:
    with run.phase("energy"), run.steady():
        group = run.group
        reading = measure_energy(run.workload.step, group.clock, group.probe, run.task.protocol, step_s=run.step_s)
    if not isinstance(reading, Energy):
        run.row.null(reading, "energy_j_per_img")
        return
    images = reading.steps * run.cell.batch_size
    run.row.set(energy_j_per_img=reading.joules / images, mean_power_w=reading.mean_power_w)


ENERGY = Metric(name="energy", fill=_fill)
