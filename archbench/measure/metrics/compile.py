"""What torch.compile costs before it pays: the first step with an empty cache, and with a filled one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from archbench.measure import compiler
from archbench.measure.metrics.metric import Metric

if TYPE_CHECKING:
    from archbench.measure.cell_run import CellRun


def _cannot(run: CellRun) -> str | None:
    return None if run.compiles else "not_compiled"


def _prepare(run: CellRun) -> None:
    if run.compiles:
        run.around.enter_context(compiler.cold_cache())


def _fill(run: CellRun) -> None:
    run.row.set(compile_cold_s=run.first_call_s, compile_neighbours=0)
    if run.cell.device == "cuda":
        with run.phase("cuda graphs"):
            run.row.set(cuda_graph_launches=compiler.cuda_graph_launches(run.workload.step))
    else:
        run.row.null("not_on_device", "cuda_graph_launches")
    with run.phase("compile again"):
        compiler.reset()
        compiler.forget_loaded()
        run.row.set(compile_warm_s=run.time_one_step())


COMPILE = Metric(name="compile", prepare=_prepare, fill=_fill, cannot=_cannot)
