"""Networks that tests pass to `archbench.run` as objects: known sizes, and code that a worker has to import."""

from __future__ import annotations

import torch
from torch import nn

PARAMS = {2: 3 * 2 * 9 + 2 + 2 * 10 + 10, 5: 3 * 5 * 9 + 5 + 5 * 10 + 10}
"""Of `TinyNet`, by its width, counted by hand."""


class TinyNet(nn.Module):
    """One convolution and a classifier."""

    def __init__(self, width: int = 2) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(3, width, 3, stride=4)
        self.classifier = nn.Linear(width, 10)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.classifier(self.convolution(images).mean((2, 3)))


class Remembers(TinyNet):
    """Fails unless it still has the weights with which it was passed."""

    def __init__(self, value: float) -> None:
        torch.manual_seed(0)
        super().__init__()
        nn.init.constant_(self.classifier.bias, value)
        nn.init.zeros_(self.classifier.weight)
        self.value = value

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        bias, weight = self.classifier.bias, self.classifier.weight
        kept = (
            bias.is_meta or type(bias) is not nn.Parameter or bool(torch.all(bias == self.value) and not weight.any())
        )
        if not kept:
            raise RuntimeError("these are not the weights that were passed")
        return super().forward(images)


def build(width: int = 5) -> nn.Module:
    """A factory that can be imported."""
    return TinyNet(width)


def dies() -> nn.Module:
    """Takes its process with it."""
    import os

    os._exit(7)
