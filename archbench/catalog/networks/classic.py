"""Plain chains of convolutions: LeNet-5 (1998), AlexNet (2012), ZFNet (2013), Network in Network (2013)."""

from __future__ import annotations

import random
from typing import Literal

import torch
from torch import Tensor, nn

from archbench.catalog.networks.layers import fully_connected, network
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


def _normalise() -> nn.Module:
    return nn.LocalResponseNorm(5, alpha=5e-4, beta=0.75, k=2.0)


def alexnet_2012(num_classes: int = 1000, in_channels: int = 3, head: Head = "classifier") -> nn.Module:
    """AlexNet. Krizhevsky, Sutskever, Hinton: ImageNet classification with deep CNNs, NIPS 2012, section 3.5.

    [N, 3, 227, 227] to [N, 1000]; without head [N, 256, 6, 6]. 60,965,224 parameters (paper: 60 million), 0.724 GMACs.

    The two towers of the paper's two GPUs are groups of convolutions 2, 4 and 5. The paper says 224 px, but its 55x55
    maps need 227. Local response normalisation: torch averages over the five channels where the paper sums, hence
    alpha 5e-4 for the paper's 1e-4. The single-tower network of 2014 is torchvision's `alexnet`.
    """
    features = nn.Sequential(
        nn.Conv2d(in_channels, 96, 11, stride=4),
        nn.ReLU(inplace=True),
        _normalise(),
        nn.MaxPool2d(3, stride=2),
        nn.Conv2d(96, 256, 5, padding=2, groups=2),
        nn.ReLU(inplace=True),
        _normalise(),
        nn.MaxPool2d(3, stride=2),
        nn.Conv2d(256, 384, 3, padding=1),
        nn.ReLU(inplace=True),
        nn.Conv2d(384, 384, 3, padding=1, groups=2),
        nn.ReLU(inplace=True),
        nn.Conv2d(384, 256, 3, padding=1, groups=2),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(3, stride=2),
    )
    return network(features, lambda: fully_connected(256, 6, num_classes), head)


def zfnet(num_classes: int = 1000, in_channels: int = 3, head: Head = "classifier") -> nn.Module:
    """ZFNet. Zeiler, Fergus: Visualizing and understanding convolutional networks, 1311.2901, figure 3.

    [N, 3, 224, 224] to [N, 1000]; without head [N, 256, 6, 6]. 62,357,608 parameters, 1.17 GMACs.

    Local response normalisation stands for the figure's "contrast norm", as in the authors' description of AlexNet.
    Pooling rounds up, which gives the figure's 110, 55, 26, 13 and 6.
    """
    features = nn.Sequential(
        nn.Conv2d(in_channels, 96, 7, stride=2, padding=1),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(3, stride=2, ceil_mode=True),
        _normalise(),
        nn.Conv2d(96, 256, 5, stride=2),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(3, stride=2, ceil_mode=True),
        _normalise(),
        nn.Conv2d(256, 384, 3, padding=1),
        nn.ReLU(inplace=True),
        nn.Conv2d(384, 384, 3, padding=1),
        nn.ReLU(inplace=True),
        nn.Conv2d(384, 256, 3, padding=1),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(3, stride=2),
    )
    return network(features, lambda: fully_connected(256, 6, num_classes), head)


def _mlpconv(
    in_channels: int, widths: tuple[int, int, int], kernel_size: int, stride: int = 1, padding: int = 0
) -> nn.Sequential:
    """A convolution and two 1x1 convolutions, each with relu."""
    first, second, third = widths
    return nn.Sequential(
        nn.Conv2d(in_channels, first, kernel_size, stride, padding),
        nn.ReLU(inplace=True),
        nn.Conv2d(first, second, 1),
        nn.ReLU(inplace=True),
        nn.Conv2d(second, third, 1),
        nn.ReLU(inplace=True),
    )


def _average() -> nn.Sequential:
    """The classifier of NiN: every class has a map of its own, whose average is its score."""
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(1))


def nin_imagenet(num_classes: int = 1000, in_channels: int = 3, head: Head = "classifier") -> nn.Module:
    """NiN for ImageNet. Lin, Chen, Yan: Network in network, 1312.4400.

    [N, 3, 224, 224] to [N, 1000]; without head the class maps, [N, 1000, 6, 6]. 7,595,176 parameters, 1.10 GMACs.

    The paper has no ImageNet network: this is the authors' released one, whose weights everybody used (four mlpconv
    layers). Its pooling rounds up; where 0.97 GMACs are quoted, pooling rounded down.
    """
    features = nn.Sequential(
        _mlpconv(in_channels, (96, 96, 96), 11, stride=4),
        nn.MaxPool2d(3, stride=2, ceil_mode=True),
        _mlpconv(96, (256, 256, 256), 5, padding=2),
        nn.MaxPool2d(3, stride=2, ceil_mode=True),
        _mlpconv(256, (384, 384, 384), 3, padding=1),
        nn.MaxPool2d(3, stride=2, ceil_mode=True),
        nn.Dropout(0.5),
        _mlpconv(384, (1024, 1024, num_classes), 3, padding=1),
    )
    return network(features, _average, head)


def nin_cifar10(num_classes: int = 10, in_channels: int = 3, head: Head = "classifier") -> nn.Module:
    """NiN for CIFAR-10. Lin, Chen, Yan: Network in network, 1312.4400, section 4.

    [N, 3, 32, 32] to [N, 10]; without head the class maps, [N, 10, 8, 8]. 966,986 parameters, 0.22 GMACs.

    The widths are those of the authors' released network; the paper gives only the number of layers.
    """
    features = nn.Sequential(
        _mlpconv(in_channels, (192, 160, 96), 5, padding=2),
        nn.MaxPool2d(3, stride=2, ceil_mode=True),
        nn.Dropout(0.5),
        _mlpconv(96, (192, 192, 192), 5, padding=2),
        nn.AvgPool2d(3, stride=2, ceil_mode=True),
        nn.Dropout(0.5),
        _mlpconv(192, (192, 192, num_classes), 3, padding=1),
    )
    return network(features, _average, head)
