"""What a toggle costs in accuracy: its output beside fp32 eager's, on the same weights and input."""

from __future__ import annotations

import copy
from collections.abc import Sequence
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
IMAGES = 32
"""That outputs are judged by: a step of 3 % in the agreement."""
LONGEST_S = 20.0
"""For the cell's own steps on them; of a slower network fewer images are judged."""
WRONG = 0.01
"""Relative error in fp32 beyond which it is not rounding (1e-6 to 1e-4, even of deep networks) but another function."""
FEWEST_CLASSES = 0.25
"""Different top classes an image: with fewer, the reference says the same of most images, and so does anything."""


def _cannot(run: CellRun) -> str | None:
    if not run.group.judges_numerics:
        return "inference_only"
    if run.cell.toggles == PLAIN:
        return "is_reference"
    return None if run.first_of_its_toggles else "first_batch_only"


def _fill(run: CellRun) -> None:
    cell, group = run.cell, run.group
    with run.phase("numerics"):
        affordable = cell.batch_size * max(1, int(LONGEST_S / run.step_s))
        batches = group.batches(min(IMAGES, affordable), cell, run.task.seed)
        found = compare(run.workload, group.reference(cell.precision), batches, centred=not group.has_weights)
    run.row.set(
        judged_images=len(batches) * cell.batch_size,
        output_rel_error=found.rel_error,
        output_fp64_error=found.fp64_error,
        output_cosine=found.cosine,
        output_top1_agreement=found.top1_agreement,
        output_finite=found.finite,
        compile_error_ratio=found.compile_error_ratio,
    )
    if not found.finite and found.reference_finite:
        run.row.flag("broken_output")
    if cell.precision == "fp32" and cell.quantize == "off" and (found.rel_error or 0.0) > WRONG:
        run.row.flag("wrong_output")
    if found.rel_error is None:
        run.row.null("not_finite", "output_rel_error", "output_fp64_error", "output_cosine", "output_top1_agreement")
    elif found.top1_agreement is None:
        run.row.null("degenerate_outputs", "output_top1_agreement")
    if found.compile_error_ratio is None:
        quantized = "quantized" if cell.quantize != "off" else "not_finite"
        run.row.null(quantized if run.prepares else "not_compiled", "compile_error_ratio")


NUMERICS = Metric(name="numerics", fill=_fill, cannot=_cannot)


class Numerics(Struct, frozen=True, kw_only=True):
    """How far an output lies from the reference's. `None` where either is zero or not finite, or as said."""

    rel_error: float | None
    """Relative L2 distance to fp32 eager, over all images together."""
    fp64_error: float | None
    """The same to fp64, over the first batch."""
    cosine: float | None
    top1_agreement: float | None
    """Share of images whose top class is the reference's; `None` also where that tells nothing, or are no classes."""
    finite: bool
    reference_finite: bool
    compile_error_ratio: float | None
    """Distance to fp64 over that of the same precision in eager; None without a compiler, and where quantised."""


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


def compare(workload: Workload, reference: nn.Module, batches: Sequence[Tensor], *, centred: bool) -> Numerics:
    """Compare the workload's outputs on `batches` with `reference`'s, the same weights in fp32 eager.

    `centred`: top classes are taken after the reference's mean output over the images is subtracted from both, which a
    bias of the last layer would do. Random weights give all images much the same scores; what is left tells them apart.
    """
    plain = [batch.contiguous().float() for batch in batches]
    with plain_fp32(), torch.inference_mode():
        expected = torch.cat([first_tensor(reference(batch)).double() for batch in plain])
    output = torch.cat([workload.output(batch).double() for batch in batches])
    size = len(batches[0])
    with torch.inference_mode():
        exact = first_tensor(copy.deepcopy(reference).double()(plain[0].double()))
    finite, reference_finite = (bool(torch.isfinite(one).all()) for one in (output, expected))
    comparable = finite and reference_finite and bool(expected.any())
    ratio = None
    if not workload.cell.is_eager and workload.cell.quantize == "off":
        eager = _distance(workload.eager_output(batches[0]).double(), exact)
        error = _distance(output[:size], exact)
        ratio = error / eager if 0.0 < eager < float("inf") and error < float("inf") else None
    return Numerics(
        rel_error=_distance(output, expected) / expected.norm().item() if comparable else None,
        fp64_error=_distance(output[:size], exact) / exact.norm().item() if comparable else None,
        cosine=torch.cosine_similarity(output.flatten(), expected.flatten(), dim=0).item() if comparable else None,
        top1_agreement=_agreement(output, expected, centred=centred) if comparable else None,
        finite=finite,
        reference_finite=reference_finite,
        compile_error_ratio=ratio,
    )


def _distance(one: Tensor, other: Tensor) -> float:
    return float((one - other).norm().item())


def _agreement(output: Tensor, expected: Tensor, *, centred: bool) -> float | None:
    """Of scores [images, classes]; `None` for other shapes, and where most images have the same top class."""
    if expected.dim() != 2 or expected.shape[1] < 2:
        return None
    middle = expected.mean(0) if centred else torch.zeros(())
    top, wanted = ((scores - middle).argmax(1) for scores in (output, expected))
    if len(set(wanted.tolist())) < max(2.0, FEWEST_CLASSES * min(len(wanted), expected.shape[1])):
        return None
    return float((top == wanted).double().mean().item())
