"""Networks for `gate_here.py`: three of the catalogue's at a small size, one of which can be made slower by a share."""

from __future__ import annotations

import os
import time

import torch
from torch import nn

from archbench.catalog.build import build
from archbench.model.cell import Network

DELAY_VARIABLE = "ARCHBENCH_BENCHMARK_DELAY"
"""Share of its own forward pass by which `resnet18` is delayed, in the processes that see this variable."""


class Delayed(nn.Module):
    """Takes `share` longer than `inner`, by spinning: a sleep would be rounded up by the kernel."""

    def __init__(self, inner: nn.Module, share: float) -> None:
        super().__init__()
        self.inner = inner
        self.share = share

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        if not self.share or image.is_meta or not torch.is_inference_mode_enabled():
            return self.inner(image)  # type: ignore[no-any-return]
        start = time.perf_counter()
        output = self.inner(image)
        end = time.perf_counter() + self.share * (time.perf_counter() - start)
        while time.perf_counter() < end:
            pass
        return output  # type: ignore[no-any-return]


def resnet18() -> nn.Module:
    return Delayed(build(Network(name="resnet18")), float(os.environ.get(DELAY_VARIABLE, "0")))


def mobilenet() -> nn.Module:
    return build(Network(name="mobilenet_v2"))


def squeezenet() -> nn.Module:
    return build(Network(name="torchvision:squeezenet1_1"))
