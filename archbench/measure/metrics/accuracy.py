"""Top-1 accuracy of the very artifact that was timed, on a folder of labelled images, and what it lost."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from archbench.catalog.inputs import Batch
from archbench.catalog.weights import preprocessing
from archbench.labelled import Labelled, labelled_images
from archbench.measure.images import pixels_of
from archbench.measure.metrics.metric import Metric
from archbench.measure.state import plain_fp32
from archbench.measure.workload import first_tensor
from archbench.model.errors import UnsupportedError
from archbench.stats.intervals import wilson_interval

if TYPE_CHECKING:
    from archbench.measure.cell_run import CellRun


def _cannot(run: CellRun) -> str | None:
    if run.cell.phase != "inference":
        return "inference_only"
    if not run.group.has_weights:
        return "random_weights"
    return None if run.first_of_its_toggles else "first_batch_only"


def _fill(run: CellRun) -> None:
    assert run.task.images is not None, "the metric is asked for where there are images"
    with run.phase("accuracy"):
        images = labelled_images(run.task.images)
        own, reference = _right(run, images)
    if own is None:
        run.row.null("other_classes", *ACCURACY.columns)
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


ACCURACY = Metric(name="accuracy", fill=_fill, cannot=_cannot)


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
