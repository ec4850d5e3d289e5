"""What is counted, and, where nothing else is asked for, what can be predicted and traced without a step."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn

from archbench.analyze.counts import on_module
from archbench.analyze.step import WHOLE_MODEL, cast
from archbench.catalog.inputs import Taken, Takes, takes
from archbench.catalog.roles import in_mode
from archbench.measure import compiler
from archbench.measure.metrics.memory import predict
from archbench.measure.metrics.metric import Metric
from archbench.measure.state import step_contexts
from archbench.model.cell import Cell
from archbench.model.reasons import LOWER_BOUND

if TYPE_CHECKING:
    from archbench.measure.cell_run import CellRun


def _count(run: CellRun) -> None:
    counts = run.group.counts
    run.row.set(
        params=counts.params,
        macs=counts.macs,
        flops=counts.flops,
        activations=counts.activations,
        weight_bytes=counts.weight_bytes,
    )
    if counts.folds:
        run.row.flag("training_form")
    if counts.unknown_products:
        run.row.flag(LOWER_BOUND)


STATIC = Metric(name="static", prepare=_count)


def foresee(run: CellRun) -> None:
    """The further figures that need no step, for the rows of a suite that asks for nothing else."""
    with run.phase("predict"):
        predict(run)
    if run.compiles:
        with run.phase("trace"):
            run.note_compiled(traced_counts(run.cell, run.group.takes, allow_code=run.task.allow_code))


def traced_counts(cell: Cell, given: Taken, *, allow_code: bool = False) -> compiler.CompileCounts:
    """Trace one forward pass of `cell` on what it takes and return what dynamo counted.

    Graph breaks without generating any code: the network is traced as torch.compile traces it, and that is all.
    Tracing is the same on every device, so this needs none: tensors have no data, unless the network looks at values;
    then it runs once on the CPU. A second or two a network. Raises what the network, or dynamo over it, raises.
    """
    return on_module(cell.network, lambda module: _trace(module, cell, takes(given)), allow_code=allow_code)


def _trace(module: nn.Module, cell: Cell, given: Takes) -> compiler.CompileCounts:
    device = next((parameter.device for parameter in module.parameters()), None)
    dtype = WHOLE_MODEL.get(cell.precision)
    batch = given.drawn(cell.batch_size, device).map(lambda t: t.to(dtype or t.dtype) if t.is_floating_point() else t)
    cast(in_mode(module, training=cell.phase == "training"), dtype)
    compiler.reset()
    # The backward pass is traced by autograd, not by dynamo: it has no breaks of its own.
    with step_contexts(torch.device("cpu"), cell.phase, cell.precision)():
        batch(compiler.trace_module(module))
    return compiler.counts()
