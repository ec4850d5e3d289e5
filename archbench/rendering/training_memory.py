"""Memory in training beside memory at inference, networks side by side."""

from __future__ import annotations

import math

from archbench.choose.cell_summary import CellSummary
from archbench.model.units import MIB, RATIO, figure, whole
from archbench.rendering.content import Paragraph, Section
from archbench.rendering.listing import listed
from archbench.rendering.run_data import RunData

_STATE = 3
"""Copies of the parameters in a step of SGD with momentum: weights, gradients, momentum."""
_HALVED = ("bf16", "fp16")
"""Precisions to which a whole model is converted, its state with it; `weight_bytes` is that of fp32."""
Pair = tuple[CellSummary, CellSummary | None]


def training_memory(run: RunData) -> Section | None:
    """Peaks of training, the least first among equal settings and batches; `None` where no training was measured."""
    inference = {_place(one): one for one in run.cells if one.phase == "inference" and one.status == "ok"}
    place = {label: number for number, label in enumerate(run.setting_labels())}
    trained = [one for one in run.cells if one.phase == "training" and (one.peak_bytes or one.status == "oom")]
    # Out of memory is more than any peak.
    trained.sort(key=lambda one: (place[one.setting_label], one.batch_size, one.peak_bytes or math.inf, one.variant))
    pairs: list[Pair] = [(one, inference.get(_place(one))) for one in trained]
    numbers = ("Batch", "Training MiB", "of it state MiB", "MiB an image", "Inference MiB", "Training / inference")
    blocks = listed(
        pairs,
        _row,
        ("Network", "Setting", *numbers),
        numeric=set(numbers),
        noun="cells",
        caption="Peak memory of a training step",
    )
    if not blocks:
        return None
    note = Paragraph(
        "Peak of one step, the least first among equal settings and batch sizes. State is weights, gradients and "
        "momentum, which do not grow with the batch; the rest over the batch size is what an image needs: activations "
        "kept for the backward pass, and their gradients. Inference: the same setting and batch size."
    )
    return Section(title="Memory in training", blocks=(note, *blocks), phase="training")


def _row(pair: Pair) -> tuple[str, ...]:
    trained, inferred = pair
    peak = trained.peak_bytes
    weights = None if trained.weight_bytes is None else trained.weight_bytes / (1 + (trained.precision in _HALVED))
    state = None if weights is None else _STATE * weights
    inference = None if inferred is None else inferred.peak_bytes
    image = None if peak is None or state is None else max(0, peak - state) / trained.batch_size
    return (
        trained.network,
        trained.setting_label,
        f"{trained.batch_size:,}",
        trained.status if peak is None else whole(peak, MIB),
        whole(state, MIB),
        figure(image, MIB),
        whole(inference, MIB),
        figure(peak / inference if peak and inference else None, RATIO),
    )


def _place(one: CellSummary) -> tuple[str, int | None, int, tuple[str, str, str]]:
    return (one.variant, one.input_size, one.batch_size, one.toggles)
