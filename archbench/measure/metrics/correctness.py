"""What toggles cost in accuracy: outputs beside those of fp32 eager on drawn images, and top-1 on labelled ones."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from msgspec import Struct
from msgspec.structs import replace
from PIL import Image
from torch import Tensor, nn

from archbench.analyze.step import WHOLE_MODEL, figures_in, settled
from archbench.catalog.inputs import Batch
from archbench.catalog.roles import in_mode
from archbench.catalog.weights import Preprocessing, preprocessing
from archbench.labelled import Labelled, labelled_images
from archbench.measure.state import plain_fp32
from archbench.measure.workload import Workload, first_tensor
from archbench.model.axes import PLAIN
from archbench.model.errors import UnsupportedError
from archbench.model.protocol import JUDGED_IMAGES, JUDGING_S
from archbench.model.record import columns_of
from archbench.stats.intervals import wilson_interval

if TYPE_CHECKING:
    from archbench.measure.cell_run import CellRun

HEAD_STD = 0.02
"""Standard deviation for a head that its library starts at zero (torchvision's ViT): zeros have no relative error."""
WRONG = 0.01
"""Relative error in fp32 beyond which it is not rounding (1e-6 to 1e-4, even of deep networks) but another function."""
FEWEST_CLASSES = 0.25
"""Different top classes an image: with fewer, the reference says the same of most images, and so does anything."""
_CONTRAST = 1.5
"""Of the patterns before they are squeezed between black and white: a fifth of the pixels come close to either."""


def cannot_judge_numerics(run: CellRun) -> str | None:
    """Outputs are compared at inference, once for each step of toggles but the reference's own."""
    if not run.group.judges_numerics:
        return "inference_only"
    if run.cell.toggles == PLAIN:
        return "is_reference"
    return None if run.first_of_its_toggles else "first_batch_only"


def fill_numerics(run: CellRun) -> None:
    """The output beside fp32 eager's, on the same weights and input."""
    cell, group = run.cell, run.group
    with run.phase("numerics"):
        affordable = cell.batch_size * max(1, int(JUDGING_S / run.step_s))
        batches = group.batches(min(JUDGED_IMAGES, affordable), cell, run.task.seed)
        try:
            found = compare(run.workload, group.reference(cell.precision), batches, centred=not group.has_weights)
        except UnsupportedError:
            run.row.null("no_output", *columns_of("numerics"))
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


class Numerics(Struct, frozen=True, kw_only=True):
    """How far an output lies from the reference's. `None` where either is zero or not finite, or as said.

    Of several output tensors, each held against its own, the worst counts; classes are those of the first.
    """

    rel_error: float | None = None
    """Relative L2 distance to fp32 eager, over all images together."""
    fp64_error: float | None = None
    """The same to fp64, over the first batch."""
    cosine: float | None = None
    top1_agreement: float | None = None
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


def compare(workload: Workload, reference: nn.Module, batches: Sequence[Batch], *, centred: bool) -> Numerics:
    """Compare the workload's outputs on `batches` with `reference`'s, the same weights in fp32 eager.

    `centred`: top classes are taken after the reference's mean output over the images is subtracted from both, which a
    bias of the last layer would do. Random weights give all images much the same scores; what is left tells them apart.
    Raises `UnsupportedError` where nothing that is returned can be compared.
    """
    plain = [
        batch.map(lambda one: one.contiguous().float() if one.dtype in WHOLE_MODEL.values() else one)
        for batch in batches
    ]
    with plain_fp32(), workload.unrecorded():
        expected = _joined([figures_in(batch(reference)) for batch in plain])
    outputs = [workload.output(batch) for batch in batches]
    output = _joined(outputs)
    if not output or [one.shape for one in output] != [one.shape for one in expected]:
        raise UnsupportedError("it returns no tensors of reals that could be compared")
    doubled = plain[0].map(_doubled)
    with workload.unrecorded():
        exact = figures_in(doubled(copy.deepcopy(reference)._apply(_doubled)))  # type: ignore[no-untyped-call]
    finite, reference_finite = (all(bool(torch.isfinite(one).all()) for one in each) for each in (output, expected))
    ratio = None
    if not workload.cell.is_eager and workload.cell.quantize == "off":
        eager, error = (_distance(one, exact) for one in (workload.output(batches[0], eager=True), outputs[0]))
        ratio = error / eager if 0.0 < eager < math.inf and error < math.inf else None
    found = Numerics(finite=finite, reference_finite=reference_finite, compile_error_ratio=ratio)
    pairs = [(one, other) for one, other in zip(output, expected, strict=True) if other.any()]
    if not (finite and reference_finite and pairs):
        return found
    return replace(
        found,
        rel_error=max(_relative(one, other) for one, other in pairs),
        fp64_error=max(_relative(one, other) for one, other in zip(outputs[0], exact, strict=True) if other.any()),
        cosine=min(torch.cosine_similarity(one.flatten(), other.flatten(), dim=0).item() for one, other in pairs),
        top1_agreement=_agreement(output[0], expected[0], centred=centred),
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


def cannot_judge_accuracy(run: CellRun) -> str | None:
    """Trained weights alone are right about anything."""
    if run.cell.phase != "inference":
        return "inference_only"
    if not run.group.has_weights:
        return "random_weights"
    return None if run.first_of_its_toggles else "first_batch_only"


def fill_accuracy(run: CellRun) -> None:
    """Top-1 accuracy of the very artifact that was timed, and what it lost to fp32 eager."""
    assert run.task.images is not None, "the metric is asked for where there are images"
    with run.phase("accuracy"):
        images = labelled_images(run.task.images)
        own, reference = _right(run, images)
    if own is None:
        run.row.null("other_classes", *columns_of("accuracy"))
        return
    count, right = len(own), int(own.sum())
    low, high = wilson_interval(right, count)
    run.row.set(
        accuracy_images=count,
        top1_measured=100.0 * right / count,
        top1_measured_low=100.0 * low,
        top1_measured_high=100.0 * high,
        top1_drop=100.0 * (int(reference.sum()) - right) / count,
    )


def _right(run: CellRun, images: Labelled) -> tuple[Tensor | None, Tensor]:
    """Which images the cell, and fp32 eager, tell rightly: flags [images]; `None` where it has other classes."""
    group, size = run.group, run.cell.batch_size
    wanted = preprocessing(run.cell.network)
    shape = group.takes.image
    if shape is None:
        raise UnsupportedError("it takes no images")
    reference = group.reference(run.cell.precision)
    own, exact = [], []
    for start in range(0, len(images.files), size):
        files, labels = images.files[start : start + size], images.labels[start : start + size]
        batch = torch.stack([pixels_of(file, shape, wanted) for file in files]).to(group.device)
        full = torch.cat([batch, batch[:1].expand(size - len(batch), *batch.shape[1:])])  # artifacts take one shape
        scores = run.workload.output(Batch((full,)))[0]
        if scores.dim() != 2 or scores.shape[1] != images.classes:
            return None, torch.zeros(0)
        with plain_fp32(), torch.inference_mode():
            expected = first_tensor(reference(full))
        truth = torch.tensor(labels, device=scores.device)
        own.append(scores[: len(files)].argmax(1) == truth)
        exact.append(expected[: len(files)].argmax(1) == truth)
    return torch.cat(own), torch.cat(exact)


def drawn_images(shape: tuple[int, ...], count: int, seed: int, wanted: Preprocessing | None) -> Tensor:
    """Inputs of one `shape`, [count, *shape], always the same for a seed, on the CPU.

    Images are random patterns whose power falls with frequency as that of photographs does (Field 1987): noise on
    grids of 1, 2, 4, ... cells a side, each widened to the whole image. So they differ in colour and layout, and a
    network's features differ with them; of white noise all images look alike to it. Their pixels, from 0 to 1, are
    normalised as `wanted` says. Inputs that are no colour images are standard normal.
    """
    generator = torch.Generator().manual_seed(seed)
    if wanted is None or len(shape) != 3 or shape[0] != len(wanted.mean):
        return torch.randn((count, *shape), generator=generator)
    channels, *side = shape
    pattern, octaves, cells = torch.zeros((count, channels, *side)), 0, 1
    while cells <= max(side):
        noise = torch.randn((count, channels, cells, cells), generator=generator)
        pattern += nn.functional.interpolate(noise, size=side, mode="bilinear", align_corners=False)
        octaves, cells = octaves + 1, cells * 2
    pixels = torch.sigmoid(_CONTRAST * pattern / octaves**0.5)
    return _normalised(pixels, wanted)


def pixels_of(file: Path, shape: tuple[int, ...], wanted: Preprocessing) -> Tensor:
    """One image as an input of `shape` [3, height, width]: its shorter side scaled, the middle cut out, normalised."""
    height, width = shape[1:]
    with Image.open(file) as opened:
        image = opened.convert("RGB")
    scale = max(height, width) / wanted.crop_share / min(image.size)
    size = (max(width, round(image.width * scale)), max(height, round(image.height * scale)))
    image = image.resize(size, Image.Resampling.BICUBIC if wanted.bicubic else Image.Resampling.BILINEAR)
    left, top = (size[0] - width) // 2, (size[1] - height) // 2
    image = image.crop((left, top, left + width, top + height))
    pixels = torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8).view(height, width, 3)
    return _normalised(pixels.permute(2, 0, 1).float() / 255, wanted)


def _normalised(pixels: Tensor, wanted: Preprocessing) -> Tensor:
    mean, std = (torch.tensor(values).view(-1, 1, 1) for values in (wanted.mean, wanted.std))
    return (pixels - mean) / std
