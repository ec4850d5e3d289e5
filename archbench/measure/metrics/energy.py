"""Joules an image, where the device counts them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from archbench.measure.energy import Energy, measure_energy
from archbench.measure.metrics.metric import Metric

if TYPE_CHECKING:
    from archbench.measure.cell_run import CellRun


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
