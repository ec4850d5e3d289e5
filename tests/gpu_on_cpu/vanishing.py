"""A network under which the card falls off its bus."""

from __future__ import annotations

import os
from pathlib import Path

import torch
from torch import Tensor, nn


class _Vanishing(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))

    def forward(self, images: Tensor) -> Tensor:
        if images.device.type == "meta":  # counted, not run
            return images.new_zeros(len(images), 10)
        Path(os.environ["STUB_LOST_FILE"]).touch()
        raise RuntimeError("CUDA error: unspecified launch failure")


def network() -> nn.Module:
    return _Vanishing()
