"""LeNet-5 (1998)."""

from __future__ import annotations

import random
from typing import Literal

import torch
from torch import Tensor, nn

from archbench.catalog.networks.layers import network
from archbench.model.axes import Head
from archbench.model.errors import UsageError

C3_INPUTS = (
    *(tuple((start + step) % 6 for step in range(3)) for start in range(6)),
    *(tuple((start + step) % 6 for step in range(4)) for start in range(6)),
    *((0, 1, 3, 4), (1, 2, 4, 5), (0, 2, 3, 5)),
    (0, 1, 2, 3, 4, 5),
)
"""Table I of the paper: which of the six maps of S2 each of the sixteen maps of C3 reads."""


class ScaledTanh(nn.Module):
    """The paper's squashing function, 1.7159 tanh(2x / 3)."""

    def forward(self, x: Tensor) -> Tensor:
        return 1.7159 * torch.tanh(x * (2 / 3))


class Subsampling(nn.Module):
    """Layers S2 and S4: the sum of each 2x2 square, times a trained coefficient, plus a trained bias, per map."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.coefficient = nn.Parameter(torch.full((channels, 1, 1), 0.25))
        self.bias = nn.Parameter(torch.zeros(channels, 1, 1))
        self.sum = nn.AvgPool2d(2, divisor_override=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.sum(x) * self.coefficient + self.bias  # type: ignore[no-any-return]


class PartialConv(nn.Module):
    """Layer C3: sixteen 5x5 filters, each over its own choice of the six input maps."""

    def __init__(self) -> None:
        super().__init__()
        self.filters = nn.ModuleList(nn.Conv2d(len(maps), 1, 5) for maps in C3_INPUTS)

    def forward(self, x: Tensor) -> Tensor:
        # Slices and not an index tensor: nothing to move between devices, and no copy before the concatenation.
        maps = torch.split(x, 1, dim=1)
        pairs = zip(self.filters, C3_INPUTS, strict=True)
        return torch.cat([conv(torch.cat([maps[i] for i in chosen], dim=1)) for conv, chosen in pairs], dim=1)


class RadialBasis(nn.Module):
    """Output layer: minus the squared distance of the input to a fixed code of -1 and +1 for each class.

    [N, features] to [N, num_classes]. The paper takes 7x12 bitmaps of the digits as codes and names random codes as
    an alternative; these are random, from a fixed seed. The paper's penalty is negated so that the largest output is
    the answer, as everywhere else.
    """

    def __init__(self, features: int, num_classes: int) -> None:
        super().__init__()
        draw = random.Random(1998)
        codes = [draw.choices((-1.0, 1.0), k=features) for _ in range(num_classes)]
        self.register_buffer("codes", torch.tensor(codes))
        self.codes: Tensor

    def forward(self, x: Tensor) -> Tensor:
        squares = x.square().sum(dim=1, keepdim=True) + x.shape[1]
        return 2 * x @ self.codes.T - squares


def lenet5(
    num_classes: int = 10,
    in_channels: int = 1,
    head: Head = "classifier",
    *,
    variant: Literal["paper", "common"] = "paper",
) -> nn.Module:
    """LeNet-5. LeCun, Bottou, Bengio, Haffner: Gradient-based learning applied to document recognition, 1998, fig. 2.

    [N, 1, 32, 32] to [N, 10]; without head the maps of S4, [N, 16, 5, 5].

    The default is the paper's network and has its 60,000 trainable parameters exactly: partial connections in C3,
    trained subsampling, radial basis outputs with fixed codes (random ones: see `RadialBasis`). `variant="common"` is
    what is usually meant today: full C3, plain average pooling, tanh and a linear output, 61,706 parameters. Raises
    UsageError for any other variant.
    """
    if variant not in ("paper", "common"):
        raise UsageError(f"lenet5: variant={variant}: it is paper or common")
    paper = variant == "paper"

    def squash() -> nn.Module:
        return ScaledTanh() if paper else nn.Tanh()

    def pool(channels: int) -> nn.Module:
        return nn.Sequential(Subsampling(channels), squash()) if paper else nn.AvgPool2d(2)

    features = nn.Sequential(
        nn.Conv2d(in_channels, 6, 5),
        squash(),
        pool(6),
        PartialConv() if paper else nn.Conv2d(6, 16, 5),
        squash(),
        pool(16),
    )

    def classifier() -> nn.Module:
        output = RadialBasis(84, num_classes) if paper else nn.Linear(84, num_classes)
        return nn.Sequential(
            nn.Conv2d(16, 120, 5), squash(), nn.Flatten(1), nn.Linear(120, 84), squash(), output
        )  # fmt: skip

    return network(features, classifier, head)


BUILDERS = (lenet5,)
