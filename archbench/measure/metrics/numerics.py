"""What a toggle costs in accuracy: its output beside fp32 eager's, on the same weights and input."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import torch
from msgspec import Struct
from torch import Tensor, nn

from archbench.measure.metrics.metric import Metric
from archbench.measure.state import plain_fp32
from archbench.measure.workload import Workload, first_tensor
from archbench.model.axes import PLAIN

if TYPE_CHECKING:
    from archbench.measure.cell_run import CellRun

HEAD_STD = 0.02
"""Standard deviation for a head that its library starts at zero (torchvision's ViT): zeros have no relative error."""


def _cannot(run: CellRun) -> str | None:
    if not run.group.judges_numerics:
        return "inference_only"
    if run.cell.toggles == PLAIN:
        return "is_reference"
    return None if run.first_of_its_toggles else "first_batch_only"


def _fill(run: CellRun) -> None:
    with run.phase("numerics"):
        found = compare(run.workload, run.group.reference(run.cell.precision))
    run.row.set(
        output_rel_error=found.rel_error,
        output_cosine=found.cosine,
        output_finite=found.finite,
        compile_error_ratio=found.compile_error_ratio,
    )
    if found.rel_error is None:
        run.row.null("not_finite", "output_rel_error", "output_cosine")
    if found.compile_error_ratio is None:
        run.row.null("not_finite" if run.prepares else "not_compiled", "compile_error_ratio")


NUMERICS = Metric(name="numerics", fill=_fill, cannot=_cannot)


class Numerics(Struct, frozen=True, kw_only=True):
    """Errors on random weights: relative figures are meant, agreement of the top class says nothing there."""

    rel_error: float | None
    """Relative L2 distance to fp32 eager; None where that output is zero or not finite."""
    cosine: float | None
    finite: bool
    compile_error_ratio: float | None
    """Distance to fp64 of the compiled output over that of the same precision in eager; None without compile."""


def make_comparable(module: nn.Module, batch: Tensor) -> None:
    """Give random weights the scale that training would: heads that start at zero, and BatchNorm's statistics.

    With the initial statistics (mean 0, variance 1) activations of deep random networks grow until fp16 overflows.
    """
    for layer in module.modules():
        if isinstance(layer, nn.Linear) and not torch.any(layer.weight):
            nn.init.normal_(layer.weight, std=HEAD_STD)
    norms = [layer for layer in module.modules() if isinstance(layer, nn.modules.batchnorm._BatchNorm)]
    if not norms:
        return
    momenta = [layer.momentum for layer in norms]
    training = [(layer, layer.training) for layer in module.modules()]
    module.eval()
    for layer in norms:
        layer.momentum = 1.0  # take the batch's statistics as they are
        layer.train()
    with plain_fp32(), torch.no_grad():
        module(batch)
    for layer, momentum in zip(norms, momenta, strict=True):
        layer.momentum = momentum
    for layer, was in training:
        layer.training = was


def compare(workload: Workload, reference: nn.Module) -> Numerics:
    """Compare the workload's output with `reference`, the same weights in fp32 eager on the same device."""
    source = workload.inputs[0].contiguous().float()
    with plain_fp32(), torch.inference_mode():
        expected = first_tensor(reference(source)).double()
    output = workload.output().double()
    ratio = None
    if not workload.cell.is_eager:
        ratio = _compile_error_ratio(workload, reference, source, output)
    norm = expected.norm().item()
    comparable = 0.0 < norm < float("inf") and bool(torch.isfinite(output).all())
    return Numerics(
        rel_error=(output - expected).norm().item() / norm if comparable else None,
        cosine=torch.cosine_similarity(output.flatten(), expected.flatten(), dim=0).item() if comparable else None,
        finite=bool(torch.isfinite(output).all()),
        compile_error_ratio=ratio,
    )


def _compile_error_ratio(workload: Workload, reference: nn.Module, source: Tensor, output: Tensor) -> float | None:
    with torch.inference_mode():
        exact = first_tensor(copy.deepcopy(reference).double()(source.double()))
    eager = workload.eager_output().double()
    eager_error = (eager - exact).norm().item()
    error = (output - exact).norm().item()
    return error / eager_error if 0.0 < eager_error < float("inf") and error < float("inf") else None
