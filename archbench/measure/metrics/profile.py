"""Where the step's time goes, by stage: a table of its own beside the row."""

from __future__ import annotations

from typing import TYPE_CHECKING

from archbench.measure.metrics.metric import Metric

if TYPE_CHECKING:
    from archbench.measure.cell_run import CellRun


def _fill(run: CellRun) -> None:
    if run.prepares:
        return  # a compiled step has no modules left to time
    from archbench.profiler.rows import profile_stages  # which itself measures

    with run.phase("profile"):
        context = run.task.context
        run.profile = profile_stages(
            run.workload,
            run.group.clock,
            run.group.calibration,
            round=context.round,
            visit=context.visit,
            allow_code=run.task.allow_code,
        )


PROFILE = Metric(name="profile", fill=_fill)
