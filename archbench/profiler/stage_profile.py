"""The metric `profile` of a suite: where one cell's step spends its time, by stage."""

from __future__ import annotations

from archbench.device.clock import Clock
from archbench.measure.workload import Workload
from archbench.model.calibration import Calibration
from archbench.model.profile import StageProfile
from archbench.profiler.counting import Counted, count_by_module
from archbench.profiler.rows import Ceilings, module_rows, stage_rows, step_parts
from archbench.profiler.timing import time_by_module
from archbench.profiler.traffic import watch_traffic

TIMING_S = 2.0
"""Of a cell's profile: stages are told to a per cent or two, and a suite has hundreds of cells."""


def profile_stages(
    workload: Workload,
    clock: Clock,
    calibration: Calibration | None,
    *,
    round: int,
    visit: int,
    allow_code: bool = False,
) -> StageProfile:
    """Profile the eager step of a warmed-up `workload`; shares of the roofline need the device's `calibration`.

    Takes `TIMING_S`, or a dozen steps where they are longer. Raises whatever the step raises.
    """
    cell = workload.cell
    training = cell.phase == "training"
    times = time_by_module(workload, clock, TIMING_S)
    traffic = watch_traffic(workload)
    rows = module_rows(
        workload.module,
        times,
        _counted(workload, allow_code=allow_code),
        traffic,
        _ceilings(workload, calibration),
        batch_size=cell.batch_size,
        training=training,
    )
    return StageProfile(
        cell_id=cell.cell_id,
        round=round,
        visit=visit,
        step_s=times.plain_s,
        observed_step_s=times.observed_s,
        observing_cost=times.observing_cost,
        steps=times.steps,
        whole=rows[0],
        stages=stage_rows(rows),
        parts=step_parts(times, traffic, training=training),
    )


def _counted(workload: Workload, *, allow_code: bool) -> Counted | None:
    try:
        return count_by_module(workload.cell.network, allow_code=allow_code)
    except Exception:  # the network's own code, without data: its times are worth storing without its MACs
        return None


def _ceilings(workload: Workload, calibration: Calibration | None) -> Ceilings | None:
    peak = calibration.peak(workload.cell.precision) if calibration else None
    if calibration is None or peak is None:
        return None
    return Ceilings(flops=peak, bandwidth=calibration.copy_bytes_per_s)
