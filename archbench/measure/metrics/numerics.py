"""What a toggle costs in accuracy: its output beside fp32 eager's, on the same weights and input."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from msgspec import Struct
from torch import Tensor, nn

from archbench.analyze.step import WHOLE_MODEL, figures_in, settled
from archbench.catalog.inputs import Batch
from archbench.catalog.roles import in_mode
from archbench.measure.metrics.metric import Metric
from archbench.measure.state import plain_fp32
from archbench.measure.workload import Workload
from archbench.model.axes import PLAIN
from archbench.model.errors import UnsupportedError

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
        try:
            found = compare(run.workload, group.reference(cell.precision), batches, centred=not group.has_weights)
        except UnsupportedError:
            run.row.null("no_output", *NUMERICS.columns)
            return
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
    """How far an output lies from the reference's. `None` where either is zero or not finite, or as said.

    Of several output tensors, each held against its own, the worst counts; classes are those of the first.
    """

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


def make_comparable(module: nn.Module, batch: Batch) -> None:
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
    in_mode(module, training=False)
    for layer in norms:
        layer.momentum = 1.0  # take the batch's statistics as they are
        layer.train()
    with plain_fp32(), torch.no_grad():
        settled(batch(module))
    for layer, momentum in zip(norms, momenta, strict=True):
        layer.momentum = momentum
    for layer, was in training:
        layer.training = was


def compare(workload: Workload, reference: nn.Module, batches: Sequence[Batch | Tensor], *, centred: bool) -> Numerics:
    """Compare the workload's outputs on `batches` with `reference`'s, the same weights in fp32 eager.

    `centred`: top classes are taken after the reference's mean output over the images is subtracted from both, which a
    bias of the last layer would do. Random weights give all images much the same scores; what is left tells them apart.
    Raises `UnsupportedError` where nothing that is returned can be compared.
    """
    given = [Batch((one,)) if isinstance(one, Tensor) else one for one in batches]
    plain = [
        batch.map(lambda one: one.contiguous().float() if one.dtype in WHOLE_MODEL.values() else one) for batch in given
    ]
    with plain_fp32(), workload.unrecorded():
        expected = _joined([figures_in(batch(reference)) for batch in plain])
    outputs = [workload.output(batch) for batch in given]
    output = _joined(outputs)
    if not output or [one.shape for one in output] != [one.shape for one in expected]:
        raise UnsupportedError("it returns no tensors of reals that could be compared")
    doubled = plain[0].map(_doubled)
    with workload.unrecorded():
        exact = figures_in(doubled(copy.deepcopy(reference)._apply(_doubled)))  # type: ignore[no-untyped-call]
    finite, reference_finite = (all(bool(torch.isfinite(one).all()) for one in each) for each in (output, expected))
    comparable = finite and reference_finite and any(bool(one.any()) for one in expected)
    ratio = None
    if not workload.cell.is_eager and workload.cell.quantize == "off":
        eager, error = (_distance(one, exact) for one in (workload.eager_output(given[0]), outputs[0]))
        ratio = error / eager if 0.0 < eager < math.inf and error < math.inf else None
    pairs = [(one, other) for one, other in zip(output, expected, strict=True) if other.any()]
    cosines = (torch.cosine_similarity(one.flatten(), other.flatten(), dim=0).item() for one, other in pairs)
    return Numerics(
        rel_error=max(_relative(one, other) for one, other in pairs) if comparable else None,
        fp64_error=max(_relative(one, other) for one, other in zip(outputs[0], exact, strict=True) if other.any())
        if comparable
        else None,
        cosine=min(cosines) if comparable else None,
        top1_agreement=_agreement(output[0], expected[0], centred=centred) if comparable else None,
        finite=finite,
        reference_finite=reference_finite,
        compile_error_ratio=ratio,
    )


def _doubled(tensor: Tensor) -> Tensor:
    """With twice the digits; whole numbers as they are."""
    if tensor.is_complex():
        return tensor.to(torch.complex128)
    return tensor.double() if tensor.is_floating_point() else tensor


def _joined(outputs: Sequence[Sequence[Tensor]]) -> list[Tensor]:
    """Each output tensor over all batches."""
    return [
        torch.cat([one.double() if one.dim() else one.double().reshape(1) for one in each])
        for each in zip(*outputs, strict=True)
    ]


def _relative(one: Tensor, other: Tensor) -> float:
    return float((one.double() - other.double()).norm().item() / other.double().norm().item())


def _distance(some: Sequence[Tensor], exact: Sequence[Tensor]) -> float:
    """Over all tensors together."""
    return math.hypot(*((one.double() - two.double()).norm().item() for one, two in zip(some, exact, strict=True)))


def _agreement(output: Tensor, expected: Tensor, *, centred: bool) -> float | None:
    """Of scores [images, classes]; `None` for other shapes, and where most images have the same top class."""
    if expected.dim() != 2 or expected.shape[1] < 2:
        return None
    middle = expected.mean(0) if centred else torch.zeros(())
    top, wanted = ((scores - middle).argmax(1) for scores in (output, expected))
    if len(set(wanted.tolist())) < max(2.0, FEWEST_CLASSES * min(len(wanted), expected.shape[1])):
        return None
    return float((top == wanted).double().mean().item())
