"""What compiling or converting costs before it pays: the first steps with nothing cached, and again with a full cache.

The second time is that of a fresh process. It also has the one session of CUDA's profiler: CUPTI slows whatever its
process does afterwards.
"""

from __future__ import annotations

import gc
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from msgspec import Struct, structs

from archbench.device.kind import kind_of
from archbench.measure import compiler, runtimes
from archbench.measure.metrics.footprint import peak_resident, resident_bytes
from archbench.measure.state import give_back_memory
from archbench.model.cell import Cell, Group
from archbench.model.messages import Task
from archbench.model.record import columns_of

if TYPE_CHECKING:
    from archbench.measure.cell_run import CellRun


class Again(Struct, frozen=True, kw_only=True):
    """What a fresh process found that compiled a cell once more."""

    ready_s: float
    launches: int | None
    """CUDA graphs launched in one step; `None` where none can be, or the profiler saw no call at all."""
    process_bytes: int | None = None
    """Of a converted cell on the CPU: what serving it adds to a process that does not hold the network besides."""


def cannot(run: CellRun) -> str | None:
    """Eager cells have nothing to compile."""
    return None if run.prepares else "not_compiled"


def prepare(run: CellRun) -> None:
    """Begin with nothing cached."""
    if run.prepares:
        with run.phase("compiler"):
            _get_ready(run)
        # One for each cell: a later one owes nothing to those before.
        run.artifacts = run.around.enter_context(compiler.cold_cache())


def fill(run: CellRun) -> None:
    """Enter what the first steps cost, and what a fresh process finds."""
    if run.neighbours:
        run.row.null("compiled_in_company", "compile_cold_s")
    else:
        run.row.set(compile_cold_s=run.ready_s)
    engine = run.workload.engine
    size, quantized = (None, None) if engine is None else (engine.artifact_bytes, engine.quantized)
    run.row.set(artifact_bytes=size, quantized_share=None if quantized is None else quantized[0] / quantized[1])
    if size is None:
        run.row.null("no_artifact", "artifact_bytes")
    if quantized is None:
        run.row.null("not_quantized", "quantized_share")
    no_launches = "no_graphs_in_mode" if kind_of(run.group.device).records_graphs else "not_on_device"
    if run.workload.records_graphs:
        no_launches = "profiler_blind"
    if not run.first_of_its_toggles:  # to load code from a cache takes as long at every batch size
        run.row.null("first_batch_only", "compile_warm_s", "cuda_graph_launches")
        return
    with run.phase("compile again"):
        run.release()
        again = run.prepared_again()
    if again is None:
        run.row.null("phase_failed", *columns_of("compile"))
        return
    run.row.set(compile_warm_s=again.ready_s, cuda_graph_launches=again.launches)
    if again.launches is None:
        run.row.null(no_launches, "cuda_graph_launches")


def _get_ready(run: CellRun) -> None:
    """Do what no cell is to blame for: imports, workers, handles."""
    run.group.set_state(run.cell.precision)
    if run.cell.is_converted:
        runtimes.load(run.cell)
    if run.cell.runtime in ("torch", "aot-inductor"):
        compiler.get_ready(run.group.device)


def compile_again(task: Task, cell: Cell, cache: Path) -> Again:
    """Build `cell` and bring it to steady steps, with the compiled code that `cache` holds; for a fresh process."""
    from archbench.measure.cell_run import CellRun
    from archbench.measure.group import GroupContext

    alone = structs.replace(task, group=Group(cells=(cell,)), metrics=())
    run = CellRun(GroupContext(alone), cell, first=True)
    run.artifacts = cache
    compiler.without_workers()
    _get_ready(run)
    with compiler.cache_in(cache):
        gc.collect()
        give_back_memory()  # what imports have left would be given back with the network, and counted in its favour
        before = resident_bytes()
        run.build()
        run.first_call()
        launches = compiler.cuda_graph_launches(run.workload.step) if run.workload.records_graphs else None
        return Again(ready_s=run.ready_s, launches=launches, process_bytes=_served(run, before))


def _served(run: CellRun, before: int | None) -> int | None:
    """Peak resident memory of a step above `before`, without PyTorch's own module; `None` where that is what runs."""
    engine = run.workload.engine
    if engine is None or not kind_of(run.group.device).is_host:
        return None
    images = run.workload.inputs[0].tensors[0]
    del run.workload, run.group.module
    gc.collect()
    with torch.inference_mode():
        return peak_resident(lambda: engine.call(images), before)
