"""cuDNN keeps one plan a shape, whoever ran it first: what is timed must never have been run without its search.

A convolution's plan is looked up by shapes, type, format and TF32 (`ConvolutionParams` in ATen's Conv_v8.cpp) before
the switch `benchmark` is asked. No GPU is needed to see who runs a shape first.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from msgspec import structs
from test_measure_group import task_for

from archbench.measure import measure_group
from archbench.model.axes import Precision
from archbench.model.messages import CellFinished, PhaseStarted
from archbench.suite.plan import grouped

Key = tuple[object, ...]
TIMED = {"latency", "throughput"}
CANARY = {(64, 64, 3, 3), (16, 16, 3, 3)}
"""Shapes of its kernels, which no network here has."""


class Plans:
    """What cuDNN would keep: by key, whether it was searched for. And the keys of what was timed."""

    def __init__(self, convolve: Any) -> None:
        self.searched: dict[Key, bool] = {}
        self.timed: set[Key] = set()
        self.phase = ""
        self._convolve = convolve

    def conv2d(self, image: torch.Tensor, weight: torch.Tensor, *more: Any, **options: Any) -> torch.Tensor:
        autocast = torch.is_autocast_enabled("cpu")
        dtype = torch.get_autocast_dtype("cpu") if autocast else image.dtype
        nhwc = image.is_contiguous(memory_format=torch.channels_last) and not image.is_contiguous()
        key = (tuple(image.shape), tuple(weight.shape), dtype, nhwc, torch.backends.cudnn.allow_tf32)
        self.searched.setdefault(key, torch.backends.cudnn.benchmark)
        if self.phase in TIMED:
            self.timed.add(key)
        return self._convolve(image, weight, *more, **options)  # type: ignore[no-any-return]

    def hear(self, event: object) -> None:
        if isinstance(event, PhaseStarted):
            self.phase = event.phase
        if isinstance(event, CellFinished):
            assert event.record.status == "ok", event.record.error_message


@pytest.fixture
def plans(monkeypatch: pytest.MonkeyPatch) -> Iterator[Plans]:
    threads = torch.get_num_threads()
    plans = Plans(F.conv2d)
    monkeypatch.setattr(F, "conv2d", plans.conv2d)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # nothing here depends on how fast it is
    yield plans
    torch.set_num_threads(threads)
    torch.set_flush_denormal(False)


def test_no_timed_convolution_ran_before_without_a_search(plans: Plans) -> None:
    # Two images are the first choice of whatever makes random weights comparable; the reference of TF32 and
    # of AMP runs in fp32, as cells of the same process do.
    task = task_for(batches=(2,), metrics=("latency", "numerics"))
    precisions: tuple[Precision, ...] = ("amp-bf16", "tf32", "fp32")
    cells = [structs.replace(cell, precision=each) for each in precisions for cell in task.group.cells]
    (group,) = grouped(cells)
    measure_group(structs.replace(task, group=group), plans.hear)
    network = {key for key in plans.timed if key[1] not in CANARY}
    assert len(network) == len(cells)
    assert {key for key in network if not plans.searched[key]} == set()
    assert not all(plans.searched.values()), "something ran without a search, or this test shows nothing"
