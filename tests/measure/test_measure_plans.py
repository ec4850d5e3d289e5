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
from test_measure_group import task_for

from archbench.measure import measure_group
from archbench.model.messages import CellFinished, PhaseStarted

Key = tuple[object, ...]
TIMED = {"latency", "throughput"}


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
    yield plans
    torch.set_num_threads(threads)
    torch.set_flush_denormal(False)


@pytest.mark.parametrize(
    "axes",
    [{}, {"precision": "amp-bf16"}],
    ids=lambda axes: "-".join(axes.values()) or "fp32",
)
def test_no_timed_convolution_ran_before_without_a_search(axes: dict[str, str], plans: Plans) -> None:
    # Two and three images are the first choices of whatever makes random weights comparable.
    measure_group(task_for(batches=(1, 2, 3), metrics=("latency", "throughput", "numerics"), **axes), plans.hear)
    network = {key for key in plans.timed if plans.searched[key]}
    assert len(network) >= 3, "the steps of three batch sizes"
    assert {key for key in plans.timed - network if key[1] != (64, 64, 3, 3)} == set()
    guessed = {key for key, searched in plans.searched.items() if not searched}
    assert guessed, "the reference does without the search"
